"""How fast, how often and whether at all a platform is called: values that are given the time and wait for nothing.

Law: nothing here reads a clock or sleeps; `now` is seconds of one monotonic clock. Reason: what decides in an outage must be
tried in a test without living through one.
"""

from __future__ import annotations

import random
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Bucket:
    """A rate with a burst: `reserve` gives each caller its place, in the sequence in which they come."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._due = 0.0
        self._held = 0.0
        self.share(1.0)

    def reserve(self, now: float) -> float:
        """Takes the next place; the seconds until it."""
        start = max(now, self._due - self._slack, self._held)
        self._due = max(self._due, start) + self._gap
        return start - now

    def share(self, part: float) -> None:
        """How much of rate and burst is ours, above 0 to 1; the burst is at least one call."""
        self._gap = 1 / (self._rate * part)
        self._slack = (max(1.0, self._burst * part) - 1) * self._gap

    def hold(self, until: float) -> None:
        """Gives no place before `until`: the platform asked for a rest."""
        self._held = max(self._held, until)


class Breaker:
    """Stops calling what fails again and again, and tries with one call after a rest that doubles each time it is in vain.

    after: failures in a row that open it; rest, longest: seconds.
    """

    def __init__(self, after: int = 5, rest: float = 2.0, longest: float = 60.0) -> None:
        self._after = after
        self._first = rest
        self._longest = longest
        self._failures = 0
        self._rest = rest
        self._probing = False
        self.until: float | None = None
        """When it may be tried again; None while it is closed."""

    def state(self, now: float) -> State:
        """closed: calls pass · open: none does · half-open: the next one passes alone."""
        if self.until is None:
            return "closed"
        return "half-open" if now >= self.until else "open"

    def ready(self, now: float) -> bool:
        """True where a call would pass now."""
        return self.until is None or (now >= self.until and not self._probing)

    def enter(self, now: float) -> bool:
        """True where this call may go; then `succeeded`, `failed` or `left` must follow."""
        if not self.ready(now):
            return False
        self._probing = self.until is not None
        return True

    def succeeded(self) -> None:
        """The platform answered, whatever it said."""
        self._failures, self._rest, self._probing, self.until = 0, self._first, False, None

    def failed(self, now: float) -> None:
        """The call had no answer that is one."""
        self._failures += 1
        if self.until is not None:
            # calls that were under way when it opened end after it, and say nothing new
            if now < self.until:
                return
            self._rest = min(self._rest * 2, self._longest)
        elif self._failures < self._after:
            return
        self._probing = False
        self.until = now + self._rest

    def left(self) -> None:
        """The call was given up before it was known how it ends."""
        self._probing = False


def backoff(attempt: int, base: float, longest: float, chance: random.Random) -> float:
    """Seconds before the next attempt: anything from 0 to base · 2^attempt, at most longest. attempt: from 0.

    The whole range, since callers who failed together would otherwise come back together.
    """
    return chance.uniform(0, min(longest, base * 2 ** min(attempt, 30)))
