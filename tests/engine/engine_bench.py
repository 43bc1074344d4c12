"""A bench for the engine: topics of this test's own, toy workers as real processes, and waiting for conditions."""

import asyncio
import contextlib
import json
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.waiting import until

TOY = Path(__file__).with_name("toy.py")


class Worker:
    """A toy worker's process and what it told."""

    def __init__(self, config: dict, folder: Path) -> None:
        self.log = folder / f"{uuid.uuid4().hex[:6]}.log"
        with self.log.open("wb") as out:
            config = {**config, "datadir": str(self.log.with_suffix(".state"))}
            self.process = subprocess.Popen([sys.executable, str(TOY), json.dumps(config)], stdout=out, stderr=out)

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self, name: str) -> list[dict]:
        found = []
        for line in self.text().splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict) and told.get("event") == name:
                    found.append(told)
        return found

    async def holds(self, *counts: int, seconds: float = 30.0) -> None:
        """Until it holds that many partitions (any, when none is named)."""

        def held() -> bool:
            assert self.code is None, self.text()
            told = self.events("rebalanced")
            return bool(told) and (not counts or told[-1]["partitions"] in counts)

        await until(held, lambda: f"holding {counts or 'anything'}: {self.text()[-2000:]}", seconds)

    async def ended(self, seconds: float = 30.0) -> int:
        await until(lambda: self.code is not None, lambda: f"the end of the worker: {self.text()[-2000:]}", seconds)
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Bench:
    def __init__(self, brokers: str, folder: Path, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer) -> None:
        self.brokers, self.folder, self.admin, self.producer = brokers, folder, admin, producer
        self.prefix = f"e{uuid.uuid4().hex[:8]}."
        self.app = self.prefix + "app"
        self.changelog = f"{self.app}-book-changelog"
        self.archive = f"{self.app}-book-archive"
        self.workers: list[Worker] = []
        self.partitions = 4

    def name(self, topic: str) -> str:
        return self.prefix + topic

    async def topics(self, *names: str, partitions: int | None = None, **configs: str) -> None:
        """Make topics, and wait until every partition has a leader."""
        number = partitions or self.partitions
        await self.admin.create_topics([NewTopic(name, number, 1, topic_configs=configs) for name in names])

        async def led() -> bool:
            told = await self.admin.describe_topics(list(names))
            return all(len(t["partitions"]) == number and all(p["leader"] >= 0 for p in t["partitions"]) for t in told)

        await until(led, f"leaders of {names}", 15)

    async def standard(self, without: str = "", **more: object) -> dict:
        """Topics raw -> relay -> mid, extra -> book -> out, `without` one; the config of a worker that does it."""
        names = {name: self.name(name) for name in ("raw", "mid", "extra", "out", "idle")}
        await self.topics(*(topic for name, topic in names.items() if name != without), self.changelog, self.archive)
        return self.config(raw=names["raw"], mid=names["mid"], book=[names["mid"], names["extra"]], out=names["out"], **more)

    def config(self, **more: object) -> dict:
        return {"app": self.app, "brokers": self.brokers, "partitions": self.partitions, **more}

    def worker(self, config: dict) -> Worker:
        worker = Worker(config, self.folder)
        self.workers.append(worker)
        return worker

    async def send(self, topic: str, values: list[str], partition: int | None = None, headers: tuple = ()) -> None:
        futures = [
            await self.producer.send(
                topic, v.encode(), partition=i % self.partitions if partition is None else partition, headers=[*headers]
            )
            for i, v in enumerate(values)
        ]
        await asyncio.gather(*futures)

    async def read(self, topic: str) -> list:
        """All that is in a topic now."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.brokers, auto_offset_reset="earliest")
        await consumer.start()
        found = []
        try:
            tps = [TopicPartition(topic, number) for number in range(self.partitions)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
        finally:
            await consumer.stop()
        return found

    async def committed(self, topic: str) -> dict[int, int]:
        offsets = await self.admin.list_consumer_group_offsets(self.app)
        return {tp.partition: meta.offset for tp, meta in offsets.items() if tp.topic == topic}

    async def committed_is(self, topic: str, total: int) -> bool:
        """Whether the commits of a topic's partitions add up to this."""
        return sum((await self.committed(topic)).values()) == total

    async def logged(self, ids: set[str]) -> bool:
        """Whether the book's changelog has all these ids."""
        found = {entry[0] for record in await self.read(self.changelog) if record.value for entry in json.loads(record.value)}
        return ids <= found

    async def numbered(self) -> int:
        """How many (partition, number) pairs the changelog's owners have given."""
        log = await self.read(self.changelog)
        return len({(record.partition, n) for record in log if record.value for _, n in json.loads(record.value)})

    async def published(self) -> list[dict]:
        return [json.loads(record.value) for record in await self.read(self.name("out"))]

    async def all_published(self, ids: set[str], seconds: float = 30.0) -> list[dict]:
        """What was published, once every one of these ids was."""
        found: list[dict] = []

        async def complete() -> bool:
            nonlocal found
            for worker in self.workers:
                assert worker.code in (None, 0, -9), worker.text()[-3000:]
            found = await self.published()
            return ids <= {told["id"] for told in found}

        await until(complete, f"{len(ids)} ids published", seconds)
        return found


def contradictions(published: list[dict]) -> list[str]:
    """Where the outside was told two things: an id with two numbers, a number with two ids, a number skipped."""
    numbers: dict[str, set] = defaultdict(set)
    ids: dict[tuple, set] = defaultdict(set)
    for told in published:
        numbers[told["id"]].add((told["p"], told["n"]))
        ids[told["p"], told["n"]].add(told["id"])
    faults = [f"{name} was numbered {sorted(found)}" for name, found in numbers.items() if len(found) > 1]
    faults += [f"{place} was given to {sorted(found)}" for place, found in ids.items() if len(found) > 1]
    for partition in {place[0] for place in ids}:
        own = sorted(number for p, number in ids if p == partition)
        if own != list(range(len(own))):
            faults.append(f"partition {partition} skipped numbers")
    return faults


@pytest.fixture
async def bench(brokers: str, tmp_path: Path) -> AsyncIterator[Bench]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await admin.start()
    await producer.start()
    made = Bench(brokers, tmp_path, admin, producer)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.code is None:
                worker.process.kill()
            worker.process.wait()
        await producer.stop()
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(made.prefix)])
        await admin.close()
