"""Finding or starting a Kafka: always the real one, whichever way this machine has.

Law: the order is `ORDERSTREAM_BROKERS`, the one that `orderstream broker start` left running, a Docker engine, Java 17+
with Kafka's jars from Maven; and what we did not start we never stop. A process is ours only when its number *and* its
command line say so. Reason: a process number alone is reused by the system, and ending a stranger's process is worse than
leaving one of ours behind.

A broker of ours is one KRaft node on loopback. Topics never appear by accident (`auto.create.topics.enable=false`): a
topic that nobody declared would have the wrong partition count, and orders would meet in the wrong place.
"""

# ruff: noqa: S603  every command here is a fixed list of arguments, without a shell
from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orderstream import access
from orderstream.errors import BrokerFailed, NoBroker, NoRuntime, PortTaken
from orderstream.leash import Leash
from orderstream.process import port_taken
from orderstream.settings import Settings, data_file
from orderstream.topics import now

Kind = Literal["environment", "docker", "java"]

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of the largest record: a batch of facts or dossiers, compressed or not."""
START_SECONDS = 90.0
"""How long a cold JVM on a busy machine may take; it takes 3 s on an idle one."""
STOP_SECONDS = 20.0
_LOOPBACK = "127.0.0.1"
_PROPERTIES: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(MAX_MESSAGE),
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # after a SIGKILL the node cannot come back under its number until its old session has ended (Kafka's default: 9 s)
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.retention.check.interval.ms": "60000",
    "group.min.session.timeout.ms": "1000",
}


@dataclass
class Broker:
    """A Kafka that answers at `address` (host:port). owned: we started it, so `stop()` ends it; otherwise stop() does nothing."""

    address: str
    kind: Kind
    owned: bool
    home: Path | None = None
    container: str | None = None
    heap_mb: int = 512
    jars: Path | None = None
    _leash: Leash | None = field(default=None, repr=False)

    def describe(self) -> str:
        """One line: which Kafka this is."""
        how = {
            "environment": "ORDERSTREAM_BROKERS",
            "docker": f"Docker ({self.container or '?'})",
            "java": f"Java ({self.home})",
        }[self.kind]
        whose = ("本次启动", "started now") if self.owned else ("已在运行", "already running")
        return f"Kafka {self.address} — {how}（{whose[0]}）· {how}, {whose[1]}"

    def stop(self) -> None:
        """Ends a broker of ours, politely and then not; does nothing to anybody else's."""
        if self.owned:
            self._end(signal.SIGTERM)
            self._unwatch()
            if self.home is not None:
                (self.home / "broker.json").unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, as a fault test or a power cut would. The data stays; `restart` brings it back at the same address."""
        if self.owned:
            self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Starts a stopped or killed broker of ours again: same address, same data."""
        if not self.owned:
            raise BrokerFailed(f"这个 Kafka 不是本程序启动的 · {self.address} is not ours to restart")
        self._end(signal.SIGTERM)
        if self.kind == "docker":
            _docker(lambda client: client.containers.get(self.container).start())
            _await(self.address, START_SECONDS)
            return
        assert self.home is not None
        assert self.jars is not None
        _launch(self.home, self.jars, self.heap_mb)
        _await_java(self.home, self.address)
        if self._leash is not None:
            self._unwatch()
            self._watch()

    def _end(self, how: signal.Signals) -> None:
        if self.kind == "docker":
            _docker(lambda client: _end_container(client, self.container, kill=how == signal.SIGKILL))
        elif self.home is not None:
            _end_java(self.home, how)

    def _watch(self) -> None:
        """Ties the broker's life to this process's: it ends even when we are ended by SIGKILL and can say nothing."""
        assert self.home is not None
        pid = _pid(self.home)
        if pid is None:
            return
        self._leash = Leash(pid, str(self.home / "server.properties"))

    def _unwatch(self) -> None:
        if self._leash is not None:
            self._leash.release()
            self._leash = None


def find_or_start(settings: Settings, *, keep: bool = False, wait: float = START_SECONDS) -> Broker:
    """The broker of this installation, started under state_dir where there is none.

    keep: it is to outlive this process (`orderstream broker start`); otherwise an owned broker ends with its owner.
    Raises NoBroker (an address is given and nobody answers), NoRuntime, PortTaken or BrokerFailed.
    """
    found = running(settings)
    if found is not None:
        return found
    return start(settings, settings.state_dir / "broker", keep=keep, wait=wait)


def running(settings: Settings) -> Broker | None:
    """The broker that is there without starting one: the environment's, or the one left running under state_dir.

    Raises NoBroker or NotAdmitted for the environment's one that does not let us in.
    """
    if settings.brokers is not None:
        now(access.admit(settings, settings.brokers))
        return Broker(settings.brokers, "environment", owned=False)
    home = settings.state_dir.resolve() / "broker"
    note = _note(home)
    if note is None or not access.answers(note["address"], 2.0):
        return None
    if note["kind"] == "java" and _pid(home) is None:
        return None
    return Broker(note["address"], note["kind"], owned=False, home=home, container=note.get("container"))


def require(settings: Settings) -> Broker:
    """The running broker; for commands that must not start one themselves. Raises NoBroker."""
    found = running(settings)
    if found is None:
        raise NoBroker(
            "没有找到 Kafka：先运行 orderstream broker start，或设 ORDERSTREAM_BROKERS"
            " · no Kafka: run `orderstream broker start` or set ORDERSTREAM_BROKERS"
        )
    return found


def stop_running(settings: Settings) -> Broker | None:
    """Stops the broker that `broker start` left running and returns what it was; None where there is none of ours."""
    home = settings.state_dir.resolve() / "broker"
    note = _note(home)
    if note is None:
        return None
    mine = Broker(note["address"], note["kind"], owned=True, home=home, container=note.get("container"))
    alive = mine.kind == "docker" or _pid(home) is not None
    mine.stop()
    return mine if alive else None


def start(
    settings: Settings,
    home: Path,
    *,
    port: int | None = None,
    keep: bool = False,
    fresh: bool = False,
    wait: float = START_SECONDS,
) -> Broker:
    """An own broker with its data in `home`. port None: the setting's, 0: a free one. fresh: older data there is wiped.

    This is what tests and the demo use for an isolated one; it ignores ORDERSTREAM_BROKERS.
    """
    home = home.resolve()
    port = settings.broker_port if port is None else port
    if settings.broker_with != "java":
        if _docker_answers():
            return _start_docker(home, port, wait)
        if settings.broker_with == "docker":
            raise NoRuntime("没有可用的 Docker 引擎 · no Docker engine answers")
    java, maven = _java(), shutil.which("mvn")
    lib = settings.cache / f"kafka-{kafka_version()}-{_pom_digest()}"
    if java is None or (maven is None and not lib.is_dir()):
        raise NoRuntime(
            "没有 Docker，也没有 Java 17+ 与 Maven：apt-get install openjdk-17-jre-headless maven"
            " · no Docker engine, and no Java 17+ with Maven: apt-get install openjdk-17-jre-headless maven"
        )
    _fetch_jars(lib, maven)
    return _start_java(home, port, lib, settings.broker_heap_mb, keep=keep, fresh=fresh, wait=wait)


def kafka_version() -> str:
    """The Kafka version that deploy/kafka/pom.xml names."""
    text = data_file("deploy/kafka/pom.xml").read_text("utf-8")
    match = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", text)
    assert match is not None
    return match.group(1)


def _pom_digest() -> str:
    """Tells one list of jars from another of the same Kafka version."""
    return hashlib.sha256(data_file("deploy/kafka/pom.xml").read_bytes()).hexdigest()[:8]


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


# Java


def _java() -> str | None:
    """A java of version 17 or later."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (str(Path(home) / "bin" / "java") if home else None, shutil.which("java")):
        if candidate is None:
            continue
        try:
            said = subprocess.run([candidate, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
        except (OSError, subprocess.TimeoutExpired):
            continue
        match = re.search(r'version "(?:1\.)?(\d+)', said)
        if match and int(match.group(1)) >= 17:
            return candidate
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_jars(lib: Path, maven: str | None) -> None:
    if lib.is_dir():
        return
    with _locked(lib.with_name(lib.name + ".lock")):
        if lib.is_dir():
            return
        assert maven is not None
        # fetched beside and renamed: a folder under its own name is complete, whenever we were interrupted
        part = Path(tempfile.mkdtemp(prefix=lib.name + ".", dir=lib.parent))
        try:
            done = subprocess.run(
                [
                    maven, "-q", "-B", "-f", str(data_file("deploy/kafka/pom.xml")),
                    "dependency:copy-dependencies", f"-DoutputDirectory={part}", "-DincludeScope=runtime",
                ],
                capture_output=True, text=True, check=False, cwd=part,
            )  # fmt: skip
            if done.returncode != 0 or not any(part.glob("kafka_2.13-*.jar")):
                lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["?"]
                raise BrokerFailed(f"Maven 取不到 Kafka · Maven could not fetch Kafka: {lines[0][:300]}")
            part.chmod(0o755)
            part.rename(lib)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _start_java(home: Path, port: int, lib: Path, heap_mb: int, *, keep: bool, fresh: bool, wait: float) -> Broker:
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "start.lock"):
        if _pid(home) is not None:
            note = _note(home)
            if note is not None and access.answers(note["address"], wait):
                return Broker(note["address"], "java", owned=False, home=home)
            _end_java(home, signal.SIGKILL)
        if fresh:
            shutil.rmtree(home / "data", ignore_errors=True)
        for attempt in range(3):
            chosen = port or free_port()
            if port and port_taken(_LOOPBACK, port):
                raise PortTaken(f"端口 {port} 已被占用 · port {port} is taken")
            address = f"{_LOOPBACK}:{chosen}"
            _configure(home, chosen, free_port())
            if not (home / "data" / "meta.properties").exists():
                _format(home, lib)
            _launch(home, lib, heap_mb)
            try:
                _await_java(home, address, wait)
                break
            except BrokerFailed:
                _end_java(home, signal.SIGKILL)
                # between choosing a free port and Kafka's binding it another program may have been quicker
                if attempt == 2 or "Address already in use" not in _log_tail(home, 20_000):
                    raise
        (home / "broker.json").write_text(json.dumps({"address": address, "kind": "java"}))
    made = Broker(address, "java", owned=True, home=home, heap_mb=heap_mb, jars=lib)
    if not keep:
        made._watch()  # noqa: SLF001  the same module
    return made


def _configure(home: Path, port: int, controller: int) -> None:
    properties = {
        **_PROPERTIES,
        "controller.quorum.voters": f"1@{_LOOPBACK}:{controller}",
        "listeners": f"PLAINTEXT://{_LOOPBACK}:{port},CONTROLLER://{_LOOPBACK}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{_LOOPBACK}:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(home / "data"),
    }
    (home / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def _format(home: Path, lib: Path) -> None:
    java = _java()
    assert java is not None
    done = subprocess.run(
        [
            java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{lib}/*",
            "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(home / "server.properties"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BrokerFailed(
            f"Kafka 数据目录无法格式化 · Kafka's data folder cannot be formatted: {(done.stderr or done.stdout)[-300:].strip()!r}"
        )


def _cluster_id() -> str:
    """16 random bytes in URL-safe base64, as StorageTool wants them; it takes one that begins with `-` for an option."""
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not name.startswith("-"):
            return name


def _launch(home: Path, lib: Path, heap_mb: int) -> None:
    java = _java()
    if java is None:
        raise NoRuntime("找不到 Java 17+ · no Java 17+")
    with (home / "kafka.log").open("ab") as log:
        child = subprocess.Popen(
            [
                java, f"-Xms{heap_mb // 2}m", f"-Xmx{heap_mb}m", "-XX:+UseG1GC", "-Djava.awt.headless=true",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-cp", f"{lib}/*", "kafka.Kafka", str(home / "server.properties"),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            # its own session: Ctrl-C in our terminal is ours to answer, in our order
            start_new_session=True, cwd=home,
        )  # fmt: skip
    _children[child.pid] = child
    (home / "kafka.pid").write_text(str(child.pid))


_children: dict[int, subprocess.Popen[bytes]] = {}
"""The processes that this one started: a child that ended stays in the process table until its parent looks."""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607  where ps is differs
    return done.stdout


def _pid(home: Path) -> int | None:
    """The number of the Kafka that runs on this home's properties; None when the number is nobody's or a stranger's."""
    try:
        pid = int((home / "kafka.pid").read_text())
    except (OSError, ValueError):
        return None
    child = _children.get(pid)
    if child is not None:
        # an unreaped child keeps its number; its command line is empty for an instant after its start
        return pid if child.poll() is None else None
    line = _command_line(pid)
    return pid if "kafka.Kafka" in line and str(home / "server.properties") in line else None


def _end_java(home: Path, how: signal.Signals) -> None:
    pid = _pid(home)
    if pid is not None:
        _signal(pid, how)
        deadline = time.monotonic() + STOP_SECONDS
        while _pid(home) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        if _pid(home) is not None:
            _signal(pid, signal.SIGKILL)
            while _pid(home) is not None:
                time.sleep(0.02)
        _children.pop(pid, None)
    (home / "kafka.pid").unlink(missing_ok=True)


def _signal(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _await_java(home: Path, address: str, wait: float = START_SECONDS) -> None:
    deadline = time.monotonic() + wait
    while not access.answers(address, 0.5):
        if _pid(home) is None:
            raise BrokerFailed(
                f"Kafka 没有启动起来 · Kafka ended while starting, see {home / 'kafka.log'}: {_log_tail(home, 200)!r}"
            )
        if time.monotonic() > deadline:
            raise BrokerFailed(f"Kafka {wait:.0f} 秒内没有启动 · Kafka was not up after {wait:.0f} s, see {home / 'kafka.log'}")
        time.sleep(0.05)


def _log_tail(home: Path, size: int) -> str:
    try:
        return (home / "kafka.log").read_text("utf-8", "replace")[-size:].strip()
    except OSError:
        return ""


def _note(home: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((home / "broker.json").read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"address", "kind"} <= note.keys() else None


# Docker


def _docker(use: Any) -> Any:
    import docker  # type: ignore[import-untyped]  # noqa: PLC0415  comes with testcontainers

    client = docker.from_env(timeout=10)
    try:
        return use(client)
    finally:
        client.close()


def _docker_answers() -> bool:
    try:
        import testcontainers.core.container  # noqa: PLC0415, F401

        return bool(_docker(lambda client: client.ping()))
    except Exception:  # noqa: BLE001  whatever a missing library, socket or permission raises here means no engine
        return False


def _start_docker(home: Path, port: int, wait: float) -> Broker:
    """Apache's own image through testcontainers, with its port on loopback only."""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    # its reaper would end the broker with this process, and `broker start` is meant to leave one
    testcontainers_config.ryuk_disabled = True
    logging.getLogger("testcontainers").setLevel(logging.WARNING)
    if port and port_taken(_LOOPBACK, port):
        raise PortTaken(f"端口 {port} 已被占用 · port {port} is taken")
    chosen = port or free_port()
    name = f"orderstream-kafka-{chosen}"
    properties = {
        **_PROPERTIES,
        "controller.quorum.voters": "1@localhost:29093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:29093",
        "advertised.listeners": f"PLAINTEXT://{_LOOPBACK}:{chosen}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    }
    box = DockerContainer(f"apache/kafka:{kafka_version()}", ports=None).with_name(name)
    box.ports = {"9092/tcp": (_LOOPBACK, chosen)}
    for key, value in properties.items():
        box.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    try:
        box.start()
    except Exception as error:  # image not to be had, port raced away, no permission: all are one line to the user
        raise BrokerFailed(f"Docker 未能启动 Kafka · Docker could not start Kafka: {str(error)[:300]}") from error
    address = f"{_LOOPBACK}:{chosen}"
    made = Broker(address, "docker", owned=True, home=home, container=name)
    try:
        _await(address, wait)
    except BrokerFailed:
        made.stop()
        raise
    home.mkdir(parents=True, exist_ok=True)
    (home / "broker.json").write_text(json.dumps({"address": address, "kind": "docker", "container": name}))
    return made


def _end_container(client: Any, name: str | None, *, kill: bool) -> None:
    import docker.errors  # type: ignore[import-untyped]  # noqa: PLC0415

    with contextlib.suppress(docker.errors.NotFound):
        container = client.containers.get(name)
        if kill:
            container.kill()
        else:
            container.stop(timeout=int(STOP_SECONDS))


def _await(address: str, wait: float) -> None:
    deadline = time.monotonic() + wait
    while not access.answers(address, 0.5):
        if time.monotonic() > deadline:
            raise BrokerFailed(f"Kafka {wait:.0f} 秒内没有启动 · Kafka was not up after {wait:.0f} s")
        time.sleep(0.1)
