"""The audit: who did what, in rows that name the row before by its hash.

Law: rows are only added, in the transaction of what they are about. A row that was changed, taken out or put in is found by
`verify`; rows cut from the end by the head beside them, and, where somebody mended that too, by an earlier export.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

Db: TypeAlias = "psycopg.Connection[DictRow]"

_CHAIN = 7_012
"""Advisory lock: one row after the other."""


def append(db: Db, at: int, by: str, what: str, body: dict[str, Any]) -> int:
    """Adds a row in the open transaction; its number. body: ids and words, nothing personal, no fractions."""
    db.execute("SELECT pg_advisory_xact_lock(%s)", (_CHAIN,))
    head = db.execute("SELECT n, hash FROM board.audit_head").fetchone()
    assert head is not None
    n, prev = int(head["n"]) + 1, bytes(head["hash"])
    sealed = seal(n, at, by, what, body, prev)
    db.execute("INSERT INTO board.audit VALUES (%s, %s, %s, %s, %s, %s, %s)", (n, at, by, what, Jsonb(body), prev, sealed))
    db.execute("UPDATE board.audit_head SET n = %s, hash = %s", (n, sealed))
    return n


def seal(n: int, at: int, by: str, what: str, body: dict[str, Any], prev: bytes) -> bytes:
    """A row's hash: SHA-256 over the one before and this row as JSON with sorted keys."""
    said = json.dumps([n, at, by, what, body], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(prev + said.encode()).digest()


class Fault(NamedTuple):
    """A row where the chain breaks, and how: `changed` `missing` `cut` (rows are gone from the end) `differs` (from an export)."""

    n: int
    what: str


def rows(db: Db, after: int = 0) -> Iterator[dict[str, Any]]:
    """The rows after a number, in order, a thousand at a time."""
    while found := db.execute("SELECT * FROM board.audit WHERE n > %s ORDER BY n LIMIT 1000", (after,)).fetchall():
        yield from found
        after = found[-1]["n"]


def verify(db: Db, known: Mapping[int, str] | None = None) -> list[Fault]:
    """What is wrong with the audit; empty where every row is as it was written. known: number -> hash (hex) of an earlier export."""
    faults: list[Fault] = []
    prev, expected = b"", 1
    seen: dict[int, str] = {}
    for row in rows(db):
        faults += [Fault(n, "missing") for n in range(expected, min(row["n"], expected + 100))]
        sealed = seal(row["n"], row["at"], row["by"], row["what"], row["body"], bytes(row["prev"]))
        if sealed != bytes(row["hash"]) or (row["n"] == expected and bytes(row["prev"]) != prev):
            faults.append(Fault(row["n"], "changed"))
        prev, expected = bytes(row["hash"]), row["n"] + 1
        if known and row["n"] in known:
            seen[row["n"]] = prev.hex()
    head = db.execute("SELECT n, hash FROM board.audit_head").fetchone()
    if head is None or head["n"] != expected - 1 or bytes(head["hash"]) != prev:
        faults.append(Fault(expected, "cut"))
    decided = db.execute("SELECT max(audit) AS n FROM board.decisions").fetchone()
    if decided is not None and (decided["n"] or 0) >= expected and not faults:
        faults.append(Fault(expected, "cut"))
    return faults + [Fault(n, "differs") for n, said in sorted((known or {}).items()) if seen.get(n) != said]


def export(db: Db) -> Iterator[str]:
    """The audit as JSON lines, hashes in hex: what a later `verify` is held against."""
    for row in rows(db):
        said = {**row, "prev": bytes(row["prev"]).hex(), "hash": bytes(row["hash"]).hex()}
        yield json.dumps(said, ensure_ascii=False, separators=(",", ":"))
