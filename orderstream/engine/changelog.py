"""The changelog of a hop, and who may write it.

The law: *a state is a function of its changelog alone*, and two workers that both believe they own a partition cannot make
two truths of it. Kafka's group protocol does not give that: a worker that was paused longer than its session may still write.

So an owner first writes a **claim** (an empty record with its random token), folds everything up to it, and signs every
record with the token. Readers fold only records signed by the last claim before them. What a displaced owner writes late
is therefore ignored by everyone, for ever. The displaced owner finds out by itself: the offsets that the broker gives its
records must follow one another; when one does not, a claim may lie in between, and it looks. Nothing that it would have
published for such a record leaves the system, and its input stays unacknowledged.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from orderstream.engine.hop import Headers

CLAIM = "claim"
SIGNED = "by"


class Fenced(RuntimeError):  # noqa: N818 - named for what is so
    """Another worker has claimed this partition's changelog: what we know is out of date."""


def new_token() -> bytes:
    return token_bytes(8)


def claim_headers(token: bytes) -> Headers:
    return ((CLAIM, token),)


def signed_headers(token: bytes) -> Headers:
    return ((SIGNED, token),)


def claimed_by(headers: Iterable[tuple[str, bytes]]) -> bytes | None:
    """The token of a claim; None for any other record."""
    return next((value for name, value in headers if name == CLAIM), None)


@dataclass(slots=True)
class Reading:
    """Which of a partition's changelog records count, as they pass in offset order."""

    owner: bytes | None = None
    folded: int = 0
    ignored: int = 0

    def blob(self, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> bytes | None:
        """The blob to fold; None for a claim and for what a displaced owner wrote."""
        for name, token in headers:
            if name == CLAIM:
                self.owner = token
                return None
            if name == SIGNED:
                if self.owner is None:  # retention has removed the claim before it
                    self.owner = token
                if token == self.owner:
                    self.folded += 1
                    return value
        self.ignored += 1
        return None


@dataclass(slots=True)
class Reader:
    """Reads changelogs from where they are told to, outside any consumer group."""

    brokers: str
    client: Mapping[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self, starts: Mapping[TopicPartition, int | None]) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of these partitions, each at its offset, or at its beginning for None."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.brokers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=32 << 20,
            **self.client,
        )
        await consumer.start()
        try:
            consumer.assign(list(starts))
            fresh = [tp for tp, offset in starts.items() if offset is None]
            for tp, offset in starts.items():
                if offset is not None:
                    consumer.seek(tp, offset)
            if fresh:
                await consumer.seek_to_beginning(*fresh)
            yield consumer
        finally:
            await consumer.stop()

    async def claims_between(self, topic: str, partition: int, start: int, end: int | None) -> Sequence[bytes]:
        """The claims at offsets `start` .. `end - 1`; None: up to where the log ends now."""
        tp = TopicPartition(topic, partition)
        found: list[bytes] = []
        async with self.open({tp: start}) as consumer:
            if end is None:
                end = (await consumer.end_offsets([tp]))[tp]
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    for record in records:
                        token = claimed_by(record.headers) if record.offset < end else None
                        if token is not None:
                            found.append(token)
        return found
