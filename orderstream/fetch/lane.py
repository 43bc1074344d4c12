"""A shop's lane: its orders that wait for their details, and the few calls under way.

Law: what comes in takes no room without bound and waits for no other shop; what is parked goes when its time has come and the
platform does not rest, in turn with what is fresh, so that neither holds up the other for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from orderstream.fetch.share import Item
from orderstream.platforms.client import Client

WIDTH = 8
"""Calls at a time: a platform answers in a tenth of a second and allows some ten to fifty calls in one."""
FRESH = 200
"""Orders that wait in a lane before the next is parked: seconds of work, and a megabyte."""
LOOK_AGAIN = 0.5
"""Seconds until a lane looks again for what it cannot be told of: a partition whose books have been read."""


class Lane:
    """One shop's. work: does one item to its end, whatever that is. client: None where there is no account or platform."""

    def __init__(self, name: str, client: Client | None, work: Callable[[Lane, Item], Awaitable[None]]) -> None:
        self.name = name
        self.client = client
        self._work = work
        self._fresh: deque[Item] = deque()
        self._waiting: list[tuple[float, int, Item]] = []
        self._number = itertools.count()
        self._calls: dict[asyncio.Task[None], Item] = {}
        self._turn = False
        self._changed = asyncio.Event()

    @property
    def channel(self) -> str:
        return self.name.partition(":")[0]

    @property
    def shop(self) -> str:
        return self.name.partition(":")[2]

    @property
    def full(self) -> bool:
        """True where the next fresh one is better parked."""
        return len(self._fresh) >= FRESH

    @property
    def resting(self) -> bool:
        """True where nothing could be called now."""
        return self.client is None or not self.client.breaker.ready(time.monotonic())

    @property
    def idle(self) -> bool:
        """True where no call is under way."""
        return not self._calls

    def items(self) -> Iterator[Item]:
        """All that wait here or are under way."""
        waiting = (item for _, _, item in self._waiting)
        return (i for i in itertools.chain(self._fresh, waiting, self._calls.values()) if not (i.gone or i.share.lost))

    def cancel(self) -> None:
        """Gives up the calls under way."""
        for call in self._calls:
            call.cancel()

    def add(self, item: Item) -> None:
        """A fresh one."""
        self._fresh.append(item)
        self._changed.set()

    def wait(self, item: Item, seconds: float) -> None:
        """A parked one, to be tried in so many seconds."""
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._number), item))
        self._changed.set()

    def look(self) -> None:
        """Something has changed: an account, a partition."""
        self._changed.set()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Starts calls until it is cancelled; an error in one that is a bug ends the group."""
        while True:
            now = time.monotonic()
            while len(self._calls) < WIDTH and (item := self._next(now)) is not None:
                call = tasks.create_task(self._one(item))
                self._calls[call] = item
                call.add_done_callback(self._ended)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(now)):
                    await self._changed.wait()

    async def _one(self, item: Item) -> None:
        await self._work(self, item)

    def _ended(self, call: asyncio.Task[None]) -> None:
        del self._calls[call]
        self._changed.set()

    def _next(self, now: float) -> Item | None:
        self._turn = not self._turn
        first, second = (self._due, self._taken) if self._turn else (self._taken, self._due)
        return first(now) or second(now)

    def _taken(self, now: float) -> Item | None:
        del now
        while self._fresh:
            item = self._fresh.popleft()
            if not item.share.lost:
                return item
        return None

    def _due(self, now: float) -> Item | None:
        if self.resting:
            return None
        later: list[tuple[float, int, Item]] = []
        found = None
        while self._waiting and self._waiting[0][0] <= now:
            entry = heapq.heappop(self._waiting)
            if entry[2].gone or entry[2].share.lost:
                continue
            if entry[2].share.loaded:
                found = entry[2]
                break
            later.append((now + LOOK_AGAIN, *entry[1:]))
        for entry in later:
            heapq.heappush(self._waiting, entry)
        return found

    def _pause(self, now: float) -> float | None:
        """Seconds until something may be due; None: until something changes."""
        if len(self._calls) >= WIDTH or not self._waiting or self.client is None:
            return None
        due = self._waiting[0][0] - now
        until = self.client.breaker.until
        if until is not None:
            due = max(due, until - now)
        # a probe that is out ends by changing something
        return max(due, 0.01) if self.client.breaker.ready(now) or until is None or until > now else LOOK_AGAIN
