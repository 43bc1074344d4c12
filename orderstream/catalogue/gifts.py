"""Gifts: which lines are given with which main line, and which nobody has earned.

Law: a gift is earned by one of its conditions as it stands for this order: its time, its shop, its amount, its pieces. Where a
line that might earn it is unmapped, or its amount is in another currency, it is unknown, neither earned nor not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from orderstream import money, times
from orderstream.catalogue.article import Article, Gift
from orderstream.orders import Line, Order


class Given(NamedTuple):
    """goes_with: gift line -> the main line that earns it. The other two: ids of lines."""

    goes_with: dict[str, str]
    without_main: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


_NONE = Given({})
_ANY = (Gift(),)
_moment = lru_cache(maxsize=1024)(times.parse)


def check(order: Order, lines: Sequence[Line], articles: dict[str, Article]) -> Given:
    """Every gift line of an order. lines: mapped; articles: by line id."""
    if not [line for line in lines if line.gift]:
        return _NONE
    mains = [line for line in lines if not line.gift]
    unsure = any(line.sku is None for line in mains)
    goes_with: dict[str, str] = {}
    without: list[str] = []
    unknown: list[str] = []
    taken: dict[str, int] = {}
    for line in lines:
        if not line.gift:
            continue
        article = articles.get(line.id)
        if article is None:
            # without a condition that is known, any line may be its main; but it is never said to be earned
            unknown.append(line.id)
            continue
        wanted = taken.get(article.sku, 0) + line.quantity
        foreign = False
        for condition in article.gifts or _ANY:
            if not _runs(condition, order):
                continue
            if condition.min_total and article.currency != order.currency:
                foreign = True
                continue
            earned = _earned(condition, mains, article.currency)
            if earned is not None and wanted <= earned[1]:
                goes_with[line.id] = earned[0]
                taken[article.sku] = wanted
                break
        else:
            (unknown if unsure or foreign else without).append(line.id)
    return Given(goes_with, tuple(without), tuple(unknown))


def _runs(condition: Gift, order: Order) -> bool:
    """Whether a condition stands for this order at all: its time and its place."""
    if condition.since is not None and order.created_at < _moment(condition.since):
        return False
    if condition.until is not None and order.created_at >= _moment(condition.until):
        return False
    return not condition.where or order.channel in condition.where or f"{order.channel}:{order.shop}" in condition.where


def _earned(condition: Gift, mains: Sequence[Line], currency: str) -> tuple[str, int | float] | None:
    """The main line that earns it, and how many pieces; None where it is not earned."""
    able = [m for m in mains if not condition.with_any or m.sku in condition.with_any]
    amount = sum(m.price * m.quantity for m in able)
    needed = money.minor(condition.min_total, currency)
    if not able or amount < needed:
        return None
    pieces: int | float = float("inf")
    if condition.every:
        pieces = amount // needed if needed else sum(m.quantity for m in able)
    if condition.most is not None:
        pieces = min(pieces, condition.most)
    return able[0].id, pieces
