"""Kafka from the edge's side: read a topic to its end, send a few records and know that they are there.

Law: what the command line says it did, the broker has acknowledged (acks=all). Not for the hops: they have the engine.

`client` is how to come in, from `access.client(settings)`; without it in the clear, as tests do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from orderstream import access, topics
from orderstream.errors import NoBroker, TopicsUnfit
from orderstream.rules.book import PackBook, read_record
from orderstream.settings import Settings

Client = Mapping[str, Any] | None


class _NotYet(logging.Filter):
    """Calls a coordinator that is not there yet a warning: a fresh broker says so once, and the client asks again by itself.

    Whoever is on call reads the lines that say ERROR, and this one asks for nothing.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        asked = record.args if isinstance(record.args, tuple) else ()
        if any(isinstance(error, GroupCoordinatorNotAvailableError) for error in asked) and record.levelno == logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


_not_yet = _NotYet()


def calm() -> None:
    """To be called by a process that reads in a group, once it has set up its logging."""
    logging.getLogger("aiokafka.consumer.group_coordinator").addFilter(_not_yet)


class Message(NamedTuple):
    """A record as it was read. timestamp: ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def passed(brokers: str, group: str, names: Iterable[str], seconds: float, client: Client = None) -> bool:
    """Waits until a group has acknowledged all that these topics hold now; False where the time is over first.

    Raises NoBroker, TopicsUnfit.
    """
    return asyncio.run(_passed(brokers, group, list(names), seconds, client))


async def _passed(brokers: str, group: str, names: list[str], seconds: float, client: Client) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    async with _consumer(brokers, client, group) as consumer:
        goals = await consumer.end_offsets(await _parts(consumer, names))
        while True:
            goals = {tp: goal for tp, goal in goals.items() if goal > (await consumer.committed(tp) or 0)}
            if not goals:
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.2)


def worked_off(settings: Settings, brokers: str, seconds: float) -> bool:
    """Waits until the workers have done all that follows from what they were sent until now; False where the time is over first.

    A hop acknowledges its input when the next has its output, so one after the other is enough. Raises NoBroker, TopicsUnfit.
    """
    deadline = time.monotonic() + seconds
    own = [[t for t in topics.declared() if hop in t.readers] for hop in topics.HOPS]
    client = access.client(settings)
    return all(
        passed(brokers, settings.group, [t.on_broker(settings) for t in read], deadline - time.monotonic(), client)
        for read in own
    )


class Outgoing(NamedTuple):
    """A record to send; value None is a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def read_all(brokers: str, names: Iterable[str], client: Client = None) -> Iterator[Message]:
    """Every record that these topics hold now, in order within each partition. Raises NoBroker, NotAdmitted, TopicsUnfit."""
    return iter(list(scan(brokers, names, client=client)))


def scan(brokers: str, names: Iterable[str], since: int = 0, client: Client = None) -> Iterator[Message]:
    """The same one by one as they are fetched, so that a topic larger than the memory can be read.

    since: ms; records that the broker took before it are not read.
    """
    with asyncio.Runner() as loop:
        batches = _scan(brokers, list(names), since, client)

        async def more() -> list[Message] | None:
            return await anext(batches, None)

        try:
            while (batch := loop.run(more())) is not None:
                yield from batch
        finally:
            loop.run(batches.aclose())


@asynccontextmanager
async def _consumer(brokers: str, client: Client, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside of any group; group: whose committed offsets it may ask for."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest", **(client or {})
    )
    try:
        await consumer.start()
    except (KafkaError, OSError) as error:
        await consumer.stop()
        raise NoBroker(access.silent(brokers)) from error
    try:
        yield consumer
    except KafkaError as error:
        raise access.denied(error) or error from None
    finally:
        await consumer.stop()


async def _parts(consumer: AIOKafkaConsumer, names: list[str]) -> list[TopicPartition]:
    """Every partition of these topics, assigned."""
    there = await consumer._client.fetch_all_metadata()  # noqa: SLF001  nothing public tells a topic's partitions unsubscribed
    counts = {name: there.partitions_for_topic(name) or set() for name in names}
    missing = [name for name in names if not counts[name]]
    if missing:
        raise TopicsUnfit(
            f"缺少主题 {', '.join(missing)}，请执行 orderstream topics apply · topics are missing: orderstream topics apply"
        )
    parts = [TopicPartition(name, p) for name in names for p in sorted(counts[name])]
    consumer.assign(parts)
    return parts


async def _scan(brokers: str, names: list[str], since: int, client: Client) -> AsyncGenerator[list[Message], None]:
    async with _consumer(brokers, client) as consumer:
        parts = await _parts(consumer, names)
        ends = await consumer.end_offsets(parts)
        await consumer.seek_to_beginning(*parts)
        if since > 0:
            found = await consumer.offsets_for_times(dict.fromkeys(parts, since))
            for tp, place in found.items():
                consumer.seek(tp, ends[tp] if place is None else place.offset)
        left = {tp for tp in parts if await consumer.position(tp) < ends[tp]}
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                yield [
                    Message(tp.topic, tp.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
                    for r in records
                    if r.offset < ends[tp]
                ]
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}


def count(brokers: str, name: str, client: Client = None) -> int:
    """How many records a topic has ever got, over all partitions. Raises NoBroker, NotAdmitted, TopicsUnfit."""
    return asyncio.run(_count(brokers, name, client))


async def _count(brokers: str, name: str, client: Client) -> int:
    async with _consumer(brokers, client) as consumer:
        return sum((await consumer.end_offsets(await _parts(consumer, [name]))).values())


def send_all(brokers: str, records: Iterable[Outgoing | tuple[str, bytes, bytes]], client: Client = None) -> int:
    """Sends records, or (topic, key, value), in order; how many, once all are acknowledged. Raises NoBroker, NotAdmitted."""
    return asyncio.run(_send_all(brokers, [Outgoing(*record) for record in records], client))


async def _send_all(brokers: str, records: list[Outgoing], client: Client) -> int:
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers,
        acks="all",
        enable_idempotence=True,
        max_request_size=4 << 20,
        **(client or {}),
    )
    try:
        await producer.start()
    except (KafkaError, OSError) as error:
        await producer.stop()
        raise NoBroker(access.silent(brokers)) from error
    try:
        futures = [await producer.send(r.topic, r.value, key=r.key, headers=[*r.headers]) for r in records]
        await asyncio.gather(*futures)
    except KafkaError as error:
        raise access.denied(error) or NoBroker(f"Kafka 未确认写入（{error}） · Kafka did not acknowledge: {error}") from error
    finally:
        await producer.stop()
    return len(records)


def read_packs(settings: Settings, brokers: str) -> PackBook:
    """The packs and activations that are published now."""
    book = PackBook()
    for message in read_all(brokers, [topics.name("rules.packs", settings.topic_prefix)], access.client(settings)):
        if message.key is not None and message.value is not None:
            read_record(book, message.key, message.value)
    return book
