"""Days of a simulated shop, one after another: what a long run sends.

Law: a day is a function of its number. Every order is a new one, and a buyer comes back every COHORTS days with the same
devices, accounts and places, so that long windows fill to what they hold in a shop that has been open for months.
Times are ms UTC; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from orderstream import times, wire
from orderstream.channels import channel
from orderstream.orders import Order, Raw
from orderstream.simulators import Delivery, Scenario, make
from orderstream.simulators.scenario import MARKETPLACES, beside, detail_of
from orderstream.times import DAY, SECOND

START = times.parse("2026-01-01T00:00:00+08:00")
"""Midnight of the first day, in the shop's zone."""

COHORTS = 15
"""Groups of buyers, one a day in turn: each buyer orders twelve times in the 180 days that the longest rule looks back."""

TRANSIT = 3
"""ms between a shop's sending and received_at."""


class Sent(NamedTuple):
    """A raw record as intake would write it. at: received_at."""

    at: int
    topic: str
    """Plain name, without the installation's prefix."""
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    order: str
    decided: bool = True
    """Whether a verdict follows: a record that is rejected has none."""


def stretch(number: int, orders: int, *, start: int, span: int, cohort: int, seven: bool = True) -> Scenario:
    """`orders` distinct orders (at most five fewer) over `span` ms from `start`, by the buyers of a cohort. number: of the stretch, from 0.

    seven: on all channels, a sixth of them in the marketplaces' shops; else on the shop's own and Shopify, as so few always are.
    """
    own = max((size for size in range(1, orders) if size + len(MARKETPLACES) * beside(size) <= orders), default=0) if seven else 0
    return make(
        own or orders,
        rate=(own or orders) * SECOND / span,
        seed=cohort + 1,
        start=start,
        first_order=number * orders,
        first_buyer=cohort * 2 * orders,
        marketplaces=MARKETPLACES if own else (),
    )


def day(number: int, orders: int) -> tuple[list[Sent], list[tuple[str, bytes, bytes]]]:
    """Day `number` of a shop with so many orders a day: its raw records by received_at, and the reference records before them."""
    cohort = number % COHORTS
    shop = stretch(number, orders, start=START + number * DAY, span=DAY, cohort=cohort)
    return list(raw_records(shop, cohort)), list(reference_records(shop, cohort, first=number == 0))


def raw_records(shop: Scenario, cohort: int) -> Iterator[Sent]:
    """A scenario's deliveries as raw records."""
    for delivery in shop.deliveries:
        at = shop.start + delivery.at + TRANSIT
        headers = {} if delivery.topic is None else {"x-shopify-topic": delivery.topic}
        body, detail = _apart(delivery.body, cohort), detail_of(delivery)
        raw = Raw(delivery.channel, delivery.shop, at, body, headers, "hmac-sha256", detail)
        decided = shop.expected[delivery.order_id].outcome != "rejected"
        key = delivery.order_id.encode()
        yield Sent(at, f"orders.raw.{raw.channel}", key, raw.body, wire.raw_headers(raw), delivery.order_id, decided)


def reference_records(shop: Scenario, cohort: int, *, first: bool) -> Iterator[tuple[str, bytes, bytes]]:
    """(plain topic, key, value) of a scenario's stock, rates, floors and trusts, told anew as the day begins.

    first: nothing was told before, so they hold for the late orders of the day before too.
    """
    begins = times.text(shop.start - DAY if first else shop.start)
    for record in shop.reference:
        said: dict[str, Any] = {**record, "at": begins} if "at" in record else record
        if said["kind"] == "trust":
            # two days are enough for a day's orders, and show that a trust is forgotten
            said = {**said, "until": times.text(shop.start + 2 * DAY)}
        key = said.get("sku") or said.get("pair") or said["entity"]
        topic = "wms.stock" if said["kind"] == "stock" else "reference.updates"
        yield topic, key.encode(), _apart(orjson.dumps(said), cohort)


def _apart(body: bytes, cohort: int) -> bytes:
    """The few payment accounts that a scenario calls by name, another one in each cohort: they are other people's."""
    return body.replace(b'"p-family-', b'"p-family-%d-' % cohort).replace(b'"p-proxy-', b'"p-proxy-%d-' % cohort)


def of_reference_job(delivery: Delivery) -> tuple[bytes, bytes] | None:
    """(key, value) of the same order as the reference job writes it; None for what is not the first telling of a paid api order."""
    if delivery.channel != "api" or delivery.revision != 1 or delivery.status != "paid" or delivery.repeat:
        return None
    order = channel("api").parse(Raw("api", delivery.shop, 0, delivery.body))
    if not isinstance(order, Order) or order.buyer is None or order.payment is None or order.ship_to is None:
        return None
    lines = [
        {"code": n.code, "qty": n.quantity, "price": n.price, "list_price": n.list_price or n.price, "gift": n.gift}
        for n in order.lines
    ]
    value = {
        "order_id": order.number,
        "created_at": order.created_at / 1000,
        "user": order.buyer.id,
        "device": order.buyer.device,
        "ip": order.buyer.ip,
        "payment": order.payment.id,
        "address": f"{order.ship_to.city}{order.ship_to.detail}",
        "remark": order.remark or "",
        "lines": lines,
    }
    return order.number.encode(), orjson.dumps(value)
