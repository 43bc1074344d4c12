"""Every channel that can be asked: lost pushes and failing calls lose no order, on a real Kafka, with the platforms on sockets."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import pytest

from orderstream import kafka, topics
from orderstream.channels import registry
from orderstream.fetch import process
from orderstream.intake.app import create_app
from orderstream.intake.sink import Sink
from orderstream.metrics import Metrics
from orderstream.orders import Order, Raw
from orderstream.platforms import registry as platforms
from orderstream.settings import Settings
from orderstream.simulators import assortment, jd
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.market import Market
from orderstream.simulators.people import People
from orderstream.simulators.scenario import BODIES, Delivery
from orderstream.simulators.served import served
from orderstream.simulators.trouble import Trouble
from orderstream.wire import read_raw

pytestmark = pytest.mark.stream

ASKED = sorted(platforms())
ORDERS, DROPPED = 24, 20
"""Of each channel; every 20th push is lost on its way. `api` is the shop's own site, which has no list to ask for."""
POLL_SECONDS = 0.4
"""Of JD; the others are asked a fifth as often."""
ARTICLES = assortment.by_sku()


class Change(NamedTuple):
    """One thing that happens to an order. lost: nobody tells of it; last: nothing more happens to it."""

    delivery: Delivery
    draft: Draft
    event: Event
    lost: bool
    last: bool


def peak(start: int) -> Iterator[Change]:
    """All channels' orders in one row: three of four are paid and no more, the others change before or after."""
    people = People(random.Random(5))
    for channel in ASKED:
        told = 0
        for number in range(1, ORDERS + 1):
            line = Line("SKU1", 1 + number % 3, 19_900)
            draft = Draft(number, channel, "main", people.buyer(), [line], number * 500, coupon=1_000 * (number % 2))
            life = {0: ("created", "paid"), 2: ("paid", "cancelled")}.get(number % 4, ("paid",))
            if channel == "jd":
                # it lists no order before it is paid
                life = tuple(status for status in life if status != "created")
            for step, status in enumerate(life):
                event = Event(start, status, step + 1, draft.created + 7_000 * step)
                told += 1
                body = BODIES[channel](draft, event, ARTICLES)
                delivery = Delivery(
                    0, channel, "main", body, draft.order_id, "orders/updated", step + 1, status, told=(draft, event)
                )
                yield Change(delivery, draft, event, told % DROPPED == 5, status == life[-1])


def newest(settings: Settings) -> tuple[dict[str, str], Counter[str]]:
    """The status of each order's newest record, and how many records a channel has by its poller; nothing there is half."""
    found: dict[str, Order] = {}
    polled: Counter[str] = Counter()
    for m in kafka.read_all(str(settings.brokers), [topics.raw(name, settings.topic_prefix) for name in ASKED]):
        # read_all mixes the topics: which one it was, the key says
        raw = read_raw("orders.raw." + (m.key or b"").decode().partition(":")[0], m.headers, m.value, m.timestamp)
        order = registry()[raw.channel].parse(raw)
        assert isinstance(order, Order), (raw.channel, order)
        polled[raw.channel] += raw.verified == "poll"
        if (order.updated_at or 0) >= (found[order.order_id].updated_at or 0 if order.order_id in found else 0):
            found[order.order_id] = order
    # what was paid for and is closed is paid back: Taobao's word for both is one
    return {name: "cancelled" if one.status == "refunded" else one.status for name, one in found.items()}, polled


async def test_what_is_lost_on_its_way_comes_in_by_itself(fresh_topics: Callable[..., Settings]) -> None:
    """5 % of the pushes never come, 5 % of the calls fail: each order of six channels ends as its platform has it, and it is counted."""
    start = time.time_ns() // 1_000_000 - 60_000
    changes = [*peak(start)]
    expected = {one.draft.order_id: one.event.status for one in changes if one.last}
    trouble, metrics = Trouble(failing=0.05, seed=2), Metrics()
    market = Market([f"{name}:main" for name in ASKED], trouble=trouble, poll_seconds=POLL_SECONDS)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(market.app))
        settings = fresh_topics(
            partitions=2,
            intake_ack_seconds=30,
            platforms=json.dumps(market.accounts(url)),
            secrets=json.dumps({name: [secret] for name, secret in market.secrets.items()}),
        )
        sink, stop = Sink(str(settings.brokers), settings), asyncio.Event()
        await sink.start()
        stack.push_async_callback(sink.stop)
        running = asyncio.create_task(process.Fetch(settings, str(settings.brokers), metrics).run(stop))
        door = httpx.ASGITransport(create_app(settings, sink))
        client = await stack.enter_async_context(httpx.AsyncClient(transport=door, base_url="http://intake", timeout=60))
        for one in changes:
            market.happened(one.delivery, lost=one.lost)
        for one in changes:
            if not one.lost:
                await tell(one, market, client, sink)
        try:
            async with asyncio.timeout(60):
                while (await asyncio.to_thread(newest, settings))[0] != expected:  # noqa: ASYNC110  a test may look
                    await asyncio.sleep(0.3)
        except TimeoutError:
            pass
        finally:
            stop.set()
            await running
        found, polled = await asyncio.to_thread(newest, settings)
    assert {name: (found.get(name), status) for name, status in expected.items() if found.get(name) != status} == {}
    untold = missed(changes)
    assert untold.keys() == {*ASKED}
    for channel in ASKED:
        counted = metrics.registry.get_sample_value("orderstream_polled_in_total", {"channel": channel, "shop": "main"})
        assert len(untold[channel]) <= polled[channel] == counted, channel
        # what was told of is not brought in again, but for what was under way when the list was asked for
        assert polled[channel] <= len(untold[channel]) + 2 * trouble.met["failed"], channel
    assert trouble.met["failed"] > 0


async def tell(one: Change, market: Market, client: httpx.AsyncClient, sink: Sink) -> None:
    """Each channel's own way: a signed push, a row of JD's database; Taobao has its queue."""
    channel = one.delivery.channel
    posting = market.posting(one.delivery)
    if posting is not None:
        answer = await client.post(
            f"/hooks/{channel}/main", content=posting.body, headers=dict(posting.headers), params=dict(posting.query)
        )
        assert answer.status_code == 200, (channel, answer.text)
    elif channel == "jd":
        row = jd.pushed(one.draft, one.event, ARTICLES)
        await sink.put(registry()["jd"], Raw("jd", "main", time.time_ns() // 1_000_000, row, {}, "row"))


def missed(changes: list[Change]) -> dict[str, set[str]]:
    """Channel -> orders of whose end nobody told, by no push that there was, or by none that would have asked for it later."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in changes:
        alone = [each for each in changes if each.draft is one.draft]
        if all(each.lost for each in alone) or (one.last and one.lost and one.delivery.channel in {"jd", "shopify"}):
            found[one.delivery.channel].add(one.draft.order_id)
    return found
