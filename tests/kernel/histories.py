"""Histories for the properties: few people, devices, addresses and articles, so that everything collides; times on the edges.

A history is a list of replay records in arrival order. `run` puts one through the line.

Strategies are made once: one made anew for each draw is analysed anew by hypothesis, which took a third of these tests' time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from orderstream import times
from orderstream.catalogue import Catalogue, read_article
from orderstream.identity import Keys
from orderstream.orders import WITHDRAWN
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import Pack, load
from orderstream.times import DAY, HOUR, MINUTE, SECOND

ZONE = "Asia/Shanghai"
KEYS = Keys(b"properties")
STANDARD = load(Path(__file__).parents[2] / "rules" / "standard")
T = times.parse("2026-11-11T23:59:50+08:00")
"""Ten seconds before a new day in Shanghai."""

Record = dict[str, Any]


def lowered(**counts: int) -> Pack:
    """The standard pack with a lower count here and there, so that short histories reach it."""
    rules = dict(STANDARD.rules)
    for name, count in counts.items():
        rule = rules[name.replace("_", "-")]
        assert rule.measure is not None
        rules[rule.id] = msgspec.structs.replace(rule, measure=msgspec.structs.replace(rule.measure, at_least=count))
    return Pack(STANDARD.policy, rules)


COMPACT = lowered(user_burst=3, ip_segment_burst=3, stock_rush=5)
BOOK = PackBook([COMPACT])

CATALOGUE: list[Record] = [
    {
        "sku": "SKU1", "name": "多功能收纳架", "base_price": "100.00", "colour": {"name": "原木色"},
        "codes": [{"channel": "api", "code": "c1"}, {"channel": "api", "code": "both"}],
    },
    {
        "sku": "SKU2", "name": "跑鞋", "base_price": "2000.00", "spec": {"尺码": "42"},
        "codes": [{"channel": "api", "code": "c2"}, {"channel": "api", "code": "both"}],
    },
    {
        "sku": "SET", "name": "收纳套装", "base_price": "250.00", "codes": [{"channel": "api", "code": "set"}],
        "components": [{"sku": "SKU1", "quantity": 2}, {"sku": "SKU3", "quantity": 1}],
    },
    {
        "sku": "SKU3", "name": "挂钩", "codes": [{"channel": "api", "code": "c3"}],
        "gift": {"with_any": ["SKU1"], "min_total": "150.00"},
    },
]  # fmt: skip
GOODS = Catalogue(read_article(json.dumps(line)) for line in CATALOGUE)

HOME = {
    "province": "浙江省",
    "city": "杭州市",
    "district": "西湖区",
    "detail": "文三路1号",
    "postcode": "310012",
    "lat": 30.27,
    "lon": 120.13,
}
ADDRESSES: list[Record | None] = [
    HOME,
    {**HOME, "province": "浙江", "detail": "文三路一号"},
    {**HOME, "detail": "文三路2号", "postcode": ""},
    {
        "province": "北京市",
        "city": "北京市",
        "district": "海淀区",
        "detail": "中关村大街1号",
        "postcode": "100080",
        "phone": "17000000001",
    },
    {"city": "北京", "detail": "北京"},
    None,
]
EDGES = [0, 1, 5 * SECOND, 10 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 10 * MINUTE]
"""Where windows end; histories stand on them and one millisecond beside them."""
DAYS = [0, DAY, 2 * DAY, 30 * DAY, 31 * DAY]


def text(ms: int) -> str:
    return times.text(ms)


NEAR = st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(EDGES), st.sampled_from((0, 0, -1, 1)))
"""ms: on an edge, or one beside it."""


@lru_cache(maxsize=None, typed=True)
def among(*values: Any) -> st.SearchStrategy[Any]:
    """One of these."""
    return st.sampled_from(values)


LINES = st.lists(
    st.fixed_dictionaries(
        {
            "code": st.sampled_from(("c1", "c1", "c1", "c2", "set", "c3", "both", "nobody's")),
            "quantity": st.sampled_from((1, 1, 2, 5)),
            "price": st.sampled_from(("100.00", "100.00", "85.00", "84.99", "1700.00", "2000.00", "9.00")),
        },
        optional={
            "gift": st.booleans(),
            "spec": st.sampled_from(({"颜色": "原木色"}, {"颜色": "黑色"}, {"尺码": "42"})),
            "list_price": st.sampled_from(("14.28", "14.71", "100.00")),
        },
    ),
    min_size=1,
    max_size=2,
)


BUYERS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(("u1", "u1", "u2", "u3")),
        "device": st.sampled_from(("d1", "d2")),
        "ip": st.sampled_from(("203.0.113.7", "203.0.113.9", "198.51.100.1", "2001:db8::1", "2001:db8::2")),
        "phone": st.sampled_from(("17012345678", "+86 170-1234-5678", "13800000000", "138****0000")),
        "registered_at": st.sampled_from((-HOUR, -DAY, -DAY + 1, HOUR)),
    },
)
"""registered_at: ms from the order's creation."""
BODIES = st.fixed_dictionaries(
    {
        "currency": st.sampled_from(("CNY", "CNY", "CNY", "CNY", "USD")),
        "lines": LINES,
        "buyer": BUYERS,
        "ship_to": st.sampled_from(ADDRESSES),
        "payment": st.sampled_from((None, {"id": "p1"}, {"id": "p1"}, {"id": "p2"})),
        "remark": st.sampled_from((None, "快")),
        "hold": st.sampled_from((None, None, None, "风控")),
    },
    optional={
        "discounts": st.sampled_from(([{"kind": "coupon", "amount": "5.00"}], [{"kind": "shop", "amount": "15.01"}])),
        "total": st.sampled_from(("999.00", "998.00", "10.00", "3000.00")),
    },
)


def body(drawn: Record, at: int) -> Record:
    """What an order created at `at` says, without its number and its state."""
    said = {key: value for key, value in drawn.items() if value is not None}
    if "registered_at" in said["buyer"]:
        said["buyer"] = {**said["buyer"], "registered_at": text(at + said["buyer"]["registered_at"])}
    return said


def raw(number: str, at: int, received: int, body: Mapping[str, Any], **state: Any) -> Record:
    """A replay record of an order."""
    whole = {"order_id": number, "created_at": text(at), **body, **state}
    return {"kind": "raw", "channel": "api", "shop": "main", "received_at": text(received), "body": whole}


SHIFTS = [0, 0, 0, 10 * SECOND, -5 * MINUTE]
DELAYS = [0, SECOND, MINUTE, HOUR - 1, HOUR, HOUR + 1, 2 * HOUR, 10 * HOUR]
LONG_DELAYS = [*DELAYS, 23 * HOUR, 24 * HOUR, 26 * HOUR, 31 * DAY]


@st.composite
def order_records(
    draw: st.DrawFn, number: str, days: Sequence[int], delays: Sequence[int], shifts: Sequence[int]
) -> list[Record]:
    """All records of one order: revisions, repeats, changes of mind. shifts: by what an edit moves its event time (ms)."""
    at = T + draw(among(*days)) + draw(NEAR) + draw(NEAR)
    # clock-ahead by 5 minutes and a little; late by an hour and a little
    transit = draw(among(0, 3, 3, 3, SECOND, HOUR, HOUR + 1, -5 * MINUTE, -5 * MINUTE - 1))
    received = at + transit
    first = body(draw(BODIES), at)
    status = draw(among("paid", "paid", "paid", "created", "refunding", "cancelled"))
    out = [raw(number, at, received, first, revision=1, status=status, updated_at=text(received))]
    for revision in range(2, 2 + draw(among(0, 0, 0, 1, 2))):
        received += draw(among(*delays)) + draw(among(0, 1, 2))
        # what an edit past the horizon still moves is a question of its own: test_moving.py
        if received - at <= 24 * HOUR:
            first = body(draw(BODIES), at) if draw(among(False, True)) else first
            at += draw(among(*shifts))
        if received - at <= 24 * HOUR or status not in WITHDRAWN:
            # what comes back to windows that are long forgotten is nobody's promise
            status = draw(among("paid", "paid", "cancelled", "refunded", "refunding", "created"))
        out.append(raw(number, at, received, first, revision=revision, status=status, updated_at=text(received)))
    if draw(among(False, False, True)):
        # said again, later, and meaning something else: (revision, updated_at) says that it is the same
        again = draw(st.sampled_from(out))
        when = times.parse(again["received_at"]) + draw(among(1, SECOND, HOUR))
        out.append({**again, "received_at": text(when), "body": {**again["body"], "remark": "again"}})
    return out


@st.composite
def references(draw: st.DrawFn, days: Sequence[int]) -> Record:
    """A record of what is known beside orders."""
    at = T + draw(among(*days)) + draw(NEAR)
    kind = draw(among("stock", "stock", "stock", "trust", "floor", "rate"))
    if kind == "rate":
        return {"kind": kind, "at": text(at), "pair": "USD/CNY", "rate": draw(among("7.00", "6.80"))}
    if kind == "stock":
        locks = draw(st.sampled_from(([], ["api:main:1"], ["api:main:2", "api:main:3"])))
        available = draw(among(0, 2, 3, 100))
        return {
            "kind": kind,
            "at": text(at),
            "sku": draw(among("SKU1", "SKU2", "SKU3")),
            "available": available,
            "locks": locks,
        }
    until = at + draw(among(1, SECOND, MINUTE, DAY, 40 * DAY))
    if kind == "floor":
        price = draw(among("84.99", "84.98", "9.00"))
        return {"kind": kind, "sku": "SKU1", "from": text(at), "until": text(until), "price": price}
    entity, key, rules, others = draw(
        st.sampled_from(
            (
                ("payment", "p1", ["payment-shared"], ["u1", "u2"]),
                ("payment", "p1", ["payment-shared"], []),
                ("segment", "203.0.113.0/24", ["ip-segment-burst"], []),
                ("segment", "203.0.113.0/24", ["ip-segment-burst"], ["u1", "u2"]),
                ("user", "u1", ["user-burst", "near-threshold"], []),
                ("address", "浙江省杭州市西湖区文三路1号", ["address-sum", "platform-hold"], []),
            )
        )
    )
    trust: Record = {
        "kind": kind,
        "at": text(at),
        "until": text(until),
        "entity": entity,
        "key": key,
        "rules": rules,
        "why": "known",
    }
    return {**trust, "with": others} if others else trust


@cache
def told(*days: int) -> st.SearchStrategy[list[Record]]:
    """A few of them, some of which somebody ended early."""
    return st.lists(references(days), max_size=4).flatmap(_ended)


@st.composite
def _ended(draw: st.DrawFn, records: list[Record]) -> list[Record]:
    out = list(records)
    for record in records:
        if record["kind"] == "trust" and draw(among(False, True)):
            at = times.parse(record["at"])
            out.append({**record, "until": text(at + draw(among(0, 1, MINUTE, HOUR))), "why": "over", "by": "li"})
    return out


@st.composite
def histories(
    draw: st.DrawFn, *, days: Sequence[int] = (0,), delays: Sequence[int] = DELAYS, shifts: Sequence[int] = SHIFTS, most: int = 8
) -> list[Record]:
    """A history in the order in which it was received."""
    count = draw(st.integers(2, most))
    records: list[Record] = []
    for number in range(1, count + 1):
        records += draw(order_records(str(number), days, delays, shifts))
    records += draw(told(*days))
    return sorted(records, key=when)


def when(record: Mapping[str, Any]) -> int:
    """ms at which a record came in; a reference record comes when it begins to hold."""
    return times.parse(record.get("received_at") or record.get("at") or record["from"])


@st.composite
def within(draw: st.DrawFn, records: Sequence[Record], by: int) -> list[Record]:
    """The same records, each up to `by` ms of received time out of place."""
    delays = draw(st.lists(st.integers(0, by), min_size=len(records), max_size=len(records)))
    order = sorted(range(len(records)), key=lambda i: (when(records[i]) + delays[i], delays[i], i))
    return [records[i] for i in order]


def line(book: PackBook = BOOK, keys: Keys = KEYS, goods: Catalogue = GOODS) -> Pipeline:
    return Pipeline(goods, book, keys, ZONE)


def run(records: Iterable[Mapping[str, Any]], make: Callable[[], Pipeline] = line, keys: Keys = KEYS) -> list[bytes]:
    """The final lines of a history."""
    pipeline = make()
    for record in records:
        pipeline.feed(read_item(record, keys, "CNY"))
    return [one.encode() for one in pipeline.verdicts()]
