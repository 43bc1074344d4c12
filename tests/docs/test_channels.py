"""The programs that docs/channels.md prints send what intake takes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from orderstream import channels
from orderstream.channels import Channel
from orderstream.intake.app import create_app
from orderstream.orders import Order, Raw
from orderstream.settings import Settings
from tests.docs.pages import block, table
from tests.sink import MemorySink

PAGE = "docs/channels.md"


@pytest.fixture
def door() -> Iterator[tuple[str, MemorySink]]:
    """Intake's address on this machine, and what came through it."""
    sink = MemorySink()
    config = uvicorn.Config(create_app(Settings.load(secrets='{"api:main": ["new", "old"]}'), sink), log_config=None, ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{listener.getsockname()[1]}", sink
    server.should_exit = True
    thread.join(10)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


def _order(raw: Raw) -> Order:
    order = channels.channel("api").parse(raw)
    assert isinstance(order, Order)
    return order


def test_the_python_example_is_accepted(door: tuple[str, MemorySink]) -> None:
    """Copied as it stands, it signs an order that is one."""
    address, sink = door
    done = _run([sys.executable, "-c", block(PAGE, "send.py").replace("127.0.0.1:8080", address)])

    assert (done.stdout, done.stderr) == ("200\n", "")
    assert [_order(raw).order_id for raw in sink.kept] == ["api:main:A1001"]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="curl or openssl is missing")
def test_the_shell_example_is_accepted(door: tuple[str, MemorySink]) -> None:
    """The same with what every machine has."""
    address, sink = door
    done = _run(["bash", "-c", block(PAGE, "send.sh").replace("127.0.0.1:8080", address)])

    assert (done.stdout, done.stderr) == ("ok\n", "")
    assert [_order(raw).total for raw in sink.kept] == [18900]


def test_the_protocol_is_told_whole() -> None:
    """What a new channel must have is what the protocol asks for."""
    told = {word for row in table(PAGE, "member") for word in re.findall(r"`(\w+)", row[0])}
    asked = {name for name in {*Channel.__annotations__, *vars(Channel)} if not name.startswith("_")}

    assert told == asked
