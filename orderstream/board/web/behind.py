"""Behind: what is read from Kafka behind the pages, which never wait for it.

Law: a page shows what was last read, and that nothing has been read yet; whoever looks at something old has it read again. What
fails is said in the log and tried again by the next one who looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from orderstream.errors import UserError

T = TypeVar("T")
AGAIN = 10.0
"""Seconds until what failed is tried again."""

logger = logging.getLogger(__name__)


class Behind(Generic[T]):
    """Something that `read` reads, in a thread of its own. old: seconds after which it is read again when somebody looks."""

    def __init__(self, name: str, read: Callable[[], T], old: float) -> None:
        self._name, self._read, self._old = name, read, old
        self._lock = threading.Lock()
        self._value: T | None = None
        self._due = 0.0
        self._reading = False

    def get(self) -> T | None:
        """What is known now; None: nothing yet."""
        with self._lock:
            if not self._reading and time.monotonic() >= self._due:
                self._reading = True
                threading.Thread(target=self._go, name=f"board-{self._name}", daemon=True).start()
            return self._value

    def stale(self) -> None:
        """It was changed: who looks next has it read again."""
        with self._lock:
            self._due = 0.0

    def put(self, value: T) -> None:
        """What somebody knows who has just changed it; who looks next has it read again."""
        with self._lock:
            self._value = value
            self._due = 0.0

    def _go(self) -> None:
        found: T | None = None
        # what is changed while we read counts as changed after it
        with self._lock:
            self._due = time.monotonic() + self._old
        try:
            found = self._read()
        except UserError as error:
            logger.warning("the %s was not read: %s", self._name, error.sentence)
        finally:
            with self._lock:
                self._reading = False
                if found is None:
                    self._due = time.monotonic() + AGAIN
                else:
                    self._value = found
