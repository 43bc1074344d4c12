"""What `python -m bench` measures: each variant a function from what was asked for to rows of figures.

A row's common figures: `per_second` (orders), `p50_ms` … `p99_ms`, `cpu_us` (of our processes, an order) and `broker_us`,
`memory_mb` (all processes at their largest), `agreement` (share of orders judged as the oracle, the backtest or the scenario says).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import uvloop

from bench import days, engines, overload, recovery, rig
from bench.days import Sent
from bench.figures import percentile
from bench.reference import orders as reference
from orderstream import kafka
from orderstream.errors import RunFailed
from orderstream.settings import data_file
from orderstream.simulators import Scenario, make, write_catalogue, write_replay
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import Expected

Row = dict[str, Any]
WORKERS = ("worker-1", "worker-2")
STOPPED = frozenset({"review", "frozen"})
LIVE_S = 1.0
"""A verdict within so long of its order is level with the stream."""
DONE_S = 1_800.0


class Asked(NamedTuple):
    """What a run is to do. rates: orders a second of the paced parts, each for `seconds` after `warm` seconds of the same."""

    orders: int
    rates: Sequence[float]
    seconds: float
    warm: float
    times: int
    engines: Sequence[engines.Engine]
    say: Callable[[str], None]

    @contextlib.contextmanager
    def line(self) -> Iterator[rig.Rig]:
        """A fresh broker, gone with its folder at the end; kept where something went wrong."""
        home = Path(tempfile.mkdtemp(prefix="orderstream-bench-"))
        try:
            with rig.Rig(home, heap_mb=1024) as line:
                yield line
        except RunFailed:
            self.say(f"日志 · logs: {home / 'logs'}")
            raise
        shutil.rmtree(home, ignore_errors=True)


def job(asked: Asked) -> Iterator[Row]:
    """The reference job: a backlog, then each rate; every engine in turn, as often as asked for."""
    yield from _job(asked, hot=0.3, rates=asked.rates)


def hot(asked: Asked) -> Iterator[Row]:
    """The reference job's backlog where 70 % of the orders want one SKU; the ordinary one before it, to compare with."""
    yield from ({**row, "hot": 0.3} for row in _job(asked, hot=0.3, rates=()))
    yield from ({**row, "hot": 0.7} for row in _job(asked, hot=0.7, rates=()))


def _job(asked: Asked, *, hot: float, rates: Sequence[float]) -> Iterator[Row]:
    asked.say("生成订单与答案 · making orders and answers")
    whole = engines.job(reference.make(asked.orders, hot=hot), reference.catalogue())
    parts = {engine.share: whole.part(max(1_000, int(asked.orders * engine.share))) for engine in asked.engines}
    for number in range(asked.times):
        for engine in asked.engines:
            asked.say(f"{engine.name}: {len(parts[engine.share].orders)} 单积压 · a backlog ({number + 1}/{asked.times})")
            with _survived(asked, engine), asked.line() as line:
                yield engines.throughput(line, engine, parts[engine.share])
    for rate in rates:
        count = engines.FIRST + int(rate * asked.warm) + int(rate * asked.seconds)
        part = engines.job(reference.make(count, hot=hot), reference.catalogue())
        for number in range(asked.times):
            for engine in (one for one in asked.engines if one.paced):
                asked.say(f"{engine.name}: {rate:g} 单/秒 · orders/s for {asked.seconds:g} s ({number + 1}/{asked.times})")
                with _survived(asked, engine), asked.line() as line:
                    yield engines.paced(line, engine, part, rate, asked.warm)


@contextlib.contextmanager
def _survived(asked: Asked, engine: engines.Engine) -> Iterator[None]:
    """A peer that fails is told of, and the run goes on; our own failure is one."""
    try:
        yield
    except RunFailed as error:
        if engine.name in engines.OURS:
            raise
        asked.say(f"{engine.name}: {error.sentence}")


def pack(asked: Asked) -> Iterator[Row]:
    """The whole standard pack on a shop's day, as a backlog: verdicts a second, equal to the backtest's byte for byte."""
    for _ in range(asked.times):
        with asked.line() as line:
            asked.say(f"标准规则包，{asked.orders} 单积压 · standard pack, a backlog")
            yield _worked(asked, line, 0, 0.0)


def backlog(asked: Asked) -> Iterator[Row]:
    """The same, while orders go on coming at the first rate: how long until verdicts are level with the stream."""
    rate = asked.rates[0] if asked.rates else 200.0
    with asked.line() as line:
        asked.say(f"{asked.orders} 单积压，同时 {rate:g} 单/秒 · a backlog while orders go on coming")
        yield _worked(asked, line, max(200, int(rate * asked.seconds)), rate)


def _worked(asked: Asked, line: rig.Rig, later: int, rate: float) -> Row:
    """later: records that come at the rate while the others are worked off, the rest of the same day.

    Of the next day they would not do: stock is told in the broker's time, which the backtest of such a topic goes by.
    """
    line.prepare(data_file("rules/standard"))
    whole, told = days.day(0, asked.orders + later)
    records, live = whole[: len(whole) - later], whole[len(whole) - later :]
    asyncio.run(_write(line, records, told, None))
    began, zero = time.time(), rig.processor(line.broker_pid() or 0)
    for name in WORKERS:
        line.worker(name)
    if live:
        asyncio.run(_write(line, live, [], rate))
    _wait(line)
    pids = [line.watched[name].pid for name in WORKERS]
    used, held = sum(map(rig.processor, pids)), sum(rig.memory(pid).peak for pid in pids)
    broker = rig.processor(line.broker_pid() or 0) - zero
    wanted = {one.order for one in whole if one.decided}
    missing, lines = overload.unjudged(wanted, line.settings)
    asked.say("回测核对 · the backtest's verdicts")
    differ = overload.unequal(line.settings, lines, line.home)
    first: dict[str, int] = {}
    for message in kafka.read_all(line.address, [line.name("orders.verdicts")]):
        first.setdefault((message.key or b"").decode(), message.timestamp)
    old = {one.order for one in records}
    new = [one for one in live if one.order not in old]
    at = sorted(ms / 1000 for order, ms in first.items() if order in old)
    row = {
        "engine": "orderstream",
        "orders": len(lines),
        "per_second": round(len(at) / max(0.001, at[-1] - at[0]), 1),
        "seconds_from_start": round(at[-1] - began, 1),
        "cpu_us": round(used / len(lines) * 1e6, 1),
        "broker_us": round(broker / len(lines) * 1e6, 1),
        "memory_mb": round(held / 1e6),
        "missing": len(missing),
        "agreement": 1 - len(differ) / len(lines),
    }
    return {**row, **(_level(line, new, first, began, rate) if new else {})}


def _level(line: rig.Rig, live: Sequence[Sent], first: Mapping[str, int], began: float, rate: float) -> Row:
    """When the last live order was answered that had waited longer than `LIVE_S`, and how many had. All late: never level."""
    sent = {}
    for message in kafka.read_all(line.address, {line.name(one.topic) for one in live}):
        sent.setdefault((message.key or b"").decode(), message.timestamp)
    orders = {one.order for one in live if one.order in first}
    behind = [first[order] / 1000 - began for order in orders if first[order] - sent[order] > LIVE_S * 1000]
    return {"rate": rate, "level_s": round(max(behind, default=0.0), 1), "live": len(orders), "late": len(behind)}


async def _write(line: rig.Rig, records: Sequence[Sent], told: Sequence[tuple[str, bytes, bytes]], rate: float | None) -> None:
    async with rig.feeding(line) as feed:
        await feed.tell(told)
        began = time.perf_counter()
        for number, record in enumerate(records):
            if rate is not None and (wait := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            await feed.send(record)
        await feed.flush()


def _wait(line: rig.Rig) -> None:
    """Until the workers have done all that follows from what they were sent. Raises RunFailed."""
    end = time.monotonic() + DONE_S
    while not kafka.worked_off(line.settings, line.address, 20):
        line.check()
        if time.monotonic() > end:
            raise RunFailed(f"{DONE_S:.0f} 秒后仍有积压 · there still is a backlog after {DONE_S:.0f} s")


def restart(asked: Asked) -> Iterator[Row]:
    """A day of orders in one worker, killed and started again: `bench.recovery`."""
    filled = recovery.Filled(asked.orders - asked.orders % recovery.STRETCHES, 0, "standard", 0, 0.0)
    with asked.line() as line:
        run = recovery.Recovery(line, rig.console(), filled)
        run.prepare()
        asyncio.run(run.fill())
        asyncio.run(run.settle(["worker-1"]))
        for number in range(asked.times):
            found = asyncio.run(run.restart(["worker-1"], number, gently=False, spy=None))
            yield {
                "engine": "orderstream",
                "orders": filled.orders,
                "memory_mb": round(found["rss_peak"] / 1e6),
                "bytes_per_order": round(found["bytes_per_order"]),
                **{name: found[name] for name in ("folded_s", "ready_s", "first_s", "processor_s")},
            }


def backtest(asked: Asked) -> Iterator[Row]:
    """The shop's day from a file through the same kernel, in one process; judged as the scenario says it should be."""
    shop = days.stretch(0, asked.orders, start=days.START, span=days.DAY, cohort=0)
    with tempfile.TemporaryDirectory(prefix="orderstream-bench-") as name:
        folder = Path(name)
        write_replay(folder / "orders.jsonl", shop)
        write_catalogue(folder / "catalogue.jsonl", shop)
        out = folder / "verdicts.jsonl"
        command = [sys.executable, "-m", "orderstream", "backtest", "--orders", str(folder / "orders.jsonl")]
        command += ["--catalogue", str(folder / "catalogue.jsonl"), "--rules", str(data_file("rules/standard"))]
        for _ in range(asked.times):
            asked.say(f"回测 {asked.orders} 单 · backtest")
            began = time.monotonic()
            process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, code, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
            seconds = time.monotonic() - began
            if process.returncode:
                raise RunFailed(f"回测失败 · the backtest failed ({process.returncode})")
            lines = {line["order_id"]: line for line in map(orjson.loads, out.read_bytes().splitlines())}
            right = [_right(expected, lines.get(order)) for order, expected in shop.expected.items()]
            yield {
                "engine": "orderstream",
                "orders": len(lines),
                "per_second": round(len(lines) / seconds, 1),
                "cpu_us": round((usage.ru_utime + usage.ru_stime) / len(lines) * 1e6, 1),
                "memory_mb": round(usage.ru_maxrss / 1e3),
                "missing": sum(order not in lines for order in shop.expected),
                "agreement": sum(right) / len(right),
            }


def _right(expected: Expected, line: Mapping[str, Any] | None) -> bool:
    """Whether an order's final verdict is the scenario's."""
    if line is None:
        return False
    outcome = "stopped" if line["verdict"] in STOPPED else line["verdict"]
    return outcome == expected.outcome and set(expected.rules) <= {signal["rule"] for signal in line["signals"]}


def intake(asked: Asked) -> Iterator[Row]:
    """Signed webhooks through intake: what it accepts a second, then from webhook to verdict at each rate."""
    with asked.line() as line, overload.begun(line) as (market, port, door, _):
        pids = [line.watched[name].pid for name in WORKERS]
        now = int(time.time() * 1000)
        count = min(40_000, asked.orders)
        flood = overload.presigned(make(count, rate=1_000, start=now).deliveries, market)
        asked.say("64 个发送方 · 64 senders, each with its next order when the last is answered")
        accepted, sent = uvloop.run(overload.closed(port, flood, min(12.0, asked.seconds)))
        _wait(line)
        yield {"engine": "orderstream", "orders": len(sent), "per_second": round(accepted, 1), "what": "accepted"}
        for number, rate in enumerate(asked.rates):
            asked.say(f"{rate:g} 单/秒，从 webhook 到判定 · webhook to verdict for {asked.seconds:g} s")
            start = int(time.time() * 1000) + 5_000
            size = int(rate * (asked.warm + asked.seconds))
            shop = make(size, rate=rate, start=start, first_order=1_000_000 * (number + 1), first_buyer=1_000_000 * (number + 1))
            yield _webhooks(line, market, port, door.pid, pids, shop, size, rate, asked)


def _webhooks(
    line: rig.Rig,
    market: Market,
    port: int,
    door: int,
    workers: Sequence[int],
    shop: Scenario,
    size: int,
    rate: float,
    asked: Asked,
) -> Row:
    requests = overload.presigned(shop.deliveries[:size], market)
    used, mine = rig.processor(door), sum(map(rig.processor, workers))

    async def go() -> overload.Volley:
        volley = overload.Volley(port)
        await volley.paced(requests, rate)
        volley.close()
        return volley

    started = time.time()
    volley = uvloop.run(go())
    _wait(line)
    from_ms = (started + asked.warm) * 1000
    took = []
    for message in kafka.read_all(line.address, [line.name("orders.verdicts")]):
        said = orjson.loads(message.value or b"")
        received = (said.get("timings") or {}).get("received_at", 0)
        if said["verdict_seq"] == 1 and from_ms <= received and said["order_id"] in volley.accepted:
            took.append(max(0, message.timestamp - received))
    missing, _ = overload.unjudged(volley.accepted, line.settings)
    return {
        "engine": "orderstream",
        "what": "webhook to verdict",
        "orders": len(requests),
        "rate": rate,
        **{f"p{share}_ms": percentile(took, share / 100) for share in (50, 90, 99)},
        "cpu_us": round((sum(map(rig.processor, workers)) - mine) / len(requests) * 1e6, 1),
        "intake_us": round((rig.processor(door) - used) / len(requests) * 1e6, 1),
        "memory_mb": round(sum(rig.memory(pid).peak for pid in [door, *workers]) / 1e6),
        "refused": sum(number for status, number in volley.answers.items() if status != 200),
        "missing": len(missing),
    }


VARIANTS: dict[str, Callable[[Asked], Iterator[Row]]] = {
    "reference": job,
    "hot": hot,
    "pack": pack,
    "backlog": backlog,
    "backtest": backtest,
    "intake": intake,
    "recovery": restart,
}
