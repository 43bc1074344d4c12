"""What an order costs as everything grows: state, a hot entity, rules, workers, partitions; and what a worker costs that has nothing to do.

    python -m bench --only growth --orders 1000000

The first three are the hops' states alone, in this process, in processor time (bench/kernel.py says what is in it); the others are
the reference job on a broker. `ratio` is each row's cost by that of the first of its kind: 1.0 is flat.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import yaml

from agents.app import COLLECT
from bench import days, engines, rig, variants
from bench.kernel import HOPS, Kernel, Spent
from bench.reference import job
from bench.reference import orders as reference
from orderstream.engine import Record
from orderstream.settings import data_file
from orderstream.times import DAY

PARTS = 10
STRETCH = 2_000
"""Orders made at a time: their bodies must not fill the memory that is measured."""
BATCH = 100
A_DAY = 1_000_000
"""Orders a day, so that windows are as full as in a shop of that size."""
HOT_SHARE = 7
"""Tenths of the orders that want one SKU."""
RULES = (1, 2, 5, 10, 20)
REGULARS = 200
"""Buyers who order again and again, so that there is something for rules to look at."""
ENGINE_ORDERS = 40_000
IDLE_S = 20.0
Row = dict[str, Any]
Change = Callable[[int, bytes], bytes]


def measure(asked: variants.Asked) -> Iterator[Row]:
    """All of it."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    try:
        yield from _compared("state", state(asked))
        yield from _compared("hot", hot(asked))
        yield from _compared("rules", rules(asked))
    finally:
        gc.set_threshold(*before)
    yield from on_a_broker(asked)
    yield idle(asked)


def _compared(what: str, rows: Iterable[Row]) -> Iterator[Row]:
    first: float | None = None
    for row in rows:
        first = first or row["cpu_us"]
        yield {"engine": "orderstream", "what": what, **row, "ratio": round(row["cpu_us"] / first, 3)}


# -- the kernel alone


def state(asked: variants.Asked) -> Iterator[Row]:
    """The standard pack, every order by another buyer, in tenths: does the last cost what the first did, and what is kept."""
    part = max(BATCH, asked.orders // PARTS)
    # the first orders of a process pay for what it meets for the first time
    Run(data_file("rules/standard"), "standard").feed(0, STRETCH // 10)
    run = Run(data_file("rules/standard"), "standard")
    empty = rig.memory(os.getpid()).anonymous
    for number in range(PARTS):
        asked.say(f"内核 kernel: {number * part:,} – {(number + 1) * part:,}")
        spent = run.feed(number, part)
        gc.collect()
        held = max(0, rig.memory(os.getpid()).anonymous - empty)
        entries = run.kernel.line.detect._detector.entries  # noqa: SLF001  the gauge's own source
        yield {
            "orders": (number + 1) * part,
            "cpu_us": round(sum(spent.values()) / part * 1e6, 1),
            **{f"{hop}_us": round(spent[hop] / part * 1e6, 1) for hop in HOPS},
            "entries": entries,
            "bytes_per_entry": round(held / max(1, entries)),
            "bytes_per_order": round(held / ((number + 1) * part)),
        }


def hot(asked: variants.Asked) -> Iterator[Row]:
    """The reference pack with the scenario's own articles, then with one code in seven of ten orders."""

    def wanted(number: int, order: bytes) -> bytes:
        if number % 10 >= HOT_SHARE:
            return order
        read = orjson.loads(order)
        read["lines"][0]["code"] = hottest
        return orjson.dumps(read)

    hottest = _hottest()
    for share, change in ((0.0, None), (HOT_SHARE / 10, wanted)):
        asked.say(f"内核 kernel: {share:.0%} 单同一 SKU · of one SKU")
        yield {"hot": share, **_several(asked, job.HERE / "pack", "reference", change)}


def rules(asked: variants.Asked) -> Iterator[Row]:
    """So many sums over a user's orders, of windows from 1 to 20 minutes; the same two hundred buyers all the time."""

    def regular(number: int, order: bytes) -> bytes:
        return orjson.dumps({**orjson.loads(order), "user": f"u-{number % REGULARS}"})

    for number in RULES:
        asked.say(f"内核 kernel: 每个买家 {number} 条规则 · rules for each user")
        with TemporaryDirectory(prefix="orderstream-bench-") as folder:
            _write_rules(Path(folder), number)
            yield {"rules": number, **_several(asked, Path(folder), "reference", regular)}


def _several(asked: variants.Asked, folder: Path, pack: str, change: Change | None) -> Row:
    """The least of `times` runs, and at least three: what disturbs only ever adds."""
    part = min(asked.orders, 20_000)
    found = []
    for _ in range(max(3, asked.times)):
        spent = Run(folder, pack, change).feed(0, part)
        found.append({hop: spent[hop] / part * 1e6 for hop in HOPS})
    least = min(found, key=lambda one: sum(one.values()))
    return {"orders": part, "cpu_us": round(sum(least.values()), 1), **{f"{hop}_us": round(us, 1) for hop, us in least.items()}}


class Run:
    """A kernel that is fed in parts, and whose changelogs are forgotten."""

    def __init__(self, folder: Path, pack: str, change: Change | None = None) -> None:
        self._pack, self._change = pack, change
        self._spent = Spent()
        self.kernel = Kernel(pack, self._spent, folder)
        self._stretch = 0
        self._made = 0

    def feed(self, number: int, orders: int) -> dict[str, float]:
        """Part `number` of the day; processor time (s) by hop."""
        before = dict(self._spent.seconds)
        at = days.START + number * orders * DAY // A_DAY
        # all of one size: a stretch's orders and buyers follow from its number
        size = orders // -(-orders // STRETCH)
        for made in range(0, orders - size + 1, size):
            for batch in self._batches(at + made * DAY // A_DAY, size):
                self.kernel.feed(batch)
                for log in self.kernel.logs.values():
                    log.clear()
            self._stretch += 1
        return {hop: self._spent.seconds[hop] - before.get(hop, 0.0) for hop in HOPS}

    def _batches(self, start: int, size: int) -> Iterator[Sequence[Record]]:
        record = self.kernel.record
        shop = days.stretch(self._stretch, size, start=start, span=size * DAY // A_DAY, cohort=self._stretch)
        if self._pack == "standard":
            for topic, key, value in days.reference_records(shop, 0, first=self._stretch == 0):
                yield [record(topic, key, value, ())]
            by_topic: dict[str, list[Record]] = {}
            for sent in days.raw_records(shop, self._stretch):
                waiting = by_topic.setdefault(sent.topic, [])
                waiting.append(record(sent.topic, sent.key, sent.value, sent.headers))
                if len(waiting) >= BATCH:
                    yield by_topic.pop(sent.topic)
            yield from by_topic.values()
            return
        waiting = []
        for key, value in filter(None, map(days.of_reference_job, shop.deliveries)):
            self._made += 1
            waiting.append(record(job.RAW, key, self._change(self._made, value) if self._change else value, ()))
            if len(waiting) >= BATCH:
                yield waiting
                waiting = []
        if waiting:
            yield waiting


def _hottest() -> str:
    """A code of the simulated shop."""
    shop = days.stretch(0, 10, start=days.START, span=DAY, cohort=0)
    key_value = next(filter(None, map(days.of_reference_job, shop.deliveries)))
    code: str = orjson.loads(key_value[1])["lines"][0]["code"]
    return code


def _write_rules(folder: Path, number: int) -> None:
    """A pack of so many sums that never reach their limit."""
    policy = yaml.safe_load((job.HERE / "pack" / "policy.yaml").read_text())
    (folder / "policy.yaml").write_text(yaml.safe_dump({**policy, "combinations": []}, allow_unicode=True))
    told = yaml.safe_load((job.HERE / "pack" / "address-sum.yaml").read_text())

    def example(says: str, price: str, second: str) -> Row:
        line = {"id": "1", "code": "c1", "quantity": 1, "price": price}
        order = {"id": "A", "times": 2, "every": "1s", "buyer": {"id": "u"}, "lines": [line]}
        return {"says": says, "orders": [order], "expect": {"A2": second}}

    for n in range(1, number + 1):
        rule = {
            **told,
            "id": f"sum-{n:02d}",
            "on": ["user"],
            "within": f"{n * 20 // number or 1}m",
            "measure": {"sum": "total", "above": 100_000_000, "currency": "CNY"},
            "examples": [example("fires", "500000.01", "fired"), example("silent", "500000.00", "silent")],
        }
        (folder / f"sum-{n:02d}.yaml").write_text(yaml.safe_dump(rule, allow_unicode=True))


# -- on a broker


def on_a_broker(asked: variants.Asked) -> Iterator[Row]:
    """One worker and two; 8 partitions and 64; 200 orders a second by full load. Each in turn, as often as asked for."""
    whole = engines.job(reference.make(min(asked.orders, ENGINE_ORDERS)), reference.catalogue())
    few = engines.job(reference.make(engines.FIRST + int(200 * (asked.warm + asked.seconds))), reference.catalogue())
    engine = engines.ours()
    for number in range(asked.times):
        alone: float | None = None
        for workers, partitions in ((1, 8), (2, 8), (2, 64)):
            asked.say(f"{workers} 进程 workers, {partitions} 分区 partitions ({number + 1}/{asked.times})")
            with asked.line() as line:
                row = engines.throughput(line, engine, whole, workers, partitions)
            # the start of a process is not what an order costs
            cost = row["cpu_us_once_started"]
            alone = alone or cost
            yield {**row, "what": "wider", "workers": workers, "partitions": partitions, "ratio": round(cost / alone, 3)}
        asked.say("200 单/秒 · orders/s")
        with asked.line() as line:
            row = engines.paced(line, engine, few, 200, asked.warm)
        yield {**row, "what": "low load", "ratio": round(row["cpu_us"] / cost, 2)}


def idle(asked: variants.Asked) -> Row:
    """A worker with the standard pack and nothing to do: its share of a core."""
    asked.say("空闲进程 · an idle worker")
    with asked.line() as line:
        line.prepare(data_file("rules/standard"))
        pid = line.worker("worker-1").pid
        asyncio.run(line.until_ready(["worker-1"], 60))
        time.sleep(5)
        used, began = rig.processor(pid), time.monotonic()
        time.sleep(IDLE_S)
        share = (rig.processor(pid) - used) / (time.monotonic() - began)
        size = rig.memory(pid).rss
    return {
        "engine": "orderstream",
        "what": "idle",
        "orders": 0,
        "core_percent": round(share * 100, 2),
        "memory_mb": round(size / 1e6),
    }
