"""A worker killed with a full day of window state, and started again: how long until it works, and what it holds in memory.

    python -m bench.recovery [--orders 1000000] [--pack standard|reference] [--workers 1] [--times 1] [--keep FOLDER | --reuse FOLDER]

A day of orders is written to the raw topics as fast as the broker takes them, and two workers fold them. Then `--workers` of them
are started on that state, killed (SIGKILL), and started again, `--times` times over. Measured from the start of the processes:

    folded   the changelogs have been read (the worker's own figure, without its start and the group's rebalance)
    ready    every partition is held by a worker that takes input again: its part of the windows shows in /metrics
    first    the first verdict on the orders that were sent while nobody was there, by the broker's time
    all      the last of them
    cpu      processor time of the workers until ready: on a machine that others use too, the figure to compare

--reuse measures on what `--keep` left, as long as the changelogs' format is the same: a fill takes minutes, a restart seconds.
A group waits for a member that was killed until its session is over (10 s): `--gently` ends the workers by SIGTERM instead, as a
rolling restart does. `--spy FILE` has py-spy (pip install py-spy) draw where the first worker's time went.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from bench import days, rig
from bench.days import Sent
from orderstream.demo.processes import terminable
from orderstream.errors import BadFile, RunFailed, UserError
from orderstream.settings import data_file
from orderstream.simulators import Scenario, make
from orderstream.simulators.assortment import catalogue as articles
from orderstream.times import DAY

HERE = Path(__file__).parent
STRETCHES = 24
"""The day is made hour by hour: a million orders at once would be gigabytes of Python."""
PROBES = 40
"""Orders that are sent while no worker is there."""
ARCHIVES_REST_S = 15.0
"""Without a byte for so long, they are done."""
FILL_QUIET_S = 120.0
"""Without progress for this long, the fill has failed."""
RESTART_S = 900.0
"""A restart that takes longer has failed."""
TIMES = ("folded_s", "ready_s", "first_s", "all_s", "processor_s")
HOPS = ("normalise", "detect", "route")


class Filled(msgspec.Struct):
    """What a kept folder holds. restarts: measured there so far, each of which added its probes; empty: bytes of a worker's
    memory before its first order.
    """

    orders: int
    records: int
    pack: Literal["standard", "reference"]
    empty: int
    seconds: float
    restarts: int = 0


class Recovery:
    """One fill and its restarts."""

    def __init__(self, line: rig.Rig, console: Console, filled: Filled) -> None:
        self.line = line
        self.console = console
        self.filled = filled

    # -- filling

    def prepare(self) -> None:
        pack = data_file("rules/standard") if self.filled.pack == "standard" else HERE / "reference" / "pack"
        self.line.prepare(pack)
        if self.filled.pack == "reference":
            self.line.make_topics(["ref.raw", "ref.released", "ref.review", "ref.frozen"], self.line.settings.partitions)
            codes = {
                code["code"]: article["sku"]
                for article in articles()
                for code in article["codes"]
                if code["channel"] == "api" and "shop" not in code
            }
            (self.line.home / "catalogue.json").write_bytes(orjson.dumps(codes))

    async def fill(self) -> None:
        """Writes the day and waits until two workers have folded it."""
        names = ("fill-1", "fill-2")
        started = time.monotonic()
        for name in names:
            self._worker(name)
        await self.line.until_ready(names, RESTART_S)
        self.filled.empty = sum(rig.memory(self.line.watched[name].pid).rss for name in names) // len(names)
        async with rig.feeding(self.line) as feed:
            for number in range(STRETCHES):
                records, told = await asyncio.to_thread(self._hour, number)
                await feed.tell(told)
                for record in records:
                    await feed.send(record)
                self._progress(names, feed.sent)
                self.line.check()
            await feed.flush()
            self.filled.records = feed.sent
        await self._folded(names)
        self.filled.seconds = time.monotonic() - started
        for name in names:
            self.line.end(name)

    def _hour(self, number: int) -> tuple[list[Sent], list[tuple[str, bytes, bytes]]]:
        """One stretch of the day: buyers of its own, so that every order brings its own entities, as the worst day would."""
        shop = days.stretch(
            number,
            self.filled.orders // STRETCHES,
            start=days.START + number * DAY // STRETCHES,
            span=DAY // STRETCHES,
            cohort=number,
            seven=self.filled.pack != "reference",
        )
        if self.filled.pack == "reference":
            return list(_reference_raw(shop)), []
        return list(days.raw_records(shop, number)), list(days.reference_records(shop, number, first=number == 0))

    async def _folded(self, names: Sequence[str]) -> None:
        """Until every record has been normalised, nothing is left to read, and no order waits for an answer."""
        done, since = -1.0, time.monotonic()
        calm = 0
        while calm < 3:
            await asyncio.sleep(2)
            self.line.check()
            found = await asyncio.to_thread(lambda: [s for n in names if (s := self.line.scrape(self.line.watched[n]))])
            normalised = sum(s.total("orderstream_orders_total", hop="normalise") for s in found)
            routed = sum(s.total("orderstream_orders_total", hop="route") for s in found)
            waiting = sum(s.total("orderstream_consumer_lag") + s.total("orderstream_pending_dossiers") for s in found)
            calm = calm + 1 if normalised >= self.filled.records and waiting == 0 else 0
            if normalised + routed != done:
                done, since = normalised + routed, time.monotonic()
                if int(since) % 10 < 2:
                    self._progress(names, self.filled.records)
            elif calm == 0 and time.monotonic() - since > FILL_QUIET_S:
                raise RunFailed(
                    f"{FILL_QUIET_S:.0f} 秒没有进展 · nothing has moved for {FILL_QUIET_S:.0f} s: {normalised:.0f} of "
                    f"{self.filled.records} records are read"
                )

    def _progress(self, names: Sequence[str], sent: int) -> None:
        found = [s for n in names if (s := self.line.scrape(self.line.watched[n])) is not None]
        normalised = sum(s.total("orderstream_orders_total", hop="normalise") for s in found)
        size = sum(rig.memory(self.line.watched[n].pid).rss for n in names)
        self._say(f"写入 sent {sent}  已读 normalised {normalised:.0f}  内存 memory {size / 1e9:.2f} GB")

    # -- restarting

    async def settle(self, names: Sequence[str]) -> None:
        """Workers on the filled state, so that a kill ends one that had been at work, until they have dumped what is due.

        A day's orders come in a day, here in minutes: dumps have not kept up with them.
        """
        for name in names:
            self._worker(name)
        await self.line.until_ready(names, RESTART_S)
        size, since = -1, time.monotonic()
        while time.monotonic() - since < ARCHIVES_REST_S:
            await asyncio.sleep(1)
            self.line.check()
            now = sum(self.line.disk(f"-{hop}-archive-") for hop in HOPS)
            if now != size:
                size, since = now, time.monotonic()
        self._say(f"归档 archives {size / 1e6:.0f} MB")

    async def restart(self, names: Sequence[str], number: int, *, gently: bool, spy: Path | None) -> dict[str, Any]:
        """Ends the workers `names`, sends probes, starts as many and measures. Their names are taken anew."""
        line = self.line
        before = [rig.memory(line.watched[name].pid) for name in names]
        entries = await asyncio.to_thread(self._entries, names)
        for name in names:
            (line.end if gently else line.kill)(name)
        probes = self._probes()
        verdicts = rig.Verdicts({record.order for record in probes})
        async with rig.feeding(line) as feed, rig.reading(line, verdicts):
            for record in probes:
                await feed.send(record)
            await feed.flush()
            spawned = time.time()
            for name in names:
                self._worker(name)
            with _spy(line.watched[names[0]].pid, spy):
                ready = await line.until_ready(names, RESTART_S)
                used = sum(rig.processor(line.watched[name].pid) for name in names)
                while len(verdicts.first) < len(verdicts.keep or ()) and time.time() - spawned < RESTART_S:
                    line.check()
                    await asyncio.sleep(0.05)
        if not verdicts.first:
            raise RunFailed(f"重启 {RESTART_S:.0f} 秒后没有判定 · no verdict {RESTART_S:.0f} s after the restart")
        # what a recovery allocated in passing goes back within seconds
        await asyncio.sleep(5)
        after = [rig.memory(line.watched[name].pid) for name in names]
        self.filled.restarts += 1
        came = sorted(at / 1000 - spawned for at in verdicts.first.values())
        state = sum(m.rss for m in after) - self.filled.empty * len(names)
        scrapes = [s for name in names if (s := line.scrape(line.watched[name])) is not None]
        return {
            "number": number,
            "workers": len(names),
            "ended": "SIGTERM" if gently else "SIGKILL",
            "folded_s": max(s.total("orderstream_recovery_seconds") for s in scrapes),
            "folded_records": sum(s.total("orderstream_recovered_records_total") for s in scrapes),
            "ready_s": ready,
            "first_s": came[0],
            "all_s": came[-1] if len(came) == len(verdicts.keep or ()) else None,
            "processor_s": used,
            "rss_before": sum(m.rss for m in before),
            "rss_after": sum(m.rss for m in after),
            "rss_peak": sum(m.peak for m in after),
            "entries_before": entries,
            "entries_after": await asyncio.to_thread(self._entries, names),
            "bytes_per_order": state / self.filled.orders,
            "bytes_per_entry": state / max(1.0, entries),
            "changelog_bytes": {hop: line.disk(f"-{hop}-changelog-") for hop in HOPS},
        }

    def _worker(self, name: str) -> None:
        if self.filled.pack == "standard":
            self.line.worker(name)
            return
        env = {
            "BENCH_BROKER": self.line.address,
            "BENCH_APP": rig.PREFIX_OF_BENCH.rstrip("."),
            "BENCH_CATALOGUE": str(self.line.home / "catalogue.json"),
            "BENCH_STATE_OWN": str(self.line.home / name),
            "BENCH_METRICS": "1",
        }
        self.line.start(name, [str(HERE / "reference" / "job.py"), "worker"], env)

    def _entries(self, names: Sequence[str]) -> float:
        found = [self.line.scrape(self.line.watched[name]) for name in names]
        return sum(s.total("orderstream_window_entries") for s in found if s is not None)

    def _probes(self) -> list[Sent]:
        """New orders, received in the minute after the day."""
        number = STRETCHES + self.filled.restarts
        shop = make(
            PROBES,
            rate=1.0,
            seed=1,
            start=days.START + DAY,
            # numbers that no stretch has: a stretch's follow from its place
            first_order=self.filled.orders + (self.filled.restarts + 1) * PROBES,
            first_buyer=2 * self.filled.orders + number * 2 * PROBES,
        )
        if self.filled.pack == "reference":
            return list(_reference_raw(shop))
        return [record for record in days.raw_records(shop, number) if record.decided]

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def _reference_raw(shop: Scenario) -> Iterator[Sent]:
    for delivery in shop.deliveries:
        told = days.of_reference_job(delivery)
        if told is not None:
            key, value = told
            yield Sent(shop.start + delivery.at, "ref.raw", key, value, [], f"ref:ref:{key.decode()}")


@contextlib.contextmanager
def _spy(pid: int, file: Path | None) -> Iterator[None]:
    """py-spy beside a process while this block runs, its samples as collapsed stacks in a file."""
    if file is None:
        yield
        return
    beside = Path(sys.executable).with_name("py-spy")
    command = str(beside) if beside.exists() else shutil.which("py-spy")
    if command is None:
        raise BadFile("没有 py-spy：pip install py-spy · there is no py-spy: pip install py-spy")
    spying = subprocess.Popen(
        [command, "record", "--pid", str(pid), "--format", "raw", "--rate", "100", "--output", str(file), "--duration", "900"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        spying.send_signal(signal.SIGINT)
        spying.wait(60)


def show(console: Console, filled: Filled, found: Sequence[dict[str, Any]]) -> None:
    """The table of the restarts."""
    table = Table(title=f"{filled.orders} 单后重启 · restarts with {filled.orders} orders ({filled.pack})", title_justify="left")
    for heading in (
        "workers",
        "ended",
        "folded s",
        "ready s",
        "first s",
        "all s",
        "cpu s",
        "before",
        "after",
        "peak",
        "B/order",
        "B/entry",
    ):
        table.add_column(heading, justify="right")
    for one in found:
        sizes = [f"{one[name] / 1e9:.2f} GB" for name in ("rss_before", "rss_after", "rss_peak")]
        times = ["—" if one[name] is None else f"{one[name]:.1f}" for name in TIMES]
        table.add_row(
            str(one["workers"]), one["ended"], *times, *sizes, f"{one['bytes_per_order']:.0f}", f"{one['bytes_per_entry']:.0f}"
        )
    console.print(table)
    if found:
        last = found[-1]
        logs = "  ".join(f"{hop} {size / 1e6:.0f} MB" for hop, size in last["changelog_bytes"].items())
        console.print(
            f"窗口条目 entries {last['entries_before']:.0f} → {last['entries_after']:.0f}  空进程 an empty worker "
            f"{filled.empty / 1e6:.0f} MB  变更日志 changelogs {logs}",
            highlight=False,
            soft_wrap=True,
        )


def _home(asked: argparse.Namespace) -> tuple[Path, Filled | None]:
    """The folder to work in, and what it holds already. Raises BadFile."""
    if asked.reuse is not None:
        try:
            return asked.reuse, msgspec.json.decode((asked.reuse / "filled.json").read_bytes(), type=Filled)
        except (OSError, msgspec.DecodeError):
            raise BadFile(f"{asked.reuse} 不是 --keep 留下的目录 · {asked.reuse} is no folder that --keep has left") from None
    if asked.keep is not None:
        if asked.keep.exists() and any(asked.keep.iterdir()):
            raise BadFile(f"{asked.keep} 不是空目录，可用 --reuse · {asked.keep} is not empty: --reuse measures on it")
        return asked.keep, None
    return Path(tempfile.mkdtemp(prefix="orderstream-recovery-")), None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--pack", choices=("standard", "reference"), default="standard")
    parser.add_argument("--workers", type=int, default=1, help="how many hold the state when it is measured")
    parser.add_argument("--times", type=int, default=1, help="restarts")
    parser.add_argument("--gently", action="store_true", help="end by SIGTERM")
    parser.add_argument("--keep", type=Path, help="an empty folder that the filled broker stays in")
    parser.add_argument("--reuse", type=Path, help="such a folder")
    parser.add_argument("--out", type=Path, default=Path("build/recovery.json"))
    parser.add_argument("--spy", type=Path, help="collapsed stacks of the first worker, by py-spy")
    asked = parser.parse_args()
    rig.quiet()
    console = rig.console()
    try:
        home, held = _home(asked)
    except BadFile as error:
        console.print(error.sentence, style="red")
        return error.code
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    filled = held or Filled(asked.orders - asked.orders % STRETCHES, 0, asked.pack, 0, 0.0)
    clean = False
    try:
        with terminable(), rig.Rig(home, heap_mb=1024, fresh=held is None) as line:
            run = Recovery(line, console, filled)
            if held is None:
                run.prepare()
                asyncio.run(run.fill())
                console.print(f"{filled.seconds:.0f} s 填入 · filled in {filled.seconds:.0f} s", highlight=False)
            names = [f"worker-{n}" for n in range(1, asked.workers + 1)]
            asyncio.run(run.settle(names))
            for number in range(asked.times):
                found.append(asyncio.run(run.restart(names, number, gently=asked.gently, spy=asked.spy)))
                (home / "filled.json").write_bytes(msgspec.json.encode(filled))
            errors = line.errors()
        clean = True
    except UserError as error:
        console.print(error.sentence, style="red", markup=False)
        return error.code
    except KeyboardInterrupt:
        clean = True
        return 130
    finally:
        if clean and asked.keep is None and held is None:
            shutil.rmtree(home, ignore_errors=True)
        elif not clean:
            console.print(f"日志 · logs: {home / 'logs'}", highlight=False, soft_wrap=True)
    asked.out.write_bytes(orjson.dumps({**msgspec.to_builtins(filled), "restarts": found}, option=orjson.OPT_INDENT_2))
    show(console, filled, found)
    for logged in errors[:10]:
        console.print(logged, highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
