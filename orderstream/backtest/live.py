"""The live system's final verdicts, in a backtest's format, so that the two can be compared byte for byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from orderstream import kafka, topics
from orderstream.backtest import summarise, write
from orderstream.normalise import Rejection
from orderstream.rules.model import Level
from orderstream.settings import Settings
from orderstream.verdict import Decision, Line, Signal, rejected_line


class _Verdict(msgspec.Struct):
    """What is read of a record of orders.verdicts."""

    order_id: str
    verdict_seq: int
    verdict: Decision
    level: Level
    score: int
    pack: str
    signals: list[Signal]
    not_available: list[str]


def final_lines(settings: Settings, brokers: str) -> dict[str, Line]:
    """Order id -> its last verdict; rejects that no order has come for, by their own id. Raises NoBroker, TopicsUnfit."""
    verdicts = topics.name("orders.verdicts", settings.topic_prefix)
    rejected = topics.name("orders.rejected", settings.topic_prefix)
    read_verdict = msgspec.json.Decoder(_Verdict).decode
    read_rejection = msgspec.json.Decoder(Rejection).decode
    latest: dict[str, _Verdict] = {}
    turned: dict[str, tuple[int, bytes, Line]] = {}
    for message in kafka.read_all(brokers, [verdicts, rejected]):
        if message.value is None:
            continue
        if message.topic == verdicts:
            verdict = read_verdict(message.value)
            known = latest.get(verdict.order_id)
            if known is None or known.verdict_seq <= verdict.verdict_seq:
                latest[verdict.order_id] = verdict
        else:
            rejection = read_rejection(message.value)
            line = rejected_line(rejection.order_id, rejection.sentence, rejection.pack)
            first = turned.get(rejection.order_id)
            if first is None or (rejection.received_at, line.encode()) < first[:2]:
                turned[rejection.order_id] = (rejection.received_at, line.encode(), line)
    lines = {order: line for order, (_, _, line) in turned.items()}
    for order, v in latest.items():
        lines[order] = Line(order, v.verdict, v.level, v.score, v.pack, v.signals, v.not_available)
    return lines


def write_verdicts(settings: Settings, brokers: str, out: Path) -> None:
    """Writes final verdicts to a file, sorted by order id; the summary goes to standard output."""
    lines = final_lines(settings, brokers)
    ordered = [lines[order] for order in sorted(lines)]
    write(ordered, out)
    summarise(Counter(line.verdict for line in ordered), Counter(s.rule for line in ordered for s in line.signals))
