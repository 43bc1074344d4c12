"""What goes wrong at a simulated platform, by a setting and a seed.

Law: the same seed and the same calls meet the same trouble; a test that failed fails again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

Mishap = Literal["failed", "throttled"]


@dataclass(slots=True)
class Trouble:
    """failing, throttled: the share of calls that end so; repeated: the share of events that come twice. All from 0 to 1."""

    failing: float = 0.0
    throttled: float = 0.0
    repeated: float = 0.0
    seed: int = 1
    met: dict[str, int] = field(default_factory=dict)
    """How often each came, for counting."""
    _rng: random.Random | None = None

    def call(self) -> Mishap | None:
        """What becomes of the next call."""
        drawn = self._draw()
        found: Mishap | None = (
            "failed" if drawn < self.failing else "throttled" if drawn < self.failing + self.throttled else None
        )
        if found is not None:
            self.met[found] = self.met.get(found, 0) + 1
        return found

    def again(self) -> bool:
        """Whether the next event comes once more."""
        found = self._draw() < self.repeated
        self.met["repeated"] = self.met.get("repeated", 0) + found
        return found

    def _draw(self) -> float:
        if self._rng is None:
            self._rng = random.Random(self.seed)  # noqa: S311  a simulation that must repeat
        return self._rng.random()
