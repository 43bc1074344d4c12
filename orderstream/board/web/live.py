"""Live: who has a page open is told that something changed.

Law: what changed is not said, only that something did; the page asks again with its reader's own rights. One question to PostgreSQL
each half second, however many read. That PostgreSQL is away is said to all of them too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from orderstream.board.store import Pool, answering
from orderstream.errors import NoDatabase

EVERY = 0.5
"""Seconds between two looks."""
CHECK = 10.0
"""Seconds after which a stream says that it lives, and asks whether its reader is still signed in."""


class Live:
    """The one watcher, and those who wait for it. number: grows with each change that it saw, before anybody is told."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.number = 0
        self._seen: tuple[int, int] | None = None
        self.away = False
        self._changed = asyncio.Condition()
        self.ended = False

    async def watch(self) -> None:
        """Looks until it is cancelled."""
        while True:
            try:
                seen = await run_in_threadpool(self._look)
                if self.away or seen != self._seen:
                    self._seen, self.away = seen, False
                    await self._tell()
            except NoDatabase:
                if not self.away:
                    self.away = True
                    await self._tell()
            await asyncio.sleep(EVERY)

    async def end(self) -> None:
        """Lets everybody go: the process ends."""
        self.ended = True
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self.number += 1
            self._changed.notify_all()

    def _look(self) -> tuple[int, int]:
        with answering(), self._pool.connection() as db:
            row = db.execute(
                "SELECT coalesce((SELECT max(id) FROM board.events), 0) AS event, coalesce((SELECT max(n) FROM board.audit), 0) AS audit"
            ).fetchone()
        assert row is not None
        return row["event"], row["audit"]

    async def stream(self, signed_in: Callable[[], bool]) -> AsyncIterator[str]:
        """Server-sent events for one reader: changed, away, here, over."""
        number = self.number
        yield "retry: 2000\n\n"
        yield _event("away" if self.away else "here")
        while not self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK), self._changed:
                    while self.number == number:
                        await self._changed.wait()
            if self.ended:
                break
            if self.number == number:
                try:
                    if not await run_in_threadpool(signed_in):
                        yield _event("over")
                        return
                except NoDatabase:
                    pass
                yield _event("away" if self.away else "here")
            else:
                number = self.number
                yield _event("away" if self.away else "changed")


def _event(name: str) -> str:
    return f"event: {name}\ndata: {name}\n\n"
