"""A minute at three times what the line can take: what intake answers, what it keeps, and whether all that it took is judged alike.

    python -m bench.overload [--times 3] [--seconds 60] [--json FILE] [--home FOLDER]

On one machine: an own broker, intake, fetch, two workers, and this sender, which is seven channels' platforms besides: what is only
named is asked for here, and what is pushed to nobody is found here. First the capacity: 64 senders, each with its next order as
soon as the last one is answered. Then the load: bodies signed beforehand, sent on time whether earlier ones are answered or not
(as a thousand buyers do), each once, on up to 3,000 connections; a sender that has no answer after 5 s hangs up, as platforms do.

Afterwards everything that was answered 200 must have a verdict, and every verdict must be the one of a backtest of the same topics,
byte for byte. The exit code is 1 where it is not, or where an answer was neither 200 nor 503 with Retry-After.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import uvloop
from rich.table import Table

from bench import rig
from orderstream import broker, kafka
from orderstream.backtest.live import final_lines
from orderstream.demo.processes import terminable
from orderstream.errors import RunFailed, UserError
from orderstream.fetch.show import pending
from orderstream.orders import CHANNELS
from orderstream.settings import PREFIX, Settings, data_file
from orderstream.simulators import Delivery, scenario
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import MARKETPLACES, SHOPS
from orderstream.simulators.served import served

CONNECTIONS = 3_000
PATIENCE = 5.0
"""Seconds after which a platform hangs up."""
TICK = 0.002
CATCH_UP_S = 1_800.0


class Request(NamedTuple):
    """One delivery. order: that it is about; whole: the HTTP request, b"" where its platform tells nobody; happens: at its platform."""

    order: str
    whole: bytes
    happens: Callable[[], None] = lambda: None


def presigned(deliveries: Iterable[Delivery], market: Market) -> list[Request]:
    """Requests that are only to be written, signed now: good for five minutes."""
    out = []
    for one in deliveries:
        posting, happens = market.posting(one), partial(market.happened, one)
        if posting is None:
            out.append(Request(one.order_id, b"", happens))
            continue
        target = f"/hooks/{one.channel}/{one.shop}" + (f"?{urlencode(posting.query)}" if posting.query else "")
        head = "".join(f"{name}: {value}\r\n" for name, value in posting.headers.items())
        start = f"POST {target} HTTP/1.1\r\nHost: intake\r\nContent-Length: {len(posting.body)}\r\n{head}\r\n"
        out.append(Request(one.order_id, start.encode() + posting.body, happens))
    return out


@contextlib.contextmanager
def open_for_questions(market: Market) -> Iterator[str]:
    """The platforms' address, served in a thread: they answer while what is measured is sent."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    platforms = served(market.app)
    try:
        yield asyncio.run_coroutine_threadsafe(platforms.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(platforms.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Volley:
    """Sends requests, each once, and counts the answers by status; 0 is none, "no-retry-after" a 503 without it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: deque[_Sender] = deque()
        self._open = 0
        self._pending = 0
        self.answers: Counter[int | str] = Counter()
        self.accepted: set[str] = set()
        self.took: list[float] = []
        """Seconds to each 200."""
        self.offered = 0
        self.unsent = 0
        """Due while every connection waited for an answer."""

    async def closed(self, requests: list[Request], senders: int, seconds: float) -> float:
        """Each of the senders goes on as soon as it is answered; accepted a second."""
        waiting = iter(requests)
        end = time.perf_counter() + seconds

        async def one() -> None:
            for request in waiting:
                if time.perf_counter() > end:
                    return
                request.happens()
                if not request.whole:
                    continue
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                await self._send(request, done)
                await done

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(senders)))
        return self.answers[200] / (time.perf_counter() - began)

    async def paced(self, requests: list[Request], rate: float) -> None:
        """Request n at n / rate seconds, come what may; returns when the last is answered or given up."""
        began = time.perf_counter()
        at = 0
        opening: set[asyncio.Task[None]] = set()
        while at < len(requests):
            due = min(len(requests), int((time.perf_counter() - began) * rate))
            while at < due:
                request = requests[at]
                at += 1
                request.happens()
                if not request.whole:
                    continue
                if self._free:
                    self._free.popleft().send(request, None)
                elif self._open < CONNECTIONS:
                    task = asyncio.create_task(self._send(request, None))
                    opening.add(task)
                    task.add_done_callback(opening.discard)
                else:
                    self.unsent += 1
            await asyncio.sleep(TICK)
        if opening:
            await asyncio.wait(opening)
        while self._pending:  # noqa: ASYNC110  each has its own end, PATIENCE at the latest
            await asyncio.sleep(0.05)

    async def _send(self, request: Request, done: asyncio.Future[None] | None) -> None:
        if self._free:
            self._free.popleft().send(request, done)
            return
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE):
                _, sender = await asyncio.get_running_loop().create_connection(lambda: _Sender(self), "127.0.0.1", self._port)
        except OSError:  # TimeoutError is one
            self._open -= 1
            self.offered += 1
            self.answers[0] += 1
            if done is not None:
                done.set_result(None)
            return
        sender.send(request, done)

    def close(self) -> None:
        while self._free:
            self._free.popleft().transport.abort()

    # what senders say

    def sent(self) -> None:
        self.offered += 1
        self._pending += 1

    def answered(self, sender: _Sender | None, order: str, status: int | str, seconds: float) -> None:
        """sender: the one that is free again, None where its connection has ended."""
        self._pending -= 1
        self.answers[status] += 1
        if status == 200:
            self.accepted.add(order)
            self.took.append(seconds)
        if sender is not None:
            self._free.append(sender)

    def gone(self, sender: _Sender) -> None:
        self._open -= 1
        if sender in self._free:
            self._free.remove(sender)


class _Sender(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, volley: Volley) -> None:
        self._volley = volley
        self._order: str | None = None
        self._done: asyncio.Future[None] | None = None
        self._since = 0.0
        self._heard = b""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own is of no class of asyncio's

    def send(self, request: Request, done: asyncio.Future[None] | None) -> None:
        self._volley.sent()
        self._order, self._done, self._heard = request.order, done, b""
        self._since = self._loop.time()
        self._timer = self._loop.call_later(PATIENCE, self.transport.abort)
        if self.transport.is_closing():
            self._answer(0, alive=False)
        else:
            self.transport.write(request.whole)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, blank, body = self._heard.partition(b"\r\n\r\n")
        if not blank or self._order is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        status: int | str = int(head[9:12])
        if status == 503 and b"retry-after:" not in head.lower():
            status = "no-retry-after"
        ended = b"connection: close" in head.lower()
        self._answer(status, alive=not ended)
        if ended:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._order is not None:
            self._answer(0, alive=False)
        self._volley.gone(self)

    def _answer(self, status: int | str, *, alive: bool) -> None:
        assert self._order is not None
        if self._timer is not None:
            self._timer.cancel()
        order, self._order = self._order, None
        self._volley.answered(self if alive else None, order, status, self._loop.time() - self._since)
        if self._done is not None:
            self._done.set_result(None)


def unjudged(accepted: set[str], settings: Settings) -> tuple[list[str], dict[str, bytes]]:
    """The accepted orders that have no verdict, and every final verdict's line."""
    lines = {order: line.encode() for order, line in final_lines(settings, str(settings.brokers)).items()}
    return sorted(accepted - lines.keys()), lines


def unequal(settings: Settings, lines: Mapping[str, bytes], folder: Path) -> list[str]:
    """Orders whose live verdict is not the backtest's of the same topics, byte for byte, and how: one line each."""
    out = folder / "backtest.jsonl"
    env = {
        "BROKERS": str(settings.brokers), "TOPIC_PREFIX": settings.topic_prefix, "KEY": settings.hash_key().decode(),
        "PARTITIONS": str(settings.partitions), "STATE_DIR": str(settings.state_dir),
    }  # fmt: skip
    command = [sys.executable, "-m", "orderstream", "backtest", "--from-topics", "--out", str(out)]
    whole = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **{PREFIX + name: value for name, value in env.items()}}
    done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"backtest: {done.stderr[-2000:]}")
    wanted = {str(json.loads(line)["order_id"]): line for line in out.read_bytes().splitlines()}
    got = {order: line.strip() for order, line in lines.items()}
    differ = sorted(order for order in wanted.keys() | got.keys() if wanted.get(order) != got.get(order))
    return [
        f"{order}: live {got.get(order, b'nothing').decode()}, backtest {wanted.get(order, b'nothing').decode()}"
        for order in differ
    ]


class Supervisor(threading.Thread):
    """Starts a worker again that has stopped itself, as whatever runs the line does: it may where the broker gets no processor."""

    def __init__(self, line: rig.Rig, workers: Iterable[rig.Watched]) -> None:
        super().__init__(daemon=True)
        self._line = line
        self._workers = list(workers)
        self._over = threading.Event()
        self._restarts = 0

    def run(self) -> None:
        while not self._over.wait(0.5):
            for at, worker in enumerate(self._workers):
                if worker.child.process.poll() is not None:
                    self._restarts += 1
                    self._line.kill(worker.name)
                    self._workers[at] = self._line.worker(f"worker-{len(self._workers) + self._restarts}")

    def end(self) -> int:
        """How often a worker was started again."""
        self._over.set()
        self.join()
        return self._restarts


async def _sample(pid: int, into: list[tuple[float, float]]) -> None:
    began = time.monotonic()
    while True:
        into.append((round(time.monotonic() - began, 1), round(rig.memory(pid).rss / 1e6, 1)))
        await asyncio.sleep(1)


@contextlib.contextmanager
def begun(line: rig.Rig) -> Iterator[tuple[Market, int, rig.Watched, list[rig.Watched]]]:
    """Topics, pack, platforms, fetch, intake and two workers, all ready: the platforms, intake's port, intake, the workers."""
    line.prepare(data_file("rules/standard"))
    market = Market(SHOPS)
    with open_for_questions(market) as url:
        line.start("fetch", ["-m", "orderstream", "fetch"], {f"{PREFIX}PLATFORMS": json.dumps(market.accounts(url))})
        port = broker.free_port()
        secrets = json.dumps({shop: [secret] for shop, secret in market.secrets.items()})
        workers = [line.worker("worker-1"), line.worker("worker-2")]
        intake = line.start(
            "intake", ["-m", "orderstream", "intake"], {f"{PREFIX}INTAKE_PORT": str(port), f"{PREFIX}SECRETS": secrets}
        )
        asyncio.run(line.until_ready([one.name for one in workers], 60))
        _until_up(port, line)
        yield market, port, intake, workers


def measure(line: rig.Rig, times: float, seconds: float) -> dict[str, Any]:
    """The whole run on a line that is there; its figures."""
    with begun(line) as (market, port, intake, workers):
        return _measured(line, market, port, intake, workers, times, seconds)


def _measured(
    line: rig.Rig, market: Market, port: int, intake: rig.Watched, workers: list[rig.Watched], times: float, seconds: float
) -> dict[str, Any]:
    supervisor = Supervisor(line, workers)
    supervisor.start()

    now = int(time.time() * 1000)
    warm = scenario.make(40_000, rate=1_000, start=now, marketplaces=MARKETPLACES).deliveries
    capacity, alone = uvloop.run(closed(port, presigned(warm, market)))
    offered = times * capacity
    now = int(time.time() * 1000) + 20_000
    shop = scenario.make(
        int(offered * seconds), rate=offered, start=now, first_order=1_000_000, first_buyer=1_000_000, marketplaces=MARKETPLACES
    )
    requests = presigned(shop.deliveries[: int(offered * seconds)], market)
    before = rig.memory(intake.pid).rss / 1e6
    memory: list[tuple[float, float]] = []
    began = time.time()
    volley, cost = uvloop.run(_load(port, requests, offered, intake.pid, memory))
    ended = time.time()
    sent_in = ended - began
    _caught_up(line, ended)
    caught_up = time.time() - ended
    # it asks the platforms again every few seconds: what it found while the two sides are read would stand on one of them alone
    line.end("fetch")
    _caught_up(line, time.time())
    kept = sum(kafka.count(line.address, line.name(f"orders.raw.{name}")) for name in CHANNELS)
    restarts = supervisor.end()
    missing, lines = unjudged(volley.accepted | alone, line.settings)
    differ = unequal(line.settings, lines, line.home)
    took = statistics.quantiles(volley.took, n=100) if len(volley.took) > 1 else [0.0] * 99
    return {
        "capacity": round(capacity),
        "offered": volley.offered + volley.unsent,
        "offered_a_second": round(offered),
        "accepted": volley.answers[200],
        "accepted_a_second": round(volley.answers[200] / seconds),
        "busy_503": volley.answers[503],
        "no_answer": volley.answers[0],
        "no_connection_free": volley.unsent,
        "other": {str(k): v for k, v in volley.answers.items() if k not in {200, 503, 0}},
        "seconds_to_200": {"p50": round(took[49], 3), "p99": round(took[98], 3)},
        "cpu_s": cost,
        "intake_mb_before": round(before, 1),
        "intake_mb_max": max(mb for _, mb in memory),
        "intake_mb": memory,
        "raw_records": kept,
        "worker_restarts": restarts,
        "sent_in_s": round(sent_in, 1),
        "catch_up_s": round(caught_up, 1),
        "verdicts": len(lines),
        "missing": len(missing),
        "unequal": len(differ),
        "evidence": {"missing": missing[:20], "unequal": differ[:20]},
        "errors": line.errors(),
    }


def _caught_up(line: rig.Rig, since: float) -> None:
    while pending(line.settings, line.address) or not kafka.worked_off(line.settings, line.address, 20):
        if time.time() - since > CATCH_UP_S:
            raise RunFailed("the workers did not catch up")


def _until_up(port: int, line: rig.Rig) -> None:
    end = time.monotonic() + 60
    while rig.fetch(port) is None:
        line.check()
        if time.monotonic() > end:
            raise RunFailed("intake is not up")
        time.sleep(0.1)


async def closed(port: int, requests: list[Request], seconds: float = 12) -> tuple[float, set[str]]:
    """What 64 senders get accepted a second who each go on when answered, after a warm-up; and which orders those were."""
    warm = Volley(port)
    await warm.closed(requests[:2_000], 64, seconds / 4)
    volley = Volley(port)
    found = await volley.closed(requests[2_000:], 64, seconds)
    warm.close()
    volley.close()
    return found, warm.accepted | volley.accepted


async def _load(
    port: int, requests: list[Request], rate: float, pid: int, memory: list[tuple[float, float]]
) -> tuple[Volley, dict[str, float]]:
    sampling = asyncio.create_task(_sample(pid, memory))
    volley = Volley(port)
    cpu, mine = rig.processor(pid), time.process_time()
    await volley.paced(requests, rate)
    cost = {"intake": round(rig.processor(pid) - cpu, 1), "sender": round(time.process_time() - mine, 1)}
    await asyncio.sleep(2)
    sampling.cancel()
    volley.close()
    return volley, cost


def show(found: Mapping[str, Any]) -> None:
    table = Table("figure", "value")
    for name, value in found.items():
        if name not in {"intake_mb", "evidence"}:
            table.add_row(name, str(value))
    every = max(1, len(found["intake_mb"]) // 8)
    table.add_row("intake MB over time", ", ".join(f"{at:.0f} s {mb:.0f}" for at, mb in found["intake_mb"][::every]))
    rig.console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=3, help="of the measured capacity")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--home", type=Path, help="keep logs and data here")
    asked = parser.parse_args()
    kafka.calm()
    rig.quiet()
    with tempfile.TemporaryDirectory(prefix="orderstream-overload-") as temporary:
        try:
            with terminable(), rig.Rig(asked.home or Path(temporary)) as line:
                found = measure(line, asked.times, asked.seconds)
        except UserError as error:
            print(error.sentence, file=sys.stderr)
            return 1
    show(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    sound = not (found["missing"] or found["unequal"] or found["other"])
    return 0 if sound and found["busy_503"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
