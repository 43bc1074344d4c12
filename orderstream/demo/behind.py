"""What comes behind the verdicts: messages, answers, locks, acknowledgements, parcels. Counted where it stands, in PostgreSQL.

Law: it reads what the processes have written and changes nothing, but for the parcels: the demo's packing table scans a dozen, and two
of them are wrong, so that there is a difference to be seen on the wall.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson

from orderstream.board import store
from orderstream.board.store import Db

PARCELS = 12


class Behind(msgspec.Struct, frozen=True):
    """What stands now. told: messages to people, orders: that they are about; asked, answered: customers; otherwise: of these who
    did not say yes, whose orders wait on the wall; dead: dead letters.

    pending: deeds that are due, or will be in moments; stuck: of each of them its kind, state, attempts and last error. acknowledged: releases that the ERP says it has. wrong: parcels on the wall.
    """

    told: int
    orders: int
    asked: int
    answered: int
    otherwise: int
    locks: int
    challenges: int
    meetings: int
    dead: int
    pending: int
    stuck: str
    acknowledged: int
    wrong: int


def count(db: Db) -> Behind:
    """Reads it. Raises NoDatabase."""
    with store.answering():
        row = db.execute(
            """
            SELECT count(*) FILTER (WHERE kind = 'notify' AND state = 'sent') AS told,
                count(DISTINCT order_id) FILTER (WHERE kind = 'notify' AND state IN ('sent', 'joined')) AS orders,
                count(*) FILTER (WHERE kind = 'confirm' AND state = 'sent') AS asked,
                count(*) FILTER (WHERE kind = 'lock' AND state = 'sent') AS locks,
                count(*) FILTER (WHERE kind = 'challenge' AND state = 'sent') AS challenges,
                count(*) FILTER (WHERE state = 'dead') AS dead,
                count(*) FILTER (WHERE state IN ('waiting', 'trying') AND next_at < %(soon)s) AS pending,
                coalesce(string_agg(concat_ws(' ', kind, state, attempts, error), ', ')
                    FILTER (WHERE state IN ('waiting', 'trying') AND next_at < %(soon)s), '') AS stuck,
                (SELECT count(*) FROM board.links WHERE what = 'confirm' AND used_at IS NOT NULL) AS answered,
                (SELECT count(*) FROM board.links JOIN board.orders USING (order_id) WHERE what = 'confirm' AND used_at IS NOT NULL
                    AND links.answer <> 'customer-confirmed' AND state = 'waiting') AS otherwise,
                (SELECT count(*) FROM board.meetings) AS meetings,
                (SELECT count(*) FROM board.acks WHERE system = 'erp' AND effect IN ('accepted', 'changed')) AS acknowledged,
                (SELECT count(*) FROM board.waits WHERE standing AND kind = 'wrong-shipment') AS wrong
            FROM board.messages
            """,
            # a lock's end is hours away, a lease's a minute and a half
            {"soon": store.now() + 1_800_000},
        ).fetchone()
    assert row is not None
    return Behind(**row)


def read(db: Db) -> int:
    """How many records of orders.actions have become deeds."""
    with store.answering():
        row = db.execute("SELECT coalesce(sum(next), 0)::bigint AS n FROM board.actions_read").fetchone()
    assert row is not None
    return int(row["n"])


def scanned(wms: Path, clean: set[str]) -> tuple[list[dict[str, Any]], int]:
    """(records of wms.shipments for some of the picked orders that are in no incident, how many of these orders left wrong).

    wms: the example warehouse's store. One order has another article in its box, one lacks a piece, where an order has several.
    """
    with contextlib.closing(sqlite3.connect(f"file:{wms}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT order_id, verdict_seq, number, skus FROM packing JOIN orders USING (order_id, verdict_seq) JOIN units USING (order_id)"
            " WHERE released AND picked_at IS NOT NULL ORDER BY order_id, number"
        ).fetchall()
    at = time.time_ns() // 1_000_000
    boxes: dict[str, list[dict[str, Any]]] = {}
    for order, seq, number, skus in rows:
        if order in clean:
            box = {"shipment_id": f"P{len(boxes)}.{number}", "order_id": order, "verdict_seq": seq, "at": at, "unit": number}
            boxes.setdefault(order, []).append({**box, "skus": orjson.loads(skus), "complete": True})
    single = [one[0] for one in boxes.values() if len(one) == 1]
    short = next((box for box in single if sum(box["skus"].values()) > 1), None)
    chosen = [box for box in single if box is not short][:PARCELS]
    swapped = chosen[:1]
    for box in swapped:
        other = next((sku for one in chosen for sku in one["skus"] if sku not in box["skus"]), "another")
        box["skus"][other] = box["skus"].pop(min(box["skus"]))
    if short is not None:
        sku = max(short["skus"], key=lambda name: (short["skus"][name], name))
        short["skus"] = {name: count - (name == sku) for name, count in short["skus"].items() if count - (name == sku)}
        chosen.append(short)
    return chosen, len(swapped) + (short is not None)
