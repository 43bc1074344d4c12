"""What long runs conclude from their samples."""

from __future__ import annotations

import math
import os
import time
from xml.etree import ElementTree as ET

import pytest

from bench import compare, rig, soak
from bench.figures import Panel, flatness, percentile, picture, sign_test

MINUTES = [n / 6 for n in range(361)]


def line(value) -> list[tuple[float, float]]:
    return [(at, value(at)) for at in MINUTES]


@pytest.mark.parametrize(
    ("what", "value", "flat"),
    [
        ("a constant", lambda at: 100.0, True),
        ("a leak of 8 % in the half hour", lambda at: 100 + 8 * max(0, at - 30) / 30, False),
        ("a saw that returns every minute", lambda at: 100 + 20 * (at % 1), True),
        ("a step in the last ten minutes", lambda at: 100 + 6 * (at > 50), False),
        ("growth that ended before the half hour", lambda at: min(at, 25) * 4, True),
        ("one odd sample", lambda at: 500.0 if at == MINUTES[300] else 100.0, True),
        ("memory that shrinks by a tenth", lambda at: 100 - 10 * max(0, at - 30) / 30, False),
    ],
)
def test_flat_means_within_five_per_cent(what, value, flat):
    """A climb, a step or a fall is seen; a saw or one odd sample is no leak; what came before the window does not count."""
    found = flatness(line(value), 30)
    assert found is not None
    assert (found <= soak.FLAT) == flat, what


def test_too_few_samples_are_no_judgement():
    """A minute's run proves nothing, and says so."""
    assert flatness(line(lambda at: 1.0)[:20], 3) is None
    assert math.isnan(percentile([], 0.5))


def sample(at: float, *, rss: float = 100.0, lag: float = 0.0) -> dict:
    return {
        "minutes": at,
        "rss": {"worker-1": rss},
        "lag": lag,
        "erp_lag": 0.0,
        "oldest_s": 0.1,
        "entries": 10.0,
        "disk": 10.0,
        "changelogs": 5.0,
        "cpu": {"worker-1": 0.3},
        "series": {"worker-1": 200},
        "latency_ms": {"p50": 50.0, "p99": 90.0, "of": 3},
    }


@pytest.mark.parametrize(
    ("samples", "errors", "unanswered", "well"),
    [
        ([sample(at) for at in MINUTES], [], 0, True),
        ([sample(at, rss=100 + at) for at in MINUTES], [], 0, False),
        ([sample(at, lag=5_000 if at > 40 else 0) for at in MINUTES], [], 0, False),
        ([sample(at) for at in MINUTES], ["worker-1: ERROR"], 0, False),
        ([sample(at) for at in MINUTES], [], 1, False),
        ([sample(at) for at in MINUTES[:10]], [], 0, False),
        ([], [], 0, False),
    ],
)
def test_a_run_is_well_only_if_all_of_it_is(samples, errors, unanswered, well):
    """Memory, lag, lines of error, an order without a verdict, a run too short to tell: each by itself fails it."""
    assert soak.judge(samples, 60, 500, errors, unanswered)["well"] is well


def test_the_picture_is_one():
    """An SVG that an XML reader reads, with every line's name, also where a value is missing or a name has an ampersand."""
    text = picture("a & b", [Panel("x < y", {"one": [(0, 1), (1, math.nan), (2, 3)], "none": []})], 1.0)
    root = ET.fromstring(text)
    assert {"one", "none", "a & b", "x < y"} <= {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "nan" not in text
    whole = soak.drawn([sample(at) for at in MINUTES], "t", 30)
    ET.fromstring(whole)


def test_lines_of_error_are_found_and_others_are_not():
    """Ours, the broker's, a traceback; not a warning, and not an order id that happens to say ERROR."""
    log = b"""2026-11-22 07:05:53,704 ERROR orderstream.engine Thread is gone
2026-11-22 07:05:53,704 WARNING orderstream.engine the last one was called ERROR once
2026-11-22 07:05:53,704 CRITICAL orderstream.engine the worker stops
131201 [kafka-scheduler-1] ERROR org.apache.kafka.server - disk
131202 [kafka-scheduler-1] WARN org.apache.kafka.server - slow, no ERROR here
Traceback (most recent call last):
  File "x.py", line 1
"""
    assert [line.split()[2] for line in rig.error_lines(log)] == [b"ERROR", b"CRITICAL", b"ERROR", b"recent"]


def test_memory_and_processor_of_this_process():
    """/proc is read as it is: this process has some, one that is gone has none."""
    own = rig.memory(os.getpid())
    assert 0 < own.anonymous <= own.rss <= own.peak
    assert abs(rig.processor(os.getpid()) - time.process_time()) < 0.1
    assert rig.memory(2**22 + 1).rss == 0
    assert rig.processor(2**22 + 1) == 0.0


def test_the_sign_test_counts_the_ways():
    """By hand: 8 of 8 is 1/256, 7 of 8 is 9/256, 6 of 8 is 37/256; ties say nothing; none is certain."""
    slow, fast, same = (1.0, 2.0), (2.0, 1.0), (1.0, 1.0)
    assert sign_test([slow] * 8) == 1 / 256
    assert sign_test([slow] * 7 + [fast]) == 9 / 256
    assert sign_test([slow] * 6 + [fast] * 2) == 37 / 256
    assert sign_test([slow] * 5 + [same] * 20) == 1 / 32
    assert sign_test([fast] * 8) == 1.0
    assert sign_test([]) == 1.0


@pytest.mark.parametrize(
    ("what", "pairs", "slower"),
    [
        ("a tenth more each time", [(100 + n, 110 + n) for n in range(8)], True),
        ("a hundredth more each time is no matter", [(100.0, 101.0)] * 8, False),
        ("much more, but only as often as not", [(100.0, 150.0), (100.0, 90.0)] * 4, False),
        ("less", [(110.0, 100.0)] * 8, False),
        ("one good pair does not hide seven bad ones", [(100.0, 110.0)] * 7 + [(100.0, 50.0)], True),
    ],
)
def test_slower_means_often_and_by_more_than_a_little(what, pairs, slower):
    """Both are needed: most pairs, and a median beyond the tolerance. Orders a second are the machine's and are not judged."""
    assert compare.judge("job µs", pairs, 3).slower is slower, what
    assert not compare.judge("job orders/s", pairs, 3).slower
