"""What people at their desks and other systems tell of orders after the verdict: returned, charged back, complained of, …

Law: a row is said to the stream once, however often it is sent: its id is what it says, unless its sender gives one. What was taken,
its audit row and the outbox are one transaction. A row that is refused is named with why; nobody says what their role may not decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from psycopg import Rollback

from orderstream import outcomes
from orderstream.board import audit
from orderstream.board.decide import MAY, NotAllowedError, Person, say
from orderstream.board.store import Db
from orderstream.feedback.rows import Fault, read_outcomes

TELLS = ("desk", "supervisor", "system")
"""Who may say what came of orders."""
MOST = 500
"""Rows of one request."""
KEPT = 190 * 86_400_000
"""How long an id is known (ms): as long as orders.outcomes is kept."""
NOT_YOURS = "这个店铺不归您 · this shop is not yours"
OTHERWISE = "这个编号以前说的是另一件事 · something else was said under this id before"


class Heard(NamedTuple):
    """What came of rows. taken: ids of what the stream is told now; known: of what it had been told; unknown: orders of either that
    the board has not met; faults: of rows, as the caller counts them, that nothing was done with.
    """

    taken: list[str]
    known: list[str]
    unknown: list[str]
    faults: list[Fault]


def sayable(person: Person) -> frozenset[str]:
    """The outcomes that this person may say: what takes an order back is for those who may cancel."""
    return outcomes.WORLD if person.may(MAY["cancel"]) else outcomes.WORLD - outcomes.ENDS


def hear(db: Db, person: Person, rows: Sequence[Mapping[str, Any]], zone: str, *, at: int, partly: bool = False) -> Heard:
    """Says rows (order_id, at, outcome; id, reason, note) to the stream, in this person's name, numbered from 0.

    Where one of them is at fault nothing is said of any; partly: the others are. zone: of times without an offset. Raises
    NotAllowedError.
    """
    if not person.may(TELLS):
        raise NotAllowedError("role")
    if len(rows) > MOST:
        raise NotAllowedError("details")
    elsewhere = [Fault(n, NOT_YOURS) for n, row in enumerate(rows) if not _sees(person, str(row.get("order_id", "")))]
    apart = {fault.row for fault in elsewhere}
    mine = [(n, _named(person, row)) for n, row in enumerate(rows) if n not in apart]
    read = read_outcomes(mine, zone, by=person.name, allowed=sayable(person))
    said = {record["id"]: hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).digest() for record in read.records}
    new: list[dict[str, Any]] = []
    with db.transaction() as whole:
        db.execute("DELETE FROM board.heard WHERE at < %s", (at - KEPT,))
        # of two requests at once the second waits here for what the first has said
        there = _keep(db, person, read.records, said, at)
        otherwise = [Fault(read.rows[name], OTHERWISE) for name, kept in there.items() if kept != said[name]]
        faults = sorted([*elsewhere, *read.faults, *otherwise])
        if faults and not partly:
            raise Rollback(whole)
        new = [record for record in read.records if record["id"] not in there]
        if new:
            audit.append(db, at, person.name, "heard", {"said": {r["id"]: [r["order_id"], r["outcome"]] for r in new}})
            say(db, new, at)
    if faults and not partly:
        return Heard([], [], [], faults)
    known = [name for name, kept in there.items() if kept == said[name]]
    names = sorted({record["order_id"] for record in read.records})
    met = {row["order_id"] for row in db.execute("SELECT order_id FROM board.orders WHERE order_id = ANY(%s)", (names,))}
    return Heard([r["id"] for r in new], known, [name for name in names if name not in met], faults)


def _named(person: Person, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in this person's own name, its id too: no other's outcome is known by it, and no decision."""
    named = {key: value for key, value in row.items() if key != "by"}
    return {**named, "id": f"{person.name}:{row['id']}"} if row.get("id") else named


def _keep(db: Db, person: Person, records: Sequence[Mapping[str, Any]], said: Mapping[str, bytes], at: int) -> dict[str, bytes]:
    """Keeps what is new; of what was there before: id -> what was said under it."""
    there: dict[str, bytes] = {}
    for record in sorted(records, key=lambda one: str(one["id"])):
        row = db.execute(
            "INSERT INTO board.heard VALUES (%s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING RETURNING id",
            (record["id"], record["order_id"], said[record["id"]], person.name, at),
        ).fetchone()
        if row is None:
            kept = db.execute("SELECT said FROM board.heard WHERE id = %s", (record["id"],)).fetchone()
            assert kept is not None
            there[record["id"]] = bytes(kept["said"])
    return there


def _sees(person: Person, order_id: str) -> bool:
    channel, _, rest = order_id.partition(":")
    return person.sees(channel, rest.partition(":")[0])
