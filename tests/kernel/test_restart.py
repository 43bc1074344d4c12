"""A worker may die between any two things that it does: the line repeats itself, and never contradicts itself."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from histories import BOOK, KEYS, Record, T, histories, line, raw, run, text
from hops import METRICS, NAMES, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import route
from orderstream import engine, wire
from orderstream.facts import Answer, Answers, Dossier, Forget, OrderItem
from orderstream.replay import read_item

quick = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def claims(world: World, topic: str) -> dict[tuple[str, int], set[str]]:
    """(order, verdict_seq) -> the different things that a public topic says of it, its timings left out."""
    out: dict[tuple[str, int], set[str]] = defaultdict(set)
    for value in world.values(topic):
        told = {k: v for k, v in value.items() if k not in ("timings", "previous", "decided_at")}
        out[value["order_id"], value["verdict_seq"]].add(json.dumps(told, sort_keys=True))
    return out


@quick
@given(histories(), st.integers(1, 3), seeds)
def test_partitions_agree_with_one_line(history: list[Record], partitions: int, seed: int) -> None:
    """From any number of partitions, in any interleaving, come the verdicts of the backtest, byte for byte."""
    world = World(history, partitions, seed)

    world.run(deaths=0)

    assert world.lines() == run(history)


@settings(quick, max_examples=150)
@given(histories(), st.integers(1, 3), seeds, st.integers(1, 6))
def test_death_at_any_point(history: list[Record], partitions: int, seed: int, deaths: int) -> None:
    """Killed at any points, the line ends with the verdicts of the backtest, never says two things under one number, and
    whatever was on its way when the worker died is made up for: the last verdict's records are all there.
    """
    world = World(history, partitions, seed)

    world.run(deaths)

    assert world.lines() == run(history)
    for topic in ("orders.verdicts", "orders.released", "orders.review", "orders.frozen", "orders.recalled"):
        assert {key: told for key, told in claims(world, topic).items() if len(told) > 1} == {}
    assert unheard(world) == []


def test_what_a_number_says_it_says_for_ever() -> None:
    """An edit of the sum alone, of an order that has no document any more, has a number of its own.

    Said under the old one, it would be another thing under the same number as soon as a crash has it said again.
    """
    history = [
        raw("1", T, T + n, {"currency": "CNY", "lines": [{"code": "c1", "quantity": 1, "price": price}]},
            revision=n, updated_at=text(T + n), status="cancelled")
        for n, price in ((1, "9.00"), (2, "8.00"))
    ]  # fmt: skip
    told = line()
    said = [public.value for record in history for public in told.feed(read_item(record, KEYS, "CNY"))]

    verdicts = [value for value in said if value is not None and "rules" in value]
    assert [(value["verdict_seq"], value["total"]) for value in verdicts] == [(1, 900), (2, 800)]


def unheard(world: World) -> list[Any]:
    """Orders whose last verdict stands on orders.verdicts and not where the ERP would see it."""
    last: dict[str, dict[str, Any]] = {}
    for value in sorted(world.values("orders.verdicts"), key=lambda v: v["verdict_seq"]):
        last[value["order_id"]] = value
    stands = {
        (v["order_id"], topic, _rules(v)) for topic in ("released", "review", "frozen") for v in world.values(f"orders.{topic}")
    }
    recalls = {v["order_id"] for v in world.values("orders.recalled")}
    released = {v["order_id"] for v in world.values("orders.released")}
    out: list[Any] = []
    for order, value in last.items():
        head = (order, value["verdict"], _rules(value))
        if value["verdict"] in ("released", "review", "frozen") and not value["held"] and head not in stands:
            out.append(("missing", head))
        if value["verdict"] == "withdrawn" and order in released and order not in recalls:
            out.append(("not recalled", head))
    return out


def _rules(value: dict[str, Any]) -> tuple[str, ...]:
    return tuple(signal["rule"] for signal in value["signals"])


@pytest.mark.parametrize("seed", range(3))
def test_memory_survives(seed: int) -> None:
    """After everybody has died at rest, a second order still finds the first in its windows, and a repeat is a repeat."""
    body = {"currency": "CNY", "lines": [{"code": "c1", "quantity": 1, "price": "100.00"}], "buyer": {"id": "u1"}}
    first, second = (raw(number, T, T + 1, body, revision=1) for number in ("1", "2"))
    world = World([first], 2, seed)
    world.run(deaths=0)
    for lane in world.lanes:
        lane.die()
        lane.begin()
    world.feed(first)
    world.feed(second)

    world.run(deaths=0)

    assert world.lines() == run([first, second])
    assert b"duplicate-order" in world.lines()[1].split(b"not_available")[0]


@pytest.mark.parametrize("seed", range(3))
def test_deaths_happen(seed: int) -> None:
    """The simulation does lose what a death loses: without the changelog's batches, an order would be numbered anew."""
    record = {
        "kind": "raw", "channel": "api", "shop": "main", "received_at": "2026-11-11T00:00:00Z",
        "body": {"order_id": "1", "created_at": "2026-11-11T00:00:00Z", "currency": "CNY",
                 "lines": [{"code": "c1", "quantity": 1, "price": "100.00"}]},
    }  # fmt: skip
    world = World([record], 1, seed)
    world.run(deaths=0)
    for lane in world.lanes:
        lane.die()
        lane.begin()
        lane.read.clear()
    before = len(world.values("orders.verdicts"))

    world.run(deaths=0)

    told = world.values("orders.verdicts")
    assert len(told) > before
    assert {v["verdict_seq"] for v in told} == {1}


def test_died_between_two_logs_of_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose cases are logged in several blobs, and only the first of them written: nobody's number begins anew."""
    monkeypatch.setattr(wire, "MAX_RECORD", 100)

    def desk(*log: bytes) -> route.RouteState:
        state = route.factory(1, NAMES, BOOK.pack, METRICS)(0)
        for blob in log:
            state.restore(blob)
        return state

    def read(state: route.RouteState, offset: int, total: int) -> tuple[list[int], list[bytes]]:
        mail = [(f"api:main:{n}", [Dossier(f"api:main:{n}", offset, BOOK.at(T).version, "paid", "CNY", total, T, T, {},
                                           document=b"{}", digest=str(total))]) for n in range(3)]  # fmt: skip
        effects = state.process([engine.Record(NAMES.dossiers, 0, offset, None, wire.encode(mail), (), T)])
        told = [json.loads(send.value or b"")["verdict_seq"] for send in effects.sends if send.topic == "orders.verdicts"]
        return told, list(effects.log or [])  # type: ignore[arg-type]

    numbers, log = read(desk(), 1, 100)
    assert (numbers, len(log)) == ([1, 1, 1], 3)
    numbers, rest = read(desk(log[0]), 1, 100)
    assert numbers == [1, 1, 1]

    numbers, _ = read(desk(log[0], *rest), 2, 200)

    assert numbers == [2, 2, 2]


def said(effects: engine.Effects) -> list[tuple[str, str, Any]]:
    """(topic, order, value), values without their timings."""
    values = [(send, None if send.value is None else json.loads(send.value)) for send in effects.sends]
    for _, value in values:
        if value is not None:
            value.pop("timings", None)
    return [(send.topic, (send.key or b"").decode(), value) for send, value in values]


def record(offset: int, *items: OrderItem, topic: str = NAMES.dossiers) -> engine.Record:
    return engine.Record(topic, 0, offset, None, wire.encode([("api:main:1", list(items))]), (), T)


def dossier(version: int, total: int = 100) -> Dossier:
    return Dossier("api:main:1", version, BOOK.at(T).version, "paid", "CNY", total, T, T, {"ip:x": version, "user:y": 1},
                   document=b"{}", digest=str(total))  # fmt: skip


def test_an_order_is_decided_once_a_batch() -> None:
    """What several records of a batch say of an order is one verdict and one entry of the changelog, and is known after a restart."""
    state, after = (route.factory(1, NAMES, BOOK.pack, METRICS)(0) for _ in range(2))
    batch = [
        record(1, dossier(1)),
        record(2, Answers({"ip:x": Answer(1, 1)})),
        record(3, Answers({"user:y": Answer(1, 1)})),
        record(4, dossier(2, 200), Answers({"ip:x": Answer(2, 2)})),
    ]

    effects = state.process(batch)

    verdicts = [value for topic, _, value in said(effects) if topic == "orders.verdicts"]
    assert [(value["verdict_seq"], value["total"]) for value in verdicts] == [(1, 200)]
    (blob,) = effects.log or []
    after.restore(blob)  # type: ignore[arg-type]
    again = [value for topic, _, value in said(after.process(batch)) if topic == "orders.verdicts"]
    assert again == verdicts
    more = after.process([record(5, Answers({"ip:x": Answer(2, 3)}))])
    assert said(more) == []


def test_who_is_to_be_forgotten_in_the_batch_of_their_order() -> None:
    """An order that was complete goes out before what it says of its person goes, and is forgotten nevertheless."""
    state = route.factory(1, NAMES, BOOK.pack, METRICS)(0)
    heard = Answers({"ip:x": Answer(1, 1), "user:y": Answer(1, 1)})

    effects = state.process([record(1, dossier(1), heard), record(2, Forget("api:main:1"))])

    assert [value is None for topic, _, value in said(effects) if topic == "orders.released"] == [False, True]
    (blob,) = effects.log or []
    assert b"{}" not in blob  # type: ignore[operator]


def test_a_case_that_is_logged_whole_is_no_object() -> None:
    """What was decided lies as the bytes of its log, what waits does not; and it is found again, as if it had never been put away."""
    state = route.factory(1, NAMES, BOOK.pack, METRICS)(0)
    cases = state._router.cases
    heard = Answers({"ip:x": Answer(1, 1), "user:y": Answer(1, 1)})

    state.process([record(1, dossier(1))])
    waiting = len(cases.objects())
    state.process([record(2, heard)])

    assert (waiting, len(cases.objects())) == (1, 0)
    effects = state.process([record(3, dossier(2, 200), Answers({"ip:x": Answer(2, 2)}))])
    verdicts = [value for topic, _, value in said(effects) if topic == "orders.verdicts"]
    assert [(value["verdict_seq"], value["previous"], value["total"]) for value in verdicts] == [(2, "released", 200)]
    assert cases.objects() == []
