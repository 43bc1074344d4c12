"""The catalogue: a channel's code to our article, bundles to pieces, gifts to their mains, an order to what leaves together.

Law: mapping is a lookup, never a guess. A code that maps to no article, or to two, is said so with the nearest names, and an
entry counts from its `at`: an order is read with the catalogue in force when it was received, so replaying it later gives the
same order.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
from rapidfuzz import fuzz, process

from orderstream import money, times
from orderstream.identity import plain
from orderstream.orders import Line, Order, Unit

ALWAYS = -1
"""`at` of an entry that holds from the beginning."""

MAX_PIECES = 10_000
"""Of a component in a bundle: past it is a mistake, and bundles of bundles would leave 64 bits."""

MAX_GRAMS = 10**9

_HS_CODE = re.compile(r"\d{6}(\d{2}){0,2}(\d{3})?")


class CatalogueError(ValueError):
    """A catalogue line that cannot be an article; the sentence says which line and why."""


class Colour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    name: str
    hex: str | None = None


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A channel's name for the article; shop None: in every shop of the channel."""

    channel: str
    code: str
    shop: str | None = None


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    sku: str
    quantity: int


class Gift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The condition of a gift: lines of `with_any` (empty: any main line) that come to at least min_total (major units)."""

    with_any: tuple[str, ...] = ()
    min_total: Decimal = Decimal(0)


class CustomsNeeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    required: tuple[str, ...] = ()


class Article(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One line of a catalogue file. base_price: major units of `currency`; weight_g: grams; at: ISO 8601, absent: always."""

    sku: str
    name: str
    base_price: Decimal | None = None
    currency: str = "CNY"
    colour: Colour | None = None
    image: str | None = None
    hs_code: str | None = None
    weight_g: int | None = None
    codes: tuple[Code, ...] = ()
    components: tuple[Component, ...] = ()
    gift: Gift | None = None
    spec: dict[str, str] = {}
    place: str | None = None
    presale: bool = False
    customs: CustomsNeeds | None = None
    at: str | None = None

    @property
    def base(self) -> int | None:
        """Base price in minor units of `currency`."""
        return None if self.base_price is None else money.minor(self.base_price, self.currency)


class Unmapped(msgspec.Struct, frozen=True, gc=False):
    """A line whose code names no article ("unknown") or several ("ambiguous"); nearest: [sku, name, likeness 0-100]."""

    line: str
    code: str | None
    why: str
    nearest: tuple[tuple[str, str, int], ...]


_decoder = msgspec.json.Decoder(Article)


def read_article(line: bytes | str) -> tuple[int, Article]:
    """(`at` in ms, the article) of one catalogue line. Raises CatalogueError with a sentence."""
    try:
        article = _decoder.decode(line)
        if article.currency not in money.EXPONENT:
            raise CatalogueError(f"currency {article.currency!r} is not an ISO 4217 code")
        if article.base is not None and article.base < 0:
            raise CatalogueError("base_price is below zero")
        if article.gift is not None:
            money.minor(article.gift.min_total, article.currency)
        if not all((article.sku, article.name, *(c.code for c in article.codes), *(c.sku for c in article.components))):
            raise CatalogueError("a sku, name or code is empty")
        if not all(1 <= c.quantity <= MAX_PIECES for c in article.components):
            raise CatalogueError(f"a component's quantity is not 1 to {MAX_PIECES}")
        if any(c.sku == article.sku for c in article.components):
            raise CatalogueError("it is a component of itself")
        if article.weight_g is not None and not 0 <= article.weight_g <= MAX_GRAMS:
            raise CatalogueError("weight_g is no weight")
        return (ALWAYS if article.at is None else times.parse(article.at)), article
    except (msgspec.DecodeError, money.AmountError, times.TimeError) as error:
        raise CatalogueError(str(error)) from error
    except UnicodeDecodeError as error:
        raise CatalogueError("is not UTF-8") from error


class Catalogue:
    """Every version of every article, and the way from codes to them. Grows by `add`; reads are as of a time (ms UTC)."""

    def __init__(self, articles: Iterable[tuple[int, Article]] = ()) -> None:
        self._versions: dict[str, list[tuple[int, Article]]] = {}
        self._by_code: dict[tuple[str, str | None, str], set[str]] = {}
        self._nearest: dict[tuple[str, int], tuple[tuple[str, str, int], ...]] = {}
        self.size = 0
        for at, article in articles:
            self.add(at, article)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """From a catalogue file (JSON lines). Raises CatalogueError naming the line."""
        catalogue = cls()
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        catalogue.add(*read_article(line))
                    except CatalogueError as error:
                        raise CatalogueError(f"{path.name}:{number}: {error}") from error
        return catalogue

    def add(self, at: int, article: Article) -> None:
        """An article as it is from `at` on; the same (sku, at) again replaces it."""
        versions = self._versions.setdefault(article.sku, [])
        index = bisect.bisect_left(versions, at, key=lambda v: v[0])
        if index < len(versions) and versions[index][0] == at:
            versions[index] = (at, article)
        else:
            versions.insert(index, (at, article))
        for code in article.codes:
            self._by_code.setdefault((code.channel, code.shop, code.code), set()).add(article.sku)
        self._nearest.clear()
        self.size += 1

    def article(self, sku: str, at: int) -> Article | None:
        """The article as of `at`, or None where there is none (yet)."""
        versions = self._versions.get(sku)
        if not versions:
            return None
        if len(versions) == 1:
            return versions[0][1] if versions[0][0] <= at else None
        index = bisect.bisect_right(versions, at, key=lambda v: v[0])
        return versions[index - 1][1] if index else None

    def skus(self, channel: str, shop: str, code: str, at: int) -> list[str]:
        """The articles that a channel's code names as of `at`; a mapping for the shop goes before one for the channel."""
        for scope in (shop, None):
            found = [s for s in self._by_code.get((channel, scope, code), ()) if self._bears(s, channel, scope, code, at)]
            if found:
                return sorted(found)
        return []

    def _bears(self, sku: str, channel: str, scope: str | None, code: str, at: int) -> bool:
        article = self.article(sku, at)
        return article is not None and any(c.code == code and c.channel == channel and c.shop == scope for c in article.codes)

    def nearest(self, text: str, at: int, most: int = 3) -> tuple[tuple[str, str, int], ...]:
        """The articles whose names are most like a text: (sku, name, likeness 0-100), best first."""
        cached = self._nearest.get((text, most))
        if cached is None:
            names = {sku: article.name for sku in sorted(self._versions) if (article := self.article(sku, at))}
            hits = process.extract(plain(text), names, scorer=fuzz.WRatio, processor=plain, limit=most, score_cutoff=30)
            cached = tuple((str(sku), name, int(score)) for name, score, sku in sorted(hits, key=lambda h: (-int(h[1]), h[2])))
            if len(self._nearest) > 10_000:
                self._nearest.clear()
            self._nearest[text, most] = cached
        return cached

    def pieces(self, sku: str, quantity: int, at: int, depth: int = 8) -> dict[str, int]:
        """What is taken from the shelf for `quantity` of an article: a bundle's components, otherwise itself."""
        article = self.article(sku, at)
        if article is None or not article.components or depth == 0:
            return {sku: quantity}
        out: dict[str, int] = {}
        for part in article.components:
            for piece, count in self.pieces(part.sku, part.quantity * quantity, at, depth - 1).items():
                out[piece] = out.get(piece, 0) + count
        return out


class Resolved(msgspec.Struct, gc=False):
    """What the catalogue says of an order: its lines with our articles, the pieces, and what does not fit."""

    lines: tuple[Line, ...]
    articles: dict[str, Article]
    """Line id -> article."""
    pieces: dict[str, int]
    """SKU -> pieces of the whole order, bundles expanded."""
    units: tuple[Unit, ...]
    unmapped: tuple[Unmapped, ...] = ()
    gifts_without_main: tuple[str, ...] = ()
    gifts_unknown: tuple[str, ...] = ()
    """Gift lines whose condition can't be known: their own code, or that of a line that might be their main, is unmapped."""
    wrong_variants: tuple[dict[str, str], ...] = ()
    variants_unknown: tuple[str, ...] = ()
    papers_missing: tuple[dict[str, str], ...] = ()
    wrong_hs_codes: tuple[dict[str, str], ...] = ()
    hs_codes_unknown: tuple[str, ...] = ()


def resolve(order: Order, catalogue: Catalogue, at: int) -> Resolved:
    """Reads an order with the catalogue in force at `at` (ms UTC)."""
    lines: list[Line] = []
    articles: dict[str, Article] = {}
    unmapped: list[Unmapped] = []
    for line in order.lines:
        skus = catalogue.skus(order.channel, order.shop, line.code, at) if line.code is not None else []
        article = catalogue.article(skus[0], at) if len(skus) == 1 else None
        if article is None:
            why = "ambiguous" if skus else "unknown"
            text = line.title or line.code or ""
            unmapped.append(Unmapped(line.id, line.code, why, catalogue.nearest(text, at)))
            lines.append(line if line.gift is not None else msgspec.structs.replace(line, gift=False))
            continue
        gift = line.gift if line.gift is not None else article.gift is not None and line.price == 0
        lines.append(msgspec.structs.replace(line, sku=article.sku, gift=gift))
        articles[line.id] = article
    pieces: dict[str, int] = {}
    for line in lines:
        if line.sku is not None:
            for sku, count in catalogue.pieces(line.sku, line.quantity, at).items():
                pieces[sku] = pieces.get(sku, 0) + count
    found = Resolved(tuple(lines), articles, pieces, units=(), unmapped=tuple(unmapped))
    mains = _check_gifts(found)
    _check_variants(found, order)
    _check_papers(found, order)
    found.units = _units(found, order, catalogue, at, mains)
    return found


def _check_gifts(found: Resolved) -> dict[str, str]:
    """Gift line -> the main line it goes with; fills gifts_without_main and gifts_unknown."""
    goes_with: dict[str, str] = {}
    without: list[str] = []
    unknown: list[str] = []
    mains = [line for line in found.lines if not line.gift]
    for line in found.lines:
        if not line.gift:
            continue
        article = found.articles.get(line.id)
        condition = article.gift if article is not None and article.gift is not None else Gift()
        able = [m for m in mains if not condition.with_any or m.sku in condition.with_any]
        needed = money.minor(condition.min_total, article.currency if article else "CNY")
        if article is not None and able and sum(m.price * m.quantity for m in able) >= needed:
            goes_with[line.id] = able[0].id
        elif article is None or any(m.sku is None for m in mains):
            unknown.append(line.id)
        else:
            without.append(line.id)
    found.gifts_without_main, found.gifts_unknown = tuple(without), tuple(unknown)
    return goes_with


COLOUR_KEYS = frozenset(plain(k) for k in ("颜色", "颜色分类", "色", "colour", "color", "主要颜色", "款式颜色"))
_POSITION = re.compile(r"option\d+")


def _check_variants(found: Resolved, order: Order) -> None:
    """The colour and spec that the channel states against the mapped article's."""
    wrong: list[dict[str, str]] = []
    unknown: list[str] = []
    colours = {plain(a.colour.name) for a in found.articles.values() if a.colour}
    for line in order.lines:
        article = found.articles.get(line.id)
        if article is None:
            unknown.append(line.id)
            continue
        wanted = {plain(k): v for k, v in article.spec.items()}
        if article.colour is None and not wanted:
            continue
        compared = False
        for key, stated in line.spec.items():
            k = plain(key)
            ours = article.colour.name if k in COLOUR_KEYS and article.colour else wanted.get(k)
            if ours is None and _POSITION.fullmatch(k):
                # a channel without option names: the value itself must say which option it is
                options = [v for v in (article.colour.name if article.colour else None, *article.spec.values()) if v]
                ours = next((o for o in options if plain(o) == plain(stated)), None)
                if ours is None and plain(stated) in colours and article.colour:
                    ours = article.colour.name
            if ours is None:
                continue
            compared = True
            if plain(stated) != plain(ours):
                wrong.append({"line": line.id, "stated": stated, "article": ours, "sku": article.sku})
        if not compared:
            unknown.append(line.id)
    found.wrong_variants, found.variants_unknown = tuple(wrong), tuple(unknown)


def _check_papers(found: Resolved, order: Order) -> None:
    """Customs papers that the articles need, and HS codes as stated against the articles'."""
    missing: list[dict[str, str]] = []
    wrong: list[dict[str, str]] = []
    unknown: list[str] = []
    codes = order.customs.hs_codes if order.customs else {}
    given = set() if order.customs is None or order.customs.declaration is None else {"declaration"}
    for line in order.lines:
        article = found.articles.get(line.id)
        stated = codes.get(line.id)
        if article is not None and article.customs is not None:
            have = given | ({"hs_code"} if stated else set())
            missing += [{"line": line.id, "paper": p} for p in article.customs.required if p not in have]
        if stated is not None and not valid_hs_code(stated):
            wrong.append({"line": line.id, "stated": stated, "article": (article.hs_code if article else None) or ""})
        elif stated is None or article is None or article.hs_code is None:
            unknown.append(line.id)
        elif _hs(stated) != _hs(article.hs_code):
            wrong.append({"line": line.id, "stated": stated, "article": article.hs_code})
    found.papers_missing, found.wrong_hs_codes, found.hs_codes_unknown = tuple(missing), tuple(wrong), tuple(unknown)


def _hs(code: str) -> str:
    return code.replace(".", "").replace(" ", "")


def valid_hs_code(code: str) -> bool:
    """6, 8 or 10 digits (13 with China's inspection suffix) of a chapter that exists: 01-97 without the reserved 77."""
    digits = _hs(code)
    return bool(_HS_CODE.fullmatch(digits)) and "01" <= digits[:2] <= "97" and digits[:2] != "77"


def _units(found: Resolved, order: Order, catalogue: Catalogue, at: int, goes_with: dict[str, str]) -> tuple[Unit, ...]:
    """What leaves together: by stock place and kind; a gift leaves with its main line."""
    home: dict[str, tuple[str, str | None]] = {}
    for line in found.lines:
        article = found.articles.get(line.id)
        if article is None or line.gift:
            continue
        kind = "presale" if article.presale or order.presale else "bonded" if article.customs is not None else "own"
        home[line.id] = (kind, article.place)
    groups: dict[tuple[str, str | None], tuple[dict[str, int], list[str]]] = {}
    for line in found.lines:
        if line.sku is None:
            continue
        article = found.articles[line.id]
        place = home.get(line.id) or home.get(goes_with.get(line.id, "")) or ("gift", article.place)
        skus, members = groups.setdefault(place, ({}, []))
        members.append(line.id)
        for sku, count in catalogue.pieces(line.sku, line.quantity, at).items():
            skus[sku] = skus.get(sku, 0) + count
    ordered = sorted(groups.items(), key=lambda g: (g[0][0], g[0][1] or ""))
    return tuple(Unit(kind, skus, place, tuple(members)) for (kind, place), (skus, members) in ordered)  # type: ignore[arg-type]
