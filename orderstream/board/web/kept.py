"""Kept: what many readers ask for in the same moment is made once.

Law: only what has nothing of one reader in it is kept, and only until something changed: `number` is the live watcher's, which grows
after each change and before anybody is told of it, so whoever asks because they were told gets what is at least as new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
OLD = 5.0
"""Seconds after which it is made anew without a change: times go on."""
MOST = 200


class _Place(Generic[T]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: tuple[int, float, T] | None = None


class Kept(Generic[T]):
    """Values by what they answer. old: seconds after which one is made anew without a change."""

    def __init__(self, old: float = OLD) -> None:
        self._old = old
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place[T]] = {}

    def get(self, key: Hashable, number: int, make: Callable[[], T]) -> T:
        """The kept value, or one that is made now; of many who ask at once one makes it and the others wait for that."""
        with self._lock:
            if key not in self._places and len(self._places) >= MOST:
                self._places.clear()
            place = self._places.setdefault(key, _Place())
        with place.lock:
            if place.made is None or place.made[0] < number or time.monotonic() - place.made[1] > self._old:
                # what is made now is not older than `number` was when it was asked for
                place.made = (number, time.monotonic(), make())
            return place.made[2]
