"""What the line promises of any history: order of arrival, repeats, and a second reading of the rules change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from histories import CATALOGUE, DAYS, KEYS, LONG_DELAYS, STANDARD, Record, T, histories, line, run, within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import STANDARD as AGREED
from oracle import Numbers, Opinion, opinions

from orderstream import shelf
from orderstream.catalogue import Catalogue, read_article
from orderstream.rules.book import PackBook
from orderstream.simulators import scenario
from orderstream.times import HOUR

COMPACT_NUMBERS = Numbers(user_burst=3, segment_burst=3, rush=5)

quick = settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def said(lines: list[bytes]) -> dict[str, Opinion]:
    out = {}
    for one in map(json.loads, lines):
        fired = frozenset(signal["rule"] for signal in one["signals"])
        out[one["order_id"]] = Opinion(one["verdict"], one["level"], fired, frozenset(one["not_available"]))
    return out


def disagreements(history: list[Record]) -> dict[str, Any]:
    """Order -> what only the line says, what only the second reading says."""
    ours, theirs = said(run(history)), opinions(history, CATALOGUE, COMPACT_NUMBERS)
    assert ours.keys() == theirs.keys()
    return {
        order: {
            "verdict": (one.verdict, theirs[order].verdict, one.level, theirs[order].level),
            "fired": (one.fired - theirs[order].fired, theirs[order].fired - one.fired),
            "not_available": (one.not_available - theirs[order].not_available, theirs[order].not_available - one.not_available),
        }
        for order, one in ours.items()
        if one != theirs[order]
    }


@quick
@given(histories(), st.data())
def test_short_histories_in_any_order(history: list[Record], data: Any) -> None:
    """However the records of a day are interleaved, they end with the same bytes."""
    shuffled = data.draw(st.permutations(history))

    assert run(shuffled) == run(history)


@quick
@given(histories(days=DAYS, delays=LONG_DELAYS), st.data())
def test_long_histories_within_the_lateness(history: list[Record], data: Any) -> None:
    """Over a month, records that come up to an hour out of place end with the same bytes."""
    assert run(data.draw(within(history, HOUR))) == run(history)


@quick
@given(histories(), st.data())
def test_repeats_change_nothing(history: list[Record], data: Any) -> None:
    """Every raw record up to three times, later or at once, ends with the same bytes."""
    again = data.draw(st.lists(st.sampled_from(history), max_size=2 * len(history)))

    assert run(history + again) == run(history)


@quick
@given(histories())
def test_a_second_reading_of_the_rules_agrees(history: list[Record]) -> None:
    """Verdict, level, fired and unavailable rules are those that a brute-force reading of the agreement finds."""
    assert disagreements(history) == {}


@quick
@given(histories(days=DAYS, delays=LONG_DELAYS))
def test_a_second_reading_agrees_over_a_month(history: list[Record]) -> None:
    """The same where windows have been forgotten, and the horizon matters."""
    assert disagreements(history) == {}


@pytest.mark.parametrize("hot", [1, 4])
@quick
@given(history=histories(days=DAYS, delays=LONG_DELAYS), data=st.data())
def test_bytes_remember_everything(hot: int, history: list[Record], data: Any) -> None:
    """What becomes bytes between any two records, and is read again when it is asked for, ends with the same bytes."""
    told = data.draw(within(history, HOUR))
    usual = run(told)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelf, "HOT", hot)

        assert run(told) == usual


def test_a_second_reading_agrees_on_a_peak() -> None:
    """Five hundred orders of a live-stream peak, on two channels, with all incidents, under the standard pack itself."""
    peak = scenario.make(500, rate=50, start=T)
    records = list(scenario.replay(peak))
    goods = Catalogue(read_article(json.dumps(article)) for article in peak.catalogue)

    ours = said(run(records, lambda: line(PackBook([STANDARD]), KEYS, goods)))

    theirs = opinions(records, peak.catalogue, AGREED)
    assert {order: (one, theirs.get(order)) for order, one in ours.items() if one != theirs.get(order)} == {}
    assert ours.keys() == theirs.keys()
