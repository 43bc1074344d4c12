"""Limits: how often one may ask.

Law: a limit is kept in this process and forgets by itself; it protects the machine and slows a guesser, and is no account of anybody.
What must hold across processes and restarts (wrong passwords) is in PostgreSQL, in `accounts`.
"""

from __future__ import annotations

import threading
import time

MOST = 20_000
"""Askers that are remembered; the oldest are forgotten first, who are those that have asked nothing since."""


class Limit:
    """A bucket an asker: `burst` at once, refilled by `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str) -> bool:
        """Whether one more is let through."""
        now = time.monotonic()
        with self._lock:
            left, at = self._left.pop(who, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            allowed = left >= 1
            self._left[who] = (left - 1 if allowed else left, now)
            if len(self._left) > MOST:
                del self._left[next(iter(self._left))]
        return allowed
