"""Suggestions: which article a code that names none might be.

Law: a suggestion is evidence for a person and changes nothing. Its confidence counts what the channel says against what we have:
what it does not say confirms nothing, what it says otherwise forbids, and where two articles fit alike neither is likely.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from rapidfuzz import fuzz, process

from orderstream.catalogue import colours, images
from orderstream.catalogue.article import Article
from orderstream.catalogue.images import Images
from orderstream.catalogue.index import Catalogue
from orderstream.catalogue.listing import Listing
from orderstream.identity import plain

WEIGHTS = {"title": 50, "colour": 20, "spec": 15, "price": 15, "image": 20}
"""Points of a full agreement. Only what the article has counts; an image only where both are at hand."""

SHORTLIST = 40
"""Articles that are looked at closely, the most alike by title."""

FORBIDDEN = 20
"""Confidence at most where the colour or a spec is another."""

TWINS = 3
"""Articles whose points lie this close are alike: each is at most one of so many."""


class Ground(NamedTuple):
    """One piece of evidence. likeness: 0-100; None: the channel does not say. says: what was compared."""

    what: str
    likeness: int | None
    says: str


class Suggestion(msgspec.Struct, frozen=True):
    """An article that a code might be. confidence: 0-100, of a person's agreement; never applied by itself."""

    channel: str
    shop: str
    code: str
    sku: str
    name: str
    confidence: int
    grounds: tuple[Ground, ...]


class Suggester:
    """The articles as of `at` (ms UTC), ready to be compared."""

    def __init__(self, catalogue: Catalogue, at: int, pictures: Images | None = None) -> None:
        self._articles = {article.sku: article for article in catalogue.articles(at)}
        # with its colour and options: two variants share their name alone
        self._names = {sku: plain(_whole(article)) for sku, article in self._articles.items()}
        self._pictures = pictures or Images(None)

    def of(self, listing: Listing, most: int = 3) -> list[Suggestion]:
        """The likeliest articles, the best first; none where nothing is like it."""
        said = plain(" ".join(filter(None, (listing.title, listing.colour, *listing.spec.values()))) or listing.code)
        hits = process.extract(said, self._names, scorer=fuzz.WRatio, limit=SHORTLIST, score_cutoff=30)
        judged = [self._judge(listing, self._articles[str(sku)]) for _, _, sku in hits]
        best = sorted(judged, key=lambda s: (-s.confidence, s.sku))
        return [_among(one, best) for one in best[:most]]

    def _judge(self, listing: Listing, article: Article) -> Suggestion:
        grounds = [g for g in (_title(listing, article), _colour(listing, article), *_spec(listing, article)) if g is not None]
        grounds += [g for g in (_price(listing, article), self._image(listing, article)) if g is not None]
        full = points = 0.0
        specs = sum(g.what.startswith("spec") for g in grounds)
        for ground in grounds:
            kind = ground.what.partition(" ")[0]
            weight = WEIGHTS[kind] / (specs if kind == "spec" else 1)
            full += weight
            points += weight * (ground.likeness or 0) / 100
        confidence = round(100 * points / full)
        if any(g.likeness == 0 and g.what != "price" for g in grounds):
            confidence = min(confidence, FORBIDDEN)
        return Suggestion(listing.channel, listing.shop, listing.code, article.sku, article.name, confidence, tuple(grounds))

    def _image(self, listing: Listing, article: Article) -> Ground | None:
        theirs = self._pictures.hash(listing.image, listing.code)
        ours = self._pictures.hash(article.image, article.sku)
        if theirs is None or ours is None:
            return None
        bits = images.apart(theirs, ours)
        # 32 bits is what two pictures have by chance; beyond SAME it is another photo, which forbids nothing
        return Ground("image", max(1, round(100 * (1 - bits / 32))), f"{bits}/64")


def suggestions(suggester: Suggester, listings: Iterable[Listing], most: int = 3) -> list[list[Suggestion]]:
    """Of each listing; those that were sold most come first."""
    ordered = sorted(listings, key=lambda one: (-one.orders, one.key))
    return [suggester.of(one, most) for one in ordered]


def _among(one: Suggestion, all_of_them: list[Suggestion]) -> Suggestion:
    alike = sum(abs(other.confidence - one.confidence) <= TWINS for other in all_of_them)
    if alike == 1:
        return one
    return msgspec.structs.replace(one, confidence=min(one.confidence, 100 // alike))


def _whole(article: Article) -> str:
    return " ".join((article.name, article.colour.name if article.colour else "", *article.spec.values()))


def _title(listing: Listing, article: Article) -> Ground:
    if not listing.title:
        return Ground("title", None, "—")
    likeness = max(
        fuzz.token_set_ratio(listing.title.casefold(), article.name.casefold()),
        fuzz.WRatio(plain(listing.title), plain(article.name)),
        fuzz.partial_ratio(plain(article.name), plain(listing.title)) if len(plain(article.name)) > 2 else 0,
    )
    return Ground("title", max(1, int(likeness)), f"{listing.title} ~ {article.name}")


def _colour(listing: Listing, article: Article) -> Ground | None:
    if article.colour is None:
        return None
    stated = listing.colour
    if stated is None or colours.states_none(stated):
        # many titles say it: 收纳架 胡桃木色
        shades = colours.read(listing.title) if listing.title else None
        if not shades or len(shades) != 1:
            return Ground("colour", None, f"— ~ {article.colour.name}")
        stated = listing.title or ""
    says = f"{stated} ~ {article.colour.name}"
    if plain(stated) == plain(article.colour.name):
        return Ground("colour", 100, says)
    distance = colours.apart(stated, article.colour.name, article.colour.hex)
    if distance is None:
        return Ground("colour", None, says)
    likeness = 0 if distance > colours.ALIKE else round(100 - 40 * distance / colours.ALIKE)
    return Ground("colour", likeness, f"{says} (ΔE {distance:.1f})")


def _spec(listing: Listing, article: Article) -> list[Ground]:
    said = {plain(name): value for name, value in listing.spec.items()}
    text = plain(" ".join(filter(None, (listing.title, *listing.spec.values()))))
    out: list[Ground] = []
    for name, ours in article.spec.items():
        stated = said.get(plain(name))
        if stated is not None:
            likeness = 100 if plain(stated) == plain(ours) else 0
            out.append(Ground(f"spec {name}", likeness, f"{stated} ~ {ours}"))
        elif plain(ours) and plain(ours) in text:
            out.append(Ground(f"spec {name}", 80, ours))
        else:
            out.append(Ground(f"spec {name}", None, f"— ~ {ours}"))
    return out


def _price(listing: Listing, article: Article) -> Ground | None:
    if not article.base:
        return None
    if listing.price is None or listing.currency != article.currency:
        return Ground("price", None, "—")
    # prices differ by campaign: half or double says nothing for it any more
    ratio = min(listing.price, article.base) / max(listing.price, article.base)
    return Ground("price", max(0, round(200 * ratio - 100)), f"{listing.price} ~ {article.base}")
