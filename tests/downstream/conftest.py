"""What downstream's tests share: packs with short limits, records, and processes of ours that a test may kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from orderstream import kafka, topics
from orderstream.rules.book import Activation, activation_record, pack_record
from orderstream.rules.model import Downstream, Outcome, Policy, Text
from orderstream.rules.pack import Pack
from orderstream.settings import Settings
from tests.waiting import wait_until

LEVELS = {
    "none": Outcome("released"),
    "low": Outcome("released", 10),
    "medium": Outcome("review", 40),
    "high": Outcome("frozen", 100),
}


def publish_pack(settings: Settings, **limits) -> str:
    """A pack without rules, with these limits, in force since ever; its version."""
    pack = Pack(Policy("test", Text("测试", "test"), LEVELS, downstream=Downstream(**limits)), {})
    topic = topics.name("rules.packs", settings.topic_prefix)
    activation = Activation(0, pack.version, "publish")
    kafka.send_all(str(settings.brokers), [(topic, *pack_record(pack)), (topic, *activation_record(activation))])
    return pack.version


def publish(settings: Settings, *records: tuple[str, dict]) -> None:
    """(topic, record) as route, an ERP or a warehouse would write them."""
    kafka.send_all(
        str(settings.brokers),
        [(topics.name(t, settings.topic_prefix), r["order_id"].encode(), orjson.dumps(r)) for t, r in records],
    )


def values(settings: Settings, topic: str) -> list[dict]:
    """All records of a topic."""
    name = topics.name(topic, settings.topic_prefix)
    return [orjson.loads(m.value) for m in kafka.read_all(str(settings.brokers), [name]) if m.value]


class Process:
    """One of our processes; `kill` is SIGKILL. prelude: code that it runs first, to die at a chosen moment."""

    def __init__(
        self, log: Path, *arguments: str, env: dict[str, str], prelude: str = "", module: str = "orderstream.cli"
    ) -> None:
        # imported, not run as __main__: that would be a second copy of the module, without what the prelude has changed
        main = "main" if module == "orderstream.cli" else "_main"
        run = (
            f"{prelude}\nimport importlib, sys; sys.argv = {['x', *arguments]!r}\n"
            f"sys.exit(importlib.import_module({module!r}).{main}())"
        )
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen([sys.executable, "-c", run], env={**os.environ, **env}, stdout=out, stderr=out)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def up(self, line: str = "is up") -> Process:
        """Waits until it says so."""

        def there() -> bool:
            assert self.child.poll() is None, self.said()
            return line in self.said()

        wait_until(there, f"the process says {line!r}")
        return self

    def port(self) -> int:
        """Of its /check."""
        self.up()
        found = re.findall(r"http://127\.0\.0\.1:(\d+)/check", self.said())
        return int(found[-1])

    def dies(self, seconds: float = 120) -> None:
        """Waits until SIGKILL has ended it."""
        assert self.child.wait(seconds) == -signal.SIGKILL, self.said()

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def stop(self) -> None:
        """SIGTERM ends it in order."""
        self.child.terminate()
        assert self.child.wait(90) == 0, self.said()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`run(*arguments, env=…, prelude=…, module=…)` starts a process; what is left is killed after the test."""
    started: list[Process] = []

    def start(*arguments: str, env: dict[str, str] | None = None, prelude: str = "", module: str = "orderstream.cli") -> Process:
        base = {"ORDERSTREAM_METRICS_PORT": "0", "ORDERSTREAM_DOWNSTREAM_PORT": "0", "ORDERSTREAM_STATE_DIR": str(tmp_path)}
        log = tmp_path / f"process{len(started)}.log"
        started.append(Process(log, *arguments, env={**base, **(env or {})}, prelude=prelude, module=module))
        return started[-1]

    yield start
    for one in started:
        if one.child.poll() is None:
            one.kill()
