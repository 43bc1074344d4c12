"""How many are taken at once, held against a machine that answers so many a second: one line of them, in their sequence."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.intake.pace import FLOOR, START, Pace

AIM = 1.2
"""Seconds."""


class Machine:
    """Answers `rate` a second, one after another, each no sooner than `least` seconds after it came. Times in seconds."""

    def __init__(self, pace: Pace, rate: float, least: float = 0.005) -> None:
        self.pace, self.rate, self.least = pace, rate, least
        self.now = 0.0
        self.free_at = 0.0
        self.waiting: deque[tuple[float, float, int]] = deque()
        self.took: list[float] = []
        self.refused = 0

    def run(self, offered: float, seconds: float) -> None:
        """So many come a second, evenly."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1 / offered
            while self.waiting and self.waiting[0][1] <= self.now:
                came, done, among = self.waiting.popleft()
                self.pace.answered(among, done - came)
                self.took.append(done - came)
            if len(self.waiting) >= self.pace.limit:
                self.refused += 1
                continue
            self.free_at = max(self.free_at, self.now) + 1 / self.rate
            self.waiting.append((self.now, max(self.free_at, self.now + self.least), len(self.waiting) + 1))


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(60, 600), times=st.floats(1.5, 4), ceiling=st.sampled_from([1_000, 10_000]))
def test_who_is_taken_is_answered_in_time_and_the_machine_has_always_work(rate: float, times: float, ceiling: int) -> None:
    """Whatever a machine does a second and however much more comes: nobody stays much longer than the aim, and it answers as
    many as it can.
    """
    machine = Machine(Pace(ceiling, AIM), rate)
    machine.run(times * rate, 6)
    machine.took.clear()
    machine.refused = 0
    machine.run(times * rate, 4)
    assert max(machine.took) < AIM * 1.1
    assert len(machine.took) == pytest.approx(4 * rate, rel=0.03)
    assert machine.refused > 0


def test_a_machine_that_slows_down_takes_fewer() -> None:
    """From 2,000 a second to 100: those already taken are late, those that come a second later are not; and back again."""
    machine = Machine(Pace(10_000, AIM), 2_000)
    machine.run(6_000, 5)
    assert 0.9 * 2_400 < machine.pace.limit < 1.1 * 2_400
    machine.rate = 100
    machine.run(400, 60)
    machine.took.clear()
    machine.run(400, 10)
    assert max(machine.took) < AIM * 1.1
    machine.rate = 2_000
    machine.run(6_000, 5)
    assert machine.pace.limit > 0.8 * 2_400


def test_a_quiet_machine_still_takes_a_burst() -> None:
    """One at a time, 50 ms each, it has shown 20 a second: a handful at once is no reason to turn anybody away."""
    pace = Pace(1_000, AIM)
    for _ in range(1_000):
        pace.answered(1, 0.05)
    assert pace.limit == FLOOR


def test_kafka_away_and_back() -> None:
    """Deliveries that wait in vain shrink the bound to its floor; the first ones that are answered again open it."""
    pace = Pace(1_000, AIM)
    for _ in range(300):
        pace.answered(pace.limit, 3.5)
    assert pace.limit == FLOOR
    for _ in range(200):
        pace.answered(FLOOR, 0.05)
    assert pace.limit == 1_000


def test_the_setting_is_the_ceiling_and_nothing_measured_is_a_start() -> None:
    """An operator's four are four, whatever was measured; a new process takes what any machine answers in time."""
    assert Pace(4, AIM).limit == 4
    assert Pace(10_000, AIM).limit == pytest.approx(START, abs=1)
    quick = Pace(50, AIM)
    for _ in range(100):
        quick.answered(50, 0)
    assert quick.limit == 50
