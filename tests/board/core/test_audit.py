"""The audit finds what somebody did to it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from orderstream.board import audit, cli
from orderstream.board.store import Db
from orderstream.errors import RunFailed
from orderstream.settings import Settings


def written(db: Db, count: int = 5) -> None:
    for n in range(count):
        with db.transaction():
            audit.append(db, 1000 + n, "li", "decide", {"订单": f"A{n}", "n": n, "none": None, "list": [1, "二"]})


def tampered(db: Db, sql: str) -> None:
    """As somebody would who may do everything in this database."""
    db.execute("ALTER TABLE board.audit DISABLE TRIGGER ALL")
    db.execute(sql)
    db.execute("ALTER TABLE board.audit ENABLE TRIGGER ALL")


def test_nobody_changes_or_removes_a_row(db: Db) -> None:
    written(db)
    for sql in ("UPDATE board.audit SET by = 'x' WHERE n = 2", "DELETE FROM board.audit WHERE n = 2", "TRUNCATE board.audit"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            db.execute(sql)
    assert audit.verify(db) == []


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE board.audit SET body = body || '{\"n\": 9}' WHERE n = 3", (3, "changed")),
        ("UPDATE board.audit SET by = 'wang' WHERE n = 1", (1, "changed")),
        ("DELETE FROM board.audit WHERE n = 2", (2, "missing")),
        ("DELETE FROM board.audit WHERE n = 5", (5, "cut")),
        ("UPDATE board.audit SET n = n + 10 WHERE n = 5", (5, "missing")),
    ],
)
def test_it_is_found_by_whoever_looks(db: Db, sql: str, fault: tuple[int, str]) -> None:
    written(db)
    tampered(db, sql)

    assert fault in [tuple(one) for one in audit.verify(db)]


def test_a_chain_written_anew_differs_from_an_export(db: Db, database: str, tmp_path: Path) -> None:
    """Whoever mends every hash and the head is found by what was exported before."""
    written(db)
    settings = Settings.load(database=database)
    before = tmp_path / "before.jsonl"
    before.write_text("\n".join(cli.export_audit(settings)))
    assert [json.loads(line)["n"] for line in before.read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert "5 rows" in cli.verify_audit(settings, before)
    tampered(db, "DELETE FROM board.audit WHERE n > 3")
    prev = db.execute("SELECT hash FROM board.audit WHERE n = 3").fetchone()
    assert prev is not None
    db.execute("UPDATE board.audit_head SET n = 3, hash = %s", (prev["hash"],))
    written(db, 2)

    assert audit.verify(db) == []
    with pytest.raises(RunFailed, match="4 differs, 5 differs"):
        cli.verify_audit(settings, before)
