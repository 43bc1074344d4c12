"""The ledger on a real PostgreSQL: once, at a pace, not at night, and never twice after a recorded success."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest

from orderstream.actions import ledger, plan
from orderstream.actions.ledger import LEASE, MINUTE, New, Pace, Row
from orderstream.board import store
from orderstream.board.store import Db

NOW = 1_794_400_000_000
CHANCE = random.Random(7)


@pytest.fixture
def db(database: str) -> Iterator[Db]:
    with store.connect(database) as one:
        yield one


def told(number: int, receiver: str = "wang", rule: str = "ip-pair", *, joins: str | None = None, at: int = 0) -> New:
    body = {"what": "notify"} | ({"joins": joins} if joins else {})
    return New(
        plan.key(str(number), receiver),
        f"{number:032x}",
        f"api:main:A{number}",
        1,
        "notify",
        rule,
        "high",
        body,
        receiver,
        "hook",
        at,
    )


def take(db: Db, now: int = NOW, most: int = 50, pace: Pace | None = None) -> list[Row]:
    return ledger.take(db, now, most, lambda _: pace or Pace(1000, lambda _: None))


def state(db: Db, row: str) -> tuple[str, int, str | None]:
    found = db.execute("SELECT state, attempts, error FROM board.messages WHERE id = %s", (row,)).fetchone()
    assert found is not None
    return found["state"], found["attempts"], found["error"]


def test_a_record_read_again_adds_nothing_and_a_position_never_goes_back(db: Db) -> None:
    """Rows and position are one transaction; a process that wakes up late moves nothing."""
    assert ledger.read(db, "orders.actions", 0, [told(1), told(2)], 2, NOW) == 2
    assert ledger.read(db, "orders.actions", 0, [told(1)], 1, NOW) == 0
    assert ledger.position(db, "orders.actions", 0) == 2
    with db.transaction() as whole:
        ledger.read(db, "orders.actions", 0, [told(3)], 3, NOW)
        raise psycopg.Rollback(whole)
    assert ledger.position(db, "orders.actions", 0) == 2
    assert len(take(db)) == 2


def test_what_is_taken_is_nobody_else_s_until_its_lease_ends(db: Db) -> None:
    """And what is done is never taken again, whatever its taker says afterwards."""
    ledger.add(db, [told(1)], NOW)
    (row,) = take(db)
    assert take(db, NOW + LEASE - 1) == []
    (again,) = take(db, NOW + LEASE)
    assert (again.id, again.attempts) == (row.id, 2)
    ledger.done(db, again, "r-1", NOW + LEASE)
    assert ledger.failed(db, row, "timeout", NOW + LEASE, CHANCE, final=True, answered=False)
    assert take(db, NOW + 10 * LEASE) == []
    assert state(db, row.id)[0] == "sent"


def test_a_late_success_is_a_success(db: Db) -> None:
    """Its taker was given up, and the next one failed: it is told all the same, and not a third time; the first word stands."""
    ledger.add(db, [told(1)], NOW)
    (slow,) = take(db)
    (again,) = take(db, NOW + LEASE)
    ledger.failed(db, again, "http-503", NOW + LEASE, CHANCE, final=False, answered=True)
    ledger.done(db, slow, "r-1", NOW + LEASE + 1)
    assert take(db, NOW + 100 * LEASE) == []
    ledger.done(db, again, "r-2", NOW + LEASE + 2)
    found = db.execute("SELECT state, receipt, done_at FROM board.messages").fetchall()
    assert found == [{"state": "sent", "receipt": "r-1", "done_at": NOW + LEASE + 1}]


def test_it_is_tried_ten_times_and_then_a_person_is_asked(db: Db) -> None:
    """The waits grow; `retry` begins anew, with the same key; what was sent does not come back."""
    ledger.add(db, [told(1), told(2)], NOW)
    first, second = sorted(take(db), key=lambda r: r.order_id)
    ledger.done(db, second, "", NOW)
    now, row = NOW, first
    for attempt in range(1, ledger.TRIES + 1):
        assert row.attempts == attempt
        dead = ledger.failed(db, row, "http-503", now, CHANCE, final=False, answered=True)
        assert dead == (attempt == ledger.TRIES)
        now += int(ledger.LONGEST * 1000) + 1
        if not dead:
            (row,) = take(db, now)
    assert state(db, first.id) == ("dead", ledger.TRIES, "http-503")
    assert take(db, now + 10 * LEASE) == []
    assert ledger.retry(db, [first.id[:10], second.id], now) == [first.id]
    (row,) = take(db, now)
    assert (row.id, row.attempts, row.answered) == (first.id, 1, ledger.TRIES)
    assert ledger.retry(db, [], now, everything=True) == []


def test_a_receiver_is_told_at_a_pace(db: Db) -> None:
    """Three a minute are three in any minute, over two processes and a restart; another receiver does not wait."""
    ledger.add(db, [told(n) for n in range(5)] + [told(9, "chen")], NOW)
    pace = Pace(3, lambda _: None)
    first = take(db, NOW, pace=pace)
    assert sorted(r.receiver for r in first) == ["chen", "wang", "wang", "wang"]
    assert take(db, NOW + MINUTE - 1, pace=pace) == []
    assert len(take(db, NOW + MINUTE + 1, pace=pace)) == 2


def test_nobody_is_woken(db: Db) -> None:
    """What falls into quiet hours waits for their end, without an attempt counted, and hides nothing behind it."""
    ledger.add(db, [told(1), told(2, "chen")], NOW)
    morning = NOW + 5 * 3_600_000
    night = {"wang": Pace(10, lambda level: morning if level == "high" else None), "chen": Pace(10, lambda _: None)}
    (row,) = ledger.take(db, NOW, 50, lambda r: night[r.receiver])
    assert row.receiver == "chen"
    ledger.done(db, row, "", NOW)
    assert ledger.take(db, morning - 1, 50, lambda r: night[r.receiver]) == []
    (row,) = take(db, morning)
    assert (row.receiver, row.attempts) == ("wang", 1)


def test_a_burst_is_one_message(db: Db) -> None:
    """47 orders for one rule are told together, and stay together when it is tried again; what comes later is another message."""
    ledger.add(db, [told(n, joins="notify|") for n in range(47)] + [told(99, rule="other", joins="notify|")], NOW)
    rows = take(db)
    assert sorted(len(r.joined) for r in rows) == [0, 46]
    alone, lead = sorted(rows, key=lambda r: len(r.joined))
    ledger.done(db, alone, "", NOW)
    ledger.failed(db, lead, "timeout", NOW, CHANCE, final=False, answered=False)
    ledger.add(db, [told(100, joins="notify|", at=NOW)], NOW)
    later = take(db, NOW + 3_600_000)
    assert sorted((r.id == lead.id, len(r.joined)) for r in later) == [(False, 0), (True, 46)]
    ledger.done(db, lead, "", NOW)
    open_rows = db.execute("SELECT count(*) AS n FROM board.messages WHERE lead = %s AND done_at IS NULL", (lead.id,)).fetchone()
    assert open_rows == {"n": 0}


def test_dead_letters_are_counted_and_what_is_late_is_seen(db: Db) -> None:
    """For the alerts: what waits for a time that is yet to come is not late."""
    ledger.add(db, [told(1, at=NOW + 1000), told(2, at=NOW + 60_000)], NOW)
    assert ledger.counts(db, NOW).oldest is None
    counted = ledger.counts(db, NOW + 5000)
    assert (counted.waiting, counted.dead, counted.oldest) == (2, 0, NOW + 1000)
    (row,) = take(db, NOW + 5000)
    ledger.failed(db, row, "no-such-user", NOW, CHANCE, final=True, answered=True)
    assert (ledger.counts(db, NOW).waiting, ledger.counts(db, NOW).dead) == (1, 1)
