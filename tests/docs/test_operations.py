"""The on-call's page: every alert and rule has its place, and what is printed there works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

import orderstream.intake.metrics  # noqa: F401  its metrics register when it is imported
from orderstream import kafka, times, topics
from orderstream.board.metrics import BoardMetrics
from orderstream.catalogue import Catalogue, read_article
from orderstream.identity import Keys
from orderstream.metrics import Metrics
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules import examples
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import Settings
from tests.docs.pages import ROOT, anchors, block, table, text

PAGE = "docs/operations.md"
PACK = load(ROOT / "rules/standard")
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
LINES = block(PAGE, "lines").strip().splitlines()


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_section(alert: str) -> None:
    """Who is woken by an alert finds it by its name."""
    assert alert.lower() in anchors(PAGE)
    assert f"### {alert} · " in text(PAGE)


@pytest.mark.parametrize("rule", sorted(PACK.rules))
def test_every_rule_has_its_section(rule: str) -> None:
    """A rule's runbook leads to its own place on the page, under its own title."""
    assert PACK.rules[rule].runbook == f"{PAGE}#{rule}"
    assert rule in anchors(PAGE)
    assert f"### {rule} · {PACK.rules[rule].title.zh}\n" in text(PAGE)


def test_links_into_the_page_lead_somewhere() -> None:
    """Whatever in the repository points into the page points at a place that is there."""
    pointed = set()
    for folder in ("rules", "deploy"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".yaml", ".yml", ".json"}:
                pointed |= set(re.findall(r"docs/operations\.md#([\w-]+)", path.read_text("utf-8")))

    assert pointed - anchors(PAGE) == set()


def test_the_metrics_are_there() -> None:
    """Every metric on the page exists, and every one of ours is on it or among those that are not fed yet."""
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in Metrics().names()}
    known |= {
        f"{m.name}_total" if m.type == "counter" else m.name for m in REGISTRY.collect() if m.name.startswith("orderstream_")
    }
    told = {name for row in table(PAGE, "metric") for name in re.findall(r"`(orderstream_\w+)`", row[0])}
    gaps = set(re.findall(r"`(orderstream_\w+)`", text("docs/architecture.md")))

    # the board's own stand in docs/board.md
    board = Metrics.names(BoardMetrics(CollectorRegistry()))  # type: ignore[arg-type]  # it has metrics as that has
    assert board <= set(re.findall(r"orderstream_board_\w+", text("docs/board.md")))
    assert set(re.findall(r"orderstream_\w+", text(PAGE))) <= known | board
    assert known - told <= gaps


@pytest.mark.parametrize("line", LINES)
def test_what_can_be_said_is_understood(line: str) -> None:
    """Each line on the page is one that the line's own reader takes."""
    assert read_item(json.loads(line), Keys(b"test"), "CNY")


class _Line:
    """The line in process, fed with api orders; `said`: what went to public topics, in order."""

    def __init__(self) -> None:
        articles = [read_article(json.dumps(examples.ARTICLE))]
        self._keys = Keys(b"test")
        self._line = Pipeline(Catalogue(articles), PackBook([PACK]), self._keys, "Asia/Shanghai")
        self.said: list[Any] = []

    def order(self, number: str, at: int, **fields: Any) -> None:
        body = {**examples.BODY, "order_id": number, "created_at": times.text(examples.T + at), **fields}
        received = times.text(examples.T + at + 1000)
        self.feed({"kind": "raw", "channel": "api", "shop": "main", "received_at": received, "body": body})

    def feed(self, record: dict[str, Any]) -> None:
        self.said += self._line.feed(read_item(record, self._keys, "CNY"))

    def of(self, order: str) -> list[tuple[str, Any]]:
        return [(public.topic, public.value) for public in self.said if public.order == order]


def test_a_person_s_release_stands() -> None:
    """A frozen order that a person released is out; a rule that fires for it afterwards tells them and takes nothing back."""
    line, order = _Line(), "api:main:A1001"
    line.order("A1001", 0, hold="risk", buyer={"id": "u1"})
    assert [topic for topic, _ in line.of(order)][:2] == ["orders.verdicts", "orders.frozen"]

    line.said.clear()
    line.feed(json.loads(LINES[0]))
    (released,) = (value for topic, value in line.of(order) if topic == "orders.released")
    assert released["by"] == "wang"

    line.said.clear()
    line.order("A0", -1000, buyer={"id": "u1"})  # a double order that comes late: A1001 is its second
    found = line.of(order)
    assert "duplicate-order" in {s["rule"] for topic, value in found if topic == "orders.verdicts" for s in value["signals"]}
    assert "orders.recalled" not in {topic for topic, _ in found}
    assert {topic for topic, _ in found} & {"orders.review", "orders.frozen"} == set()
    assert "signal-after-decision" in {v["params"].get("why") for topic, v in found if topic == "orders.actions"}


def _script(name: str, *arguments: str, lines: str = "") -> str:
    """What a program on the page prints; the environment names its broker and prefix."""
    done = subprocess.run(
        [sys.executable, "-c", block(PAGE, name), *arguments],
        input=lines, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.stream
def test_the_script_says_all_of_it(fresh_topics: Callable[..., Settings]) -> None:
    """say.py puts every line on the page where the hops read it, under a key that names nobody."""
    settings = fresh_topics()
    assert _script("say.py", lines="\n".join(LINES) + "\n") == f"{len(LINES)} said\n"

    names = [topics.name(t, settings.topic_prefix) for t in ("orders.outcomes", "wms.stock", "reference.updates")]
    found = list(kafka.read_all(str(settings.brokers), names))
    assert sorted(m.value.decode() for m in found if m.value) == sorted(LINES)
    orders = {b"api:main:A1001", b"api:main:A1002", b"api:main:A1003"}
    assert {m.key for m in found} == orders | {b"payment", b"ip", b"device", b"SKU1", b"USD/CNY"}
