"""A real Kafka as docs/security.md sets it up: deploy/kafka's own properties, certificates and users; and processes of ours on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from orderstream import access, broker
from orderstream.settings import PREFIX, Settings, data_file
from tests.waiting import wait_until

HOST = "127.0.0.1"


class Secured:
    """One broker of deploy/kafka/secure.properties. clients, internal: host:port; `stop` and `start` keep its data and address."""

    def __init__(self, home: Path) -> None:
        self.home, self.tls, self.passwords = home, home / "tls", home / "passwords"
        certificates(self.tls)
        clients, internal, controller = (broker.free_port() for _ in range(3))
        self.clients, self.internal = f"{HOST}:{clients}", f"{HOST}:{internal}"
        # the file as it ships, and after it what a person is told to put there: of two lines Java takes the last
        places = {
            "listeners": f"CLIENTS://{HOST}:{clients},INTERNAL://{HOST}:{internal},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"CLIENTS://{HOST}:{clients},INTERNAL://{HOST}:{internal}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(home / "data"),
            "ssl.keystore.location": str(self.tls / "broker.pem"),
            "ssl.truststore.location": str(self.tls / "ca.pem"),
            # for a suite's patience, not for its meaning
            "group.initial.rebalance.delay.ms": "0",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "offsets.topic.num.partitions": "4",
        }
        shipped = data_file("deploy/kafka/secure.properties").read_text("utf-8")
        (home / "server.properties").write_text(shipped + "".join(f"{name}={value}\n" for name, value in places.items()))
        settings = Settings.load(broker_with="java")
        self._jars = settings.cache / f"kafka-{broker.kafka_version()}-{broker._pom_digest()}"
        broker._fetch_jars(self._jars, "mvn")
        broker._format(home, self._jars)
        self.start()

    def start(self) -> None:
        broker._launch(self.home, self._jars, 256)
        as_admin = settings_of(self.admin())
        context = access.context(as_admin)

        def up() -> bool:
            assert broker._pid(self.home) is not None, broker._log_tail(self.home, 3000)
            return access.answers(self.internal, 1.0, context)

        wait_until(up, lambda: broker._log_tail(self.home, 3000), broker.START_SECONDS)
        # a suite that is killed must not leave a broker behind
        self._mine = broker.Broker(self.clients, "java", owned=True, home=self.home)
        self._mine._watch()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it for good: its data need not be put in order."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        self._mine._unwatch()
        broker._end_java(self.home, how)

    def admin(self) -> dict[str, str]:
        """The environment of the administrator: by certificate."""
        return {
            "BROKERS": self.internal,
            "KAFKA_SECURITY": "SSL",
            "KAFKA_CA": str(self.tls / "ca.pem"),
            "KAFKA_CERT": str(self.tls / "admin.pem"),
        }

    def user(self, name: str, **more: str) -> dict[str, str]:
        """The environment of one of our users, with its password in its file."""
        return {
            "BROKERS": self.clients,
            "KAFKA_SECURITY": "SASL_SSL",
            "KAFKA_CA": str(self.tls / "ca.pem"),
            "KAFKA_USER": more.get("TOPIC_PREFIX", "") + name,
            "KAFKA_PASSWORD_FILE": str(self.passwords / name),
            **more,
        }


def certificates(folder: Path, *hosts: str) -> None:
    """What deploy/kafka/certificates.sh makes."""
    script = data_file("deploy/kafka/certificates.sh")
    subprocess.run(["sh", str(script), str(folder), *(hosts or (HOST,))], check=True, capture_output=True)


def settings_of(values: dict[str, str]) -> Settings:
    """The Settings that a process in this environment would have."""
    return Settings.load(**{name.lower(): value for name, value in values.items()})


def environment(values: dict[str, str]) -> dict[str, str]:
    """A process's whole environment."""
    return os.environ | {PREFIX + name: value for name, value in values.items()}


def cli(values: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of ours, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "orderstream", *arguments],
        env=environment(values), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


class Process:
    """One process of ours; log: what it said, on both streams."""

    def __init__(self, values: dict[str, str], log: Path, *module: str) -> None:
        self.log = log
        with log.open("ab") as out:
            self._child = subprocess.Popen([sys.executable, "-m", *module], env=environment(values), stdout=out, stderr=out)
        self.pid = self._child.pid

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def code(self) -> int | None:
        return self._child.poll()

    def until_said(self, text: str, seconds: float = 60) -> None:
        """Waits for a line; a process that ended first fails the test with what it said."""

        def so() -> bool:
            ended = self.code() is not None
            there = text in self.said()
            assert there or not ended, self.said()
            return there

        wait_until(so, self.said, seconds)

    def hangup(self) -> None:
        self._child.send_signal(signal.SIGHUP)

    def end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()
        return self._child.wait(30)
