"""Cases: which orders are one incident.

Law: cases are the connected parts of what evidence says *now*, each named by the least order id in it; so which orders are one
case, and how it is called, follows from the set of signals and from nothing else. A case grows, merges, and falls apart with them.
Evidence names at most twenty others, the earliest; a burst of thousands is still one case, as each names the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import psycopg
from psycopg.rows import DictRow

Db: TypeAlias = "psycopg.Connection[DictRow]"


def case_id(key: str) -> str:
    """The name of the case whose least order id is `key`."""
    return "c-" + hashlib.sha256(key.encode()).hexdigest()[:12]


def parts(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Node -> the least node of its connected part."""
    least = {node: node for node in nodes}

    def root(node: str) -> str:
        while least[node] != node:
            least[node] = least[least[node]]
            node = least[node]
        return node

    for one, other in edges:
        a, b = root(one), root(other)
        if a != b:
            least[max(a, b)] = min(a, b)
    return {node: root(node) for node in least}


def join(db: Db, said: Mapping[str, frozenset[str]], alone: Collection[str], at: int) -> set[str]:
    """Takes in what these orders' evidence says now; the cases that may have changed. at: ms.

    said: order -> the orders that it names; alone: orders that are to have a case though nothing names them.
    """
    before: dict[str, set[str]] = {}
    for row in db.execute("SELECT order_id, other FROM board.edges WHERE order_id = ANY(%s)", (list(said),)):
        before.setdefault(row["order_id"], set()).add(row["other"])
    added = [(order, other) for order, others in said.items() for other in sorted(others - before.get(order, set()))]
    gone = [(order, other) for order, others in before.items() for other in sorted(others - said[order])]
    with db.cursor() as cursor:
        if added:
            cursor.executemany("INSERT INTO board.edges VALUES (%s, %s) ON CONFLICT DO NOTHING", added)
        if gone:
            cursor.executemany("DELETE FROM board.edges WHERE order_id = %s AND other = %s", gone)
    nodes = {node for edge in (*added, *gone) for node in edge} | set(alone)
    if not nodes:
        return set()
    old = _members(db, "order_id", nodes)
    if not added and not gone and old.keys() >= nodes:
        return set()
    touched = set(old.values())
    if gone:
        # what held a case together may be gone: all of it is looked at again
        old |= _members(db, "case_id", touched)
        nodes |= old.keys()
        found = db.execute("SELECT order_id, other FROM board.edges WHERE order_id = ANY(%s)", (list(nodes),)).fetchall()
        least = parts(nodes, [(row["order_id"], row["other"]) for row in found])
        new = {node: case_id(key) for node, key in least.items()}
        keys = {case_id(key): key for key in least.values()}
    else:
        # cases only grow: the least key of those that meet names the whole
        known = {
            row["case_id"]: row["key"]
            for row in db.execute("SELECT case_id, key FROM board.cases WHERE case_id = ANY(%s)", (list(touched),))
        }
        stands_for = {node: known[old[node]] if node in old else node for node in nodes}
        least = parts({*nodes, *known.values()}, [*added, *((node, key) for node, key in stands_for.items() if node != key)])
        new = {node: case_id(least[node]) for node in nodes}
        keys = {case_id(key): key for key in least.values()}
        for case, key in known.items():
            if case_id(least[key]) != case:
                db.execute("UPDATE board.members SET case_id = %s WHERE case_id = %s", (case_id(least[key]), case))
                db.execute("UPDATE board.orders SET case_id = %s WHERE case_id = %s", (case_id(least[key]), case))
                touched.add(case_id(least[key]))
    moved = [(node, case) for node, case in sorted(new.items()) if old.get(node) != case]
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.members VALUES (%s, %s) ON CONFLICT (order_id) DO UPDATE SET case_id = excluded.case_id", moved
        )
        cursor.executemany("UPDATE board.orders SET case_id = %s WHERE order_id = %s", [(case, node) for node, case in moved])
        cursor.executemany(
            "INSERT INTO board.cases (case_id, key, opened_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [(case, keys[case], at) for case in sorted(set(new.values()))],
        )
    _lead_on(db, touched, keys.keys(), at)
    return touched | set(new.values())


def _lead_on(db: Db, touched: set[str], named: Collection[str], at: int) -> None:
    """Whoever has the page of a case open that is no more is led to the one that its least order is in now."""
    db.execute("DELETE FROM board.merged WHERE case_id = ANY(%s)", (list(named),))
    empty = db.execute(
        "DELETE FROM board.cases c WHERE case_id = ANY(%s)"
        " AND NOT EXISTS (SELECT FROM board.members m WHERE m.case_id = c.case_id) RETURNING case_id, key",
        (list(touched),),
    ).fetchall()
    for row in empty:
        db.execute(
            "INSERT INTO board.merged SELECT %s, case_id, %s FROM board.members WHERE order_id = %s"
            " ON CONFLICT (case_id) DO UPDATE SET into_id = excluded.into_id, at = excluded.at",
            (row["case_id"], at, row["key"]),
        )


def _members(db: Db, column: str, wanted: Collection[str]) -> dict[str, str]:
    found = db.execute(f"SELECT order_id, case_id FROM board.members WHERE {column} = ANY(%s)", (list(wanted),))
    return {row["order_id"]: row["case_id"] for row in found}


_REFRESH = """
WITH mine AS (
    SELECT *, CASE level WHEN 'high' THEN 3 WHEN 'medium' THEN 2 WHEN 'low' THEN 1 ELSE 0 END AS rank
    FROM board.orders WHERE case_id = ANY(%(cases)s)
), waits AS (SELECT * FROM mine WHERE state = 'waiting'),
counted AS (
    SELECT case_id, count(*) AS waiting, max(rank) AS rank, min(received_at) AS opened_at, max(signal_at) AS newest_at,
           min(deadline) AS deadline, count(asked) AS asked,
           array_agg(DISTINCT channel) AS channels, array_agg(DISTINCT channel || ':' || shop) AS shops
    FROM waits GROUP BY case_id
), sums AS (
    SELECT case_id, max(total) AS total, CASE WHEN count(*) = 1 THEN max(currency) END AS currency
    FROM (SELECT case_id, currency, sum(total) AS total FROM waits GROUP BY case_id, currency) s GROUP BY case_id
), ruled AS (
    SELECT case_id, array_agg(DISTINCT rule) AS rules FROM waits CROSS JOIN unnest(fired) AS rule GROUP BY case_id
), titled AS (
    SELECT DISTINCT ON (case_id) case_id, fired[1] AS title
    FROM waits WHERE fired <> '{}' GROUP BY case_id, fired[1] ORDER BY case_id, max(rank) DESC, count(*) DESC, fired[1]
), everything AS (SELECT case_id, count(*) AS orders FROM mine GROUP BY case_id)
UPDATE board.cases c SET
    orders = coalesce(e.orders, 0), waiting = coalesce(n.waiting, 0), rank = coalesce(n.rank, c.rank),
    level = CASE coalesce(n.rank, c.rank) WHEN 3 THEN 'high' WHEN 2 THEN 'medium' WHEN 1 THEN 'low' ELSE 'none' END,
    opened_at = coalesce(n.opened_at, c.opened_at), newest_at = coalesce(n.newest_at, c.newest_at),
    deadline = n.deadline, asked = coalesce(n.asked, 0), total = coalesce(s.total, 0), currency = s.currency,
    title = coalesce(t.title, c.title), rules = coalesce(r.rules, '{}'),
    channels = coalesce(n.channels, '{}'), shops = coalesce(n.shops, '{}')
FROM unnest(%(cases)s::text[]) AS asked_for (case_id)
LEFT JOIN everything e USING (case_id) LEFT JOIN counted n USING (case_id) LEFT JOIN sums s USING (case_id)
LEFT JOIN ruled r USING (case_id) LEFT JOIN titled t USING (case_id)
WHERE c.case_id = asked_for.case_id
"""


def refresh(db: Db, cases: Collection[str]) -> None:
    """Counts anew what waits in these cases, and tells the pages that are open."""
    if not cases:
        return
    chosen = sorted(cases)
    db.execute(_REFRESH, {"cases": chosen})
    # a page that hears of too many asks for all of them
    db.execute("SELECT pg_notify('board', %s)", (",".join(chosen) if len(chosen) <= 50 else "*",))
