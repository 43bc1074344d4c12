"""A shelf: values by key, those lately used as objects, the rest as bytes.

Law: what is taken from a shelf is what was put there, whether it has been bytes in between or not.
Reason: an order is asked for a few times within seconds of its arrival and then hardly ever again, but must be remembered
for weeks. As objects it takes ten times the memory of its bytes; and bytes that come from a changelog need not be read before
somebody asks for them, so that a worker is up again before it has understood a single one of a million orders.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from orderstream.times import MINUTE

T = TypeVar("T")

Frozen = bytes | list[bytes]
"""A value's bytes: whole, or in parts that are to be taken in one after the other."""

HOT = 131_072
"""Values that stay objects in any case, of all partitions of a hop: a kilobyte each. On a backlog, where orders of the same minute
come in from eight partitions one after the other, a worker that keeps an eighth of it spends a fifth more on reading bytes again.
"""

LARGE = 4
"""What counts for one as large as an order is, a few kilobytes."""


class Shelf(Generic[T]):
    """Values by key. freeze: a value's bytes, None where it is better left an object; thaw: (key, its bytes) -> the value.

    share: this shelf keeps one in so many of HOT: as many as there are partitions, and more of them where values are large.
    """

    def __init__(self, freeze: Callable[[T], bytes | None], thaw: Callable[[str, Frozen], T], share: int = 1) -> None:
        self._share = share
        self._freeze = freeze
        self._thaw = thaw
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}
        self._cold: dict[str, Frozen] = {}

    def get(self, key: str) -> T | None:
        """The value, to be used and changed; None where there is none."""
        value = self._young.get(key)
        if value is not None:
            return value
        value = self._old.pop(key, None)
        if value is None:
            frozen = self._cold.pop(key, None)
            if frozen is None:
                return None
            value = self._thaw(key, frozen)
        self._young[key] = value
        return value

    def peek(self, key: str) -> T | None:
        """The value, to be looked at only."""
        value = self._young.get(key) or self._old.get(key)
        if value is None and (frozen := self._cold.get(key)) is not None:
            return self._thaw(key, frozen)
        return value

    def put(self, key: str, value: T) -> None:
        """A value for a key that has none."""
        self._young[key] = value

    def held(self, key: str) -> Frozen | T | None:
        """What is there, bytes or object, as it stands."""
        return self._young.get(key) or self._old.get(key) or self._cold.get(key)

    def objects(self) -> list[T]:
        """The values that are objects now."""
        return [*self._young.values(), *self._old.values()]

    def lay(self, key: str, whole: bytes) -> bool:
        """A value's bytes, in place of whatever is there; whether nothing was."""
        new = key not in self._cold and self._young.pop(key, None) is None and self._old.pop(key, None) is None
        self._cold[key] = whole
        return new

    def __iter__(self) -> Iterator[str]:
        yield from (*self._young, *self._old, *self._cold)

    def known(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are there."""
        cold, young, old = self._cold, self._young, self._old
        if not young and not old:
            return [key for key in keys if key in cold]
        return [key for key in keys if key in cold or key in young or key in old]

    def lay_all(self, keys: Sequence[str], wholes: Sequence[bytes]) -> None:
        """Many values' bytes, each in place of whatever is there."""
        for hot in (self._young, self._old):
            for key in hot.keys() & keys if hot else ():
                del hot[key]
        self._cold.update(zip(keys, wholes, strict=True))

    def add(self, key: str, part: bytes) -> bool | None:
        """One more part of a value's bytes; whether it is the first. None, and nothing done, where the value is an object now."""
        known = self._cold.get(key)
        if known is None:
            if key in self._young or key in self._old:
                return None
            self._cold[key] = part
            return True
        if isinstance(known, list):
            known.append(part)
        else:
            self._cold[key] = [known, part]
        return False

    def frozen(self, key: str) -> Frozen | None:
        """The bytes, where the value is bytes now."""
        return self._cold.get(key)

    def discard(self, key: str) -> None:
        if self._young.pop(key, None) is None and self._old.pop(key, None) is None:
            self._cold.pop(key, None)

    def cool(self, limit: int) -> None:
        """Turns up to `limit` objects that have not been used for longest into bytes. To be called often, with little."""
        if not self._old:
            if len(self._young) < HOT // self._share:
                return
            self._old, self._young = self._young, self._old
        for _ in range(min(limit, len(self._old))):
            key, value = self._old.popitem()
            frozen = self._freeze(value)
            if frozen is None:
                self._young[key] = value
            else:
                self._cold[key] = frozen


class Due:
    """Keys by the minute in which something is to be done about them."""

    def __init__(self) -> None:
        self._minutes: list[int] = []
        self._keys: dict[int, list[str]] = {}

    def add(self, at: int, key: str) -> None:
        """at: ms."""
        self.add_all((at // MINUTE + 1,), (key,))

    def add_all(self, minutes: Iterable[int], keys: Iterable[str]) -> None:
        """minutes: since 1970, one a key."""
        known = self._keys
        for minute, key in zip(minutes, keys, strict=True):
            try:
                known[minute].append(key)
            except KeyError:
                known[minute] = [key]
                heapq.heappush(self._minutes, minute)

    def until(self, now: int) -> list[str]:
        """Takes out what is due by now (ms)."""
        out: list[str] = []
        while self._minutes and self._minutes[0] * MINUTE <= now:
            out += self._keys.pop(heapq.heappop(self._minutes))
        return out

    def items(self) -> Iterator[tuple[int, str]]:
        """(minute, key), the soonest first, as it is when its turn comes. May change meanwhile, if what moves becomes due later."""
        reached = -1
        while minutes := sorted(minute for minute in self._keys if minute > reached):
            for reached in minutes:
                for key in tuple(self._keys.get(reached, ())):
                    yield reached, key


class Block(msgspec.Struct, array_like=True, gc=False):
    """Values as a dump says them: their keys, the minutes in which these are due, and their bytes. Read in one go, laid unread."""

    keys: list[str]
    minutes: list[int]
    wholes: list[bytes]


def blocks(items: Iterable[tuple[str, int, bytes]], limit: int = 100_000) -> Iterator[Block]:
    """(key, minute, bytes) as blocks of about `limit` bytes, none taken before its block's time."""
    block, size = Block([], [], []), 0
    for key, minute, whole in items:
        block.keys.append(key)
        block.minutes.append(minute)
        block.wholes.append(whole)
        size += len(whole)
        if size >= limit:
            yield block
            block, size = Block([], [], []), 0
    if block.keys:
        yield block


def lay(shelf: Shelf[T], due: Due, block: Block) -> list[Frozen | T]:
    """Lays a block's values, each in place of whatever is there. What was: it is due as it has been."""
    known = shelf.known(block.keys)
    before = [held for key in known if (held := shelf.held(key)) is not None]
    shelf.lay_all(block.keys, block.wholes)
    if known:
        again = set(known)
        fresh = [(minute, key) for minute, key in zip(block.minutes, block.keys, strict=True) if key not in again]
        due.add_all((minute for minute, _ in fresh), (key for _, key in fresh))
    else:
        due.add_all(block.minutes, block.keys)
    return before
