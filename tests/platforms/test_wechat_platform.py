"""WeChat shop's API by the simulator: tokens, details, and what has changed since."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from orderstream import identity
from orderstream.channels import Push
from orderstream.channels.wechat import CHANNEL
from orderstream.orders import Order, Raw, Refund, Skip
from orderstream.platforms import Listed, Transient, Unauthorised
from orderstream.platforms.client import Client, Patience
from orderstream.platforms.wechat import PLATFORM
from orderstream.simulators import wechat as simulator
from orderstream.simulators.drafts import Draft
from orderstream.simulators.trouble import Trouble
from orderstream.times import DAY
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, START, event, listed

APPID, SECRET = "wx0123456789abcdef", "app-secret"
SHOP_SECRET = f"{APPID}:token:0123456789abcdefghijABCDEFGHIJ0123456789abc"
draft = partial(simulated.draft, "wechat")


def shop(platform: simulator.Platform, *, secret: str = SECRET, **more: Any) -> AbstractAsyncContextManager[Client]:
    return simulated.client_of(PLATFORM, platform.app, APPID, secret, **more)


def parsed(message: bytes, detail: bytes | None = None) -> Any:
    return CHANNEL.parse(Raw("wechat", "main", START, message, detail=detail))


@pytest.mark.parametrize(
    ("status", "found"),
    [("created", "created"), ("paid", "paid"), ("refunding", "refunding"), ("refunded", "refunded"), ("cancelled", "cancelled")],
)
def test_every_state_of_a_draft(status: str, found: str) -> None:
    """Its push is proved, opened and thin, and its detail, fetched, is the order; of a refund the case as well."""
    platform, one = simulator.Platform(APPID, SECRET), draft(coupon=4_000)
    platform.put(one, event(one, status), ARTICLES)
    query, body = simulator.sign(simulator.body(one, event(one, status), ARTICLES), SHOP_SECRET, START // 1000)
    (message,) = CHANNEL.verify(Push(body, {}, query), [SHOP_SECRET.encode()], START).bodies
    assert CHANNEL.thin(Raw("wechat", "main", START, message))
    assert CHANNEL.key("main", message, {}) == one.order_id

    async def run() -> bytes:
        async with shop(platform) as client:
            return await PLATFORM.detail(client, one.name)

    order = parsed(message, asyncio.run(run()))
    assert isinstance(order, Order)
    assert (order.order_id, order.status, order.total, order.tags) == (one.order_id, found, one.total, ())
    assert [(line.code, line.quantity, line.gift) for line in order.lines] == [("wx-101", 2, None), ("wx-133", 1, True)]
    assert sum(line.price * line.quantity - (line.discount or 0) for line in order.lines) == one.total
    if status in {"refunding", "refunded"}:
        case = parsed(message, simulator.aftersale(one, event(one, status)))
        assert isinstance(case, Refund if status == "refunded" else Skip)


def test_what_people_are_known_by_is_masked_and_the_hash_is_not() -> None:
    """One address has one hash_code in a shop, another address another; masked text is nobody's identity."""
    one = draft()
    two = Draft(2, "wechat", "main", one.buyer, one.lines, 2_000)
    other = draft(3)
    orders = [parsed(simulator.body(d, event(d), ARTICLES), simulator.detail(d, event(d), ARTICLES)) for d in (one, two, other)]
    assert orders[0].keys["hash_code"] == orders[1].keys["hash_code"] != orders[2].keys["hash_code"]
    assert orders[0].buyer.id == orders[1].buyer.id != orders[2].buyer.id
    assert all(identity.masked(text) for text in (orders[0].ship_to.name, orders[0].ship_to.phone, orders[0].ship_to.detail))


def test_orders_and_refunds_since_come_page_by_page() -> None:
    """Three pages in two windows, nothing outside them, each with its detail and that detail's time; refunds with their case."""
    platform = simulator.Platform(APPID, SECRET, Trouble(repeated=0.1))
    drafts = [draft(number) for number in range(1, 251)]
    for one in drafts:
        platform.put(one, event(one, after=10 * DAY if one.number > 240 else 0), ARTICLES)
    back, asked = drafts[4], drafts[5]
    platform.put(back, event(back, "refunded"), ARTICLES)
    platform.put(asked, event(asked, "refunding"), ARTICLES)

    async def run() -> list[Listed]:
        async with shop(platform) as client:
            return await listed(client, START, START + 8 * DAY)

    found = asyncio.run(run())
    read = [(one, parsed(one.body, one.detail)) for one in found]
    orders = {one.number: (one, order) for one, order in read if isinstance(order, Order)}
    assert set(orders) == {one.name for one in drafts[:240]}
    assert all(one.changed_at == order.updated_at for one, order in orders.values())
    refunds = [order for _, order in read if isinstance(order, Refund)]
    assert refunds
    assert set(refunds) == {Refund(back.order_id, f"2{back.name}", back.total, "CNY", START + back.created)}
    assert platform.calls["order/list/get"] == 4
    assert platform.calls["aftersale/getaftersalelist"] == 8


def test_a_listed_order_without_a_detail_waits_like_any_other() -> None:
    """It stops no list: it goes to the pending ones, where it is tried again and seen."""
    platform, one, two = simulator.Platform(APPID, SECRET), draft(), draft(2)
    for each in (one, two):
        platform.put(each, event(each), ARTICLES)
    platform.lose(one.name)

    async def run() -> list[Listed]:
        async with shop(platform) as client:
            return await listed(client, START, START + 60_000)

    first, second = sorted(asyncio.run(run()), key=lambda each: each.number)
    assert (first.number, first.changed_at, first.detail) == (one.name, None, None)
    assert CHANNEL.thin(Raw("wechat", "main", START, first.body))
    assert second.changed_at == parsed(second.body, second.detail).updated_at


def test_a_token_is_asked_for_once_and_again_when_it_is_worn() -> None:
    """One that ended is replaced; one that is taken no more and still given out is replaced by force."""
    platform, one = simulator.Platform(APPID, SECRET), draft()
    platform.put(one, event(one), ARTICLES)

    async def run() -> list[int]:
        asked = []
        async with shop(platform) as client:
            for before in (None, None, platform.expire, platform.revoke):
                if before is not None:
                    before()
                await asyncio.gather(*(PLATFORM.detail(client, one.name) for _ in range(5)))
                asked.append(platform.calls["token"])
        return asked

    assert asyncio.run(run()) == [1, 1, 2, 4]


def test_a_wrong_secret_is_a_person_s_business() -> None:
    """It says so and is not tried again."""
    platform = simulator.Platform(APPID, SECRET)

    async def run() -> None:
        async with shop(platform, secret="another") as client:
            await PLATFORM.detail(client, "1")

    with pytest.raises(Unauthorised, match="errcode-40125"):
        asyncio.run(run())
    assert platform.calls == {"token": 1}


def test_an_order_that_is_not_there_stays_pending() -> None:
    """No code is known to mean "never": it is tried again, and seen."""

    async def run() -> None:
        async with shop(simulator.Platform(APPID, SECRET)) as client:
            await PLATFORM.detail(client, "1")

    with pytest.raises(Transient, match="errcode-10020002"):
        asyncio.run(run())


def test_failures_whatever_their_status_are_tried_again() -> None:
    """502, and -1 with status 200: the detail comes all the same."""
    trouble = Trouble(failing=0.3)
    platform, one = simulator.Platform(APPID, SECRET, trouble), draft()
    platform.put(one, event(one), ARTICLES)

    async def run() -> list[bytes]:
        async with shop(platform, patience=Patience(tries=12, base=0.001, longest=0.002, seconds=5)) as client:
            return [await PLATFORM.detail(client, one.name) for _ in range(20)]

    assert set(asyncio.run(run())) == {simulator.detail(one, event(one), ARTICLES)}
    assert trouble.met["failed"] > 3


def test_a_quota_that_is_used_up_is_waited_for() -> None:
    """The platform says when a minute's calls are gone: nothing is called for a moment."""
    platform, one = simulator.Platform(APPID, SECRET, Trouble(throttled=1.0)), draft()
    platform.put(one, event(one), ARTICLES)

    async def run() -> None:
        async with shop(platform) as client:
            await PLATFORM.detail(client, one.name)

    with pytest.raises(Transient, match="errcode-45011") as told:
        asyncio.run(run())
    assert told.value.retry_after == 1.0
    assert platform.calls["order/get"] == 1
