"""The demo as a user starts it: it ends what it started, and its numbers add up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orderstream import topics
from orderstream.channels import registry
from orderstream.demo import run
from orderstream.demo.processes import Processes
from orderstream.demo.shops import Shops
from orderstream.errors import BadFile, RunFailed
from orderstream.settings import Settings
from orderstream.simulators import Delivery, make
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import MARKETPLACES, SHOPS, beside
from tests.waiting import wait_until


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def children(pid: int) -> set[int]:
    """All running descendants of a process, of other sessions too."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        grown = bool(more)
        found |= more
    return found - {pid}


def demo_topics(brokers: str) -> set[str]:
    async def names() -> set[str]:
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
        await consumer.start()
        try:
            return {name for name in await consumer.topics() if "demo-" in name}
        finally:
            await consumer.stop()

    return asyncio.run(names())


@pytest.mark.stream
@pytest.mark.timeout(400)
def test_a_small_peak_catches_everything_and_leaves_nothing(brokers, tmp_path):
    """On a shared broker: nothing lost, missed or falsely alarmed, the columns add up, and its topics are gone after it."""
    report = tmp_path / "report.json"
    env = os.environ | {"ORDERSTREAM_BROKERS": brokers}
    command = [sys.executable, "-m", "orderstream", "demo", "--orders", "160", "--rate", "40", "--report", str(report)]
    ended = subprocess.run(command, env=env, timeout=330, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(report.read_text())
    # what WeChat Pay tells of comes on top like a marketplace
    size = 160 + (len(MARKETPLACES) + 1) * beside(160)
    assert result["sent"] == size
    assert set(result["channels"]) == set(registry())
    assert all(share["caught"] > 0 and share["lost"] == 0 for share in result["channels"].values())
    assert (result["lost"], result["missed"], result["false_alarms"]) == (0, 0, 0)
    assert sum(result[k] for k in ("released", "review", "frozen", "withdrawn", "rejected", "lost")) == size
    assert result["caught"] > 40
    assert result["recalled"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert "ERP 接单" in ended.stdout
    behind = {cells[1].split(" · ")[1]: [*map(int, re.findall(r"\d+", cells[2]))] for line in ended.stdout.splitlines()
              if len(cells := [cell.strip() for cell in line.split("│")]) == 4 and " · " in cells[1]}  # fmt: skip
    asked, answered = behind["customers asked, answered"]
    assert 0 < answered <= asked
    assert behind["messages to people (orders)"][0] > 0
    assert behind["stock locked"][0] > 0
    assert behind["dead letters"] == [0]
    assert behind["parcels, wrong ones on the wall"][1] == 2
    assert demo_topics(brokers) == set()


@pytest.mark.stream
@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, "工作进程就绪"), (signal.SIGTERM, "标准规则包")], ids=["ctrl-c", "term"]
)
def test_an_interrupt_ends_all_that_was_started_and_only_that(brokers, number, moment):
    """Ctrl-C or SIGTERM at two different moments: no process and no topic of the demo remains, the broker does."""
    env = os.environ | {"ORDERSTREAM_BROKERS": brokers, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "orderstream", "demo", "--orders", "3000", "--rate", "20"]
    demo = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said = []
        for line in demo.stdout:
            said.append(line)
            if moment in line:
                break
        time.sleep(0.3)
        started = children(demo.pid)
        os.kill(demo.pid, number)
        rest = demo.communicate(timeout=40)[0]
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    assert demo.returncode not in (0, None), "".join(said) + rest
    assert "Traceback" not in rest
    assert not [pid for pid in started if alive(pid)]
    assert demo_topics(brokers) == set()


def test_children_are_ended_by_number_also_when_they_do_not_listen(tmp_path, monkeypatch):
    """A child that ignores SIGTERM, and its own child, are ended; a process of others is not touched."""
    monkeypatch.setattr("orderstream.demo.processes.TERM_SECONDS", 0.4)
    script = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal,time; signal.signal(15, 1); time.sleep(60)'])\n"
        "print(p.pid, flush=True)\ntime.sleep(60)"
    )
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    processes = Processes(tmp_path)
    stubborn = processes.start("stubborn", [sys.executable, "-c", script], os.environ)
    try:
        grandchild = int(wait_until(stubborn.tail, "the child has said its own child's number"))
        processes.check()
        processes.stop()
        assert not alive(stubborn.process.pid)
        # an orphan is reaped by init, a moment later
        wait_until(lambda: not alive(grandchild), "the child's own child has ended")
        assert stranger.poll() is None
    finally:
        processes.stop()
        stranger.kill()
        stranger.wait()


def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path):
    """The run stops with the name, the code and the end of the log of the process that died."""
    processes = Processes(tmp_path)
    child = processes.start("worker-1", [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"], os.environ)
    child.process.wait(20)
    with pytest.raises(RunFailed, match=r"worker-1.*3.*no disk"):
        processes.check()
    processes.stop()


class Intake:
    """A stub of intake: answers 503 to every delivery's first attempt, 200 after."""

    def __init__(self, first: int) -> None:
        self.first, self.seen, self.port = first, [], 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(length)
                status = self.first if body not in self.seen else 200
                self.seen.append(body)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.mark.parametrize(("status", "acknowledged", "refused"), [(503, 30, 0), (401, 0, 30)])
async def test_shops_retry_what_may_pass_and_count_what_was_taken(status, acknowledged, refused):
    """A 503 is tried again and acknowledged once; a 401 is given up and never counted as sent."""
    scenario = make(30, rate=1000, start=int(time.time() * 1000))
    firsts = {d.order_id: d for d in reversed(scenario.deliveries)}
    scenario = type(scenario)(**{f: getattr(scenario, f) for f in scenario.__slots__} | {"deliveries": tuple(firsts.values())})
    taken: list[Delivery] = []
    async with Intake(status) as intake:
        shops = Shops(f"http://127.0.0.1:{intake.port}", Market(SHOPS), taken.append)
        await shops.send(scenario)
    assert (len(taken), len(shops.refused)) == (acknowledged, refused)
    assert len({d.order_id for d in taken}) == acknowledged


def test_a_report_that_cannot_be_written_is_told_before_the_run(tmp_path):
    """A missing folder is one sentence at the start, not the end of two minutes."""
    with pytest.raises(BadFile, match="report"):
        run(Settings.load(), orders=1, rate=1, report=tmp_path / "missing" / "report.json")


def test_shared_and_own_names_do_not_meet():
    """The prefix of a demo on a shared broker is part of every topic and of the workers' group."""
    settings = Settings.load(topic_prefix="demo-1.")
    assert settings.group.startswith("demo-1.")
    assert all(topic.on_broker(settings).startswith("demo-1.") for topic in topics.declared())
