"""Past capacity, on a real Kafka with a real worker: what is answered 200 is kept and judged, and the rest is told to come again."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_intake_kafka import Intake

from bench.overload import Request, Volley, presigned, unequal, unjudged
from bench.rig import memory
from orderstream import kafka, topics
from orderstream.settings import Settings
from orderstream.simulators import scenario
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import SHOPS
from tests.stream.line import Workers, prepare

pytestmark = [pytest.mark.stream, pytest.mark.timeout(200)]


@pytest.fixture
def workers(fresh_topics: Callable[..., Settings], tmp_path: Path) -> Iterator[Workers]:
    made = Workers(fresh_topics(partitions=2), tmp_path)
    yield made
    made.stop()


async def test_past_capacity_nothing_that_was_taken_is_lost_or_judged_otherwise(workers: Workers, tmp_path: Path) -> None:
    """2,000 orders at once against a bound of 4: some 200, all others 503 with Retry-After; the accepted
    have the backtest's verdicts.
    """
    settings = workers.settings
    now = int(time.time() * 1000)
    shop = scenario.make(2_000, rate=1_000, start=now)
    await asyncio.to_thread(prepare, settings, shop.catalogue)
    workers.start(1)
    market = Market(SHOPS)
    secrets = json.dumps({name: [secret] for name, secret in market.secrets.items()})
    intake = await Intake(settings, INTAKE_IN_FLIGHT="4", SECRETS=secrets).up()
    try:
        before = memory(intake.process.pid).rss
        volley = Volley(intake.port)
        await volley.paced(presigned(shop.deliveries, market), rate=4_000)
        volley.close()
        assert set(volley.answers) <= {200, 503}, "no other answer, and no 503 without Retry-After"
        assert volley.answers[200] > 0
        assert volley.answers[503] > volley.answers[200], "it was too much"
        assert memory(intake.process.pid).rss - before < 60e6
    finally:
        code, said = await asyncio.to_thread(intake.end)
    assert code == 0, said
    raw = {topics.raw(channel, settings.topic_prefix) for channel in ("api", "shopify")}
    kept = await asyncio.to_thread(lambda: list(kafka.read_all(str(settings.brokers), raw)))
    assert len(kept) >= volley.answers[200], "every 200 is a record"
    assert await asyncio.to_thread(kafka.worked_off, settings, str(settings.brokers), 120), workers.logs()
    missing, lines = await asyncio.to_thread(unjudged, volley.accepted, settings)
    assert missing == []
    assert len(lines) >= len(volley.accepted) > 0
    assert await asyncio.to_thread(unequal, settings, lines, tmp_path) == []


def test_the_sender_of_the_bench_does_not_wait_for_nobody() -> None:
    """A sender that meets nobody counts an order as not answered, and does not wait."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    volley = Volley(port)
    asyncio.run(volley.paced([Request("A", b"x"), Request("B", b"y")], rate=100))
    assert volley.answers == {0: 2}
