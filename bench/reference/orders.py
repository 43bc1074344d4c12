"""The reference job's input: what a marketplace seller's busy hours look like, made up, the same bytes for the same arguments.

Law: most orders are ordinary and share nothing, a few per cent share what the rules look for, so that every rule fires and every
window is full of what it does not fire on. An order is one line of JSON that begins with its id; prices in fen, event time in
seconds, up to 2 s out of order on arrival.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson

CHANNELS = ("taobao", "jd", "pinduoduo", "douyin")
SKUS = 5_000
HOT = 0
"""The SKU that everybody wants."""
BEGIN = 1_764_000_000.0
"""s."""
SLOW, BUSY, TURN = 15.0, 47.0, 120.0
"""Orders a second in quiet and in busy stretches, and how long (s) one lasts: `sku-rush` fires in the busy ones alone."""
REMARK = "please leave the parcel at the gate after work and call before you come, it is a present for my mother and should be packed well "
Order = dict[str, Any]


def catalogue() -> dict[str, str]:
    """Code -> sku: each article has a code on each channel."""
    return {_code(sku, channel): f"sku-{sku:04d}" for sku in range(SKUS) for channel in CHANNELS}


def make(count: int, *, seed: int = 7, hot: float = 0.3) -> Iterator[bytes]:
    """`count` orders as they arrive. hot: the share of orders that hold the hot SKU."""
    chance = random.Random(seed)
    found: list[tuple[float, Order]] = []
    time, group = BEGIN, Group(chance, hot)
    while len(found) < count:
        busy = int((time - BEGIN) / TURN) % 2 == 1
        time += 1 / (BUSY if busy else SLOW)
        # 3 % of the orders belong to a group of 2 to 47
        found += group.gang(time) if chance.random() < 0.003 else [group.ordinary(time)]
    found.sort(key=lambda one: one[0])
    for number, (_, order) in enumerate(found[:count], 1):
        # ids in the order of arrival, first in the record
        yield orjson.dumps({"order_id": f"o-{number:07d}", **order})


class Group:
    """Draws orders: ordinary ones, and gangs that share something."""

    def __init__(self, chance: random.Random, hot: float) -> None:
        self._chance = chance
        self._hot = hot

    def ordinary(self, time: float) -> tuple[float, Order]:
        """When it arrives, and an order by somebody with a device, an account and an address of their own, mostly."""
        return self._order(time, {})

    def gang(self, time: float) -> list[tuple[float, Order]]:
        """Orders within minutes that share what one of the rules looks for."""
        chance = self._chance
        number = chance.randrange(1 << 20)
        channel = chance.choice(CHANNELS)
        same = {"channel": channel, "lines": [self._line(self._sku(), channel)]}
        kind = chance.choice(("twice", "device", "segment", "payment", "address"))
        if kind == "twice":
            return self._spread(time, chance.choice((2, 2, 3, 6)), 60, {**same, "user": f"u-x{number}"})
        if kind == "device":
            return self._spread(time, chance.randint(2, 4), 40, {**same, "device": f"d-x{number}"})
        if kind == "segment":
            return self._spread(time, 47, 0.6, {"ip": f"172.16.{number >> 8 & 255}.{number & 255}"})
        if kind == "payment":
            return self._spread(time, chance.randint(3, 6), 90, {"payment": f"p-x{number}"})
        dear = {"lines": [self._line(self._sku(), channel, times=12)], "channel": channel}
        return self._spread(time, chance.randint(8, 16), 30, {**dear, "address": f"drop point {number}"})

    def _spread(self, time: float, orders: int, apart: float, shared: Order) -> list[tuple[float, Order]]:
        """So many orders with `shared` in common, about `apart` seconds from one another."""
        return [self._order(time + n * apart * self._chance.random(), shared) for n in range(orders)]

    def _order(self, time: float, shared: Order) -> tuple[float, Order]:
        chance = self._chance
        # a few buyers order often: u-0 more than u-50000
        user = int(60_000 * chance.random() ** 1.5)
        home = user if chance.random() < 0.9 else chance.randrange(60_000)
        channel = chance.choice(CHANNELS)
        order: Order = {
            "channel": channel,
            "user": f"u-{user}",
            "device": f"d-{home}",
            "ip": f"10.{home >> 16 & 255}.{home >> 8 & 255}.{home & 255}",
            # two accounts in a hundred are a couple's
            "payment": f"p-{user // 2 if user % 100 < 2 else user}",
            "address": f"zhejiang hangzhou xihu {home % 97} wensan road {home}",
            "created_at": round(time, 3),
            "remark": (REMARK * 4)[: chance.randint(250, 450)],
            **({} if "lines" in shared else {"lines": self._lines(channel)}),
            **shared,
        }
        return time + (2 * chance.random() if chance.random() < 0.2 else 0.0), order

    def _lines(self, channel: str) -> list[Order]:
        chance = self._chance
        skus = [self._sku() for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4)))]
        if chance.random() < self._hot:
            skus[0] = HOT
        lines = [self._line(sku, channel) for sku in skus]
        drawn = chance.random()
        if drawn < 0.05:
            lines.append({**self._line(self._sku(), channel), "price": 0, "gift": True})
        elif drawn < 0.054:
            lines = [{**line, "price": 0, "gift": True} for line in lines]
        return lines

    def _line(self, sku: int, channel: str, *, times: int = 1) -> Order:
        chance = self._chance
        listed = (1_990 + sku * 7_919 % 18_000) * times
        off = chance.uniform(0.70, 0.84) if chance.random() < 0.008 else chance.uniform(0.86, 1.0)
        code = _code(sku, channel) if chance.random() > 0.003 else f"{channel}-unknown-{sku}"
        quantity = 1 if chance.random() < 0.87 else chance.randint(2, 3)
        return {"code": code, "qty": quantity, "price": int(listed * off), "list_price": listed, "gift": False}

    def _sku(self) -> int:
        return 1 + int((SKUS - 1) * self._chance.random() ** 1.7)


def _code(sku: int, channel: str) -> str:
    return f"{channel}-{(sku * 7_919 + CHANNELS.index(channel) * 104_729) % 1_000_003:06d}"
