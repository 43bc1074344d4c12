"""Taobao's API by the simulator: details, changes, and a queue that is confirmed only when its messages are kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from orderstream.channels.taobao import CHANNEL
from orderstream.orders import Order, Raw
from orderstream.platforms import Gone, Listed, Transient, Unauthorised
from orderstream.platforms.client import Client
from orderstream.platforms.taobao import PLATFORM
from orderstream.simulators import taobao
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.taobao import Top
from orderstream.simulators.trouble import Trouble
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, START, event, listed, sales

draft = partial(simulated.draft, "taobao")


def happen(top: Top, one: Draft, at: Event, *, lost: bool = False) -> None:
    top.happened(taobao.body(one, at, ARTICLES), taobao.detail(one, at, ARTICLES), lost=lost)


def shop(
    top: Top, secret: str = "app-secret", session: str | None = "session", *, name: str = "main", **more: Any
) -> AbstractAsyncContextManager[Client]:
    token = None if session is None else SecretStr(session)
    return simulated.client_of(PLATFORM, top.app, "12345", secret, shop=name, token=token, **more)


def parsed(body: bytes, answer: bytes | None = None) -> Any:
    return CHANNEL.parse(Raw("taobao", "main", START, body, detail=answer))


def test_a_message_its_detail_and_the_order() -> None:
    """Pulled, thin, fetched: the order that the draft was, masked as the platform masks."""
    top = Top()
    one = draft(lines=[Line("SKU1", 2, 19_900), Line("SKU3", 1, 4_900)], coupon=1_000, hold="存在风险")
    happen(top, one, event(one))

    async def run() -> tuple[bytes, bytes]:
        async with shop(top) as client:
            (pulled,) = await PLATFORM.pull(client)
            assert (pulled.seller, int(pulled.id) > 2**53) == ("123456789", True)
            return pulled.body, await PLATFORM.detail(client, one.name)

    body, answer = asyncio.run(run())
    assert answer == taobao.detail(one, event(one), ARTICLES)
    assert CHANNEL.thin(Raw("taobao", "main", START, body))
    found = parsed(body, answer)
    assert (found.order_id, found.status, found.total, found.tags) == (one.order_id, "paid", one.total, ())
    assert [(line.code, line.quantity) for line in found.lines] == [("tb-9101", 2), ("tb-9103", 1)]
    assert sum(line.price * line.quantity - (line.discount or 0) for line in found.lines) == one.total
    assert (found.hold, found.created_at) == ("top_hold; 存在风险", START + one.created)
    assert {d.kind for d in found.discounts} == {"promotion", "coupon"}
    assert one.buyer.phone not in answer.decode()
    assert found.buyer.ip is None


@pytest.mark.parametrize(
    ("status", "found"), [("created", "created"), ("paid", "paid"), ("refunding", "refunding"), ("cancelled", "refunded")]
)
def test_every_state_of_a_draft(status: str, found: str) -> None:
    """What the simulator says is what the parser hears."""
    one = draft()
    at = event(one, status)
    assert parsed(taobao.body(one, at, ARTICLES), taobao.detail(one, at, ARTICLES)).status == found


@settings(max_examples=100, deadline=None)
@given(sales())
def test_a_draft_s_money_survives(sold: dict[str, Any]) -> None:
    """Whatever is sold for whatever price: the total, the gifts, and amounts that add up."""
    one = draft(**sold)
    found = parsed(taobao.detail(one, event(one), ARTICLES))
    assert isinstance(found, Order)
    assert found.total == one.total == sum(line.price * line.quantity - (line.discount or 0) for line in found.lines)
    assert "amounts-differ" not in found.tags
    gifts = {line.sku for line in one.lines if line.gift}
    assert all(
        bool(line.gift) <= (said.sku in gifts) and bool(line.gift) >= said.gift
        for line, said in zip(found.lines, one.lines, strict=True)
    )


def test_the_same_receiver_has_one_oaid_and_another_has_another() -> None:
    """What the shop may not read it may compare."""
    here, there = draft(1), draft(2)
    again = Draft(3, "taobao", "main", here.buyer, here.lines, 9_000)
    keys = [parsed(taobao.detail(one, event(one), ARTICLES)).keys["oaid"] for one in (here, there, again)]
    assert keys[0] == keys[2] != keys[1]


def test_what_the_platform_s_errors_mean() -> None:
    """No such trade is final, a dead session and a wrong secret are a person's business, a throttle and nonsense pass."""

    async def ask(top: Top, **values: Any) -> Exception:
        async with shop(top, **values) as client:
            with pytest.raises((Gone, Unauthorised, Transient)) as raised:
                await PLATFORM.detail(client, "3100000000000000009")
            return raised.value

    gone = asyncio.run(ask(Top()))
    assert isinstance(gone, Gone)
    assert gone.code == "isv.trade-not-exist"
    for values, code in (
        ({"session": "old"}, "session-refused"),
        ({"session": None}, "no-session"),
        ({"secret": "x"}, "session-refused"),
    ):
        error = asyncio.run(ask(Top(), **values))
        assert isinstance(error, Unauthorised)
        assert error.code == code
    throttled = asyncio.run(ask(Top(trouble=Trouble(throttled=1.0))))
    assert isinstance(throttled, Transient)
    assert (throttled.code, throttled.retry_after) == ("accesscontrol.limited-by-api-access-count", 1.0)
    failed = asyncio.run(ask(Top(trouble=Trouble(failing=1.0))))
    assert isinstance(failed, Transient)
    assert failed.code == "http-502"


def test_changes_come_page_by_page_and_each_once() -> None:
    """Three pages of one day and nothing of another; each is a message that the channel reads, under the time of its order."""
    top = Top()
    drafts = [draft(number) for number in range(1, 251)]
    for one in drafts:
        happen(top, one, event(one), lost=True)

    async def run() -> list[Listed]:
        async with shop(top) as client:
            return await listed(client, START + 10_000, START + 240_000)

    found = asyncio.run(run())
    assert sorted(one.number for one in found) == [one.name for one in drafts[9:239]]
    for one in found[::40]:
        raw = Raw("taobao", "main", START, one.body, detail=top.trades[one.number])
        assert CHANNEL.thin(raw)
        order = CHANNEL.parse(raw)
        assert isinstance(order, Order)
        assert (order.number, order.updated_at) == (one.number, one.changed_at)
        assert CHANNEL.key("main", one.body, {}) == order.order_id


def test_a_trade_that_changes_while_pages_are_read_hides_no_other() -> None:
    """It leaves the window, and those after it move up a place: read backwards, none of them is jumped over."""
    top = Top()
    drafts = [draft(number) for number in range(1, 301)]
    for one in drafts:
        happen(top, one, event(one), lost=True)

    async def run() -> set[str]:
        async with shop(top) as client:
            seen: set[str] = set()
            async for one in PLATFORM.changed(client, START, START + 400_000):
                seen.add(one.number)
                if len(seen) in {50, 150}:
                    happen(top, drafts[len(seen)], event(drafts[len(seen)], after=500_000), lost=True)
            return seen

    seen = asyncio.run(run())
    assert {one.name for one in drafts} - seen <= {drafts[50].name, drafts[150].name}


def test_what_is_pulled_comes_again_until_it_is_confirmed() -> None:
    """Taken and lost (we died before Kafka had it): again; said to have failed: at once; confirmed: never."""
    now = [0.0]
    top = Top(redeliver=5.0, clock=lambda: now[0])
    for number in range(1, 4):
        happen(top, draft(number), event(draft(number)))

    async def run() -> None:
        async with shop(top) as client:
            first = await PLATFORM.pull(client)
            assert len(first) == 3
            assert await PLATFORM.pull(client) == []
            await PLATFORM.confirm(client, [first[0].id], [first[1].id])
            assert [one.id for one in await PLATFORM.pull(client)] == [first[1].id]
            now[0] = 6.0
            again = await PLATFORM.pull(client)
            assert {one.id for one in again} == {first[1].id, first[2].id}
            assert {one.body for one in again} <= {one.body for one in first}
            await PLATFORM.confirm(client, [one.id for one in again])
            now[0] = 60.0
            assert await PLATFORM.pull(client) == []
            assert sorted(top.confirmed) == sorted(one.id for one in first)

    asyncio.run(run())


def test_a_flaky_platform_loses_nothing() -> None:
    """5 % of calls fail, 5 % are throttled, messages come twice: asked until it works, every trade is told."""
    top = Top(trouble=Trouble(failing=0.05, throttled=0.02, repeated=0.1, seed=3))
    drafts = [draft(number) for number in range(1, 61)]
    for one in drafts:
        happen(top, one, event(one))

    async def insist(call: Any) -> Any:
        while True:
            with contextlib.suppress(Transient):
                return await call()

    async def run() -> set[str]:
        kept: set[str] = set()
        async with shop(top) as client:
            # the ban of a second is over at once here
            client._bucket.hold = lambda until: None  # type: ignore[method-assign]
            while messages := await insist(lambda: PLATFORM.pull(client, 20)):
                for one in messages:
                    number = str(json.loads(json.loads(one.body)["content"])["tid"])
                    answer = await insist(lambda number=number: PLATFORM.detail(client, number))
                    assert parsed(one.body, answer).number == number
                    kept.add(number)
                ids = [one.id for one in messages]
                await insist(lambda ids=ids: PLATFORM.confirm(client, ids))
        return kept

    assert asyncio.run(run()) == {one.name for one in drafts}
    assert top.trouble.met["failed"] > 0
    assert top.trouble.met["repeated"] > 0
