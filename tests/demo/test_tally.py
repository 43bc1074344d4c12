"""The demo's book-keeping: every order in one column, and the answers compared with the labels."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orderstream.demo.tally import Share, Summary, Tally
from orderstream.demo.view import View, conclude
from orderstream.simulators import Delivery, Expected, Incident, Scenario


def delivery(order: str, *, revision: int = 1, status: str = "paid", repeat: bool = False) -> Delivery:
    return Delivery(0, "api", "main", b"{}", order, None, revision, status, repeat)


def scenario(*expected: Expected) -> Scenario:
    return Scenario(
        start=0,
        duration=1000,
        deliveries=(),
        expected={e.order_id: e for e in expected},
        incidents=(Incident("double", "重复", "double", 1),),
        catalogue=(),
        reference=(),
    )


def verdict(order: str, seq: int, what: str, *rules: str, status: str = "paid", received: int = 100, tags: tuple = ()) -> dict:
    return {
        "order_id": order,
        "verdict_seq": seq,
        "verdict": what,
        "signals": [{"rule": rule, "level": "medium"} for rule in rules],
        "tags": [{"tag": tag} for tag in tags],
        "status": status,
        "timings": {"received_at": received},
    }


DOUBLE = Expected("o2", "stopped", ("duplicate-order",), incident="double")
CLEAN = Expected("o1", "released")


def test_each_order_is_counted_once_by_its_last_verdict():
    """Columns follow the last verdict and add up to sent; a release taken back is a recall."""
    tally = Tally(scenario(CLEAN, DOUBLE, Expected("o3", "withdrawn"), Expected("o4", "rejected"), Expected("o5", "released")))
    for order in ("o1", "o2", "o4", "o5"):
        tally.acknowledged(delivery(order))
    tally.acknowledged(delivery("o3", revision=1, status="created"))
    tally.acknowledged(delivery("o3", revision=2, status="cancelled"))
    tally.verdict(verdict("o1", 1, "released"), 105)
    tally.verdict(verdict("o2", 1, "released"), 120)
    tally.verdict(verdict("o2", 2, "review", "duplicate-order"), 400)
    tally.verdict(verdict("o3", 1, "pending", status="created"), 110)
    assert sorted(tally.waiting()) == ["o3", "o4", "o5"]
    tally.verdict(verdict("o3", 2, "withdrawn", status="cancelled"), 500)
    tally.reject({"order_id": "o4"})
    result = tally.summary()
    assert result == Summary(
        sent=5, released=1, review=1, frozen=0, withdrawn=1, recalled=1, rejected=1, lost=1, caught=1, missed=0, false_alarms=0,
        p50_ms=10.0, p99_ms=20.0, channels={"api": Share(5, 1, 1, 0, 1, 1, 1, 1, 0, 0)},
    )  # fmt: skip
    assert tally.waiting() == ["o5"]


def test_missed_and_false_alarms_are_counted_by_order():
    """A marked order without its rule is missed, even when another rule holds it; a clean one held is a false alarm."""
    tally = Tally(scenario(CLEAN, DOUBLE))
    tally.acknowledged(delivery("o1"))
    tally.acknowledged(delivery("o2"))
    tally.verdict(verdict("o1", 1, "review", "address-sum"), 105)
    tally.verdict(verdict("o2", 1, "review", "address-sum"), 105)
    result = tally.summary()
    assert (result.caught, result.missed, result.false_alarms) == (0, 1, 1)
    assert [(e.order_id, final) for e, final in tally.odd()] == [("o1", "review"), ("o2", "review")]
    assert tally.incidents() == {"double": (0, 1)}


def test_an_order_nobody_acknowledged_is_in_no_column():
    """What intake did not take was not sent, whatever its label says."""
    tally = Tally(scenario(CLEAN, DOUBLE))
    tally.acknowledged(delivery("o1"))
    tally.verdict(verdict("o1", 1, "released"), 105)
    result = tally.summary()
    assert (result.sent, result.missed, result.lost) == (1, 0, 0)


def test_a_verdict_on_an_older_state_does_not_settle_an_order():
    """An order paid after it was placed waits until its payment has a verdict, however the acknowledgements overtake."""
    tally = Tally(scenario(CLEAN))
    tally.acknowledged(delivery("o1", revision=2, status="paid"))
    tally.acknowledged(delivery("o1", revision=1, status="created"))
    tally.verdict(verdict("o1", 1, "pending", status="created"), 105)
    assert tally.waiting() == ["o1"]
    assert tally.summary().lost == 1
    tally.verdict(verdict("o1", 2, "released"), 105)
    assert tally.waiting() == []


def test_a_late_order_stands_as_meant_only_with_its_tag():
    """The label `late` asks for the tag, not only for the release."""
    tally = Tally(scenario(Expected("o1", "released", incident="late", tag="late")))
    tally.acknowledged(delivery("o1"))
    tally.verdict(verdict("o1", 1, "released"), 105)
    assert tally.incidents() == {"late": (0, 1)}
    tally.verdict(verdict("o1", 2, "released", tags=("late",)), 105)
    assert tally.incidents() == {"late": (1, 1)}


RECORDS = [
    verdict("o1", 1, "released"),
    verdict("o2", 1, "released"),
    verdict("o2", 2, "review", "duplicate-order"),
    verdict("o2", 3, "released"),
    verdict("o2", 4, "frozen", "duplicate-order"),
]


@given(st.lists(st.sampled_from(RECORDS), max_size=12))
def test_repeated_and_old_records_change_nothing(noise):
    """After a crash records repeat; the same ones again, and older ones, leave the columns as they were."""
    once, noisy = Tally(scenario(CLEAN, DOUBLE)), Tally(scenario(CLEAN, DOUBLE))
    for tally in (once, noisy):
        for order in ("o1", "o2"):
            tally.acknowledged(delivery(order))
        for record in RECORDS:
            tally.verdict(record, 105)
    for record in noise:
        noisy.verdict(record, 9_999)
    assert once.summary() == noisy.summary()
    assert once.now == noisy.now


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_rules_in_both_languages_and_no_buyer(terminal):
    """On a terminal and in a file, the latest reason is there in Chinese and English."""
    run = scenario(CLEAN, DOUBLE)
    tally = Tally(run)
    tally.acknowledged(delivery("o2"))
    tally.verdict(verdict("o2", 1, "review", "duplicate-order"), 105)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, height=60)
    with View(console, run, tally, {"duplicate-order": ("疑似重复下单", "Suspected double order")}) as view:
        view.refresh()
    conclude(console, run, tally, tally.summary())
    said = out.getvalue()
    assert "疑似重复下单" in said
    assert "Suspected double order" in said
    assert "漏判 · missed" in said


def test_the_report_has_the_keys_that_were_promised():
    """The report's keys are the issue's, in its order."""
    import msgspec

    keys = list(json.loads(msgspec.json.encode(Tally(scenario(CLEAN)).summary())))
    assert keys == [
        "sent", "released", "review", "frozen", "withdrawn", "recalled", "rejected", "lost", "caught", "missed", "false_alarms",
        "p50_ms", "p99_ms", "channels",
    ]  # fmt: skip
