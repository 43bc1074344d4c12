"""The live system's final verdicts, in a backtest's format, so that the two can be compared byte for byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from orderstream import access, kafka, topics
from orderstream.backtest import summarise, write
from orderstream.normalise import Rejection
from orderstream.rejected import order_of
from orderstream.settings import Settings
from orderstream.verdict import Line, Rejects, rejected_line


class _Number(msgspec.Struct):
    """Which verdict of which order a record of orders.verdicts is."""

    order_id: str
    verdict_seq: int


def final_lines(settings: Settings, brokers: str) -> dict[str, Line]:
    """Order id -> its last verdict; rejects that no order has come for, by their own id. Raises NoBroker, TopicsUnfit.

    A reject whose bytes named no order until the parser was mended, and which was replayed since, is that order.
    """
    verdicts = topics.name("orders.verdicts", settings.topic_prefix)
    rejected = topics.name("orders.rejected", settings.topic_prefix)
    read_number = msgspec.json.Decoder(_Number).decode
    read_line = msgspec.json.Decoder(Line).decode
    read_rejection = msgspec.json.Decoder(Rejection).decode
    latest: dict[str, tuple[int, bytes]] = {}
    rejects = Rejects()
    mended: dict[str, str] = {}
    for message in kafka.read_all(brokers, [verdicts, rejected], access.client(settings)):
        if message.value is None:
            continue
        if message.topic == verdicts:
            told = read_number(message.value)
            if told.order_id not in latest or latest[told.order_id][0] <= told.verdict_seq:
                latest[told.order_id] = (told.verdict_seq, message.value)
        else:
            rejection = read_rejection(message.value)
            rejects.add(rejection.received_at, rejected_line(rejection.order_id, rejection.sentence, rejection.pack))
            if rejection.order_id.startswith("raw:") and (order := order_of(rejection)) is not None:
                mended[rejection.order_id] = order
    lines = {name: line for name, line in rejects.lines().items() if mended.get(name) not in latest}
    return {**lines, **{order: read_line(value) for order, (_, value) in latest.items()}}


def write_verdicts(settings: Settings, brokers: str, out: Path) -> None:
    """Writes final verdicts to a file, sorted by order id; the summary goes to standard output."""
    lines = final_lines(settings, brokers)
    ordered = [lines[order] for order in sorted(lines)]
    write(ordered, out)
    summarise(Counter(line.verdict for line in ordered), Counter(s.rule for line in ordered for s in line.signals))
