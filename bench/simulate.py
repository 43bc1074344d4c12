"""The line on paper: from measured costs, how many machines a shop needs, what they cost a year, and what would break first.

    python -m bench.simulate [--measured bench/measured.json] [--seconds 2] [--svg docs/scaling.svg] [--json FILE]

Two parts. `plan` is arithmetic. `simulate` is a discrete-event model of the hops: orders come at random, each has a fact for every
entity, SKUs are wanted by Zipf's law, an entity always meets the same partition and a partition the same worker; a worker takes what
is there, waits a moment for more where it had to wait, pays for each batch and each record, and hands on; an order is done when every
fact has answered. So hot entities, batching and a lost worker are in it; page faults, the collector and the network are not.
All times s, where a name does not say otherwise.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.table import Table

from bench import rig
from bench.figures import Panel, percentile, picture

MEASURED = Path(__file__).with_name("measured.json")
NORMALISE, DETECT, ROUTE = range(3)
TAKE = 500
"""Records of a partition in one batch, as the engine's `max_poll_records`."""
SESSION = 10.0
"""Until a killed member is missed."""
PAUSE = 1.0
"""For which everybody stops while partitions are dealt out anew."""


class Costs(NamedTuple):
    """Service times of a worker. detect: a fact; route: a record of a dossier; batch: one of any size."""

    normalise: float
    detect: float
    route: float
    batch: float


class Model(NamedTuple):
    """A line and what comes to it. hot: share of orders that want one SKU on top of Zipf's law; lost: when a worker is killed."""

    rate: float
    orders: int
    workers: int
    partitions: int
    costs: Costs
    facts: int = 7
    skus: float = 1.8
    zipf: float = 1.0
    catalogue: int = 5_000
    hot: float = 0.0
    hop: float = 0.008
    gather: float = 0.004
    take: int = TAKE
    lost: float | None = None
    restore: float = 0.0
    seed: int = 1


class Outcome(NamedTuple):
    """latencies: of every order, in the order of arrival; busy: each worker's share of its time; batches: an order.

    waits: of every record of normalise, from its arrival to the end of its batch. Arrivals are in `arrived`.
    """

    arrived: list[float]
    latencies: list[float]
    waits: list[float]
    busy: list[float]
    batches: float

    def quantile(self, share: float) -> float:
        return percentile(self.latencies, share)

    def waiting(self, step: float) -> list[tuple[float, float]]:
        """How many orders are under way at 0, step, 2 step, …"""
        changes: dict[int, int] = defaultdict(int)
        for at, took in zip(self.arrived, self.latencies, strict=True):
            changes[math.ceil(at / step)] += 1
            changes[math.ceil((at + took) / step)] -= 1
        return list(
            zip((n * step for n in range(max(changes))), accumulate(changes[n] for n in range(max(changes))), strict=True)
        )


class _Worker:
    def __init__(self) -> None:
        self.inbox: list[tuple[float, int, int, int, int]] = []
        """(available at, a number to keep order, hop, partition, order)."""
        self.wake = math.inf
        self.free = 0.0
        self.used = 0.0
        self.dead = False


class _Run:
    def __init__(self, model: Model) -> None:
        self.m = model
        self.chance = random.Random(model.seed)
        self.workers = [_Worker() for _ in range(model.workers)]
        self.owner = [p % model.workers for p in range(model.partitions)]
        # one list of cumulated weights, drawn from by bisection
        self.popular = list(accumulate(1 / (rank + 1) ** model.zipf for rank in range(model.catalogue)))
        self.home = [self.chance.randrange(model.partitions) for _ in range(model.catalogue)]
        self.events: list[tuple[float, int]] = []
        self.number = 0
        self.arrived: list[float] = []
        self.done: list[float] = []
        self.open: list[int] = []
        self.place: list[int] = []
        self.waits: list[float] = []
        self.batches = 0
        self.held_until: dict[int, float] = {}
        missed = math.inf if model.lost is None else model.lost + SESSION
        self.dealing = (missed, missed + PAUSE)

    def run(self) -> Outcome:
        m, at = self.m, 0.0
        for order in range(m.orders):
            at += self.chance.expovariate(m.rate)
            self.arrived.append(at)
            self.done.append(math.nan)
            self.open.append(0)
            self.place.append(self.chance.randrange(m.partitions))
            self._put(at, NORMALISE, self.place[order], order)
        lost = m.lost
        while self.events:
            now, which = heappop(self.events)
            if lost is not None and now >= lost:
                lost = None
                self._lose(0, m.lost or 0.0)
            worker = self.workers[which]
            if worker.wake == now and not worker.dead:
                self._cycle(worker, which, now)
        end = max(self.done)
        took = [done - arrived for done, arrived in zip(self.done, self.arrived, strict=True)]
        return Outcome(self.arrived, took, self.waits, [w.used / end for w in self.workers], self.batches / m.orders)

    def _put(self, at: float, hop: int, partition: int, order: int) -> None:
        """A record that its worker can fetch from `at` on."""
        which = self.owner[partition]
        at = max(at, self.held_until.get(partition, 0.0))
        self.number += 1
        worker = self.workers[which]
        heappush(worker.inbox, (at, self.number, hop, partition, order))
        # who had to wait waits a moment longer, for more
        self._wake(worker, which, max(worker.free, at + self.m.gather))

    def _wake(self, worker: _Worker, which: int, at: float) -> None:
        if at < worker.wake and not worker.dead:
            worker.wake = at
            heappush(self.events, (at, which))

    def _cycle(self, worker: _Worker, which: int, now: float) -> None:
        """Takes what is there and works it off, a batch for each hop's partition."""
        if self.dealing[0] <= now < self.dealing[1]:
            worker.wake = math.inf
            self._wake(worker, which, self.dealing[1])
            return
        m, costs = self.m, self.m.costs
        batches: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        over = []
        inbox = worker.inbox
        while inbox and inbox[0][0] <= now:
            record = heappop(inbox)
            batch = batches[record[2], record[3]]
            if len(batch) < m.take:
                batch.append((record[0], record[4]))
            else:
                over.append(record)
        for record in over:
            heappush(inbox, record)
        each = (costs.normalise, costs.detect, costs.route)
        end = now
        for (hop, partition), batch in batches.items():
            cost = costs.batch + each[hop] * len(batch)
            end += cost
            worker.used += cost
            self.batches += 1
            self._hand_on(hop, partition, batch, end)
        worker.free, worker.wake = end, math.inf
        if inbox:
            first = inbox[0][0]
            self._wake(worker, which, end if first <= end else first + m.gather)

    def _hand_on(self, hop: int, partition: int, batch: Sequence[tuple[float, int]], end: float) -> None:
        m, chance = self.m, self.chance
        for at, order in batch:
            if hop == NORMALISE:
                self.waits.append(end - at)
                # buyers, places and accounts are too many to be hot; SKUs and what everybody wants are not
                facts = [chance.randrange(m.partitions) for _ in range(m.facts)]
                facts += [self.home[self._sku()] for _ in range(int(m.skus + chance.random()))]
                if chance.random() < m.hot:
                    facts.append(self.home[0])
                self.open[order] = len(facts) + 1
                self._put(end + m.hop, ROUTE, self.place[order], order)
                for fact in facts:
                    self._put(end + m.hop, DETECT, fact, order)
            elif hop == DETECT:
                self._put(end + m.hop, ROUTE, self.place[order], order)
            else:
                self.open[order] -= 1
                if not self.open[order]:
                    self.done[order] = end

    def _sku(self) -> int:
        return bisect(self.popular, self.chance.random() * self.popular[-1])

    def _lose(self, which: int, at: float) -> None:
        """The worker is gone; its partitions are others' once it is missed, and are worked on once they are read back."""
        worker = self.workers[which]
        worker.dead = True
        heirs = [n for n, one in enumerate(self.workers) if not one.dead]
        back = at + SESSION + self.m.restore
        for number, partition in enumerate(p for p, owner in enumerate(self.owner) if owner == which):
            self.owner[partition] = heirs[number % len(heirs)]
            self.held_until[partition] = back
        for _, _, hop, partition, order in worker.inbox:
            self._put(back, hop, partition, order)


def simulate(model: Model) -> Outcome:
    """A model's run, the same for the same model."""
    return _Run(model).run()


# -- the plan


class Shop(NamedTuple):
    """Who is planned for. peak: orders a second that must pass without a growing backlog; days: that windows look back, mostly."""

    name: str
    a_day: float
    peak: float


SHOPS = (
    Shop("6,000 / day", 6_000, 20),
    Shop("20,000 / day", 20_000, 70),
    Shop("100,000 / s", 864_000_000, 100_000),
)
"""A live stream brings a tenth of a shop's day within five minutes, and the peak second ten times that; a platform's day has its
peak for a tenth of it.
"""


class Prices(NamedTuple):
    """Assumptions, US dollars; docs/scaling.md names where each is from."""

    machine_hour: float = 0.0816
    """2 cores, 8 GB."""
    cores: int = 2
    memory_gb: float = 8.0
    disk_gb_month: float = 0.08
    zone_gb: float = 0.02
    """A GB from one zone to another, both ways' fees."""


class Assumed(NamedTuple):
    """What nobody measured."""

    busy: float = 0.6
    """Share of a core that a peak may take: the rest catches up after a restart."""
    worker_gb: float = 3.5
    """Of state, in a process beside another one in 8 GB."""
    replicas: int = 3
    compressed: float = 0.35
    """Of the bytes that are written, what zstd leaves."""
    kept_days: float = 7.0
    """Of what is written."""
    partition_s: float = 4.0
    """Partitions for each worker, so that they can be dealt out evenly when one is lost."""


class Plan(NamedTuple):
    shop: Shop
    cores: float
    """Busy at the peak, all workers'."""
    by_load: int
    by_memory: int
    workers: int
    partitions: int
    brokers: int
    memory_gb: float
    disk_gb: float
    restart_s: float
    """One worker's state read back, without the 10 s of the dead one's session."""
    machines: int
    yearly: float
    per_thousand: float
    """Dollars for a thousand orders."""


def plan(shop: Shop, measured: Mapping[str, float], prices: Prices, assumed: Assumed) -> Plan:
    """What a shop needs. measured: by the names in measured.json."""
    us = sum(measured[name] for name in ("normalise_us", "detect_us", "route_us", "engine_us"))
    cores = shop.peak * us / 1e6
    held = shop.a_day * measured["bytes_held"] / 1e9
    by_load = math.ceil(cores / assumed.busy)
    by_memory = math.ceil(held / assumed.worker_gb)
    # one may die
    workers = max(2, by_load, by_memory)
    partitions = max(8, 1 << math.ceil(math.log2(workers * assumed.partition_s)))
    broker_cores = shop.peak * measured["broker_us"] / 1e6 * assumed.replicas
    brokers = max(assumed.replicas, math.ceil(broker_cores / assumed.busy / prices.cores))
    written = shop.a_day * measured["bytes_written"] * assumed.compressed / 1e9
    disk = written * assumed.kept_days * assumed.replicas
    machines = math.ceil(workers / prices.cores) + brokers
    # to two followers, and two thirds of the readers and writers sit in another zone
    crossing = written * (assumed.replicas - 1 + 2 * 2 / 3)
    yearly = machines * prices.machine_hour * 8_766 + disk * prices.disk_gb_month * 12 + crossing * prices.zone_gb * 365
    return Plan(
        shop, cores, by_load, by_memory, workers, partitions, brokers, held, disk,
        shop.a_day / workers * measured["fold_us"] / 1e6, machines, yearly, yearly / (shop.a_day * 365) * 1000,
    )  # fmt: skip


# -- the figures


def costs(measured: Mapping[str, float]) -> Costs:
    """Service times as the model takes them: an order's spread over its records."""
    records = measured["facts"] + measured["skus"]
    return Costs(
        measured["normalise_us"] / 1e6,
        measured["detect_us"] / records / 1e6,
        measured["route_us"] / (records + 1) / 1e6,
        measured["batch_us"] / 1e6,
    )


def of_a_shop(shop: Shop, found: Plan, measured: Mapping[str, float], seconds: float) -> Model:
    """The model of a shop at its peak, with the workers that its load asks for."""
    return Model(
        shop.peak,
        max(2_000, int(shop.peak * seconds)),
        max(2, found.by_load),
        max(8, 1 << math.ceil(math.log2(max(2, found.by_load) * 4))),
        costs(measured),
        int(measured["facts"]),
        measured["skus"],
        hop=measured["hop_ms"] / 1e3,
        gather=measured["gather_ms"] / 1e3,
    )


RATES = (20, 50, 100, 200, 500, 1_000, 1_500, 2_000)
HOT = (0.0, 0.1, 0.3, 0.5, 0.7)
GATHERS = (0.0, 0.004, 0.008, 0.016, 0.032)


def figures(measured: Mapping[str, float], seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Every table: the shops at their peaks, rates on two workers, gathering, a hot SKU on the platform, a worker lost."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    plans = [plan(shop, measured, Prices(), Assumed()) for shop in SHOPS]
    for one in plans:
        found["plan"].append({**one._asdict(), "shop": one.shop.name, "peak": one.shop.peak})
        model = of_a_shop(one.shop, one, measured, seconds)
        found["peak"].append({"shop": one.shop.name, "workers": model.workers, **_said(simulate(model))})
    two = of_a_shop(SHOPS[0], plans[0], measured, 1)
    for rate in RATES:
        found["rate"].append({"rate": rate, **_said(simulate(two._replace(rate=rate, orders=max(2_000, rate * 5))))})
    for gather in GATHERS:
        said = _said(simulate(two._replace(rate=200, orders=4_000, gather=gather)))
        found["gather"].append({"gather_ms": gather * 1e3, **said})
    platform = of_a_shop(SHOPS[-1], plans[-1], measured, seconds / 4)
    for share in HOT:
        found["hot"].append({"hot": share, **_said(simulate(platform._replace(hot=share)))})
    busy = 500
    lost = two._replace(rate=busy, orders=busy * 60, workers=4, partitions=16, lost=15.0, restore=10.0)
    outcome = simulate(lost)
    found["lost"].append({"lost_at": 15.0, **_said(outcome), "level_s": _level(outcome) - 15.0})
    found["waiting"] = [{"at": at, "orders": orders} for at, orders in outcome.waiting(0.5)]
    return dict(found)


def _said(outcome: Outcome) -> dict[str, float]:
    busiest = max(outcome.busy)
    return {
        **{f"p{share}_ms": round(outcome.quantile(share / 100) * 1e3, 1) for share in (50, 99)},
        # of the last tenth of the orders: much more than p50 where a backlog grows
        "last_ms": round(percentile(outcome.latencies[-max(1, len(outcome.latencies) // 10) :], 0.5) * 1e3, 1),
        "busiest": round(busiest, 3),
        "mean_busy": round(sum(outcome.busy) / len(outcome.busy), 3),
        "batches": round(outcome.batches, 2),
    }


def _level(outcome: Outcome) -> float:
    """When the last order was done that took longer than a second."""
    slow = [at + took for at, took in zip(outcome.arrived, outcome.latencies, strict=True) if took > 1]
    return max(slow, default=0.0)


def drawn(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """The picture in docs/scaling.md."""
    panels = [
        Panel(
            "两个进程：延迟 ms 与速率 · two workers: latency (ms) by orders a second",
            {
                name: [(row["rate"], row[f"{name}_ms"]) for row in found["rate"] if row["busiest"] < 0.98]
                for name in ("p50", "p99")
            },
            "/s",
        ),
        Panel(
            "每秒十万单：最忙进程占用 % 与热门 SKU 的单占比 % · 100,000 orders/s: the busiest worker (%) by the hot SKU's share of orders (%)",
            {
                "busiest": [(row["hot"] * 100, row["busiest"] * 100) for row in found["hot"]],
                "mean": [(row["hot"] * 100, row["mean_busy"] * 100) for row in found["hot"]],
            },
            "%",
        ),
        Panel(
            "四个进程之一在第 15 秒被杀，每秒 500 单：在途订单 · one of four workers killed at 15 s, 500 orders/s: orders under way",
            {"orders": [(row["at"], row["orders"]) for row in found["waiting"]]},
            "s",
        ),
    ]
    return picture("规模推演 · scaling, simulated", panels)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, default=MEASURED, help="service times: names with a value and what it is of")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a shop's peak")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    measured = {name: float(one["value"]) for name, one in orjson.loads(asked.measured.read_bytes()).items()}
    found = figures(measured, asked.seconds)
    console = rig.console()
    for name, rows in found.items():
        if name == "waiting":
            continue
        table = Table(*rows[0], title=name, title_justify="left")
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:,.6g}" for value in row.values()))
        console.print(table)
    if asked.svg:
        asked.svg.write_text(drawn(found))
    if asked.json:
        asked.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
