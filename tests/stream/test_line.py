"""The whole line on a real broker: killed, restarted, shuffled, and held against the backtest byte for byte."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from orderstream import kafka, times, topics
from orderstream.backtest import KEYS
from orderstream.catalogue import Catalogue, read_article
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import Settings
from orderstream.simulators import scenario
from tests.stream.line import STANDARD, Workers, await_lines, prepare, send

pytestmark = [pytest.mark.stream, pytest.mark.timeout(400)]

ORDERS = int(os.environ.get("ORDERSTREAM_TEST_ORDERS", "20000"))
SHUFFLED = int(os.environ.get("ORDERSTREAM_TEST_ORDERS", "3000"))
"""An hour's shuffle of ten minutes' orders judges every window again and again: the whole 20,000 take two minutes more."""

START = times.parse("2026-11-11T12:00:00Z")


@pytest.fixture
def workers(fresh_topics: Callable[..., Settings], tmp_path: Path) -> Iterator[Workers]:
    settings = fresh_topics(partitions=8)
    made = Workers(settings, tmp_path)
    yield made
    made.stop()


def backtest(articles: list[dict[str, Any]], records: list[dict[str, Any]]) -> dict[str, bytes]:
    line = Pipeline(Catalogue(read_article(orjson.dumps(a)) for a in articles), PackBook([load(STANDARD)]), KEYS, "Asia/Shanghai")
    for record in records:
        line.feed(read_item(record, KEYS, "CNY"))
    return {verdict.order_id: verdict.encode() for verdict in line.verdicts()}


def differences(got: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """The first few orders that differ, with both lines."""
    keys = [k for k in sorted(wanted.keys() | got.keys()) if got.get(k) != wanted.get(k)]
    return f"{len(keys)} differ: " + "\n".join(f"{got.get(k)!r}\n  wanted {wanted.get(k)!r}" for k in keys[:4])


def contradictions(settings: Settings) -> list[str]:
    """Orders for which two different verdicts bear one number."""
    said: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for message in kafka.read_all(str(settings.brokers), [topics.name("orders.verdicts", settings.topic_prefix)]):
        record = msgspec.json.decode(message.value or b"{}")
        record.pop("timings")
        record.pop("previous")
        said[record["order_id"], record["verdict_seq"]].add(orjson.dumps(record))
    return [f"{key}: {values}" for key, values in said.items() if len(values) > 1]


def shuffled(records: list[dict[str, Any]], within: int, seed: int) -> list[dict[str, Any]]:
    """The same records, each up to `within` ms later than it was received; reference records stay first."""
    chance = random.Random(seed)
    told = [r for r in records if r.get("kind", "raw") != "raw"]
    raw = [r for r in records if r.get("kind", "raw") == "raw"]
    return told + sorted(raw, key=lambda r: times.parse(r["received_at"]) + chance.randrange(within))


def run_line(
    workers: Workers, articles: list[dict[str, Any]], records: list[dict[str, Any]], wanted: dict[str, bytes], seed: int
) -> dict[str, bytes]:
    """What the line says in the end, one of its two workers killed at two random moments on the way."""
    moments = random.Random(seed)
    settings = workers.settings
    prepare(settings, articles)
    workers.start(1)
    workers.start(2)
    send(settings, records)
    for _ in range(2):
        time.sleep(moments.uniform(1, 6))
        workers.kill(2)
        workers.start(2)
    return await_lines(settings, wanted, workers, 240)


@pytest.mark.parametrize(("order", "count"), [("as received", ORDERS), ("shuffled within the lateness", SHUFFLED)])
def test_killed_workers_lose_nothing_and_contradict_nothing(workers: Workers, order: str, count: int) -> None:
    """20,000 orders through two workers, one killed at two random moments: every final verdict is the backtest's, byte for
    byte, and no number bears two verdicts; also where the orders come shuffled within the lateness.
    """
    seed = random.randrange(1 << 30)
    history = scenario.make(count, rate=count / 600, start=START)
    articles, records = list(history.catalogue), list(scenario.replay(history))
    wanted = backtest(articles, records)
    assert len(wanted) >= count * 0.99
    if order != "as received":
        records = shuffled(records, within=times.HOUR, seed=seed)

    got = run_line(workers, articles, records, wanted, seed)

    assert got == wanted, f"seed {seed}: {differences(got, wanted)}\n{workers.logs()}"
    assert contradictions(workers.settings) == [], f"seed {seed}"
