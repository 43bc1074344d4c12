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

    def has(self, slot: int) -> bool:
        return bool(self.left and self.there[slot])

    def key(self, slot: int) -> bytes:
        return self.page.keys[_between(self.page.key_ends, slot)]

    def drop(self, slot: int) -> None:
        self.there[slot] = 0
        self.left -= 1
        if not self.left:
            self.page = _EMPTY
            self.there = bytearray()


_EMPTY = Page(0, 0, b"", b"", b"", b"")


class _Index:
    """Where the keys of some pages are: their checksums in order, in buckets of a few."""

    def __init__(self, numbers: range, laid: list[_Laid]) -> None:
        self.numbers = numbers
        """Of the pages, as they were laid."""
        sums = np.concatenate([np.frombuffer(laid[n].page.sums, "<u4") for n in numbers]) if numbers else np.empty(0, "<u4")
        places = np.concatenate([(n << 32) + np.arange(len(laid[n].page.sums) // 4, dtype=np.uint64) for n in numbers])
        order = np.argsort(sums, kind="stable")
        sums = sums[order]
        bits = max(0, (len(sums) // BUCKET).bit_length() - 1)
        self._shift = 32 - bits
        edges = np.searchsorted(sums, np.arange(1 << bits, dtype=np.uint64) << self._shift)
        self._edges = array("I", [*edges.tolist(), len(sums)])
        self._sums = sums.tobytes()
        self._places = array("Q", places[order].astype(np.uint64).tobytes())
        self.size = len(sums)

    def places(self, checksum: int) -> Iterator[Place]:
        """Of what may be the key of this checksum."""
        bucket = checksum >> self._shift
        start, end = self._edges[bucket] * 4, self._edges[bucket + 1] * 4
        needle = checksum.to_bytes(4, "little")
        at = self._sums.find(needle, start, end)
        while at >= 0:
            if at & 3:
                at += 4 - (at & 3)  # it lies across two others
            else:
                place = self._places[at >> 2]
                yield place >> 32, place & 0xFFFFFFFF
                at += 4
            at = self._sums.find(needle, at, end)

    def twice(self) -> list[int]:
        """The checksums that are here more than once."""
        sums = np.frombuffer(self._sums, "<u4")
        return list(sums[1:][sums[1:] == sums[:-1]].tolist())

    def also_in(self, other: _Index) -> list[int]:
        """The checksums that another index has too."""
        return list(np.intersect1d(np.frombuffer(self._sums, "<u4"), np.frombuffer(other._sums, "<u4")).tolist())


class Pages:
    """The pages of one shelf. outweighed: told of each value that a later page has too."""

    def __init__(self, outweighed: Callable[[bytes], None]) -> None:
        self._outweighed = outweighed
        self._laid: list[_Laid] = []
        self._indices: list[_Index] = []
        """Of the pages up to some number, the larger ones first; the others are not yet indexed."""
        self._read: tuple[int, Values] | None = None
        """The page that was asked for last, by its number: its neighbours' turn comes with it."""
        self._unopened: list[tuple[int, int]] = []
        """(first minute, number) of the pages whose keys nobody has been told of: a heap."""

    def __bool__(self) -> bool:
        return bool(self._laid)

    def __iter__(self) -> Iterator[str]:
        self._keep_index()
        for number in range(len(self._laid)):
            yield from (key for key, _, _ in self._items(number))

    def lay(self, laid: Page) -> int:
        """Takes a page in, unread; its number."""
        heappush(self._unopened, (laid.first, len(self._laid)))
        self._laid.append(_Laid(laid))
        return len(self._laid) - 1

    def find(self, key: str) -> Place | None:
        """Where a key's value is; None where it is in no page."""
        if not self._laid:
            return None
        self._keep_index()
        name = key.encode()
        checksum = crc32(name)
        for index in reversed(self._indices):
            for number, slot in index.places(checksum):
                laid = self._laid[number]
                if laid.has(slot) and laid.key(slot) == name:
                    return number, slot
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
        self._laid[place[0]].drop(place[1])

    def due(self, minute: int) -> Iterator[tuple[int, str]]:
        """Minute and key of every value in the pages of which something is due by then. Each is told once."""
        while self._unopened and self._unopened[0][0] <= minute:
            _, number = heappop(self._unopened)
            self._laid[number].opened = True
            for key, at, _ in self._items(number):
                yield at, key

    def unopened(self, weigh: Callable[[bytes], int]) -> Iterator[Page]:
        """The pages of which nothing is due, as they were laid, without the values that are no longer there."""
        self._keep_index()
        for number in range(len(self._laid)):
            laid = self._laid[number]
            if laid.left and not laid.opened:
                yield laid.page if laid.whole else page(self._items(number), weigh)

    def _values(self, number: int) -> Values:
        if self._read is None or self._read[0] != number:
            self._read = number, _values.decode(bytes(cramjam.zstd.decompress(self._laid[number].page.packed)))
        return self._read[1]

    def _items(self, number: int) -> Iterator[Item]:
        laid = self._laid[number]
        if not laid.left:
            return
        values = self._values(number)
        for slot in range(len(laid.there)):
            if laid.has(slot):
                yield laid.key(slot).decode(), _number(values.minutes, 4 * slot)[0], values.values[_between(values.ends, slot)]

    def _keep_index(self) -> None:
        """Indexes what has been laid since. Indices of like size are made one, so that there are few, and each is made seldom."""
        indexed = self._indices[-1].numbers.stop if self._indices else 0
        if indexed == len(self._laid):
            return
        new = _Index(range(indexed, len(self._laid)), self._laid)
        again = set(new.twice())
        for old in self._indices:
            again.update(old.also_in(new))
        self._indices.append(new)
        for checksum in again:
            self._outweigh(checksum)
        while len(self._indices) > 1 and self._indices[-2].size < 2 * self._indices[-1].size:
            last, before = self._indices.pop(), self._indices.pop()
            self._indices.append(_Index(range(before.numbers.start, last.numbers.stop), self._laid))

    def _outweigh(self, checksum: int) -> None:
        """Of the values of one key, only the one laid last stays."""
        places = [place for index in self._indices for place in index.places(checksum) if self._laid[place[0]].has(place[1])]
        kept: set[bytes] = set()
        for number, slot in sorted(places, reverse=True):
            laid = self._laid[number]
            key = laid.key(slot)
            if key in kept:
                self._outweighed(self.look((number, slot)))
                laid.drop(slot)
            kept.add(key)
