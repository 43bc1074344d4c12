"""The ledger: board.messages, where every deed stands before, while and after it is done.

Law: a row is taken by marking it, with an attempt counted and a time after which its taker is given up; so a process that was
killed leaves a row that another one takes, and one that fails again and again is seen to. `sent` is final. How fast a receiver is
told is counted from the rows themselves: two processes, or one that was started again, keep one pace.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from orderstream.board.store import Db
from orderstream.platforms.limits import backoff

Kind = Literal["action", "notify", "confirm", "lock", "unlock", "challenge"]
State = Literal["waiting", "trying", "sent", "joined", "dropped", "dead"]

LEASE = 90_000
"""ms after which a taken row is anybody's again: longer than any attempt may last."""
TRIES = 10
BASE, LONGEST = 5.0, 900.0
"""Seconds of back-off. Ten attempts are spread over about an hour, and then a person is asked."""
MINUTE = 60_000
_TAKE = 7_051
"""Advisory lock: rows are taken by one process at a time, or two would count one receiver's minute apart."""
TOLD = ("notify", "confirm")
"""The kinds that go to somebody, at a pace and not at night."""


class Row(msgspec.Struct):
    """A row of board.messages, as far as carrying it out needs it. joined: orders of the rows that are said with it."""

    id: str
    action: str
    order_id: str
    seq: int
    kind: Kind
    rule: str | None
    level: str
    receiver: str
    via: str
    body: dict[str, Any]
    attempts: int
    answered: int
    made_at: int
    joined: list[str] = []


class New(msgspec.Struct, frozen=True):
    """A row to add. at: ms from which it is due; dead: it can't be done, and this is why."""

    id: str
    action: str
    order_id: str
    seq: int
    kind: Kind
    rule: str | None
    level: str
    body: dict[str, Any]
    receiver: str = ""
    via: str = ""
    at: int = 0
    dead: str | None = None


_COLUMNS = "id, action, order_id, seq, kind, rule, level, receiver, via, body, attempts, answered, made_at"


def add(db: Db, rows: Iterable[New], now: int) -> int:
    """Adds what is not there yet; how many were new."""
    added = 0
    for row in rows:
        added += db.execute(
            "INSERT INTO board.messages (id, action, order_id, seq, kind, rule, level, receiver, via, body, state, made_at, next_at,"
            " done_at, error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
            (row.id, row.action, row.order_id, row.seq, row.kind, row.rule, row.level, row.receiver, row.via, Jsonb(row.body),
             "dead" if row.dead else "waiting", now, max(now, row.at), now if row.dead else None, row.dead),
        ).rowcount  # fmt: skip
    return added


class Pace(msgspec.Struct, frozen=True):
    """What a receiver may be told: per_minute messages; wait_until: of a level, when it may be told (ms), None for now."""

    per_minute: int
    wait_until: Callable[[str], int | None]


def take(db: Db, now: int, most: int, pace_of: Callable[[Row], Pace | None]) -> list[Row]:
    """Takes up to so many due rows for this process, in the sequence in which they fell due.

    pace_of: of a row that goes to somebody; None for one whose receiver is no longer in the file, which is taken and will fail.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_TAKE,))
        # not only as many as are wanted: one receiver's night or full minute must not hide the others'
        found = db.execute(
            f"SELECT {_COLUMNS} FROM board.messages WHERE state IN ('waiting', 'trying') AND next_at <= %s"  # noqa: S608  names of ours
            " ORDER BY next_at, id LIMIT %s",
            (now, most * 20),
        ).fetchall()
        used: dict[tuple[str, str | None], int] = {}
        taken: list[Row] = []
        gone: set[str] = set()
        for record in found:
            if len(taken) == most:
                break
            row = Row(**record)
            if row.id in gone:
                continue
            if row.kind in TOLD:
                pace = pace_of(row)
                if pace is not None:
                    later = pace.wait_until(row.level)
                    if later is None:
                        later = _full(db, row.receiver, row.body.get("who"), pace.per_minute, used, now)
                    if later is not None:
                        db.execute("UPDATE board.messages SET state = 'waiting', next_at = %s WHERE id = %s", (later, row.id))
                        continue
                if row.kind == "notify":
                    row.joined = _join(db, row, now, gone)
            db.execute(
                "UPDATE board.messages SET state = 'trying', attempts = attempts + 1, tried_at = %s, next_at = %s WHERE id = %s",
                (now, now + LEASE, row.id),
            )
            row.attempts += 1
            taken.append(row)
    return taken


def _full(
    db: Db, receiver: str, who: str | None, per_minute: int, used: dict[tuple[str, str | None], int], now: int
) -> int | None:
    """When the receiver has room again (ms); None where it has some now, which is then taken. who: which of the customers."""
    one = receiver, who
    same = "receiver = %s AND body->>'who' IS NOT DISTINCT FROM %s AND tried_at > %s AND kind = ANY(%s)"
    values = (receiver, who, now - MINUTE, list(TOLD))
    if one not in used:
        counted = db.execute(f"SELECT count(*) AS n FROM board.messages WHERE {same}", values).fetchone()  # noqa: S608  ours
        used[one] = counted["n"] if counted else 0
    if used[one] < per_minute:
        used[one] += 1
        return None
    oldest = db.execute(
        f"SELECT tried_at FROM board.messages WHERE {same} ORDER BY tried_at DESC OFFSET %s LIMIT 1",  # noqa: S608  ours
        (*values, per_minute - 1),
    ).fetchone()
    return (oldest["tried_at"] if oldest else now) + MINUTE


def _join(db: Db, row: Row, now: int, gone: set[str]) -> list[str]:
    """Has the first attempt say what else waits for the same person about the same rule, in one message; those orders."""
    if row.attempts == 0 and row.body.get("joins"):
        moved = db.execute(
            "UPDATE board.messages SET state = 'joined', lead = %s WHERE id IN (SELECT id FROM board.messages WHERE state = 'waiting'"
            " AND receiver = %s AND via = %s AND kind = %s AND rule IS NOT DISTINCT FROM %s AND level = %s AND attempts = 0"
            " AND body->>'joins' = %s AND id <> %s AND next_at <= %s) RETURNING id",
            (row.id, row.receiver, row.via, row.kind, row.rule, row.level, row.body["joins"], row.id, now),
        ).fetchall()
        gone.update(one["id"] for one in moved)
    said = db.execute("SELECT DISTINCT order_id FROM board.messages WHERE lead = %s ORDER BY order_id", (row.id,)).fetchall()
    return [one["order_id"] for one in said if one["order_id"] != row.order_id]


def done(db: Db, row: Row, receipt: str, now: int, follow: Sequence[New] = ()) -> None:
    """It is done, with what follows from it: one transaction. Also where its taker had been given up: what was told is told."""
    with db.transaction():
        add(db, follow, now)
        db.execute(
            "UPDATE board.messages SET state = 'sent', done_at = %s, receipt = %s, error = NULL WHERE id = %s AND state <> 'sent'",
            (now, receipt or None, row.id),
        )
        db.execute("UPDATE board.messages SET done_at = %s WHERE lead = %s", (now, row.id))


def drop(db: Db, row: Row, why: str, now: int) -> None:
    """Nobody wants it any more."""
    db.execute("UPDATE board.messages SET state = 'dropped', done_at = %s, error = %s WHERE id = %s", (now, why, row.id))


def failed(
    db: Db, row: Row, code: str, now: int, chance: random.Random, *, final: bool, answered: bool, after: float | None = None
) -> bool:
    """Notes a failed attempt; whether it was the last one. answered: the gateway said no, so it has not done it."""
    dead = final or row.attempts >= TRIES
    wait = max(after or 0.0, backoff(row.attempts, BASE, LONGEST, chance), 1.0)
    db.execute(
        "UPDATE board.messages SET state = %s, error = %s, answered = answered + %s, next_at = %s, done_at = %s"
        " WHERE id = %s AND state = 'trying'",
        ("dead" if dead else "waiting", code, int(answered), now + int(wait * 1000), now if dead else None, row.id),
    )
    return dead


def postpone(db: Db, row: Row, code: str, at: int) -> None:
    """Tries again at a time (ms), without an attempt counted: what it needs is not there yet."""
    db.execute(
        "UPDATE board.messages SET state = 'waiting', attempts = attempts - 1, error = %s, next_at = %s"
        " WHERE id = %s AND state = 'trying'",
        (code, at, row.id),
    )


def unwanted(db: Db, order_id: str, kind: Kind, why: str, now: int) -> int:
    """Drops what waits of a kind for an order."""
    return db.execute(
        "UPDATE board.messages SET state = 'dropped', done_at = %s, error = %s WHERE order_id = %s AND kind = %s AND state = 'waiting'",
        (now, why, order_id, kind),
    ).rowcount


def retry(db: Db, ids: Sequence[str], now: int, *, everything: bool = False) -> list[str]:
    """Puts dead letters back, from their first attempt on; which ones. ids: their beginnings, or order ids."""
    rows = db.execute(
        "UPDATE board.messages SET state = 'waiting', attempts = 0, next_at = %s, done_at = NULL WHERE state = 'dead' AND"
        " (%s OR EXISTS (SELECT 1 FROM unnest(%s::text[]) AS given WHERE starts_with(id, given) OR order_id = given)) RETURNING id",
        (now, everything, list(ids)),
    ).fetchall()
    return sorted(row["id"] for row in rows)


def position(db: Db, topic: str, partition: int) -> int:
    """The next offset to read; 0 where nothing was."""
    row = db.execute("SELECT next FROM board.actions_read WHERE topic = %s AND partition = %s", (topic, partition)).fetchone()
    return row["next"] if row else 0


def read(db: Db, topic: str, partition: int, rows: Sequence[New], following: int, now: int) -> int:
    """Rows of a batch and its position, together or not at all. A process that was thought dead and wakes up moves nothing back."""
    with db.transaction():
        added = add(db, rows, now)
        db.execute(
            "INSERT INTO board.actions_read VALUES (%s, %s, %s) ON CONFLICT (topic, partition)"
            " DO UPDATE SET next = greatest(board.actions_read.next, excluded.next)",
            (topic, partition, following),
        )
    return added


class Counts(msgspec.Struct, frozen=True):
    """How many rows are in each state that matters; oldest: when (ms) the one that is overdue longest fell due."""

    waiting: int
    dead: int
    oldest: int | None


def counts(db: Db, now: int) -> Counts:
    """For the metrics."""
    row = db.execute(
        "SELECT count(*) FILTER (WHERE state <> 'dead') AS waiting, count(*) FILTER (WHERE state = 'dead') AS dead,"
        " min(next_at) FILTER (WHERE state = 'waiting' AND next_at <= %s) AS oldest"
        " FROM board.messages WHERE state IN ('waiting', 'trying', 'dead')",
        (now,),
    ).fetchone()
    assert row is not None
    return Counts(row["waiting"], row["dead"], row["oldest"])
