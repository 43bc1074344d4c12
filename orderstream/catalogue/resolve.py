"""An order read with the catalogue: its lines as our articles, what does not fit, and what leaves together.

Law: a code that maps to no article, or to two, or to a bundle that can't be taken apart, is said so.
What the order or the catalogue does not tell is unknown, never fine.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from orderstream.catalogue import colours, gifts, units
from orderstream.catalogue.article import Article, Colour
from orderstream.catalogue.index import BundleError, Catalogue
from orderstream.identity import plain
from orderstream.orders import Line, Order, Unit

_HS_CODE = re.compile(r"\d{6}(\d{2}){0,2}(\d{3})?")


class Unmapped(msgspec.Struct, frozen=True, gc=False):
    """A line whose code names no article ("unknown"), several ("ambiguous"), or a bundle that can't be taken apart ("cycle: …").

    text: what the channel calls the article: `Catalogue.nearest` says what that is like.
    """

    line: str
    code: str | None
    why: str
    text: str


class Resolved(msgspec.Struct, gc=False):
    """What the catalogue says of an order: its lines with our articles, the pieces, and what does not fit."""

    lines: tuple[Line, ...]
    articles: dict[str, Article]
    """Line id -> article."""
    pieces: dict[str, int]
    """SKU -> pieces of the whole order, bundles expanded."""
    units: tuple[Unit, ...]
    unplaced: int = 0
    """Minor units of the order's total that belong to no unit: those of its unmapped lines."""
    unmapped: tuple[Unmapped, ...] = ()
    gifts_without_main: tuple[str, ...] = ()
    gifts_unknown: tuple[str, ...] = ()
    """Gift lines whose condition can't be known: their own code, or that of a line that might be their main, is unmapped, or the
    order is in another currency than the condition."""
    wrong_variants: tuple[dict[str, str], ...] = ()
    variants_unknown: tuple[str, ...] = ()
    papers_missing: tuple[dict[str, str], ...] = ()
    wrong_hs_codes: tuple[dict[str, str], ...] = ()
    hs_codes_unknown: tuple[str, ...] = ()


def resolve(order: Order, catalogue: Catalogue, at: int) -> Resolved:
    """Reads an order with the catalogue in force at `at` (ms UTC)."""
    lines: list[Line] = []
    articles: dict[str, Article] = {}
    by_line: dict[str, dict[str, int]] = {}
    unmapped: list[Unmapped] = []
    pieces: dict[str, int] = {}
    named = catalogue.named(order.channel, order.shop, at)
    for line in order.lines:
        found = named[line.code] if line.code is not None else ()
        article = found[0] if len(found) == 1 else None
        why = "ambiguous" if found else "unknown"
        if article is not None:
            try:
                by_line[line.id] = (
                    catalogue.pieces(article.sku, line.quantity, at) if article.components else {article.sku: line.quantity}
                )
            except BundleError as error:
                article, why = None, str(error)
        if article is None:
            unmapped.append(Unmapped(line.id, line.code, why, line.title or line.code or ""))
            lines.append(line if line.gift is not None else msgspec.structs.replace(line, gift=False))
            continue
        gift = line.gift if line.gift is not None else article.gift is not None and line.price == 0
        lines.append(msgspec.structs.replace(line, sku=article.sku, gift=gift))
        articles[line.id] = article
        for sku, count in by_line[line.id].items():
            pieces[sku] = pieces.get(sku, 0) + count
    read = Resolved(tuple(lines), articles, pieces, units=(), unmapped=tuple(unmapped))
    _check_variants(read, order, catalogue, at)
    one = units.ordinary(order, lines, articles)
    if one is not None and order.customs is None:
        ids = tuple([line.id for line in lines])
        read.units = (Unit("own", pieces, one.place, ids, None, order.total),)
        read.hs_codes_unknown = ids
        return read
    given = gifts.check(order, read.lines, articles)
    read.gifts_without_main, read.gifts_unknown = given.without_main, given.unknown
    _check_papers(read, order)
    read.units, read.unplaced = units.split(order, read.lines, articles, by_line, given.goes_with, catalogue, at)
    return read


COLOUR_KEYS = frozenset(plain(k) for k in ("颜色", "颜色分类", "色", "colour", "color", "主要颜色", "款式颜色"))
_POSITION = re.compile(r"option\d+")
_ours = lru_cache(maxsize=4096)(plain)
"""Of the catalogue's own words, which are few; a channel's are not kept."""


def _check_variants(found: Resolved, order: Order, catalogue: Catalogue, at: int) -> None:
    """The colour and spec that the channel states against the mapped article's."""
    wrong: list[dict[str, str]] = []
    unknown: list[str] = []
    for line in order.lines:
        article = found.articles.get(line.id)
        if article is None:
            unknown.append(line.id)
            continue
        colour = article.colour
        if colour is None and not article.spec:
            continue
        wanted = {_ours(k): v for k, v in article.spec.items()}
        compared = False
        for key, stated in line.spec.items():
            k = plain(key)
            ours, is_colour = (colour.name, True) if k in COLOUR_KEYS and colour else (wanted.get(k), False)
            if ours is None and _POSITION.fullmatch(k):
                # a channel without option names: the value itself must say which option it is
                options = [v for v in (colour.name if colour else None, *article.spec.values()) if v]
                ours = next((o for o in options if _ours(o) == plain(stated)), None)
                if ours is None and colour and (colours.is_name(stated) or plain(stated) in _colours_of(found)):
                    ours, is_colour = colour.name, True
            if ours is None:
                continue
            if stated == ours or plain(stated) == _ours(ours):
                compared = True
                continue
            if is_colour and colours.states_none(stated):
                continue
            compared = True
            if not (is_colour and colour and same_colour(stated, article, colour, catalogue, at)):
                wrong.append({"line": line.id, "stated": stated, "article": ours, "sku": article.sku})
        if not compared:
            unknown.append(line.id)
    found.wrong_variants, found.variants_unknown = tuple(wrong), tuple(unknown)


def _colours_of(found: Resolved) -> set[str]:
    return {_ours(a.colour.name) for a in found.articles.values() if a.colour}


def same_colour(stated: str, article: Article, colour: Colour, catalogue: Catalogue, at: int) -> bool:
    """Whether a stated colour, spelled otherwise than the article's, is it all the same.

    It is where both look alike, and the shop has no other article of that name which fits better: who sells the shelf in 米白
    and in 奶白 tells them apart.
    """
    distance = colours.apart(stated, colour.name, colour.hex)
    if distance is None or distance > colours.ALIKE:
        return False
    for other in catalogue.siblings(article, at):
        if other.colour is None or plain(other.colour.name) == plain(colour.name):
            continue
        if plain(other.colour.name) == plain(stated):
            return False
        nearer = colours.apart(stated, other.colour.name, other.colour.hex)
        if nearer is not None and nearer < distance:
            return False
    return True


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
