"""The commands `outcomes import|export` and `feedback suggest|accept|snooze`: files and Kafka around the pure readings.

Law: a table goes in whole or not at all, and twice is once. A suggestion counts when a person has named it.
"""

from __future__ import annotations

import csv
import getpass
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orderstream import access, kafka, outcomes, replay, topics
from orderstream.catalogue import tables
from orderstream.errors import BadFile
from orderstream.facts import Outcome
from orderstream.feedback import labels, suggest
from orderstream.feedback.rows import HEADINGS, Read, read_outcomes
from orderstream.identity import Keys, plain
from orderstream.route import PERSONAL
from orderstream.settings import Settings

FAULTS_SHOWN = 50

_FIELDS = {plain(heading): field for field, headings in HEADINGS.items() for heading in headings}


def who() -> str:
    """The account that types."""
    return getpass.getuser()


def read_table(settings: Settings, path: Path) -> Read:
    """The outcomes of a .csv or .xlsx. Raises BadFile."""
    try:
        table = tables.read(path, lambda heads: sum(plain(h) in _FIELDS for h in heads))
    except OSError as error:
        raise BadFile(f"读不到 {path} · can't read {path}: {error.strerror}") from None
    missing = {"order_id", "at", "outcome"} - {_FIELDS.get(plain(h), "") for h in table.headings}
    if missing:
        raise BadFile(
            f"{path.name} 缺少列 {'、'.join(HEADINGS[field][1] for field in sorted(missing))}"
            f" · {path.name} has no column {', '.join(sorted(missing))}"
        )
    rows = ((row.number, {_FIELDS[plain(h)]: text for h, text in row.cells.items() if plain(h) in _FIELDS}) for row in table.rows)
    return read_outcomes(rows, settings.timezone, by=who())


def refused(read: Read) -> BadFile:
    """What is wrong with a table, row by row, as the error that ends the command."""
    rows = "; ".join(f"第 {fault.row} 行 row {fault.row}: {fault.sentence}" for fault in read.faults[:FAULTS_SHOWN])
    return BadFile(f"{len(read.faults)} 行有误，什么都没有写入 · {len(read.faults)} rows are wrong, nothing was written: {rows}")


def send(settings: Settings, brokers: str, records: Sequence[dict[str, Any]]) -> int:
    """Writes outcomes; how many, once the broker has them. Raises NoBroker, NotAdmitted."""
    topic = topics.name("orders.outcomes", settings.topic_prefix)
    said = [(topic, record["order_id"].encode(), msgspec.json.encode(record)) for record in records]
    return kafka.send_all(brokers, said, access.client(settings))


def export(settings: Settings, brokers: str, out: Path) -> int:
    """Writes the labels, as CSV where the name ends so, else as JSON lines; how many. Raises BadFile, NoBroker."""
    made = labels.labels(_values(settings, brokers, "orders.verdicts"), _outcomes(settings, brokers))
    partial, count = out.with_name(out.name + ".partial"), 0
    line = _csv_line if out.suffix.lower() == ".csv" else _json_line
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            if line is _csv_line:
                file.write(
                    _row(
                        (
                            "order_id",
                            "channel",
                            "shop",
                            "verdict",
                            "level",
                            "score",
                            "pack",
                            "rules",
                            "decided_at",
                            "outcomes",
                            "label",
                        )
                    )
                )
            for one in made:
                file.write(line(one))
                count += 1
        partial.replace(out)
    except OSError as error:
        raise BadFile(f"写不了 {out} · can't write {out}: {error.strerror}") from error
    return count


def _json_line(label: labels.Label) -> str:
    return msgspec.json.encode(label).decode() + "\n"


def _csv_line(label: labels.Label) -> str:
    said = " ".join(one.outcome for one in label.outcomes)
    cells = (
        label.verdict,
        label.level,
        label.score,
        label.pack,
        " ".join(label.rules),
        label.decided_at,
        said,
        label.label or "",
    )
    return _row((label.order_id, label.channel, label.shop, *cells))


def _row(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def suggestions(settings: Settings, brokers: str, now: int, least: int) -> list[suggest.Suggestion]:
    """What people may want to trust. Raises NoBroker, TopicsUnfit."""
    documents = (value["order"] for name in PERSONAL for value in _values(settings, brokers, name))
    return suggest.suggestions(
        _values(settings, brokers, "orders.verdicts"),
        documents,
        _outcomes(settings, brokers),
        _values(settings, brokers, "reference.updates"),
        Keys(settings.hash_key()),
        now,
        least,
    )


def tell(settings: Settings, brokers: str, record: dict[str, Any]) -> None:
    """Writes a trust or a snooze. Raises BadFile where the line would refuse it, NoBroker, NotAdmitted."""
    try:
        told = replay.read_item(record, Keys(b"only to check"), settings.currency)
    except replay.ReplayError as error:
        raise BadFile(f"不合格式 · {error}") from None
    if not told:
        raise BadFile(
            "这个值不能区分谁是谁（被遮盖，或不是该类的值） · this key tells nobody from another: it is masked, or none of its kind"
        )
    topic = topics.name("reference.updates", settings.topic_prefix)
    kafka.send_all(brokers, [(topic, record["entity"].encode(), msgspec.json.encode(record))], access.client(settings))


def _values(settings: Settings, brokers: str, name: str) -> Iterator[dict[str, Any]]:
    return _read(settings, brokers, name, json.loads)


def _outcomes(settings: Settings, brokers: str) -> Iterator[Outcome]:
    return _read(settings, brokers, "orders.outcomes", lambda value: outcomes.read(json.loads(value)))


def _read(settings: Settings, brokers: str, name: str, decode: Callable[[bytes], Any]) -> Iterator[Any]:
    """What a topic holds, without what nobody can read: that is on orders.rejected already."""
    topic = topics.name(name, settings.topic_prefix)
    for message in kafka.scan(brokers, [topic], client=access.client(settings)):
        if message.value is None:
            continue
        try:
            value = decode(message.value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        yield value
