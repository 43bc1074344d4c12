"""Queries of the pages alone: what `store` does not answer, because nobody else asks.

Law: nothing here decides anything; the one thing that is written is that somebody looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from orderstream.board import audit
from orderstream.board.decide import UNDO
from orderstream.board.store import Card, Db


def undoable(db: Db, login: str, now: int) -> dict[str, Any] | None:
    """The last thing that somebody decided in one go, while it may be taken back: bulk, decision, orders, until (ms)."""
    return db.execute(
        "SELECT bulk, min(decision) AS decision, count(*) AS orders, min(at) + %(undo)s AS until, bool_or(state = 'asked') AS asked"
        " FROM board.decisions WHERE by = %(by)s AND at > %(since)s AND state IN ('standing', 'asked')"
        " GROUP BY bulk ORDER BY max(at) DESC LIMIT 1",
        {"by": login, "since": now - UNDO, "undo": UNDO},
    ).fetchone()


def keys(db: Db, cards: Sequence[Card]) -> dict[str, str]:
    """The order id that stands for each case: the least of its own."""
    found = db.execute("SELECT case_id, key FROM board.cases WHERE case_id = ANY(%s)", ([card.case_id for card in cards],))
    return {row["case_id"]: row["key"] for row in found}


def signals_of(db: Db, case_id: str) -> list[dict[str, Any]]:
    """What fired in a case: rule, in how many orders, and the evidence of one of them; the most frequent first."""
    return db.execute(
        "SELECT s->>'rule' AS rule, min(s->>'level') AS level, count(*) AS orders,"
        " (array_agg(s->'evidence' ORDER BY o.received_at DESC))[1] AS evidence, (array_agg(o.pack ORDER BY o.received_at DESC))[1] AS pack"
        " FROM board.orders o CROSS JOIN jsonb_array_elements(o.signals) AS s WHERE o.case_id = %s GROUP BY 1 ORDER BY 3 DESC, 1",
        (case_id,),
    ).fetchall()


def places(db: Db, order_ids: Sequence[str]) -> list[tuple[float, float]]:
    """Where orders went: (lat, lon) to a tenth of a degree, each once."""
    found = db.execute(
        "SELECT DISTINCT round((document->'ship_to'->>'lat')::numeric, 1)::float AS lat,"
        " round((document->'ship_to'->>'lon')::numeric, 1)::float AS lon FROM board.orders"
        " WHERE order_id = ANY(%s) AND document->'ship_to'->>'lat' IS NOT NULL AND document->'ship_to'->>'lon' IS NOT NULL",
        (list(order_ids),),
    )
    return [(row["lat"], row["lon"]) for row in found]


def unmasked(db: Db, login: str, order_id: str, now: int) -> None:
    """Writes down that somebody saw a customer's data in full."""
    with db.transaction():
        number = audit.append(db, now, login, "unmask", {"order": order_id})
        db.execute(
            "INSERT INTO board.events (order_id, at, kind, by, body, same) VALUES (%s, %s, 'unmask', %s, %s, %s)",
            (order_id, now, login, Jsonb({"audit": number}), f"unmask:{number}"),
        )


def audited(db: Db, *, by: str, what: str, before: int | None, limit: int) -> list[dict[str, Any]]:
    """Rows of the audit, the newest first. before: a row's number."""
    return db.execute(
        "SELECT n, at, by, what, body FROM board.audit WHERE (%(before)s::bigint IS NULL OR n < %(before)s)"
        " AND (%(by)s = '' OR by = %(by)s) AND (%(what)s = '' OR what = %(what)s) ORDER BY n DESC LIMIT %(limit)s",
        {"by": by, "what": what, "before": before, "limit": limit},
    ).fetchall()


def standing(db: Db, may: Sequence[str], limit: int, offset: int) -> list[dict[str, Any]]:
    """Released orders that wait too long for ERP or warehouse, the longest overdue first."""
    return db.execute(
        "SELECT order_id, kind, channel, shop, since, due, body FROM board.waits"
        " WHERE standing AND (%s OR channel || ':' || shop = ANY(%s)) ORDER BY due, order_id, kind LIMIT %s OFFSET %s",
        (not may, list(may), limit, offset),
    ).fetchall()


def stands(db: Db, may: Sequence[str]) -> int:
    """How many orders stand so."""
    row = db.execute(
        "SELECT count(DISTINCT order_id) AS n FROM board.waits WHERE standing AND (%s OR channel || ':' || shop = ANY(%s))",
        (not may, list(may)),
    ).fetchone()
    return 0 if row is None else int(row["n"])


def reconciled(db: Db, may: Sequence[str], days: int = 7) -> list[dict[str, Any]]:
    """The last days that were reconciled: day, channel, shop, currency, figures, differences."""
    return db.execute(
        "SELECT day, channel, shop, currency, made_at, figures, differences FROM board.reconciliations"
        " WHERE day > (SELECT max(day) FROM board.reconciliations) - %s AND (%s OR channel || ':' || shop = ANY(%s))"
        " ORDER BY day DESC, channel, shop, currency",
        (days, not may, list(may)),
    ).fetchall()


def table_is_there(db: Db, name: str) -> bool:
    """Whether a part of the installation has made its table."""
    row = db.execute("SELECT to_regclass(%s) IS NOT NULL AS there", (name,)).fetchone()
    return row is not None and bool(row["there"])


def buyers(db: Db, may: Sequence[str], now: int, days: int = 30, limit: int = 50) -> list[dict[str, Any]]:
    """The buyers with the most findings in the last days: channel, how much they ordered and what became of it, their newest order."""
    return db.execute(
        f"SELECT {_PROFILE}, (array_agg(order_id ORDER BY created_at DESC))[1] AS newest FROM board.orders"
        " WHERE buyer IS NOT NULL AND received_at > %s AND (%s OR channel || ':' || shop = ANY(%s))"
        " GROUP BY buyer HAVING sum(cardinality(fired)) > 0 ORDER BY sum(score) DESC, buyer LIMIT %s",
        (now - days * 86_400_000, not may, list(may), limit),
    ).fetchall()


def profile(db: Db, buyer: str) -> dict[str, Any] | None:
    """What is known of one buyer, of all that the board has."""
    return db.execute(f"SELECT {_PROFILE} FROM board.orders WHERE buyer = %s GROUP BY buyer", (buyer,)).fetchone()


_PROFILE = (
    "min(channel) AS channel, count(*) AS orders, sum(score)::bigint AS score, min(currency) AS currency, sum(total)::bigint AS total,"
    " count(*) FILTER (WHERE cardinality(fired) > 0) AS marked, count(*) FILTER (WHERE held) AS held,"
    " count(*) FILTER (WHERE out = 'released') AS released, count(*) FILTER (WHERE status IN ('cancelled', 'refunded')) AS withdrawn,"
    " min(created_at) AS since, max(created_at) AS last"
)
