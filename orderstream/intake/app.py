"""The HTTP service: `POST /hooks/{channel}/{shop}` (GET where a platform checks the address), `GET /healthz`, `/readyz`, `/metrics`.

Law: every answer says as little as it can. Who is not proved learns 401 and nothing more; what failed is counted under a
stable code. No body, name or address is logged, in no case. Reason: this door faces the internet, and logs outlive orders.

What a sender sees: 200 in Kafka (or a ping) · 400 no delivery · 401 not proved · 404 no such channel or shop · 408 too slow ·
411 no length · 413 over 1 MB · 415 compressed · 503 with Retry-After: not now, send again. What is refused before there is
a request to answer (its head too slow, too large or none) is `door`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from orderstream.channels import Channel, Proved, Push, Refused, Reply, registry
from orderstream.channels.reading import MAX_BODY
from orderstream.intake import answers, metrics
from orderstream.intake.envelope import MAX_HEADER
from orderstream.intake.sink import Busy, Unavailable
from orderstream.orders import Raw
from orderstream.reread import Reread
from orderstream.settings import Settings, read_secrets

log = logging.getLogger("orderstream.intake")

READY_SECONDS = 1.0
"""How long an answer to /readyz holds: each costs Kafka a connection, and anybody may ask."""


class Target(Protocol):
    """Where verified records go: the Kafka sink, or a test's list."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def ready(self) -> bool: ...
    async def put(self, channel: Channel, raw: Raw) -> None: ...


class Secrets:
    """The shops' secrets, with the secrets file read again when it changes; a file that broke keeps the last good one."""

    def __init__(self, settings: Settings) -> None:
        self._own = settings.secrets
        # fails at the start, with the user watching, rather than at the first delivery
        self._file = None if settings.secrets_file is None else Reread(settings.secrets_file, read_secrets)

    def of(self, channel: str, shop: str) -> tuple[bytes, ...]:
        """The secrets of one shop; () for one that is not configured."""
        name = f"{channel}:{shop}"
        table = self._file() if self._file is not None else {}
        return tuple(one.get_secret_value().encode() for one in (*self._own.get(name, ()), *table.get(name, ())))

    def again(self) -> None:
        """Reads the file now and says what came of it: for SIGHUP, by whoever has just changed it."""
        if self._file is None:
            log.warning("no secrets file is set: secrets of the environment change with a restart")
        elif self._file.again():
            log.warning("secrets read again: %d shops", len(self._file()))


def create_app(settings: Settings, sink: Target, now_ms: Callable[[], int] | None = None) -> FastAPI:
    """The service in front of a sink. now_ms: the clock, for tests."""
    clock = now_ms or (lambda: time.time_ns() // 1_000_000)
    channels = registry()
    secrets = Secrets(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await sink.start()
        with contextlib.suppress(RuntimeError, ValueError):
            # only the main thread's loop has signals: a test's has none, and needs none
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, secrets.again)
        yield
        await sink.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)

    @app.api_route("/hooks/{channel_id}/{shop}", methods=["POST", "GET"])
    async def hook(channel_id: str, shop: str, request: Request) -> Response:
        channel = channels.get(channel_id)
        known = secrets.of(channel_id, shop) if channel is not None else ()
        if channel is None or not known:
            return _answer("-", "-", "unknown", 404)
        unfit = _unfit(request) if request.method == "POST" else None
        if unfit is not None:
            return _answer(channel_id, shop, "too-large" if unfit == 413 else "bad", unfit, close=True)
        try:
            async with asyncio.timeout(settings.intake_read_seconds):
                body = await _body(request)
        except TimeoutError:
            return _answer(channel_id, shop, "timeout", 408, close=True)
        except ClientDisconnect:
            return _answer(channel_id, shop, "bad", 400)
        if body is None:
            return _answer(channel_id, shop, "too-large", 413, close=True)
        received_at = clock()
        headers = {name.lower(): value[:MAX_HEADER] for name, value in request.headers.items()}
        push = Push(body, headers, dict(request.query_params), request.method)
        try:
            proved = channel.verify(push, known, received_at)
        except Refused as refused:
            metrics.REFUSED.labels(channel_id, refused.code).inc()
            return _answer(channel_id, shop, "unsigned" if refused.status == 401 else "bad", refused.status)
        kept = {name: headers[name] for name in channel.headers if name in headers}
        try:
            # all or none: what a push carries is acknowledged at once, and one that is not taken comes again whole
            bodies = proved.bodies if request.method == "POST" else ()
            await asyncio.gather(
                *(sink.put(channel, Raw(channel_id, shop, received_at, one, kept, proved.how)) for one in bodies)
            )
        except Busy:
            return _answer(channel_id, shop, "busy", 503)
        except Unavailable:
            return _answer(channel_id, shop, "unavailable", 503)
        return _taken(channel, shop, proved)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    asked: asyncio.Task[bool] | None = None
    asked_at = 0.0

    @app.get("/readyz")
    async def readyz() -> Response:
        nonlocal asked, asked_at
        if asked is None or (asked.done() and time.monotonic() - asked_at > READY_SECONDS):
            asked, asked_at = asyncio.ensure_future(sink.ready()), time.monotonic()
        ready = await asyncio.shield(asked)
        return Response("ready\n" if ready else "no kafka\n", 200 if ready else 503, media_type="text/plain")

    @app.get("/metrics")
    async def exposed() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def _unfit(request: Request) -> int | None:
    """The status for a delivery whose headers say that its body is not to be read; None where it is.

    Nothing is unpacked here: no platform compresses, the signature is over the bytes as sent, and a kilobyte may hold a gigabyte.
    """
    headers = request.headers
    declared = headers.get("content-length")
    if declared is None and "transfer-encoding" not in headers:
        return 411
    if headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        return 415
    if declared is not None and declared.isdecimal() and (len(declared) > 12 or int(declared) > MAX_BODY):
        return 413
    return None


async def _body(request: Request) -> bytes | None:
    """The whole body; None as soon as it is over the limit, whatever its Content-Length says."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


def _taken(channel: Channel, shop: str, proved: Proved) -> Response:
    metrics.REQUESTS.labels(channel.id, shop, "accepted" if proved.bodies else "ping").inc()
    said = channel.accepted if proved.reply is None else Reply(proved.reply)
    return Response(said.body or answers.text(200), 200, media_type=said.media_type)


def _answer(channel: str, shop: str, outcome: str, status: int, *, close: bool = False) -> Response:
    metrics.REQUESTS.labels(channel, shop, outcome).inc()
    headers = {}
    if status == 503:
        headers["Retry-After"] = str(answers.RETRY_SECONDS)
    if close:
        # the rest of the body is still on the wire: no next request can be read from this connection
        headers["Connection"] = "close"
    return Response(answers.text(status), status, headers, media_type="text/plain")
