"""What a hop is: bytes in, bytes out, and a memory that can be put down and picked up.

The law of this package: *the engine moves bytes and never looks into them*. A state decides what a batch means and says
what must be sent and what must be remembered; the engine makes both durable in an order in which a crash at any moment
repeats work and never contradicts it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Record:
    """One Kafka record as it was fetched."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


@dataclass(slots=True)
class Send:
    """One record to produce. `partition` wins over `key`; with a key alone, Kafka's default partitioner decides.

    `public=False` is for topics that only this system reads: such a send may be on its way beside the changelog's record,
    so it must be harmless when repeated, also by a worker that remembers otherwise.
    `public=True` leaves the system: it is sent only after the broker has acknowledged the batch's changelog records, and in
    the order of the batches.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Headers = ()
    public: bool = False


@dataclass(slots=True)
class Effects:
    """What a batch leads to. `log` is what must be remembered to get the same state back; None when nothing changed."""

    sends: list[Send] = field(default_factory=list)
    log: bytes | list[bytes] | None = None


class State(Protocol):
    """The memory of one partition of one hop, shared by all of the hop's topics."""

    def process(self, records: Sequence[Record]) -> Effects:
        """Take a batch (all of one topic-partition, in offset order) and move on.

        Synchronous, and pure with regard to IO. The same records may come again after a crash or a rebalance. An exception
        here is a bug: it stops the worker and leaves the batch unacknowledged.
        """
        ...

    def restore(self, blob: bytes) -> None:
        """Fold one changelog record, in the order in which they were written. Folding one twice must change nothing."""
        ...

    def idle(self) -> Effects | None:
        """Called at intervals while every topic of this partition is fully consumed."""
        ...

    def dump(self) -> Iterator[bytes]:
        """All that is remembered, as blobs for `restore` in any number of small helpings, while batches go on between them.

        What changes after it was given is in later blobs; what was there from the beginning to the end is given.
        """
        ...


@dataclass(slots=True)
class Hop:
    """A named step: topics that share one state per partition.

    `remembers=False` is for a hop whose state is nothing but a function: it needs no changelog topic, and `log` must stay None.
    """

    name: str
    topics: list[str]
    state_factory: Callable[[int], State]
    remembers: bool = True


def changelog_topic(app_id: str, hop_name: str) -> str:
    """The topic that holds the memory of a hop: one partition a source partition, cleanup.policy=delete, never compact."""
    return f"{app_id}-{hop_name}-changelog"


def archive_topic(app_id: str, hop_name: str) -> str:
    """The topic that holds the same in large records; partitions and policy as the changelog's."""
    return f"{app_id}-{hop_name}-archive"
