"""The Taobao channel: a message names a trade, the trade's answer says what it is."""

from __future__ import annotations

import base64
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Proved, Push, Refused
from orderstream.channels.taobao import CHANNEL, digest, messages
from orderstream.orders import Discount, Order, Raw, Refund, Rejected, Skip
from orderstream.simulators.taobao import spi

FIXTURES = Path(__file__).parent / "fixtures"
# other people's published payloads, kept beside the checkout and not in it
SAMPLES = Path(os.environ.get("ORDERSTREAM_SAMPLES") or Path(__file__).parents[3] / "shared" / "channels" / "samples")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the collected samples are not here")


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"taobao-{name}.json").read_text("utf-8"))
    return found


ANSWER, PAID, REFUND = fixture("paid.detail"), fixture("paid"), fixture("refund")
TRADE: dict[str, Any] = ANSWER["trade_fullinfo_get_response"]["trade"]
TID = "3100000000000000001"


def raw(body: Any, detail: Any = None) -> Raw:
    def text(value: Any) -> bytes:
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    return Raw("taobao", "main", 1_794_326_420_000, text(body), detail=None if detail is None else text(detail))


def parse(body: Any, detail: Any = None) -> Any:
    return CHANNEL.parse(raw(body, detail))


def trade(**values: Any) -> dict[str, Any]:
    return {"trade_fullinfo_get_response": {"trade": {**TRADE, **values}}}


def lines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The trade's lines, each with its changes."""
    return [{**line, **more} for line, more in zip(copy.deepcopy(TRADE["orders"]["order"]), changes, strict=True)]


def order(**values: Any) -> Order:
    found = parse(PAID, trade(**values))
    assert isinstance(found, Order), found
    return found


def message(topic: str, content: Any = PAID["content"]) -> dict[str, Any]:
    return {**PAID, "topic": topic, "content": content}


def test_a_whole_trade() -> None:
    """Every field that we use: the event names the trade, the detail is the order."""
    found = order()
    assert (found.order_id, found.number, found.revision, found.status) == (f"taobao:main:{TID}", TID, None, "paid")
    # Beijing time; the rank of "paid" within the second of `modified`
    assert (found.created_at, found.updated_at) == (1_794_326_401_000, 1_794_326_416_001)
    assert (found.currency, found.total, found.tags) == ("CNY", 42_600, ())
    rack, hook = found.lines
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.discount) == ("3100000000000000002", "tb-981", 2, 19_900, 3_800)
    assert (rack.title, rack.spec, rack.gift) == ("测试置物架", {"颜色分类": "原木色", "尺寸": "大号"}, None)
    assert (hook.code, hook.quantity, hook.discount) == ("sku:4700000000002", 1, 300)
    assert found.discounts == (Discount("promotion", 2_000), Discount("coupon", 2_100))
    assert (found.buyer.id, found.buyer.ip, found.buyer.email) == ("AAE-test-uid-0001", None, None)
    assert found.keys == {"oaid": "1aBcTestOaid0001", "buyer_ip": "MASwLjEwNS4xNxyuZxQ:"}
    assert (found.payment.id, found.payment.method) == (None, "alipay")
    assert found.ship_to is not None
    assert (found.ship_to.name, found.ship_to.phone, found.ship_to.country) == ("张**", "136********", None)
    assert (found.ship_to.province, found.ship_to.city, found.ship_to.district) == ("浙江省", "杭州市", "西湖区")
    assert (found.ship_to.detail, found.ship_to.postcode) == ("翠苑街道文**路**号", "310012")
    assert (found.hold, found.presale, found.ship_by, found.remark) == (None, False, None, "请送货前电话")


@pytest.mark.parametrize(
    "body",
    [
        ANSWER,
        {"trade": TRADE},
        TRADE,
        fixture("row"),
        {"jdp_response": json.dumps(TRADE)},
        {**ANSWER, "error_response": None},
    ],
)
def test_a_row_that_holds_its_trade_needs_no_detail(body: Any) -> None:
    """An answer of the API and a row of the 聚石塔 database are the same order as the message with its detail."""
    assert parse(body) == order()
    assert not CHANNEL.thin(raw(body))
    assert CHANNEL.key("main", raw(body).body, {}) == f"taobao:main:{TID}"


@pytest.mark.parametrize("orders", [TRADE["orders"], TRADE["orders"]["order"]])
def test_lists_with_and_without_their_wrapper(orders: Any) -> None:
    """{"order": […]} and […] are one; promotions likewise."""
    promotions = TRADE["promotion_details"]["promotion_detail"]
    assert order(orders=orders, promotion_details=promotions) == order()


def test_one_object_where_a_list_should_be() -> None:
    """What was XML once: a list of one is its one element."""
    one = lines({}, {})[0]
    found = order(
        orders={"order": one}, promotion_details={"promotion_detail": TRADE["promotion_details"]["promotion_detail"][0]}
    )
    assert [line.id for line in found.lines] == ["3100000000000000002"]
    assert found.discounts == (Discount("promotion", 2_000),)


# -- which trade, and whether it must be fetched -----------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["TradeCreate", "TradeBuyerPay", "TradeModifyFee", "TradeClose", "TradeLogisticsAddressChanged",
                                   "TradeMemoModified", "TradeBuyerStepPay", "TradeNewTomorrow"])  # fmt: skip
def test_trade_messages_are_thin(topic: str) -> None:
    """The message alone is no order, whatever amounts it holds: without the detail it is a reject that says so."""
    body = message(f"taobao_trade_{topic}")
    assert CHANNEL.thin(raw(body))
    found = parse(body)
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code) == (f"taobao:main:{TID}", "no-detail")
    assert parse(body, ANSWER) == order()


@pytest.mark.parametrize("topic", ["RefundCreated", "RefundClosed", "RefundSellerAgreeAgreement", "RefundBuyerReturnGoods"])
def test_refunds_under_way_fetch_the_trade(topic: str) -> None:
    """That a refund was asked for or taken back stands in the trade's lines."""
    body = {**REFUND, "topic": f"taobao_refund_{topic}"}
    assert CHANNEL.thin(raw(body))
    found = parse(body, trade(orders={"order": lines({"refund_status": "WAIT_SELLER_AGREE"}, {})}))
    assert (found.order_id, found.status) == (f"taobao:main:{TID}", "refunding")


def test_a_refund_that_went_through_is_complete_in_itself() -> None:
    """Money went back: which refund, how much, when; the numbers are past 2^53 and whole."""
    found = parse(REFUND)
    assert found == Refund(f"taobao:main:{TID}", "3200000000000000007", 5_600, "CNY", 1_794_447_000_000)
    assert not CHANNEL.thin(raw(REFUND))
    assert CHANNEL.key("main", raw(REFUND).body, {}) == found.order_id


@pytest.mark.parametrize(
    ("name", "value", "code", "field"),
    [
        ("refund_id", None, "missing-field", "content.refund_id"),
        ("refund_fee", "1.001", "bad-amount", "content.refund_fee"),
        ("refund_fee", None, "bad-amount", "content.refund_fee"),
        ("modified", "yesterday", "bad-time", "content.modified"),
    ],
)
def test_a_refund_is_read_exactly(name: str, value: Any, code: str, field: str) -> None:
    """A refund that does not say how much went back is none."""
    content = {**json.loads(REFUND["content"]), name: value}
    found = parse({**REFUND, "content": json.dumps(content)})
    assert isinstance(found, Rejected)
    assert (found.code, found.field) == (code, field)


@pytest.mark.parametrize("topic", ["taobao_trade_TradeRated", "taobao_trade_TradeSellerShip", "taobao_refund_RefundTimeoutRemind",
                                   "taobao_item_ItemStockChanged", "x" * 500])  # fmt: skip
def test_what_changes_no_verdict_is_an_explained_skip(topic: str) -> None:
    """Not fetched, not rejected."""
    assert not CHANNEL.thin(raw(message(topic)))
    found = parse(message(topic))
    assert isinstance(found, Skip)
    assert len(found.reason) < 300


def test_the_detail_must_be_the_trade_that_the_message_names() -> None:
    """An answer that was swapped, an error, or none at all is never somebody else's order."""
    for detail, code in (
        (trade(tid=1, tid_str="3100000000000000009"), "other-order"),
        ({"error_response": {"code": 15, "sub_code": "isv.trade-not-exist"}}, "detail-error"),
        ({"trade_fullinfo_get_response": {}}, "bad-order-id"),
        ({"hello": 1}, "wrong-detail"),
        (b"<html>", "not-json"),
        ([], "wrong-type"),
    ):
        found = parse(PAID, detail)
        assert isinstance(found, Rejected)
        assert (found.order_id, found.code) in {(f"taobao:main:{TID}", code), (f"taobao:main:{TID}", "other-order")}, detail


def test_a_number_that_doubles_cannot_hold() -> None:
    """tid as a number, as a text, and rounded beside its tid_str: the same trade."""
    content = json.loads(PAID["content"])
    for tid in (int(TID), TID):
        assert CHANNEL.key("main", raw(message("taobao_trade_TradeCreate", json.dumps({**content, "tid": tid}))).body, {}) == (
            f"taobao:main:{TID}"
        )
    assert order(tid=int(float(TID)) + 512).number == TID
    assert parse(PAID, {"trade": {**TRADE, "tid_str": None}}).number == TID


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"tid": 0}', '{"tid": 1.5}', '{"tid": "a"}', None, 5, {"tid": True}])
def test_a_message_without_a_usable_trade_is_a_reject(content: Any) -> None:
    """It names no order, so nothing is fetched and nothing is guessed."""
    body = message("taobao_trade_TradeCreate", content)
    assert not CHANNEL.thin(raw(body))
    assert isinstance(parse(body), Rejected)
    assert CHANNEL.key("main", raw(body).body, {}) is None


# -- the mapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "status"),
    [
        ("TRADE_NO_CREATE_PAY", "created"),
        ("WAIT_BUYER_PAY", "created"),
        ("PAY_PENDING", "created"),
        ("WAIT_PRE_AUTH_CONFIRM", "created"),
        ("WAIT_SELLER_SEND_GOODS", "paid"),
        ("SELLER_CONSIGNED_PART", "paid"),
        ("PAID_FORBID_CONSIGN", "paid"),
        ("WAIT_BUYER_CONFIRM_GOODS", "paid"),
        ("TRADE_BUYER_SIGNED", "paid"),
        ("TRADE_FINISHED", "paid"),
        ("TRADE_CLOSED", "refunded"),
        ("TRADE_CLOSED_BY_TAOBAO", "cancelled"),
    ],
)
def test_status(stated: str, status: str) -> None:
    """The platform's twelve words."""
    assert (order(status=stated).status, order(status=stated).tags) == (status, ())


@pytest.mark.parametrize("stated", [None, "", "TRADE_ON_MARS", 7])
def test_an_unknown_status_waits_and_says_so(stated: Any) -> None:
    """What the platform invents tomorrow is not paid."""
    assert (order(status=stated).status, order(status=stated).tags) == ("created", ("status-unknown",))


@pytest.mark.parametrize(
    ("refund", "status"),
    [
        ("NO_REFUND", "paid"), ("CLOSED", "paid"), (None, "paid"), ("WAIT_SELLER_AGREE", "refunding"),
        ("WAIT_BUYER_RETURN_GOODS", "refunding"), ("WAIT_SELLER_CONFIRM_GOODS", "refunding"), ("SELLER_REFUSE_BUYER", "refunding"),
        ("SUCCESS", "refunding"),
    ],
)  # fmt: skip
def test_a_refund_on_a_line(refund: str | None, status: str) -> None:
    """One line's refund is a question about the whole parcel, until it is over."""
    assert order(orders={"order": lines({}, {"refund_status": refund})}).status == status


def test_a_closed_line_is_gone() -> None:
    """Its refund is over: what is left ships, for the total as stated."""
    gone = {"status": "TRADE_CLOSED", "refund_status": "SUCCESS"}
    found = order(orders={"order": lines({}, gone)})
    assert ([line.id for line in found.lines], found.status, found.total) == (["3100000000000000002"], "paid", 42_600)
    assert found.tags == ("lines-removed",)
    found = order(orders={"order": lines(gone, gone)})
    assert (found.status, len(found.lines), found.tags) == ("refunded", 2, ())


@pytest.mark.parametrize("name", ["top_hold", "team_buy_hold", "share_group_hold", "ofp_hold", "forbid_consign"])
@pytest.mark.parametrize("value", [1, "1", True])
def test_the_platform_s_holds(name: str, value: Any) -> None:
    """Every way in which the platform says: do not ship."""
    assert order(**{name: value}).hold == name
    assert order(**{name: 0}).hold is None


def test_other_holds() -> None:
    """The status that forbids shipping, and the platform's own words about a trade that is not in order."""
    assert order(status="PAID_FORBID_CONSIGN").hold == "PAID_FORBID_CONSIGN"
    assert order(mark_desc="存在异常", top_hold=1).hold == "top_hold; 存在异常"


@pytest.mark.parametrize(
    ("step", "status"),
    [("FRONT_NOPAID_FINAL_NOPAID", "created"), ("FRONT_PAID_FINAL_NOPAID", "created"), ("FRONT_PAID_FINAL_PAID", "paid")],
)
def test_a_presale_waits_for_its_balance(step: str, status: str) -> None:
    """A deposit is not the price, whatever the trade's status says."""
    found = order(type="step", step_trade_status=step, step_paid_fee="50.00", send_time="2026-12-01 23:59:59")
    assert (found.presale, found.status, found.ship_by) == (True, status, 1_796_140_799_000)


def test_a_town_alone_is_no_address() -> None:
    """A street that is hidden leaves nothing to deliver to, and nothing that half a district would share."""
    found = order(receiver_address="").ship_to
    assert found is not None
    assert (found.district, found.detail) == ("西湖区", None)


def test_gift_orders_and_gift_lines() -> None:
    """An order for somebody else is tagged; a line is a gift where a promotion names its item and it cost nothing."""
    assert order(is_gift=True).tags == ("gift-order",)
    assert order(donee_open_uid="AAD").tags == ("gift-order",)
    free = {"price": "59.00", "divide_order_fee": "0.00", "payment": "0.00", "total_fee": "0.00", "discount_fee": "59.00"}
    promotion = {
        "id": TID,
        "promotion_name": "满就送",
        "discount_fee": "",
        "gift_item_id": "610000000002",
        "gift_item_name": "挂钩",
    }
    found = order(orders={"order": lines({}, free)}, payment="370.00", promotion_details={"promotion_detail": [promotion]})
    assert ([line.gift for line in found.lines], found.lines[1].discount, found.tags) == ([None, True], 5_900, ())
    paid = order(promotion_details={"promotion_detail": [promotion]})
    assert [line.gift for line in paid.lines] == [None, None]


@pytest.mark.parametrize(
    ("nick", "uid", "found"),
    [("c**", "AAE", "AAE"), ("c**", None, None), ("tb_real", None, "tb_real"), ("tb_real", "AAE", "AAE"), (None, "", None)],
)
def test_a_masked_name_is_no_buyer(nick: str | None, uid: str | None, found: str | None) -> None:
    """c** is many people: without the open uid there is no buyer to compare."""
    assert order(buyer_nick=nick, buyer_open_uid=uid).buyer.id == found


@pytest.mark.parametrize(("given", "ip", "key"), [("MASwLjEwNS4xNxyuZxQ:", None, "MASwLjEwNS4xNxyuZxQ:"), ("203.0.113.7", "203.0.113.7", None),
                                                  ("", None, None), ("1**.2", None, None)])  # fmt: skip
def test_an_obfuscated_ip_is_a_key_and_no_address(given: str, ip: str | None, key: str | None) -> None:
    """Equal or not is all that it says: no segment, no place."""
    found = order(buyer_ip=given)
    assert (found.buyer.ip, found.keys.get("buyer_ip")) == (ip, key)


@pytest.mark.parametrize(
    ("values", "method"),
    [({}, "alipay"), ({"type": "cod"}, "cod"), ({"pay_channel": "credit"}, "credit"), ({"alipay_no": None}, None)],
)
def test_payment(values: dict[str, Any], method: str | None) -> None:
    """alipay_no is the transaction and says nothing of the account; the account's name counts where it is shown."""
    assert (order(**values).payment.id, order(**values).payment.method) == (None, method)
    assert order(buyer_alipay_no="someone@example.com").payment.id == "someone@example.com"


@pytest.mark.parametrize(
    ("values", "code"),
    [({}, "sku:4700000000002"), ({"outer_iid": "HOOK"}, "HOOK"), ({"outer_iid": "HOOK", "outer_sku_id": "H-1"}, "H-1"),
     ({"sku_id": 0}, "item:610000000002"), ({"sku_id": None, "num_iid": None}, None)],
)  # fmt: skip
def test_a_line_s_code(values: dict[str, Any], code: str | None) -> None:
    """The shop's own code of the SKU, of the item, the platform's number of either."""
    assert order(orders={"order": lines({}, values)}).lines[1].code == code


def test_one_line_and_its_postage() -> None:
    """A single line's share is its goods, whether the platform put the postage into it or not."""
    one = lines({"num": 1, "price": "160.00", "discount_fee": "20.00", "total_fee": "140.00", "part_mjz_discount": "0.00"}, {})[0]
    for share, payment in (("140.00", "148.00"), ("148.00", "148.00"), (None, "148.00")):
        line = {**one, "payment": payment, "divide_order_fee": share}
        found = order(orders={"order": [line]}, payment=payment, post_fee="8.00", total_fee="160.00", promotion_details=None)
        assert (found.lines[0].discount, found.total, found.tags) == (2_000, 14_800, ()), share


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ({"payment": "426.01"}, ("amounts-differ",)),
        ({"payment": "416.00"}, ()),
        ({"total_fee": "457.01"}, ("amounts-differ",)),
        ({"orders": {"order": lines({"divide_order_fee": "360.01"}, {})}}, ("amounts-differ",)),
        ({"orders": {"order": lines({"total_fee": "377.00"}, {})}}, ("amounts-differ",)),
        ({"orders": {"order": lines({}, {"adjust_fee": "-9.00", "total_fee": "50.00"})}}, ()),
    ],
)
def test_amounts_that_do_not_add_up_are_kept_and_tagged(values: dict[str, Any], tags: tuple[str, ...]) -> None:
    """The sum of divide_order_fee is the payment, with or without postage; nothing is corrected."""
    assert order(**values).tags == tags


def test_a_price_that_was_raised() -> None:
    """A line that cost more than its list price has no negative discount, and says so."""
    found = order(orders={"order": lines({}, {"divide_order_fee": "60.00"})}, payment="430.00")
    assert (found.lines[1].discount, found.tags) == (0, ("price-raised",))


def test_a_red_packet_without_a_unit() -> None:
    """coupon_fee's unit is not documented: that there was one counts, how much does not."""
    found = order(coupon_fee=500, promotion_details=None)
    assert (found.discounts, found.tags) == ((Discount("coupon", 0),), ("coupon-amount-unknown",))


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        ("payment", "NaN", "bad-amount", "trade.payment"),
        ("payment", None, "bad-amount", "trade.payment"),
        ("created", 20_261_111, "bad-time", "trade.created"),
        ("modified", "2026-13-11 00:00:01", "bad-time", "trade.modified"),
        ("orders", {"order": []}, "no-lines", "trade.orders"),
        ("orders", None, "no-lines", "trade.orders"),
        ("orders.order.0", "x", "wrong-type", "trade.orders.order[0]"),
        ("orders.order.0.price", "-1.00", "bad-amount", "trade.orders.order[0].price"),
        ("orders.order.0.num", 0, "bad-quantity", "trade.orders.order[0].num"),
        ("orders.order.0.num", "1.5", "bad-quantity", "trade.orders.order[0].num"),
        ("orders.order.0.divide_order_fee", "x", "bad-amount", "trade.orders.order[0].divide_order_fee"),
        ("orders.order.1.oid_str", "3100000000000000002", "duplicate-line", "trade.orders.order[1].oid"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str, field: str) -> None:
    """A field that decides is right or the record is a reject with its place."""
    found = parse(PAID, {"trade": change(TRADE, path, value)})
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code, found.field) == (f"taobao:main:{TID}", code, field)


def test_within_a_second_the_later_status_goes_first() -> None:
    """`modified` has seconds: made and paid within one, an order must not stay unpaid."""
    at = [order(status=stated).updated_at for stated in ("WAIT_BUYER_PAY", "WAIT_SELLER_SEND_GOODS", "TRADE_CLOSED")]
    assert None not in at
    assert sorted(at) == at  # type: ignore[type-var]
    assert len(set(at)) == 3


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 90_000), st.integers(0, 100)), min_size=2, max_size=6),
    st.integers(0, 2_000),
)
def test_the_money_of_the_lines_is_the_payment(drawn: list[tuple[int, int, int]], post: int) -> None:
    """Whatever was bought at whatever discount: Σ (price × quantity − discount) + postage is the total, and nothing is tagged."""

    def yuan(fen: int) -> str:
        return f"{fen // 100}.{fen % 100:02d}"

    made, goods, paid = [], 0, 0
    for at, (num, price, percent) in enumerate(drawn):
        share = num * price * percent // 100
        goods, paid = goods + num * price, paid + share
        made.append({"oid": at + 1, "num": num, "price": yuan(price), "divide_order_fee": yuan(share)})
    found = order(
        orders={"order": made}, payment=yuan(paid + post), post_fee=yuan(post), total_fee=yuan(goods), promotion_details=[]
    )
    assert sum(line.price * line.quantity - (line.discount or 0) for line in found.lines) + post == found.total
    assert found.tags == ()


# -- who sent it -----------------------------------------------------------------------------------------------------

SECRETS = (b"12345:new", b"12345:old")
BODY = json.dumps(PAID).encode()
NOW = 1_794_326_402_000


def verify(push: Push, secrets: tuple[bytes, ...] = SECRETS, now: int = NOW) -> Proved:
    return CHANNEL.verify(push, secrets, now)


def test_a_vector_of_our_own() -> None:
    """As `printf '%s' 's3cretapp_key12345timestamp2026-11-11 00:00:00x-testgood day{"a":1}s3cret' | md5sum` prints it."""
    query = {"timestamp": "2026-11-11 00:00:00", "app_key": "12345", "sign": "FC1BFA0C14DDECF51D07EEA8B9FC97D2"}
    headers = {"top-sign-list": "x-test", "x-test": "good%20day", "x-other": "1", "content-type": "application/json"}
    assert verify(Push(b'{"a":1}', headers, query), (b"12345:s3cret",)) == Proved("top-spi", (b'{"a":1}',))
    with pytest.raises(Refused, match="bad-signature"):
        verify(Push(b'{"a":1}', headers, {**query, "app_key": "12346"}), (b"12345:s3cret",))
    with pytest.raises(Refused, match="bad-signature"):
        verify(Push(b'{"a":1}', {**headers, "x-test": "bad day"}, query), (b"12345:s3cret",))


@pytest.mark.parametrize("secret", ["12345:new", "12345:old"])
def test_either_secret_proves_the_sender(secret: str) -> None:
    """During a rotation both; another shop's never."""
    push = spi(BODY, secret, NOW)
    assert verify(push).bodies == (BODY,)
    with pytest.raises(Refused, match="bad-signature"):
        verify(push, (b"12345:another",))
    with pytest.raises(Refused, match="bad-secret"):
        verify(push, (b"new", b":old", b"12345:"))


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_stale_timestamp_is_refused(minutes: int) -> None:
    """A captured call cannot be sent again next day."""
    push = spi(BODY, "12345:new", NOW)
    assert verify(push, now=NOW + minutes // 2 * 60_000)
    with pytest.raises(Refused, match="stale"):
        verify(push, now=NOW + minutes * 60_000)


@pytest.mark.parametrize("sign", [None, "", "x", "A" * 31, "A" * 33, "fc1bfa0c14ddecf51d07eea8b9fc97d2", "é" * 32])
def test_what_is_no_sign_is_unsigned(sign: str | None) -> None:
    """32 upper-case hex digits, or it is none."""
    push = spi(BODY, "12345:new", NOW)
    query = {name: value for name, value in push.query.items() if name != "sign"} | ({} if sign is None else {"sign": sign})
    with pytest.raises(Refused, match="unsigned"):
        verify(Push(BODY, push.headers, query))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of the body, of a signed parameter or header, or of the sign."""
    push = spi(BODY, "12345:new", NOW, signed={"x-trace": "abc"})
    parts: list[tuple[str, Callable[[bytes], Push]]] = [
        (BODY.decode("latin-1"), lambda new: Push(new, push.headers, push.query)),
        *(
            (push.query[name], lambda new, name=name: Push(BODY, push.headers, {**push.query, name: new.decode("latin-1")}))
            for name in sorted(push.query)
        ),
        ("abc", lambda new: Push(BODY, {**push.headers, "x-trace": new.decode("latin-1")}, push.query)),
    ]
    old, made = data.draw(st.sampled_from(parts))
    part = bytearray(old.encode("latin-1"))
    at = data.draw(st.integers(0, len(part) * 8 - 1))
    part[at // 8] ^= 1 << at % 8
    with pytest.raises(Refused):
        verify(made(bytes(part)))


def test_a_form_is_signed_by_its_fields() -> None:
    """Of a form the decoded fields are signed; one that is a message becomes that message."""
    fields = {"topic": PAID["topic"], "content": PAID["content"], "id": "7104300007405429001"}
    push = spi(urlencode(fields).encode(), "12345:new", NOW, form=fields)
    (kept,) = verify(push).bodies
    assert parse(kept, ANSWER) == order()
    with pytest.raises(Refused, match="bad-signature"):
        verify(Push(push.body.replace(b"TradeBuyerPay", b"TradeBuyerPaz"), push.headers, push.query))


def test_several_messages_become_a_record_each() -> None:
    """An answer to consume, or a list: every message with the bytes that it had there."""
    first, second = json.dumps(PAID).encode(), json.dumps(REFUND).encode()
    for whole in (b'{"tmc_messages_consume_response":{"messages":{"tmc_message":[%s, %s]}}}', b"[%s,%s]"):
        assert messages(whole % (first, second)) == (first, second)
        assert verify(spi(whole % (first, second), "12345:new", NOW)).bodies == (first, second)
    assert messages(b'{"tmc_messages_consume_response":{"request_id":"x"}}') == ()
    assert messages(b'{"tmc_messages_consume_response":{"messages":{"tmc_message":' + first + b"}}}") == (first,)
    for odd in (b"", b"[", b'{"tmc_messages_consume_response":5}', b"[" * 2000):
        assert messages(odd) == (odd,)


def test_an_unknown_charset_and_gbk() -> None:
    """The charset of the Content-Type is that of the parameters; the body's bytes count as they are."""
    query = {"seller": "测试", "app_key": "12345"}
    body = '{"a":"测试"}'.encode("gbk")
    signed = {**query, "sign": digest(b"new", query, body, "gb18030")}
    assert verify(Push(body, {"content-type": "application/json; charset=GBK"}, signed)).bodies == (body,)
    with pytest.raises(Refused, match="bad-signature"):
        verify(Push(body, {"content-type": "application/json; charset=hex"}, signed))


# -- others' payloads, and anything at all ---------------------------------------------------------------------------


@needs_samples
def test_the_published_sample() -> None:
    """A message about an item: carried as it stands, and skipped."""
    whole = (SAMPLES / "taobao-4.json").read_bytes()
    (inner,) = messages(whole)
    assert json.loads(inner)["id"] == 7104300007405429232
    for body in (whole, inner):
        found = parse(body)
        assert isinstance(found, Skip)
        assert "taobao_item_ItemStockChanged" in found.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [*TRADE, "orders.order", "orders.order.0", *(f"orders.order.0.{name}" for name in TRADE["orders"]["order"][0]),
         "promotion_details.promotion_detail", "promotion_details.promotion_detail.0",
         *(f"promotion_details.promotion_detail.1.{name}" for name in TRADE["promotion_details"]["promotion_detail"][1])]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field of a trade: a value, and under one key with its message."""
    detail = {"trade": change(TRADE, path, value)}
    assert isinstance(parse(PAID, detail), Order | Rejected)
    found = parse(detail)
    assert isinstance(found, Order | Rejected)
    if isinstance(found, Order):
        assert CHANNEL.key("main", raw(detail).body, {}) == found.order_id


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([PAID, REFUND]), st.sampled_from([*PAID, "tid", "refund_id", "refund_fee", "modified"]), JSON)
def test_no_value_in_a_message_makes_the_parser_raise(body: dict[str, Any], name: str, value: Any) -> None:
    """The same for the envelope and what is in it."""
    content = json.loads(body["content"])
    changed = {**body, name: value} if name in body else {**body, "content": json.dumps({**content, name: value})}
    found = parse(changed, ANSWER)
    assert isinstance(found, Order | Refund | Rejected | Skip)
    if isinstance(found, Order | Refund):
        assert CHANNEL.key("main", raw(changed).body, {}) == found.order_id
    assert isinstance(CHANNEL.thin(raw(changed)), bool)


def test_the_published_example_is_an_order() -> None:
    """schemas/examples shows a message with its detail, under the key that it has on Kafka."""
    file = Path(__file__).parents[2] / "schemas" / "examples" / "raw-record.taobao.json"
    record = json.loads(file.read_text("utf-8"))
    body = base64.b64decode(record["value_base64"])
    found = parse(body, record["headers"]["detail"].encode())
    assert isinstance(found, Order)
    assert record["key"] == found.order_id == CHANNEL.key("main", body, {})
    assert found.tags == ()
