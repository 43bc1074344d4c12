"""Articles: what the catalogue has beside what a channel says, for the eye.

Law: a page never waits for the catalogue. It is read from Kafka behind the pages and read again when it is old or was just changed;
until then, and while Kafka is away, a page shows what the order itself says.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from orderstream.board.web.behind import Behind
from orderstream.broker import require
from orderstream.catalogue import colours
from orderstream.catalogue import store as catalogue_store
from orderstream.catalogue.article import Article
from orderstream.catalogue.index import Catalogue
from orderstream.catalogue.listing import Listing
from orderstream.catalogue.resolve import COLOUR_KEYS
from orderstream.catalogue.suggest import Suggester, Suggestion
from orderstream.identity import plain
from orderstream.settings import Settings

OLD = 300.0
"""Seconds after which the catalogue is read again, when somebody looks."""


class Seen(NamedTuple):
    """A line of an order beside its article. colour, ours: "#rrggbb", None where nothing says one."""

    line: dict[str, Any]
    article: Article | None
    colour: str | None
    ours: str | None
    base: int | None
    percent: int | None
    """Price of a piece in percent of the base price, where both are in one currency."""
    suggestions: list[Suggestion]


class Articles:
    """The catalogue as it was last read."""

    def __init__(self, settings: Settings) -> None:
        self._behind = Behind("catalogue", lambda: catalogue_store.of_topic(settings, require(settings).address), OLD)
        self._nothing = Catalogue()

    def catalogue(self) -> Catalogue:
        """What is known now."""
        return self._behind.get() or self._nothing

    def stale(self) -> None:
        """It was changed: who looks next has it read again."""
        self._behind.stale()

    def beside(self, document: dict[str, Any], at: int) -> list[Seen]:
        """An order's lines beside their articles, as of `at` (ms)."""
        catalogue = self.catalogue()
        out = []
        for line in document.get("lines", ()):
            article = catalogue.article(line["sku"], at) if line.get("sku") else None
            base = None if article is None or article.currency != document.get("currency") else article.base
            out.append(
                Seen(
                    line,
                    article,
                    _stated(line),
                    None if article is None or article.colour is None else article.colour.hex or shade(article.colour.name),
                    base,
                    round(100 * line["price"] / base) if base else None,
                    self._near(catalogue, document, line, at) if line.get("sku") is None and line.get("code") else [],
                )
            )
        return out

    @staticmethod
    def _near(catalogue: Catalogue, document: dict[str, Any], line: dict[str, Any], at: int) -> list[Suggestion]:
        if not catalogue.size:
            return []
        listing = Listing(
            document["channel"],
            document["shop"],
            line["code"],
            title=line.get("title"),
            spec=line.get("spec", {}),
            price=line.get("price"),
            currency=document["currency"],
        )
        colour = next((value for key, value in listing.spec.items() if plain(key) in COLOUR_KEYS), None)
        if colour is not None:
            listing.colours[colour] += 1
        return Suggester(catalogue, at).of(listing)


def _stated(line: dict[str, Any]) -> str | None:
    for key, value in (line.get("spec") or {}).items():
        if plain(key) in COLOUR_KEYS:
            return shade(value)
    return None


def shade(name: str) -> str | None:
    """A colour's name as "#rrggbb"; None where it names none, or several."""
    found = colours.read(name) if len(name) <= colours.LONGEST else None
    return _hex(found[0]) if found is not None and len(found) == 1 else None


def _hex(lab: colours.Lab) -> str:
    """CIE L*a*b* under D65 to sRGB, what is out of its reach cut off."""
    y = (lab.light + 16) / 116
    x, z = (0.95047 * _uncube(y + lab.a / 500), 1.08883 * _uncube(y - lab.b / 200))
    y = _uncube(y)
    linear = (
        3.2404542 * x - 1.5371385 * y - 0.4985314 * z,
        -0.9692660 * x + 1.8760108 * y + 0.0415560 * z,
        0.0556434 * x - 0.2040259 * y + 1.0572252 * z,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, one)))):02x}" for one in linear)


def _uncube(value: float) -> float:
    return value**3 if value > 6 / 29 else 3 * (6 / 29) ** 2 * (value - 4 / 29)


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
