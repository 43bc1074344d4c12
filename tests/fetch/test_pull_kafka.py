"""Taobao's queue and JD's lists on a real Kafka: taken, kept, confirmed, in this sequence whatever breaks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from orderstream import kafka, topics
from orderstream.channels import jd as jd_channel
from orderstream.channels import taobao as channel
from orderstream.fetch import process
from orderstream.fetch.lane import Lane
from orderstream.fetch.outlet import Outlet
from orderstream.fetch.pull import Puller
from orderstream.fetch.share import Share
from orderstream.metrics import Metrics
from orderstream.orders import Order, Raw
from orderstream.settings import Settings
from orderstream.simulators import jd
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.jd import Jos
from orderstream.simulators.served import served
from orderstream.simulators.taobao import Top
from orderstream.simulators.trouble import Trouble
from orderstream.wire import read_raw
from tests.platforms.simulated import ARTICLES, PEOPLE, event
from tests.platforms.test_taobao_platform import draft, happen, shop
from tests.waiting import until as waiting_for

ACCOUNT = {"app_key": "12345", "app_secret": "app-secret", "token": "session", "rate": 500, "burst": 100, "poll_seconds": 0}


def brought(settings: Settings, name: str = "taobao") -> list[Raw]:
    found = kafka.read_all(str(settings.brokers), [topics.raw(name, settings.topic_prefix)])
    return [read_raw(f"orders.raw.{name}", m.headers, m.value, m.timestamp) for m in found]


class Slow:
    """An outlet whose Kafka answers when it is told to, or fails."""

    def __init__(self) -> None:
        self.kept: list[Raw] = []
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def bring(self, channel: object, raw: Raw) -> None:
        del channel
        self.kept.append(raw)
        await self.answers.wait()
        if self.error is not None:
            raise self.error


async def until(holds: Callable[[], Any]) -> None:
    await waiting_for(lambda: asyncio.to_thread(holds), "what the messages lead to")


def puller(outlet: Any, *lanes: Lane) -> Puller:
    share = Share(0)
    share.loaded = True
    found: Outlet = outlet
    return Puller(found, Metrics(), lambda _: share, {lane.name: lane for lane in lanes})


async def nothing(lane: Lane, item: object) -> None:
    raise AssertionError("nothing is fetched here")


async def test_nothing_is_confirmed_before_kafka_has_it() -> None:
    """While Kafka is silent the platform is told nothing; when it fails neither; when it has them, at once and once."""
    top, outlet = Top(redeliver=3600), Slow()
    for number in range(1, 4):
        happen(top, draft(number), event(draft(number)))
    async with shop(top) as client:
        lane = Lane("taobao:main", client, nothing)
        pulling = asyncio.create_task(puller(outlet, lane).run(lane))
        await until(lambda: len(outlet.kept) == 3)
        assert "taobao.tmc.messages.confirm" not in top.calls
        outlet.error = RuntimeError("the process dies here")
        outlet.answers.set()
        with pytest.raises(RuntimeError):
            await pulling
        assert top.confirmed == []
        assert len(top.out) == 3

        outlet.error = None
        top.redeliver, top.out = 0, {name: (0.0, body) for name, (_, body) in top.out.items()}
        pulling = asyncio.create_task(puller(outlet, lane).run(lane))
        await until(lambda: len(top.confirmed) == 3)
        pulling.cancel()
        assert top.out == {}
        assert {raw.verified for raw in outlet.kept} == {"pull"}


async def test_a_shared_queue_s_messages_go_to_their_shops() -> None:
    """The seller's number decides; of one that no account names nothing is taken."""
    top, outlet = Top(redeliver=3600), Slow()
    outlet.answers.set()
    for number, seller in enumerate((1, 2, 3), 1):
        body = draft(number, extra={"user_id": seller})
        happen(top, body, event(body))
    async with shop(top, extra={"user_id": "1"}) as one, shop(top, extra={"user_id": "2"}, name="second") as two:
        lanes = [Lane("taobao:main", one, nothing), Lane("taobao:second", two, nothing)]
        made = puller(outlet, *lanes)
        pulling = asyncio.create_task(made.run(lanes[0]))
        await until(lambda: len(top.confirmed) == 2)
        pulling.cancel()
    assert sorted((raw.shop, json.loads(raw.body)["user_id"]) for raw in outlet.kept) == [("main", 1), ("second", 2)]
    assert len(top.out) == 1


@pytest.mark.stream
async def test_every_message_becomes_its_order(fresh_topics: Callable[..., Settings]) -> None:
    """5 % of the calls fail, messages come twice: each trade's detail comes to the line, and the queue is empty in the end."""
    top = Top(trouble=Trouble(failing=0.05, repeated=0.1, seed=5), redeliver=1.0)
    drafts = [draft(number) for number in range(1, 61)]
    for one in drafts:
        happen(top, one, event(one))
    async with served(top.app) as url:
        settings = fresh_topics(partitions=2, platforms=json.dumps({"taobao:main": {**ACCOUNT, "url": url}}))
        stop = asyncio.Event()
        running = asyncio.create_task(process.Fetch(settings, str(settings.brokers), Metrics()).run(stop))
        await until(lambda: len({raw.body for raw in brought(settings)}) == 60)
        await until(lambda: not top.queue and not top.out)
        stop.set()
        await running
    found = [channel.CHANNEL.parse(raw) for raw in await asyncio.to_thread(brought, settings)]
    assert all(isinstance(one, Order) for one in found)
    assert {one.order_id for one in found if isinstance(one, Order)} == {one.order_id for one in drafts}
    assert top.trouble.met["failed"] > 0


@pytest.mark.stream
async def test_what_jd_lists_comes_in(fresh_topics: Callable[..., Settings]) -> None:
    """Nobody pushes: what changed since the last question is asked for, each change once more or less, through 5 % of failures."""
    jos = Jos(trouble=Trouble(failing=0.05, seed=3))
    start = time.time_ns() // 1_000_000

    def change(number: int, status: str) -> None:
        one = Draft(number, "jd", "main", PEOPLE.buyer(), [Line("SKU1", 1, 19_900)], 0)
        jos.happened(jd.body(one, Event(start, status, 1, time.time_ns() // 1_000_000 - start), ARTICLES))

    def states() -> dict[str, str]:
        orders = [jd_channel.CHANNEL.parse(raw) for raw in brought(settings, "jd")]
        newest = sorted((one.updated_at or 0, one.number, one.status) for one in orders if isinstance(one, Order))
        return {number: status for _, number, status in newest}

    async with served(jos.app) as url:
        account = {**ACCOUNT, "token": "access", "url": url, "poll_seconds": 1}
        settings = fresh_topics(partitions=2, platforms=json.dumps({"jd:main": account}))
        stop = asyncio.Event()
        running = asyncio.create_task(process.Fetch(settings, str(settings.brokers), Metrics()).run(stop))
        polled = [topics.name("platforms.polled", settings.topic_prefix)]
        await until(lambda: [*kafka.read_all(str(settings.brokers), polled)])
        for number in range(1, 21):
            change(number, "paid")
        await until(lambda: [*states().values()] == ["paid"] * 20)
        change(7, "cancelled")
        await until(lambda: [*states().values()].count("cancelled") == 1)
        stop.set()
        await running
    raws = await asyncio.to_thread(brought, settings, "jd")
    assert {raw.verified for raw in raws} == {"poll"}
    assert len(raws) == len({raw.body for raw in raws}), "what has been seen does not come in again"
