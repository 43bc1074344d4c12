"""Downstream's tables: flows, what they wait for, and what is to be said of it.

Law: a batch of records, the flows that it changes, the waits that follow and the position in Kafka are one transaction. Of two
processes with the same order one waits for the other: flows are locked in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg.types.json import Jsonb

from orderstream.board.store import Db, now
from orderstream.downstream import flow as flows
from orderstream.downstream.flow import Acked, Flow, Item, Parcel, Settled, WaitKind
from orderstream.downstream.read import Told
from orderstream.orders import Refund
from orderstream.rules.model import Limits
from orderstream.times import DAY, text

READER = "downstream"
KEEP_MS = 190 * DAY
"""How long a flow is kept after the last word about it: as long as verdicts and outcomes."""
FRESH_MS = 10_000
"""A reader that has not known for so long that it had read everything may have missed a recall."""
CRITICAL = ("orders.released", "orders.recalled")

_decode = msgspec.json.Decoder(Flow).decode


class Standing(NamedTuple):
    """An order that stands on the wall, and why. since, due: ms; body: what a page shows of it, nothing personal."""

    order_id: str
    kind: WaitKind
    seq: int
    channel: str
    shop: str
    since: int
    due: int
    body: dict[str, Any]


def position(db: Db, reader: str, topic: str, partition: int) -> int:
    """The next offset to read; 0 where nothing was."""
    found = db.execute(
        "SELECT next FROM board.downstream_offsets WHERE reader = %s AND topic = %s AND partition = %s",
        (reader, topic, partition),
    ).fetchone()
    return int(found["next"]) if found else 0


def advance(db: Db, reader: str, topic: str, partition: int, following: int) -> None:
    """Moves the position, in the open transaction."""
    db.execute(
        "INSERT INTO board.downstream_offsets (reader, topic, partition, next) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (reader, topic, partition) DO UPDATE SET next = greatest(downstream_offsets.next, excluded.next)",
        (reader, topic, partition, following),
    )


def seen(db: Db, reader: str, read: Iterable[tuple[str, int]], at: int) -> None:
    """What a reader of these partitions knew at `at`, ms: that it had read all there was."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.downstream_offsets (reader, topic, partition, seen_at) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (reader, topic, partition) DO UPDATE SET seen_at = greatest(downstream_offsets.seen_at, excluded.seen_at)",
            [(reader, topic, partition, at) for topic, partition in read],
        )


def apply(db: Db, told: Sequence[Told], limits_of: Callable[[str], Limits]) -> int:
    """Takes what records say into their orders' flows, in the open transaction; how many orders it was."""
    by_order: dict[str, list[Item]] = {}
    for order_id, item in told:
        by_order.setdefault(order_id, []).append(item)
    ids = sorted(by_order)
    if not ids:
        return 0
    found = _locked(db, ids)
    for order_id, items in by_order.items():
        for item in items:
            flows.take(found[order_id], item)
    at = now()
    with db.cursor() as cursor:
        cursor.executemany(
            "UPDATE board.flows SET flow = %s, at = %s, created_at = %s WHERE order_id = %s",
            [(Jsonb(one, dumps=_dumps), at, one.judged.created_at if one.judged else None, one.order) for one in found.values()],
        )
        _keep_acks(cursor, [found[one] for one in ids if any(isinstance(item, Acked) for item in by_order[one])])
        _keep_parcels(cursor, [found[one] for one in ids if any(isinstance(item, Parcel) for item in by_order[one])])
    _wait(db, [found[one] for one in ids], limits_of)
    return len(ids)


def _locked(db: Db, ids: list[str]) -> dict[str, Flow]:
    db.execute("INSERT INTO board.flows (order_id) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (ids,))
    rows = db.execute(
        "SELECT order_id, flow::text AS flow FROM board.flows WHERE order_id = ANY(%s) ORDER BY order_id FOR UPDATE", (ids,)
    )
    return {row["order_id"]: Flow(row["order_id"]) if row["flow"] is None else _decode(row["flow"]) for row in rows}


def _keep_acks(cursor: Any, changed: Sequence[Flow]) -> None:
    cursor.executemany(
        "INSERT INTO board.acks (order_id, system, seq, effect, at, currency, total, reason)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (order_id, system) DO UPDATE SET seq = excluded.seq,"
        " effect = excluded.effect, at = excluded.at, currency = excluded.currency, total = excluded.total, reason = excluded.reason",
        [
            (one.order, system, ack.seq, ack.effect, ack.at, ack.currency, ack.total, ack.reason)
            for one in changed
            for system, ack in one.acks.items()
        ],
    )


def _keep_parcels(cursor: Any, changed: Sequence[Flow]) -> None:
    cursor.executemany(
        "INSERT INTO board.shipments (order_id, name, shipment_id, seq, at, unit, skus, complete)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (order_id, name) DO UPDATE SET seq = excluded.seq,"
        " at = excluded.at, skus = excluded.skus, complete = excluded.complete",
        [
            (one.order, name, p.shipment_id, p.seq, p.at, p.unit, Jsonb(p.skus), p.complete)
            for one in changed
            for name, p in one.parcels.items()
        ],
    )


def _wait(db: Db, changed: Sequence[Flow], limits_of: Callable[[str], Limits]) -> None:
    """Writes what these flows wait for in place of what they waited for, and says what is wrong with their parcels."""
    waits = [(one, wait) for one in changed for wait in flows.waits(one, limits_of)]
    db.execute(
        "DELETE FROM board.waits w WHERE order_id = ANY(%s) AND NOT EXISTS (SELECT FROM unnest(%s::text[], %s::text[])"
        " AS k (order_id, kind) WHERE k.order_id = w.order_id AND k.kind = w.kind)",
        ([one.order for one in changed], [one.order for one, _ in waits], [wait.kind for _, wait in waits]),
    )
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.waits AS w (order_id, kind, seq, channel, shop, since, due, body)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (order_id, kind) DO UPDATE SET"
            # another verdict, another parcel: it is told anew once it is due
            " standing = w.standing AND w.seq = excluded.seq AND w.body = excluded.body AND w.due >= excluded.due,"
            " seq = excluded.seq, since = excluded.since, due = excluded.due, body = excluded.body",
            [(one.order, wait.kind, wait.seq, *place(one.order), wait.since, wait.due, Jsonb(wait.body)) for one, wait in waits],
        )
        cursor.executemany(
            "INSERT INTO board.downstream_outbox (id, topic, key, value) VALUES (%s, 'orders.outcomes', %s, %s) ON CONFLICT (id) DO NOTHING",
            [(bad.id, one.order, Jsonb(outcome(one.order, bad))) for one in changed if (bad := flows.wrong(one)) is not None],
        )


def outcome(order_id: str, bad: flows.Wrong) -> dict[str, Any]:
    """The record of orders.outcomes about shipments that are not what was released."""
    return {
        "kind": "outcome",
        "at": text(bad.at),
        "order_id": order_id,
        "outcome": "wrong-shipment",
        "by": "downstream",
        "id": bad.id,
        "details": {"shipments": list(bad.shipments), "differences": msgspec.to_builtins(bad.differences)},
    }


def place(order_id: str) -> tuple[str, str]:
    """(channel, shop) of an order id."""
    channel, shop, _ = order_id.split(":", 2)
    return channel, shop


def _dumps(value: Any) -> bytes:
    return msgspec.json.encode(value)


def remind(db: Db, at: int, most: int = 1000) -> list[Standing]:
    """What has come due by `at` (ms) and did not stand yet: it stands now, and is on the orders' time lines."""
    with db.transaction():
        rows = db.execute(
            "UPDATE board.waits w SET standing = true FROM (SELECT order_id, kind FROM board.waits WHERE NOT standing AND due <= %s"
            " ORDER BY due LIMIT %s FOR UPDATE SKIP LOCKED) d WHERE w.order_id = d.order_id AND w.kind = d.kind"
            " RETURNING w.order_id, w.kind, w.seq, w.channel, w.shop, w.since, w.due, w.body",
            (at, most),
        ).fetchall()
        found = [Standing(**row) for row in rows]
        with db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO board.events (order_id, at, kind, by, body, same) VALUES (%s, %s, %s, 'downstream', %s, %s)"
                " ON CONFLICT (order_id, same) DO NOTHING",
                [(one.order_id, at, one.kind, Jsonb(one.body), f"{one.kind}:{one.seq}:{one.due}") for one in found],
            )
    return found


def standing(db: Db, *, shops: Sequence[str] = (), kinds: Sequence[str] = (), limit: int = 1000) -> list[Standing]:
    """What stands on the wall, longest overdue first. shops: `channel:shop`, () for all; kinds: () for all."""
    rows = db.execute(
        "SELECT order_id, kind, seq, channel, shop, since, due, body FROM board.waits WHERE standing"
        " AND (%s::text[] = '{}' OR channel || ':' || shop = ANY(%s)) AND (%s::text[] = '{}' OR kind = ANY(%s))"
        " ORDER BY due, order_id, kind LIMIT %s",
        (list(shops), list(shops), list(kinds), list(kinds), limit),
    )
    return [Standing(**row) for row in rows]


def counts(db: Db) -> dict[str, tuple[int, int]]:
    """Kind -> (how many orders stand on the wall with it, since when the first is overdue, ms)."""
    rows = db.execute("SELECT kind, count(*) AS n, min(due) AS due FROM board.waits WHERE standing GROUP BY kind")
    return {row["kind"]: (int(row["n"]), int(row["due"])) for row in rows}


def settle(db: Db, order_id: str, kind: WaitKind, by: str, why: str, limits_of: Callable[[str], Limits]) -> bool:
    """A person has dealt with it: it leaves the wall until another verdict brings it back. False where it does not stand."""
    with db.transaction():
        found = _locked(db, [order_id])[order_id]
        row = db.execute("SELECT seq FROM board.waits WHERE order_id = %s AND kind = %s", (order_id, kind)).fetchone()
        if row is None:
            return False
        flows.take(found, Settled(kind, int(row["seq"])))
        db.execute("UPDATE board.flows SET flow = %s, at = %s WHERE order_id = %s", (Jsonb(found, dumps=_dumps), now(), order_id))
        _wait(db, [found], limits_of)
        db.execute(
            "INSERT INTO board.events (order_id, at, kind, by, body, same) VALUES (%s, %s, 'settled', %s, %s, %s)"
            " ON CONFLICT (order_id, same) DO NOTHING",
            (order_id, now(), by, Jsonb({"what": kind, "why": why}), f"settled:{kind}:{row['seq']}"),
        )
    return True


def read(db: Db, ids: Sequence[str]) -> dict[str, Flow]:
    """The flows of these orders; those that nothing is known of are left out."""
    rows = db.execute(
        "SELECT order_id, flow::text AS flow FROM board.flows WHERE order_id = ANY(%s) AND flow IS NOT NULL", ([*ids],)
    )
    return {row["order_id"]: _decode(row["flow"]) for row in rows}


def refunds(db: Db, ids: Sequence[str]) -> list[Refund]:
    """What reconciliations have been told that went back of these orders."""
    rows = db.execute("SELECT order_id, refund_id, amount, currency, at FROM board.refunds WHERE order_id = ANY(%s)", ([*ids],))
    return [Refund(**row) for row in rows]


def keep_refunds(db: Db, told: Iterable[Refund]) -> None:
    """Keeps them for later days: raw records go after 30. Of two of one refund the greater sum counts."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.refunds VALUES (%s, %s, %s, %s, %s) ON CONFLICT (order_id, refund_id) DO UPDATE SET"
            " amount = excluded.amount, currency = excluded.currency, at = excluded.at WHERE refunds.amount < excluded.amount",
            [(one.order_id, one.refund_id, one.amount, one.currency, one.at) for one in told],
        )


def of_day(db: Db, since: int, until: int) -> dict[str, Flow]:
    """The flows of orders created in [since, until), ms."""
    rows = db.execute(
        "SELECT order_id, flow::text AS flow FROM board.flows WHERE created_at >= %s AND created_at < %s", (since, until)
    )
    return {row["order_id"]: _decode(row["flow"]) for row in rows}


def fresh(db: Db, at: int, partitions: int) -> bool:
    """Whether each of so many partitions of released and recalled was read to its end within FRESH_MS before `at`, ms."""
    row = db.execute(
        "SELECT count(*) AS n FROM board.downstream_offsets WHERE reader = %s AND topic = ANY(%s) AND partition < %s AND seen_at > %s",
        (READER, [*CRITICAL], partitions, at - FRESH_MS),
    ).fetchone()
    return row is not None and int(row["n"]) == len(CRITICAL) * partitions


def forget_old(db: Db, at: int, most: int = 1000) -> int:
    """Drops flows that nothing was said of for KEEP_MS, and what was said to Kafka long ago; how many flows."""
    with db.transaction():
        rows = db.execute(
            "DELETE FROM board.flows WHERE order_id IN (SELECT order_id FROM board.flows WHERE at < %s AND at > 0 LIMIT %s) RETURNING order_id",
            (at - KEEP_MS, most),
        ).fetchall()
        ids = [row["order_id"] for row in rows]
        for table in ("waits", "acks", "shipments", "refunds"):
            db.execute(f"DELETE FROM board.{table} WHERE order_id = ANY(%s)", (ids,))  # noqa: S608  a table of ours
        db.execute("DELETE FROM board.downstream_outbox WHERE sent_at < %s", (at - KEEP_MS,))
    return len(ids)


def unsent(db: Db, most: int = 200) -> list[dict[str, Any]]:
    """Records that Kafka has not had, oldest first."""
    return db.execute(
        "SELECT n, topic, key, value FROM board.downstream_outbox WHERE sent_at IS NULL ORDER BY n LIMIT %s", (most,)
    ).fetchall()


def sent(db: Db, numbers: Sequence[int], at: int) -> None:
    """Kafka has these."""
    db.execute("UPDATE board.downstream_outbox SET sent_at = %s WHERE n = ANY(%s)", (at, [*numbers]))
