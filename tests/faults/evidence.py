"""Reads the books of a drained installation: its topics, the ERP's and the board's tables, and both lists of final verdicts by the CLI."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from pathlib import Path

import orjson

from orderstream import kafka, outcomes, topics
from orderstream.board import store
from orderstream.orders import CHANNELS
from tests.faults.installation import Installation
from tests.faults.reconcile import Decided, Deed, Evidence, Said

PUBLIC = ("released", "review", "frozen", "recalled")


async def gather(system: Installation) -> Evidence:
    """What there is to compare."""
    live, again = system.home / "live.jsonl", system.home / "backtest.jsonl"
    for command in (("verdicts", "--out", str(live)), ("backtest", "--from-topics", "--out", str(again))):
        code, said = await system.command(*command, seconds=300)
        assert code == 0, said
    books = await asyncio.to_thread(_topics, str(system.settings.brokers), system.settings.topic_prefix)
    books.acknowledged = system.traffic.acknowledged
    await _board(system, books)
    books.live, books.backtest = _lines(live), _lines(again)
    books.erp = {row[0]: (row[1], row[2]) for row in await system.sql("SELECT order_id, verdict_seq, state FROM orders")}
    books.journal = [(row[0], row[1], row[2]) for row in await system.sql("SELECT order_id, verdict_seq, effect FROM journal")]
    return books


async def _board(system: Installation, books: Evidence) -> None:
    """What people were told yes to, and what the board and actions hold of it."""
    books.yes = {(one.bulk, one.order, one.what) for one in system.desk.said}
    books.wall = {row["order_id"]: row["state"] for row in await system.wall(
        "SELECT order_id, state FROM board.orders WHERE state IN ('waiting', 'correction', 'after-sales', 'asking')"
    )}  # fmt: skip
    books.cards = await system.desk.cards()
    books.decided = [Decided(**row) for row in await system.wall(
        "SELECT id::text, bulk::text, order_id AS order, decision AS what, state, effective_at IS NOT NULL AS effective"
        " FROM board.decisions WHERE audit IS NOT NULL"
    )]  # fmt: skip
    books.answers = {row["id"]: row["answer"] for row in await system.wall(
        "SELECT id, answer FROM board.links WHERE what = 'confirm' AND used_at IS NOT NULL"
    )}  # fmt: skip
    books.deeds = {row["id"]: Deed(**row) for row in await system.wall(
        "SELECT id, order_id AS order, kind, state, coalesce(done_at, 0) AS done_at, error,"
        " state IN ('waiting', 'trying') AND next_at < %s AS due FROM board.messages",
        store.now() + 1_800_000,
    )}  # fmt: skip
    books.taken = [(one.key, one.at) for one in system.phones.gateways.taken]


def _topics(brokers: str, prefix: str) -> Evidence:
    books = Evidence()
    raw = {topics.raw(channel, prefix) for channel in CHANNELS}
    for message in kafka.read_all(brokers, sorted(raw)):
        books.raw.add(hashlib.sha256(message.value or b"").hexdigest())
    for message in kafka.read_all(brokers, [topics.name("orders.verdicts", prefix)]):
        books.verdicts.append(_said(message.value or b"", None))
    for what in PUBLIC:
        for message in kafka.read_all(brokers, [topics.name(f"orders.{what}", prefix)]):
            books.public.append(_said(message.value or b"", what))
    for message in kafka.read_all(brokers, [topics.name("orders.outcomes", prefix)]):
        one = outcomes.read(orjson.loads(message.value or b"{}"))
        books.outcomes.append((one.id, message.value or b""))
        if one.outcome in outcomes.MOVES:
            books.decisions[one.id] = one
    for message in kafka.read_all(brokers, [topics.name("orders.actions", prefix)]):
        books.asked.add(orjson.loads(message.value or b"{}")["id"])
    for message in kafka.read_all(brokers, [topics.name("wms.commands", prefix)]):
        books.commands.append((orjson.loads(message.value or b"{}")["id"], message.value or b""))
    for message in kafka.read_all(brokers, [topics.name("orders.rejected", prefix)]):
        books.rejected.add(orjson.loads(message.value or b"{}")["order_id"])
    return books


def _said(value: bytes, what: str | None) -> Said:
    record = orjson.loads(value)
    # what a repetition may say otherwise: when it was decided, and what it was before
    record.pop("timings", None)
    record.pop("previous", None)
    content = zlib.compress(orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
    return Said(
        record["order_id"],
        record["verdict_seq"],
        what or record["verdict"],
        content,
        bool(record.get("held")),
        record.get("out") or "",
        (record.get("decision") or {}).get("id", ""),
        tuple(one["id"] for one in record.get("not_applied") or ()),
    )


def _lines(path: Path) -> dict[str, bytes]:
    return {orjson.loads(line)["order_id"]: line for line in path.read_bytes().splitlines()}
