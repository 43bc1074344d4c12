"""Douyin and Youzan from a signed push to a whole record, on a real Kafka, with their simulated platforms on sockets."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from orderstream import kafka, topics
from orderstream.channels import Channel, douyin, youzan
from orderstream.fetch import process
from orderstream.intake.app import create_app
from orderstream.intake.sink import Sink
from orderstream.metrics import Metrics
from orderstream.orders import Order
from orderstream.settings import Settings
from orderstream.simulators import assortment
from orderstream.simulators import douyin as douyin_shop
from orderstream.simulators import youzan as youzan_shop
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.people import People
from orderstream.simulators.served import served
from orderstream.simulators.trouble import Trouble
from orderstream.wire import read_raw

pytestmark = pytest.mark.stream

CHANNELS: dict[str, Channel] = {"douyin": douyin.CHANNEL, "youzan": youzan.CHANNEL}
SIMULATORS: dict[str, Any] = {"douyin": douyin_shop, "youzan": youzan_shop}
SECRET = "7001:app-secret"
ORDERS, DROPPED = 24, 20
"""Of each channel; every 20th push is lost on its way."""


def newest(settings: Settings) -> dict[str, str]:
    """The status of each order's newest record; nothing in the raw topics is half."""
    names = [topics.raw(name, settings.topic_prefix) for name in CHANNELS]
    found: dict[str, Order] = {}
    for m in kafka.read_all(str(settings.brokers), names):
        # read_all mixes both topics: which one it was, the key says
        raw = read_raw("orders.raw." + (m.key or b"").decode().partition(":")[0], m.headers, m.value, m.timestamp)
        order = CHANNELS[raw.channel].parse(raw)
        assert isinstance(order, Order), (raw.channel, order)
        if (order.updated_at or 0) >= (found[order.order_id].updated_at or 0 if order.order_id in found else 0):
            found[order.order_id] = order
    return {name: one.status for name, one in found.items()}


async def test_lost_pushes_and_failing_details_lose_no_order(fresh_topics: Callable[..., Settings]) -> None:
    """5 % of the pushes never come, 10 % of the calls fail or are throttled: each order ends as its platform has it."""
    rng, articles = random.Random(5), assortment.by_sku()
    people = People(rng)
    shops = {
        "douyin": douyin_shop.Platform("7001", "app-secret", Trouble(failing=0.08, throttled=0.02, seed=2)),
        "youzan": youzan_shop.Platform("7001", "app-secret", "40404", Trouble(failing=0.10, seed=3)),
    }
    start = time.time_ns() // 1_000_000 - 60_000
    expected: dict[str, str] = {}
    pushes: list[tuple[str, bytes]] = []
    for name, shop in shops.items():
        for number in range(1, ORDERS + 1):
            line = Line("SKU1", 1 + number % 3, 19_900)
            draft = Draft(number, name, "main", people.buyer(), [line], number * 500, coupon=1_000 * (number % 2))
            last = ("paid", "cancelled", "refunding")[number % 3] if number % 4 == 0 else "paid"
            for step, status in enumerate(dict.fromkeys(("created", "paid", last))):
                event = Event(start, status, step + 1, draft.created + 7_000 * step)
                shop.put(draft, event, articles)
                pushes.append((name, SIMULATORS[name].body(draft, event, articles)))
            expected[draft.order_id] = last
    rng.shuffle(pushes)
    async with AsyncExitStack() as stack:
        accounts = {}
        for name, shop in shops.items():
            url = await stack.enter_async_context(served(shop.app))
            extra = {"shop_id": "77977", "kdt_id": "40404"}
            accounts[f"{name}:main"] = {"url": url, "app_key": "7001", "app_secret": "app-secret", "extra": extra,
                                        "rate": 500, "burst": 100, "poll_seconds": 2.0}  # fmt: skip
        settings = fresh_topics(
            partitions=2,
            intake_ack_seconds=30,
            platforms=json.dumps(accounts),
            secrets=json.dumps({f"{name}:main": [SECRET] for name in CHANNELS}),
        )
        sink, stop = Sink(str(settings.brokers), settings), asyncio.Event()
        await sink.start()
        stack.push_async_callback(sink.stop)
        running = asyncio.create_task(process.Fetch(settings, str(settings.brokers), Metrics()).run(stop))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(create_app(settings, sink)), base_url="http://intake")
        )
        for at, (name, body) in enumerate(pushes):
            if at % DROPPED:
                answer = await client.post(f"/hooks/{name}/main", content=body, headers=SIMULATORS[name].sign(body, SECRET))
                assert (answer.status_code, answer.content) == (200, b'{"code":0,"msg":"success"}')
        try:
            async with asyncio.timeout(90):
                while await asyncio.to_thread(newest, settings) != expected:  # noqa: ASYNC110  a test may look
                    await asyncio.sleep(0.3)
        except TimeoutError:
            found = await asyncio.to_thread(newest, settings)
            assert {name: (found.get(name), status) for name, status in expected.items() if found.get(name) != status} == {}
        finally:
            stop.set()
            await running
