"""What every process of ours does at its edges: keeps a log, finds its broker, takes a port, shows its numbers, starts its parts and
stops them, hears that it is to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from orderstream import access, kafka, topics
from orderstream.errors import NoBroker, PortTaken
from orderstream.metrics import Metrics, Served, serve
from orderstream.settings import PREFIX, Settings


class Part(Protocol):
    """Something that is started and stopped: a consumer, a producer."""

    async def start(self) -> Any:
        """Returns when it works."""

    async def stop(self) -> Any:
        """Returns when it is done."""


def logs(settings: Settings, *libraries: str, least: int = logging.WARNING) -> None:
    """Our log goes to stderr at the settings' level; these libraries say what is as grave as `least`, and no less."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for library in libraries:
        logging.getLogger(library).setLevel(least)
    kafka.calm()


def joined(settings: Settings) -> Settings:
    """The settings with the broker that is there, whose topics are as they must be. Raises NoBroker, NotAdmitted, TopicsUnfit."""
    from orderstream.broker import require  # noqa: PLC0415  it may start one, which most never do

    address = require(settings).address
    topics.now(topics.check(address, settings))
    return settings.model_copy(update={"brokers": address})


@contextlib.asynccontextmanager
async def started(address: str, *parts: Part) -> AsyncIterator[None]:
    """Starts the parts one after the other, and stops them in reverse. Kafka's errors in between become NoBroker or NotAdmitted."""
    up: list[Part] = []
    try:
        for part in parts:
            up.append(part)
            await part.start()
        yield
    except* KafkaError as errors:
        raise access.denied(errors.exceptions[0]) or NoBroker(access.silent(address)) from None
    finally:
        for part in reversed(up):
            with contextlib.suppress(KafkaError, OSError):
                await part.stop()


def port_taken(host: str, port: int) -> bool:
    """True when a program listens on this port already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # as servers do: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the port (0: a free one) and does not listen yet. Raises PortTaken."""
    if port and port_taken(host, port):
        raise PortTaken(f"端口 {host}:{port} 已被占用 · port {host}:{port} is taken")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(f"无法监听 {host}:{port} · cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def shown(metrics: Metrics, settings: Settings) -> Served:
    """/metrics at the settings' port, to be closed. Raises PortTaken."""
    port = settings.metrics_port
    try:
        return serve(metrics, port, settings.metrics_host)
    except OSError:
        raise PortTaken(
            f"指标端口 {port} 已被占用，可设 {PREFIX}METRICS_PORT=0 · metrics port {port} is taken: set {PREFIX}METRICS_PORT=0"
        ) from None


def told_to_end() -> asyncio.Event:
    """What SIGTERM and SIGINT set from now on, in the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
