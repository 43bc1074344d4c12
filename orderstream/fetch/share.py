"""The books of one owned partition: what was taken and is not finished, what is parked, how far its shops are polled.

Law: the position that is committed is the lowest unfinished one. Whatever ends the process, what follows it comes again.
"""

from __future__ import annotations

import msgspec

from orderstream.orders import Raw


class Progress:
    """Which offsets of a partition are finished. Taken in ascending order, finished in any."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}
        self._next: int | None = None

    def take(self, offset: int) -> None:
        """One is under way."""
        self._open[offset] = None
        self._next = offset + 1

    def done(self, offset: int) -> None:
        """One is finished; once more does no harm."""
        self._open.pop(offset, None)

    @property
    def safe(self) -> int | None:
        """The offset from which a successor must begin; None where nothing was taken."""
        return next(iter(self._open), self._next)

    @property
    def following(self) -> int | None:
        """The offset after the last one taken."""
        return self._next


def parked_key(partition: int, offset: int, timestamp: int) -> bytes:
    """What a record of orders.pending is called on orders.parked: by its place, and by its time in case the topic is made anew."""
    return f"{partition}.{offset}.{timestamp}".encode()


class Item(msgspec.Struct, gc=False, eq=False):
    """One record that waits for its detail.

    key: on orders.parked; offset: there, or on orders.pending while it is fresh. raw: None where it is parked: its bytes are
    read when its turn comes. since: ms UTC of its receipt. attempts: calls in vain; error: the code of the last one.
    """

    share: Share
    key: bytes
    offset: int
    since: int
    raw: Raw | None = None
    attempts: int = 0
    error: str = ""
    gone: bool = False
    """True where orders.parked says something newer of it."""


class Share:
    """One partition, from when it was assigned until it is lost."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.progress = Progress()
        self.parked: dict[bytes, Item] = {}
        self.polled: dict[str, int] = {}
        self.loaded = False
        """True when orders.parked and platforms.polled have been read to their ends: until then they may be out of date."""
        self.lost = False

    def park(self, item: Item) -> None:
        """What a record of orders.parked says."""
        self.unpark(item.key)
        self.parked[item.key] = item

    def unpark(self, key: bytes) -> None:
        """What a tombstone there says."""
        before = self.parked.pop(key, None)
        if before is not None:
            before.gone = True
