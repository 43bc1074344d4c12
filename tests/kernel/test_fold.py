"""Fold: what the board knows of an order at the end does not depend on which topic it read first."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import orjson
import pytest
from histories import KEYS, Record, T, histories, line, text
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outcomes import decisions, quick

from orderstream import outcomes
from orderstream.board import consume, fold, store
from orderstream.board.store import Db
from orderstream.replay import read_item
from orderstream.times import HOUR
from tests.postgres import another

Said = tuple[str, dict[str, Any]]
"""(public topic, a record of it)"""
LIMITS = {"low": None, "medium": 600_000, "high": 60_000}
APART = ("escalated", "state", "decision")
"""What also follows from deadlines, and from what people said: that is read with its rows."""


def told(history: list[Record]) -> dict[str, list[Said]]:
    """Order -> what is said of it, by the line and to it, in its sequence."""
    pipeline = line()
    out: dict[str, list[Said]] = defaultdict(list)
    for record in history:
        if record["kind"] == "outcome":
            out[record["order_id"]].append(("orders.outcomes", {k: v for k, v in record.items() if k != "kind"}))
        for public in pipeline.feed(read_item(record, KEYS, "CNY")):
            if public.topic not in ("orders.actions", "orders.rejected") and public.value is not None:
                out[public.order].append((public.topic, orjson.loads(msgspec.json.encode(public.value))))
    return out


def mixed(data: Any, records: list[Said]) -> list[Said]:
    """Each topic in its own sequence, between them any."""
    topics: dict[str, list[Said]] = defaultdict(list)
    for one in records:
        topics[one[0]].append(one)
    return [topics[topic].pop(0) for topic in data.draw(st.permutations([topic for topic, _ in records]))]


def known(order: str, records: list[Said]) -> dict[str, Any]:
    """An order as the board has it after these records, but for what people said."""
    one, long = fold.fresh(order), {}
    for topic, value in records:
        if topic == "orders.verdicts":
            turn = fold.on_verdict(one, value, LIMITS, {}, {})
        elif topic == "orders.recalled":
            turn = fold.on_recall(one, value, 0)
        elif topic in fold.PLACES:
            turn = fold.on_place(one, fold.PLACES[topic], value, 0)
        else:
            continue
        long |= turn.long
    return {name: value for name, value in msgspec.structs.asdict(one).items() if name not in APART} | long


@quick
@given(histories(), decisions(), st.data())
def test_whichever_topic_is_read_first(history: list[Record], decided: list[Record], data: Any) -> None:
    """The same row, with the order's own document."""
    for order, records in told(history + decided).items():
        assert known(order, mixed(data, records)) == known(order, records)


def stands(db: Db, order: str, records: list[Said]) -> dict[str, Any]:
    """An order as it stands in the table after these records."""
    db.execute(
        "TRUNCATE board.orders, board.cases, board.members, board.edges, board.merged, board.events, board.offsets, board.decisions CASCADE"
    )
    offsets: dict[str, int] = defaultdict(int)
    for topic, value in records:
        record = consume.Record(offsets[topic], 0, order, orjson.dumps(value))
        offsets[topic] += 1
        consume.take(db, topic, 0, [record], consume.Limits(None), 0)
    found = db.execute("SELECT * FROM board.orders WHERE order_id = %s", (order,)).fetchone()
    assert found is not None
    return found


def by_one_clock(decided: list[Record]) -> list[Record]:
    """Each said a millisecond after the one before: of what was decided before what stands, and heard later, the stream says nothing."""
    out, names = [], {}
    for n, one in enumerate(decided):
        new = {**one, "at": text(T + 2 * HOUR + n)}
        if "undoes" in one:
            new["undoes"] = names[one["undoes"]]
        names[outcomes.read(one).id] = outcomes.read(new).id
        out.append(new)
    return out


@pytest.fixture(scope="module")
def several(database_server: str) -> str:
    """A database for many examples, one after the other."""
    return another(database_server, "fold", "board_template")


@settings(quick, max_examples=40)
@given(histories(most=3), decisions(), st.data())
def test_what_the_stream_holds_back_is_somebody_s(several: str, history: list[Record], decided: list[Record], data: Any) -> None:
    """With what people said elsewhere read before or after what came of it: an order that stands on review or frozen, and that nobody
    has put aside or ended, is open on the board; one that stands on released is not.
    """
    with store.connect(several) as db:
        for order, records in told(history + by_one_clock(decided)).items():
            verdicts = [value for topic, value in records if topic == "orders.verdicts"]
            if not verdicts:
                continue  # said of an order that never came
            last = verdicts[-1]

            way = mixed(data, records)
            found = stands(db, order, way)

            assert found["out"] == (last["out"] or "")
            assert found["document"] is not None or not last["out"]
            if last["out"] in ("review", "frozen") and last["verdict"] != "pending":
                assert found["state"] in fold.OPEN
            elif not last["held"]:
                assert found["state"] not in fold.OPEN
