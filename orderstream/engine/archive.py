"""The archive of a changelog: what it says, once more in large records, so that a worker is up again in seconds.

A changelog is written a batch at a time and acknowledged before anything is published, so a quiet day is millions of small
records, and a restart would read them all. An archive is written behind it, some hundred kilobytes a record, and from time to
time the whole state anew (a **dump**), so that what a state has forgotten is not read again for ever.

The law: *an archive says nothing that its changelog does not*. A record is sent only when the broker has acknowledged every
changelog record that it stands for, and names the changelog offsets `start` .. `end - 1` and who owned the partition at `end`.
A reader takes it in only where it joins what has been read so far; from the last `end` on it reads the changelog itself. So a
lost archive costs time, and a displaced owner's late record is either true or passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import monotonic
from typing import Any

import msgspec

from orderstream.engine.hop import Headers

RECORD_BYTES = 512 << 10
"""Bytes of blobs that make a record."""
RECORD_S = 30.0
"""A record is sent after so many seconds, however small it is: so much of the changelog is read one batch at a time."""
DUMP_BYTES = 64 << 20
"""An archive that has grown by more than this, and by more than twice its last dump, is begun anew."""
DUMP_DAYS = 7
"""It is begun anew after so many days in any case: what an archive begins with must not grow older than its topic keeps it."""
PIECE_BYTES = 48 << 10
"""What of a dump is written at once: a few milliseconds' work."""

HEADER = "archive"


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What a record stands for. base: archive offset at which to begin to read, so that nothing is missing; dump: of a dump."""

    start: int
    end: int
    owner: bytes
    base: int
    dump: bool = False


_head = msgspec.msgpack.Decoder(Head)
_blobs = msgspec.msgpack.Decoder(list[bytes])


def head_of(headers: Iterable[tuple[str, bytes]]) -> Head | None:
    """The head of an archive's record; None where it is none."""
    return next((_head.decode(value) for name, value in headers if name == HEADER), None)


Send = Callable[[str, bytes, Headers], Awaitable[Any]]
"""(topic, value, headers): hands a record over; what it returns is awaited for the broker's answer, which has the offset."""


class Archive:
    """Writes the archive of one partition. send: to that partition."""

    def __init__(self, topic: str, send: Send) -> None:
        self.topic = topic
        self._send = send
        self.start: int | None = None
        """The changelog offset up to which it has been written; None: not at all."""
        self.base = 0
        self.grown = 0
        """Bytes written since `base`."""
        self.dumped = 0
        """Bytes of the last dump."""
        self.begun_at = time.time()
        """When the record at `base` was written (s since 1970)."""
        self._lock = asyncio.Lock()
        self._blobs: list[tuple[bytes, int, bytes]] = []
        """What waits: a blob, the changelog offset after it, and who owned the partition then."""
        self._size = 0
        self._since = 0.0

    def keep(self, blob: bytes, start: int, end: int, owner: bytes) -> None:
        """Takes in what the changelog says at `start` .. `end - 1`, acknowledged."""
        if self.start is None:
            self.start = start
        if not self._blobs:
            self._since = monotonic()
        self._blobs.append((blob, end, owner))
        self._size += len(blob)

    @property
    def due(self) -> bool:
        """Whether there is a record's worth, or something has waited for long enough."""
        return self._size >= RECORD_BYTES or (bool(self._blobs) and monotonic() - self._since >= RECORD_S)

    @property
    def dump_due(self) -> bool:
        old = time.time() - self.begun_at > DUMP_DAYS * 86_400
        return self.grown > max(DUMP_BYTES, 2 * self.dumped) or (old and self.grown > 0)

    async def flush(self) -> list[Any]:
        """Hands over what waits; the broker's answers, to be awaited."""
        async with self._lock:  # records must go out in the order of their offsets
            return await self._flush()

    async def piece(self, blobs: list[bytes], owner: bytes) -> Any:
        """Hands over a piece of a dump, taken when all that has been kept was in the state, and no more."""
        async with self._lock:
            await self._flush()
            assert self.start is not None
            return await self._write(blobs, Head(self.start, self.start, owner, self.base, dump=True))

    async def _flush(self) -> list[Any]:
        waiting, self._blobs, self._size = self._blobs, [], 0
        sent: list[Any] = []
        blobs: list[bytes] = []
        size = 0
        for index, (blob, end, owner) in enumerate(waiting):
            blobs.append(blob)
            size += len(blob)
            last = index + 1 == len(waiting)
            if last or size + len(waiting[index + 1][0]) > RECORD_BYTES:
                assert self.start is not None
                sent.append(await self._write(blobs, Head(self.start, end, owner, self.base)))
                self.start, blobs, size = end, [], 0
        return sent

    async def _write(self, blobs: list[bytes], head: Head) -> Any:
        value = msgspec.msgpack.encode(blobs)
        self.grown += len(value)
        return await self._send(self.topic, value, ((HEADER, msgspec.msgpack.encode(head)),))


class Dump:
    """A state's dump under way."""

    def __init__(self, blobs: Iterator[bytes], grown: int) -> None:
        self._blobs = blobs
        self.began = grown
        """What the archive had grown to when it began."""
        self.first: Any = None
        """The broker's answer to its first record, to be awaited."""
        self.waiting = 0
        """Pieces that are not yet in the archive."""
        self.size = 0

    def piece(self) -> list[bytes]:
        """The next blobs, as the state is now; nothing at its end."""
        out: list[bytes] = []
        size = 0
        for blob in self._blobs:
            out.append(blob)
            size += len(blob)
            if size >= PIECE_BYTES:
                break
        self.size += size
        return out


class Joined:
    """The blobs of an archive, as its records pass in offset order. end: the changelog offset that they lead to."""

    def __init__(self) -> None:
        self.end: int | None = None
        self.owner: bytes | None = None
        self.base = 0
        self.bytes = 0
        self.dumped = 0
        self.begun_at = 0.0
        self.torn = False
        """Whether a record was passed over because what comes before it is missing."""
        self.begins: int | None = None
        """The archive offset of the first record."""

    def blobs(self, offset: int, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> list[bytes]:
        """The blobs to fold; none of a record that is older than what has been read, or does not join it.

        None of a dump that had not ended either: all that it says has been read.
        """
        head = head_of(headers)
        if head is None or value is None:
            return []
        if self.begins is None:
            self.begins = offset
        if self.end is None:
            self.end = head.start
            self.owner = head.owner
        if head.start > self.end:
            self.torn = True
            return []
        if head.end < self.end or (head.end == self.end and not head.dump):
            return []
        self.bytes += len(value)
        self.base = max(self.base, head.base)
        if head.dump and head.base >= self.begins > 0:
            return []
        if head.dump:
            self.dumped += len(value)
        if head.end > self.end:
            self.end, self.owner = head.end, head.owner
        return _blobs.decode(value)
