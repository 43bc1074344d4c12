"""The process `orderstream downstream`: reads seven topics into the flows, tells what is overdue, answers `/check`.

Law: PostgreSQL away is a pause, not an end: nothing is acknowledged that is not written, and reading goes on where the tables
stand. What is to be said to Kafka waits in an outbox, in the transaction that found it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import uvicorn
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from orderstream import access, kafka, topics
from orderstream.board.store import Db, answering, connect, migrate, now, pool, url
from orderstream.consumers.inbox import Resume, begin, connected
from orderstream.downstream import check, store
from orderstream.downstream.flow import WAITS
from orderstream.downstream.read import OTHERS, READS, Told, told
from orderstream.errors import NoDatabase
from orderstream.metrics import Metrics
from orderstream.process import bound, joined, logs, shown, told_to_end
from orderstream.rules.book import NoPackError, PackBook
from orderstream.rules.model import Limits
from orderstream.settings import Settings

SWEEP_SECONDS = 1.0
RETRY_SECONDS = 2.0
"""How long to wait for a PostgreSQL that went away."""
NO_LIMITS = Limits({}, None, None)

log = logging.getLogger("orderstream.downstream")


class Packs:
    """The limits of packs by their version, read from Kafka when one is asked for that is not known. Not for an event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._book = PackBook()
        self._asked: dict[str, float] = {}

    def __call__(self, version: str) -> Limits:
        if not version:
            return NO_LIMITS
        with contextlib.suppress(NoPackError):
            return self._book.pack(version).limits
        if time.monotonic() - self._asked.get(version, -60.0) > 30:
            self._asked[version] = time.monotonic()
            self._book = kafka.read_packs(self._settings, str(self._settings.brokers))
            with contextlib.suppress(NoPackError):
                return self._book.pack(version).limits
            log.warning("no rule pack %s on rules.packs: nothing is waited for by it", version)
        return NO_LIMITS


class Watch:
    """One connection's worth of the process: what it reads, writes and tells."""

    def __init__(self, settings: Settings, metrics: Metrics, db: Db, limits: Packs) -> None:
        self.settings, self.metrics, self.db, self.limits = settings, metrics, db, limits
        self.swept = 0.0
        self.tidied = 0.0
        # there from the first scrape: a series that begins with its first event shows no increase
        for kind in WAITS:
            metrics.fallen_due.labels(kind)
        for topic in OTHERS:
            metrics.unread.labels(topic)

    def position(self, topic: str, partition: int) -> int:
        """Where the tables stand."""
        with answering():
            return store.position(self.db, store.READER, topic, partition)

    def take(self, topic: str, partition: int, records: list[tuple[int, int, bytes | None]]) -> None:
        """(offset, Kafka's ms, value) of one partition, in one transaction with what follows."""
        with answering(), self.db.transaction():
            following = store.position(self.db, store.READER, topic, partition)
            said: list[Told] = []
            for offset, at, value in records:
                if offset < following or value is None:
                    # a tombstone takes personal data away, and a flow has none
                    continue
                try:
                    found = told(topic, value, at)
                except ValueError as error:
                    if topic not in OTHERS:
                        raise ValueError(f"{topic}[{partition}]@{offset} is not of its schema: {error}") from error
                    self.metrics.unread.labels(topic).inc()
                    log.warning("%s[%d]@%d is not of its schema and is passed over: %s", topic, partition, offset, error)
                    continue
                if found is not None:
                    said.append(found)
            store.apply(self.db, said, self.limits)
            store.advance(self.db, store.READER, topic, partition, max(following, records[-1][0] + 1))

    def sweep(self, read: list[tuple[str, int]], seen_at: int) -> list[dict[str, Any]]:
        """Tells what is overdue and shows how much; records that Kafka is to have. read: partitions read to their ends by seen_at."""
        at = now()
        with answering():
            store.seen(self.db, store.READER, read, seen_at)
            for one in store.remind(self.db, at):
                self.metrics.fallen_due.labels(one.kind).inc()
                log.warning("%s %s: since %d s", one.order_id, one.kind, (at - one.since) // 1000)
            found = store.counts(self.db)
            for kind in WAITS:
                count, due = found.get(kind, (0, at))
                self.metrics.standing.labels(kind).set(count)
                self.metrics.standing_age.labels(kind).set(max(0, at - due) / 1000)
            if time.monotonic() - self.tidied > 3600:
                self.tidied = time.monotonic()
                store.forget_old(self.db, at)
            return store.unsent(self.db)

    def sent(self, numbers: list[int]) -> None:
        """Kafka has these."""
        with answering():
            store.sent(self.db, numbers, now())


def run(settings: Settings) -> None:
    """Runs until SIGTERM or Ctrl-C. Raises UserError before it works, and for what no retry mends."""
    logs(settings, "aiokafka", least=logging.ERROR)
    settings = joined(settings)
    migrate(url(settings))
    metrics = Metrics()
    served = shown(metrics, settings)
    try:
        with answered(settings, metrics) as port:
            print(f"下游 http://{settings.downstream_host}:{port}/check 就绪 · downstream is up", flush=True)  # noqa: T201
            asyncio.run(until_signal(settings, metrics))
    finally:
        served.close()


@contextmanager
def answered(settings: Settings, metrics: Metrics) -> Iterator[int]:
    """`/check` is answered in a thread of its own: a long batch of records holds no parcel up. The port. Raises PortTaken."""
    listener = bound(settings.downstream_host, settings.downstream_port)
    listener.listen(256)
    connections = pool(url(settings))
    app = check.create_app(connections, metrics, settings.partitions, lambda: settings.shop_secrets(*check.SECRETS))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, ws="none", server_header=False, lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="check", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        connections.close()


async def until_signal(settings: Settings, metrics: Metrics) -> None:
    """Watches until SIGTERM or SIGINT."""
    await watch(settings, metrics, told_to_end())


async def watch(settings: Settings, metrics: Metrics, stop: asyncio.Event) -> None:
    """Reads and tells until stopped, beginning again whenever PostgreSQL comes back. Raises UserError, ValueError."""
    limits = Packs(settings)
    while not stop.is_set():
        try:
            db = await asyncio.to_thread(connect, url(settings))
            try:
                metrics.database.set(1)
                await _read(Watch(settings, metrics, db, limits), stop)
            finally:
                db.close()
        except NoDatabase as error:
            metrics.database.set(0)
            log.warning("%s", error.sentence)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)


async def _read(watch: Watch, stop: asyncio.Event) -> None:
    settings = watch.settings
    prefix = settings.topic_prefix
    producer: Any = AIOKafkaProducer(
        bootstrap_servers=settings.brokers, acks="all", enable_idempotence=True, client_id="downstream", **access.client(settings)
    )
    await begin(producer, settings)
    try:
        async with connected(settings, prefix + store.READER) as consumer:
            resume = Resume(consumer, watch.position, prefix)
            consumer.subscribe([topics.name(topic, prefix) for topic in READS], listener=resume)
            while not stop.is_set():
                batches = await consumer.getmany(timeout_ms=200, max_records=500)
                if resume.trouble is not None:
                    raise resume.trouble
                for partition, records in batches.items():
                    plain = partition.topic.removeprefix(prefix)
                    rows = [(r.offset, r.timestamp, r.value) for r in records]
                    await asyncio.to_thread(watch.take, plain, partition.partition, rows)
                    end = consumer.highwater(partition) or 0
                    watch.metrics.lag.labels(plain, partition.partition).set(max(0, end - records[-1].offset - 1))
                if batches:
                    # for whoever watches the lag: the tables know better
                    with contextlib.suppress(KafkaError):
                        await consumer.commit()
                if time.monotonic() - watch.swept > SWEEP_SECONDS:
                    watch.swept = time.monotonic()
                    read, at = await _ends(consumer, prefix)
                    await _tell(watch, producer, await asyncio.to_thread(watch.sweep, read, at))
    finally:
        await producer.stop()


async def _ends(consumer: Any, prefix: str) -> tuple[list[tuple[str, int]], int]:
    """Partitions of ours that are read to their ends, and as of when (ms): the oldest of the broker's words on it."""
    read: list[tuple[str, int]] = []
    heard: list[int] = []
    for partition in consumer.assignment():
        plain = partition.topic.removeprefix(prefix)
        end, polled = consumer.highwater(partition), consumer.last_poll_timestamp(partition)
        if plain in store.CRITICAL and end is not None and polled and await consumer.position(partition) >= end:
            read.append((plain, partition.partition))
            heard.append(polled)
    return read, min(heard, default=0)


async def _tell(watch: Watch, producer: Any, records: list[dict[str, Any]]) -> None:
    """Sends what the outbox holds; a crash before `sent` sends it again, with the same id."""
    if not records:
        return
    prefix = watch.settings.topic_prefix
    try:
        sends = [
            await producer.send(topics.name(one["topic"], prefix), orjson.dumps(one["value"]), one["key"].encode())
            for one in records
        ]
        await asyncio.gather(*sends)
    except KafkaError as error:
        denied = access.denied(error)
        if denied is not None:
            raise denied from None
        log.warning("Kafka did not take what the outbox holds, it is tried again: %s", error)
        return
    await asyncio.to_thread(watch.sent, [one["n"] for one in records])
