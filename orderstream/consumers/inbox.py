"""Kafka on one side, a transaction on the other: what both examples share.

Law: `Store.take` writes a batch's effects and its position together or not at all; reading resumes where the store says, never
where Kafka remembers. A record that cannot be read stops the process: skipping it would be losing an order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import orjson
import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from orderstream import access, topics
from orderstream.errors import INTERRUPTED, NoBroker, NoDatabase, UserError
from orderstream.kafka import calm
from orderstream.metrics import Metrics
from orderstream.process import shown, told_to_end
from orderstream.settings import Settings


class Tombstone(NamedTuple):
    """A record without a value: what the order's own records said is to be forgotten."""

    order_id: str


class Outgoing(NamedTuple):
    """A record for a topic (without the installation's prefix) that waits in the store; value: JSON."""

    topic: str
    key: str
    what: str
    value: str


class Store:
    """The consumer's tables, and beside them the position in each partition that they stand for.

    place: a SQLite file, or a PostgreSQL URL. One process writes at a time, also where one that was thought dead wakes up.
    """

    tables: ClassVar[str] = ""
    """SQL that makes the consumer's own tables, `IF NOT EXISTS`."""

    def __init__(self, place: Path | str) -> None:
        self.db: Any = _sqlite(place) if isinstance(place, Path) else Postgres(place)
        self.db.executescript(
            "CREATE TABLE IF NOT EXISTS position (topic TEXT, partition INTEGER, next BIGINT, PRIMARY KEY (topic, partition));"
            "CREATE TABLE IF NOT EXISTS outgoing (topic TEXT, key TEXT, what TEXT, value TEXT NOT NULL, PRIMARY KEY (topic, key, what));"
            + self.tables
        )

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # of a database that is gone nothing is left to take back
            with contextlib.suppress(NoDatabase):
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def position(self, topic: str, partition: int) -> int:
        """The next offset to read; 0 where nothing was."""
        row = self.db.execute("SELECT next FROM position WHERE topic = ? AND partition = ?", (topic, partition)).fetchone()
        return int(row[0]) if row else 0

    def take(self, topic: str, partition: int, records: Sequence[tuple[int, bytes | Tombstone]]) -> list[str]:
        """Apply (offset, value or Tombstone) records of one partition in one transaction; what was done with each, for metrics.

        Records before the position were applied already and change nothing.
        """
        done: list[str] = []
        with self.transaction():
            following = self.position(topic, partition)
            for offset, value in records:
                if offset < following:
                    done.append("repeat")
                    continue
                try:
                    done.append(self.forget(value.order_id) if isinstance(value, Tombstone) else self.apply(topic, value))
                except ValueError as error:
                    raise ValueError(f"{topic}[{partition}]@{offset} is not of its schema: {error}") from error
                following = offset + 1
            self.db.execute(
                "INSERT INTO position VALUES (?, ?, ?) ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next",
                (topic, partition, following),
            )
        if "forgotten" in done and isinstance(self.db, sqlite3.Connection):
            # until then the old page stands in the file beside it
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return done

    def say(self, topic: str, key: str, what: str, record: dict[str, Any]) -> None:
        """Puts a record that is to go to a topic beside the effect that it tells of, in the open transaction.

        what: tells it from others of this key, so that what is done again is said once.
        """
        self.db.execute(
            "INSERT INTO outgoing VALUES (?, ?, ?, ?) ON CONFLICT (topic, key, what) DO UPDATE SET value = excluded.value",
            (topic, key, what, orjson.dumps(record).decode()),
        )

    def outgoing(self) -> list[Outgoing]:
        """What Kafka has not been told of yet."""
        rows = self.db.execute("SELECT topic, key, what, value FROM outgoing ORDER BY topic, key, what LIMIT 500").fetchall()
        return [Outgoing(*row) for row in rows]

    def gone(self, records: Sequence[Outgoing]) -> None:
        """Kafka has these. What was said anew meanwhile stays."""
        with self.transaction():
            self.db.executemany("DELETE FROM outgoing WHERE topic = ? AND key = ? AND what = ? AND value = ?", records)

    def apply(self, topic: str, value: bytes) -> str:
        """The effect of one record (topic without the installation's prefix), in the open transaction. Returns its name."""
        raise NotImplementedError

    def forget(self, order_id: str) -> str:
        """Drop what an order's records said of a person, in the open transaction; what was done with it stays."""
        del order_id
        return "forgotten"


def _sqlite(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # transactions are ours to begin: the module's own would end at surprising places
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # a power cut must not undo what Kafka was told is done
    db.execute("PRAGMA synchronous=FULL")
    # what is forgotten is overwritten, not only no longer pointed at
    db.execute("PRAGMA secure_delete=ON")
    return db


class Postgres:
    """A PostgreSQL connection that takes the SQL of a SQLite one. url: postgresql://… Each call may raise NoDatabase."""

    def __init__(self, url: str) -> None:
        with _database_there():
            self._db = psycopg.connect(url, autocommit=True, connect_timeout=10)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        if sql == "BEGIN IMMEDIATE":
            # a second process with the same positions waits here, and then reads what the first has written
            sql = "BEGIN; LOCK TABLE position IN EXCLUSIVE MODE"
        with _database_there():
            return self._db.execute(sql.replace("?", "%s"), values or None)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _database_there(), self._db.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)

    def executescript(self, sql: str) -> None:
        with _database_there():
            self._db.execute(sql)

    def close(self) -> None:
        self._db.close()


@contextmanager
def _database_there() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        said = (str(error).strip().splitlines() or ["?"])[-1]
        raise NoDatabase(
            f"PostgreSQL 无响应，请检查 ORDERSTREAM_DATABASE 与服务（{said}）"
            f" · no PostgreSQL answers, check ORDERSTREAM_DATABASE and the service: {said}"
        ) from None


class Resume(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Starts each partition where the store stands. position: (topic without prefix, partition) -> the next offset to read."""

    def __init__(self, consumer: Any, position: Callable[[str, int], int], prefix: str) -> None:
        self.consumer, self.position, self.prefix = consumer, position, prefix
        self.trouble: Exception | None = None

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        del revoked

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        ends = await self.consumer.end_offsets(assigned)
        for partition in assigned:
            try:
                position = self.position(partition.topic.removeprefix(self.prefix), partition.partition)
            except NoDatabase as error:
                # raised here it would only be logged, and reading would begin where Kafka remembers
                self.trouble = error
                return
            if position > ends[partition]:
                # reading on would take the new topic's first records for repeats
                self.trouble = UserError(
                    f"{partition.topic} 已被重建，本地进度 {position} 超过其末尾：请清空本地库"
                    f" · {partition.topic} was made anew, our position {position} is past its end: clear the local store"
                )
                return
            if position:
                self.consumer.seek(partition, position)


async def consume(
    settings: Settings,
    name: str,
    store: Store,
    wanted: Sequence[str],
    stop: asyncio.Event,
    *,
    metrics: Metrics,
    between: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Read `wanted` topics into the store until `stop` is set. name: the consumer's, also its group's.

    between: called after each batch, and every half second when there is none.
    """
    prefix = settings.topic_prefix
    async with connected(settings, prefix + name) as consumer:
        resume = Resume(consumer, store.position, prefix)
        consumer.subscribe([topics.name(topic, prefix) for topic in wanted], listener=resume)
        ready = False
        while not stop.is_set():
            batches = await consumer.getmany(timeout_ms=500 if ready else 100, max_records=500)
            if resume.trouble is not None:
                raise resume.trouble
            if not ready and consumer.assignment():
                ready = True
                print(f"{name} 就绪 · ready", flush=True)  # noqa: T201  whoever started us waits for this line
            for partition, records in batches.items():
                plain = partition.topic.removeprefix(prefix)
                for effect in store.take(plain, partition.partition, [(r.offset, _said(r)) for r in records]):
                    metrics.applied.labels(name, effect).inc()
                end = consumer.highwater(partition) or 0
                metrics.lag.labels(plain, partition.partition).set(max(0, end - records[-1].offset - 1))
            if batches:
                # for whoever watches the lag: the store knows better, so a refusal (a rebalance, a restart of the broker) is no harm
                with contextlib.suppress(KafkaError):
                    await consumer.commit()
            if between is not None:
                await between()


def _said(record: Any) -> bytes | Tombstone:
    return Tombstone((record.key or b"").decode()) if record.value is None else record.value


async def post(store: Store, producer: Any, prefix: str) -> int:
    """Sends what waits in the store's outbox; how many. While Kafka is away it goes on waiting. Raises NotAdmitted.

    A crash before it is crossed off sends it again: readers know it by its number.
    """
    records = store.outgoing()
    try:
        sends = [await producer.send(topics.name(r.topic, prefix), r.value.encode(), r.key.encode()) for r in records]
        await asyncio.gather(*sends)
    except KafkaError as error:
        denied = access.denied(error)
        if denied is not None:
            raise denied from None
        logging.getLogger(__name__).warning("Kafka did not take %d records, they are sent again: %s", len(records), error)
        return 0
    if records:
        store.gone(records)
    return len(records)


async def begin(client: Any, settings: Settings) -> None:
    """Start a producer or consumer. Raises NoBroker or NotAdmitted, leaving nothing open."""
    try:
        await client.start()
    except KafkaError:
        await client.stop()
        await access.admit(settings, str(settings.brokers))
        raise NoBroker(access.silent(str(settings.brokers))) from None


@asynccontextmanager
async def connected(settings: Settings, group: str) -> AsyncIterator[Any]:
    """A consumer of this group, not subscribed yet. Raises NoBroker, NotAdmitted."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.brokers,
        group_id=group,
        client_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # the broker's own least: after a crash the next start waits this long for its partitions
        session_timeout_ms=6_000,
        heartbeat_interval_ms=2_000,
        **access.client(settings),
    )
    await begin(consumer, settings)
    try:
        yield consumer
    finally:
        await consumer.stop()


def main(work: Callable[[Settings, Metrics, asyncio.Event], Awaitable[None]]) -> int:
    """Run a consumer as a process: settings from the environment, metrics served, SIGTERM and Ctrl-C end it after its batch."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    calm()

    async def run() -> None:
        settings = Settings.load()
        if settings.brokers is None:
            raise NoBroker("请设置 ORDERSTREAM_BROKERS · set ORDERSTREAM_BROKERS to a Kafka's host:port")
        stop = told_to_end()
        metrics = Metrics()
        served = shown(metrics, settings)
        try:
            await work(settings, metrics, stop)
        finally:
            served.close()

    try:
        asyncio.run(run())
    except UserError as error:
        print(error.sentence, file=sys.stderr)  # noqa: T201  the one line that a command fails with
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
