"""Pages: values as a dump wrote them, thousands in one piece of bytes, found by key without having been read.

Law: what is found in a page is what was put there, and what is laid later outweighs what was laid before.
Reason: a worker that comes back with a million orders has eight million keys. A table of them is eight million objects, each
in another place of the memory: 20 s of waiting for it before the first order. A page is taken in as it comes; of its keys only
a checksum each goes into an index, sorted by the thousand, and whoever asks for a key finds its page and its place there.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from struct import Struct
from zlib import crc32

import cramjam
import msgspec
import numpy as np

PAGE_BYTES = 32_000
"""Bytes of values after which a page ends. They are compressed as one: of 16,000 a tenth more memory, of 64,000 twice the time
(60 us) for whoever asks for one of them."""

BUCKET = 8
"""Keys of an index that are looked through to find one."""
RECENT = 16_384
"""Keys of the latest pages that are in a table of their own: an index is not made for each."""
MERGED = 4
"""Two indices of which the older is not so many times the newer become one."""


class Page(msgspec.Struct, array_like=True, gc=False):
    """Values in one piece. Numbers are unsigned, of 32 bits, little-endian, one a key.

    first: the soonest minute; weight: what all values weigh together, in whatever the writer counts; sums: the keys' CRC-32;
    key_ends: where each key ends in `keys` (UTF-8); packed: Values, compressed by zstd.
    """

    first: int
    weight: int
    sums: bytes
    key_ends: bytes
    keys: bytes
    packed: bytes

    def names(self) -> list[str]:
        """The keys, read."""
        ends = np.frombuffer(self.key_ends, "<u4").tolist()
        return [self.keys[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


class Values(msgspec.Struct, array_like=True, gc=False):
    """minutes: in which each is due, since 1970; ends: where each ends in `values`."""

    minutes: bytes
    ends: bytes
    values: bytes


_values = msgspec.msgpack.Decoder(Values)

Place = tuple[int, int]
"""A page's number, and the key's place in it."""

Item = tuple[str, int, bytes]
"""A key, the minute in which it is due, and its value."""


def page(items: Iterable[Item], weigh: Callable[[bytes], int]) -> Page:
    """One page of these; at least one item."""
    names: list[bytes] = []
    values: list[bytes] = []
    minutes: list[int] = []
    weight = 0
    for key, minute, value in items:
        names.append(key.encode())
        minutes.append(minute)
        values.append(value)
        weight += weigh(value)
    packed = msgspec.msgpack.encode(Values(_numbers(minutes), _ends(values), b"".join(values)))
    return Page(
        min(minutes), weight, _numbers(map(crc32, names)), _ends(names), b"".join(names), bytes(cramjam.zstd.compress(packed, 1))
    )


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """As many as make a page. None is taken before its page's time."""
    taken: list[Item] = []
    size = 0
    for item in items:
        taken.append(item)
        size += len(item[2])
        if size >= PAGE_BYTES:
            yield taken
            taken, size = [], 0
    if taken:
        yield taken


def pages(items: Iterable[Item], weigh: Callable[[bytes], int]) -> Iterator[Page]:
    """As many pages as they need."""
    return (page(batch, weigh) for batch in batches(items))


def _numbers(values: Iterable[int]) -> bytes:
    return np.fromiter(values, "<u4").tobytes()


def _ends(parts: list[bytes]) -> bytes:
    return np.cumsum([len(part) for part in parts]).astype("<u4").tobytes()


_number = Struct("<I").unpack_from


def _between(ends: bytes, slot: int) -> slice:
    return slice(_number(ends, 4 * slot - 4)[0] if slot else 0, _number(ends, 4 * slot)[0])


class _Laid:
    """A page that has been laid, and which of its values are still there."""

    __slots__ = ("left", "opened", "page", "there")

    def __init__(self, laid: Page) -> None:
        self.page = laid
        self.left = len(laid.sums) // 4
        self.there = bytearray(b"\x01") * self.left
        self.opened = False
        """Whether its keys have been told as due."""

    @property
    def whole(self) -> bool:
        return self.left == len(self.there)

    def key(self, slot: int) -> bytes:
        return self.page.keys[_between(self.page.key_ends, slot)]


class _Index:
    """Where the keys of some pages are: their checksums in order, in buckets of a few."""

    def __init__(self, laid: dict[int, _Laid]) -> None:
        self.numbers = tuple(laid)
        """Of the pages."""
        parts = [np.frombuffer(one.page.sums, "<u4") for one in laid.values()]
        sums = np.concatenate(parts) if parts else np.empty(0, "<u4")
        numbers = np.repeat(np.fromiter(laid, np.uint64, len(laid)), [len(part) for part in parts])
        slots = np.concatenate([np.arange(len(part), dtype=np.uint64) for part in parts]) if parts else np.empty(0, np.uint64)
        there = np.concatenate([np.frombuffer(one.there, np.uint8) for one in laid.values()]) if parts else np.empty(0, np.uint8)
        kept = np.flatnonzero(there)
        sums, places = sums[kept], ((numbers << np.uint64(32)) + slots)[kept]
        order = np.argsort(sums, kind="stable")
        sums = sums[order]
        bits = max(0, (len(sums) // BUCKET).bit_length() - 1)
        self._shift = 32 - bits
        edges = np.searchsorted(sums, np.arange(1 << bits, dtype=np.uint64) << np.uint64(self._shift))
        self._edges = array("I", [*(4 * edges).tolist(), 4 * len(sums)])
        self._sums = sums.tobytes()
        self._places = array("Q", places[order].tobytes())
        self.size = len(sums)

    def find(self, checksum: int) -> list[Place]:
        """The places of what may be the key of this checksum, those laid last at the end."""
        bucket = checksum >> self._shift
        end = self._edges[bucket + 1]
        needle = checksum.to_bytes(4, "little")
        at = self._sums.find(needle, self._edges[bucket], end)
        if at < 0:
            return _NOWHERE
        found = []
        while at >= 0:
            if not at & 3:
                place = self._places[at >> 2]
                found.append((place >> 32, place & 0xFFFFFFFF))
            # the next one begins at a multiple of 4: in between it would lie across two others
            at = self._sums.find(needle, (at | 3) + 1, end)
        return found

    def twice(self) -> list[int]:
        """The checksums that are here more than once."""
        sums = np.frombuffer(self._sums, "<u4")
        return list(sums[1:][sums[1:] == sums[:-1]].tolist())

    def also_in(self, other: _Index) -> list[int]:
        """The checksums that another index has too. Each of the smaller is looked for in the larger, which may have millions."""
        few, many = sorted((np.frombuffer(self._sums, "<u4"), np.frombuffer(other._sums, "<u4")), key=len)
        if not len(few):
            return []
        nearest = many[np.minimum(np.searchsorted(many, few), len(many) - 1)]
        return list(few[nearest == few].tolist())


_NOWHERE: list[Place] = []
"""Never changed."""


class Pages:
    """The pages of one shelf. outweighed: told of each value that a later page has too."""

    def __init__(self, outweighed: Callable[[bytes], None]) -> None:
        self._outweighed = outweighed
        self._laid: dict[int, _Laid] = {}
        """By number, as they were laid; without those of which nothing is left."""
        self._count = 0
        """How many have ever been laid."""
        self._indices: list[_Index] = []
        """Of the pages up to some number, the larger ones first."""
        self._recent: dict[int, list[Place]] = {}
        """The checksums of the few pages laid since."""
        self._recent_numbers: list[int] = []
        self._waiting: list[int] = []
        """The pages that are in neither yet."""
        self._read: tuple[int, Values] | None = None
        """The page that was asked for last, by its number: its neighbours' turn comes with it."""
        self._unopened: list[tuple[int, int]] = []
        """(first minute, number) of the pages whose keys nobody has been told of: a heap."""

    def __bool__(self) -> bool:
        return bool(self._laid)

    def __iter__(self) -> Iterator[str]:
        self._keep_index()
        for number in tuple(self._laid):
            yield from (key for key, _, _ in self._items(number))

    def lay(self, page: Page) -> int:
        """Takes a page in, unread; its number."""
        number = self._count
        self._count += 1
        heappush(self._unopened, (page.first, number))
        self._laid[number] = _Laid(page)
        self._waiting.append(number)
        return number

    def find(self, key: str) -> Place | None:
        """Where a key's value is; None where it is in no page."""
        if not self._laid:
            return None
        if self._waiting:
            self._keep_index()
        name = key.encode()
        checksum = crc32(name)
        place = self._named(self._recent.get(checksum, _NOWHERE), name)
        for index in reversed(self._indices):
            if place is not None:
                break
            place = self._named(index.find(checksum), name)
        return place

    def _named(self, places: list[Place], name: bytes) -> Place | None:
        for place in reversed(places):
            laid = self._laid.get(place[0])
            if laid is not None and laid.there[place[1]] and laid.key(place[1]) == name:
                return place
        return None

    def look(self, place: Place) -> bytes:
        """The value at a place that `find` gave."""
        values = self._values(place[0])
        return values.values[_between(values.ends, place[1])]

    def take(self, place: Place) -> tuple[int | None, bytes]:
        """The value, which is here no longer, and the minute in which it is due: None where that has been told."""
        minute, value = self.minute(place), self.look(place)
        self.drop(place)
        return minute, value

    def opened(self, place: Place) -> bool:
        """Whether it has been told when the value there is due."""
        return self._laid[place[0]].opened

    def minute(self, place: Place) -> int | None:
        """In which minute the value there is due; None where that has been told."""
        return None if self.opened(place) else int(_number(self._values(place[0]).minutes, 4 * place[1])[0])

    def drop(self, place: Place) -> None:
        """The value at this place is here no longer."""
        laid = self._laid[place[0]]
        laid.there[place[1]] = 0
        laid.left -= 1
        if not laid.left:
            del self._laid[place[0]]

    def due(self, minute: int) -> Iterator[tuple[int, str]]:
        """Minute and key of every value in the pages of which something is due by then. Each is told once."""
        while self._unopened and self._unopened[0][0] <= minute:
            _, number = heappop(self._unopened)
            if number in self._laid:
                self._laid[number].opened = True
                for key, at, _ in self._items(number):
                    yield at, key

    def unopened(self, weigh: Callable[[bytes], int]) -> Iterator[Page]:
        """The pages of which nothing is due, as they were laid, without the values that are no longer there."""
        self._keep_index()
        for number in tuple(self._laid):
            laid = self._laid.get(number)
            if laid is not None and not laid.opened:
                yield laid.page if laid.whole else page(self._items(number), weigh)

    def _values(self, number: int) -> Values:
        if self._read is None or self._read[0] != number:
            self._read = number, _values.decode(bytes(cramjam.zstd.decompress(self._laid[number].page.packed)))
        return self._read[1]

    def _items(self, number: int) -> Iterator[Item]:
        laid = self._laid[number]
        values = self._values(number)
        for slot, there in enumerate(laid.there):
            if there:
                yield laid.key(slot).decode(), _number(values.minutes, 4 * slot)[0], values.values[_between(values.ends, slot)]

    def _keep_index(self) -> None:
        """Makes known what has been laid since: few pages one by one, many in an index.

        Indices of like size are made one, so that there are few of them, and each is made seldom.
        """
        waiting, self._waiting = [number for number in self._waiting if number in self._laid], []
        again: list[int] = []
        few = sum(len(self._laid[number].there) for number in waiting) + len(self._recent) <= RECENT
        for number in waiting if few else ():
            for slot, checksum in enumerate(np.frombuffer(self._laid[number].page.sums, "<u4").tolist()):
                known = self._recent.setdefault(checksum, [])
                known.append((number, slot))
                if len(known) > 1 or any(index.find(checksum) for index in self._indices):
                    again.append(checksum)
        self._recent_numbers += waiting
        if not few:
            new = _Index(self._those(self._recent_numbers))
            self._recent, self._recent_numbers = {}, []
            again = new.twice()
            for old in self._indices:
                again += old.also_in(new)
            self._indices.append(new)
        for checksum in again:
            self._outweigh(checksum)
        while len(self._indices) > 1 and self._indices[-2].size < MERGED * self._indices[-1].size:
            last, before = self._indices.pop(), self._indices.pop()
            self._indices.append(_Index(self._those((*before.numbers, *last.numbers))))

    def _those(self, numbers: Iterable[int]) -> dict[int, _Laid]:
        return {number: self._laid[number] for number in numbers if number in self._laid}

    def _outweigh(self, checksum: int) -> None:
        """Of the values of one key, only the one laid last stays."""
        places = [*self._recent.get(checksum, ())]
        for index in self._indices:
            places += index.find(checksum)
        kept: set[bytes] = set()
        for number, slot in sorted(places, reverse=True):
            laid = self._laid.get(number)
            if laid is None or not laid.there[slot]:
                continue
            key = laid.key(slot)
            if key in kept:
                self._outweighed(self.look((number, slot)))
                self.drop((number, slot))
            kept.add(key)
