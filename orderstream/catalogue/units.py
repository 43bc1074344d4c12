"""Units: what of an order leaves together, by stock place and by the day that it is there.

Law: units in are units out, and money in is money out, to the smallest coin: every piece of every mapped line is in exactly one
unit, and the order's total is the sum of the units' amounts and of what its unmapped lines cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from orderstream import times
from orderstream.catalogue.article import Article
from orderstream.catalogue.index import Catalogue
from orderstream.orders import Line, Order, Unit

Kind = Literal["own", "presale", "bonded", "gift"]


class Stand(NamedTuple):
    """Where and when a piece leaves: what a unit has in common. ships_at: ms UTC, of a pre-sale whose day is known."""

    kind: Kind
    place: str | None
    ships_at: int | None = None


def split(
    order: Order,
    lines: Sequence[Line],
    articles: dict[str, Article],
    pieces: dict[str, dict[str, int]],
    goes_with: dict[str, str],
    catalogue: Catalogue,
    at: int,
) -> tuple[tuple[Unit, ...], int]:
    """(An order's units, minor units of its total that belong to none). pieces: line id -> SKU -> pieces.

    A gift leaves with the line that earns it. Without a price to go by a bundle's money is shared by its pieces.
    """
    stands: dict[str, Stand] = {}
    apart: dict[str, dict[str, Stand]] = {}
    for line in lines:
        article = articles.get(line.id)
        if article is None or line.gift:
            continue
        stands[line.id] = _stand(order, article)
        if article.components and article.place is None:
            apart[line.id] = _apart(order, stands[line.id], pieces[line.id], catalogue, at)
            # a gift goes with one parcel of a main line that is split: the first
            stands[line.id] = min(apart[line.id].values(), key=_rank)
    for line in lines:
        if line.gift and line.id in articles:
            stands[line.id] = stands.get(goes_with.get(line.id, "")) or Stand("gift", articles[line.id].place)
    groups: dict[Stand, tuple[dict[str, int], list[str]]] = {}
    for name, stand in stands.items():
        of = apart.get(name)
        for sku, count in pieces[name].items():
            skus, members = groups.setdefault(of[sku] if of is not None else stand, ({}, []))
            skus[sku] = skus.get(sku, 0) + count
            if name not in members:
                members.append(name)
    if len(groups) == 1 and len(articles) == len(lines):
        amounts, unplaced = dict.fromkeys(groups, order.total), 0
    else:
        amounts, unplaced = _money(order, lines, articles, pieces, stands, apart, catalogue, at)
    if len(groups) > 1 or goes_with:
        # main lines came first, so that gifts could follow them
        place = {line.id: number for number, line in enumerate(lines)}
        for _, members in groups.values():
            members.sort(key=place.__getitem__)
    return tuple(
        Unit(stand.kind, skus, stand.place, tuple(members), stand.ships_at, amounts.get(stand, 0))
        for stand, (skus, members) in sorted(groups.items(), key=_by_rank)
    ), unplaced


def ordinary(order: Order, lines: Sequence[Line], articles: dict[str, Article]) -> Article | None:
    """The first of articles that all leave together: each our own, there, whole and of one place; None for any other order."""
    if order.presale or not lines or len(articles) != len(lines):
        return None
    first = articles[lines[0].id]
    for line in lines:
        article = articles[line.id]
        if line.gift or article.components or article.presale or article.ships_at is not None or article.customs is not None:
            return None
        if article.place != first.place:
            return None
    return first


def share(total: int, weights: Sequence[int]) -> list[int]:
    """A total in parts like its weights, to the last coin: what is left over goes to the largest remainders, the first ones first.

    Where all weights are 0, in equal parts.
    """
    if not weights:
        return []
    whole = sum(weights)
    if whole <= 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    for index in sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))[:left]:
        parts[index] += 1
    return parts


def _apart(order: Order, whole: Stand, pieces: dict[str, int], catalogue: Catalogue, at: int) -> dict[str, Stand]:
    """SKU -> where and when it leaves, of a bundle that lies nowhere as a whole. whole: what holds for all that is in it."""
    out: dict[str, Stand] = {}
    for sku in pieces:
        part = catalogue.article(sku, at)
        alone = whole if part is None else _stand(order, part)
        out[sku] = alone if whole.kind == "own" else Stand(whole.kind, alone.place, whole.ships_at)
    return out


def _stand(order: Order, article: Article) -> Stand:
    ships_at = None if article.ships_at is None else times.parse(article.ships_at)
    waits = article.presale if ships_at is None else order.created_at < ships_at
    if waits or order.presale:
        return Stand("presale", article.place, ships_at if waits else None)
    return Stand("bonded" if article.customs is not None else "own", article.place)


def _by_rank(group: tuple[Stand, object]) -> tuple[str, str, int]:
    return _rank(group[0])


def _rank(stand: Stand) -> tuple[str, str, int]:
    return stand.kind, stand.place or "", stand.ships_at or 0


def _money(
    order: Order,
    lines: Sequence[Line],
    articles: dict[str, Article],
    pieces: dict[str, dict[str, int]],
    stands: dict[str, Stand],
    apart: dict[str, dict[str, Stand]],
    catalogue: Catalogue,
    at: int,
) -> tuple[dict[Stand, int], int]:
    """(Minor units of the order's total by unit, those of its unmapped lines): by what the lines cost, then what their pieces cost."""
    costs = [0 if line.gift else max(0, line.price * line.quantity - (line.discount or 0)) for line in lines]
    out: dict[Stand, int] = {}
    unplaced = 0
    for line, amount in zip(lines, share(order.total, costs), strict=True):
        article = articles.get(line.id)
        if article is None:
            unplaced += amount
            continue
        of = apart.get(line.id)
        if of is None:
            stand = stands[line.id]
            out[stand] = out.get(stand, 0) + amount
            continue
        counts = pieces[line.id]
        values = [_value(sku, article.currency, catalogue, at) for sku in counts]
        known = all(value is not None for value in values)
        weights = [(value or 0) * count if known else count for value, count in zip(values, counts.values(), strict=True)]
        for sku, part in zip(counts, share(amount, weights), strict=True):
            out[of[sku]] = out.get(of[sku], 0) + part
    return out, unplaced


def _value(sku: str, currency: str, catalogue: Catalogue, at: int) -> int | None:
    article = catalogue.article(sku, at)
    return article.base if article is not None and article.currency == currency else None
