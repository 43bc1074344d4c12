"""Intake's HTTP side on a real socket, with a list in Kafka's place, and senders that write bytes as they please."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import uvicorn

from orderstream.channels.api import sign
from orderstream.intake.app import create_app
from orderstream.intake.door import Limits, Room
from orderstream.settings import Settings
from tests.sink import MemorySink

SECRET = "s-1"


@dataclass
class Live:
    """A running service: its port, its room, what it kept."""

    port: int
    room: Room
    server: uvicorn.Server
    sink: MemorySink

    async def say(self, *parts: bytes, pause: float = 0, end: bool = False, patience: float = 10) -> bytes:
        """What a connection hears that sends these parts (and then, where `end`, closes its side), until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def talk() -> None:
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    if pause:
                        await asyncio.sleep(pause)
                if end:
                    writer.write_eof()

        talking = asyncio.create_task(talk())
        heard = b""
        try:
            async with asyncio.timeout(patience):
                with contextlib.suppress(ConnectionError):
                    while part := await reader.read(65_536):
                        heard += part
            return heard
        finally:
            talking.cancel()
            writer.transport.abort()

    async def status(self, *parts: bytes, pause: float = 0, end: bool = False) -> int:
        """The status that such a connection hears; 0: it was closed without a word."""
        heard = await self.say(*parts, pause=pause, end=end)
        return int(heard.split(b" ", 2)[1]) if heard else 0

    @contextlib.asynccontextmanager
    async def good_sender(self, every: float = 0.02) -> AsyncIterator[list[float]]:
        """Meanwhile a shop sends orders, each on a connection of its own, and each is taken. Yields the seconds each took."""
        took: list[float] = []
        done = asyncio.Event()

        async def send() -> None:
            at = 0
            while not done.is_set():
                began = time.perf_counter()
                status = await self.status(request(order(f"G{at}")))
                assert status == 200, status
                took.append(time.perf_counter() - began)
                at += 1
                await asyncio.sleep(every)

        sending = asyncio.create_task(send())
        try:
            yield took
            # the last word is the good sender's: it is still served after all that went on
            wanted = len(took) + 3
            async with asyncio.timeout(10):
                while len(took) < wanted and not sending.done():  # noqa: ASYNC110  a test may look
                    await asyncio.sleep(0.01)
        finally:
            done.set()
            await sending
        assert len({raw.body for raw in self.sink.kept} & {order(f"G{at}") for at in range(len(took))}) == len(took)

    async def emptied(self, seconds: float = 5) -> None:
        """Returns when nobody is in the room and no request is under way; TimeoutError where that does not come."""
        async with asyncio.timeout(seconds):
            while len(self.room) or self.server.server_state.tasks:  # noqa: ASYNC110  a test may look
                await asyncio.sleep(0.02)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/api/main"


@contextlib.asynccontextmanager
async def serving(limits: Limits | None = None, sink: MemorySink | None = None, **settings: object) -> AsyncIterator[Live]:
    """The service as `serve` makes it, in this loop, on a free port of loopback."""
    room, sink = Room(limits or Limits()), sink or MemorySink()
    secrets = json.dumps({"api:main": [SECRET, "s-0"], "api:other": ["o-1"], "shopify:main": ["hush", "hush-old"]})
    app = create_app(Settings.load(secrets=secrets, **settings), sink)
    config = uvicorn.Config(
        app,
        port=0,
        http=room.protocol(),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  a test may look
            await asyncio.sleep(0.01)
    try:
        yield Live(server.servers[0].sockets[0].getsockname()[1], room, server, sink)
    finally:
        server.should_exit = True
        await running


def order(number: str) -> bytes:
    return json.dumps({"order_id": number}).encode()


def signed(body: bytes, secret: str = SECRET, at: int = 0) -> dict[str, str]:
    """The headers of a body; at: seconds from now."""
    return sign(body, secret, int(time.time()) + at)


def request(body: bytes, *, headers: dict[str, str] | None = None, path: str = "/hooks/api/main", close: bool = True) -> bytes:
    """A whole signed request as bytes."""
    said = {"Host": "x", "Content-Length": str(len(body)), **signed(body), **(headers or {})}
    if close:
        said["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items() if value is not None)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
