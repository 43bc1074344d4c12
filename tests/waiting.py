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
EVERY, RARELY = 0.05, 0.5
"""Seconds between two looks: twice what a look takes, within these. To read a topic again and again keeps from its work what is
waited for."""


async def until(condition: Callable[[], T | Awaitable[T]], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """Whatever the condition first answers that is true. Raises AssertionError, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        answer = condition()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        _still(deadline, what, seconds)
        await asyncio.sleep(_pause(began))


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """The same where there is no loop."""
    deadline = time.monotonic() + seconds
    began = time.monotonic()
    while not (found := condition()):
        _still(deadline, what, seconds)
        time.sleep(_pause(began))
        began = time.monotonic()
    return found


def _pause(began: float) -> float:
    return min(RARELY, max(EVERY, 2 * (time.monotonic() - began)))


def _still(deadline: float, what: str | Callable[[], str], seconds: float) -> None:
    assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
