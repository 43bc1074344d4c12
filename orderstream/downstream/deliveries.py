"""The table of what is on its way to an ERP without Kafka.

Law: of one order one record is under way at a time, in the sequence of its numbers; what a later one has overtaken is not sent any
more. A record is delivered when the ERP has said so; its bytes, which say who somebody is, go at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg.types.json import Jsonb

from orderstream.board.store import Db, now
from orderstream.downstream import store

READER = "deliver"
READS = ("orders.released", "orders.recalled")


class Delivery(NamedTuple):
    """One record under way. body: its bytes as on the topic; attempts: those before this one; made_at: ms."""

    order_id: str
    seq: int
    topic: str
    body: bytes
    attempts: int
    made_at: int

    @property
    def key(self) -> str:
        """By which the ERP does it once."""
        return f"{self.order_id}/{self.seq}"


class Dead(NamedTuple):
    """A record that waits for a person. made_at: ms; error: the ERP's last word."""

    order_id: str
    seq: int
    topic: str
    attempts: int
    made_at: int
    error: str


class Counts(NamedTuple):
    """How many wait, since when the first does (ms, None: none), and how many are dead."""

    waiting: int
    oldest: int | None
    dead: int


class _Number(msgspec.Struct):
    order_id: str
    verdict_seq: int


_number = msgspec.json.Decoder(_Number).decode


def take(db: Db, topic: str, partition: int, records: Sequence[tuple[int, int, bytes | None, bytes | None]]) -> None:
    """(offset, Kafka's ms, key, value) of one partition, in one transaction with the position. Raises ValueError."""
    with db.transaction():
        following = store.position(db, READER, topic, partition)
        for offset, at, key, value in records:
            if offset < following:
                continue
            if value is None:
                db.execute(
                    "UPDATE board.deliveries SET state = 'forgotten', body = NULL WHERE order_id = %s AND state IN ('waiting', 'dead')",
                    ((key or b"").decode(),),
                )
                continue
            try:
                told = _number(value)
            except ValueError as error:
                raise ValueError(f"{topic}[{partition}]@{offset} is not of its schema: {error}") from error
            db.execute(
                "INSERT INTO board.deliveries (order_id, seq, topic, body, state, made_at, next_at)"
                " SELECT %(order)s, %(seq)s, %(topic)s, CASE WHEN late THEN NULL ELSE %(body)s::bytea END,"
                " CASE WHEN late THEN 'overtaken' ELSE 'waiting' END, %(at)s, %(now)s FROM (SELECT EXISTS (SELECT FROM board.deliveries"
                " WHERE order_id = %(order)s AND seq > %(seq)s AND state = 'delivered') AS late) AS known ON CONFLICT DO NOTHING",
                {"order": told.order_id, "seq": told.verdict_seq, "topic": topic, "body": value, "at": at, "now": now()},
            )
        store.advance(db, READER, topic, partition, max(following, records[-1][0] + 1))


def claim(db: Db, at: int, most: int, lease: int) -> list[Delivery]:
    """Up to `most` deliveries that are due at `at`, ours for `lease` ms: whoever dies with one leaves it to be tried again."""
    rows = db.execute(
        "UPDATE board.deliveries d SET next_at = %(until)s FROM (SELECT order_id, seq FROM board.deliveries w"
        " WHERE state = 'waiting' AND next_at <= %(at)s AND NOT EXISTS (SELECT FROM board.deliveries e"
        " WHERE e.order_id = w.order_id AND e.state = 'waiting' AND e.seq < w.seq) ORDER BY next_at LIMIT %(most)s"
        " FOR UPDATE SKIP LOCKED) c WHERE d.order_id = c.order_id AND d.seq = c.seq AND d.state = 'waiting'"
        " RETURNING d.order_id, d.seq, d.topic, d.body, d.attempts, d.made_at",
        {"at": at, "until": at + lease, "most": most},
    ).fetchall()
    return [Delivery(**{**row, "body": bytes(row["body"])}) for row in rows]


def delivered(db: Db, one: Delivery, ack: dict[str, Any]) -> None:
    """The ERP has it. ack: its word, for erp.acks; what this overtakes is not sent any more."""
    with db.transaction():
        db.execute(
            "UPDATE board.deliveries SET state = 'delivered', body = NULL, error = NULL, attempts = attempts + 1, done_at = %s"
            " WHERE order_id = %s AND seq = %s",
            (now(), one.order_id, one.seq),
        )
        db.execute(
            "UPDATE board.deliveries SET state = 'overtaken', body = NULL WHERE order_id = %s AND seq < %s AND state IN ('waiting', 'dead')",
            (one.order_id, one.seq),
        )
        db.execute(
            "INSERT INTO board.downstream_outbox (id, topic, key, value) VALUES (%s, 'erp.acks', %s, %s) ON CONFLICT (id) DO NOTHING",
            (f"ack:{one.key}", one.order_id, Jsonb(ack)),
        )


def failed(db: Db, one: Delivery, error: str, next_at: int | None) -> None:
    """It is tried again at next_at, ms; None: it is dead, and waits for a person."""
    db.execute(
        "UPDATE board.deliveries SET attempts = attempts + 1, error = %s, next_at = coalesce(%s, next_at),"
        " state = CASE WHEN %s::bigint IS NULL THEN 'dead' ELSE state END WHERE order_id = %s AND seq = %s AND state = 'waiting'",
        (error[:500], next_at, next_at, one.order_id, one.seq),
    )


def counts(db: Db) -> Counts:
    """What waits and what is dead."""
    row = db.execute(
        "SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, min(made_at) FILTER (WHERE state = 'waiting') AS oldest,"
        " count(*) FILTER (WHERE state = 'dead') AS dead FROM board.deliveries WHERE state IN ('waiting', 'dead')"
    ).fetchone()
    assert row is not None
    return Counts(row["waiting"], row["oldest"], row["dead"])


def dead(db: Db, limit: int = 100) -> list[Dead]:
    """The dead letters, oldest first."""
    rows = db.execute(
        "SELECT order_id, seq, topic, attempts, made_at, coalesce(error, '') AS error FROM board.deliveries WHERE state = 'dead'"
        " ORDER BY made_at, order_id LIMIT %s",
        (limit,),
    )
    return [Dead(**row) for row in rows]


def retry(db: Db, order_ids: Sequence[str] | None) -> int:
    """Dead letters of these orders are tried anew, None: all of them; how many."""
    done = db.execute(
        "UPDATE board.deliveries SET state = 'waiting', attempts = 0, next_at = %s WHERE state = 'dead'"
        " AND (%s::text[] IS NULL OR order_id = ANY(%s))",
        (now(), order_ids, order_ids),
    )
    return done.rowcount


def forget_old(db: Db, at: int) -> None:
    """Drops what was settled over KEEP_MS ago."""
    db.execute("DELETE FROM board.deliveries WHERE made_at < %s AND state <> 'waiting'", (at - store.KEEP_MS,))
