"""What the board's queries and its reading cost with 10,000 waiting orders, on a real PostgreSQL.

    python -m bench.board [--orders 10000] [--rounds 50] [--database URL] [--json FILE]

Each query runs `rounds` times on one connection; times are what the caller waits. Taking in: the same function that reads from
Kafka, in batches of 500. A bulk decision decides a case of 200 at once. The exit code is 1 where a wall's 95th percentile is 50 ms
or more: half of what a page may take. `bench/board_load.py` is the same with pages and fifty people.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson

from orderstream.board import consume, decide, figures, store
from orderstream.board.consume import Limits, Record
from orderstream.board.decide import Person, Terms
from orderstream.board.store import Db, Wanted
from tests.board.core.records import oid, place, signal, verdict
from tests.postgres import postgres

AIM_MS = 50.0
RULES = ("duplicate-order", "user-burst", "payment-shared", "platform-hold")
LI = Person("li", frozenset({"supervisor"}))


def records(number: int, now: int, chance: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """A waiting order: every tenth belongs to a case of 200, every other one to one of five."""
    group, size = (number // 2000 * 2000, 2000) if number % 10 == 0 else (number // 5 * 5, 5)
    others = [f"B{one:06}" for one in range(group, group + size, 10 if size == 2000 else 1) if one != number][:20]
    total = chance.randrange(1_000, 900_000)
    said = verdict(f"B{number:06}", 1, signal(RULES[number % 4], *others), at=now - chance.randrange(7_200_000), total=total)
    # as long as the standard pack's
    said[1]["rules"] += [{"id": f"another-rule-{n}", "state": "silent", "evidence": None} for n in range(21)]
    shop = {"buyer": {"id": f"u-{number // 3}"}, "ship_by": now + chance.randrange(600_000, 170_000_000)}
    return [said, place(said[1]["verdict"], f"B{number:06}", 1, total=total, **shop)]


def fill(db: Db, orders: int, now: int) -> tuple[float, int]:
    """Takes the orders in; (records a second of CPU, records)."""
    chance, spent, count = random.Random(7), 0.0, 0
    for first in range(0, orders, 500):
        batch: dict[str, list[Record]] = defaultdict(list)
        for number in range(first, min(first + 500, orders)):
            for topic, value in records(number, now, chance):
                batch[topic].append(Record(number, now, value["order_id"], orjson.dumps(value)))
        for topic, some in batch.items():
            began = cpu(db.info.backend_pid)
            consume.take(db, topic, 0, some, Limits(14_400_000), now)
            spent += cpu(db.info.backend_pid) - began
            count += len(some)
        print(f"\r{first + 500:7} / {orders}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    db.execute("ANALYZE")
    return count / spent, count


def cpu(backend: int) -> float:
    """Seconds of CPU that this process and its PostgreSQL backend have used."""
    fields = Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(db: Db, rounds: int, work: Callable[[], object]) -> dict[str, float]:
    """Milliseconds: median, 95th percentile, worst; and of CPU a call, which a busy machine does not change."""
    taken = []
    used = cpu(db.info.backend_pid)
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    return {
        "p50": round(statistics.median(taken), 2),
        "p95": round(taken[min(len(taken) - 1, int(0.95 * len(taken)))], 2),
        "max": round(taken[-1], 2),
        "cpu": round(1000 * (cpu(db.info.backend_pid) - used) / rounds, 2),
    }


def run(url: str, orders: int, rounds: int) -> dict[str, Any]:
    """Fills a migrated database and measures."""
    now = store.now()
    with store.connect(url) as db:
        speed, count = fill(db, orders, now)
        chance = random.Random(3)
        some = [f"B{chance.randrange(orders):06}" for _ in range(rounds)]
        numbers = iter(some * 20)
        great = store.waiting(db, Wanted(sort="amount"), now, 1).cards[0]
        asked: dict[str, Callable[[], object]] = {
            "wall": lambda: store.waiting(db, Wanted(), now),
            "wall, filtered": lambda: store.waiting(db, Wanted(rules=("user-burst",), levels=("medium",), least=50_000), now),
            "wall, page 20": lambda: store.waiting(db, Wanted(), now, 50, 950),
            "wall, search": lambda: store.waiting(db, Wanted(text=next(numbers)), now),
            "facets": lambda: store.facets(db, now),
            "case of 200": lambda: store.case(db, great.case_id),
            "order": lambda: store.order(db, oid(next(numbers))),
            "time line": lambda: store.timeline(db, oid(next(numbers))),
            "figures, 30 days": lambda: figures.days(db, "Asia/Shanghai", "CNY", now),
        }
        found: dict[str, Any] = {name: measure(db, rounds if "figures" not in name else 5, work) for name, work in asked.items()}
        case = store.case(db, great.case_id)
        assert case is not None
        seen = {row.order_id: row.seq for row in case.orders if row.state == "waiting" and row.out != "frozen"}
        began = time.perf_counter()
        done = decide.decide(db, LI, seen, "cancel", "fraud", at=now, terms=Terms())
        found["bulk decision"] = {"orders": len(done.done), "ms": round(1000 * (time.perf_counter() - began), 1)}
        singles = iter(row.order_id for row in store.in_state(db, "waiting", limit=rounds))
        found["single decision"] = measure(
            db, rounds, lambda: decide.decide(db, LI, {next(singles): 1}, "cancel", "fraud", at=now, terms=Terms())
        )
        found["taking in"] = {"records": count, "records_per_cpu_second": round(speed)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--database", help="an empty PostgreSQL database of one's own; else a fresh one is started")
    parser.add_argument("--json", type=Path, dest="out")
    options = parser.parse_args()
    with nullcontext(options.database) if options.database else postgres() as url:
        store.migrate(url)
        found = run(url, options.orders, options.rounds)
    for name, values in found.items():
        print(f"{name:18}", "  ".join(f"{key} {value}" for key, value in values.items()))
    if options.out is not None:
        options.out.write_text(json.dumps({"orders": options.orders, **found}, indent=2) + "\n")
    return int(max(found[name]["p95"] for name in found if name.startswith("wall")) >= AIM_MS)


if __name__ == "__main__":
    sys.exit(main())
