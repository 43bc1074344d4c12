"""A platform's answer means what it says, however its programs spell it: numbers as text, text as numbers, five kinds of nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from orderstream.platforms import Account, Gone, Listed, PlatformError, Transient, Unauthorised, registry
from orderstream.platforms.client import Client, connections
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import BODIES, Delivery
from orderstream.simulators.served import served
from tests.fuzz.spellings import as_number, as_text, everywhere
from tests.platforms.simulated import ARTICLES, QUICK, START, draft, event, listed

EACH = sorted(registry())


def client_at(channel: str, url: str, http: httpx.AsyncClient, given: dict[str, Any]) -> Client:
    secret, token = SecretStr(given["app_secret"]), SecretStr(given["token"]) if "token" in given else None
    extra = given.get("extra", {})
    account = Account(channel, "main", given["app_key"], secret, url, token, extra=extra, rate=10_000, burst=10_000)
    return Client(http, registry()[channel], account, QUICK)


HOW: dict[str, Callable[[Any], Any]] = {"plain": lambda value: value, "text": as_text, "number": as_number}


async def seen(client: Client) -> tuple[list[tuple[str, int | None]], str]:
    """(number and time of each order that is listed, what is said of one that is not there)."""
    rows: list[Listed] = await listed(client, START - 60_000, START + 600_000)
    with pytest.raises(PlatformError) as raised:
        await client.platform.detail(client, "1")
    return sorted((row.number, row.changed_at or 0) for row in rows), f"{type(raised.value).__name__} {raised.value.code}"


async def test_numbers_as_text_and_text_as_numbers_are_the_same_answer() -> None:
    """Tokens, lists, details and errors of every platform: the same orders at the same times, the same refusal."""
    market, app = Market([f"{channel}:main" for channel in EACH]), FastAPI()
    for channel in EACH:
        for number in (1, 2, 3):
            one = draft(channel, number)
            body = BODIES[channel](one, event(one), ARTICLES)
            market.happened(Delivery(0, channel, "main", body, one.order_id, told=(one, event(one))))

    async def through(request: Request, how: str, path: str) -> Response:
        answer = await inner.request(
            request.method, f"/{path}", params=request.query_params, content=await request.body(), headers=request.headers
        )
        body = json.dumps(everywhere(answer.json(), HOW[how])).encode()
        return Response(body, answer.status_code)

    app.add_api_route("/{how}/{path:path}", through, methods=["GET", "POST"])
    inner = httpx.AsyncClient(transport=httpx.ASGITransport(market.app), base_url="http://inner")
    async with inner, served(app) as url, connections() as http:
        for channel in EACH:
            found = {}
            for how in HOW:
                given = market.accounts(f"{url}/{how}")[f"{channel}:main"]
                found[how] = await seen(client_at(channel, given["url"], http, given))
            assert len(found["plain"][0]) == 3
            assert found["text"] == found["number"] == found["plain"], channel


KNOWN = {"app_key": "k", "app_secret": "s", "token": "t"}


@asynccontextmanager
async def answering(answers: list[Any]) -> AsyncIterator[Callable[[str, int], Client]]:
    """Clients of a platform that says one thing to everybody, by channel and by which of the things that is."""
    app = FastAPI()

    async def say(at: int) -> Response:
        return Response(json.dumps(answers[at]))

    app.add_api_route("/{at}/{path:path}", say, methods=["GET", "POST"])
    async with served(app) as url, connections() as http:
        yield lambda channel, at: client_at(channel, f"{url}/{at}", http, KNOWN)


def jd(code: Any) -> Any:
    return {"error_response": {"code": code, "zh_desc": "", "en_desc": ""}}


CODES: tuple[tuple[str, Any, type[PlatformError]], ...] = (
    ("wechat", {"errcode": -1}, Transient),
    ("wechat", {"errcode": 40013}, Unauthorised),
    ("wechat", {"errcode": 45011}, Transient),
    ("wechat", {"errcode": "busy"}, Transient),
    ("wechat", {"errcode": 0}, Transient),
    ("douyin", {"code": 30001}, Unauthorised),
    ("douyin", {"code": 60000}, Transient),
    ("douyin", {"code": 50002, "msg": "订单不存在"}, Gone),
    ("youzan", {"gw_err_resp": {"err_code": 4203}}, Unauthorised),
    ("youzan", {"code": 106000004}, Gone),
    ("youzan", {"code": 200, "success": False}, Transient),
    ("taobao", {"error_response": {"code": 27}}, Unauthorised),
    ("taobao", {"error_response": {"code": 7}}, Transient),
    ("jd", jd(19), Unauthorised),
    ("jd", jd(43), Transient),
    (
        "jd",
        {"jingdong_pop_order_get_responce": {"orderDetailInfo": {"apiResult": {"success": False, "numberCode": 1}}}},
        Transient,
    ),
)


async def test_a_code_is_one_as_number_and_as_text() -> None:
    """It has one meaning in either spelling, and it is the one that is known."""
    answers = [everywhere(answer, change) for _, answer, _ in CODES for change in HOW.values()]
    async with answering(answers) as client:
        for at, (channel, answer, kind) in enumerate(CODES):
            found = []
            for spelling in range(len(HOW)):
                one = client(channel, len(HOW) * at + spelling)
                with pytest.raises(PlatformError) as raised:
                    await one.platform.detail(one, "1")
                found.append(raised.value)
            assert {type(one) for one in found} == {kind}, answer
            assert len({one.code for one in found}) == 1, answer


EMPTY: dict[str, Callable[[Any], Any]] = {
    "jd": lambda nothing: {
        "jingdong_pop_order_search_responce": {"searchorderinfo_result": {"apiResult": {"success": 1}, "orderInfoList": nothing}},
        "jingdong_pop_afs_soa_refundapply_queryPageList_responce": {"queryResult": {"success": "true", "result": nothing}},
    },
    "taobao": lambda nothing: {"trades_sold_increment_get_response": {"total_results": "0", "trades": nothing}},
    "douyin": lambda nothing: {"code": "10000", "data": {"total": "0", "shop_order_list": nothing}},
}


async def test_an_empty_list_is_empty_however_it_is_written() -> None:
    """null, "", {} and [] where a list would be are no orders, and no reason to ask again."""
    nothings: tuple[Any, ...] = (None, "", {}, [])
    cases = [(channel, make(nothing)) for channel, make in EMPTY.items() for nothing in nothings]
    async with answering([answer for _, answer in cases]) as client:
        for at, (channel, answer) in enumerate(cases):
            assert await listed(client(channel, at), START, START + 60_000) == [], answer
