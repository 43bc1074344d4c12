"""How many deliveries may be under way at once, so that whoever is taken is answered in time.

Law: who comes when there are more than we answer within `aim` seconds is told so at once; waiting longer he would hang up, and
send again what we had done already. Little's law says how many that are: of n that stay under way, each for W seconds, n / W are
answered a second, so one that comes as the n-th may stay for `aim` where n <= aim / (W / n). W / n, the seconds that one more
costs those behind it, is measured at each answer and averaged. No clock and no Kafka is known here.
"""

from __future__ import annotations

FLOOR = 64
"""Never fewer: of a machine at rest the measure tells how long one takes, and not how many it takes at once."""
START = 256
"""Until something was measured. At 300 deliveries a second, the least a loaded machine did, these take under a second."""
WEIGHT = 1 / 32
"""Of the newest measure: a pace that changes is followed within about a hundred answers."""


class Pace:
    """The bound for one process. ceiling: never more, whatever was measured; aim: seconds that a delivery may stay."""

    def __init__(self, ceiling: int, aim: float) -> None:
        self._ceiling = ceiling
        self._aim = aim
        self._each = aim / START

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return min(self._ceiling, max(FLOOR, int(self._aim / self._each)))

    def answered(self, among: int, seconds: float) -> None:
        """One was answered after so many seconds, that came as the last of `among` (itself counted) under way."""
        self._each += (max(seconds, 1e-6) / among - self._each) * WEIGHT

    def late(self, seconds: float) -> bool:
        """Whether somebody has waited for longer than we meant him to."""
        return seconds > self._aim
