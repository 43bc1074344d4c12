"""Retention: what the board drops by itself, so that it neither grows for ever nor keeps a person's data longer than it is needed.

Law: an order that somebody may still have to decide keeps all that is known of it. Of one that is over its contents go, and what
figures are made of stays: a year is compared with the year before.
"""

from __future__ import annotations

from orderstream.board.fold import OPEN
from orderstream.board.store import Db
from orderstream.times import DAY

KEPT = 190 * DAY
"""ms that what was told and sent stays: as long as the stream's own record of it."""


def drop_old(db: Db, contents: int, now: int, most: int = 1_000) -> dict[str, int]:
    """Drops up to so many of each kind; how many. contents: ms after which an order that is over loses its own; now: ms."""
    old = (
        "SELECT order_id FROM board.orders WHERE document IS NOT NULL AND received_at < %s AND NOT state = ANY(%s)"
        " ORDER BY received_at LIMIT %s FOR UPDATE SKIP LOCKED"  # what is being written just now is looked at the next time
    )
    with db.transaction():
        emptied = [row["order_id"] for row in db.execute(old, (now - contents, sorted(OPEN), most))]
        forget(db, emptied)
        dropped = {"contents": len(emptied)}
        for table, over in (
            ("messages", "made_at < %s AND state NOT IN ('waiting', 'trying')"),
            ("links", "expires_at < %s"),
            ("outbox", "sent_at < %s"),
        ):
            gone = f"DELETE FROM board.{table} WHERE id IN (SELECT id FROM board.{table} WHERE {over} LIMIT %s)"
            dropped[table] = db.execute(gone, (now - KEPT, most)).rowcount
    return dropped


def forget(db: Db, order_ids: list[str]) -> None:
    """Drops what stands here of a person; what was decided stays."""
    if order_ids:
        db.execute("UPDATE board.orders SET document = NULL, buyer = NULL WHERE order_id = ANY(%s)", (order_ids,))
        db.execute("UPDATE board.unmapped SET title = NULL WHERE order_id = ANY(%s)", (order_ids,))
