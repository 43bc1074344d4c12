"""Board → stream: what was decided, said on orders.outcomes.

Law: rows are sent in the order in which they were written, and marked when the broker has them; a crash between the two sends them
once more, with the same id, which [route] applies once. While Kafka is away they wait here, and decisions go on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from orderstream import access, topics
from orderstream.board import store
from orderstream.board.consume import pause
from orderstream.board.metrics import BoardMetrics
from orderstream.board.store import Db
from orderstream.errors import NoDatabase
from orderstream.settings import Settings

log = logging.getLogger("orderstream.board.outbox")

AT_ONCE = 500

_SEND = 7_014
"""Advisory lock: one process sends; another one waits for it to end."""


def unsent(db: Db) -> list[dict[str, Any]]:
    """The next rows to send: id, topic, key, value, made_at."""
    return db.execute(
        "SELECT id, topic, key, value, made_at FROM board.outbox WHERE sent_at IS NULL ORDER BY id LIMIT %s", (AT_ONCE,)
    ).fetchall()


def sent(db: Db, rows: list[dict[str, Any]], at: int) -> None:
    """Marks rows that the broker has. at: ms."""
    db.execute("UPDATE board.outbox SET sent_at = %s WHERE id = ANY(%s)", (at, [row["id"] for row in rows]))


async def run(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics) -> None:
    """Sends until `stop` is set. Waits for PostgreSQL and Kafka where they are away. place: PostgreSQL's URL."""
    while not stop.is_set():
        try:
            await _send(settings, place, stop, metrics)
        except (NoDatabase, KafkaError) as error:
            log.warning(
                "decisions wait in the outbox: %s", error.sentence if isinstance(error, NoDatabase) else type(error).__name__
            )
            await pause(stop, 1)


async def _send(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics) -> None:
    db = await asyncio.to_thread(store.connect, place)
    try:
        with store.answering():
            # held by the connection: it is free again as soon as this process is gone
            while not _first(db):
                if stop.is_set():
                    return
                await pause(stop, 1)
            db.execute("LISTEN board_outbox")
            producer = AIOKafkaProducer(
                bootstrap_servers=settings.brokers,
                acks="all",
                enable_idempotence=True,
                **access.client(settings),
            )
            try:
                await producer.start()
                while not stop.is_set():
                    if not await once(settings, db, producer, metrics):
                        await asyncio.to_thread(_listen, db, 0.5)
            finally:
                await producer.stop()
    finally:
        db.close()


def _first(db: Db) -> bool:
    row = db.execute("SELECT pg_try_advisory_lock(%s) AS mine", (_SEND,)).fetchone()
    return row is not None and bool(row["mine"])


def _listen(db: Db, seconds: float) -> None:
    for _ in db.notifies(timeout=seconds, stop_after=1):
        pass


async def once(settings: Settings, db: Db, producer: Any, metrics: BoardMetrics) -> int:
    """Sends what waits, and marks it; how many."""
    rows = await asyncio.to_thread(unsent, db)
    metrics.unsent.set(len(rows))
    if rows:
        futures = [
            await producer.send(
                topics.name(row["topic"], settings.topic_prefix), orjson.dumps(row["value"]), key=row["key"].encode()
            )
            for row in rows
        ]
        await asyncio.gather(*futures)
        await asyncio.to_thread(sent, db, rows, store.now())
        for row in rows:
            metrics.sent.labels(row["value"]["outcome"]).inc()
        metrics.unsent.set(0)
    return len(rows)
