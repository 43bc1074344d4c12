"""What every process of ours does at its edges: takes a port, shows its numbers, hears that it is to end."""

from __future__ import annotations

import asyncio
import signal
import socket

from orderstream.errors import PortTaken
from orderstream.metrics import Metrics, Served, serve
from orderstream.settings import PREFIX, Settings


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
