"""The whole system with every log at its loudest: intake, workers, the example ERP; and all that it left behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from orderstream import kafka, topics
from orderstream.settings import Settings
from tests.stream.line import Workers
from tests.waiting import wait_until

SECRET = "a-secret-of-the-shop"


class System:
    """intake, two workers and the ERP on one broker, all at DEBUG; `left` is what they wrote outside of Kafka."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.ports = {name: free_port() for name in ("intake", "erp", "w1", "w2", "w3")}
        self.workers = Workers(settings, folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, workers: int = 2) -> None:
        for number in range(1, workers + 1):
            self.work(number)
        self._start("intake", ["-m", "orderstream", "intake", "--port", str(self.ports["intake"])])
        self._start("erp", ["-m", "orderstream.consumers.erp", "--ship-after", "1"])
        wait_until(lambda: self._get("intake", "/readyz"), "intake is ready")
        for number in range(1, workers + 1):
            self.at_work(number)

    def at_work(self, number: int) -> None:
        """Waits until a worker has partitions and has read them to their ends once."""
        shown = b"orderstream_pending_dossiers{"
        wait_until(lambda: shown in self._metrics(f"w{number}"), f"worker {number} is at work")

    def work(self, number: int) -> None:
        self.workers.env = {"ORDERSTREAM_LOG_LEVEL": "DEBUG", "ORDERSTREAM_METRICS_PORT": str(self.ports[f"w{number}"])}
        self.workers.start(number)

    def _start(self, name: str, arguments: list[str]) -> None:
        env = {
            **os.environ, "ORDERSTREAM_LOG_LEVEL": "DEBUG", "ORDERSTREAM_STATE_DIR": str(self.folder / name),
            "ORDERSTREAM_METRICS_PORT": str(self.ports[name]), "ORDERSTREAM_SECRETS": json.dumps({"api:main": [SECRET]}),
        }  # fmt: skip
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen([sys.executable, *arguments], env=env, stdout=log, stderr=log)

    def post(self, body: bytes) -> int:
        """A signed delivery; the answer's status."""
        at = str(int(time.time()))
        signature = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"X-Orderstream-Timestamp": at, "X-Orderstream-Signature": f"sha256={signature}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['intake']}/hooks/api/main", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return int(refused.code)

    def settle(self, seconds: float = 120) -> None:
        assert kafka.worked_off(self.settings, str(self.settings.brokers), seconds), self.workers.logs()

    def shown(self) -> dict[str, bytes]:
        """What each process that lives shows on /metrics."""
        alive = [*self.processes, *(f"w{n}" for n in self.workers.live)]
        return {name: wait_until(partial(self._metrics, name), f"{name} shows its metrics") for name in alive}

    def left(self) -> dict[str, bytes]:
        """Every log and file, but the ERP's own book of orders."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and ".sqlite" not in path.name)
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def stop(self) -> None:
        self.workers.stop()
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)

    def records(self) -> Iterator[tuple[topics.Topic, kafka.Message]]:
        """Every record of every declared topic."""
        names = {topic.on_broker(self.settings): topic for topic in topics.declared()}
        for message in kafka.scan(str(self.settings.brokers), names):
            yield names[message.topic], message

    def _metrics(self, name: str) -> bytes:
        return self._get(name, "/metrics") or b""

    def _get(self, name: str, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            return None


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
