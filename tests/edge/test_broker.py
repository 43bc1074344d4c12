"""A broker of ours: found, kept apart from strangers, killed, brought back, and gone with its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from orderstream import access
from orderstream import broker as kafka
from orderstream.errors import NoBroker
from orderstream.settings import Settings
from tests.waiting import wait_until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[kafka.Broker]:
    started = kafka.start(Settings.load(broker_with="java"), tmp_path / "kafka", port=0)
    yield started
    started.stop()


def commands(needle: str) -> list[int]:
    """The processes with this text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if needle in line and "kafka.Kafka" in line:
                found.append(int(entry.name))
    return found


async def topics_of(address: str, *make: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    if make:
        await admin.create_topics([NewTopic(name, 1, 1) for name in make])
    found = set(await admin.list_topics())
    await admin.close()
    return found


@pytest.mark.stream
def test_a_killed_broker_comes_back_with_its_address_and_its_data(own: kafka.Broker) -> None:
    """SIGKILL loses nothing that was acknowledged, and clients find it where it was."""
    address = own.address
    assert own.owned
    assert "Java" in own.describe()
    asyncio.run(topics_of(address, "kept"))
    own.kill()
    assert not access.answers(address)
    own.restart()
    assert own.address == address
    assert "kept" in asyncio.run(topics_of(address))
    own.stop()
    assert not access.answers(address)
    assert commands(str(own.home)) == []


@pytest.mark.stream
def test_start_and_stop_across_processes(tmp_path: Path) -> None:
    """`broker start` leaves one running that later commands find; `broker stop` ends that one; a second stop finds none."""
    env = {**os.environ, "ORDERSTREAM_BROKERS": "", "ORDERSTREAM_BROKER_WITH": "java", "ORDERSTREAM_STATE_DIR": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orderstream", "broker", *words], env=env, capture_output=True, text=True, check=False
        )

    try:
        started = run("start")
        assert started.returncode == 0, started
        again, status = run("start"), run("status")
        address = started.stdout.split()[1]
        assert address in again.stdout
        assert "already running" in again.stdout
        assert status.stdout == again.stdout
        assert len(commands(str(tmp_path))) == 1
    finally:
        stopped = run("stop")
    assert address in stopped.stdout
    assert commands(str(tmp_path)) == []
    assert run("status").returncode == 4
    assert run("stop").returncode == 0


@pytest.mark.stream
def test_an_owned_broker_ends_with_its_owner(tmp_path: Path) -> None:
    """Even when the owner is killed and can clean up nothing."""
    code = (
        "import sys, time; from pathlib import Path; from orderstream import broker; from orderstream.settings import Settings;"
        "b = broker.start(Settings.load(broker_with='java'), Path(sys.argv[1]), port=0); print(b.address, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    address = owner.stdout.readline().strip()
    assert access.answers(address)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: not commands(str(tmp_path)), lambda: str(commands(str(tmp_path))), 10)


def test_a_stranger_s_process_is_never_ended(tmp_path: Path) -> None:
    """A pid file that names a process with another command line names nobody: the number was given to somebody else."""
    home = tmp_path / "broker"
    home.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (home / "kafka.pid").write_text(str(stranger.pid))
        (home / "broker.json").write_text('{"address": "127.0.0.1:1", "kind": "java"}')
        settings = Settings.load(brokers=None, state_dir=tmp_path)
        assert kafka.running(settings) is None
        assert kafka.stop_running(settings) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.stream
def test_no_topic_appears_by_accident(brokers: str) -> None:
    """A misspelled topic name is an error, not a topic with the wrong partitions."""
    from aiokafka import AIOKafkaProducer

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=brokers, request_timeout_ms=500)
        await producer.start()
        with pytest.raises(Exception, match=""):
            await asyncio.wait_for(producer.send_and_wait("misspelled", b"x"), 2)
        await producer.stop()

    asyncio.run(send())
    assert "misspelled" not in asyncio.run(topics_of(brokers))


@pytest.mark.stream
def test_the_environment_s_broker_comes_first_and_is_not_ours(brokers: str, tmp_path: Path) -> None:
    """What we were given we use and never stop."""
    found = kafka.find_or_start(Settings.load(brokers=brokers, state_dir=tmp_path))
    assert (found.kind, found.owned, found.address) == ("environment", False, brokers)
    found.stop()
    found.kill()
    assert access.answers(brokers)
    with pytest.raises(NoBroker):
        kafka.find_or_start(Settings.load(brokers="127.0.0.1:1", state_dir=tmp_path))


def test_a_cluster_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that begins with `-`, one in 64, is drawn again: the storage tool would refuse to format."""
    drawn = iter([uuid.UUID(bytes=bytes([first]) + bytes(15)) for first in (0xF8, 0xFB, 0xFC)])
    monkeypatch.setattr(kafka.uuid, "uuid4", lambda: next(drawn))

    assert kafka._cluster_id() == "_AAAAAAAAAAAAAAAAAAAAA"


def test_an_open_port_is_no_kafka() -> None:
    """Only something that speaks the protocol counts as there."""
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert not access.answers(f"127.0.0.1:{other.getsockname()[1]}", 0.3)


def test_docker_gets_a_port_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is an engine, Apache's image of the same version runs, reachable from this machine alone."""
    containers: list[Any] = []

    class Container:
        def __init__(self, image: str, **kwargs: Any) -> None:
            self.image, self.env, self.name, self.ports = image, {}, "", {}
            containers.append(self)

        def with_name(self, name: str) -> Container:
            self.name = name
            return self

        def with_env(self, key: str, value: str) -> None:
            self.env[key] = value

        def start(self) -> None: ...

    import testcontainers.core.container

    monkeypatch.setattr(testcontainers.core.container, "DockerContainer", Container)
    monkeypatch.setattr(kafka, "_docker_answers", lambda: True)
    monkeypatch.setattr(access, "answers", lambda *_: True)
    started = kafka.start(Settings.load(broker_with="auto"), tmp_path, port=0)
    (box,) = containers
    assert (started.kind, started.owned, started.container) == ("docker", True, box.name)
    assert box.image == f"apache/kafka:{kafka.kafka_version()}"
    host, port = started.address.split(":")
    assert box.ports == {"9092/tcp": (host, int(port))} == {"9092/tcp": ("127.0.0.1", int(port))}
    assert box.env["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert box.env["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://127.0.0.1:{port}"
    assert kafka.running(Settings.load(brokers=None, state_dir=tmp_path.parent)) is None
