"""Listings: what a channel says of one of its codes, in its product list or in orders.

Law: a listing is what was said, never what we make of it; a colour said twice in two ways stays two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from orderstream import channels
from orderstream.catalogue.resolve import COLOUR_KEYS
from orderstream.identity import plain
from orderstream.orders import Order, Raw

Key = tuple[str, str, str]
"""Channel, shop, code."""

_PAIRS = re.compile(r"[;；,，|]+")
_PAIR = re.compile(r"[:：=]")


class Listing(msgspec.Struct):
    """One code in one shop. price: minor units a piece, the last one said; colours: as stated -> how often; image: its name or URL.

    orders, pieces: in how many orders and pieces it was sold; last: ms UTC, when an order of it was last created.
    """

    channel: str
    shop: str
    code: str
    title: str | None = None
    spec: dict[str, str] = {}
    colours: Counter[str] = msgspec.field(default_factory=Counter)
    price: int | None = None
    currency: str = "CNY"
    image: str | None = None
    orders: int = 0
    pieces: int = 0
    last: int | None = None

    @property
    def key(self) -> Key:
        return self.channel, self.shop, self.code

    @property
    def colour(self) -> str | None:
        """The colour that is stated most often."""
        return min(self.colours, key=lambda c: (-self.colours[c], c)) if self.colours else None


class Sold(msgspec.Struct):
    """What orders say. listings: by code; since, until: ms UTC, first and last creation among them; None where there are none."""

    listings: dict[Key, Listing] = msgspec.field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    orders: int = 0


def of_orders(raws: Iterable[Raw]) -> Sold:
    """What the orders in raw records say of codes; an order's revisions count once. What is no order is passed over."""
    sold = Sold()
    seen: set[tuple[str, str]] = set()
    for raw in raws:
        channel = channels.registry().get(raw.channel)
        parsed = None if channel is None else channel.parse(raw)
        if isinstance(parsed, Order):
            _count(sold, parsed, seen)
    return sold


def _count(sold: Sold, order: Order, seen: set[tuple[str, str]]) -> None:
    if (order.order_id, "") not in seen:
        seen.add((order.order_id, ""))
        sold.orders += 1
        sold.since = order.created_at if sold.since is None else min(sold.since, order.created_at)
        sold.until = order.created_at if sold.until is None else max(sold.until, order.created_at)
    for line in order.lines:
        if line.code is None:
            continue
        key = (order.channel, order.shop, line.code)
        one = sold.listings.setdefault(key, Listing(*key))
        one.title = line.title or one.title
        one.spec = {**one.spec, **{k: v for k, v in line.spec.items() if plain(k) not in COLOUR_KEYS}}
        one.last = order.created_at if one.last is None else max(one.last, order.created_at)
        if not line.gift:
            one.price, one.currency = line.price, order.currency
        if (order.order_id, line.id) in seen:
            continue
        seen.add((order.order_id, line.id))
        one.orders += 1
        one.pieces += line.quantity
        one.colours.update(v for k, v in line.spec.items() if plain(k) in COLOUR_KEYS)


def spec_of(text: str) -> tuple[dict[str, str], str | None]:
    """(Options by name, the colour among them) of a spec as lists write it: 颜色分类:原木色;尺寸:三层. What has no name is left out."""
    found: dict[str, str] = {}
    colour = None
    for part in _PAIRS.split(text):
        name, *value = _PAIR.split(part, maxsplit=1)
        if not value or not name.strip() or not value[0].strip():
            continue
        if plain(name) in COLOUR_KEYS:
            colour = value[0].strip()
        else:
            found[name.strip()] = value[0].strip()
    return found, colour


def joined(some: Iterable[Listing], more: Iterable[Listing]) -> dict[Key, Listing]:
    """Listings of product lists and of orders as one each; what the list says goes first, what was sold is counted."""
    out = {one.key: msgspec.structs.replace(one, colours=Counter(one.colours)) for one in some}
    for one in more:
        known = out.setdefault(one.key, one)
        if known is one:
            continue
        known.title, known.price, known.image = known.title or one.title, known.price or one.price, known.image or one.image
        known.spec = {**one.spec, **known.spec}
        known.colours.update(one.colours)
        known.orders, known.pieces, known.last = one.orders, one.pieces, one.last
    return out
