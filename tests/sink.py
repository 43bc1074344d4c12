"""Kafka's place for tests of intake's HTTP side: keeps what it is given, in memory, or fails as told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from orderstream.channels import Channel
from orderstream.intake.envelope import key_of
from orderstream.orders import Raw


@dataclass
class MemorySink:
    """kept: the records, in sequence; keys: theirs. hold: while it is not set, whoever puts waits; trouble: what putting raises."""

    kept: list[Raw] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    trouble: Exception | None = None

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def ready(self) -> bool:
        return self.trouble is None

    async def put(self, channel: Channel, raw: Raw) -> None:
        if self.trouble is not None:
            raise self.trouble
        if self.hold is not None:
            await self.hold.wait()
        # as the real one does: a key that raises is a bug whoever meets it
        self.keys.append(key_of(channel, raw))
        self.kept.append(raw)
