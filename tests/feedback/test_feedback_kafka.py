"""The commands, as a person types them, on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orderstream import cli, kafka, topics
from orderstream.settings import Settings
from tests.feedback.test_learning import T, document, verdict


@pytest.mark.stream
def test_from_a_table_to_an_accepted_suggestion(
    fresh_topics: Callable[..., Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with a fault writes nothing; a good one is written, and again it is the same; what was cleared is suggested, and
    accepted by its id; labels say what was said.
    """
    settings = fresh_topics()
    monkeypatch.chdir(tmp_path)

    def typed(*arguments: str) -> tuple[int, str]:
        code = cli.run([*arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    def on(name: str) -> list[dict[str, Any]]:
        topic = topics.name(name, settings.topic_prefix)
        return [json.loads(m.value or b"{}") for m in kafka.read_all(str(settings.brokers), [topic])]

    good = "订单号,时间,结果\n" + "".join(f"api:main:{n},2026-11-12 10:00,误报\n" for n in (1, 2, 3))
    Path("bad.csv").write_text(good + "api:main:4,yesterday,退货\n", "utf-8")
    Path("good.csv").write_text(good, "utf-8")

    code, said = typed("outcomes", "import", "bad.csv")
    assert (code, "row 5" in said) == (9, True), said
    assert on("orders.outcomes") == []
    for _ in range(2):
        code, said = typed("outcomes", "import", "good.csv")
        assert code == 0, said
    told = on("orders.outcomes")
    assert (len(told), len({record["id"] for record in told})) == (6, 3)

    records = []
    for n in (1, 2, 3):
        records.append(
            (topics.name("orders.verdicts", settings.topic_prefix), b"k", json.dumps(verdict(n, "payment-shared")).encode())
        )
        held = {"order": document(n), "verdict_seq": 1, "at": T}
        records.append((topics.name("orders.review", settings.topic_prefix), str(n).encode(), json.dumps(held).encode()))
    kafka.send_all(str(settings.brokers), records)
    code, said = typed("feedback", "suggest", "--json")
    (found,) = json.loads(said)
    code, said = typed("feedback", "accept", found["id"], "--why", "family")
    assert code == 0, said
    (trust,) = on("reference.updates")
    assert (trust["kind"], trust["entity"], trust["rules"], trust["why"]) == ("trust", "payment", ["payment-shared"], "family")
    assert json.loads(typed("feedback", "suggest", "--json")[1]) == []

    code, said = typed("feedback", "snooze", "ip-pair", "ip", "127.0.0.1", "--until", "7d", "--why", "proxy")
    assert code == 9, said
    code, said = typed("feedback", "snooze", "ip-pair", "ip", "203.0.113.7", "--until", "7d", "--why", "campus")
    assert code == 0, said
    assert [record["kind"] for record in on("reference.updates")].count("snooze") == 1

    code, said = typed("outcomes", "export", "--out", "labels.jsonl")
    assert code == 0, said
    labels = [json.loads(line) for line in Path("labels.jsonl").read_text().splitlines()]
    assert [(one["order_id"], one["label"], one["rules"]) for one in labels] == [
        (f"api:main:{n}", "good", ["payment-shared"]) for n in (1, 2, 3)
    ]
