"""Douyin's API by the simulator: signed requests, tokens, details, and what has changed since."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Response
from pydantic import SecretStr

from orderstream.channels import Push
from orderstream.channels.douyin import CHANNEL
from orderstream.orders import Order, Raw, Refund
from orderstream.platforms import Gone, Transient, Unauthorised
from orderstream.platforms.client import Client, Patience
from orderstream.platforms.douyin import PLATFORM, sign
from orderstream.simulators import douyin as simulator
from orderstream.simulators.trouble import Trouble
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, QUICK, START, event, listed

KEY, SECRET = "7001", "app-secret"
draft = partial(simulated.draft, "douyin")


def shop(app: FastAPI, *, secret: str = SECRET, **more: Any) -> AbstractAsyncContextManager[Client]:
    return simulated.client_of(PLATFORM, app, KEY, secret, **more)


OWN = {"extra": {"shop_id": "77977"}}
"""An app of the shop's own."""


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("status", ["created", "paid", "refunding", "refunded", "cancelled"])
async def test_every_state_of_a_draft(status: str, number: int) -> None:
    """Its push is proved and thin, and its detail, fetched, is the order; of a refund that went through the money."""
    platform, one = simulator.Platform(KEY, SECRET), draft(number, coupon=4_000)
    now = event(one, status, 2_000)
    platform.put(one, now, ARTICLES)
    push = simulator.body(one, now, ARTICLES)
    headers = {name.lower(): value for name, value in simulator.sign(push, f"{KEY}:{SECRET}", "hmac-sha256").items()}
    (message,) = CHANNEL.verify(Push(push, headers), [f"{KEY}:{SECRET}".encode()], START).bodies
    assert CHANNEL.key("main", message, {}) == one.order_id
    raw = Raw("douyin", "main", START + 60_000, message)
    assert CHANNEL.thin(raw) is (status != "refunded")
    if status == "refunded":
        found = CHANNEL.parse(raw)
        assert isinstance(found, Refund)
        assert (found.order_id, found.amount) == (one.order_id, one.total)
    async with shop(platform.app, **OWN) as client:
        detail = await PLATFORM.detail(client, one.name)
        (row,) = await listed(client, START, START + 60_000)
    order = CHANNEL.parse(Raw("douyin", "main", START + 60_000, row.body, detail=detail))
    assert isinstance(order, Order)
    assert (order.order_id, order.status, order.total, order.tags) == (one.order_id, status, one.total, ())
    assert (row.number, row.changed_at) == (one.name, (order.updated_at or 0) // 1000 * 1000)


async def test_the_same_person_and_place_have_the_same_keys() -> None:
    """Of two orders; name and number are hidden, and the ciphertexts differ."""
    first = draft(1)
    second = draft(2)
    second.buyer = first.buyer
    orders = [
        CHANNEL.parse(
            Raw("douyin", "main", START + 60_000, b'{"tag":100,"data":{"p_id":%s}}' % one.name.encode(),
                detail=simulator.detail(one, event(one), ARTICLES))
        )
        for one in (first, second, draft(3))
    ]  # fmt: skip
    keys = [(one.buyer.id, one.keys["open_address_id"]) for one in orders if isinstance(one, Order)]
    assert keys[0] == keys[1] != keys[2]
    assert all("*" in str(one.ship_to) and "#" not in str(one.ship_to) for one in orders if isinstance(one, Order))


async def test_what_goes_wrong_is_waited_out() -> None:
    """Every third call fails or is throttled: each detail comes in the end, after no more than its tries."""
    platform = simulator.Platform(KEY, SECRET, Trouble(failing=0.2, throttled=0.1, seed=5))
    drafts = [draft(number) for number in range(1, 21)]
    for one in drafts:
        platform.put(one, event(one), ARTICLES)
    async with shop(platform.app, patience=Patience(tries=8, base=0.001, longest=2.0, seconds=5), **OWN) as client:
        details = await asyncio.gather(*(PLATFORM.detail(client, one.name) for one in drafts))
    assert [one.name.encode() in detail for one, detail in zip(drafts, details, strict=True)] == [True] * 20


async def test_a_worn_token_is_renewed() -> None:
    """By its refresh token; an app with a token of its shop's consent has nothing else."""
    platform, one = simulator.Platform(KEY, SECRET), draft()
    platform.put(one, event(one), ARTICLES)
    async with shop(platform.app, **OWN) as client:
        await PLATFORM.detail(client, one.name)
        platform.expire()
        await PLATFORM.detail(client, one.name)
    assert platform.calls == ["token.create", "order.orderDetail", "order.orderDetail", "token.refresh", "order.orderDetail"]
    async with shop(platform.app, token=SecretStr("old"), refresh_token=SecretStr("refresh")) as client:
        await PLATFORM.detail(client, one.name)
    assert platform.calls[-2:] == ["token.refresh", "order.orderDetail"]
    async with shop(platform.app, token=SecretStr("old")) as client:
        with pytest.raises(Unauthorised, match="token-expired"):
            await PLATFORM.detail(client, one.name)


async def test_who_signs_wrong_is_not_let_in() -> None:
    """Another app's secret; the platform's own word is the reason, and no number of calls helps."""
    platform = simulator.Platform(KEY, SECRET)
    async with shop(platform.app, secret="another", **OWN) as client:
        with pytest.raises(Unauthorised, match="signature-invalid"):
            await PLATFORM.detail(client, "1")
    assert len(platform.calls) == 1


async def test_no_such_order_is_gone() -> None:
    """By the platform's own words."""
    async with shop(simulator.Platform(KEY, SECRET).app, **OWN) as client:
        with pytest.raises(Gone):
            await PLATFORM.detail(client, "4900000000000000999")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b'{"code":10000}', b'{"code":10000,"data":{"shop_order_detail":{"order_id":"2"}}}', b'{"code":20000}',
     b'{"code":"10000","data":null}', b'{"err_no":7}', b'{"code":50002,"sub_code":"a b"}'],
)  # fmt: skip
async def test_what_is_no_answer_is_asked_again(answer: bytes) -> None:
    """Also an answer that is well and holds nothing, or another order."""
    app, asked = FastAPI(), []

    @app.post("/order/orderDetail")
    async def say() -> Response:
        asked.append(1)
        return Response(answer)

    async with shop(app, token=SecretStr("t")) as client:
        with pytest.raises(Transient):
            await PLATFORM.detail(client, "1")
    assert len(asked) == QUICK.tries


async def test_what_changed_over_all_pages() -> None:
    """250 orders on three pages, each once, oldest first; the edges of the stretch are in it."""
    platform = simulator.Platform(KEY, SECRET)
    drafts = [draft(number) for number in range(1, 251)]
    for one in drafts:
        platform.put(one, event(one), ARTICLES)
    async with shop(platform.app, **OWN) as client:
        rows = await listed(client, START + 1_000, START + 250_000)
        some = await listed(client, START + 10_500, START + 20_500)
    assert [row.number for row in rows] == [one.name for one in drafts]
    assert {one.name for one in drafts[10:20]} <= {row.number for row in some}
    assert platform.calls.count("order.searchList") == 4
    assert all(CHANNEL.key("main", row.body, {}) == f"douyin:main:{row.number}" for row in rows)


def test_a_request_s_sign_is_the_documented_one() -> None:
    """As `printf … | openssl dgst -sha256 -hmac s` prints it for the documented pattern."""
    assert (
        sign("s", "k", "order.orderDetail", '{"shop_order_id":"1"}', "2026-11-11 00:00:00")
        == "c847ed3e6c36e7e2ea0c6bff5708db798ff1ac3b0a988d40ed008aafb23b564e"
    )
