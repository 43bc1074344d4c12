"""A campaign: one installation under traffic, one fault after another, then silence and the reconciliation."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import orjson

from orderstream.errors import BUG, NoBroker, NoDatabase
from tests.faults import evidence
from tests.faults.installation import Installation
from tests.faults.kinds import KINDS
from tests.faults.ledger import Campaign, Round
from tests.faults.reconcile import Difference, overtaken, reconcile
from tests.waiting import until

FINE = frozenset({0, 1, NoBroker.exit_code, NoDatabase.exit_code})
"""Exit codes of a process that we had not asked to end: it stops itself when in doubt, or there was no broker, or no PostgreSQL."""


DISPLACING = frozenset({"zombie", "cut-off", "broker-slow", "broker-killed", "broker-restarted", "broker-away", "broker-absent"})
"""Faults that take a worker's partitions from it while it still has something to say."""


class _Span(msgspec.Struct):
    """A round as it was: from when to when (monotonic), and its outage."""

    kind: str
    began: float
    ended: float
    outage: float


async def run(
    home: Path,
    seed: int,
    kinds: Sequence[str],
    *,
    workers: int = 3,
    rate: float = 40.0,
    brief: bool = False,
    say: Callable[[str], None],
) -> Campaign:
    """Run it; the line for the ledger. home: its folder, kept with the evidence when something is wrong."""
    shutil.rmtree(home, ignore_errors=True)
    system = Installation(home, workers=workers, rate=rate, seed=seed, brief=brief)
    dice = random.Random(seed)
    spans: list[_Span] = []
    differences: list[Difference] = []
    late: list[Difference] = []
    error = ""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        await system.start()
        await system.healed()
        await until(lambda: system.desk.said, "people decide by the board")
        for number, kind in enumerate(kinds, 1):
            span = await _round(system, kind, dice)
            spans.append(span)
            say(f"  {number}/{len(kinds)} {kind:<18} {span.ended - span.began:5.1f} s  outage {span.outage:4.1f} s")
        await system.drained()
        desk, phones = system.desk, system.phones.gateways
        say(
            f"  {len(desk.said)} decisions, {desk.refused} refused, {desk.away} times nobody there;"
            f" {len(phones.taken)} messages, {system.customers.answered} answers"
        )
        books = await evidence.gather(system)
        differences, late = reconcile(books), overtaken(books)
        error = _trouble(system, differences if DISPLACING.intersection(kinds) else [*differences, *late])
    except (AssertionError, TimeoutError, OSError, subprocess.SubprocessError) as failed:
        kind = kinds[len(spans)] if len(spans) < len(kinds) else "the end"
        error = f"{kind}: {type(failed).__name__}: {failed}"
    finally:
        await system.stop()
    rounds = _rounds(system, spans, differences)
    if error:
        _keep(system, kinds, seed, error, [*differences, *late])
    else:
        shutil.rmtree(home, ignore_errors=True)
    orders = len(system.traffic.acknowledged) if hasattr(system, "traffic") else 0
    decisions = len(system.desk.said) if hasattr(system, "desk") else 0
    return Campaign(at, _commit(), seed, rounds, orders, error, str(home) if error else "", len(late), decisions)


async def _round(system: Installation, kind: str, dice: random.Random) -> _Span:
    began = time.monotonic()
    system.traffic.pause, system.traffic.last = 0.0, began
    await KINDS[kind].inject(system, dice)
    await system.healed()
    ended = time.monotonic()
    ours = {order: at for order, at in system.traffic.since.items() if began <= at < ended and order in system.watch.decided}
    waited = max((system.watch.decided[order] - at for order, at in ours.items()), default=0.0)
    return _Span(kind, began, ended, max(waited, system.traffic.pause))


def _trouble(system: Installation, differences: list[Difference]) -> str:
    """What is wrong, in one sentence; "" where nothing is."""
    if differences:
        return (
            f"{len(differences)} differences, the first: {differences[0].fault} {differences[0].order}: {differences[0].sentence}"
        )
    if system.desk.strange:
        return (
            f"the board's API gave {len(system.desk.strange)} answers that it must not give, the first: {system.desk.strange[0]}"
        )
    if system.traffic.refused:
        return f"{len(system.traffic.refused)} deliveries were refused for good, the first: {system.traffic.refused[0]}"
    strange = [e for e in system.supervisor.endings if not e.asked and e.code not in FINE]
    if strange:
        return f"{strange[0].service} ended with {strange[0].code}" + (" (a bug)" if strange[0].code == BUG else "")
    return ""


def _rounds(system: Installation, spans: list[_Span], differences: list[Difference]) -> list[Round]:
    """The spans with what was acknowledged in them, and each difference with the round that its order was acknowledged in."""
    rounds = []
    for span in spans:
        orders = {order for order, at in system.traffic.since.items() if span.began <= at < span.ended}
        wrong = {
            fault: len({d.order for d in differences if d.fault == fault} & orders)
            for fault in ("lost", "twice", "contradiction")
        }
        seconds = round(span.ended - span.began, 1)
        stops = sum(not e.asked and span.began <= e.at < span.ended for e in system.supervisor.endings)
        rounds.append(
            Round(
                span.kind,
                len(orders),
                round(span.outage, 1),
                seconds,
                wrong["lost"],
                wrong["twice"],
                wrong["contradiction"],
                stops,
            )
        )
    return rounds


def _keep(system: Installation, kinds: Sequence[str], seed: int, error: str, differences: list[Difference]) -> None:
    """Beside logs, verdicts and Kafka's data: what was planned, when each order was acknowledged, how processes ended."""
    system.home.mkdir(parents=True, exist_ok=True)
    said = {
        "seed": seed,
        "kinds": list(kinds),
        "error": error,
        "differences": [d._asdict() for d in differences],
        "endings": [e._asdict() for e in system.supervisor.endings],
        "acknowledged": {o: sorted(b) for o, b in system.traffic.acknowledged.items()} if hasattr(system, "traffic") else {},
    }
    (system.home / "failure.json").write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def play(home: Path, seed: int, kinds: Sequence[str], **options: object) -> Campaign:
    """`run`, from code that is not asynchronous, on the fastest loop there is."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(home, seed, kinds, **options))
