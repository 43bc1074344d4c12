"""Youzan's cloud by the simulator: tokens in the address, details, and what has changed since."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Response
from pydantic import SecretStr

from orderstream.channels import Push
from orderstream.channels.youzan import CHANNEL
from orderstream.orders import Order, Raw, Refund
from orderstream.platforms import Gone, Transient, Unauthorised
from orderstream.platforms import youzan as module
from orderstream.platforms.client import Client, Patience
from orderstream.platforms.youzan import PLATFORM
from orderstream.simulators import youzan as simulator
from orderstream.simulators.trouble import Trouble
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, QUICK, START, event, listed

CLIENT, SECRET, KDT = "9a0client", "client-secret", "40404"
draft = partial(simulated.draft, "youzan")


def platform(trouble: Trouble | None = None) -> simulator.Platform:
    return simulator.Platform(CLIENT, SECRET, KDT, trouble)


OWN = {"extra": {"kdt_id": KDT}}
"""An app of the shop's own."""


def shop(app: FastAPI, *, secret: str = SECRET, **more: Any) -> AbstractAsyncContextManager[Client]:
    return simulated.client_of(PLATFORM, app, CLIENT, secret, **more)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("status", ["created", "paid", "refunding", "refunded", "cancelled"])
async def test_every_state_of_a_draft(status: str, number: int) -> None:
    """Its push is proved; what is created or paid is the order, what only names it becomes it by its detail."""
    cloud, one = platform(), draft(number, coupon=4_000)
    now = event(one, status, 2_000)
    cloud.put(one, now, ARTICLES)
    push = simulator.body(one, now, ARTICLES)
    headers = {name.lower(): value for name, value in simulator.sign(push, f"{CLIENT}:{SECRET}").items()}
    proved = CHANNEL.verify(Push(push, headers), [f"{CLIENT}:{SECRET}".encode()], START)
    assert CHANNEL.key("main", push, {}) == one.order_id
    raw = Raw("youzan", "main", START + 60_000, proved.bodies[0], verified=proved.how)
    assert CHANNEL.thin(raw) is (status in {"refunding", "cancelled"})
    async with shop(cloud.app, **OWN) as client:
        detail = await PLATFORM.detail(client, one.name)
        (row,) = await listed(client, START, START + 60_000)
    if status == "refunded":
        found = CHANNEL.parse(raw)
        assert isinstance(found, Refund)
        assert (found.order_id, found.amount) == (one.order_id, one.total)
        raw = Raw("youzan", "main", START + 60_000, row.body, verified="poll")
    with_detail = Raw("youzan", "main", raw.received_at, raw.body, verified=raw.verified, detail=detail)
    order = CHANNEL.parse(with_detail if CHANNEL.thin(raw) else raw)
    assert isinstance(order, Order)
    assert (order.order_id, order.status, order.total, order.tags) == (one.order_id, status, one.total, ())
    polled = CHANNEL.parse(Raw("youzan", "main", START + 60_000, row.body, verified="poll", detail=row.detail))
    assert isinstance(polled, Order)
    assert (polled.order_id, polled.status, polled.updated_at) == (order.order_id, order.status, order.updated_at)
    assert (row.number, row.changed_at) == (one.name, (order.updated_at or 0) // 1000 * 1000)


async def test_what_goes_wrong_is_waited_out() -> None:
    """Every third call fails or is throttled: each detail comes in the end, after no more than its tries."""
    cloud = platform(Trouble(failing=0.3, seed=5))
    drafts = [draft(number) for number in range(1, 21)]
    for one in drafts:
        cloud.put(one, event(one), ARTICLES)
    async with shop(cloud.app, patience=Patience(tries=8, base=0.001, longest=0.01, seconds=5), **OWN) as client:
        details = await asyncio.gather(*(PLATFORM.detail(client, one.name) for one in drafts))
    assert [one.name.encode() in detail for one, detail in zip(drafts, details, strict=True)] == [True] * 20


async def test_who_is_throttled_hears_how_long() -> None:
    """The platform's own advice: three seconds. It comes with status 200."""
    cloud = platform(Trouble(throttled=1.0))
    async with shop(cloud.app, **OWN) as client:
        with pytest.raises(Transient) as said:
            await PLATFORM.detail(client, "E1")
    assert (said.value.code, said.value.retry_after) == ("4101", 3.0)


async def test_a_worn_token_is_renewed() -> None:
    """An app of the shop's own asks for another; one with a token of its shop's consent cannot."""
    cloud, one = platform(), draft()
    cloud.put(one, event(one), ARTICLES)
    async with shop(cloud.app, **OWN) as client:
        await PLATFORM.detail(client, one.name)
        cloud.expire()
        await PLATFORM.detail(client, one.name)
    assert cloud.calls == ["token", *["youzan.trade.get/4.0.2"] * 2, "token", "youzan.trade.get/4.0.2"]
    async with shop(cloud.app, token=SecretStr("old")) as client:
        with pytest.raises(Unauthorised, match="token-expired"):
            await PLATFORM.detail(client, one.name)


async def test_who_is_not_known_is_not_let_in() -> None:
    """Another app's secret, or no such shop."""
    for more in ({"secret": "another", **OWN}, {"extra": {"kdt_id": "1"}}):
        async with shop(platform().app, **more) as client:
            with pytest.raises(Unauthorised, match="1103"):
                await PLATFORM.detail(client, "E1")


async def test_no_such_order_is_gone() -> None:
    """By the platform's own words; its 5000 alone says nothing."""
    async with shop(platform().app, **OWN) as client:
        with pytest.raises(Gone, match="5000"):
            await PLATFORM.detail(client, "E20261111000000000000999")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b'{"code":200,"success":true}', b'{"code":200,"data":{"full_order_info":{"order_info":{"tid":"E2"}}}}',
     b'{"code":200,"success":false}', b'{"code":5000,"message":"busy"}', b'{"gw_err_resp":{"err_code":5001}}',
     b'{"gw_err_resp":{}}'],
)  # fmt: skip
async def test_what_is_no_answer_is_asked_again(answer: bytes) -> None:
    """Also an answer that is well and holds nothing, or another order."""
    app, asked = FastAPI(), []

    @app.post("/api/youzan.trade.get/4.0.2")
    async def say() -> Response:
        asked.append(1)
        return Response(answer)

    async with shop(app, token=SecretStr("t")) as client:
        with pytest.raises(Transient):
            await PLATFORM.detail(client, "E1")
    assert len(asked) == QUICK.tries


async def test_what_changed_over_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 orders on three pages, each with its row as detail; a stretch with more than all pages hold is asked for by halves."""
    monkeypatch.setattr(module, "PAGE", 10)
    cloud = platform()
    drafts = [draft(number) for number in range(1, 26)]
    for one in drafts:
        cloud.put(one, event(one), ARTICLES)
    async with shop(cloud.app, **OWN) as client:
        rows = await listed(client, START + 1_000, START + 26_000)
        assert [row.number for row in rows] == [one.name for one in drafts]
        assert len([call for call in cloud.calls if "sold" in call]) == 3
        monkeypatch.setattr(module, "MAX_PAGES", 1)
        halved = await listed(client, START + 1_000, START + 26_000)
    assert {row.number for row in halved} == {one.name for one in drafts}
    for row in rows:
        order = CHANNEL.parse(Raw("youzan", "main", START + 60_000, row.body, verified="poll", detail=row.detail))
        assert isinstance(order, Order)
        assert order.number == row.number
