"""Taobao and JD where they meet the rest: the fuzz law, the line, intake's door."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest
from sequence import last

from orderstream.channels import Channel, jd, taobao
from orderstream.intake.app import create_app
from orderstream.orders import Raw
from orderstream.settings import Settings
from orderstream.simulators.taobao import spi
from tests.fuzz import law
from tests.sink import MemorySink

FIXTURES = Path(__file__).parent / "fixtures"
CHANNELS: dict[str, Channel] = {"taobao": taobao.CHANNEL, "jd": jd.CHANNEL}
BOTH = pytest.mark.parametrize("name", sorted(CHANNELS))
NOW = 1_794_330_060_000
TID, NUMBER = "3100000000000000001", "290000000001"


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))


@BOTH
def test_good_deliveries_are_read(name: str) -> None:
    """Orders and refunds among the seeds, each under its own key."""
    assert {law.obey(CHANNELS[name], *law.split(seed)) for seed in law.seeds(name)} >= {"order", "refund"}


BOMBS = {
    "an object in a text": '{"topic":"taobao_trade_TradeCreate","content":"' + "{}," * 340_000 + '"}',
    "a long content": '{"topic":"taobao_trade_TradeCreate","content":"' + "1" * 1_000_000 + '"}',
    "quotes in a row": '{"responseJson":"' + '\\"' * 500_000 + '","jdp_response":"{"}',
    "a row in a row": json.dumps({"jdp_response": json.dumps({"jdp_response": json.dumps({"jdp_response": "{}"})})}),
    "messages": '{"tmc_messages_consume_response":{"messages":{"tmc_message":[' + "1," * 40_000 + "1]}}}",
    "coupons": json.dumps({**fixture("jd-order"), "couponDetailList": [[{"couponPrice": "0.01"}]] * 6_000}),
}


@BOTH
@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_bomb_of_the_formats_is_a_value(name: str, bomb: str) -> None:
    """Megabytes made to be read again and again, each also on the channel that it was not made for."""
    assert law.obey(CHANNELS[name], [], BOMBS[bomb].encode()) in {"rejected", "skip"}


@pytest.mark.parametrize("turn", list(permutations(range(4))))
def test_taobao_whatever_is_fetched_first_the_last_state_counts(turn: tuple[int, ...]) -> None:
    """Made and paid within one second, told twice, then closed: one order, refunded, out of three revisions."""
    answer = fixture("taobao-paid.detail")["trade_fullinfo_get_response"]["trade"]

    def record(topic: str, status: str, second: int) -> Raw:
        trade = {**answer, "status": status, "modified": f"2026-11-11 00:00:{second}"}
        body = json.dumps({**fixture("taobao-paid"), "topic": f"taobao_trade_{topic}"}).encode()
        return Raw("taobao", "main", NOW, body, detail=json.dumps({"trade_fullinfo_get_response": {"trade": trade}}).encode())

    records = [
        record("TradeCreate", "WAIT_BUYER_PAY", 16),
        record("TradeBuyerPay", "WAIT_SELLER_SEND_GOODS", 16),
        record("TradeChanged", "WAIT_SELLER_SEND_GOODS", 16),
        record("TradeClose", "TRADE_CLOSED", 50),
    ]
    assert last(records, turn, f"taobao:main:{TID}") == ("refunded", 3)
    assert last(records[:3], tuple(at for at in turn if at < 3), f"taobao:main:{TID}") == ("paid", 2)


@pytest.mark.parametrize("turn", list(permutations(range(4))))
def test_jd_rows_of_the_search_and_of_the_database_are_one_sequence(turn: tuple[int, ...]) -> None:
    """With dataVersion and without, made and paid within one second, told twice, then cancelled: one order, cancelled."""

    def record(state: str, second: int, version: str | None) -> Raw:
        row = {**fixture("jd-order"), "orderState": state, "modified": f"2026-11-11 00:00:{second}", "dataVersion": version}
        return Raw("jd", "main", NOW, json.dumps(row).encode(), verified="poll")

    records = [
        record("NOT_PAY", 16, None),
        record("WAIT_SELLER_STOCK_OUT", 16, None),
        record("WAIT_SELLER_STOCK_OUT", 16, None),
        record("TRADE_CANCELED", 50, "1794326450000"),
    ]
    assert last(records, turn, f"jd:main:{NUMBER}") == ("cancelled", 3)
    assert last(records[:3], tuple(at for at in turn if at < 3), f"jd:main:{NUMBER}") == ("paid", 2)


@BOTH
def test_a_refund_ends_the_order_or_keeps_it_for_a_person(name: str) -> None:
    """A part of the money: refunding. Told again: nothing new. Another with the rest: refunded."""
    message = fixture(f"{name}-refund")
    if name == "taobao":
        content = json.loads(message["content"]) | {"refund_id": 99, "refund_fee": "370.00"}
        rest, order = {**message, "content": json.dumps(content)}, fixture("taobao-paid.detail")
    else:
        rest, order = {**message, "id": 99, "applyRefundSum": 35_500}, fixture("jd-order")
    line, statuses = law.line(), []
    for position, body in enumerate((order, message, message, rest)):
        found = line.process(Raw(name, "main", NOW, json.dumps(body).encode()), position, NOW)
        assert found.rejected is None
        if found.dossier is not None:
            statuses.append(found.dossier.status)
    assert statuses == ["paid", "refunding", "refunded"]


async def test_intake_s_door() -> None:
    """An SPI call is kept, a record a message, and answered in the platform's form; of JD nothing is taken."""
    shelf = MemorySink()
    app = create_app(Settings.load(secrets='{"taobao:main": ["12345:new"], "jd:main": ["12345:new"]}'), shelf, lambda: NOW)
    body = json.dumps([fixture("taobao-paid"), fixture("taobao-refund")]).encode()
    push = spi(body, "12345:new", NOW)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as client:

        async def post(channel: str, query: dict[str, str]) -> httpx.Response:
            return await client.post(f"/hooks/{channel}/main", params=query, content=body, headers=dict(push.headers))

        said = await post("taobao", dict(push.query))
        assert (said.status_code, said.json()) == (200, {"success": True})
        assert (await post("taobao", {**push.query, "app_key": "6"})).status_code == 401
        assert (await post("jd", dict(push.query))).status_code == 401
    assert [(raw.verified, taobao.CHANNEL.thin(raw)) for raw in shelf.kept] == [("top-spi", True), ("top-spi", False)]
