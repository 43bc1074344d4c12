"""Between Kafka and PostgreSQL: whatever is killed, each verdict is a row and each decision is said."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from orderstream import kafka, topics
from orderstream.board import decide, store
from orderstream.board.decide import Person, Terms
from orderstream.kafka import Outgoing
from orderstream.settings import Settings
from tests.board.core.records import oid, place, verdict
from tests.board.core.records import signal as finding
from tests.postgres import Server, server
from tests.waiting import wait_until

pytestmark = pytest.mark.stream

BOARD = """
import asyncio, sys
from orderstream.board import cli, consume, outbox, store
from orderstream.board.metrics import BoardMetrics
from orderstream.settings import Settings
from prometheus_client import CollectorRegistry
settings = Settings.load()
async def run():
    stop, metrics, place = asyncio.Event(), BoardMetrics(CollectorRegistry()), store.url(settings)
    work = [consume.run(settings, place, stop, metrics, cli.limits(settings)), outbox.run(settings, place, stop, metrics)]
    await asyncio.gather(*work)
import logging; logging.basicConfig(level="WARNING")
asyncio.run(run())
"""
LI = Person("li", frozenset({"reviewer"}))


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A PostgreSQL that may be stopped."""
    with server() as one:
        yield one


class Board:
    """The board's process, without its pages."""

    def __init__(self, settings: Settings, log: Path) -> None:
        assert settings.database is not None
        self.env = {**os.environ, "ORDERSTREAM_DATABASE": settings.database.get_secret_value()}
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", BOARD], env=self.env, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def check(self) -> None:
        assert self.process.poll() is None, self.log.read_text()[-3000:]


def publish(settings: Settings, records: list[tuple[str, dict[str, Any]]]) -> None:
    prefix = settings.topic_prefix
    kafka.send_all(str(settings.brokers), [Outgoing(prefix + t, v["order_id"].encode(), orjson.dumps(v)) for t, v in records])


def said(settings: Settings) -> list[dict[str, Any]]:
    name = topics.name("orders.outcomes", settings.topic_prefix)
    return [json.loads(m.value or b"") for m in kafka.read_all(str(settings.brokers), [name])]


def history(numbers: range) -> list[tuple[str, dict[str, Any]]]:
    """Of each order: it waits, and gets one more signal."""
    out = []
    for n in numbers:
        found = finding("user-burst", *([f"A{n - 1}"] if n % 10 else []))
        out += [verdict(f"A{n}", 1, found), place("review", f"A{n}", 1), verdict(f"A{n}", 2, found, finding("duplicate-order"))]
    return out


def test_whatever_is_killed_each_verdict_is_a_row_and_each_decision_is_said(
    fresh_topics: Callable[..., Settings], own: Server, tmp_path: Path
) -> None:
    """The board is killed amid batches and sends, PostgreSQL stopped and started; the stream goes on meanwhile."""
    settings = fresh_topics(partitions=2, database=own.url)
    store.migrate(own.url)
    board = Board(settings, tmp_path / "board.log")
    chance = random.Random(7)
    count = 200
    decided: list[str] = []
    ids: set[str] = set()
    for begin in range(0, count, 50):
        publish(settings, history(range(begin, begin + 50)))
        if begin == 100:
            own.stop()
            publish(settings, history(range(count, count + 20)))  # nothing of it is lost while nobody can write it down
            wait_until(lambda: "waiting for PostgreSQL" in board.log.read_text(), "that it says so")
            own.start()
        with store.connect(own.url) as db:
            want = begin + 50 + (20 if begin >= 100 else 0)
            # killed at any moment before it has all of them
            for _ in range(3):
                time.sleep(chance.random() * 0.6)
                board.kill()
                board.start()
            wait_until(lambda: _changed(db) == want, lambda: f"{_changed(db)} of {want}: {board.log.read_text()[-2000:]}")  # noqa: B023
            board.check()
            batch = [f"A{n}" for n in range(begin, begin + 50) if n % 2]
            done = decide.decide(db, LI, {oid(n): 2 for n in batch}, "release", "checked", at=store.now(), terms=Terms())
            assert len(done.done) == len(batch)
            board.kill()
            decided += done.done
            board.start()
    with store.connect(own.url) as db:
        unsent = "SELECT count(*) AS n FROM board.outbox WHERE sent_at IS NULL"
        wait_until(lambda: db.execute(unsent).fetchone() == {"n": 0}, "all decisions sent")
        ids = {str(row["id"]) for row in db.execute("SELECT id FROM board.decisions")}
        events = Counter(row["kind"] for row in db.execute("SELECT kind FROM board.events"))
        # each record once, however often it was read
        assert events["verdict"] == 2 * (count + 20)
        assert events["review"] == count + 20
        assert db.execute("SELECT count(*) AS n FROM board.orders WHERE state = 'waiting'").fetchone() == {
            "n": count + 20 - len(decided)
        }
        assert db.execute("SELECT sum(orders) AS n FROM board.cases").fetchone() == {"n": count + 20}
    outcomes = said(settings)
    assert {one["id"] for one in outcomes} == ids
    assert {one["order_id"] for one in outcomes} == set(decided)
    # what was said twice after a crash is the same, to the byte
    assert len({orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in outcomes}) == len(decided)
    board.kill()


def _changed(db: store.Db) -> int:
    row = db.execute("SELECT count(*) AS n FROM board.orders WHERE seq = 2 AND document IS NOT NULL").fetchone()
    assert row is not None
    return int(row["n"])


def test_without_a_database_there_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 11, and the setting by name."""
    env = {**os.environ, "ORDERSTREAM_DATABASE": f"postgresql://nobody@/x?host={tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "orderstream", "board", "migrate"],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (11, 1)
    assert "ORDERSTREAM_DATABASE" in done.stderr
