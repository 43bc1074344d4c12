"""Backtest: history through rules, one final verdict a line. The same kernel as live, in a loop; deterministic to the byte."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orderstream import access, kafka, replay, topics, wire
from orderstream.catalogue import Catalogue, CatalogueError, read_article
from orderstream.errors import BadFile, BadPack
from orderstream.identity import Keys
from orderstream.orders import CHANNELS, Raw
from orderstream.pipeline import Pipeline
from orderstream.replay import Item, ReplayError
from orderstream.rules.book import PackBook
from orderstream.rules.pack import PackError, load_all
from orderstream.settings import Settings
from orderstream.verdict import Line

KEYS = Keys(b"backtest")
"""Verdicts name no keys, so any secret gives the same ones; a backtest needs no installation's."""


def run(
    settings: Settings,
    *,
    orders: list[Path],
    catalogue: Path | None,
    rules: list[Path],
    out: Path,
    brokers: str | None = None,
) -> None:
    """Runs replay files, or with brokers the topics of a Kafka, through packs and writes final verdicts to `out`.

    Without catalogue or rules those of the broker count. Raises BadFile, BadPack, NoBroker; the summary goes to stdout.
    """
    known = _catalogue(settings, catalogue, brokers)
    book = _packs(settings, rules, brokers)
    line = Pipeline(known, book, KEYS, settings.timezone)
    items: Iterable[Item]
    if brokers is not None:
        items = from_topics(settings, brokers)
    else:
        items = chain.from_iterable(_file(path, settings) for path in _by_time(orders))
    for item in _shown(items, None if brokers is not None else _lines(orders)):
        line.feed(item)
    counts: Counter[str] = Counter()
    signals: Counter[str] = Counter()
    write(_counted(line.verdicts(), counts, signals), out)
    summarise(counts, signals, line.skipped)


def write(lines: Iterable[Line], out: Path) -> None:
    """One line a verdict, whole or not at all: the file takes its name when it is complete. Raises BadFile."""
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as file:
            for line in lines:
                file.write(line.encode() + b"\n")
        partial.replace(out)
    except OSError as error:
        raise BadFile(f"写不了 {out} · can't write {out}: {error.strerror}") from error


def summarise(counts: Counter[str], signals: Counter[str], skipped: int = 0) -> None:
    """The counts, on standard output."""
    table = Table("判定 verdict", "订单 orders", title="回测汇总 · summary")
    for verdict in ("released", "review", "frozen", "pending", "withdrawn", "rejected"):
        table.add_row(verdict, str(counts[verdict]))
    table.add_row("合计 total", str(sum(counts.values())))
    if skipped:
        table.add_row("跳过 skipped records", str(skipped))
    hits = Table("规则 rule", "订单 orders")
    for rule, count in sorted(signals.items(), key=lambda s: (-s[1], s[0])):
        hits.add_row(rule, str(count))
    console = Console()
    console.print(table)
    if signals:
        console.print(hits)


def from_topics(settings: Settings, brokers: str) -> list[Item]:
    """What the topics of a Kafka hold, as a replay file would, by the time it was received. Raises NoBroker, TopicsUnfit."""
    prefix = settings.topic_prefix
    raw = {topics.raw(channel, prefix) for channel in CHANNELS}
    stock, outcomes = topics.name("wms.stock", prefix), topics.name("orders.outcomes", prefix)
    items: list[tuple[int, Item]] = []
    wanted = [*sorted(raw), stock, topics.name("reference.updates", prefix), outcomes]
    for message in kafka.read_all(brokers, wanted, access.client(settings)):
        if message.topic in raw:
            try:
                record = wire.read_raw(message.topic, message.headers, message.value, message.timestamp)
            except wire.EnvelopeError:
                continue
            items.append((record.received_at, record))
            continue
        kind = {"kind": "stock"} if message.topic == stock else {"kind": "outcome"} if message.topic == outcomes else {}
        try:
            said = {**kind, **json.loads(message.value or b"")}
            items.append((message.timestamp, replay.read_item(said, KEYS, settings.currency)))
        except (ReplayError, ValueError, TypeError):
            continue
    items.sort(key=lambda item: item[0])
    return [item for _, item in items]


def _catalogue(settings: Settings, path: Path | None, brokers: str | None) -> Catalogue:
    if path is None and brokers is not None:
        name = topics.name("catalog.skus", settings.topic_prefix)
        catalogue = Catalogue()
        for message in kafka.read_all(brokers, [name], access.client(settings)):
            # a line that can't be read is passed over, as by the workers
            with contextlib.suppress(CatalogueError):
                catalogue.add(*read_article(message.value or b""))
        return catalogue
    if path is None:
        raise BadFile("请给出商品目录 --catalogue FILE · name a catalogue: --catalogue FILE")
    try:
        return Catalogue.load(path)
    except (CatalogueError, OSError) as error:
        raise BadFile(f"商品目录有误 · bad catalogue: {error}") from error


def _packs(settings: Settings, rules: list[Path], brokers: str | None) -> PackBook:
    if not rules and brokers is not None:
        book = kafka.read_packs(settings, brokers)
        if not book.activations:
            raise BadPack("没有生效的规则包 · no rule pack is active")
        return book
    try:
        return PackBook(load_all(rules))
    except (PackError, OSError) as error:
        raise BadPack(f"规则包有误 · bad pack: {error}") from error


def _file(path: Path, settings: Settings) -> Iterator[Item]:
    try:
        yield from replay.read_file(path, KEYS, settings.currency)
    except (ReplayError, OSError) as error:
        raise BadFile(f"回放文件有误 · bad replay file: {error}") from error


def _by_time(paths: list[Path]) -> list[Path]:
    """Files by what they begin with: the data's clock must not run backwards by more than lateness."""

    def first(path: Path) -> tuple[int, str]:
        try:
            received = (i.received_at for i in replay.read_file(path, KEYS, "CNY") if isinstance(i, Raw))
            return next(received, 0), str(path)
        except (ReplayError, OSError) as error:
            raise BadFile(f"回放文件有误 · bad replay file: {error}") from error

    return sorted(paths, key=first) if len(paths) > 1 else paths


def _lines(paths: list[Path]) -> int:
    try:
        return sum(1 for path in paths for _ in path.open("rb"))
    except OSError as error:
        raise BadFile(f"读不到文件 · can't read {error.filename}: {error.strerror}") from error


def _shown(items: Iterable[Item], total: int | None) -> Iterator[Item]:
    """The items, with a progress bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description="回测 backtest")


def _counted(lines: Iterable[Line], counts: Counter[str], signals: Counter[str]) -> Iterator[Line]:
    for line in lines:
        counts[line.verdict] += 1
        signals.update(s.rule for s in line.signals)
        yield line
