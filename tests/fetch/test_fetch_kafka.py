"""Fetching on a real Kafka, against a platform on a real socket, with processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orderstream import channels, kafka, platforms, topics
from orderstream.channels import Reply, channel
from orderstream.channels.api import sign
from orderstream.fetch import process, show
from orderstream.intake.app import create_app
from orderstream.intake.sink import Sink
from orderstream.metrics import Metrics
from orderstream.normalise import Rejection
from orderstream.orders import Order, Raw
from orderstream.platforms.client import Client
from orderstream.platforms.limits import Breaker
from orderstream.rejected import Wanted, put_back
from orderstream.settings import Settings
from orderstream.simulators.served import served
from orderstream.wire import read_raw
from tests.fetch.stand_in import NAME, Market, install
from tests.waiting import until as waiting_for

pytestmark = pytest.mark.stream


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[None]:
    """The stand-in is Douyin while a test runs."""
    before = channels.registry().get(NAME), platforms.registry().get(NAME)
    install()
    yield
    for table, one in zip((channels.registry(), platforms.registry()), before, strict=True):
        if one is None:
            table.pop(NAME)  # type: ignore[attr-defined]
        else:
            table[NAME] = one  # type: ignore[index]


def accounts(url: str, *shops: str, poll: float = 0, **more: object) -> str:
    one = {"url": url, "app_key": "k", "app_secret": "very-secret", "rate": 500, "burst": 100, "poll_seconds": poll, **more}
    return json.dumps({f"{NAME}:{shop}": one for shop in shops})


def brought(settings: Settings) -> list[Raw]:
    """Every raw record of the stand-in, whole."""
    found = kafka.read_all(str(settings.brokers), [topics.raw(NAME, settings.topic_prefix)])
    raws = [read_raw(f"orders.raw.{NAME}", m.headers, m.value, m.timestamp) for m in found]
    assert all(raw.detail is not None for raw in raws), "passed on half"
    return raws


def orders(raws: list[Raw]) -> dict[str, Order]:
    """The newest of each order."""
    newest: dict[str, Order] = {}
    for raw in raws:
        parsed = channel(NAME).parse(raw)
        assert isinstance(parsed, Order)
        if parsed.order_id not in newest or (newest[parsed.order_id].updated_at or 0) < (parsed.updated_at or 0):
            newest[parsed.order_id] = parsed
    return newest


async def until(holds: Callable[[], Any]) -> Any:
    """Waits, asking from a thread, until something holds."""
    return await waiting_for(lambda: asyncio.to_thread(holds), "what fetch is to have done")


def waiting(settings: Settings) -> list[show.Waits]:
    return show.pending(settings, str(settings.brokers))


class Rig:
    """Intake's sink and a fetch process in this loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.sink = Sink(str(settings.brokers), settings)
        self.stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.stop.clear()
        self.fetch = process.Fetch(self.settings, str(self.settings.brokers), self.metrics)
        self.running = asyncio.create_task(self.fetch.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        if self.running is not None:
            await self.running
            self.running = None

    async def push(self, shop: str, *bodies: bytes) -> None:
        """As intake does when it has proved them."""
        raws = [Raw(NAME, shop, 1_794_326_401_000, body, {}, "hmac-sha256") for body in bodies]
        await asyncio.gather(*(self.sink.put(channel(NAME), raw) for raw in raws))

    def number(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"orderstream_{name}", {"channel": NAME, **labels}) or 0


@contextlib.asynccontextmanager
async def rig(settings: Settings) -> AsyncIterator[Rig]:
    made = Rig(settings)
    await made.sink.start()
    try:
        yield made
    finally:
        await made.end()
        await made.sink.stop()


async def test_one_shop_s_broken_platform_holds_up_nobody(
    fresh_topics: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shop whose platform fails is parked, seen with its attempts and reason, and done when it works; the other never waits."""
    # a test has no minutes
    monkeypatch.setattr(process, "AGAIN_BASE", 0.5)
    monkeypatch.setattr(process, "Client", lambda *given: Client(*given, breaker=Breaker(rest=0.2, longest=2.0)))
    market = Market()
    async with served(market.app) as url:
        settings = fresh_topics(partitions=4, intake_ack_seconds=30, platforms=accounts(url, "good", "bad"))
        async with rig(settings) as line:
            market.broken = {"bad"}
            await line.push("bad", *(market.change("bad", f"B{at}") for at in range(300)))
            await line.push("good", *(market.change("good", f"G{at}") for at in range(50)))
            line.start()
            await until(lambda: len(orders(brought(settings))) == 50)

            def only_bad() -> list[show.Waits]:
                found = waiting(settings)
                # what is done is seen to be done a second later
                return found if {one.shop for one in found} == {"bad"} and any(one.attempts for one in found) else []

            held = await until(only_bad)
            assert {one.order for one in held} == {f"{NAME}:bad:B{at}" for at in range(300)}
            assert {one.error for one in held} <= {"", "busy", "http-502"}
            await until(lambda: line.number("fetch_pending", shop="bad") >= 300)
            await until(lambda: line.number("platform_breaker", shop="bad") > 0)
            assert line.number("platform_breaker", shop="good") == 0
            await until(lambda: line.number("fetch_oldest_age_seconds", shop="bad") > 1)
            assert sum(market.asked[f"B{at}"] for at in range(300)) < 100, "what rests is not called"

            market.broken = set()
            await until(lambda: len(orders(brought(settings))) == 350)
            await until(lambda: waiting(settings) == [])
            await until(lambda: line.number("fetch_pending", shop="bad") == 0)


async def test_killed_at_any_moment_loses_nothing(fresh_topics: Callable[..., Settings], tmp_path: Path) -> None:
    """SIGKILL again and again while details fail now and then: each order comes whole, and in the end none waits."""
    market = Market(7)
    market.failing = 0.1
    async with served(market.app) as url:
        settings = fresh_topics(partitions=4, intake_ack_seconds=30)
        env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        env["ORDERSTREAM_PLATFORMS"] = accounts(url, "main", rate=60, burst=5)
        async with rig(settings) as line:
            numbers = [f"K{at}" for at in range(300)]
            await line.push("main", *(market.change("main", number) for number in numbers))
            command = [sys.executable, "-m", "tests.brief", "tests.fetch.stand_in"]
            with (tmp_path / "log").open("w") as said:
                for kill in (True, True, False):
                    before = sum(market.asked[number] for number in numbers)
                    child = await asyncio.to_thread(subprocess.Popen, command, env=env, stdout=said, stderr=said)
                    try:
                        if kill:
                            await until(lambda seen=before: sum(market.asked[number] for number in numbers) > seen + 50)
                            child.send_signal(signal.SIGKILL)
                            await asyncio.to_thread(child.wait)
                        else:
                            await until(lambda: len(orders(brought(settings))) == 300)
                            await until(lambda: waiting(settings) == [])
                            child.send_signal(signal.SIGTERM)
                            assert await asyncio.to_thread(child.wait, 20) == 0
                    finally:
                        if child.poll() is None:
                            child.kill()
                            child.wait()
            log = (tmp_path / "log").read_text()
    came = await asyncio.to_thread(brought, settings)
    assert orders(came).keys() == {f"{NAME}:main:{number}" for number in numbers}
    assert len(came) < 2 * len(numbers), "what is committed is not done again"
    assert "very-secret" not in log
    assert "K1" not in log


async def test_what_the_platform_does_not_know_is_rejected_and_can_come_back(fresh_topics: Callable[..., Settings]) -> None:
    """An order that is not there is a reject with its bytes and its reason; put back when it is, it comes whole."""
    market = Market()
    async with served(market.app) as url:
        settings = fresh_topics(partitions=4, intake_ack_seconds=30, platforms=accounts(url, "main"))
        async with rig(settings) as line:
            line.start()
            body = market.change("main", "N1")
            there = market.orders.pop(("main", "N1"))
            await line.push("main", body)
            topic = topics.name("orders.rejected", settings.topic_prefix)
            (message,) = await until(lambda: [*kafka.read_all(str(settings.brokers), [topic])])
            found = msgspec.json.decode(message.value, type=Rejection)
            assert (found.order_id, found.code, found.body) == (f"{NAME}:main:N1", "no-such-order", body)
            assert "·" in found.reason
            await until(lambda: waiting(settings) == [])

            market.orders["main", "N1"] = there
            from orderstream.rules.cli import publish
            from orderstream.settings import data_file

            await asyncio.to_thread(publish, settings, str(settings.brokers), data_file("rules/standard"), None)
            plan = await asyncio.to_thread(put_back, settings, str(settings.brokers), Wanted(code="no-such-order"))
            assert plan.counts == {"sent": 1}
            await until(lambda: f"{NAME}:main:N1" in orders(brought(settings)))


async def test_a_shop_without_an_account_waits_until_it_has_one(fresh_topics: Callable[..., Settings], tmp_path: Path) -> None:
    """Nothing is refused for want of an account: it is seen to wait, and goes when the file names it, without a restart."""
    market = Market()
    file = tmp_path / "platforms.json"
    file.write_text("{}")
    async with served(market.app) as url:
        settings = fresh_topics(partitions=4, intake_ack_seconds=30, platforms_file=file)
        async with rig(settings) as line:
            line.start()
            await line.push("late", market.change("late", "L1"))
            (held,) = await until(lambda: (found := waiting(settings)) and found[0].error and found)
            assert (held.error, held.attempts) == ("no-account", 0)
            file.write_text(accounts(url, "late"))
            await until(lambda: f"{NAME}:late:L1" in orders(brought(settings)))


async def test_what_webhooks_miss_comes_in_by_itself(fresh_topics: Callable[..., Settings]) -> None:
    """5 % of the webhooks are dropped and 5 % of the calls fail: every order is there as it last was, and what was missed was counted."""
    import random

    import httpx

    market, chance = Market(3), random.Random(5)
    market.failing = 0.05
    async with served(market.app) as url:
        settings = fresh_topics(
            partitions=4, platforms=accounts(url, "main", poll=2.0), secrets=json.dumps({f"{NAME}:main": ["s"]})
        )
        async with rig(settings) as line:
            line.start()
            await until(lambda: line.number("polls_total", shop="main", outcome="ok") > 0)
            dropped: set[str] = set()
            sent = 0
            async with served(create_app(settings, line.sink)) as door, httpx.AsyncClient(trust_env=False, timeout=30) as sender:
                for at in range(400):
                    number = f"W{at % 300}"  # a hundred of them change once more
                    body = market.change("main", number)
                    if chance.random() < 0.05:
                        dropped.add(number)
                        continue
                    stamp = int(time.time())
                    answer = await sender.post(f"{door}/hooks/{NAME}/main", content=body, headers=sign(body, "s", stamp))
                    assert answer.status_code == 200
                    dropped.discard(number)
                    sent += 1
                assert 5 < len(dropped) < 40

                def all_there() -> bool:
                    found = orders(brought(settings))
                    return len(found) == 300 and all(
                        found[f"{NAME}:main:{number}"].revision == order["revision"]
                        for (_, number), order in market.orders.items()
                    )

                await until(all_there)
            came = await asyncio.to_thread(brought, settings)
            polled = {channel(NAME).key("main", raw.body, {}) for raw in came if raw.verified == "poll"}
            assert polled >= {f"{NAME}:main:{number}" for number in dropped}
            assert len(polled) <= len(dropped) + 10, "what came by webhook does not come again"
            assert line.number("polled_in_total", shop="main") >= len(dropped)


def rate(line: Rig) -> float:
    """Calls a second that a process makes at most for one shop."""
    client = line.fetch._lanes[f"{NAME}:s0"].client
    assert client is not None
    return 1 / client._bucket._gap


async def test_a_dead_process_s_shops_are_taken_over(fresh_topics: Callable[..., Settings]) -> None:
    """Two processes poll no shop twice in the same time; when one goes, the other polls all of them, from where it was."""
    market = Market()
    shops = [f"s{at}" for at in range(12)]
    async with served(market.app) as url:
        settings = fresh_topics(partitions=4, intake_ack_seconds=30, platforms=accounts(url, *shops, poll=1.0))
        async with rig(settings) as first, rig(settings) as second:
            first.start()
            second.start()

            def polled_by(one: Rig) -> set[str]:
                return {shop for shop in shops if one.number("poll_age_seconds", shop=shop) > 0}

            await until(lambda: polled_by(first) and polled_by(second) and len(polled_by(first) | polled_by(second)) == 12)
            assert polled_by(first) & polled_by(second) == set()
            # each calls at its part of the account's 500 a second
            assert round(rate(first) + rate(second)) == 500
            await first.end()
            market.change("s0", "T1")
            missed = {shop: market.change(shop, f"M{shop}") for shop in shops}
            await until(lambda: {f"{NAME}:{shop}:M{shop}" for shop in missed} <= orders(brought(settings)).keys())
            assert len(polled_by(second)) == 12
            assert round(rate(second)) == 500
            counts = Counter(raw.body for raw in await asyncio.to_thread(brought, settings))
            assert max(counts.values()) == 1


def test_the_stand_in_is_a_channel() -> None:
    """What stands in is read like any other."""
    assert channel(NAME).thin(Raw(NAME, "main", 0, b"{}"))
    assert channel(NAME).accepted == Reply()
