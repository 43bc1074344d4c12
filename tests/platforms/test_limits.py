"""Rate, rest and back-off, told the time: nothing here waits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from orderstream.platforms.limits import Breaker, Bucket, backoff


@given(
    st.floats(0.5, 200),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), min_size=2, max_size=60),
)
def test_no_stretch_of_time_has_more_calls_than_its_rate_and_the_burst(rate: float, burst: int, pauses: list[float]) -> None:
    """However callers come, between any two calls lie at least as many gaps as the rate wants, less the burst; in their sequence."""
    bucket, now, went = Bucket(rate, burst), 0.0, []
    for pause in pauses:
        now += pause
        went.append(now + bucket.reserve(now))

    assert went == sorted(went)
    for first in range(len(went)):
        for last in range(first + 1, len(went)):
            assert went[last] - went[first] >= (last - first + 1 - burst - 1) / rate - 1e-6


@given(st.floats(1, 200), st.integers(1, 20), st.integers(1, 7))
def test_processes_that_share_a_rate_keep_to_it(rate: float, burst: int, owned: int) -> None:
    """Two processes own so many of eight partitions and the rest: asked as fast as they give, both together have the rate."""
    went: list[float] = []
    for part in (owned / 8, 1 - owned / 8):
        bucket = Bucket(rate, burst)
        bucket.share(part)
        went += [bucket.reserve(0.0) for _ in range(200)]
    seconds = 50 / rate

    # each has at least one call at once
    assert sum(at <= seconds for at in went) <= rate * seconds + burst + 3


def test_a_burst_goes_at_once_and_the_next_waits_its_turn() -> None:
    """Ten a second, three at once: the fourth waits a tenth of a second, and after a pause three go at once again."""
    bucket = Bucket(10, 3)

    assert [round(bucket.reserve(100.0), 3) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    assert [round(bucket.reserve(200.0), 3) for _ in range(4)] == [0, 0, 0, 0.1]


def test_a_bucket_that_is_held_gives_nothing_before_its_time() -> None:
    """What the platform asks for counts for whoever comes next."""
    bucket = Bucket(10, 3)
    bucket.hold(105.0)

    assert bucket.reserve(100.0) == 5.0
    assert bucket.reserve(106.0) == 0


def test_a_breaker_opens_after_failures_in_a_row_and_not_before() -> None:
    """A success in between begins the count anew."""
    breaker = Breaker(after=3)
    for fails in (True, True, False, True, True):
        assert breaker.enter(0.0)
        breaker.failed(0.0) if fails else breaker.succeeded()
    assert breaker.state(0.0) == "closed"
    breaker.failed(0.0)

    assert breaker.state(0.0) == "open"
    assert not breaker.enter(1.9)


def test_after_its_rest_one_call_goes_and_the_rest_doubles_while_it_fails() -> None:
    """2 s, 4 s, 8 s, … up to the longest; one success closes it and the next rest is the first again."""
    breaker, now = Breaker(after=1, rest=2.0, longest=10.0), 0.0
    rests = []
    breaker.failed(now)
    for _ in range(4):
        assert breaker.until is not None
        rests.append(breaker.until - now)
        now = breaker.until
        assert breaker.state(now) == "half-open"
        assert breaker.enter(now)
        assert not breaker.enter(now), "one alone"
        breaker.failed(now)
    assert rests == [2.0, 4.0, 8.0, 10.0]
    assert breaker.until is not None
    now = breaker.until
    assert breaker.enter(now)
    breaker.succeeded()
    assert breaker.state(now) == "closed"
    breaker.failed(now)
    assert breaker.until == now + 2.0


def test_a_call_that_is_given_up_leaves_its_place() -> None:
    """Otherwise nobody would ever try again."""
    breaker = Breaker(after=1)
    breaker.failed(0.0)
    assert breaker.enter(5.0)
    breaker.left()

    assert breaker.enter(5.0)


def test_what_fails_late_does_not_make_the_rest_longer() -> None:
    """Eight calls under way when it opens are one outage."""
    breaker = Breaker(after=1, rest=2.0)
    for _ in range(8):
        breaker.failed(0.5)

    assert breaker.until == 2.5


@given(st.integers(0, 10_000), st.integers())
def test_back_off_is_anything_up_to_its_ceiling(attempt: int, seed: int) -> None:
    """Never negative, never over the longest, over 2^attempt times the base never."""
    wait = backoff(attempt, 0.5, 60.0, random.Random(seed))

    assert 0 <= wait <= min(60.0, 0.5 * 2 ** min(attempt, 20))
