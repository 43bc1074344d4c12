"""What the reference job's rules say of a set of orders: plain definitions, no streams, the whole day at hand.

Law: an order at t is judged by all orders of its entity in (t - W, t], whenever they arrive; so the answer is one, and engines that
judge by what they have seen so far can be told from those that do not. Times ms, amounts fen. It shares no code with the product.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

MINUTE, DAY = 60_000, 86_400_000
HARD = frozenset({"address-sum", "ip-burst", "payment-shared"})
Answer = tuple[str, tuple[str, ...]]
"""released, review or frozen; the rules, sorted."""


class _Entry(NamedTuple):
    at: int
    skus: frozenset[str]
    user: str
    total: int
    """Of the order, fen; in a SKU's window its units."""


class _Window:
    """One entity's orders by time, and the running sum of their totals."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = sorted(entries, key=lambda one: one.at)
        self._times = [one.at for one in self._entries]
        self._sums = [0]
        for one in self._entries:
            self._sums.append(self._sums[-1] + one.total)

    def within(self, at: int, width: int) -> list[_Entry]:
        return self._entries[bisect_right(self._times, at - width) : bisect_right(self._times, at)]

    def total(self, at: int, width: int) -> int:
        return self._sums[bisect_right(self._times, at)] - self._sums[bisect_right(self._times, at - width)]


def answers(orders: Iterable[bytes], catalogue: Mapping[str, str]) -> dict[str, Answer]:
    """Order id -> what the job has to say of it."""
    read = [_read(orjson.loads(order), catalogue) for order in orders]
    entries: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
    for order, entry, units in read:
        for kind in ("user", "device", "address", "ip", "payment"):
            entries[kind, order[kind]].append(entry)
        for sku, number in units.items():
            entries["sku", sku].append(entry._replace(total=number))
    windows = {entity: _Window(found) for entity, found in entries.items()}
    return {order["order_id"]: _judge(order, entry, windows) for order, entry, _ in read}


def _read(order: Mapping[str, Any], catalogue: Mapping[str, str]) -> tuple[Mapping[str, Any], _Entry, dict[str, int]]:
    """The order with its own rules, its entry, and its units by SKU."""
    units: dict[str, int] = {}
    rules = set()
    for line in order["lines"]:
        sku = catalogue.get(line["code"])
        if sku is None:
            rules.add("unknown-sku")
        else:
            units[sku] = units.get(sku, 0) + line["qty"]
        if not line["gift"] and line["price"] * 100 < 85 * line["list_price"]:
            rules.add("price")
    if all(line["gift"] for line in order["lines"]):
        rules.add("gift")
    total = sum(line["qty"] * line["price"] for line in order["lines"])
    entry = _Entry(round(order["created_at"] * 1000), frozenset(units), order["user"], total)
    return {**order, "rules": rules}, entry, units


def _judge(order: Mapping[str, Any], entry: _Entry, windows: Mapping[tuple[str, str], _Window]) -> Answer:
    rules, at = set(order["rules"]), entry.at

    def window(kind: str) -> _Window:
        return windows[kind, order[kind]]

    def sharing(kind: str, width: int) -> int:
        return sum(not one.skus.isdisjoint(entry.skus) for one in window(kind).within(at, width))

    if sharing("user", 5 * MINUTE) >= 2:
        rules.add("duplicate-user")
    if sharing("device", 5 * MINUTE) >= 2:
        rules.add("duplicate-device")
    if sharing("user", 10 * MINUTE) >= 5:
        rules.add("user-burst")
    if window("address").total(at, DAY) > 500_000:
        rules.add("address-sum")
    if len(window("ip").within(at, MINUTE // 2)) >= 10:
        rules.add("ip-burst")
    if len({one.user for one in window("payment").within(at, DAY)}) >= 3:
        rules.add("payment-shared")
    if any(windows["sku", sku].total(at, MINUTE) >= 400 for sku in entry.skus):
        rules.add("sku-rush")
    verdict = "released" if not rules else "frozen" if rules & HARD and len(rules) > 1 else "review"
    return verdict, tuple(sorted(rules))
