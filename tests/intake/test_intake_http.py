"""Intake's HTTP side, with a list in Kafka's place."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from orderstream.channels.api import sign
from orderstream.channels.shopify import sign as sign_shopify
from orderstream.errors import BadFile
from orderstream.intake.app import Secrets, create_app
from orderstream.intake.sink import Busy, Unavailable
from orderstream.settings import Settings
from tests.sink import MemorySink

BODY = json.dumps({"order_id": "A1", "buyer": {"phone": "13812345678"}}).encode()
MB = 1_048_576


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def settings() -> Settings:
    return Settings.load(secrets='{"api:main": ["s-new", "s-old"], "shopify:main": ["hush"]}', intake_read_seconds=0.3)


@pytest.fixture
async def client(sink: MemorySink, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, sink)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as open_client:
        yield open_client


def signed(body: bytes = BODY, secret: str = "s-new") -> dict[str, str]:
    return sign(body, secret, int(time.time()))


def count(outcome: str, channel: str = "api", shop: str = "main") -> float:
    labels = {"channel": channel, "shop": shop, "outcome": outcome}
    return REGISTRY.get_sample_value("orderstream_intake_requests_total", labels) or 0


@pytest.mark.parametrize("secret", ["s-new", "s-old"])
async def test_a_proved_delivery_is_kept_untouched(client: httpx.AsyncClient, sink: MemorySink, secret: str) -> None:
    """Its bytes, when they came and how the sender was proved; nothing is parsed on the way."""
    before = count("accepted")
    body = b' {"order_id" : "A1"}\n'
    answer = await client.post("/hooks/api/main", content=body, headers=signed(body, secret))
    assert answer.status_code == 200
    (raw,) = sink.kept
    assert (raw.channel, raw.shop, raw.body, raw.verified, raw.headers) == ("api", "main", body, "hmac-sha256", {})
    assert abs(raw.received_at - time.time() * 1000) < 5000
    assert count("accepted") == before + 1


async def test_a_repeat_goes_on_too(client: httpx.AsyncClient, sink: MemorySink) -> None:
    """Only the line behind knows whether it has an order: intake drops nothing that is genuine."""
    for _ in range(3):
        assert (await client.post("/hooks/api/main", content=BODY, headers=signed())).status_code == 200
    assert len(sink.kept) == 3


async def test_only_the_parser_s_headers_are_kept(client: httpx.AsyncClient, sink: MemorySink) -> None:
    """Shopify's topic goes along; the signature and the rest stay outside."""
    headers = sign_shopify(BODY, "hush", topic="orders/create", domain="x.example", delivery="d1")
    assert (await client.post("/hooks/shopify/main", content=BODY, headers=headers)).status_code == 200
    assert sink.kept[0].headers == {"x-shopify-topic": "orders/create"}


async def test_a_ping_is_acknowledged_and_is_no_record(client: httpx.AsyncClient, sink: MemorySink) -> None:
    """The platform's test button works and makes no order; unsigned it does not even do that."""
    body = b'{"id": 820982911946154508, "test": true}'
    headers = sign_shopify(body, "hush", topic="orders/create", domain="x.example", delivery="d1")
    before = count("ping", "shopify")
    assert (await client.post("/hooks/shopify/main", content=body, headers=headers)).status_code == 200
    assert (sink.kept, count("ping", "shopify")) == ([], before + 1)
    assert (await client.post("/hooks/shopify/main", content=body)).status_code == 401


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/hooks/api/main", {}, 401),
        ("/hooks/api/main", {"X-Orderstream-Timestamp": "1", "X-Orderstream-Signature": "sha256=" + "0" * 64}, 401),
        ("/hooks/api/other", None, 404),
        ("/hooks/nowhere/main", None, 404),
        ("/hooks/jd/main", None, 404),
        ("/hooks/api", None, 404),
        ("/docs", None, 404),
        ("/openapi.json", None, 404),
    ],
)
async def test_strangers_learn_nothing(
    client: httpx.AsyncClient, sink: MemorySink, path: str, headers: dict[str, str] | None, status: int
) -> None:
    """A status and at most two words; unknown shop and unknown channel look the same."""
    answer = await client.post(path, content=BODY, headers=signed() if headers is None else headers)
    assert answer.status_code == status
    assert len(answer.text) < 30
    assert sink.kept == []


@pytest.mark.parametrize(("trouble", "outcome"), [(Busy(), "busy"), (Unavailable(), "unavailable")])
async def test_what_kafka_has_not_taken_is_not_acknowledged(
    client: httpx.AsyncClient, sink: MemorySink, trouble: Exception, outcome: str
) -> None:
    """The sender is told to come again, and when."""
    sink.trouble = trouble
    before = count(outcome)
    answer = await client.post("/hooks/api/main", content=BODY, headers=signed())
    assert (answer.status_code, answer.headers["retry-after"], count(outcome)) == (503, "2", before + 1)
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200


async def chunks(size: int, part: int = 65_536) -> AsyncIterator[bytes]:
    while size > 0:
        yield b"x" * min(part, size)
        size -= part


async def test_a_body_over_one_megabyte_is_refused_while_reading(client: httpx.AsyncClient, sink: MemorySink) -> None:
    """With a Content-Length, with a lie in it, and without one; exactly 1 MB is read."""
    for content in (b"x" * (MB + 1), chunks(MB + 1), chunks(50 * MB)):
        assert (await client.post("/hooks/api/main", content=content, headers=signed())).status_code == 413
    lie = await client.post("/hooks/api/main", content=BODY, headers={**signed(), "Content-Length": "9" * 30})
    assert lie.status_code == 413
    exact = b"x" * MB
    assert (await client.post("/hooks/api/main", content=exact, headers=signed(exact))).status_code == 200
    assert len(sink.kept) == 1


async def test_a_body_that_never_ends_is_given_up(client: httpx.AsyncClient, sink: MemorySink) -> None:
    """A sender that drips bytes holds a connection for the read time-out and no longer."""
    import asyncio

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    began = time.monotonic()
    assert (await client.post("/hooks/api/main", content=drip(), headers=signed())).status_code == 408
    assert time.monotonic() - began < 2
    assert sink.kept == []


async def test_nothing_personal_is_logged(client: httpx.AsyncClient, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a good delivery nor a bad one leaves its content or its secret in a log or a metric."""
    caplog.set_level(logging.DEBUG)
    await client.post("/hooks/api/main", content=BODY, headers=signed())
    await client.post("/hooks/api/main", content=BODY, headers=signed(secret="wrong"))
    exposed = (await client.get("/metrics")).text
    for text in ("13812345678", "s-new", "A1"):
        assert text not in "".join(record.getMessage() for record in caplog.records)
        assert text not in exposed
    assert "orderstream_intake_ack_seconds_bucket" in exposed


async def test_strangers_make_no_new_label(client: httpx.AsyncClient) -> None:
    """A scanner's paths do not grow the metrics."""
    await client.post("/hooks/api/zzz-scan", content=b"")
    assert "zzz-scan" not in (await client.get("/metrics")).text
    assert count("unknown", "-", "-") > 0


def test_a_rotated_secrets_file_takes_effect_and_a_broken_one_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rotation needs no restart, and a slip of the editor locks nobody out."""
    file = tmp_path / "secrets.json"
    file.write_text('{"api:main": ["one"]}')
    secrets = Secrets(Settings.load(secrets_file=file, secrets='{"api:main": ["fixed"]}'))
    assert secrets.of("api", "main") == (b"fixed", b"one")
    file.write_text('{"api:main": ["second", "one"]}')
    assert secrets.of("api", "main") == (b"fixed", b"second", b"one")
    file.write_text('{"api:main": ["third"')
    assert secrets.of("api", "main") == (b"fixed", b"second", b"one")
    assert secrets.of("api", "other") == ()
    assert "third" not in caplog.text
    with pytest.raises(BadFile):
        Secrets(Settings.load(secrets_file=file))
