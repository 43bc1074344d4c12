"""The canonical values: what every channel's order becomes.

Law: a value here says what a channel said, in one shape. Money is integer minor units of the order's currency (fen
for CNY), time is UTC milliseconds since 1970, ids are strings, and what a channel does not give is None, never "".
Reason: rules, windows and people read orders of seven channels; each source is translated once, at its edge.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["created", "paid", "cancelled", "refunding", "refunded"]
"""created: not paid yet · paid: may ship · refunding: a refund is under way · cancelled, refunded: withdrawn."""

WITHDRAWN: frozenset[str] = frozenset({"cancelled", "refunded"})
CHANNELS: tuple[str, ...] = ("taobao", "jd", "douyin", "wechat", "youzan", "shopify", "api")


class Raw(msgspec.Struct, frozen=True, gc=False):
    """What a channel sent, bytes untouched, in its envelope.

    received_at: ms UTC, when intake had the whole body. headers: lower-case names, only those that a parser needs.
    verified: how the sender was proved ("hmac-sha256", "replay"). detail: the platform's answer to a thin event, if any.
    again: we said it once more ourselves, as of received_at, so that it is read with the catalogue of then: no repeat of the channel's.
    """

    channel: str
    shop: str
    received_at: int
    body: bytes
    headers: dict[str, str] = {}
    verified: str = "replay"
    detail: bytes | None = None
    again: bool = False


class Discount(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A deduction from the whole order; amount in minor units. kind "coupon" is the one that rules ask for."""

    kind: str
    amount: int


class Line(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One article of an order. price, list_price: minor units a piece; discount: this line's own share in all, minor units.

    code is the channel's name for the article, None where it names none; sku is ours, set by the catalogue.
    discount is None where the channel gives only discounts of the whole order.
    """

    id: str
    code: str | None
    quantity: int
    price: int
    title: str | None = None
    spec: dict[str, str] = {}
    list_price: int | None = None
    gift: bool | None = False
    """None: the channel cannot say; the catalogue decides (a gift article at price 0)."""
    discount: int | None = None
    sku: str | None = None


class Buyer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who ordered, as far as the channel tells. registered_at: ms UTC."""

    id: str | None = None
    registered_at: int | None = None
    device: str | None = None
    ip: str | None = None
    phone: str | None = None
    email: str | None = None


class Payment(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The payment account (not the transaction) and its method."""

    id: str | None = None
    method: str | None = None


class Address(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where to ship, and to whom. lat, lon: degrees WGS84, both or none."""

    name: str | None = None
    phone: str | None = None
    country: str | None = None
    province: str | None = None
    city: str | None = None
    district: str | None = None
    detail: str | None = None
    postcode: str | None = None
    lat: float | None = None
    lon: float | None = None


class Customs(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Papers of a cross-border order. hs_codes: line id -> HS code as stated."""

    hs_codes: dict[str, str] = {}
    declaration: str | None = None


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """One amount in two currencies, as the channel states it: `amount` of `currency` were charged as `to_amount` of `to`."""

    currency: str
    amount: int
    to: str
    to_amount: int


class Unit(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A fulfilment unit: pieces of our SKUs that leave together. kind: own, presale, bonded or gift (with its main).

    ships_at: ms UTC, of a pre-sale whose day is known. amount: its share of the order's total, minor units.
    """

    kind: Literal["own", "presale", "bonded", "gift"]
    skus: dict[str, int]
    place: str | None = None
    with_lines: tuple[str, ...] = ()
    ships_at: int | None = None
    amount: int = 0


class Order(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One order at one revision. order_id is `channel:shop:number`.

    created_at, updated_at, ship_by: ms UTC. total: minor units, what the buyer pays for the order.
    conversion: only where the channel charged in another currency than it shows.
    """

    order_id: str
    channel: str
    shop: str
    number: str
    revision: int | None
    status: Status
    created_at: int
    updated_at: int | None
    currency: str
    total: int
    lines: tuple[Line, ...]
    discounts: tuple[Discount, ...] = ()
    buyer: Buyer = Buyer()
    payment: Payment = Payment()
    ship_to: Address | None = None
    keys: dict[str, str] = {}
    """What the platform itself gives to tell people and places apart by, under its own names: `{"oaid": "…"}`.

    `identity.LADDER` says of each what it is a key of, where it is valid, and how sure. The buyer's own number is `buyer.id`.
    """
    customs: Customs | None = None
    conversion: Conversion | None = None
    ship_by: int | None = None
    hold: str | None = None
    presale: bool = False
    remark: str | None = None
    tags: tuple[str, ...] = ()
    """What the parser noticed and kept: `amounts-differ`, `ip-invalid`, …"""


class Refund(msgspec.Struct, frozen=True, gc=False):
    """An event of its own beside the order's revisions: money went back. amount: minor units; at: ms UTC."""

    order_id: str
    refund_id: str
    amount: int
    currency: str
    at: int


class Skip(msgspec.Struct, frozen=True, gc=False):
    """A genuine message that asks for nothing: a test ping, a topic that we do not follow. reason is a sentence."""

    reason: str


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be one order. code: short and stable; reason: a sentence; field: where, as a path."""

    order_id: str
    code: str
    reason: str
    field: str | None = None


Parsed = Order | Refund | Skip | Rejected
