"""Douyin and Youzan where they meet the rest: intake's door, the fuzz law, the line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from sequence import last

from orderstream.channels import Channel, douyin, youzan
from orderstream.channels.reading import MAX_BODY
from orderstream.intake.app import create_app
from orderstream.orders import Raw, Refund
from orderstream.settings import Settings
from tests.fuzz import law
from tests.fuzz.mutations import mutated
from tests.sink import MemorySink

FIXTURES = Path(__file__).parent / "fixtures"
CHANNELS: dict[str, Channel] = {"douyin": douyin.CHANNEL, "youzan": youzan.CHANNEL}
BOTH = pytest.mark.parametrize("name", sorted(CHANNELS))
NOW = 1_794_330_060_000
SECRET = "9a0exampleclient:secret"


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))


# -- the law -------------------------------------------------------------------------------------------------------------


@BOTH
def test_good_deliveries_are_read(name: str) -> None:
    """Orders and refunds among the seeds, each under its own key."""
    assert {law.obey(CHANNELS[name], *law.split(seed)) for seed in law.seeds(name)} >= {"order", "refund"}


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_nearly_good_msg_is_a_value(seed: int) -> None:
    """The same inside of what is URL-encoded."""
    msg = mutated(Random(seed), json.dumps(fixture("youzan-object")["msg"]).encode())
    push = {**fixture("youzan-paid"), "msg": youzan.packed(msg)}
    law.obey(youzan.CHANNEL, [], json.dumps(push).encode())


BOMBS = {
    "escapes": b'{"type":"trade_TradePaid","msg":"' + b"%41" * ((MAX_BODY - 40) // 3) + b'"}',
    "as many escapes as are read": b'{"type":"trade_TradePaid","msg":"' + b"%41" * youzan.MAX_ESCAPES + b'"}',
    "brackets in escapes": b'{"type":"trade_TradePaid","msg":"' + b"%5B" * youzan.MAX_ESCAPES + b'"}',
    "an object in a text": b'{"tag":100,"data":"' + b"{}," * 340_000 + b'"}',
    "quotes in a text": b'{"tag":100,"data":"' + b'\\"' * 500_000 + b'"}',
    "messages": b"[" + b'{"tag":100},' * 80_000 + b"0]",
}


@BOTH
@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_bomb_of_the_formats_is_a_value(name: str, bomb: str) -> None:
    """Megabytes made to be read again and again, each also on the channel that it was not made for."""
    assert law.obey(CHANNELS[name], [], BOMBS[bomb]) in {"rejected", "skip"}


# -- the line ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", list(permutations(range(4))))
def test_douyin_whatever_comes_first_the_last_state_counts(turn: tuple[int, ...]) -> None:
    """Made and paid within one second, told twice, then cancelled: one order, cancelled, out of three revisions."""
    answer, number = fixture("douyin-paid.detail"), "4900000000000000123"

    def record(tag: int, status: int, at: int) -> Raw:
        detail = change(
            change(answer, "data.shop_order_detail.order_status", status), "data.shop_order_detail.main_status", status
        )
        for path in ("update_time", *(f"sku_order_list.{i}.update_time" for i in range(3))):
            detail = change(detail, f"data.shop_order_detail.{path}", at)
        body = json.dumps({"tag": tag, "data": {"p_id": number}}).encode()
        return Raw("douyin", "main", NOW, body, detail=json.dumps(detail).encode())

    records = [
        record(100, 1, 1_794_330_004),
        record(110, 2, 1_794_330_004),
        record(112, 2, 1_794_330_004),
        record(106, 4, 1_794_330_050),
    ]
    assert last(records, turn, f"douyin:main:{number}") == ("cancelled", 3)
    assert last(records[:3], tuple(at for at in turn if at < 3), f"douyin:main:{number}") == ("paid", 2)


@pytest.mark.parametrize("turn", list(permutations(range(4))))
def test_youzan_whatever_comes_first_the_last_state_counts(turn: tuple[int, ...]) -> None:
    """Made and paid within one second, told twice, then closed, its detail behind: one order, cancelled."""
    push, close = fixture("youzan-object"), fixture("youzan-close")

    def fat(kind: str, status: str) -> Raw:
        body = change({**push, "type": kind}, "msg.full_order_info.order_info.status", status)
        return Raw("youzan", "main", NOW, json.dumps(body).encode(), verified="md5")

    closed = Raw("youzan", "main", NOW, json.dumps(close).encode(), verified="md5",
                 detail=(FIXTURES / "youzan-close.detail.json").read_bytes())  # fmt: skip
    paid = "WAIT_SELLER_SEND_GOODS"
    records = [fat("trade_TradeCreate", "WAIT_BUYER_PAY"), fat("trade_TradePaid", paid), fat("trade_TradeBuyerPay", paid), closed]
    assert last(records, turn, "youzan:main:E20261111003000000000123") == ("cancelled", 3)
    assert last(records[:3], tuple(at for at in turn if at < 3), "youzan:main:E20261111003000000000123") == ("paid", 2)


@BOTH
def test_a_refund_ends_the_order_or_keeps_it_for_a_person(name: str) -> None:
    """A part of the money: refunding. A second case with the rest: refunded."""
    message = fixture(f"{name}-refund")
    first = Raw(name, "main", NOW, json.dumps(message).encode(), verified="md5")
    case, amount = ("data.aftersale_id", "data.refund_amount") if name == "douyin" else ("msg.refund_id", "msg.refunded_fee")
    rest = change(change(message, case, "99"), amount, "19100" if name == "douyin" else "186.00")
    second = structs.replace(first, body=json.dumps(rest).encode())
    body = (FIXTURES / f"{name}-paid.json").read_bytes()
    detail = (FIXTURES / "douyin-paid.detail.json").read_bytes() if name == "douyin" else None
    order = Raw(name, "main", NOW, body, verified="md5", detail=detail)
    channel = CHANNELS[name]
    number = channel.key("main", body, {})
    line, statuses = law.line(), []
    for position, raw in enumerate((order, first, first, second)):
        found = line.process(raw, position, NOW)
        assert found.rejected is None
        if found.dossier is not None:
            statuses.append(found.dossier.status)
    assert isinstance(channel.parse(first), Refund)
    assert line.orders.get(number or "") is not None
    assert statuses == ["paid", "refunding", "refunded"]


# -- intake --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def client(shelf: MemorySink) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings.load(secrets=json.dumps({f"{name}:main": [SECRET, "x:old"] for name in CHANNELS})), shelf)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as opened:
        yield opened


@BOTH
async def test_the_platform_hears_its_own_words(name: str, client: httpx.AsyncClient, shelf: MemorySink) -> None:
    """For what is kept, for a test, and never for who is not proved."""
    body = (FIXTURES / f"{name}-paid.json").read_bytes()
    sign = douyin.sign if name == "douyin" else youzan.sign
    answer = await client.post(f"/hooks/{name}/main", content=body, headers=sign(body, SECRET))
    assert (answer.status_code, answer.content) == (200, b'{"code":0,"msg":"success"}')
    assert answer.headers["content-type"].startswith("application/json")
    assert [(raw.channel, raw.shop, raw.body, raw.verified) for raw in shelf.kept] == [(name, "main", body, "md5")]
    ping = b'[{"tag":"0","msg_id":"0","data":""}]' if name == "douyin" else b'{"test":true,"type":"trade_TradePaid","msg":""}'
    answer = await client.post(f"/hooks/{name}/main", content=ping, headers=sign(ping, "x:old"))
    assert (answer.status_code, answer.content) == (200, b'{"code":0,"msg":"success"}')
    for headers in ({}, sign(ping, SECRET), sign(body, "x:another")):
        assert (await client.post(f"/hooks/{name}/main", content=body, headers=headers)).status_code == 401
    assert len(shelf.kept) == 1


async def test_a_push_of_two_messages_is_two_records(client: httpx.AsyncClient, shelf: MemorySink) -> None:
    """Each under its own order, in the platform's sequence."""
    body = b'[{"tag":"100","data":{"p_id":1}}, {"tag":"110","data":{"p_id":2}}]'
    answer = await client.post("/hooks/douyin/main", content=body, headers=douyin.sign(body, SECRET, "hmac-sha256"))
    assert answer.status_code == 200
    assert [(raw.body, raw.verified) for raw in shelf.kept] == [
        (b'{"tag":"100","data":{"p_id":1}}', "hmac-sha256"),
        (b'{"tag":"110","data":{"p_id":2}}', "hmac-sha256"),
    ]
