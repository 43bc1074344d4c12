"""Waiting for what becomes true, and saying what did not.

Law: a test waits for a condition, never for a time. How long it looks says only when to give up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds: longer than anything takes on a busy machine."""
EVERY = 0.05
"""Seconds between two looks."""


async def until(condition: Callable[[], T | Awaitable[T]], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """Whatever the condition first answers that is true. Raises AssertionError, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        _still(deadline, what, seconds)
        await asyncio.sleep(EVERY)


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """The same where there is no loop."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        _still(deadline, what, seconds)
        time.sleep(EVERY)
    return found


def _still(deadline: float, what: str | Callable[[], str], seconds: float) -> None:
    assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
