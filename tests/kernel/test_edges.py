"""Windows are (t - W, t], to the millisecond, whichever end came first; and a record read again is answered again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from histories import BOOK, CATALOGUE, GOODS, KEYS, Record, T, raw, run, text
from hops import METRICS, NAMES
from oracle import Numbers, opinions

from agents import route
from orderstream import engine, wire
from orderstream.normalise import Books, Normaliser, Rejection
from orderstream.replay import read_item
from orderstream.times import DAY, MINUTE, SECOND

ONE: list[Record] = [{"code": "c1", "quantity": 1, "price": "9.00"}]
YOUNG = {"phone": "17012345678", "registered_at": text(T)}
EDGES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("duplicate-order", 5 * MINUTE, 2, {"buyer": {"id": "u1"}}),
    ("duplicate-order", 5 * MINUTE, 2, {"buyer": {"device": "d1"}}),
    ("user-burst", 10 * MINUTE, 3, {"buyer": {"id": "u1"}}),
    ("ip-pair", 10 * SECOND, 2, {"buyer": {"ip": "203.0.113.7"}}),
    ("ip-segment-burst", 30 * SECOND, 3, {"buyer": {"ip": "203.0.113.7"}}),
    ("virtual-phone-batch", 10 * MINUTE, 3, {"buyer": {"device": "d1", **YOUNG}}),
    ("payment-shared", 30 * DAY, 2, {"payment": {"id": "p1"}}),
    ("stock-rush", MINUTE, 5, {}),
]


@pytest.mark.parametrize("backwards", [False, True], ids=["as they came", "the last first"])
@pytest.mark.parametrize(("rule", "span", "count", "shared"), EDGES, ids=lambda v: v if isinstance(v, str) else "")
def test_exactly_a_window_apart(rule: str, span: int, count: int, shared: dict[str, Any], *, backwards: bool) -> None:
    """W apart an order no longer sees the others, a millisecond less and it does; and the second reading says so too."""
    for by, fires in ((-1, True), (0, False)):
        told: list[Record] = (
            [{"kind": "stock", "at": text(T - DAY), "sku": "SKU1", "available": 2}] if rule == "stock-rush" else []
        )
        for n in range(count):
            at = T if n < count - 1 else T + span + by
            body: Record = {"currency": "CNY", "lines": ONE, **shared}
            if rule == "payment-shared":
                body["buyer"] = {"id": f"u{n}"}
            told.append(raw(str(n), at, at, body))
        # over a month nothing comes the wrong way round
        lines = run(told[::-1] if backwards and span < DAY else told)
        fired = {one["order_id"] for one in map(json.loads, lines) if any(s["rule"] == rule for s in one["signals"])}

        second = opinions(told, CATALOGUE, Numbers(user_burst=3, segment_burst=3, rush=5))
        assert (f"api:main:{count - 1}" in fired) == fires
        assert fired == {order for order, opinion in second.items() if rule in opinion.fired}


def test_record_read_again_is_said_again() -> None:
    """The record that made an order what it is, read again at its place after a crash, leads to the same facts and dossier."""
    normaliser = Normaliser(Books(GOODS, BOOK.at), KEYS)
    told = [
        raw("1", T, T + n, {"currency": "CNY", "lines": ONE, "buyer": {"id": f"u{n}"}}, revision=n, updated_at=text(T + n))
        for n in (1, 2)
    ]
    items = [read_item(record, KEYS, "CNY") for record in told]
    normaliser.process(items[0], 7, 0)  # type: ignore[arg-type]
    first = normaliser.process(items[1], 9, 0)  # type: ignore[arg-type]

    after = Normaliser(Books(GOODS, BOOK.at), KEYS)
    assert first.state is not None
    after.restore(first.state.order, wire.encode(first.state), T)
    again = after.process(items[1], 9, 0)  # type: ignore[arg-type]

    assert again.dossier == first.dossier
    assert first.facts.items() <= again.facts.items()
    assert after.process(items[1], 10, 0).dossier is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"order_id":"api:main:1"}', b'{"outcome":"no such","order_id":"1","at":"x"}', b"\xff"]
)
def test_an_outcome_that_nobody_understands_is_kept(body: bytes) -> None:
    """What is no outcome goes to orders.rejected with its bytes, and changes nothing else."""
    state = route.factory(1, NAMES, BOOK.pack, METRICS)(0)

    effects = state.process([engine.Record(NAMES.outcomes, 0, 0, None, body, (), T)])

    (sent,) = effects.sends
    rejected = msgspec.json.decode(sent.value or b"", type=Rejection)
    assert (sent.topic, sent.public) == (NAMES.rejected, True)
    assert (rejected.code, rejected.body, rejected.channel) == ("bad-outcome", body, "outcomes")
    assert effects.log is None
