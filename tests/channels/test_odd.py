"""Odd deliveries as a platform's own programs send them, signed for real, from the door to the value: a line each.

What one channel's module promises in detail stands in its own tests; here all channels answer the same questions.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from api_cases import change

from orderstream.channels import Proved, Push, Refused, api, douyin, registry, shopify, taobao, youzan
from orderstream.orders import Order, Paid, Raw, Refund, Rejected, Replaced
from orderstream.simulators import wechat
from tests.fuzz.law import FIXTURES, NOW

PAIR, SEALED = "key:secret", f"wx0001:token:{'a' * 43}"
SECRETS = {"youzan": PAIR, "douyin": PAIR, "taobao": PAIR, "wechat": SEALED, "shopify": "secret", "api": "secret"}
BIG = "9007199254740993"
"""2^53 + 1: a reader with doubles has another."""


def read(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_bytes())


def push(channel: str, body: bytes, topic: str) -> Push:
    """A body on its way, signed as its platform does it."""
    secret = SECRETS[channel]
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    match channel:
        case "youzan":
            headers = youzan.sign(body, secret)
        case "douyin":
            headers = douyin.sign(body, secret)
        case "shopify":
            headers = shopify.sign(body, secret, topic=topic, domain="a.myshopify.com", delivery="1")
        case "wechat":
            query, body = wechat.sign(body, secret, NOW // 1000)
        case "taobao":
            query = {"app_key": "key", "v": "2"}
            query["sign"] = taobao.digest(b"secret", query, body)
        case _:
            headers = api.sign(body, secret, NOW // 1000)
    return Push(body, {name.lower(): value for name, value in headers.items()}, query)


def deliver(channel: str, body: Any, detail: Any = None, topic: str = "orders/create") -> list[Any]:
    """What comes of a push: of each record that intake keeps what it is read as; `waits` for one whose detail is to be fetched."""
    one = registry()[channel]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    if channel == "jd":
        kept, headers = Proved("poll", (data,)), {}
    else:
        sent = push(channel, data, topic)
        kept = one.verify(sent, (SECRETS[channel].encode(),), NOW)
        headers = {name: sent.headers[name] for name in one.headers if name in sent.headers}
    found: list[Any] = []
    for message in kept.bodies:
        raw = Raw(channel, "main", NOW, message, headers, kept.how)
        if one.thin(raw):
            assert one.key("main", message, headers) is not None
            if detail is None:
                found.append("waits")
                continue
            raw = Raw(channel, "main", NOW, message, headers, kept.how, json.dumps(detail).encode())
        parsed = one.parse(raw)
        if isinstance(parsed, Order | Refund | Paid | Replaced):
            assert parsed.order_id == one.key("main", message, headers)
        found.append(parsed)
    return found


class Odd(NamedTuple):
    """A fixture with one thing changed (in its detail where the path begins with `detail.`), and what must come of it.

    meant: kind of value, or the code of a reject; says: attributes of the value.
    """

    base: str
    path: str
    value: Any
    meant: str
    says: dict[str, Any] | None = None


_TRADE, _SHOP, _WX = "detail.trade_fullinfo_get_response.trade", "detail.data.shop_order_detail", "detail.order"
_YZ = "msg.full_order_info"
ODD = (
    # numbers past 2^53, as number and as text
    Odd("jd-order", "orderId", int(BIG), "order", {"number": BIG}),
    Odd("jd-order", "orderId", BIG, "order", {"number": BIG}),
    Odd("shopify-order", "id", int(BIG), "order", {"number": BIG}),
    Odd("shopify-order", "id", BIG, "order", {"number": BIG}),
    Odd("api", "order_id", BIG, "order", {"number": BIG}),
    Odd("taobao-refund", "content", {"tid": int(BIG), "refund_id": 1, "refund_fee": 1, "modified": "2026-11-12 09:30:00"},
        "refund", {"order_id": f"taobao:main:{BIG}", "amount": 100}),
    Odd("douyin-refund", "data.p_id", int(BIG), "refund", {"order_id": f"douyin:main:{BIG}"}),
    Odd("jd-order", "orderId", 9.007199254740993e15, "bad-order-id"),
    # amounts as text and number
    Odd("taobao-paid", f"{_TRADE}.payment", 426, "order", {"total": 42_600}),
    Odd("taobao-paid", f"{_TRADE}.payment", 426.0, "order", {"total": 42_600}),
    Odd("jd-order", "orderPayment", 86.03, "order", {"total": 8_603}),
    Odd("youzan-object", f"{_YZ}.pay_info.payment", 553.2, "order", {"total": 55_320}),
    Odd("douyin-paid", f"{_SHOP}.pay_amount", "55320", "order", {"total": 55_320}),
    Odd("douyin-paid", f"{_SHOP}.pay_amount", "553.20", "bad-amount"),
    Odd("wechat-event", f"{_WX}.order_detail.price_info.order_price", "37800.00", "bad-amount"),
    Odd("shopify-order", "line_items.0.price", 199, "order"),
    # a state of tomorrow waits, and says so
    Odd("taobao-paid", f"{_TRADE}.status", "TRADE_OF_TOMORROW", "order", {"status": "created"}),
    Odd("jd-order", "orderState", "OF_TOMORROW", "order", {"status": "created"}),
    Odd("douyin-paid", f"{_SHOP}.order_status", 777, "order", {"status": "created"}),
    Odd("wechat-event", f"{_WX}.status", 777, "order", {"status": "created"}),
    Odd("youzan-object", f"{_YZ}.order_info.status", "OF_TOMORROW", "order", {"status": "created"}),
    Odd("shopify-order", "financial_status", "of_tomorrow", "order", {"status": "created"}),
    Odd("api", "status", "of_tomorrow", "bad-status"),
    # kinds of events: of tomorrow, about something else, pings
    Odd("taobao-paid", "topic", "taobao_trade_TradeOfTomorrow", "order"),
    Odd("taobao-paid", "topic", "taobao_item_ItemStockChanged", "skip"),
    Odd("douyin-paid", "tag", 177, "order"),
    Odd("douyin-paid", "tag", "999", "skip"),
    Odd("douyin-paid", "tag", "0", "nothing"),
    Odd("wechat-event", "Event", "channels_ec_order_of_tomorrow", "order"),
    Odd("wechat-aftersale", "Event", "channels_ec_aftersale_of_tomorrow", "refund"),
    Odd("wechat-event", "Event", "channels_ec_coupon_info_update", "skip"),
    Odd("wechat-event", "MsgType", "text", "order"),
    Odd("wechat-event", "Event", ..., "skip"),
    Odd("youzan-close", "type", "trade_TradeOfTomorrow", "order"),
    Odd("youzan-close", "type", "item_ItemUpdate", "skip"),
    Odd("youzan-close", "test", True, "nothing"),
    Odd("youzan-close", "test", "true", "nothing"),
    Odd("shopify-order", "test", True, "skip"),
    Odd("shopify-order", "id", 820982911946154508, "nothing"),
    # what is not there
    Odd("taobao-paid", "detail", None, "waits"),
    Odd("douyin-paid", "detail", None, "waits"),
    Odd("wechat-event", "detail", None, "waits"),
    Odd("youzan-close", "detail", None, "waits"),
    Odd("taobao-paid", "detail", {"error_response": {"code": 15, "sub_code": "isv.x"}}, "detail-error"),
    Odd("douyin-paid", "detail", {"code": "50002", "data": None}, "no-detail"),
    Odd("wechat-event", "detail", {"errcode": "40001"}, "no-detail"),
    Odd("wechat-event", "detail.errcode", "0", "order"),
    Odd("youzan-close", "detail", {"gw_err_resp": {"err_code": "4203"}}, "no-detail"),
    Odd("taobao-paid", f"{_TRADE}.tid_str", "3100000000000000009", "other-order"),
    Odd("wechat-event", f"{_WX}.order_id", "1", "wrong-detail"),
    Odd("shopify-order", "customer", None, "order"),
    Odd("shopify-order", "shipping_address", None, "order", {"ship_to": None}),
    Odd("jd-order", "consigneeInfo", [], "order", {"ship_to": None}),
    Odd("wechat-event", f"{_WX}.order_detail.delivery_info", None, "order", {"ship_to": None}),
    # refunds that moved nothing, or are of an exchange
    Odd("douyin-refund", "data.refund_amount", "0", "skip"),
    Odd("youzan-refund", "msg.refunded_fee", "0.00", "skip"),
    Odd("jd-refund", "status", "0", "skip"),
    Odd("wechat-aftersale", "detail.after_sale_order.status", "USER_WAIT_RETURN", "skip"),
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd.base}-{odd.path}-{str(odd.value)[:20]}")
def test_an_odd_delivery_is_what_it_says(odd: Odd) -> None:
    """The right order, refund or skip, or a reject with its reason; with its state unknown it is tagged."""
    channel = odd.base.partition("-")[0]
    whole = API if odd.base == "api" else read(odd.base)
    about = FIXTURES / f"{odd.base}.detail.json"
    both = {"body": whole, "detail": json.loads(about.read_bytes()) if about.exists() else None}
    both = change(both, odd.path if odd.path.startswith("detail") else f"body.{odd.path}", odd.value)
    found = deliver(channel, [both["body"]] if channel == "douyin" else both["body"], both["detail"])
    if odd.meant == "nothing":
        assert found == []
        return
    (value,) = found
    if odd.meant == "waits":
        assert value == "waits"
        return
    if isinstance(value, Rejected):
        assert (odd.meant, " · " in value.reason) == (value.code, True)
        return
    assert type(value).__name__.lower() == odd.meant, value
    says = odd.says or {}
    assert {name: getattr(value, name) for name in says} == says
    if says.get("status") == "created":
        assert "status-unknown" in value.tags


API = {
    "order_id": "A1",
    "created_at": "2026-11-11T00:00:01+08:00",
    "currency": "CNY",
    "lines": [{"code": "a", "quantity": 1, "price": "1.00"}],
}


@pytest.mark.parametrize("channel", sorted(SECRETS))
def test_another_shop_s_secret_proves_nobody(channel: str) -> None:
    """Each shop has its own, whatever its channel signs with; the right one beside a wrong one is enough."""
    sent, own = push(channel, b"{}", "orders/create"), SECRETS[channel].encode()
    others = (own.replace(b"secret", b"another's").replace(b"token", b"another"),)
    with pytest.raises(Refused, match="bad-signature"):
        registry()[channel].verify(sent, others, NOW)
    assert registry()[channel].verify(sent, (*others, own), NOW).how


def test_a_list_of_the_same_message_is_the_same_order_twice() -> None:
    """Douyin's pushes are lists, Taobao's may be: a message given twice is two records of one order, which say the same."""
    one = read("douyin-paid")
    assert deliver("douyin", [one, one], read("douyin-paid.detail"))[0].order_id == "douyin:main:4900000000000000123"
    for channel, message in (("douyin", one), ("taobao", read("taobao-paid"))):
        first, again = deliver(channel, [message, message], read(f"{channel}-paid.detail"))
        assert first == again


def test_a_msg_is_one_however_it_is_packed() -> None:
    """Youzan's `msg` as an object, URL-encoded as Java does and as browsers do, and as the JSON that nobody has encoded."""
    body = read("youzan-object")
    body = change(body, f"{_YZ}.remark_info", {"buyer_message": "加急 1+1 100%"})
    plain = json.dumps(body["msg"])
    packed = (body["msg"], plain, youzan.packed(plain.encode()), youzan.packed(plain.encode()).replace("+", "%20"))
    orders = [deliver("youzan", {**body, "msg": msg})[0] for msg in packed]
    assert orders[0].remark == "加急 1+1 100%"
    assert all(order == orders[0] for order in orders)
