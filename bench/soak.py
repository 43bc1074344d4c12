"""An hour at half capacity, in which the simulated shop lives two years: is memory flat once every horizon has passed?

    python -m bench.soak [--minutes 60] [--days 720] [--rate N] [--out FOLDER] [--census]

Raw records go straight to the raw topics with their own received_at, as intake would write them: intake stamps by its own clock,
and here a day lasts five seconds. Every horizon passes in the run, the longest too (180 days of a buyer's places: four times in
720 days; 60 days of order states: twelve times; 26 hours of the short windows: hundreds of times), so that what is kept reaches
its steady state within the first half, and the second half is judged. A shorter run passes as many days, with fewer orders each.

Flat: the medians of the six parts of the second half lie within 5 % of each other, for the memory of every process. The exit code
is 1 where one is not, where a line of error was logged, where lag was not near zero, or where a sampled order had no verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench import days, rig
from bench.figures import Line, Panel, flatness, percentile, picture
from orderstream.demo.processes import terminable
from orderstream.errors import RunFailed, UserError
from orderstream.settings import data_file
from orderstream.times import DAY

FLAT = 5.0
"""Per cent within which memory must stay in the second half."""
RETENTION_S = 120
"""How long the topics keep what nobody will ask for in this run; the disk is to be flat too."""
BACKLOG = 20_000
"""Orders whose backlog shows the capacity: a quarter of a minute's work."""
BACKLOG_A_DAY = 4_000
SAMPLE = 20
"""Of so many orders one has its latency taken."""
SETTLE_S = 60.0
WORKERS = ("worker-1", "worker-2")


class Soak:
    """One run. rate: orders a second, None: half of what a backlog shows."""

    def __init__(self, line: rig.Rig, console: Console, minutes: float, length: int, rate: float | None, *, census: bool) -> None:
        self.line = line
        self.console = console
        self.minutes = minutes
        self.days = length
        self.rate = rate or 0.0
        self.census = census
        self.capacity: float | None = None
        self.samples: list[dict[str, Any]] = []
        self.behind = 0.0
        """The most (s) by which sending ever was late: the generator's own weakness, not the line's."""
        self._verdicts = rig.Verdicts(set())
        self._asked: dict[str, int] = {}
        self._taken: list[tuple[int, int]] = []
        self._day = 0
        self._cpu: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Capacity, then the run, then the last verdicts."""
        async with rig.feeding(self.line) as feed, rig.reading(self.line, self._verdicts):
            if not self.rate:
                await self._measure(feed)
            else:
                self._start()
                await self.line.until_ready(WORKERS, SETTLE_S)
            self._say(
                f"{self.rate:.0f} 单/秒，{self.days} 天于 {self.minutes:g} 分钟 · {self.rate:.0f} orders/s, {self.days} days in "
                f"{self.minutes:g} min ({self.days * 1440 / self.minutes:.0f} times the clock)"
            )
            started = time.monotonic()
            watching = asyncio.create_task(self._watch(started, feed))
            living = asyncio.create_task(self._live(feed, started))
            try:
                # watching ends by itself only where a process has ended: no use in going on for an hour
                await asyncio.wait({watching, living}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (watching, living):
                    if not task.done():
                        task.cancel()
                await asyncio.wait({watching, living})
            for task in (watching, living):
                if not task.cancelled():
                    task.result()
            await self._settle()

    def _start(self) -> None:
        for name in WORKERS:
            if self.census:
                self.line.start(name, ["-m", "bench.census"])
            else:
                self.line.worker(name)
        self.line.start("erp", ["-m", "orderstream.consumers.erp"])

    async def _measure(self, feed: rig.Feed) -> None:
        """Capacity: the rate of verdicts in the middle of a backlog that the workers find when they start."""
        self._say(f"积压 {BACKLOG} 单，测处理能力 · a backlog of {BACKLOG} orders shows the capacity")
        self._verdicts.keep = None
        for number in range(BACKLOG // BACKLOG_A_DAY):
            records, told = await asyncio.to_thread(days.day, number, BACKLOG_A_DAY)
            await feed.tell(told)
            for record in records:
                await feed.send(record)
        await feed.flush()
        self._day = BACKLOG // BACKLOG_A_DAY
        self._start()
        seen, since = 0, time.monotonic()
        # rejects have no verdict, a few of each day
        while self._verdicts.seen < BACKLOG * 0.98 or self._verdicts.seen != seen:
            if self._verdicts.seen != seen:
                seen, since = self._verdicts.seen, time.monotonic()
            if time.monotonic() - since > SETTLE_S:
                raise RunFailed(
                    f"{SETTLE_S:.0f} 秒没有新判定 · after {SETTLE_S:.0f} s without a verdict {len(self._verdicts.first)} of {BACKLOG} orders have one"
                )
            self.line.check()
            await asyncio.sleep(1)
        at = sorted(self._verdicts.first.values())
        low, high = at[len(at) // 10], at[len(at) * 9 // 10]
        self.capacity = len(at) * 0.8 / max(0.001, (high - low) / 1000)
        self.rate = self.capacity / 2
        self._verdicts.first.clear()
        self._verdicts.keep = set()
        self._say(f"处理能力 {self.capacity:.0f} 单/秒 · capacity {self.capacity:.0f} orders/s")

    async def _live(self, feed: rig.Feed, started: float) -> None:
        per_day = max(1, round(self.rate * self.minutes * 60 / self.days))
        span = self.minutes * 60 / self.days
        # an order's number follows from its day: those of the backlog must not come again
        first = max(self._day, math.ceil(self._day * BACKLOG_A_DAY / per_day))
        following = asyncio.create_task(asyncio.to_thread(days.day, first, per_day))
        for number in range(self.days):
            records, told = await following
            following = asyncio.create_task(asyncio.to_thread(days.day, first + number + 1, per_day))
            await feed.tell(told)
            begins = started + number * span
            midnight = days.START + (first + number) * DAY
            for index, record in enumerate(records):
                due = begins + (record.at - midnight) / DAY * span
                wait = due - time.monotonic()
                if wait > 0.002:
                    await asyncio.sleep(wait)
                self.behind = max(self.behind, -wait)
                future = await feed.send(record)
                if index % SAMPLE == 0 and record.decided:
                    self._sample(record.order, future)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    def _sample(self, order: str, future: asyncio.Future[Any]) -> None:
        assert self._verdicts.keep is not None
        if order in self._asked:
            return
        self._verdicts.keep.add(order)

        def written(done: asyncio.Future[Any]) -> None:
            self._asked[order] = done.result().timestamp

        future.add_done_callback(written)

    def _latencies(self) -> list[float]:
        """Of the sampled orders whose first verdict has come since the last call: ms from the raw record's append to the verdict's."""
        assert self._verdicts.keep is not None
        out = []
        for order in [o for o in self._asked if o in self._verdicts.first]:
            out.append(float(max(0, self._verdicts.first.pop(order) - self._asked.pop(order))))
            self._verdicts.keep.discard(order)
        return out

    async def _watch(self, started: float, feed: rig.Feed) -> None:
        interval = max(1.0, self.minutes * 60 / 360)
        due = started
        half = False
        while True:
            sample = await asyncio.to_thread(self._look, time.monotonic() - started, feed.sent)
            took = self._latencies()
            sample["latency_ms"] = {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "of": len(took)}
            self.samples.append(sample)
            self.line.check()
            if len(self.samples) % 30 == 1:
                self._line(sample)
            if self.census and not half and sample["minutes"] > self.minutes * 0.55:
                half = True
                self._count()
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _count(self) -> None:
        """Asks the workers for a census of their objects."""
        for name in WORKERS:
            self.line.watched[name].child.process.send_signal(signal.SIGUSR2)

    def _look(self, seconds: float, sent: int) -> dict[str, Any]:
        memory = {name: rig.memory(pid) for name, pid in self.line.pids().items()}
        scrapes = {name: self.line.scrape(watched) for name, watched in self.line.watched.items()}
        workers = [s for name, s in scrapes.items() if s is not None and name in WORKERS]

        def of(metric: str) -> float:
            return sum(scrape.total(metric) for scrape in workers)

        erp = scrapes.get("erp")
        return {
            "minutes": seconds / 60,
            "sent": sent,
            "rss": {name: found.rss for name, found in memory.items()},
            "anonymous": {name: found.anonymous for name, found in memory.items()},
            "cpu": self._busy(),
            "entries": of("orderstream_window_entries"),
            "pending": of("orderstream_pending_dossiers"),
            "oldest_s": max((v for s in workers for _, v in s.each("orderstream_oldest_dossier_age_seconds")), default=0.0),
            "lag": of("orderstream_consumer_lag"),
            "erp_lag": erp.total("orderstream_consumer_lag") if erp is not None else 0.0,
            "series": {name: scrape.series for name, scrape in scrapes.items() if scrape is not None},
            "disk": self.line.disk(),
            "changelogs": self.line.disk("-changelog-"),
            "verdicts": self._verdicts.seen,
        }

    def _busy(self) -> dict[str, float]:
        """Share of one processor since the last call, by process."""
        out = {}
        for name, pid in self.line.pids().items():
            used, at = rig.processor(pid), time.monotonic()
            before = self._cpu.get(name, (used, at - 1.0))
            out[name] = (used - before[0]) / (at - before[1])
            self._cpu[name] = (used, at)
        return out

    async def _settle(self) -> None:
        """Every sampled order has its verdict within a minute of the last record."""
        deadline = time.monotonic() + SETTLE_S
        while self._asked and time.monotonic() < deadline:
            self._latencies()
            await asyncio.sleep(0.5)
        if self.census:
            self._count()
            # a census of millions of objects takes its time; the report is there when the file is whole
            for name in WORKERS:
                report = self.line.home / name / "census.2"
                while not report.exists():
                    self.line.check()
                    await asyncio.sleep(0.5)

    @property
    def unanswered(self) -> int:
        return len(self._asked)

    def _line(self, s: dict[str, Any]) -> None:
        rss = "  ".join(f"{name} {size / 1e6:.0f} MB" for name, size in s["rss"].items())
        self._say(
            f"{s['minutes']:5.1f} min  {s['sent']} 条 records  {s['entries']:.0f} 条目 entries  积压 lag {s['lag']:.0f}  "
            f"p50 {s['latency_ms']['p50']:.0f} ms  p99 {s['latency_ms']['p99']:.0f} ms  {rss}  磁盘 disk {s['disk'] / 1e6:.0f} MB"
        )

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def judge(
    samples: Sequence[dict[str, Any]], minutes: float, rate: float, errors: Sequence[str], unanswered: int
) -> dict[str, Any]:
    """What the second half says: per process and for disk, entries, and series how flat; lag; lines of error; whether all is well."""
    since = minutes / 2

    def line(*path: str) -> Line:
        return along(samples, *path)

    later = [s for s in samples if s["minutes"] >= since]
    flat = {name: flatness(line("rss", name), since) for name in (samples[-1]["rss"] if samples else {})}
    beside = {
        "entries": flatness(line("entries"), since),
        "disk": flatness(line("disk"), since),
        "changelogs": flatness(line("changelogs"), since),
        "series": max((flatness(line("series", name), since) or 0.0 for name in samples[-1]["series"]), default=None)
        if samples
        else None,
    }
    lag = percentile([s["lag"] for s in later], 0.95)
    enough = bool(flat) and all(value is not None for value in flat.values())
    return {
        "flat_percent": flat,
        "beside_percent": beside,
        "lag_p95": lag,
        "lag_max": max((s["lag"] for s in later), default=0.0),
        "erp_lag_max": max((s["erp_lag"] for s in later), default=0.0),
        "oldest_wait_s": max((s["oldest_s"] for s in later), default=0.0),
        "latency_ms": {q: percentile([s["latency_ms"][q] for s in later if s["latency_ms"]["of"]], 0.5) for q in ("p50", "p99")},
        "errors": list(errors),
        "unanswered": unanswered,
        "well": enough
        and all(value is not None and value <= FLAT for value in flat.values())
        # records that one second brings, over all topics, are on their way at any moment
        and lag <= rate
        and not errors
        and not unanswered,
    }


def along(samples: Sequence[dict[str, Any]], *path: str) -> Line:
    """One figure of all samples, over the minutes; samples without it are left out."""
    out = []
    for sample in samples:
        value: Any = sample
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            out.append((float(sample["minutes"]), float(value)))
    return out


def drawn(samples: Sequence[dict[str, Any]], title: str, since: float) -> str:
    """The picture of a run."""
    last = samples[-1]
    mega = {name: [(at, v / 1e6) for at, v in along(samples, "rss", name)] for name in last["rss"]}
    disk = {name: [(at, v / 1e6) for at, v in along(samples, name)] for name in ("disk", "changelogs")}
    panels = [
        Panel("内存 MB · resident memory, MB", mega),
        Panel("窗口条目 · window entries", {"entries": along(samples, "entries")}),
        Panel("积压，记录数 · lag, records", {"lag": along(samples, "lag"), "erp": along(samples, "erp_lag")}),
        Panel(
            "从原始记录到判定 ms · raw record to verdict, ms",
            {"p50": along(samples, "latency_ms", "p50"), "p99": along(samples, "latency_ms", "p99")},
        ),
        Panel("处理器，1 为一核 · processor, 1 is one core", {name: along(samples, "cpu", name) for name in last["cpu"]}),
        Panel("Kafka 磁盘 MB · the broker's disk, MB", disk),
        Panel("指标序列数 · metric series", {name: along(samples, "series", name) for name in last["series"]}),
    ]
    return picture(title, panels, since)


def show(console: Console, found: dict[str, Any], samples: Sequence[dict[str, Any]], since: float) -> None:
    """The table and the judgement."""
    later = [s for s in samples if s["minutes"] >= since]
    table = Table(title="后一半时间 · the second half", title_justify="left")
    for heading in ("", "开始 from", "结束 to", "相差 apart", "平稳 flat"):
        table.add_column(heading, justify="right")

    def row(name: str, path: tuple[str, ...], percent: float | None, scale: float, unit: str, *, judged: bool) -> None:
        values = [v for _, v in along(later, *path)]
        ends = [f"{v / scale:.0f}{unit}" for v in (values[0], values[-1])] if values else ["—", "—"]
        verdict = "—" if not judged or percent is None else "是 yes" if percent <= FLAT else "否 NO"
        table.add_row(name, *ends, "—" if percent is None else f"{percent:.1f} %", verdict)

    for name, percent in found["flat_percent"].items():
        row(f"内存 memory {name}", ("rss", name), percent, 1e6, " MB", judged=True)
    beside = found["beside_percent"]
    row("窗口条目 entries", ("entries",), beside["entries"], 1, "", judged=False)
    row("磁盘 disk", ("disk",), beside["disk"], 1e6, " MB", judged=False)
    row("变更日志 changelogs", ("changelogs",), beside["changelogs"], 1e6, " MB", judged=False)
    console.print(table)
    console.print(
        f"积压 lag p95 {found['lag_p95']:.0f}, max {found['lag_max']:.0f} (ERP {found['erp_lag_max']:.0f})  "
        f"p50 {found['latency_ms']['p50']:.0f} ms  p99 {found['latency_ms']['p99']:.0f} ms  最久等待 oldest {found['oldest_wait_s']:.1f} s  "
        f"错误行 errors {len(found['errors'])}  无判定 without verdict {found['unanswered']}",
        highlight=False,
        soft_wrap=True,
    )
    for line in found["errors"][:10]:
        console.print(line, highlight=False, markup=False)
    console.print("平稳 · flat, level, no error" if found["well"] else "不合格 · NOT well: see above", style="bold")


def _play(asked: argparse.Namespace, console: Console) -> tuple[Soak, list[str]]:
    """The run and all its lines of error. Where a process ended by itself, that is one of them, and what was seen until then stays."""
    with (
        tempfile.TemporaryDirectory(prefix="orderstream-soak-") as folder,
        terminable(),
        rig.Rig(Path(folder), heap_mb=asked.heap) as line,
    ):
        console.print(line.broker.describe(), highlight=False, soft_wrap=True)
        line.prepare(data_file("rules/standard"))
        line.shorten(RETENTION_S)
        soak = Soak(line, console, asked.minutes, asked.days, asked.rate, census=asked.census)
        ended: list[str] = []
        try:
            asyncio.run(soak.run())
        except RunFailed as error:
            ended = [error.sentence]
        finally:
            for log in sorted((line.home / "logs").glob("*.log")):
                (asked.out / log.name).write_bytes(log.read_bytes())
        for name in WORKERS if asked.census else ():
            for census in sorted((line.home / name).glob("census.[0-9]")):
                (asked.out / f"{name}.{census.name}").write_bytes(census.read_bytes())
        return soak, [*ended, *line.errors()]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--days", type=int, default=720, help="days that pass in the run, at an even pace")
    parser.add_argument("--rate", type=float, help="orders a second; without it half the capacity that a backlog shows first")
    parser.add_argument("--heap", type=int, default=512, help="the broker's heap, MB")
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="folder of soak.json, soak.svg and the logs")
    parser.add_argument(
        "--census", action="store_true", help="count the workers' objects at 55 %% and at the end: what has grown"
    )
    asked = parser.parse_args()
    rig.quiet()
    asked.out.mkdir(parents=True, exist_ok=True)
    console = rig.console()
    try:
        soak, errors = _play(asked, console)
    except UserError as error:
        console.print(error.sentence, style="red", markup=False)
        return error.code
    except KeyboardInterrupt:
        return 130
    found = judge(soak.samples, asked.minutes, soak.rate, errors, soak.unanswered)
    report = {
        "minutes": asked.minutes,
        "days": asked.days,
        "capacity": soak.capacity,
        "rate": soak.rate,
        "behind_s": soak.behind,
        **found,
        "samples": soak.samples,
    }
    (asked.out / "soak.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    title = f"{soak.rate:.0f} 单/秒 orders/s, {asked.days} 天 days / {asked.minutes:g} min"
    if soak.samples:
        (asked.out / "soak.svg").write_text(drawn(soak.samples, title, asked.minutes / 2))
    show(console, found, soak.samples, asked.minutes / 2)
    console.print(f"{asked.out / 'soak.json'}  {asked.out / 'soak.svg'}", highlight=False)
    return 0 if found["well"] else 1


if __name__ == "__main__":
    sys.exit(main())
