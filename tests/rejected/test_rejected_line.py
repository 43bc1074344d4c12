"""Rejects on the real line: a bad release amid a flood of broken records, rolled back, and its rejects put back."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from orderstream import cli, kafka, rejected, times, topics
from orderstream.backtest.live import final_lines
from orderstream.kafka import Outgoing
from orderstream.normalise import Rejection
from orderstream.orders import Raw
from orderstream.settings import Settings
from orderstream.simulators import scenario
from tests.deploy.test_deploy import DEPLOY, promtool
from tests.stream.line import Workers, prepare, send
from tests.stream.test_line import backtest, differences

pytestmark = [pytest.mark.stream, pytest.mark.timeout(300)]

BROKEN = 5000
ORDERS = 400
BAD_RELEASE = """
from orderstream.channels import api
from orderstream.orders import Order, Rejected
good = api.Api.parse
def parse(self, raw):
    found = good(self, raw)
    if isinstance(found, Order) and int.from_bytes(raw.body, 'big') % 3 == 0:
        named = found.order_id if len(raw.body) % 2 else 'raw:' + __import__('hashlib').sha256(raw.body).hexdigest()
        return Rejected(named, 'bad-release', '坏版本 · a bad release', 'total')
    return found
api.Api.parse = parse
"""
"""A release that takes every third order for broken, half of them without finding their number."""

STRANGE = [
    b"", b"\x00", bytes(range(256)), "订单：张三".encode("gbk"), "订单".encode("utf-16"), b"\xff\xfe\xfd" * 1000, b"\r\n\t\x1b[2J",
    b'{"order_id": "B1", "total": NaN}', b'{"order_id": "B2", "total": 1e999}', b"[" * 5000, b'{"order_id": "B3"', b"null", b'"\\ud800"',
    "\ufeff{}".encode(), random.Random(4).randbytes(700_000),
]  # fmt: skip


def raw_record(raw: Raw, prefix: str) -> Outgoing:
    return rejected._outgoing(raw, prefix)


def broken(now: int, prefix: str) -> list[Outgoing]:
    """BROKEN deliveries that are no orders, some of them strange beyond JSON. now: ms, when they came."""
    bodies = [*STRANGE]
    bodies += [json.dumps({"order_id": f"B{n}", "total": "x"}).encode() for n in range(len(bodies), BROKEN)]
    return [raw_record(Raw("api", "main", now + n, body, {}, "hmac-sha256"), prefix) for n, body in enumerate(bodies)]


def on(settings: Settings, topic: str) -> list[kafka.Message]:
    return sorted(kafka.read_all(str(settings.brokers), [topics.name(topic, settings.topic_prefix)]))


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints."""
    capfd.readouterr()
    code = cli.run([*arguments])
    said = capfd.readouterr()
    assert code == 0, said.err
    return said.out


def shown(port: int, metric: str) -> float:
    """What a worker shows of the channel api."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.findall(rf'^{metric}\{{[^}}]*channel="api"[^}}]*\}} (\S+)$', answer.read().decode(), re.MULTILINE)
    assert found, metric
    return sum(map(float, found))


def would_wake(rejects: float, records: float, folder: Path) -> bool:
    """Whether RejectsBurst fires on a minute in which so many of so many records were rejected."""
    for name in ("alerts.yml", "alerts.test.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, folder)
    tests = yaml.safe_load((folder / "alerts.test.yml").read_text("utf-8"))
    case = next(t for t in tests["tests"] if t["name"].startswith("RejectsBurst fires: one burst between two scrapes"))
    case["input_series"] = [
        {"series": 'orderstream_rejected_bytes_count{channel="api"}', "values": f"0 0 {rejects:.0f}x20"},
        {"series": 'orderstream_orders_total{hop="normalise",channel="api"}', "values": f"_ _ {records:.0f}x20"},
    ]
    tests["tests"] = [case]
    (folder / "alerts.test.yml").write_text(yaml.safe_dump(tests, allow_unicode=True), "utf-8")
    ran = subprocess.run(
        [promtool(), "test", "rules", "alerts.test.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return ran.returncode == 0


def records_of(history: Any) -> list[dict[str, Any]]:
    """The raw records and reference records of a simulated peak, all of the channel api."""
    return [r for r in scenario.replay(history) if r.get("kind", "raw") != "raw" or r["channel"] == "api"]


def test_a_bad_release_amid_a_flood_is_rolled_back_and_replayed(
    fresh_topics: Callable[..., Settings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """5,000 broken records amid good orders stop nothing and are all there, byte for byte; their number wakes somebody.

    A bad release meanwhile rejects every third good order. After it is rolled back, a replay brings each to the verdict that a
    backtest gives it, and a second replay changes nothing.
    """
    port = free_port()
    settings = fresh_topics(metrics_port=port)
    brokers, prefix = str(settings.brokers), settings.topic_prefix
    now = time.time_ns() // 1_000_000
    history = scenario.make(ORDERS, rate=ORDERS / 600, start=now - times.HOUR, seed=7)
    articles, records = list(history.catalogue), records_of(history)
    wanted = backtest(articles, records)
    prepare(settings, articles)
    workers = Workers(settings, tmp_path)
    try:
        workers.env, workers.prelude = {"ORDERSTREAM_METRICS_PORT": str(port)}, BAD_RELEASE
        workers.start(1)
        flood = broken(now, prefix)
        half = len(records) // 2
        send(settings, records[:half])
        kafka.send_all(brokers, flood)
        send(settings, records[half:])
        assert kafka.worked_off(settings, brokers, 120), workers.logs()

        # all of the flood is there, with its bytes and its reason, and so are the good orders that the bad release took for broken
        held = [msgspec.json.decode(m.value or b"", type=Rejection) for m in on(settings, "orders.rejected")]
        assert {r.body for r in held} >= {record.value for record in flood}
        assert all(r.reason and r.code and r.verified for r in held)
        mistaken = {r.order_id for r in held if r.code == "bad-release"}
        assert any(name.startswith("raw:") for name in mistaken)
        assert any(name in wanted for name in mistaken)
        decided = {m.key.decode() for m in on(settings, "orders.verdicts") if m.key}
        assert len(decided) > ORDERS / 2
        rejects, taken = shown(port, "orderstream_rejected_bytes_count"), shown(port, "orderstream_orders_total")
        assert rejects == len(held)
        assert would_wake(rejects, taken, tmp_path)
        assert not would_wake(rejects / 1000, taken, tmp_path)

        workers.stop()
        workers.prelude = ""
        workers.start(2)
        counts = json.loads(run(capfd, "rejected", "list", "--json", "--since", "2h"))["counts"]
        by_code: Counter[str] = Counter()
        for c in counts:
            by_code[c["code"]] += c["count"]
        assert sum(by_code.values()) == len({rejected.reject_id(r) for r in held})
        assert "5000" not in run(capfd, "rejected", "list", "--code", "bad-release")
        dry = run(capfd, "rejected", "replay", "--code", "bad-release", "--dry-run")
        assert f"{by_code['bad-release']} 条按原接收时间放回" in dry
        assert {m.key.decode() for m in on(settings, "orders.verdicts") if m.key} == decided

        said = run(capfd, "rejected", "replay", "--code", "bad-release", "--wait", "120")
        assert "released" in said, said
        lines = final_lines(settings, brokers)
        bodies = {record.value for record in flood}
        of_flood = {r.order_id for r in held if r.body in bodies}
        got = {order: line.encode() for order, line in lines.items() if order not in of_flood}
        assert got == wanted, f"{differences(got, wanted)}\n{workers.logs()}"
        told = on(settings, "orders.verdicts")
        raw_before = kafka.count(brokers, topics.raw("api", prefix))

        assert "released" in run(capfd, "rejected", "replay", "--all", "--wait", "120")
        assert kafka.count(brokers, topics.raw("api", prefix)) - raw_before == by_code["bad-release"]
        assert on(settings, "orders.verdicts") == told
        assert len(on(settings, "orders.rejected")) == len(held)
    finally:
        workers.stop()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
