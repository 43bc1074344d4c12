"""A shelf: values by key, those lately used as objects, the rest as bytes, and when something is to be done about each.

Law: what is taken from a shelf is what was put there, whether it has been bytes in between or not.
Reason: an order is asked for a few times within seconds of its arrival and then hardly ever again, but must be remembered
for weeks. As objects it takes ten times the memory of its bytes; and bytes that come from a changelog need not be read before
somebody asks for them, so that a worker is up again before it has understood a single one of a million orders.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, TypeVar

from orderstream.pages import PAGE_BYTES, Item, Page, Pages, Place, batches, page, pages
from orderstream.times import MINUTE

T = TypeVar("T")

_NEVER = 1 << 60

Frozen = bytes | list[bytes]
"""A value's bytes: whole, or in parts that are to be taken in one after the other."""


class _Parts(list[bytes]):
    """Parts that come after what lies in a page, if anything does.

    minute: in which the value is due if nothing does; None once that has been looked up.
    """

    __slots__ = ("minute",)

    def __init__(self, part: bytes) -> None:
        super().__init__((part,))
        self.minute: int | None = None


HOT = 131_072
"""Values that stay objects in any case, of all partitions of a hop: a kilobyte each. On a backlog, where orders of the same minute
come in from eight partitions one after the other, a worker that keeps an eighth of it spends a fifth more on reading bytes again.
"""

LARGE = 4
"""What counts for one as large as an order is, a few kilobytes."""


def _nothing(_: bytes) -> int:
    return 0


class Shelf(Generic[T]):
    """Values by key. freeze: a value's bytes, None where it is better left an object; thaw: (key, its bytes) -> the value.

    share: this shelf keeps one in so many of HOT: as many as there are partitions, and more of them where values are large.
    weigh: what the shelf's owner counts of a value's bytes; outweighed: told what of that is replaced by a later page.
    """

    def __init__(
        self,
        freeze: Callable[[T], bytes | None],
        thaw: Callable[[str, Frozen], T],
        share: int = 1,
        *,
        weigh: Callable[[bytes], int] = _nothing,
        outweighed: Callable[[Frozen | T], None] = lambda _: None,
    ) -> None:
        self._share = share
        self._freeze = freeze
        self._thaw = thaw
        self._weigh = weigh
        self._outweighed = outweighed
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}
        self._cold: dict[str, Frozen] = {}
        self._pages = Pages(outweighed)
        """What a dump has put there and nobody has asked for since. What stands above goes before it."""
        self._due = Due()
        self._later = _NEVER
        """The soonest minute of any parts of which it is not known whether something lies in a page."""

    # -- values ------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> T | None:
        """The value, to be used and changed; None where there is none."""
        value = self._young.get(key)
        if value is not None:
            return value
        value = self._old.pop(key, None)
        if value is None:
            frozen = self._cold.pop(key, None)
            if frozen is None:
                frozen = self._taken(key, None) if self._pages else None
                if frozen is None:
                    return None
            elif isinstance(frozen, _Parts):
                frozen = self._taken(key, frozen) or frozen
            value = self._thaw(key, frozen)
        self._young[key] = value
        return value

    def find(self, key: str) -> T | bytes | None:
        """The value as `get` gives it; where it is bytes in one piece those, which stay what they are."""
        value = self._young.get(key)
        if value is not None:
            return value
        frozen = self._cold.get(key)
        if isinstance(frozen, bytes):
            return frozen
        if frozen is None and not self._pages and key not in self._old:
            return None
        return self.get(key)

    def change(self, key: str, value: bytes) -> None:
        """Other bytes in place of those that `find` gave."""
        self._cold[key] = value

    def peek(self, key: str) -> T | None:
        """The value, to be looked at only."""
        held = self.held(key)
        return self._thaw(key, held) if isinstance(held, (bytes, list)) else held

    def put(self, key: str, value: T) -> None:
        """A value for a key that has none."""
        self._young[key] = value

    def begin(self, key: str, value: bytes, at: int) -> None:
        """The bytes of a value for a key of which `get` gave nothing; `until` is to tell of it when `at` (ms) has passed."""
        self._cold[key] = value
        self._due.add(at // MINUTE + 1, key)

    def held(self, key: str) -> Frozen | T | None:
        """What is there, bytes or object, as it stands."""
        value = self._young.get(key) or self._old.get(key)
        if value is not None:
            return value
        frozen = self._cold.get(key)
        if frozen is not None and not isinstance(frozen, _Parts):
            return frozen
        place = self._pages.find(key)
        if place is None:
            return frozen
        paged = self._pages.look(place)
        return paged if frozen is None else [paged, *frozen]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._young, *self._old, *self._cold)
        yield from (key for key in self._pages if key not in self._cold and key not in self._young and key not in self._old)

    def objects(self) -> list[T]:
        """The values that are objects now."""
        return [*self._young.values(), *self._old.values()]

    def lay(self, key: str, whole: bytes) -> bool:
        """A value's bytes, in place of whatever is there; whether nothing was that is not in a page."""
        known = self._cold.get(key)
        if isinstance(known, _Parts):
            self._taken(key, known)
        new = known is None and self._young.pop(key, None) is None and self._old.pop(key, None) is None
        self._cold[key] = whole
        return new

    def add(self, key: str, part: bytes) -> bool | None:
        """One more part of a value's bytes; whether it is the first that is not in a page.

        None, and nothing done, where the value is an object now.
        """
        known = self._cold.get(key)
        if known is None:
            if key in self._young or key in self._old:
                return None
            self._cold[key] = _Parts(part) if self._pages else part
            return True
        if isinstance(known, list):
            known.append(part)
        else:
            self._cold[key] = [known, part]
        return False

    def discard(self, key: str) -> None:
        if self._young.pop(key, None) is None and self._old.pop(key, None) is None:
            self._cold.pop(key, None)
        place = self._pages.find(key)
        if place is not None:
            self._pages.drop(place)

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

    def _taken(self, key: str, parts: _Parts | None) -> Frozen | None:
        """What a page has of a value, no longer there, and what has come since."""
        place = self._pages.find(key)
        if place is None:
            if parts is not None and parts.minute is not None:
                self._due.add(parts.minute, key)
            return parts
        minute, value = self._pages.take(place)
        if minute is not None:
            self._due.add(minute, key)
        return [value, *parts] if parts else value

    # -- what is due -------------------------------------------------------------------------------------------------

    def remind(self, at: int, key: str) -> None:
        """`until` is to tell of a key when `at` (ms) has passed, or when its page says, if it is in one."""
        minute = at // MINUTE + 1
        known = self._cold.get(key)
        if isinstance(known, _Parts):
            known.minute = minute
            self._later = min(self._later, minute)
        else:
            self._due.add(minute, key)

    def until(self, now: int) -> list[str]:
        """The keys that are due by now (ms). Each is told once."""
        if self._later * MINUTE <= now:
            self._look_up()
        for minute, key in self._pages.due(now // MINUTE):
            if key in self._young or key in self._old:
                continue
            known = self._cold.get(key)
            if isinstance(known, _Parts):
                known.minute = None
            elif known is not None:
                continue  # who stands above a page has a time of its own
            self._due.add(minute, key)
        return self._due.until(now)

    def _look_up(self) -> None:
        """Finds out which parts have something in a page: that says when they are due."""
        for key, known in self._cold.items():
            if isinstance(known, _Parts) and known.minute is not None:
                if self._pages.find(key) is None:
                    self._due.add(known.minute, key)
                known.minute = None
        self._later = _NEVER

    # -- dumps -------------------------------------------------------------------------------------------------------

    def dump(
        self, whole: Callable[[str, int, Frozen | T], bytes | None], others: Iterable[tuple[int, str]] = ()
    ) -> Iterator[Page]:
        """All values that something is due for, and `others` (minute, key), for `lay_page`, in any number of helpings.

        whole: (key, minute, what is held) -> the value's bytes, or None, and it is the caller's.
        """
        self._look_up()
        # pages first, what has come to them since, then the rest: what is taken from a page meanwhile comes up again behind it
        yield from self._pages.unopened(self._weigh)
        for items in batches(self._wholes(whole, self._grown())):
            yield self._put_into_page(items)
        yield from self._loose(whole)
        yield from pages(self._wholes(whole, others), self._weigh)

    def _grown(self) -> Iterator[tuple[int, str]]:
        """What lies in a page and above it: the page says when it is due."""
        for key in [key for key, known in self._cold.items() if isinstance(known, _Parts)]:
            place = self._paged(key)
            minute = None if place is None else self._pages.minute(place)
            if minute is not None:
                yield minute, key

    def _loose(self, whole: Callable[[str, int, Frozen | T], bytes | None]) -> Iterator[Page]:
        """What is due by itself, the soonest first. What of it is bytes lies in these pages from then on, and is due when they are."""
        reached = -1
        taken: dict[str, Item] = {}
        size = 0
        rows: list[tuple[list[str], int, int]] = []
        while minutes := self._due.minutes(reached):
            for reached in minutes:
                keys = self._due.keys(reached)
                at = begun = 0
                end = len(keys)
                # what has been told as due meanwhile comes up again where its time is now
                while at < end and keys is self._due.keys(reached):
                    key = keys[at]
                    item = None if key in taken else self._item(whole, reached, key)
                    at += 1
                    if item is None:
                        continue
                    taken[key] = item
                    size += len(item[2])
                    if size >= PAGE_BYTES:
                        rows.append((keys, begun, at))
                        page = self._put_into_page(taken.values())
                        gone = self._leave_out(rows)
                        at, end = at - gone, end - gone
                        begun = at
                        taken, size, rows = {}, 0, []
                        yield page
                rows.append((keys, begun, at))
        if taken:
            page = self._put_into_page(taken.values())
            self._leave_out(rows)
            yield page

    def _item(self, whole: Callable[[str, int, Frozen | T], bytes | None], minute: int, key: str) -> Item | None:
        """A value for a page; None where there is none any more, or where an unopened page has it: then that says its time."""
        place = self._paged(key)
        if place is not None and not self._pages.opened(place):
            return None
        held = self.held(key)
        value = None if held is None else whole(key, minute, held)
        return None if value is None else (key, minute, value)

    def _leave_out(self, rows: list[tuple[list[str], int, int]]) -> int:
        """Takes from these lists of what is due, between these places, what a page now says; how many from the last one."""
        gone = 0
        for keys, start, end in rows:
            kept = [key for key in keys[start:end] if key in self._young or key in self._old or key in self._cold]
            gone = end - start - len(kept)
            keys[start:end] = kept
        return gone

    def _put_into_page(self, items: Collection[Item]) -> Page:
        """A page of these values. What of them is bytes lies there from now on."""
        made = page(items, self._weigh)
        places = [self._pages.find(key) for key, _, _ in items]
        number = self._pages.lay(made)
        for slot, (key, _, _) in enumerate(items):
            self._cold.pop(key, None)
            if (old := places[slot]) is not None:
                self._pages.drop(old)
            if key in self._young or key in self._old:
                self._pages.drop((number, slot))
        return made

    def _paged(self, key: str) -> Place | None:
        """Where the value is, or what it begins with, if that is in a page."""
        if key in self._young or key in self._old:
            return None
        known = self._cold.get(key)
        return self._pages.find(key) if known is None or isinstance(known, _Parts) else None

    def _wholes(self, whole: Callable[[str, int, Frozen | T], bytes | None], keys: Iterable[tuple[int, str]]) -> Iterator[Item]:
        for minute, key in keys:
            held = self.held(key)
            if held is not None and (value := whole(key, minute, held)) is not None:
                yield key, minute, value

    def lay_page(self, page: Page) -> None:
        """Takes a page in, in place of whatever is there of its keys."""
        if self._cold or self._young or self._old:
            names = set(page.names())
            for above in (self._cold, self._young, self._old):
                for key in above.keys() & names:
                    self._outweighed(above.pop(key))
        self._pages.lay(page)


class Due:
    """Keys by the minute in which something is to be done about them."""

    def __init__(self) -> None:
        self._minutes: list[int] = []
        self._keys: dict[int, list[str]] = {}

    def add(self, minute: int, key: str) -> None:
        """minute: since 1970."""
        try:
            self._keys[minute].append(key)
        except KeyError:
            self._keys[minute] = [key]
            heapq.heappush(self._minutes, minute)

    def until(self, now: int) -> list[str]:
        """Takes out what is due by now (ms)."""
        out: list[str] = []
        while self._minutes and self._minutes[0] * MINUTE <= now:
            out += self._keys.pop(heapq.heappop(self._minutes))
        return out

    def minutes(self, after: int) -> list[int]:
        """Those after one in which anything is due."""
        return sorted(minute for minute in self._keys if minute > after)

    def keys(self, minute: int) -> list[str]:
        """What is due in a minute, to be changed."""
        return self._keys.get(minute, _NOBODY)


_NOBODY: list[str] = []
"""Never changed."""
