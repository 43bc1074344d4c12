"""Rejects on the board: looked at, and put back after the fix, as `orderstream rejected` does it.

Law: what was asked is a row before anything is done, and putting back may be done again: twice is once. So a process that was killed
leaves a row that another one finishes. Which rejects are meant is settled when it is asked for.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from psycopg.types.json import Jsonb

from orderstream import access, kafka, rejected
from orderstream.board import audit, store
from orderstream.board.decide import NotAllowedError, Person
from orderstream.board.store import Db
from orderstream.errors import NoBroker, UserError
from orderstream.kafka import Outgoing
from orderstream.rejected import Reject, Wanted
from orderstream.settings import Settings

log = logging.getLogger("orderstream.board.rejects")

MAY = ("supervisor", "admin")
"""Who may have rejects put back."""
AT_ONCE = 5000
"""Rejects of one go; whoever asks for more asks again."""


def ask(
    db: Db, person: Person, *, ids: Sequence[str] | None, channel: str | None = None, code: str | None = None, at: int
) -> tuple[uuid.UUID, int]:
    """Asks that rejects are put back: these, or (ids None) all of a channel and a code that were not yet, the oldest first.

    The board's process does it within seconds; its name, and how many. Raises NotAllowedError: role, gone (there is none of them).
    """
    if not person.may(MAY):
        raise NotAllowedError("role")
    with db.transaction():
        found = db.execute(
            "SELECT id, received_at FROM board.rejects WHERE (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s))"
            " AND (%(ids)s::text[] IS NOT NULL OR replayed_at IS NULL)"
            " AND (%(channel)s::text IS NULL OR channel = %(channel)s) AND (%(code)s::text IS NULL OR code = %(code)s)"
            " AND (%(all)s OR channel || ':' || shop = ANY(%(shops)s)) ORDER BY received_at, id LIMIT %(most)s",
            {
                "ids": None if ids is None else list(ids), "channel": channel, "code": code, "all": not person.shops,
                "shops": list(person.shops), "most": AT_ONCE,
            },
        ).fetchall()  # fmt: skip
        if not found:
            raise NotAllowedError("gone")
        name = uuid.uuid4()
        chosen = [row["id"] for row in found]
        body = {"id": str(name), "rejects": chosen if ids is not None else len(chosen), "channel": channel, "code": code}
        audit.append(db, at, person.name, "replay", {key: value for key, value in body.items() if value is not None})
        db.execute(
            "INSERT INTO board.replays (id, rejects, since, by, asked_at) VALUES (%s, %s, %s, %s, %s)",
            (name, chosen, found[0]["received_at"], person.name, at),
        )
    return name, len(chosen)


def outcome(db: Db, name: uuid.UUID) -> dict[str, Any] | None:
    """What became of it: by, asked_at, done_at (ms, None while under way), counts, error."""
    return db.execute(f"SELECT {_TOLD} FROM board.replays WHERE id = %s", (name,)).fetchone()


def asked(db: Db, limit: int = 10) -> list[dict[str, Any]]:
    """The last that were asked for, the newest first, each as `outcome` tells it."""
    return db.execute(f"SELECT {_TOLD} FROM board.replays ORDER BY asked_at DESC, id LIMIT %s", (limit,)).fetchall()


_TOLD = "id, cardinality(rejects) AS rejects, by, asked_at, done_at, counts, error"


def carry_out(db: Db, settings: Settings, brokers: str, now: int) -> int:
    """Does what was asked for; how many are done with. Raises NoBroker. now: ms."""
    found = db.execute("SELECT id, rejects, since FROM board.replays WHERE done_at IS NULL ORDER BY asked_at, id").fetchall()
    for row in found:
        try:
            counts = _put_back(db, settings, brokers, set(row["rejects"]), row["since"], now)
        except NoBroker:
            raise
        except UserError as error:
            log.warning("rejects were not put back: %s", error.sentence)
            db.execute("UPDATE board.replays SET done_at = %s, error = %s WHERE id = %s", (now, error.sentence, row["id"]))
        else:
            db.execute("UPDATE board.replays SET done_at = %s, counts = %s WHERE id = %s", (now, Jsonb(counts), row["id"]))
    return len(found)


def _put_back(db: Db, settings: Settings, brokers: str, chosen: set[str], since: int, now: int) -> Counter[str]:
    """What became of how many, as `rejected.Plan` counts; `lost`: the topic has them no more."""
    remembered, left = rejected.remembered(settings, brokers), set(chosen)
    counts: Counter[str] = Counter()
    batch: list[Outgoing] = []
    back: list[str] = []

    def send() -> None:
        # first the mark: one that is rejected again at once takes it away (consume)
        db.execute("UPDATE board.rejects SET replayed_at = %s WHERE id = ANY(%s)", (now, back))
        kafka.send_all(brokers, batch, access.client(settings))
        batch.clear()
        back.clear()

    with closing(_those(settings, brokers, left, since)) as those:
        for reject in those:
            plan = rejected.replay([reject], settings.topic_prefix, remembered, now, batch.extend)
            counts += plan.counts
            if plan.orders:
                back.append(reject.id)
            if len(batch) >= rejected.AT_ONCE:
                send()
    if batch:
        send()
    if left:
        counts["lost"] = len(left)
    return counts


def _those(settings: Settings, brokers: str, left: set[str], since: int) -> Generator[Reject, None, None]:
    """The rejects with these ids; what is left of `left` at the end was not there."""
    with closing(rejected.read(settings, brokers, Wanted(since=since))) as found:
        for reject in found:
            if reject.id in left:
                left.discard(reject.id)
                yield reject
            if not left:
                break


def one(settings: Settings, brokers: str, row: store.Reject) -> Reject | None:
    """A reject with its bytes; None where the topic has it no more. Raises NoBroker, TopicsUnfit."""
    # it was rejected soon after it was received: reading ends there
    with closing(_those(settings, brokers, {row.id}, row.received_at)) as found:
        return next(found, None)


def of(db: Db, name: str) -> store.Reject | None:
    """A reject by its id, without its bytes."""
    columns = ", ".join(store.Reject.__struct_fields__)
    row = db.execute(f"SELECT {columns} FROM board.rejects WHERE id = %s", (name,)).fetchone()
    return None if row is None else store.Reject(**row)
