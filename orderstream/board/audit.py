"""The audit: who did what, in rows that name the row before by its hash.

Law: rows are only added, in the transaction of what they are about. A row that was changed, taken out or put in is found by
`verify`; rows cut from the end by the head beside them, and, where somebody mended that too, by an earlier export.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

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
