"""An order before any channel has words for it: what a scenario draws and a channel's module writes down.

Law: a draft holds what happened (who, what, when, for how much), a channel's module how that channel says it. One module a channel,
`body(draft, event, articles) -> bytes`; the same draft and event give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from orderstream.simulators.people import Person

_NUMBERS = {"api": "A{:07d}", "douyin": "49{:017d}", "youzan": "E20261111{:015d}", "taobao": "31{:017d}", "jd": "29{:010d}"}
"""How the channels number their orders, where not just by a long number."""


@dataclass(slots=True)
class Line:
    """One article of a draft. price: fen a piece; code, colour: other ones than the article's own, where the shop has them wrong."""

    sku: str
    quantity: int = 1
    price: int | None = None
    gift: bool = False
    code: str | None = None
    colour: str | None = None


@dataclass(slots=True)
class Draft:
    """An order before it is written the way of its channel. created: ms after start; coupon: fen."""

    number: int
    channel: str
    shop: str
    buyer: Person
    lines: list[Line]
    created: int
    coupon: int = 0
    remark: str | None = "请尽快发货"
    postcode: bool = True
    hold: str | None = None
    customs: dict[str, Any] | None = None
    dollars: float | None = None
    """Shopify: yuan for a dollar at which the buyer was charged; None: charged in yuan."""
    open: bool = False
    """Taobao, Douyin: the shop may see who receives what; else that is masked or encrypted."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Laid over the body as it is: for payloads that are no order."""

    @property
    def order_id(self) -> str:
        """`channel:shop:number`."""
        return f"{self.channel}:{self.shop}:{self.name}"

    @property
    def name(self) -> str:
        """The number that the channel gives the order."""
        return _NUMBERS[self.channel].format(self.number) if self.channel in _NUMBERS else str(6_100_000_000_000 + self.number)

    @property
    def total(self) -> int:
        """What the buyer pays, fen."""
        return sum(line.quantity * (line.price or 0) for line in self.lines) - self.coupon


@dataclass(frozen=True, slots=True)
class Event:
    """What a delivery tells of a draft. start: ms UTC of the scenario; updated: ms after it."""

    start: int
    status: str
    revision: int
    updated: int


def compact(value: object) -> bytes:
    """JSON, sorted and compact: the bytes whose sha256 names a record without an order id, sent live or read from a file."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
