"""What happens to an order that waits too long, and what is counted."""

from __future__ import annotations

import pytest

from orderstream.board import audit, deadlines, decide, figures, store
from orderstream.board.deadlines import Clock, Ends
from orderstream.board.decide import Person, Terms
from orderstream.board.store import Db
from tests.board.core.records import Feed, T, oid, outcome, place, signal, verdict
from tests.board.core.test_decide import LI, said, state

HOUR = 3_600_000
CLOCK = Clock(grace=1000)


def steps(db: Db, number: str) -> list[str]:
    return [event.body["done"] for event in store.timeline(db, oid(number)) if event.kind == "deadline"]


def test_each_step_is_taken_once_and_in_time(db: Db, feed: Feed) -> None:
    """Reminded at half of the time, the supervisor at eight tenths, the approver at the end; then it stays, and that is recorded."""
    feed.waiting("A1")
    begin = T + 1  # its signal
    taken = []
    for minute in range(62):
        at = begin + minute * 60_000
        for _ in range(2):
            taken += [(minute, step) for step in deadlines.escalate(db, CLOCK, Terms(), at)]

    assert taken == [(30, "reminded"), (48, "supervisor"), (60, "approver"), (61, "stay")]
    assert steps(db, "A1") == ["reminded", "supervisor", "approver", "stay"]
    assert state(db, "A1") == "waiting"


def test_the_channel_s_ship_by_goes_first(db: Db, feed: Feed) -> None:
    feed.waiting("A1", ship_by=T + 600_000)
    one = store.order(db, oid("A1"))
    assert one is not None
    assert one.deadline == T + 600_000


@pytest.mark.parametrize(
    ("ends", "rule", "expected", "outcomes"),
    [
        ("release", "duplicate-order", "decided", ["released"]),
        ("release", "platform-hold", "waiting", []),  # it is frozen: no setting takes the approver's place
        ("cancel", "platform-hold", "decided", ["cancelled"]),
        ("stay", "duplicate-order", "waiting", []),
    ],
)
def test_the_end_is_a_setting_and_recorded_as_such(
    db: Db, feed: Feed, ends: Ends, rule: str, expected: str, outcomes: list[str]
) -> None:
    feed.waiting("A1", signal(rule))

    for _ in range(2):
        deadlines.escalate(db, Clock(ends, grace=0), Terms(), T + HOUR + 1)

    assert state(db, "A1") == expected
    assert [one for _, one in said(db)] == outcomes
    if outcomes:
        assert [(d.by, d.reason) for d in store.decisions(db, oid("A1"))] == [(decide.SYSTEM, "deadline")]
    assert audit.verify(db) == []


def test_what_waits_for_an_approver_is_left_to_them(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    decide.decide(db, LI, {oid("A1"): 1}, "release", "checked", at=T + 5, terms=Terms())

    deadlines.escalate(db, Clock("cancel", grace=0), Terms(), T + HOUR + 1)

    assert said(db) == []


def test_who_stands_in_is_named(db: Db, feed: Feed) -> None:
    feed.waiting("A1")
    boss = Person("boss", frozenset({"approver"}))
    decide.absent(db, boss, boss, "wang", T, T + 2 * HOUR, at=T)

    deadlines.escalate(db, CLOCK, Terms(), T + HOUR + 2)

    row = db.execute("SELECT step, whom FROM board.escalations").fetchone()
    assert row == {"step": "approver", "whom": {"role": "approver", "deputies": {"boss": "wang"}}}


def test_figures_are_counted_from_what_happened(db: Db, feed: Feed) -> None:
    """Six orders whose story is known: each share says how many of how many."""
    for number in ("A1", "A2", "A3", "A4"):
        feed.waiting(number)
    feed(verdict("B1"), place("released", "B1"), verdict("B2"), place("released", "B2"))
    decide.decide(db, LI, {oid("A1"): 1}, "release", "checked", at=T + 60_001, terms=Terms())
    decide.decide(db, LI, {oid("A2"): 1}, "release", "checked", at=T + 60_001, terms=Terms())
    decide.decide(db, Person("w", frozenset({"supervisor"})), {oid("A3"): 1}, "cancel", "fraud", at=T + 120_001, terms=Terms())
    feed(verdict("A2", 2, verdict="withdrawn", status="cancelled"))  # bought elsewhere meanwhile
    feed(outcome("B1", "wrong-shipment", id="w"), outcome("B1", "shipped", id="s"), outcome("B2", "shipped", id="s2"))

    (day,) = figures.campaigns(db, "CNY", [("11.11", T - 1, T + 1)])

    assert (day.orders, day.total, day.held, day.held_total) == (6, 6 * 35_800, 1, 35_800)
    assert (day.recognised.n, day.recognised.of) == (1, 2)  # the cancelled fraud was held, the wrong shipment was not
    assert (day.wrong_shipments.n, day.wrong_shipments.of) == (1, 2)
    assert (day.by_hand.n, day.by_hand.of) == (3, 6)
    assert (day.needless.n, day.needless.of, day.lost_total) == (1, 2, 35_800)
    assert (day.decide_ms, day.first_contact.share) == (60_000, None)
    (rule,) = figures.precision(db, T - 1, T + 1)
    assert (rule.rule, rule.fired, rule.right, rule.wrong) == ("duplicate-order", 4, 1, 2)
    assert figures.days_csv([day]).splitlines()[0].startswith("day,orders,total")
    assert figures.rules_csv([rule]).splitlines()[1] == "duplicate-order,4,1,2,0.3333"
    assert [one.orders for one in figures.days(db, "Asia/Shanghai", "CNY", T + HOUR, 3)][-1] == 6
