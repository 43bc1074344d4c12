"""Intake as a process, on a real Kafka, with its broker killed under it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from orderstream import broker as kafka
from orderstream import topics
from orderstream.channels import channel
from orderstream.channels.api import sign
from orderstream.intake.envelope import partition_of
from orderstream.settings import Settings
from orderstream.wire import read_raw

pytestmark = pytest.mark.stream
SECRET = "s-1"


class Intake:
    """`orderstream intake` as a child process."""

    def __init__(self, settings: Settings, **env: str) -> None:
        self.settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        names = {
            "BROKERS": str(settings.brokers), "TOPIC_PREFIX": settings.topic_prefix, "PARTITIONS": str(settings.partitions),
            "INTAKE_PORT": str(self.port), "SECRETS": json.dumps({"api:main": [SECRET]}), **env,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orderstream", "intake"],
            env={**os.environ, **{f"ORDERSTREAM_{name}": value for name, value in names.items()}},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        self._asked = False

    async def up(self) -> Intake:
        async with httpx.AsyncClient() as client:
            for _ in range(200):
                assert self.process.poll() is None, self.process.communicate()[0]
                try:
                    if (await client.get(self.url + "/readyz")).status_code == 200:
                        return self
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError("intake is not up")

    def ask(self) -> None:
        """SIGTERM, once: a second one may meet an interpreter that has put its handlers away."""
        if not self._asked and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._asked = True

    def end(self) -> tuple[int, str]:
        self.ask()
        said = self.process.communicate(timeout=20)[0]
        return self.process.returncode, said


async def post(client: httpx.AsyncClient, intake: Intake, number: str, **more: object) -> int:
    body = json.dumps({"order_id": number, **more}).encode()
    answer = await client.post(f"{intake.url}/hooks/api/main", content=body, headers=sign(body, SECRET, int(time.time())))
    return answer.status_code


async def records(settings: Settings) -> list[tuple[int, str, str]]:
    """(partition, key, order number) of every raw api record."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    parts = [TopicPartition(topics.raw("api", settings.topic_prefix), at) for at in range(settings.partitions)]
    consumer.assign(parts)
    ends = await consumer.end_offsets(parts)
    found = []
    while any([await consumer.position(part) < ends[part] for part in parts]):
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            for record in batch:
                raw = read_raw(record.topic, record.headers, record.value, record.timestamp)
                assert (raw.shop, raw.verified) == ("main", "hmac-sha256")
                found.append((record.partition, record.key.decode(), json.loads(raw.body)["order_id"]))
    await consumer.stop()
    return found


@pytest.fixture
def intakes() -> Iterator[list[Intake]]:
    started: list[Intake] = []
    yield started
    for intake in started:
        if intake.process.poll() is None:
            intake.process.kill()
            intake.process.communicate()


async def test_acknowledged_means_in_kafka(fresh_topics: Callable[..., Settings], intakes: list[Intake]) -> None:
    """Every 200 is a record, keyed by its order, on the partition where every Kafka client would look for that key."""
    settings = fresh_topics(partitions=4)
    intake = await Intake(settings).up()
    intakes.append(intake)
    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(*(post(client, intake, f"A{at % 100}", revision=at // 100) for at in range(200)))
    assert set(answers) == {200}
    found = await records(settings)
    assert sorted(number for _, _, number in found) == sorted(f"A{at % 100}" for at in range(200))
    for partition, key, number in found:
        assert key == f"api:main:{number}"
        assert partition == partition_of(key, 4) == DefaultPartitioner()(key.encode(), [0, 1, 2, 3], [])
    code, said = intake.end()
    assert code == 0, said
    assert "A1" not in said


async def test_sigterm_finishes_what_is_in_flight(fresh_topics: Callable[..., Settings], intakes: list[Intake]) -> None:
    """Deliveries that were being read when the signal came are answered and kept: nothing acknowledged is lost."""
    settings = fresh_topics()
    intake = await Intake(settings).up()
    intakes.append(intake)
    good: list[str] = []

    async def sender(name: int) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            for at in range(1000):
                try:
                    if await post(client, intake, f"S{name}-{at}") == 200:
                        good.append(f"S{name}-{at}")
                except httpx.HTTPError:
                    return

    senders = [asyncio.create_task(sender(name)) for name in range(8)]
    async with asyncio.timeout(30):
        while len(good) < 50:  # noqa: ASYNC110  a test may look
            await asyncio.sleep(0.01)
    intake.ask()
    await asyncio.gather(*senders)
    code, said = await asyncio.to_thread(intake.end)
    assert code == 0, said
    assert len(good) < 8000, "the signal came while they were sending"
    kept = {number for _, _, number in await records(settings)}
    assert set(good) <= kept


async def test_a_killed_broker_is_a_503_in_time_and_nothing_acknowledged_is_lost(tmp_path: Path, intakes: list[Intake]) -> None:
    """While Kafka is away: 503 within 4 s and not ready. After it is back: 200 again, by the same process."""
    own = await asyncio.to_thread(kafka.start, Settings.load(), tmp_path / "kafka", port=0)
    try:
        settings = Settings.load(brokers=own.address, topic_prefix="f.", partitions=2)
        await topics.apply(own.address, settings)
        intake = await Intake(settings, INTAKE_IN_FLIGHT="4").up()
        intakes.append(intake)
        good = []
        async with httpx.AsyncClient(timeout=10) as client:
            assert await post(client, intake, "before") == 200
            good.append("before")
            await asyncio.to_thread(own.kill)
            began = time.monotonic()
            assert await asyncio.gather(*(post(client, intake, f"away{at}") for at in range(4))) == [503] * 4
            assert time.monotonic() - began < 4
            # the four that wait fill the bound: the fifth is answered at once
            began = time.monotonic()
            assert await post(client, intake, "away5") == 503
            assert time.monotonic() - began < 0.5
            assert (await client.get(intake.url + "/readyz")).status_code == 503
            assert (await client.get(intake.url + "/healthz")).status_code == 200
            await asyncio.to_thread(own.restart)
            for at in range(100):
                if await post(client, intake, f"back{at}") == 200:
                    good.append(f"back{at}")
                    break
                await asyncio.sleep(0.1)
        assert len(good) == 2
        assert set(good) <= {number for _, _, number in await records(settings)}
        code, said = await asyncio.to_thread(intake.end)
        assert code == 0
        assert len(said.splitlines()) == 3, "the start, Kafka away, Kafka back: an outage does not fill the disk with logs"
    finally:
        await asyncio.to_thread(own.kill)
        await asyncio.to_thread(own.stop)


def test_the_channel_key_is_the_record_key() -> None:
    """Intake and the kernel name an order alike."""
    body = b'{"order_id": "A1"}'
    assert channel("api").key("main", body, {}) == "api:main:A1"
