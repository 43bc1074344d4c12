"""The process: orders.actions to rows, rows to deeds, and the pages behind links.

Law: what was read is a row before its offset moves, both in one transaction, and reading resumes where PostgreSQL says. While
PostgreSQL or Kafka is away nothing is read, nothing is lost, and it says so; a gateway that hangs holds up its own message alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
from typing import Any

import uvicorn
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from orderstream import access, topics
from orderstream.actions import ledger, plan, receivers, work
from orderstream.actions.links import create_app
from orderstream.board import store
from orderstream.board.agreed import terms
from orderstream.board.store import Pool, answering
from orderstream.errors import NoDatabase, UserError
from orderstream.metrics import Metrics
from orderstream.process import bound, joined, logs, shown, started, told_to_end
from orderstream.settings import PREFIX, Settings

log = logging.getLogger("orderstream.actions")

AT_ONCE = 8
"""Rows under way."""
LOOK_SECONDS = 0.25
TICK_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""How long what is under way may take when we are told to stop; what it does not finish is taken again."""
AWAY_SECONDS = 1.0
TOPIC = "orders.actions"


def group(settings: Settings) -> str:
    """The consumer group of all of an installation's processes."""
    return settings.topic_prefix + "actions"


class Actions:
    """One process. `run` until told to stop. listener: bound, for the pages."""

    def __init__(self, settings: Settings, address: str, pool: Pool, metrics: Metrics, listener: socket.socket) -> None:
        self._settings, self._address, self._pool, self._metrics = settings, address, pool, metrics
        self._listener = listener
        self._file = receivers.source(settings)
        if self._file is None:
            log.warning("%sACTIONS_FILE is not set: nobody can be told of anything", PREFIX)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=address,
            acks="all",
            enable_idempotence=True,
            client_id="orderstream-actions",
            **access.client(settings),
        )
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=address,
            group_id=group(settings),
            client_id="orderstream-actions",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=2_000,
            **access.client(settings),
        )
        base = receivers.public_url(settings)
        self._shop = work.Shop(settings, base, self._said(), pool, self._producer, metrics)
        self._away = False

    def _said(self) -> receivers.Receivers:
        return receivers.empty() if self._file is None else self._file()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises NoBroker, NotAdmitted."""
        async with (
            contextlib.aclosing(self._shop.http),
            started(self._address, self._producer, self._consumer),
            # only after what it calls upon is there: who sees the page may act
            asyncio.TaskGroup() as tasks,
        ):
            server = tasks.create_task(self._pages(stop))
            tasks.create_task(self._read(stop))
            tasks.create_task(self._do(stop))
            tasks.create_task(self._tick(stop))
            await stop.wait()
            await server

    # -- what comes ----------------------------------------------------------------------------------------------------

    async def _read(self, stop: asyncio.Event) -> None:
        topic = topics.name(TOPIC, self._settings.topic_prefix)
        resume = _Resume(self, topic)
        self._consumer.subscribe([topic], listener=resume)
        ready = False
        while not stop.is_set():
            batches = await self._consumer.getmany(timeout_ms=250, max_records=500)
            if resume.trouble is not None:
                raise resume.trouble
            if not ready and self._consumer.assignment():
                ready = True
                print("动作执行服务就绪 · actions is ready", flush=True)  # noqa: T201  whoever started us waits for this line
            for part, records in batches.items():
                if not await self._keep(part, records, stop):
                    return
                end = self._consumer.highwater(part) or 0
                self._metrics.lag.labels(TOPIC, part.partition).set(max(0, end - records[-1].offset - 1))
            if batches:
                # for whoever watches the lag: PostgreSQL knows better
                with contextlib.suppress(KafkaError):
                    await self._consumer.commit()

    async def _keep(self, part: TopicPartition, records: list[Any], stop: asyncio.Event) -> bool:
        """Makes rows of a batch, however long PostgreSQL is away; False where we were told to stop meanwhile."""
        rows = [_row(record) for record in records if record.value is not None]

        def keep() -> None:
            with answering(), self._pool.connection() as db:
                ledger.read(db, TOPIC, part.partition, rows, records[-1].offset + 1, store.now())

        while not stop.is_set():
            try:
                await asyncio.to_thread(keep)
            except NoDatabase as error:
                self._database(error)
                await _pause(stop, AWAY_SECONDS)
            else:
                self._database(None)
                return True
        return False

    async def position(self, partition: int) -> int:
        """Where reading resumes. Raises NoDatabase."""

        def ask() -> int:
            with answering(), self._pool.connection() as db:
                return ledger.position(db, TOPIC, partition)

        return await asyncio.to_thread(ask)

    # -- what is done --------------------------------------------------------------------------------------------------

    async def _do(self, stop: asyncio.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            free = AT_ONCE - len(under_way)
            rows = await self._take(free) if free else []
            for row in rows:
                task = asyncio.create_task(self._one(row))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if len(rows) < free:
                await _pause(stop, LOOK_SECONDS)
            elif under_way:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED, timeout=LOOK_SECONDS)
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=GRACE_SECONDS)
            for task in late:
                task.cancel()

    async def _take(self, most: int) -> list[ledger.Row]:
        # by the file as it is now: a letter put back after the file was mended must not meet the old one
        self._shop.file = self._said()
        now = store.now()

        def take() -> list[ledger.Row]:
            with answering(), self._pool.connection() as db:
                return ledger.take(db, now, most, self._shop.pace(now))

        try:
            rows = await asyncio.to_thread(take)
        except NoDatabase as error:
            self._database(error)
            await asyncio.sleep(AWAY_SECONDS)
            return []
        self._database(None)
        return rows

    async def _one(self, row: ledger.Row) -> None:
        try:
            await work.carry_out(self._shop, row)
        except NoDatabase as error:
            # its lease ends, and it is done again
            self._database(error)

    async def _tick(self, stop: asyncio.Event) -> None:
        """What is looked at every second: what people decided on the board, the numbers."""
        while not stop.is_set():
            try:
                counted = await asyncio.to_thread(self._look)
            except NoDatabase as error:
                self._database(error)
            else:
                self._metrics.messages.labels("waiting").set(counted.waiting)
                self._metrics.messages.labels("dead").set(counted.dead)
                late = 0 if counted.oldest is None else max(0, store.now() - counted.oldest)
                self._metrics.overdue.set(late / 1000)
            await _pause(stop, TICK_SECONDS)

    def _look(self) -> ledger.Counts:
        with answering(), self._pool.connection() as db:
            work.adopt(db, store.now())
            return ledger.counts(db, store.now())

    def _database(self, error: NoDatabase | None) -> None:
        """Says once that PostgreSQL is away, and once that it is back."""
        if (error is not None) != self._away:
            self._away = error is not None
            log.warning("%s", error.sentence if error is not None else "PostgreSQL 恢复 · PostgreSQL is back")
        self._metrics.actions_database.set(error is None)

    # -- pages ---------------------------------------------------------------------------------------------------------

    async def _pages(self, stop: asyncio.Event) -> None:
        app = create_app(self._settings, self._pool, lambda: self._shop.file, self._metrics, terms(self._settings))
        server = uvicorn.Server(
            uvicorn.Config(app, ws="none", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=5)
        )
        # signals are ours to hear
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        await stop.wait()
        server.should_exit = True
        await serving


class _Resume(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Starts each partition where the ledger stands."""

    def __init__(self, process: Actions, topic: str) -> None:
        self._process, self._topic = process, topic
        self.trouble: UserError | None = None

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        del revoked

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        consumer = self._process._consumer  # noqa: SLF001  of this module
        ends = await consumer.end_offsets(assigned)
        for part in assigned:
            try:
                position = await self._process.position(part.partition)
            except NoDatabase as error:
                self.trouble = error
                return
            if position > ends[part]:
                self.trouble = UserError(
                    f"{part.topic} 已被重建，账本的进度 {position} 超过其末尾：请清空 board.actions_read"
                    f" · {part.topic} was made anew, the ledger's position {position} is past its end: empty board.actions_read"
                )
                return
            consumer.seek(part, position)


def _row(record: Any) -> ledger.New:
    """The row of a record; one that is none of ours is a dead letter, where people see it."""
    try:
        return plan.read(record.value)
    except ValueError:
        name = hashlib.sha256(f"{record.topic}|{record.partition}|{record.offset}".encode()).hexdigest()[:32]
        order = (record.key or b"").decode(errors="replace")
        return ledger.New(name, name, order, 0, "action", None, "none", {"do": "", "offset": record.offset}, dead="bad-record")


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def run(settings: Settings) -> int:
    """Runs the process until SIGTERM or Ctrl-C; its exit code. Raises UserError."""
    # httpx writes whole addresses, and a robot's address is its secret
    logs(settings, "aiokafka", "httpx", "httpcore", "apprise", "urllib3", "requests")
    place = store.url(settings)
    store.migrate(place)
    settings = joined(settings)
    metrics = Metrics()
    with bound(settings.links_host, settings.links_port) as listener:
        listener.listen()
        host, port = listener.getsockname()[:2]
        print(f"确认页面 · pages: http://{host}:{port}", flush=True)  # noqa: T201  whoever tests us reads the port
        served = shown(metrics, settings)
        pool = store.pool(place, AT_ONCE + 8)

        async def until_told() -> None:
            await Actions(settings, str(settings.brokers), pool, metrics, listener).run(told_to_end())

        try:
            asyncio.run(until_told())
        except* UserError as several:
            raise several.exceptions[0] from None
        finally:
            pool.close()
            served.close()
    return 0
