"""Intake's HTTP interface, searched by schemathesis from what it says of itself: signed or not, whatever comes is answered as said."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis import checks

from orderstream.channels import registry
from orderstream.channels.api import sign
from orderstream.intake.app import create_app
from orderstream.intake.door import Limits, Room
from orderstream.settings import Settings
from tests.fuzz import law
from tests.sink import MemorySink

SECRET = "s-1"
SAYS = {"content": {"text/plain": {"schema": {"type": "string", "maxLength": 30}}}}


def _answers(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": "-", **SAYS} for status in statuses}


ORDER = json.loads((law.ROOT / "schemas" / "messages" / "api-order.v1.schema.json").read_text("utf-8"))
INTERFACE: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "intake", "version": "1"},
    "$defs": ORDER["$defs"],
    "paths": {
        "/hooks/{channel}/{shop}": {
            "post": {
                "parameters": [
                    {"name": "channel", "in": "path", "required": True, "schema": {"enum": ["api", "shopify", "nowhere"]}},
                    {"name": "shop", "in": "path", "required": True, "schema": {"enum": ["main", "other"]}},
                    {"name": "X-Shopify-Topic", "in": "header", "schema": {"type": "string"}},
                    {"name": "Content-Encoding", "in": "header", "schema": {"enum": ["identity", "gzip", "br"]}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {k: v for k, v in ORDER.items() if k not in {"$schema", "$id", "$defs"}}},
                        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    },
                },
                "responses": _answers(200, 400, 401, 404, 408, 411, 413, 414, 415, 431),
            }
        },
        **{path: {"get": {"responses": _answers(200)}} for path in ("/healthz", "/readyz")},
        "/metrics": {"get": {"responses": {"200": {"description": "-", "content": {"text/plain": {}}}}}},
    },
}


class Signed(requests.auth.AuthBase):
    """Proves whatever body is sent, as the shop would."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        request.headers.update(sign(body.encode() if isinstance(body, str) else body, SECRET, int(time.time())))
        return request


@pytest.fixture(scope="module")
def intake() -> Iterator[tuple[str, MemorySink]]:
    """The service in a thread, on a real socket."""
    sink, room = MemorySink(), Room(Limits())
    app = create_app(Settings.load(secrets=json.dumps({"api:main": [SECRET], "shopify:main": ["hush"]})), sink)
    config = uvicorn.Config(app, port=0, http=room.protocol(), ws="none", log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    running = threading.Thread(target=lambda: asyncio.run(server.serve()))
    running.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", sink
    server.should_exit = True
    running.join(10)


SEARCHED = schemathesis.openapi.from_dict(INTERFACE)
checks.load_all_checks()
CHECKS = checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


@SEARCHED.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_said(case: schemathesis.Case, intake: tuple[str, MemorySink]) -> None:
    """Unsigned and signed: never a 5xx, never a status or a type that the interface does not name."""
    url, sink = intake
    before = len(sink.kept)
    case.call_and_validate(base_url=url, checks=CHECKS)  # type: ignore[arg-type]  # its own registry's type
    assert len(sink.kept) == before, "nothing unproved is kept"
    case.call_and_validate(base_url=url, auth=Signed(), checks=CHECKS)  # type: ignore[arg-type]  # its own registry's type
    for raw in sink.kept[before:]:
        law.obey(registry()[raw.channel], [], raw.body)


def test_what_was_signed_was_kept(intake: tuple[str, MemorySink]) -> None:
    """The search above came through the door, and not only to it."""
    assert len({raw.body for raw in intake[1].kept}) > 10
