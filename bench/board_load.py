"""Fifty reviewers at a wall of 10,000 waiting orders: how long a page takes.

    python -m bench.board_load [--orders 10000] [--people 50] [--seconds 60] [--think 4] [--json FILE]

A real PostgreSQL and the board's web part in a process of its own. Each reviewer has a session, holds the live stream open, and,
with `think` seconds (exponential) between two pages, looks at the wall, filters it, opens a case and an order, and decides one in ten.
Two new orders a second come in beside them, through the same function that reads them from Kafka; each is told to all fifty, whose
pages fetch their cards anew as the pages' script does: once a second at most. Times are from the request to the last byte, as a
client on this machine sees them. The exit code is 1 where the 95th percentile of pages is 100 ms or more, or an answer was an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import orjson

from orderstream.board import consume, store
from orderstream.board.consume import Limits, Record
from orderstream.board.web import accounts
from orderstream.board.web.site import COOKIE
from orderstream.broker import free_port
from orderstream.demo.processes import Processes
from tests.board.core.records import place, signal, verdict
from tests.postgres import postgres

AIM_MS = 100.0
RULES = ("duplicate-order", "user-burst", "payment-shared", "unknown-article", "ip-pair", "platform-hold")
SERVE = """
import asyncio, signal, sys
from orderstream.board import store
from orderstream.board.web import serve
from orderstream.process import bound
from orderstream.settings import Settings
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings.load()
    await serve.run(settings, store.url(settings), stop, bound("127.0.0.1", int(sys.argv[1])))
asyncio.run(main())
"""


def order(number: int, now: int, rand: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """One waiting order: its verdict and its place; a tenth of them in cases of five."""
    name = f"L{number:06}"
    group = number // 5 * 5
    others = [f"L{one:06}" for one in range(group, group + 5) if one != number] if number % 50 < 5 else []
    rule = RULES[number % len(RULES)]
    total = rand.randrange(1_000, 900_000)
    said = verdict(name, 1, signal(rule, *others), at=now - rand.randrange(60_000, 7_200_000), total=total)
    shop = {"buyer": {"id": f"u-{number // 3}"}, "ship_by": now + rand.randrange(600_000, 170_000_000)}
    return [said, place(said[1]["verdict"], name, 1, total=total, **shop)]


def seed(url: str, orders: int) -> None:
    """Puts the orders in, as the reader of the topics does."""
    rand, now = random.Random(7), store.now()
    with store.connect(url) as db:
        for first in range(0, orders, 500):
            batch: dict[str, list[Record]] = defaultdict(list)
            for number in range(first, min(first + 500, orders)):
                for topic, value in order(number, now, rand):
                    batch[topic].append(Record(number, now, value["order_id"], orjson.dumps(value)))
            for topic, records in batch.items():
                consume.take(db, topic, 0, records, Limits(14_400_000), now)
        db.execute("ANALYZE")


class Reviewer:
    """One session."""

    def __init__(self, number: int, cookie: str, url: str, think: float, times: dict[str, list[float]]) -> None:
        self.rand = random.Random(number)
        self.think, self.times, self.cookie = think, times, cookie
        self.client = httpx.AsyncClient(
            base_url=url, cookies={COOKIE: cookie}, headers={"origin": url}, timeout=30, trust_env=False
        )
        self.where = ""
        self.errors: list[str] = []

    async def get(self, kind: str, path: str, **more: Any) -> httpx.Response:
        start = time.perf_counter()
        answer = await self.client.get(path, **more)
        self.times[kind].append((time.perf_counter() - start) * 1000)
        if answer.status_code not in {200, 303}:
            self.errors.append(f"{path}: {answer.status_code}")
        return answer

    async def work(self, until: float) -> None:
        await self.pause()  # they do not all come in the same millisecond
        while time.monotonic() < until:
            self.where = self.rand.choice(
                ["/", "/", "/?level=high", f"/?rule={self.rand.choice(RULES)}", "/?sort=amount", "/?page=3"]
            )
            wall = await self.get("wall", self.where)
            cases = re.findall(r'href="(/cases/[^"]+)"', wall.text)
            await self.pause()
            if not cases:
                continue
            case = await self.get("case", self.rand.choice(cases))
            path = case.headers.get("location") or next(iter(re.findall(r'href="(/orders/[^"]+)"', case.text)), None)
            if path is None:
                continue
            page = await self.get("order", path)
            seen = re.search(r'name="orders" value="([^"]+)"', page.text)
            await self.pause()
            if seen is not None and self.rand.random() < 0.1:
                form = {
                    "guard": accounts.guard(self.cookie), "orders": seen[1], "decision": "correction", "reason-correction": "address",
                }  # fmt: skip
                start = time.perf_counter()
                answer = await self.client.post("/decide", data=form)
                self.times["decide"].append((time.perf_counter() - start) * 1000)
                if answer.status_code not in {303, 409}:
                    self.errors.append(f"/decide: {answer.status_code}")

    async def watch(self) -> None:
        """The live stream, and the cards that it has fetched anew."""
        last = 0.0
        async with self.client.stream("GET", "/live", timeout=None) as stream:
            async for line in stream.aiter_lines():
                if line == "event: changed":
                    await asyncio.sleep(max(0.0, 1 - (time.monotonic() - last)))
                    last = time.monotonic()
                    await self.get("cards", self.where or "/", headers={"hx-request": "true"})

    async def pause(self) -> None:
        await asyncio.sleep(self.rand.expovariate(1 / self.think))


async def news(url: str, first: int, until: float) -> int:
    """Two new orders a second."""
    rand, number = random.Random(11), first
    with store.connect(url) as db:
        while time.monotonic() < until:
            now = store.now()
            for topic, value in order(number, now, rand):
                record = Record(number, now, value["order_id"], orjson.dumps(value))
                await asyncio.to_thread(consume.take, db, topic, 0, [record], Limits(14_400_000), now)
            number += 1
            await asyncio.sleep(0.5)
    return number - first


async def run(url: str, place_: str, cookies: list[str], seconds: float, think: float, first: int) -> dict[str, Any]:
    times: dict[str, list[float]] = defaultdict(list)
    people = [Reviewer(number, cookie, url, think, times) for number, cookie in enumerate(cookies)]
    until = time.monotonic() + seconds
    watching = [asyncio.create_task(one.watch()) for one in people]
    came = asyncio.create_task(news(place_, first, until))
    await asyncio.gather(*(one.work(until) for one in people))
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for one in people:
        await one.client.aclose()
    errors = [error for one in people for error in one.errors]
    pages = [ms for kind in ("wall", "case", "order") for ms in times[kind]]
    rows = {"pages": figures(pages), **{kind: figures(found) for kind, found in sorted(times.items())}}
    return {"people": len(people), "new_orders": await came, "errors": errors[:10], "error_count": len(errors), "ms": rows}


def figures(found: list[float]) -> dict[str, float]:
    ranked = sorted(found)
    if not ranked:
        return {"count": 0}
    return {
        "count": len(ranked),
        **{f"p{p}": round(ranked[min(len(ranked) - 1, len(ranked) * p // 100)], 1) for p in (50, 95, 99)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=4)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with postgres() as database:
        store.migrate(database)
        seed(database, given.orders)
        now = store.now()
        cookies = []
        with store.connect(database) as db:
            for number in range(given.people):
                accounts.invite(db, f"reviewer-{number}", now, "bench", roles=["reviewer"])
                row = db.execute("SELECT id FROM board.people WHERE login = %s", (f"reviewer-{number}",)).fetchone()
                assert row is not None
                person = accounts.Person(row["id"], f"reviewer-{number}", "", ("reviewer",), (), "zh")
                cookies.append(accounts.open_session(db, person, "password", now))
        result = serve(database, cookies, given)
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(bool(result["error_count"]) or result["ms"]["pages"]["p95"] >= AIM_MS)


def serve(database: str, cookies: list[str], given: argparse.Namespace) -> dict[str, Any]:
    port = free_port()
    with tempfile.TemporaryDirectory() as logs:
        processes = Processes(Path(logs))
        env = os.environ | {"ORDERSTREAM_DATABASE": database, "ORDERSTREAM_KEY": "bench", "ORDERSTREAM_LOG_LEVEL": "WARNING"}
        child = processes.start("board", [sys.executable, "-c", SERVE, str(port)], env)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if httpx.get(f"{url}/healthz", trust_env=False, timeout=2).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if child.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the board did not come up: {child.tail()}")
                time.sleep(0.1)
            used = cpu(child.process)
            result = asyncio.run(run(url, database, cookies, given.seconds, given.think, given.orders))
            return {
                "orders": given.orders,
                "seconds": given.seconds,
                "cpu_seconds_of_web": round(cpu(child.process) - used, 1),
                **result,
            }
        finally:
            processes.stop()


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Processor seconds that it has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
