"""`POST /check`: a warehouse asks whether a parcel is right, before it leaves.

Law: "go" is said only by who knows: of an order whose release and recalls have been read to the end. What is not known is 503,
and the parcel waits. The question is judged with what has left already, and is not remembered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from orderstream.board.store import Pool, answering, now
from orderstream.consumers.signature import UnsignedError, verify
from orderstream.downstream import flow as flows
from orderstream.downstream import store
from orderstream.downstream.flow import Flow
from orderstream.downstream.parcels import Difference, sentence
from orderstream.downstream.read import Shipment
from orderstream.errors import NoDatabase
from orderstream.metrics import Metrics

SECRETS = ("wms", "check")
"""Where the secrets of this endpoint stand in ORDERSTREAM_SECRETS: `"wms:check": ["new", "old"]`."""
MAX_BODY = 65_536

log = logging.getLogger("orderstream.downstream")


class Answer(msgspec.Struct):
    """go: the parcel may leave. verdict_seq: of the release or recall in force, 0 where there is none. why: sentences for people."""

    go: bool
    order_id: str
    verdict_seq: int
    differences: tuple[Difference, ...]
    why: list[str]


_question = msgspec.json.Decoder(Shipment)


def create_app(pool: Pool, metrics: Metrics, partitions: int, secrets: Callable[[], tuple[bytes, ...]]) -> FastAPI:
    """The endpoint as an application. partitions: of a topic; secrets: those that are good now."""
    app = FastAPI(title="orderstream downstream", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/check")
    async def check(request: Request) -> Response:
        """The answer to one shipment record: 200 with `go`, 400 not of its schema, 401 not proved, 503 nobody knows: ask again."""
        began = time.perf_counter()
        status, body = await _answer(request)
        metrics.checks.labels("go" if status == 200 and body.get("go") else "stop" if status == 200 else str(status)).inc()
        metrics.check_seconds.observe(time.perf_counter() - began)
        headers = {"Retry-After": "2"} if status == 503 else {}
        return Response(msgspec.json.encode(body), status, headers, "application/json")

    async def _answer(request: Request) -> tuple[int, dict[str, Any]]:
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    return 413, {"error": "over 64 KB"}
        except ClientDisconnect:
            return 400, {"error": "not whole"}
        try:
            verify(secrets(), request.headers, body, int(time.time()))
        except UnsignedError as error:
            log.warning("a check was refused: %s", error)
            return 401, {"error": "not signed by a secret of wms:check"}
        try:
            asked = _question.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return 400, {"error": str(error)}
        try:
            answer = await run_in_threadpool(_judge, pool, asked, partitions)
        except NoDatabase:
            return 503, {"error": "数据库无响应，稍后再问 · the database is away, ask again"}
        if answer is None:
            return 503, {"error": "尚未读完放行与召回，稍后再问 · not all releases and recalls have been read, ask again"}
        return 200, msgspec.to_builtins(answer)

    @app.get("/healthz")
    async def health() -> Response:
        """200 while the process answers."""
        return Response(b"ok")

    return app


def _judge(pool: Pool, asked: Shipment, partitions: int) -> Answer | None:
    at = now()
    with answering(), pool.connection() as db:
        if not store.fresh(db, at, partitions):
            return None
        found = store.read(db, [asked.order_id]).get(asked.order_id) or Flow(asked.order_id)
    differences = flows.checked(found, asked.parcel(at))
    said = flows.current(found)
    return Answer(not differences, asked.order_id, said.seq if said else 0, differences, [sentence(one) for one in differences])
