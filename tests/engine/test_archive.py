"""The archive of a changelog: it leads to what the changelog leads to, whoever wrote it and wherever it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace

import pytest

from orderstream.engine import Effects, Hop, Record, Send, Watch
from orderstream.engine import archive as archives
from orderstream.engine.archive import Archive, Head, Joined, head_of
from orderstream.engine.lane import Lane, Wires


class Log:
    """An archive's topic in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, Sequence[tuple[str, bytes]]]] = []

    async def send(self, _: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> asyncio.Future:
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(SimpleNamespace(offset=len(self.records)))
        self.records.append((value, headers))
        return answer

    def heads(self) -> list[Head]:
        return [head for _, headers in self.records if (head := head_of(headers)) is not None]

    def read(self, start: int = 0) -> tuple[list[bytes], Joined]:
        joined = Joined()
        blobs = [
            blob
            for offset, (value, headers) in enumerate(self.records[start:], start)
            for blob in joined.blobs(offset, value, headers)
        ]
        return blobs, joined


async def test_what_is_kept_is_read() -> None:
    """Blobs come back in their order, and say up to which changelog offset, and under whom."""
    log = Log()
    archive = Archive("a", log.send)
    archive.keep(b"one", 5, 6, b"me")
    archive.keep(b"two", 6, 8, b"me")
    archive.keep(b"three", 8, 9, b"me")
    await archive.flush()
    archive.keep(b"four", 9, 10, b"you")
    await archive.flush()
    await archive.flush()

    blobs, joined = log.read()

    assert blobs == [b"one", b"two", b"three", b"four"]
    assert (joined.end, joined.owner) == (10, b"you")
    assert [(head.start, head.end) for head in log.heads()] == [(5, 9), (9, 10)]


async def test_a_record_stays_small() -> None:
    """What waits is cut into records that a broker takes, each with its own offsets; a blob is never cut."""
    log = Log()
    archive = Archive("a", log.send)
    blobs = [bytes(300 << 10) for _ in range(20)] + [bytes(900 << 10)]
    for number, blob in enumerate(blobs):
        archive.keep(blob, number, number + 1, b"me")
    await archive.flush()

    assert max(len(value) for value, _ in log.records) < 1 << 20
    assert log.read()[0] == blobs
    assert [head.start for head in log.heads()] == [0, *(head.end for head in log.heads()[:-1])]


async def test_a_displaced_owner_is_passed_over() -> None:
    """What comes late and leads no further is not read, and what does not join is not believed: there the changelog is read."""
    log = Log()
    mine, theirs = Archive("a", log.send), Archive("a", log.send)
    mine.keep(b"one", 0, 5, b"me")
    theirs.keep(b"late", 0, 4, b"old")
    await mine.flush()
    await theirs.flush()
    mine.keep(b"two", 5, 8, b"me")
    await mine.flush()
    assert log.read()[0] == [b"one", b"two"]

    mine.keep(b"lost", 8, 9, b"me")
    await mine.flush()
    del log.records[-1]
    mine.keep(b"after", 9, 12, b"me")
    await mine.flush()
    blobs, joined = log.read()

    assert (blobs, joined.end, joined.torn) == ([b"one", b"two"], 8, True)


async def test_a_dump_that_did_not_end_is_passed_over() -> None:
    """Its records say nothing that the others do not; of the one that a reader begins with, all is read."""
    log = Log()
    archive = Archive("a", log.send)
    archive.keep(b"one", 0, 1, b"me")
    first = await archive.piece([b"all 1"], b"me")
    archive.keep(b"two", 1, 2, b"me")
    await archive.piece([b"all 2"], b"me")
    archive.base = first.result().offset
    archive.keep(b"three", 2, 3, b"me")
    await archive.piece([b"half"], b"me")
    archive.keep(b"four", 3, 4, b"me")
    await archive.flush()

    blobs, joined = log.read(archive.base)

    assert blobs == [b"all 1", b"two", b"all 2", b"three", b"four"]
    assert (joined.end, joined.base, joined.torn) == (4, archive.base, False)


class Counter:
    """Adds up what it is told; its dump is the sum by name."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    def process(self, records: Sequence[Record]) -> Effects:
        for record in records:
            assert record.value is not None
            name = record.value.decode()
            self.sums[name] = self.sums.get(name, 0) + 1
        return Effects([], [f"{name}={self.sums[name]}".encode() for name in {(r.value or b"").decode() for r in records}])

    def restore(self, blob: bytes) -> None:
        name, _, total = blob.decode().partition("=")
        self.sums[name] = int(total)

    def idle(self) -> Effects | None:
        return None

    def dump(self) -> Iterator[bytes]:
        for name in list(self.sums):
            yield f"{name}={self.sums[name]}".encode()


class World:
    """A lane on a broker in memory that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.log = Log()
        self.changelog: list[bytes] = []
        self.unacknowledged: list[tuple[asyncio.Future, int]] = []
        wires = Wires(self, self._claims, lambda *_: None, self._fail, lambda *_: None, Watch())
        self.lane = Lane(Hop("h", ["in"], lambda _: Counter()), 0, "log", "archive", wires, 100)
        self.state = Counter()
        self.lane.ready(self.state, b"me", 0)
        self.offset = 0

    @staticmethod
    async def _claims(*_: object) -> list[bytes]:
        return []

    @staticmethod
    def _fail(error: BaseException) -> None:
        raise error

    async def send(self, sends: Iterable[Send]) -> list[asyncio.Future]:
        return [await self._send(one) for one in sends]

    async def _send(self, one: Send) -> asyncio.Future:
        assert one.value is not None
        if one.topic == "archive":
            return await self.log.send(one.topic, one.value, one.headers)
        answer = asyncio.get_running_loop().create_future()
        self.unacknowledged.append((answer, len(self.changelog)))
        self.changelog.append(one.value)
        return answer

    def push(self) -> None: ...

    async def take(self, *names: str) -> None:
        records = [Record("in", 0, self.offset + n, None, name.encode(), (), 0) for n, name in enumerate(names)]
        self.offset += len(names)
        await self.lane.take(("in", 0), records)

    async def acknowledge(self, number: int = 1_000) -> None:
        for answer, offset in self.unacknowledged[:number]:
            answer.set_result(SimpleNamespace(offset=offset))
        del self.unacknowledged[:number]
        for _ in range(30):
            await asyncio.sleep(0)

    def written(self) -> list[bytes]:
        return self.changelog[: len(self.changelog) - len(self.unacknowledged)]

    def rebuilt(self) -> dict[str, int]:
        """What a reader makes of the archive from where its last record says, and of what the broker has of the changelog."""
        heads = self.log.heads()
        blobs, joined = self.log.read(heads[-1].base if heads else 0)
        state = Counter()
        for blob in [*blobs, *self.written()[joined.end or 0 :]]:
            state.restore(blob)
        return state.sums


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RECORD_BYTES", 10)
    monkeypatch.setattr(archives, "DUMP_BYTES", 200)
    monkeypatch.setattr(archives, "PIECE_BYTES", 12)


@pytest.mark.usefixtures("small")
async def test_nothing_is_archived_before_the_broker_has_it() -> None:
    world = World()
    for _ in range(20):
        await world.take("a", "b")
    assert world.log.records == []

    await world.acknowledge(9)

    _, joined = world.log.read()
    assert joined.end is not None
    assert 2 <= joined.end <= 9


@pytest.mark.usefixtures("small")
async def test_a_dump_amid_the_load() -> None:
    """At every moment archive and changelog lead to the state, also while a dump is written and batches are under way."""
    world = World()
    dumps = 0
    for step in range(300):
        await world.take(f"k{step % 7}", f"k{step % 11}")
        if step % 3 == 0:
            await world.lane.tend()
        if step % 5 == 0:
            await world.acknowledge(4)
            assert world.rebuilt() == _fold(world.written())
        dumps = max(dumps, world.lane.archive.base)
    await world.acknowledge()
    while await world.lane.tend():
        pass

    assert world.rebuilt() == world.state.sums
    assert dumps > 0
    assert world.log.heads()[-1].base == world.lane.archive.base, "a reader begins at the dump, though nothing was said after it"


def _fold(blobs: list[bytes]) -> dict[str, int]:
    state = Counter()
    for blob in blobs:
        state.restore(blob)
    return state.sums
