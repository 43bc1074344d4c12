"""What an order costs the three hops alone: the shipped states in one process, without Kafka, engine or network.

    python -m bench.kernel [--orders 20000] [--pack standard|reference] [--batch 100] [--profile FILE]

Raw records of a simulated day go in order through the hops' states, a batch at a time, as the engine hands them over; what they send
is handed on. Then each state is rebuilt from its changelog, and from its dump. Processor time, µs an order: on a machine that
others use too, compare two runs made right after one another. --profile: cProfile's figures of all of it, for `python -m pstats`.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from agents import detect, route
from agents.app import COLLECT
from agents.normalise import Names, NormaliseState
from bench import days
from bench.reference import job
from orderstream import catalogue, channels
from orderstream.engine import Effects, Record, Send
from orderstream.engine.hop import State
from orderstream.identity import Keys
from orderstream.metrics import Metrics
from orderstream.normalise import Books
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import data_file
from orderstream.simulators.assortment import catalogue as articles

HOPS = ("normalise", "detect", "route")


class Line(NamedTuple):
    """The hops' states of the one partition there is."""

    normalise: NormaliseState
    detect: detect.DetectState
    route: route.RouteState


class Spent:
    """Processor time (s) by what it went into."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def take(self, what: str, state: State, records: Sequence[Record]) -> Effects:
        began = time.process_time()
        effects = state.process(records)
        self.seconds[what] += time.process_time() - began
        return effects


class Kernel:
    """A line whose hops hand over in memory."""

    def __init__(self, pack: str, spent: Spent, folder: Path | None = None) -> None:
        """folder: rules to take instead of the pack's own."""
        self._pack = pack
        self._folder = folder or (job.HERE / "pack" if pack == "reference" else data_file("rules/standard"))
        self._spent = spent
        self.line = self.empty()
        self.logs: dict[str, list[bytes]] = {hop: [] for hop in HOPS}
        self.sent: dict[str, int] = defaultdict(int)
        """Bytes by topic."""
        self._offsets: dict[str, int] = defaultdict(int)

    def empty(self) -> Line:
        metrics, names, keys = Metrics(), Names(""), Keys(b"key-of-the-bench")
        book = PackBook([load(self._folder)])
        told = list(articles())
        kinds: tuple[type[NormaliseState], type[route.RouteState]] = (NormaliseState, route.RouteState)
        if self._pack == "reference":
            channels.registry()["ref"] = job.Reference()
            told = [{**one, "codes": [{**code, "channel": "ref"} for code in one["codes"]]} for one in told]
            kinds = (job.Intake, job.Output)
        shelf = catalogue.Catalogue(catalogue.read_article(orjson.dumps(one)) for one in told)
        return Line(
            kinds[0](0, 1, names, Books(shelf, book.at), keys, "CNY", metrics),
            detect.DetectState(0, 1, names, book.pack, "Asia/Shanghai", metrics),
            kinds[1](0, 1, names, book.pack, metrics),
        )

    def feed(self, records: list[Record]) -> None:
        """Raw or reference records of one topic, and all that follows from them."""
        facts, mail = self._hop("normalise", records, "orders.facts")
        answers, more = self._hop("detect", self._records("orders.facts", facts), "-")
        assert not answers
        self._hop("route", self._records("orders.dossiers", mail + more), "-")

    def _hop(self, hop: str, records: list[Record], first: str) -> tuple[list[Send], list[Send]]:
        """What a hop sends to the topic named, and to orders.dossiers."""
        if not records:
            return [], []
        effects = self._spent.take(hop, getattr(self.line, hop), records)
        log = effects.log or []
        self.logs[hop] += log if isinstance(log, list) else [log]
        for send in effects.sends:
            self.sent[send.topic] += len(send.value or b"")
        return [s for s in effects.sends if s.topic == first], [s for s in effects.sends if s.topic == "orders.dossiers"]

    def _records(self, topic: str, sends: Iterable[Send]) -> list[Record]:
        return [self.record(topic, send.key, send.value, ()) for send in sends]

    def record(self, topic: str, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Record:
        offset = self._offsets[topic]
        self._offsets[topic] += 1
        return Record(topic, 0, offset, key, value, tuple(headers), time.time_ns() // 1_000_000)


def day(kernel: Kernel, orders: int, pack: str, batch: int) -> Iterator[list[Record]]:
    """A simulated day of orders as batches of one topic each."""
    # as dense as a day of a million orders: the windows are as full as in the bench's longest runs
    shop = days.stretch(0, orders, start=days.START, span=orders * days.DAY // 1_000_000, cohort=0)
    if pack == "reference":
        found = (days.of_reference_job(delivery) for delivery in shop.deliveries)
        waiting = [kernel.record(job.RAW, key, value, ()) for key, value in filter(None, found)]
        yield from (waiting[at : at + batch] for at in range(0, len(waiting), batch))
        return
    for topic, key, value in days.reference_records(shop, 0, first=True):
        yield [kernel.record(topic, key, value, ())]
    by_topic: dict[str, list[Record]] = defaultdict(list)
    for sent in days.raw_records(shop, 0):
        waiting = by_topic[sent.topic]
        waiting.append(kernel.record(sent.topic, sent.key, sent.value, sent.headers))
        if len(waiting) >= batch:
            yield by_topic.pop(sent.topic)
    yield from by_topic.values()


def fold(state: State, blobs: Iterable[bytes]) -> float:
    """Processor time (s) of rebuilding a state."""
    began = time.process_time()
    for blob in blobs:
        state.restore(blob)
    return time.process_time() - began


def run(orders: int, pack: str, batch: int) -> dict[str, Any]:
    """All of it: µs an order by hop; the state's bytes an order, and µs to fold them."""
    spent = Spent()
    kernel = Kernel(pack, spent)
    batches = list(day(kernel, orders, pack, batch))
    count = sum(len(one) for one in batches)
    gc.collect()
    gc.freeze()
    for one in batches:
        kernel.feed(one)
    out: dict[str, Any] = {"orders": orders, "records": count, "pack": pack, "batch": batch, "sent": dict(kernel.sent)}
    for hop in HOPS:
        dump = list(getattr(kernel.line, hop).dump())
        logs = kernel.logs[hop]
        out[hop] = {
            "us": spent.seconds[hop] * 1e6 / orders,
            "log_bytes": sum(map(len, logs)) / orders,
            "fold_us": fold(getattr(kernel.empty(), hop), logs) * 1e6 / orders,
            "dump_bytes": sum(map(len, dump)) / orders,
            "dump_fold_us": fold(getattr(kernel.empty(), hop), dump) * 1e6 / orders,
        }
    out["us"] = sum(out[hop]["us"] for hop in HOPS)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's exit code."""
    parser = argparse.ArgumentParser(
        prog="bench.kernel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--pack", choices=("standard", "reference"), default="standard")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    gc.set_threshold(*COLLECT)
    if given.profile:
        with cProfile.Profile() as profile:
            found = run(given.orders, given.pack, given.batch)
        profile.dump_stats(given.profile)
    else:
        found = run(given.orders, given.pack, given.batch)
    table = Table(title=f"{found['orders']} 单 · orders ({given.pack}, {given.batch} a batch)", title_justify="left")
    for heading in ("", "µs", "log B", "fold µs", "dump B", "fold µs"):
        table.add_column(heading, justify="right")
    for hop in HOPS:
        table.add_row(hop, *(f"{value:,.1f}" for value in found[hop].values()))
    table.add_row("", f"{found['us']:,.1f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{topic} {size / given.orders:,.0f} B" for topic, size in sorted(found["sent"].items())))
    if given.json:
        given.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
