"""A lane is one partition of one hop: its state, and its batches on their way to the broker.

The law: *state moves on in memory at once; nothing that depends on it leaves before it is in the changelog; the input is
acknowledged last, in order*. Batches overlap, so the next one is processed while the broker still writes the last:

    process ─▶ changelog record, inner sends ─▶ acknowledged? ─▶ public sends ─▶ acknowledged? ─▶ input acknowledged

Whatever fails ends the worker, since memory is then ahead of the log; a restart reads the log and repeats the input.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from orderstream.engine.archive import Archive, Dump
from orderstream.engine.changelog import Fenced, signed_headers
from orderstream.engine.hop import Effects, Headers, Hop, Record, Send, State
from orderstream.engine.watch import Watch

TP = tuple[str, int]

_DOUBT_S = 5.0
"""From a batch's processing to the proof of its log. Half of the least session (10 s): whoever has lost a partition is later."""


class Written(Protocol):
    """What the broker says of a record it has written."""

    @property
    def offset(self) -> int: ...


class Outlet(Protocol):
    """Where records go: a producer."""

    async def send(self, sends: Iterable[Send]) -> list[asyncio.Future[Written]]:
        """Hands over; the futures wait for the broker: at least one for each partition, with the offset of the last record there."""
        ...

    def push(self) -> None:
        """What has been handed over need not wait for more."""
        ...


@dataclass(slots=True)
class Wires:
    """What a lane needs of the world around it."""

    outlet: Outlet
    claims_between: Callable[[str, int, int, int | None], Awaitable[Sequence[bytes]]]
    acknowledge: Callable[[TP, int], None]
    fail: Callable[[BaseException], None]
    reopen: Callable[[TP], None]
    watch: Watch


@dataclass(slots=True)
class _Batch:
    blobs: list[bytes]
    logs: list[asyncio.Future[Written]]
    inner: list[asyncio.Future[Written]]
    public: list[Send]
    source: tuple[TP, int] | None
    started: float
    before: "_Batch | None"
    published: asyncio.Future[None]
    settled: asyncio.Future[None]
    pieces: list[list[bytes]] = field(default_factory=list)


def _forget_all(futures: Sequence[asyncio.Future[Written]]) -> None:
    """Look at the outcomes of sends that nobody waits for any more, so that asyncio does not report them as overlooked."""
    for future in futures:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())


class Lane:
    """One partition of one hop. Not alive until it has its state, and no longer alive once it is parked or closed."""

    def __init__(self, hop: Hop, partition: int, changelog: str, archive: str, wires: Wires, max_in_flight: int) -> None:
        self.hop = hop
        self.partition = partition
        self.changelog = changelog
        self.state: State | None = None
        self.alive = False
        self.token = b""
        self.next_offset = 0
        self._wires = wires
        self._max_in_flight = max_in_flight
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: _Batch | None = None
        self._held: set[TP] = set()
        self._signature: Headers = ()
        self._dump: Dump | None = None
        self.archive = Archive(archive, self._send)

    async def _send(self, topic: str, value: bytes, headers: Headers) -> asyncio.Future[Written]:
        """One record for this partition."""
        (sent,) = await self._wires.outlet.send([Send(topic, value, None, self.partition, headers)])
        return sent

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def ready(self, state: State, token: bytes, next_offset: int) -> None:
        """Begin, or begin again: `next_offset` is where our next changelog record must land."""
        self.state, self.token, self.next_offset = state, token, next_offset
        self._signature = signed_headers(token)
        self._held.clear()
        self._dump = None
        self.alive = True

    async def take(self, tp: TP, records: Sequence[Record]) -> bool:
        """Process one batch and set its effects on their way. Returns as soon as they are handed to the producer.

        False: not processed, the lane does not live.
        """
        # the hop's topics share this state: what is processed first must also be logged first
        async with self._lock:
            if not self.alive:
                return False
            started = perf_counter()
            assert self.state is not None
            effects = self.state.process(records)
            self._wires.watch.batch(self.hop.name, tp[0], len(records), perf_counter() - started)
            await self._launch(effects, (tp, records[-1].offset + 1), started)
            if not self.alive:
                return True
        if self.in_flight < self._max_in_flight:
            self._wires.reopen(tp)
        else:
            self._held.add(tp)
        return True

    async def idle(self) -> None:
        """Let the state do what it does when nothing is left to read."""
        async with self._lock:
            if not self.alive or self.state is None:
                return
            started = perf_counter()
            effects = self.state.idle()
            if effects is not None:
                await self._launch(effects, None, started)

    async def tend(self) -> bool:
        """Write the archive where it is due, and a piece of a dump. Whether there is more of one to write."""
        if not self.alive or not self.hop.remembers:
            return False
        if self.archive.due:
            self._watch_over(*await self.archive.flush())
        if self._dump is None and not self.archive.dump_due:
            return False
        async with self._lock:
            if not self.alive or self.state is None:
                return False
            if self._dump is None:
                self._dump = Dump(self.state.dump(), self.archive.grown)
            dump, last = self._dump, self._last
            piece = dump.piece()
            if piece and last is not None and not last.published.done():
                # it may say what only that batch has made so: it goes behind what the changelog says of it
                last.pieces.append(piece)
                dump.waiting += 1
            elif piece:
                await self._write(piece)
        if piece:
            return True
        if dump.first is None or dump.waiting:
            return False  # some of it still waits for its batches
        self._dump = None
        self.archive.base = (await dump.first).offset
        self.archive.begun_at = time.time()
        self.archive.grown -= dump.began
        self.archive.dumped = dump.size
        # a reader begins where the last record says, and it may be long until there is something to say
        self._watch_over(await self.archive.piece([], self.token))
        return False

    async def _write(self, piece: list[bytes]) -> None:
        """A piece of the dump into the archive."""
        sent = await self.archive.piece(piece, self.token)
        if self._dump is not None:
            self._dump.first = self._dump.first or sent
        self._watch_over(sent)

    def _watch_over(self, *sent: "asyncio.Future[Written]") -> None:
        """Sends that nobody waits for: if one fails, the producer does not work."""

        def look(done: "asyncio.Future[Written]") -> None:
            if not done.cancelled() and (error := done.exception()) is not None and self.state is not None:
                self._wires.fail(error)

        for future in sent:
            future.add_done_callback(look)

    async def park(self, deadline: float) -> bool:
        """Stop, and wait until all that is under way is acknowledged. False: it was not, so memory is ahead of the log."""
        self.alive = False
        async with self._lock:
            pass
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        clean = not self._tasks and self.state is not None
        if clean and self.hop.remembers:
            # whoever is next has less to read
            self._watch_over(*await self.archive.flush())
        return clean

    def close(self) -> None:
        """Stop at once: nothing more is sent or acknowledged for what is under way, and the state is dropped."""
        self.alive = False
        self.state = None
        self._last = None
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _launch(self, effects: Effects, source: tuple[TP, int] | None, started: float) -> None:
        log = effects.log
        blobs = [] if log is None else [log] if isinstance(log, bytes) else log
        if blobs and not self.hop.remembers:
            raise TypeError(f"hop {self.hop.name} logs state although it says that it remembers nothing")
        loop = asyncio.get_running_loop()
        # each has its own offset, which proves it
        logs = [await self._send(self.changelog, blob, self._signature) for blob in blobs]
        public = [one for one in effects.sends if one.public]
        inner = await self._wires.outlet.send([one for one in effects.sends if not one.public] if public else effects.sends)
        batch = _Batch(blobs, logs, inner, public, source, started, self._last, loop.create_future(), loop.create_future())
        if self.state is None:  # closed while we were handing over
            _forget_all([*logs, *inner])
            return
        self._last = batch
        task = loop.create_task(self._settle(batch))
        self._tasks.add(task)
        self._wires.watch.in_flight(self.hop.name, self.partition, len(self._tasks))
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, batch: _Batch) -> None:
        futures = [*batch.logs, *batch.inner]
        before, batch.before = batch.before, None
        try:
            if before is not None:
                await before.published
            for future, blob in zip(batch.logs, batch.blobs, strict=True):
                start = self.next_offset
                await self._prove(await future)
                self.archive.keep(blob, start, self.next_offset, self.token)
            batch.blobs = []
            if self.archive.due:
                self._watch_over(*await self.archive.flush())
            if batch.logs and batch.public and perf_counter() - batch.started > _DOUBT_S:
                await self._still_ours()
            if batch.public:
                futures += await self._wires.outlet.send(batch.public)
                # once the other partitions that the broker has answered for have said theirs
                asyncio.get_running_loop().call_soon(self._wires.outlet.push)
            # last, and nothing is awaited after it: a piece that came later would never be written
            while batch.pieces:
                await self._write(batch.pieces.pop(0))
                if self._dump is not None:
                    self._dump.waiting -= 1
            batch.published.set_result(None)
            for future in futures:
                await future
            if before is not None:
                await before.settled
            if batch.source is not None:
                self._wires.acknowledge(*batch.source)
            batch.settled.set_result(None)
        except asyncio.CancelledError:
            _forget_all(futures)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, memory is ahead of the log
            _forget_all(futures)
            if self.state is not None:
                self._wires.watch.send_failed(self.hop.name, error)
                self._wires.fail(error)
            return
        self._wires.watch.settled(self.hop.name, perf_counter() - batch.started)
        # this task itself still counts as under way here
        self._wires.watch.in_flight(self.hop.name, self.partition, len(self._tasks) - 1)
        if self._held and self.alive and len(self._tasks) - 1 < self._max_in_flight:
            held, self._held = self._held, set()
            for tp in held:
                self._wires.reopen(tp)

    async def _prove(self, written: Written) -> None:
        """That our changelog record directly follows our last one: then nobody has claimed the partition between them."""
        offset = written.offset
        if offset < self.next_offset:
            raise Fenced(f"{self.changelog}[{self.partition}]: the broker gave no usable offset ({offset})")
        if offset > self.next_offset and await self._wires.claims_between(
            self.changelog, self.partition, self.next_offset, offset
        ):
            raise Fenced(f"{self.changelog}[{self.partition}] was claimed by another worker before offset {offset}")
        # a displaced owner's late records are ignored by every reader: they are no reason to stop
        self.next_offset = offset + 1

    async def _still_ours(self) -> None:
        """That nobody has claimed the partition behind our record, either.

        A worker that was stopped between its record and the broker's answer wakes with a proof of what was: its heir may have
        decided more since, and what it publishes now would stand behind it with a lower number.
        """
        if await self._wires.claims_between(self.changelog, self.partition, self.next_offset, None):
            raise Fenced(f"{self.changelog}[{self.partition}] was claimed by another worker after offset {self.next_offset - 1}")
