"""The line on this machine, to be measured: an own broker, topics, catalogue and pack, worker processes, and what they take.

Law: what is measured is what an operator runs (`orderstream worker`, the ERP consumer, a real Kafka), looked at from outside: /proc,
/metrics, the topics. Whatever happens, it ends what it started, by number. Linux only: memory and processor time are read in /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from bench.days import Sent
from orderstream import broker, catalogue, kafka, topics
from orderstream.broker import Broker
from orderstream.demo.processes import Child, Processes
from orderstream.engine.partitioner import Partitioner
from orderstream.errors import RunFailed
from orderstream.rules import cli as rules
from orderstream.settings import PREFIX, Settings
from orderstream.simulators.assortment import catalogue as articles

PREFIX_OF_BENCH = "bench."
_TICK = os.sysconf("SC_CLK_TCK")
_ERROR = re.compile(rb"Traceback \(|\d{4}-\d\d-\d\d [\d:,]+ (?:ERROR|CRITICAL) |(?:\d+ )?\[[^\]]+\] (?:ERROR|FATAL) ")
"""How a line of error begins: Python's, ours, the broker's."""
_KEPT_SETTINGS = ("CACHE_DIR", "BROKER_WITH")


class Memory(NamedTuple):
    """Of one process, bytes. rss: resident; anonymous: of that what no file backs; peak: the highest rss ever."""

    rss: int
    anonymous: int
    peak: int


class Watched(NamedTuple):
    """A process of the line. port: of its /metrics."""

    name: str
    child: Child
    port: int

    @property
    def pid(self) -> int:
        return self.child.process.pid


class Scrape:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        self.series = len(self._samples)
        """How many series there are: it grows for ever where a label is fed by orders."""

    def each(self, name: str, **labels: str) -> Iterator[tuple[Mapping[str, str], float]]:
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.labels, float(sample.value)

    def total(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self.each(name, **labels))


class Rig:
    """The line under `home`. heap_mb: the broker's; fresh: nothing is there yet, otherwise what an earlier run left is used again."""

    def __init__(self, home: Path, *, heap_mb: int = 512, fresh: bool = True) -> None:
        self.home = home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        for name in [n for n in os.environ if n.startswith(PREFIX) and n.removeprefix(PREFIX) not in _KEPT_SETTINGS]:
            del os.environ[name]  # a developer's installation has no business here
        given = Settings.load(broker_heap_mb=heap_mb)
        self.broker: Broker = broker.start(given, self.home / "broker", port=0, fresh=fresh)
        self.settings = Settings.load(
            brokers=self.broker.address, topic_prefix=PREFIX_OF_BENCH, state_dir=self.home / "state", key="key-of-the-bench"
        )
        self._running: dict[str, Processes] = {}
        self.watched: dict[str, Watched] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self._running.pop(name).stop()
        self.broker.stop()

    @property
    def address(self) -> str:
        return self.broker.address

    @staticmethod
    def name(topic: str) -> str:
        """On the broker. The reference job's own topics have no prefix."""
        return topic if topic.startswith("ref.") else topics.name(topic, PREFIX_OF_BENCH)

    # -- what is there before the first order

    def prepare(self, pack: Path) -> None:
        """Topics, catalogue, and a pack that holds from the beginning."""
        topics.now(topics.apply(self.address, self.settings))
        lines = []
        for article in articles():
            blob = orjson.dumps(article)
            at, _ = catalogue.read_article(blob)
            lines.append((self.name("catalog.skus"), f"{article['sku']}|{at}".encode(), blob))
        kafka.send_all(self.address, lines)
        rules.publish(self.settings, self.address, pack)

    def shorten(self, retention_s: int) -> None:
        """Lets every topic that is deleted by time forget after so many seconds, in segments of a quarter of it."""
        configs = {
            topic.on_broker(self.settings): {
                **topic.config,
                "retention.ms": str(retention_s * 1000),
                "segment.ms": str(retention_s * 250),
                "segment.bytes": str(64 << 20),
                "file.delete.delay.ms": "5000",
            }
            for topic in topics.declared()
            if "delete" in topic.config.get("cleanup.policy", "")
        }
        topics.now(_alter(self.address, configs))

    def make_topics(self, names: Iterable[str], partitions: int, config: Mapping[str, str] = {}) -> None:
        """Topics that the product does not declare: the reference job's own."""
        topics.now(_create(self.address, list(names), partitions, config))

    def clear(self) -> None:
        """Deletes every topic, and returns when they are gone."""
        topics.now(_clear(self.address))

    # -- processes

    def worker(self, name: str) -> Watched:
        return self.start(name, ["-m", "orderstream", "worker"])

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str] = {}) -> Watched:
        """One process with a state folder and a metrics port of its own."""
        port = broker.free_port()
        values = {
            "BROKERS": self.address,
            "TOPIC_PREFIX": PREFIX_OF_BENCH,
            "STATE_DIR": str(self.home / name),
            "METRICS_PORT": str(port),
            "KEY": "key-of-the-bench",
            "LOG_LEVEL": "INFO",
        }
        whole = os.environ | {PREFIX + setting: value for setting, value in values.items()} | dict(env)
        whole["PYTHONPATH"] = str(Path(__file__).parents[1])
        self._running[name] = Processes(self.home / "logs")
        child = self._running[name].start(name, [sys.executable, *arguments], whole)
        self.watched[name] = Watched(name, child, port)
        return self.watched[name]

    async def until_ready(self, names: Sequence[str], seconds: float) -> float:
        """Waits until every partition is held by one of these workers and takes input; how long that took (s).

        A partition's windows show in /metrics once it is restored and has read its input, or has none, looked at every second.
        """
        started = time.monotonic()
        wanted = {str(p) for p in range(self.settings.partitions)}
        while True:
            self.check()
            there: set[str] = set()
            for name in names:
                scrape = await asyncio.to_thread(self.scrape, self.watched[name])
                if scrape is not None:
                    there |= {labels["partition"] for labels, _ in scrape.each("orderstream_window_entries")}
            if there == wanted:
                return time.monotonic() - started
            if time.monotonic() - started > seconds:
                raise RunFailed(
                    f"{seconds:.0f} 秒后仍无进程持有分区 · after {seconds:.0f} s nobody holds the partitions {sorted(wanted - there)}"
                )
            await asyncio.sleep(0.05)

    def kill(self, name: str) -> None:
        """SIGKILL, and gone."""
        process = self.watched.pop(name).child.process
        del self._running[name]
        process.kill()
        process.wait()

    def end(self, name: str) -> None:
        """SIGTERM, and gone."""
        del self.watched[name]
        self._running.pop(name).stop()

    def check(self) -> None:
        """Raises RunFailed where a process has ended by itself."""
        for processes in self._running.values():
            processes.check()

    # -- what they take

    def scrape(self, watched: Watched) -> Scrape | None:
        """Its metrics now; None while it serves none yet."""
        text = fetch(watched.port)
        return None if text is None else Scrape(text)

    def broker_pid(self) -> int | None:
        """None where the broker is no process of ours to look at (Docker)."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.home / "broker" / "kafka.pid").read_text())
        return None

    def pids(self) -> dict[str, int]:
        found = {name: watched.pid for name, watched in self.watched.items()}
        pid = self.broker_pid()
        return found if pid is None else {**found, "broker": pid}

    def errors(self) -> list[str]:
        """Every line of error that any process has logged, the broker's included."""
        found = []
        for path in [*sorted((self.home / "logs").glob("*.log")), self.home / "broker" / "kafka.log"]:
            with contextlib.suppress(OSError):
                found += [f"{path.stem}: {line.decode('utf-8', 'replace')[:200]}" for line in error_lines(path.read_bytes())]
        return found

    def disk(self, part: str = "") -> int:
        """Bytes that the broker's data takes on the disk; part: of the partitions whose name contains it."""
        total = 0
        for folder, _, files in os.walk(self.home / "broker" / "data"):
            if part in Path(folder).name:
                for file in files:
                    with contextlib.suppress(OSError):  # deleted while we looked
                        total += (Path(folder) / file).stat().st_blocks * 512
        return total


def quiet() -> None:
    """Our own client's warnings are not the line's: a topic that was just made has no leader for a moment, and it asks again."""
    logging.getLogger("aiokafka").setLevel(logging.ERROR)


def console() -> Console:
    """Wide enough for the tables, also where nobody looks at it."""
    here = Console()
    return Console(width=max(here.width, 140))


def error_lines(log: bytes) -> list[bytes]:
    """The lines of a log that say ERROR or worse, or begin a traceback."""
    return [line for line in log.splitlines() if _ERROR.match(line)]


def fetch(port: int) -> str | None:
    """The text of /metrics on this machine; None where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def memory(pid: int) -> Memory:
    """Of a process, all zero once it is gone."""
    found = {"VmRSS": 0, "RssAnon": 0, "VmHWM": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return Memory(found["VmRSS"], found["RssAnon"], found["VmHWM"])


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used, 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def busy() -> float:
    """Seconds of processor time that this machine has spent on anything."""
    user, nice, system, _, _, interrupts, soft, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, interrupts, soft))) / _TICK


class Feed:
    """Writes raw records as intake would, with their own received_at."""

    def __init__(self, producer: Any, rig: Rig) -> None:
        self._producer = producer
        self._rig = rig
        self.sent = 0

    async def send(self, record: Sent) -> asyncio.Future[Any]:
        """Hands a record over; the future is done once the broker has it."""
        self.sent += 1
        future: asyncio.Future[Any] = await self._producer.send(
            self._rig.name(record.topic), record.value, key=record.key, headers=record.headers
        )
        return future

    async def put(self, topic: str, key: bytes, value: bytes) -> None:
        """Hands over a record of the reference job; `flush` waits for the broker."""
        self.sent += 1
        await self._producer.send(self._rig.name(topic), value, key=key)

    async def tell(self, records: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Reference records, all acknowledged before it returns."""
        futures = [await self._producer.send(self._rig.name(topic), value, key=key) for topic, key, value in records]
        await asyncio.gather(*futures)

    async def flush(self) -> None:
        await self._producer.flush()


@contextlib.asynccontextmanager
async def feeding(rig: Rig, linger_ms: int = 5) -> AsyncIterator[Feed]:
    """A feed into this line; all is acknowledged at its end."""
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415  a second of imports

    producer = AIOKafkaProducer(
        bootstrap_servers=rig.address,
        acks="all",
        enable_idempotence=True,
        linger_ms=linger_ms,
        max_batch_size=1 << 18,
        max_request_size=4 << 20,
        partitioner=Partitioner(),
    )
    await producer.start()
    try:
        yield Feed(producer, rig)
    finally:
        await producer.stop()


class Verdicts:
    """Reads orders.verdicts from where it stands: when (ms, the broker's time) each order had its first verdict here.

    keep: which orders to remember, None for all.
    """

    def __init__(self, keep: set[str] | None = None) -> None:
        self.first: dict[str, int] = {}
        self.seen = 0
        self.keep = keep

    async def follow(self, rig: Rig, ready: asyncio.Event) -> None:
        """Reads until cancelled. ready: set once the position is known."""
        from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415

        consumer = AIOKafkaConsumer(bootstrap_servers=rig.address, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            parts = [TopicPartition(rig.name("orders.verdicts"), p) for p in range(rig.settings.partitions)]
            consumer.assign(parts)
            await consumer.seek_to_end(*parts)
            for part in parts:
                await consumer.position(part)
            ready.set()
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    self.seen += len(records)
                    for record in records:
                        order = record.key.decode()
                        if self.keep is None or order in self.keep:
                            self.first.setdefault(order, record.timestamp)
        finally:
            await consumer.stop()


@contextlib.asynccontextmanager
async def reading(rig: Rig, verdicts: Verdicts) -> AsyncIterator[None]:
    """Verdicts are read while this block runs."""
    ready = asyncio.Event()
    task = asyncio.create_task(verdicts.follow(rig, ready))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _alter(address: str, configs: Mapping[str, Mapping[str, str]]) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=30_000)
    await admin.start()
    try:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(config)) for topic, config in configs.items()]
        for answer in await admin.alter_configs(wanted):
            refused = [(topic, message) for code, message, _, topic in answer.resources if code]
            if refused:
                raise RunFailed(f"Kafka 拒绝修改主题 · the broker refused to alter topics: {refused}")
    finally:
        await admin.close()


async def _create(address: str, names: list[str], partitions: int, config: Mapping[str, str]) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=30_000)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, partitions, 1, topic_configs=dict(config)) for name in names], timeout_ms=30_000
        )
    finally:
        await admin.close()


async def _clear(address: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=30_000)
    await admin.start()
    try:
        while names := [name for name in await admin.list_topics() if not name.startswith("__")]:
            await admin.delete_topics(names, timeout_ms=30_000)
            await asyncio.sleep(0.2)
    finally:
        await admin.close()
