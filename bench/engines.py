"""The reference job, by any engine: one command, looked at from outside.

Law: every engine gets the same records, the same fresh broker and the same environment, and is measured by what anybody can see:
/proc, the broker's time stamps, the topics. An engine is a command that stays in the foreground, ends on SIGTERM, reads `ref.raw`
and writes each order with its rules to `ref.released`, `ref.review` or `ref.frozen`; where its folder is given, its `run.sh` is run.

What the command gets: BENCH_BROKER (host:port), BENCH_CATALOGUE (file of {code: sku}), BENCH_APP (a fresh group id), BENCH_STATE (an
empty folder), BENCH_PROCS (how many processes or threads), BENCH_PY (a Python with the peers' libraries), BENCH_MODE (throughput or
latency; one configuration must serve both).

A verdict is the last one said of an order: by its `verdict_seq` where the engine writes `orders.verdicts`, otherwise by the broker's
time. Latency is from the raw record's append to the first output's.
"""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from aiokafka.errors import KafkaError

from bench import rig
from bench.figures import percentile
from bench.reference import oracle
from bench.reference.oracle import Answer
from orderstream import kafka
from orderstream.demo.processes import Processes
from orderstream.errors import BadFile, RunFailed

RAW = "ref.raw"
OUT = {"ref.released": "released", "ref.review": "review", "ref.frozen": "frozen"}
PARTITIONS = 8
STALL_S = 60.0
START_S = 300.0
"""An engine that has not answered at all by then does not work."""
LIMIT_S = 1_800.0
STILL_S = 1.5
"""Without a further output for so long, after as many as there are orders, it is done: a verdict may be said again, stricter."""
_SCRIPT = 'trap : TERM; bash "$0" & wait; wait'
"""A leader that stays what it is: a script that becomes its engine would not be known again by who has to end it."""
FIRST = 50
"""Orders that a paced engine has to answer before the clock begins."""


OURS = ("orderstream", "orderstream-compiled")
"""Names of ours; they begin topics' names."""


class Engine(NamedTuple):
    """share: of the orders asked for, how many it is given (an engine that takes 10 ms an order would run for an hour)."""

    name: str
    command: Sequence[str]
    python: str = sys.executable
    share: float = 1.0
    paced: bool = True
    """Whether it can keep pace with a rate at all."""
    env: Mapping[str, str] = {}


class Job(NamedTuple):
    """What there is to do. right: what the oracle says."""

    orders: Sequence[bytes]
    catalogue: Mapping[str, str]
    right: Mapping[str, Answer]

    def part(self, count: int) -> Job:
        """Its first orders; what is right is found anew, since later orders would have changed it."""
        if count >= len(self.orders):
            return self
        orders = self.orders[:count]
        return Job(orders, self.catalogue, oracle.answers(orders, self.catalogue))


def job(orders: Iterable[bytes], catalogue: Mapping[str, str]) -> Job:
    """The job of these orders."""
    known = list(orders)
    return Job(known, catalogue, oracle.answers(known, catalogue))


def ours(checkout: Path | None = None) -> Engine:
    """The product as it is here, or as it is in another checkout, run by its own Python where it has one."""
    root = checkout or Path(__file__).parents[1]
    own = root / ".venv" / "bin" / "python"
    python = str(own) if checkout is not None and own.exists() else sys.executable
    return _of(OURS[0], root, python)


def compiled() -> Engine:
    """The product with its hops compiled. Raises BadFile where `make compiled` has not built them, or something else."""
    root = Path(__file__).parents[1]
    tree = root / "build" / "compiled"
    modules = [path.relative_to(tree) for folder in ("orderstream", "agents") for path in (tree / folder).rglob("*.py")]
    if not modules or any(not filecmp.cmp(tree / path, root / path, shallow=False) for path in modules):
        raise BadFile("没有与当前代码一致的编译版，请先 make compiled · no compiled build of this code: make compiled")
    return _of(OURS[1], tree, sys.executable)


def _of(name: str, tree: Path, python: str) -> Engine:
    """The code of that tree, whatever this Python's environment was installed from."""
    return Engine(name, [python, str(tree / "bench" / "reference" / "job.py")], python, env={"PYTHONPATH": str(tree)})


def peers(folder: Path) -> list[Engine]:
    """The engines of a folder laid out as README says, those that were built. Raises BadFile where it holds none."""
    work = Path(os.environ.get("BENCH_DIR") or folder / ".work")
    python = work / "venv" / "bin" / "python"
    known = {"kafka-streams": (1.0, True), "quix": (1.0, True), "faust_naive": (0.03, False)}
    found = []
    for name, (share, paced) in known.items():
        script = folder / name / "run.sh"
        needed = folder / name / "target" / "ref-kafka-streams.jar" if name == "kafka-streams" else python
        if script.exists() and needed.exists():
            found.append(Engine(name, ["bash", "-c", _SCRIPT, str(script)], str(python), share, paced))
    if not found:
        raise BadFile(
            f"{folder} 中没有建好的对照引擎，请先运行其 setup.sh · {folder} holds no engine that is built: run its setup.sh"
        )
    return found


class Tree:
    """The processes of a session: what they have used (s of processor time, those that ended too) and what they hold (bytes)."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._used: dict[int, float] = {}

    def look(self) -> tuple[float, int]:
        held = 0
        for name in os.listdir("/proc"):  # noqa: PTH208  names are enough, and there are hundreds
            if name.isdigit() and _session(int(name)) == self._leader:
                self._used[int(name)] = rig.processor(int(name))
                held += rig.memory(int(name)).rss
        return sum(self._used.values()), held


class Sample(NamedTuple):
    at: float
    outputs: int
    used: float
    held: int
    broker: float


class Run:
    """One engine on one broker. Use as a context: whatever happens, the engine is ended."""

    def __init__(
        self, line: rig.Rig, engine: Engine, job: Job, mode: str, workers: int = 2, partitions: int = PARTITIONS
    ) -> None:
        self.line, self.engine, self.job, self.mode, self.workers = line, engine, job, mode, workers
        self.partitions = partitions
        self.app = f"{engine.name}-{time.time_ns()}"
        self.first_work: float | None = None
        self.samples: list[Sample] = []
        self._processes = Processes(line.home / "logs")
        line.make_topics([RAW, *OUT], partitions, {"message.timestamp.type": "LogAppendTime"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.stop()

    def start(self) -> None:
        home = self.line.home
        (home / "catalogue.json").write_bytes(orjson.dumps(self.job.catalogue))
        (home / self.app).mkdir()
        env = {
            "BENCH_BROKER": self.line.address,
            "BENCH_CATALOGUE": str(home / "catalogue.json"),
            "BENCH_APP": self.app,
            "BENCH_STATE": str(home / self.app),
            "BENCH_PROCS": str(self.workers),
            "BENCH_PY": self.engine.python,
            "BENCH_MODE": self.mode,
            "BENCH_PARTITIONS": str(self.partitions),
        }
        child = self._processes.start(self.engine.name, self.engine.command, {**os.environ, **env, **self.engine.env})
        self.tree = Tree(child.process.pid)

    async def drain(self, wanted: int) -> None:
        """Waits for as many outputs, and until they stand still. Raises RunFailed where nothing moves for a minute."""
        from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415  a second of imports

        consumer = AIOKafkaConsumer(bootstrap_servers=self.line.address)
        await consumer.start()
        try:
            parts = [TopicPartition(topic, p) for topic in OUT for p in range(self.partitions)]
            before, began = -1, time.time()
            since = began
            while True:
                now = time.time()
                # a broker that gets no processor answers the next time
                with contextlib.suppress(KafkaError):
                    if self.first_work is None and await _works(consumer):
                        self.first_work = time.time()
                    outputs = sum((await consumer.end_offsets(parts)).values())
                    now = time.time()
                    self.samples.append(Sample(now, outputs, *self.tree.look(), rig.processor(self.line.broker_pid() or 0)))
                    if outputs != before:
                        before, since = outputs, now
                if before >= wanted and now - since > STILL_S:
                    return
                if now - since > STALL_S or now - began > LIMIT_S:
                    raise RunFailed(
                        f"{self.engine.name}: {STALL_S:.0f} 秒没有新输出 · nothing new for so long: {before} of {wanted}"
                    )
                self._processes.check()
                await asyncio.sleep(0.25)
        finally:
            await consumer.stop()

    def last(self) -> Sample:
        """When the last output came."""
        end = self.samples[-1].outputs
        return next(one for one in self.samples if one.outputs == end)

    def said(self) -> tuple[dict[str, Answer], dict[str, int], dict[str, int]]:
        """The last verdict of each order; when (ms) the first came; and how many were the same again, or others."""
        final: dict[str, tuple[tuple[int, int], Answer]] = {}
        first: dict[str, int] = {}
        beside = {"repeated": 0, "revised": 0}
        for message in sorted(kafka.read_all(self.line.address, list(OUT)), key=lambda one: one.timestamp):
            order = (message.key or b"").decode()
            answer = (OUT[message.topic], tuple(orjson.loads(message.value or b"")["rules"]))
            if order in final:
                beside["repeated" if final[order][1] == answer else "revised"] += 1
            first.setdefault(order, message.timestamp)
            final[order] = ((message.timestamp, 0), answer)
        if self.engine.name in OURS:
            # Two verdicts of one order may share a millisecond. Their numbers say which is the later.
            final = {}
            for message in kafka.read_all(self.line.address, [f"{self.app}.orders.verdicts"]):
                said = orjson.loads(message.value or b"")
                order, number = said["order_id"].rpartition(":")[2], (said["verdict_seq"], 0)
                if order not in final or final[order][0] < number:
                    final[order] = (number, (said["verdict"], tuple(sorted(s["rule"] for s in said["signals"]))))
        return {order: answer for order, (_, answer) in final.items()}, first, beside

    def batches(self) -> dict[str, float]:
        """Our own engine's, an order, by hop; known once its workers have ended."""
        found: dict[str, float] = {}
        for file in (self.line.home / self.app).glob("w*/batches.json"):
            for hop, number in orjson.loads(file.read_bytes()).items():
                found[hop] = found.get(hop, 0.0) + number / len(self.job.orders)
        return {f"{hop}_batches": round(number, 2) for hop, number in found.items()}

    def figures(self, began: Sample, orders: int) -> dict[str, Any]:
        """What every mode tells. began: where counting of processor time begins."""
        end, right = self.last(), self.job.right
        final, first, beside = self.said()
        self.first = first
        return {
            "engine": self.engine.name,
            "orders": len(self.job.orders),
            "cpu_us": round((end.used - began.used) / orders * 1e6, 1),
            "broker_us": round((end.broker - began.broker) / orders * 1e6, 1),
            "memory_mb": round(max(one.held for one in self.samples) / 1e6),
            "missing": len(right.keys() - first.keys()),
            **beside,
            "agreement": sum(final.get(order) == answer for order, answer in right.items()) / len(right),
        }


def throughput(line: rig.Rig, engine: Engine, job: Job, workers: int = 2, partitions: int = PARTITIONS) -> dict[str, Any]:
    """A backlog of all orders, worked off. partitions: of every topic, which only our own engine is told of."""
    with Run(line, engine, job, "throughput", workers, partitions) as run:
        asyncio.run(_preload(line, job.orders))
        busy, mine, clock = rig.busy(), time.process_time(), time.monotonic()
        zero = rig.processor(line.broker_pid() or 0)
        run.start()
        asyncio.run(run.drain(len(job.orders)))
        end = run.last()
        own = end.used + end.broker - zero + time.process_time() - mine
        others = (rig.busy() - busy - own) / (time.monotonic() - clock) / (os.cpu_count() or 1)
        found = run.figures(Sample(0, 0, 0.0, 0, zero), len(job.orders))
        at = sorted(run.first.values())
        began = next(one for one in run.samples if one.outputs)
        started = next((one for one in run.samples if one.at >= (run.first_work or 0)), began)
        row = {
            **found,
            "per_second": round(len(at) / max(0.001, at[-1] / 1000 - (run.first_work or 0)), 1),
            "per_second_of_outputs": round(len(at) / max(0.001, (at[-1] - at[0]) / 1000), 1),
            "cpu_us_once_started": round((end.used - began.used) / len(at) * 1e6, 1),
            "bytes_per_order": round((end.held - started.held) / len(at)),
            "others_share": round(others, 3),
        }
    return row | run.batches()


def paced(line: rig.Rig, engine: Engine, job: Job, rate: float, warm: float, workers: int = 2) -> dict[str, Any]:
    """So many orders a second: latency and processor time of those after the first `warm` seconds."""
    with Run(line, engine, job, "latency", workers) as run:
        run.start()
        warmed = FIRST + int(rate * warm)
        measured = job.orders[warmed:]

        async def feed() -> tuple[Sample, float]:
            async with rig.feeding(line, linger_ms=0) as feeding:
                await _pace(feeding, job.orders[:FIRST], 100)
                await run.drain(FIRST)
                await _pace(feeding, job.orders[FIRST:warmed], rate)
                began = Sample(time.time(), 0, *run.tree.look(), rig.processor(line.broker_pid() or 0))
                late = await _pace(feeding, measured, rate)
            await run.drain(len(job.orders))
            return began, late

        busy, clock = rig.busy(), time.monotonic()
        began, late = asyncio.run(feed())
        found = run.figures(began, len(measured))
        raw = {(m.key or b""): m.timestamp for m in kafka.read_all(line.address, [RAW])}
        own = run.last().used + run.last().broker
        took = [run.first[key.decode()] - raw[key] for key in map(_key, measured) if key.decode() in run.first]
        row = {
            **found,
            "rate": rate,
            **{f"p{share}_ms": percentile(took, share / 100) for share in (50, 90, 99)},
            "max_ms": max(took, default=None),
            "late_ms": round(late * 1000),
            "busy_share": round((rig.busy() - busy) / (time.monotonic() - clock) / (os.cpu_count() or 1), 3),
            "own_s": round(own, 1),
        }
    return row | run.batches()


def alone(line: rig.Rig, engine: Engine, job: Job, warm: int = 50, workers: int = 2) -> dict[str, Any]:
    """Each order once the last one is answered: what an order costs that shares its batches with none, on a busy machine too.

    The first `warm` are not counted.
    """
    with Run(line, engine, job, "latency", workers) as run:
        run.start()
        began: Sample | None = None

        async def go() -> None:
            nonlocal began
            async with rig.feeding(line, linger_ms=0) as feeding, _outputs(line) as answered:
                for number, order in enumerate(job.orders):
                    if number == warm:
                        began = Sample(time.time(), 0, *run.tree.look(), rig.processor(line.broker_pid() or 0))
                    await feeding.put(RAW, _key(order), order)
                    while (await asyncio.wait_for(answered.get(), STALL_S)) != _key(order):
                        pass
            await run.drain(len(job.orders))

        asyncio.run(go())
        assert began is not None
        row = run.figures(began, len(job.orders) - warm)
        raw = {(m.key or b"").decode(): m.timestamp for m in kafka.read_all(line.address, [RAW])}
        took = [run.first[order] - at for order, at in raw.items() if order in run.first]
        row |= {f"p{share}_ms": percentile(took[warm:], share / 100) for share in (50, 90, 99)}
    return row | run.batches()


@contextlib.asynccontextmanager
async def _outputs(line: rig.Rig) -> AsyncIterator[asyncio.Queue[bytes]]:
    """The orders of the outputs as they come."""
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415

    found: asyncio.Queue[bytes] = asyncio.Queue()
    consumer = AIOKafkaConsumer(*OUT, bootstrap_servers=line.address, auto_offset_reset="earliest", fetch_max_wait_ms=100)
    await consumer.start()

    async def read() -> None:
        async for record in consumer:
            found.put_nowait(record.key)

    reading = asyncio.create_task(read())
    try:
        yield found
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.stop()


async def _preload(line: rig.Rig, orders: Sequence[bytes]) -> None:
    async with rig.feeding(line) as feed:
        for order in orders:
            await feed.put(RAW, _key(order), order)


async def _pace(feed: rig.Feed, orders: Sequence[bytes], rate: float) -> float:
    """Sends each in its time; the most (s) by which one was late."""
    began, late = time.perf_counter(), 0.0
    for number, order in enumerate(orders):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        late = max(late, -wait)
        await feed.put(RAW, _key(order), order)
    await feed.flush()
    return late


async def _works(consumer: Any) -> bool:
    """Whether anything but the input has been written: an engine's first work, of any of its stages."""
    from aiokafka import TopicPartition  # noqa: PLC0415

    there = await consumer._client.fetch_all_metadata()  # noqa: SLF001  nothing public tells topics that nobody subscribed to
    names = [name for name in there.topics(exclude_internal_topics=True) if name != RAW and not name.startswith("__")]
    parts = [TopicPartition(name, p) for name in names for p in there.partitions_for_topic(name) or ()]
    return any((await consumer.end_offsets(parts)).values())


def _key(order: bytes) -> bytes:
    """The id, with which every order begins."""
    return order[13 : order.index(b'"', 13)]


def _session(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, ValueError):
        return None
