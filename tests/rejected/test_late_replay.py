"""When a replay comes too late for the windows, it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orderstream import rejected, times, wire
from orderstream.catalogue import Catalogue, read_article
from orderstream.identity import Keys
from orderstream.kafka import Outgoing
from orderstream.normalise import Rejection
from orderstream.orders import Raw
from orderstream.pipeline import Pipeline
from orderstream.rejected import Reject
from orderstream.replay import body_bytes
from orderstream.rules import examples
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load

PACK = load(Path(__file__).parents[2] / "rules/standard")
REMEMBERED = PACK.horizon + PACK.lateness
BUYER = {"id": "u-1", "ip": "203.0.113.7"}
WINDOWED = {j.id for j in PACK.asking if j.windowed}


def reject(number: str, received: int, **fields: Any) -> Reject:
    """An order that was rejected when it came. received: ms after the examples' time."""
    body = body_bytes(
        {**examples.BODY, "order_id": number, "created_at": times.text(examples.T + received - 1000), "buyer": BUYER, **fields}
    )
    record = Rejection(
        f"api:main:{number}",
        "api",
        "main",
        examples.T + received,
        "bad-release",
        "…",
        None,
        "",
        "hmac-sha256",
        {"a": "b"},
        body,
        b"{}",
    )
    return Reject(rejected.reject_id(record), record)


def put_back(rejects: list[Reject], after: int) -> list[Raw]:
    """The raw records that a replay sends, so long (ms) after the examples' time."""
    sent: list[Outgoing] = []
    rejected.replay(rejects, "", REMEMBERED, examples.T + after, sent.extend)
    return [wire.read_raw(o.topic, o.headers, o.value, 0) for o in sent]


def test_within_the_windows_memory_it_comes_as_it_came() -> None:
    """Bytes, shop, time of receipt, proof, headers and detail are what they were."""
    one = reject("A1", 0)

    assert put_back([one], REMEMBERED) == [one.raw]


def test_after_it_an_order_is_late_and_not_clean() -> None:
    """Rules on windows that have forgotten its neighbours are not available; replayed twice, at other times, it is the same."""
    one = reject("A1", 0, updated_at=times.text(examples.T))
    first, second = put_back([one], REMEMBERED + 1), put_back([one], 9 * times.DAY)
    assert first == second

    line = Pipeline(Catalogue([read_article(body_bytes(examples.ARTICLE))]), PackBook([PACK]), Keys(b"test"), "Asia/Shanghai")
    for raw in (*first, *second, reject("A2", 9 * times.DAY).raw, *second):
        assert raw is not None
        line.feed(raw)
    late, fresh = line.verdicts()
    assert late.order_id == "api:main:A1"
    assert set(late.not_available) >= WINDOWED
    assert WINDOWED - set(fresh.not_available)


def test_where_only_the_time_of_receipt_tells_revisions_apart_it_stays() -> None:
    """A replayed old body, of an order without revision and time of change, does not take the place of a newer one."""
    old, new = reject("A1", 0, total="1.00"), reject("A1", times.HOUR, total="2.00")
    assert old.raw is not None
    assert new.raw is not None
    line = Pipeline(Catalogue(), PackBook([PACK]), Keys(b"test"), "Asia/Shanghai")
    line.feed(new.raw)
    before = list(line.verdicts())
    (again,) = put_back([old], 9 * times.DAY)
    line.feed(again)

    assert again == old.raw
    assert [v.verdict for v in line.verdicts()] == [v.verdict for v in before]
    (order,) = line._router.cases
    case = line._router.cases.peek(order)
    assert case.dossier is not None
    assert case.dossier.total == 200


@pytest.mark.parametrize("wrong", [{"shop": ""}, {"channel": "elsewhere"}, {"channel": "stock"}])
def test_what_cannot_be_put_back_is_counted(wrong: dict[str, str]) -> None:
    """A record without a whole envelope, or of a channel that nothing reads, stays where it is and is told."""
    import msgspec

    record = msgspec.structs.replace(reject("A1", 0).record, **wrong)
    plan = rejected.replay([Reject("x", record)], "", REMEMBERED, 0, pytest.fail)

    assert plan.counts == {"unreadable": 1}
    assert plan.orders == {}
