"""Shopify's Admin API by the simulator: orders by the time of their change, page by page, each read like a webhook."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from msgspec import structs
from pydantic import SecretStr

from orderstream.channels.shopify import CHANNEL
from orderstream.orders import Order, Raw
from orderstream.platforms import Gone, Listed, Transient, Unauthorised
from orderstream.platforms.client import Client, Patience
from orderstream.platforms.shopify import PAGE, PLATFORM
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.shopify import Admin
from orderstream.simulators.trouble import Trouble
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, QUICK, START

draft = partial(simulated.draft, "shopify", lines=[Line("SKU1", 2, 19_900)])


def filled(admin: Admin, count: int) -> list[Draft]:
    drafts = [draft(number) for number in range(1, count + 1)]
    for one in drafts:
        admin.put(one, Event(START, "cancelled" if one.number % 7 == 0 else "paid", 1, one.created), ARTICLES)
    return drafts


def shop(admin: Admin, token: str | None = "shpat", patience: Patience = QUICK) -> AbstractAsyncContextManager[Client]:
    return simulated.client_of(PLATFORM, admin.app, "key", "secret", token=token and SecretStr(token), patience=patience)


async def listed(admin: Admin, since: int, until: int) -> list[Listed]:
    async with shop(admin) as client:
        return await simulated.listed(client, since, until)


def test_what_changed_comes_page_by_page_and_each_once() -> None:
    """Three pages, the cancelled among them, nothing outside the stretch; each with the time that its order has, and read as one."""
    admin = Admin("shpat")
    drafts = filled(admin, 2 * PAGE + 50)
    found = asyncio.run(listed(admin, START + 10_000, START + 540_000))
    assert [one.number for one in found] == [one.name for one in drafts[9:539]]
    for one in found[::60]:
        order = CHANNEL.parse(Raw("shopify", "main", START, one.body, dict(one.headers)))
        assert isinstance(order, Order)
        assert (order.number, order.updated_at, order.total) == (one.number, one.changed_at, 39_800)
    assert asyncio.run(listed(Admin("shpat"), START, START + 1)) == []


def test_an_order_that_changes_while_pages_are_read_hides_no_other() -> None:
    """It moves behind them; the cursor is a place and not a number."""
    admin = Admin("shpat")
    drafts = filled(admin, 2 * PAGE)

    async def run() -> list[str]:
        seen: list[str] = []
        async with shop(admin) as client:
            async for one in PLATFORM.changed(client, START, START + 900_000):
                seen.append(one.number)
                if len(seen) == 100:
                    admin.put(drafts[50], Event(START, "cancelled", 2, 800_000), ARTICLES)
        return seen

    seen = asyncio.run(run())
    assert set(seen) == {one.name for one in drafts}
    assert seen.count(drafts[50].name) == 2


@pytest.mark.parametrize("how", ["failing", "throttled"])
def test_what_fails_is_tried_again(how: str) -> None:
    """Half of the calls fail: with patience every order comes, and with none the failure is told as one."""
    admin = Admin("shpat", Trouble(**{how: 0.4}))
    drafts = filled(admin, 20)

    async def run() -> set[str]:
        async with shop(admin, patience=Patience(tries=20, base=0.001, longest=2.0, seconds=5)) as client:
            return {one.number async for one in PLATFORM.changed(client, START, START + 60_000)}

    admin.trouble.seed = 3
    assert asyncio.run(run()) == {one.name for one in drafts}
    admin.trouble = Trouble(**{how: 1.0})
    with pytest.raises(Transient):
        asyncio.run(listed(admin, START, START + 60_000))


def test_who_is_not_let_in_hears_so() -> None:
    """No token, another one, no address."""

    async def run(token: str | None, url: str | None = None) -> None:
        async with shop(Admin("shpat"), token) as client:
            if url is not None:
                client.account = structs.replace(client.account, url=url)
            await PLATFORM.detail(client, "1")

    for token, code in ((None, "no-token"), ("other", "token-refused")):
        with pytest.raises(Unauthorised, match=code):
            asyncio.run(run(token))
    with pytest.raises(Unauthorised, match="no-url"):
        asyncio.run(run("shpat", ""))


def test_one_order_is_read_and_one_that_is_not_there_is_gone() -> None:
    """Wrapped as Shopify wraps it; only its own "Not Found" is final."""
    admin = Admin("shpat")
    (one,) = filled(admin, 1)

    async def run(number: str) -> bytes:
        async with shop(admin) as client:
            return await PLATFORM.detail(client, number)

    order = CHANNEL.parse(Raw("shopify", "main", START, asyncio.run(run(one.name))))
    assert isinstance(order, Order)
    assert order.number == one.name
    with pytest.raises(Gone):
        asyncio.run(run("1"))
