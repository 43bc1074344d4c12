"""The Youzan channel: two signatures of unlike reach, a URL-encoded order, yuan and fen side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Proved, Push, Refused
from orderstream.channels.youzan import BY_BODY, BY_MSG, CHANNEL, MAX_ESCAPES, changed, packed, sign, sign_msg
from orderstream.orders import Address, Customs, Discount, Order, Raw, Refund, Rejected, Skip

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLES = Path(os.environ.get("ORDERSTREAM_SAMPLES") or Path(__file__).parents[3] / "shared" / "channels" / "samples")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the collected samples are not here")

TID = "E20261111003000000000123"
ID = f"youzan:main:{TID}"
PAID = json.loads((FIXTURES / "youzan-paid.json").read_text("utf-8"))
MSG = json.loads((FIXTURES / "youzan-object.json").read_text("utf-8"))["msg"]
REFUND = json.loads((FIXTURES / "youzan-refund.json").read_text("utf-8"))
CLOSE = json.loads((FIXTURES / "youzan-close.json").read_text("utf-8"))
DETAIL = json.loads((FIXTURES / "youzan-close.detail.json").read_text("utf-8"))


def raw(push: Any, detail: Any = None, verified: str = BY_BODY) -> Raw:
    body = push if isinstance(push, bytes) else json.dumps(push).encode()
    answer = detail if isinstance(detail, bytes | None) else json.dumps(detail).encode()
    return Raw("youzan", "main", 1_794_331_000_000, body, verified=verified, detail=answer)


def parse(push: Any, detail: Any = None, verified: str = BY_BODY) -> Any:
    return CHANNEL.parse(raw(push, detail, verified))


def order(path: str | None = None, value: Any = None, **push: Any) -> Order:
    """The order of a push whose `msg` is changed at a path."""
    msg = MSG if path is None else change(MSG, path, value)
    found = parse({**PAID, "msg": packed(json.dumps(msg).encode()), **push})
    assert isinstance(found, Order), found
    return found


INFO, MONEY = "full_order_info.order_info", "full_order_info.pay_info"


def test_a_whole_order() -> None:
    """Every field that we use, out of a push as the platform encodes it."""
    found = parse((FIXTURES / "youzan-paid.json").read_bytes())
    assert isinstance(found, Order)
    assert (found.order_id, found.revision, found.status, found.tags) == (ID, None, "paid", ())
    assert (found.created_at, found.updated_at) == (1_794_330_000_000, 1_794_330_004_001)
    assert (found.currency, found.total, found.presale, found.ship_by, found.customs) == ("CNY", 55_320, False, None, None)
    rack, chair, cloth = found.lines
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.list_price, rack.discount, rack.gift) == (
        "2893000000000000124", "yz101", 2, 19_900, 25_900, 3_080, False,
    )  # fmt: skip
    assert (rack.title, rack.spec) == ("多功能收纳架", {"颜色": "原木色", "尺寸": "三层"})
    assert (chair.code, chair.price, chair.discount, chair.spec) == ("item:457846931", 20_200, 1_600, {})
    assert (cloth.code, cloth.price, cloth.list_price, cloth.gift) == ("yz133", 0, 1_500, True)
    assert found.discounts == (
        Discount("meetReduce", 2_680), Discount("coupon", 2_000), Discount("price-change", 1_000), Discount("deduction", 5_000),
    )  # fmt: skip
    assert (found.buyer.id, found.buyer.phone, found.buyer.ip, found.payment.method) == (
        "yzExampleOpenId0000001", None, None, "weixin_daixiao",
    )  # fmt: skip
    # receiver, number and street are ciphertext
    assert found.ship_to == Address(None, None, None, "浙江省", "杭州市", "西湖区", None, "310012", 30.27, 120.13)
    assert found.remark == "放门口 + 打电话"


def test_an_object_is_read_as_its_text() -> None:
    """`msg` as an object, or encoded with %20, is the same order; a plus that was written is kept."""
    assert parse({**PAID, "msg": MSG}) == parse(PAID)
    assert parse({**PAID, "msg": quote(json.dumps(MSG))}) == parse(PAID)
    assert "%2B" in PAID["msg"]
    assert "+" in PAID["msg"]


@pytest.mark.parametrize(
    ("status", "refund_state", "found"),
    [
        ("WAIT_BUYER_PAY", 0, "created"),
        ("WAIT_CONFIRM", 0, "created"),
        ("TRADE_PAID", 0, "paid"),
        ("WAIT_SELLER_SEND_GOODS", "0", "paid"),
        ("WAIT_BUYER_CONFIRM_GOODS", None, "paid"),
        ("TRADE_SUCCESS", "null", "paid"),
        ("WAIT_SELLER_SEND_GOODS", 1, "refunding"),
        ("WAIT_SELLER_SEND_GOODS", 2, "refunding"),
        ("TRADE_SUCCESS", "11", "refunding"),
        ("TRADE_SUCCESS", 12, "refunded"),
        ("TRADE_CLOSED", 12, "refunded"),
        ("TRADE_CLOSED", 2, "cancelled"),
        ("TRADE_CLOSED", 0, "cancelled"),
        ("WAIT_SELLER_SEND_GOODS", 99, "refunding"),
    ],
)
def test_status(status: str, refund_state: Any, found: str) -> None:
    """What the order says, and what of its money went or goes back."""
    info = {**MSG["full_order_info"]["order_info"], "status": status, "refund_state": refund_state}
    read = order(INFO, info)
    assert (read.status, read.tags) == (found, ())


@pytest.mark.parametrize("new", ["WAIT_FOR_MARS", "null", None, 5])
def test_an_unknown_status_waits_and_says_so(new: Any) -> None:
    """A status that the platform invents tomorrow is not paid; the envelope's own is not asked."""
    found = order(f"{INFO}.status", new)
    assert (found.status, found.tags) == ("created", ("status-unknown",))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"outer_sku_id": "A", "outer_item_id": "B"}, "A"),
        ({"outer_sku_id": "null", "outer_item_id": "B"}, "B"),
        ({"outer_sku_id": "", "outer_item_id": None, "sku_no": "C", "item_no": "D"}, "C"),
        ({"sku_id": 36, "item_id": 4}, "sku:36"),
        ({"sku_id": 0, "item_id": "4"}, "item:4"),
        ({"sku_id": "null"}, None),
    ],
)
def test_a_line_s_code(line: dict[str, Any], code: str | None) -> None:
    """The shop's own, else the platform's; the text "null" and 0 are none."""
    assert order("full_order_info.orders", [{"oid": "1", "num": 1, "price": "553.20", **line}]).lines[0].code == code


def test_what_nothing_looks_like() -> None:
    """The text "null", {}, "" and none are all nothing."""
    for nothing in ("null", {}, "", None, ...):
        assert order(f"{INFO}.update_time", nothing).updated_at == 1_794_330_004_001
        assert order("full_order_info.remark_info.buyer_message", nothing).remark == "K"
        assert order("full_order_info.address_info.address_extra", nothing).ship_to.lat is None  # type: ignore[union-attr]
        assert order("full_order_info.orders.0.price", nothing).lines[0].list_price is None
        assert order("full_order_info.buyer_info.yz_open_id", nothing).buyer.id == "1000000017"
    assert isinstance(parse({**PAID, "msg": change(MSG, f"{INFO}.created", {})}), Rejected)


def test_two_fields_are_fen() -> None:
    """Beside "553.20" yuan stand 5000 fen; in yuan they are no amount at all."""
    assert Discount("deduction", 5_000) in order().discounts
    assert Discount("deduction", 70) in order(f"{MONEY}.deduction_pay", "70").discounts
    assert parse({**PAID, "msg": change(MSG, f"{MONEY}.deduction_pay", "50.00")}).code == "bad-amount"


def test_an_order_to_be_fetched_has_no_address() -> None:
    """The one in it is the shop's own, which all such orders share."""
    plain = {"receiver_name": "李雷", "receiver_tel": "13800000020", "delivery_address": "门店1号", "delivery_city": "杭州市"}
    msg = change(change(MSG, "full_order_info.address_info", plain), f"{INFO}.express_type", 1)
    found = parse({**PAID, "msg": msg})
    assert (found.ship_to, found.tags) == (Address("李雷", "13800000020"), ("self-fetch",))
    assert order("full_order_info.address_info", plain).ship_to == Address("李雷", "13800000020", city="杭州市", detail="门店1号")
    assert order("full_order_info.address_info", {}).ship_to is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{INFO}.order_tags.is_preorder", True),
        ("full_order_info.orders.0.is_pre_sale", "1"),
        ("full_order_info.orders.0.is_pre_sale", True),
        (f"{MONEY}.phase_payments", [{"phase": 1}]),
    ],
)
def test_presale(path: str, value: Any) -> None:
    """Said in one of three places, in several spellings."""
    assert order(path, value).presale


def test_customs() -> None:
    """A code of a line, where it is one."""
    assert order("full_order_info.orders.0.customs_code", "94036099").customs == Customs({"2893000000000000124": "94036099"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{MONEY}.total_fee", "600.01"),
        (f"{MONEY}.payment", "553.21"),
        ("full_order_info.orders.0.total_fee", "398.01"),
        ("full_order_info.orders.0.payment", "367.21"),
        ("order_promotion.order_discount_fee", "46.79"),
    ],
)
def test_sums_that_contradict_each_other_are_tagged(path: str, value: str) -> None:
    """The order stands as stated, and says that its amounts do not add up."""
    assert order(path, value).tags == ("amounts-differ",)


def test_discounts_of_articles_add_up_in_either_reading() -> None:
    """`total_fee` before the articles' own discounts, as the documentation's example has it, or after them."""
    msg = change(change(MSG, "order_promotion.item_discount_fee", "20.00"), f"{MONEY}.total_fee", "620.00")
    found = parse({**PAID, "msg": msg})
    assert (found.tags, found.discounts[2]) == ((), Discount("item", 2_000))
    assert order("order_promotion.item_discount_fee", "20.00").tags == ()


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        (f"{INFO}.created", "2026-11-11", "bad-time", "full_order_info.order_info.created"),
        (f"{INFO}.created", "2026-11-11 25:00:00", "bad-time", "full_order_info.order_info.created"),
        (f"{MONEY}.payment", "-1.00", "bad-amount", "full_order_info.pay_info.payment"),
        (f"{MONEY}.payment", "1.001", "bad-amount", "full_order_info.pay_info.payment"),
        (f"{MONEY}.payment", "null", "bad-amount", "full_order_info.pay_info.payment"),
        ("full_order_info.orders", [], "no-lines", "full_order_info.orders"),
        ("full_order_info.orders.0", 5, "wrong-type", "full_order_info.orders[0]"),
        ("full_order_info.orders.0.num", 0, "bad-quantity", "full_order_info.orders[0].num"),
        ("full_order_info.orders.0.discount_price", "NaN", "bad-amount", "full_order_info.orders[0].discount_price"),
        ("full_order_info.orders.1.oid", "2893000000000000124", "duplicate-line", "full_order_info.orders[1].oid"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str, field: str) -> None:
    """A field that decides is right or the record is a reject with its place, under the order's id."""
    found = parse({**PAID, "msg": packed(json.dumps(change(MSG, path, value)).encode())})
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code, found.field) == (ID, code, field)


def test_the_version_orders_the_records() -> None:
    """It is the later of the two times where they differ; one that is no time, or that nobody has proved, is none."""
    assert order(version=1_794_330_007).updated_at == 1_794_330_007_001
    assert order(version="1794330007").updated_at == 1_794_330_007_001
    for nothing in (3, None, "x", -1, 10**30):
        assert order(version=nothing).updated_at == 1_794_330_004_001
    unproved = parse({**PAID, "version": 1_994_330_007}, verified=BY_MSG)
    assert unproved.updated_at == 1_794_330_004_001


def test_within_one_second_the_further_state_is_the_later() -> None:
    """Made and paid in one second: two records, and the paid one is in force."""
    made, closed = order(f"{INFO}.status", "WAIT_BUYER_PAY"), order(f"{INFO}.status", "TRADE_CLOSED")
    assert (made.updated_at or 0) < (order().updated_at or 0) < (closed.updated_at or 0)


# -- what only names an order ---------------------------------------------------------------------------------------------


def test_a_close_waits_for_its_detail_and_is_a_close() -> None:
    """Also where the detail comes from a replica that has not heard of it."""
    assert CHANNEL.thin(raw(CLOSE))
    assert CHANNEL.key("main", json.dumps(CLOSE).encode(), {}) == ID
    assert parse(CLOSE).code == "no-detail"
    found = parse(CLOSE, DETAIL)
    assert (found.order_id, found.status, found.updated_at) == (ID, "cancelled", 1_794_330_600_003)
    assert not CHANNEL.thin(raw(CLOSE, DETAIL))
    # the old signature covers what makes it a close
    assert parse(CLOSE, DETAIL, BY_MSG) == found


def test_a_memo_is_the_order_as_it_is_now() -> None:
    """Nothing of the push but the number and its time."""
    memo = {**CLOSE, "type": "trade_TradeMemoModified", "msg": {"tid": TID, "update_time": "2026-11-11 01:00:09"}}
    found = parse(memo, DETAIL)
    assert (found.status, found.updated_at) == ("paid", 1_794_330_009_001)
    for shape in (DETAIL["data"], {"response": DETAIL["data"]}):
        assert parse(memo, shape) == found


@pytest.mark.parametrize(
    ("kind", "verified", "status"),
    [
        ("youzan_trade_RefundCreated", BY_BODY, "refunding"),
        ("trade_refund_BuyerCreated", BY_BODY, "refunding"),
        ("trade_refund_RefundSellerAgree", BY_BODY, "refunding"),
        ("youzan_trade_RefundClosed", BY_BODY, "paid"),
        ("trade_refund_RefundClosed", BY_BODY, "paid"),
        ("youzan_trade_RefundClosed", BY_MSG, "refunding"),
        ("youzan_trade_RefundSuccess", BY_MSG, "refunding"),
    ],
)
def test_a_refund_under_way_is_the_order_s(kind: str, verified: str, status: str) -> None:
    """Whatever a detail still says; where the type is not proved, a refund is under way until the platform says otherwise."""
    push = {**REFUND, "type": kind}
    assert CHANNEL.thin(raw(push, verified=verified))
    assert parse(push, DETAIL, verified).status == status
    gone = change(DETAIL, f"data.{INFO}.refund_state", 12)
    assert parse(push, gone, verified).status == "refunded"


def test_a_refund_that_went_through_is_whole_in_itself() -> None:
    """Yuan, under the case's number; only where the signature covers that it went through."""
    assert not CHANNEL.thin(raw(REFUND))
    found = Refund(ID, "202611110100000001230001", 36_720, "CNY", 1_794_416_400_000)
    assert parse(REFUND) == found
    old = {**REFUND, "type": "trade_refund_RefundSuccess", "msg": packed(json.dumps(REFUND["msg"]).encode())}
    assert parse(old) == found
    assert parse(change(REFUND, "msg.update_time", ...)) == found
    assert isinstance(parse(change(REFUND, "msg.refunded_fee", "0.00")), Skip)
    for path, value, code in (
        ("msg.refund_id", "null", "missing-field"),
        ("msg.refunded_fee", "1.001", "bad-amount"),
        ("msg.refunded_fee", None, "bad-amount"),
        ("msg.tid", "", "bad-order-id"),
    ):
        assert parse(change(REFUND, path, value)).code == code


def test_a_detail_of_another_order_is_none() -> None:
    """Nor is a refusal of the platform."""
    assert parse(CLOSE, change(DETAIL, f"data.{INFO}.tid", "E20261111003000000000999")).code == "wrong-detail"
    for refusal in ({"gw_err_resp": {"err_code": 4203}}, {"code": 5000, "data": {"full_order_info": None}}, [], "x"):
        assert parse(CLOSE, refusal).code == "no-detail"


@pytest.mark.parametrize(
    ("push", "kind"),
    [
        ({**PAID, "test": True}, Skip),
        ({**PAID, "type": "item_ItemInfo"}, Skip),
        ({**PAID, "type": None}, Skip),
        ({**PAID, "type": "trade_" + "x" * 500, "msg": {}}, Rejected),
        ({**PAID, "msg": None}, Rejected),
        ({**PAID, "msg": "%7B"}, Rejected),
        ({**PAID, "msg": "%ff"}, Rejected),
        ({**PAID, "msg": {"tid": "a b"}}, Rejected),
        ([], Rejected),
        (b"\xff", Rejected),
    ],
)
def test_what_asks_for_nothing_waits_for_nothing(push: Any, kind: type) -> None:
    """A push that names no order, or none of ours, never waits for a detail that nobody could fetch."""
    found = parse(push)
    assert isinstance(found, kind)
    assert " · " in found.reason
    assert len(found.reason) < 300
    assert not CHANNEL.thin(raw(push))


def test_what_we_write_ourselves_reads_like_theirs() -> None:
    """The push that stands for an order of the platform's list."""
    body = changed(TID, 1_794_330_009_000)
    assert CHANNEL.key("main", body, {}) == ID
    assert CHANNEL.thin(raw(body))
    assert parse(body, DETAIL["data"], "poll").updated_at == 1_794_330_009_001


def test_nothing_but_escapes_is_refused() -> None:
    """More than an order of a hundred lines has, read at each step of its way."""
    assert parse({**PAID, "msg": "%41" * (MAX_ESCAPES + 1)}).code == "too-many-values"
    assert CHANNEL.key("main", json.dumps({**PAID, "msg": "%41" * (MAX_ESCAPES + 1)}).encode(), {}) is None


# -- proof ---------------------------------------------------------------------------------------------------------------

SECRETS = (b"9a0exampleclient:new-secret", b"9a0exampleclient:old-secret")
BODY = (FIXTURES / "youzan-paid.json").read_bytes()


def proved(body: bytes, headers: dict[str, str], secrets: tuple[bytes, ...] = SECRETS) -> Proved:
    return CHANNEL.verify(Push(body, {name.lower(): value for name, value in headers.items()}), secrets, 0)


def old_form(secret: bytes = SECRETS[0], **more: Any) -> bytes:
    """A push that is only signed as they were in 2018."""
    return json.dumps({**PAID, **more, "sign": sign_msg(PAID["msg"], secret)}).encode()


def test_either_secret_proves_the_sender_over_the_raw_bytes() -> None:
    """The bytes as sent: the same JSON written otherwise is another push."""
    for secret in SECRETS:
        assert proved(BODY, sign(BODY, secret)) == Proved(BY_BODY, (BODY,))
        with pytest.raises(Refused, match="bad-signature"):
            proved(json.dumps(json.loads(BODY)).encode(), sign(BODY, secret))
        with pytest.raises(Refused, match="bad-signature"):
            proved(BODY, sign(BODY, secret), (b"9a0exampleclient:another", b"other:new-secret"))


def test_vectors_of_our_own() -> None:
    """As `printf 'c{}s' | md5sum` and `printf 'c%%7B%%7Ds' | md5sum` print them: the old form signs the escapes, not the text."""
    secret = (b"c:s",)
    assert proved(b"{}", {"Event-Sign": "ebb8250f9fbc45bec01727b85a9d0307"}, secret).how == BY_BODY
    old = json.dumps({"msg": "%7B%7D", "sign": "227eac21de2d851bae1d0f3ed0a340ec"}).encode()
    assert proved(old, {}, secret).how == BY_MSG


def test_the_old_form_covers_msg_alone() -> None:
    """Either secret; another type, state or version beside it goes through, and therefore decides nothing."""
    for secret in SECRETS:
        assert proved(old_form(secret), {}).how == BY_MSG
    forged = old_form(type="trade_TradeClose", status="TRADE_CLOSED", version=1_994_330_007, id="E1")
    assert proved(forged, {}).how == BY_MSG
    assert parse(forged, verified=BY_MSG) == parse(PAID, verified=BY_MSG)
    assert CHANNEL.key("main", forged, {}) == ID
    with pytest.raises(Refused, match="bad-signature"):
        proved(json.dumps({**json.loads(old_form()), "msg": PAID["msg"] + "+"}).encode(), {})


def test_a_wrong_header_is_not_made_good_by_the_old_form() -> None:
    """Who has the new signature is held to it."""
    with pytest.raises(Refused, match="bad-signature"):
        proved(old_form(), {"Event-Sign": "0" * 32})
    with pytest.raises(Refused, match="unsigned"):
        proved(old_form(), {"Event-Sign": ""})


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of body or signature, changed."""
    headers = sign(BODY, SECRETS[1])
    digest, body = bytearray(bytes.fromhex(headers["Event-Sign"])), bytearray(BODY)
    part = data.draw(st.sampled_from([digest, body]))
    at = data.draw(st.integers(0, len(part) * 8 - 1))
    part[at // 8] ^= 1 << at % 8
    with pytest.raises(Refused, match="bad-signature"):
        proved(bytes(body), {**headers, "Event-Sign": digest.hex()})


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_of_the_old_form_changes_nothing_that_is_signed(data: st.DataObject) -> None:
    """It is refused, or the order is the same order, or there is none at all."""
    body = bytearray(old_form())
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    body[at // 8] ^= 1 << at % 8
    try:
        found = proved(bytes(body), {})
    except Refused:
        return
    if found.bodies:
        read = parse(found.bodies[0], verified=found.how)
        assert read == parse(PAID, verified=BY_MSG) or isinstance(read, Skip | Rejected)
        assert CHANNEL.key("main", bytes(body), {}) in {ID, None}


@pytest.mark.parametrize("value", ["0" * 31, "0" * 33, "0" * 31 + "é", "0" * 31 + "٣", " " + "0" * 31])
def test_what_is_no_digest_is_refused(value: str) -> None:
    """32 hex digits, or it is no signature, wherever it stands."""
    for body, headers in ((BODY, {"event-sign": value}), (json.dumps({**PAID, "sign": value}).encode(), {})):
        with pytest.raises(Refused, match="unsigned"):
            proved(body, headers)
    for odd in (b"", b"[]", b"{", b"\xff", json.dumps({**PAID, "sign": 5}).encode()):
        with pytest.raises(Refused, match="unsigned"):
            proved(odd, {})


@pytest.mark.parametrize("secret", [b"", b"x", b":x", b"x:", b":"])
def test_a_malformed_secret_is_none(secret: bytes) -> None:
    """It proves nobody, and spoils nothing beside it."""
    with pytest.raises(Refused, match="unusable-secret"):
        proved(BODY, sign(BODY, SECRETS[0]), (secret,))
    assert proved(BODY, sign(BODY, SECRETS[0]), (secret, SECRETS[0])).how == BY_BODY


def test_a_test_push_carries_nothing() -> None:
    """Answered like any other, in the platform's words."""
    for said in (True, "true", 1):
        ping = json.dumps({**PAID, "test": said}).encode()
        assert proved(ping, sign(ping, SECRETS[0])).bodies == ()
    assert CHANNEL.accepted.body == b'{"code":0,"msg":"success"}'
    real = json.dumps({**PAID, "test": "false"}).encode()
    assert proved(real, sign(real, SECRETS[0])).bodies == (real,)


# -- samples, and whatever else may come -----------------------------------------------------------------------------------


@needs_samples
def test_published_samples() -> None:
    """A trade.get of 2019, field by field: as a push's detail, and as the fat push that it would have been."""
    answer = (SAMPLES / "youzan-4.json").read_bytes()
    number = "E20190326101702000600011"
    for found in (
        parse(changed(number, 1_553_567_396_000), answer),
        parse({"type": "trade_TradeClose", "msg": packed(json.dumps(json.loads(answer)["data"]).encode())}),
    ):
        assert isinstance(found, Order)
        assert (found.order_id, found.status, found.tags) == (f"youzan:main:{number}", "refunded", ())
        assert (found.created_at, found.updated_at, found.total) == (1_553_566_622_000, 1_553_567_396_003, 100)
        assert [(line.id, line.code, line.quantity, line.price, line.discount, line.gift) for line in found.lines] == [
            ("1507387350277163963", "8002", 2, 30, 10, False),
            ("1507387350277163964", "8001", 3, 20, 10, False),
        ]
        assert found.discounts == (Discount("meetReduce", 20),)
        assert (found.buyer.id, found.buyer.phone, found.payment.method) == ("1000000001", "13800000000", "weixin_daixiao")
        assert found.ship_to is not None
        assert (found.ship_to.province, found.ship_to.district, found.ship_to.detail, found.ship_to.postcode) == (
            "四川省", "高新区", "成都天府软件园", None,
        )  # fmt: skip
        assert (found.ship_to.lat, found.ship_to.lon) == (30.55420680074888, 104.07857367314094)
        assert (found.presale, found.remark, found.customs) == (False, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FULL = MSG["full_order_info"]
PATHS = ["full_order_info", "order_promotion", *(f"full_order_info.{name}" for name in FULL),
         *(f"full_order_info.{part}.{name}" for part in ("order_info", "pay_info", "buyer_info", "address_info", "remark_info")
           for name in FULL[part]),
         "full_order_info.orders.0", *(f"full_order_info.orders.0.{name}" for name in FULL["orders"][0]),
         *(f"order_promotion.{name}" for name in MSG["order_promotion"]), "order_promotion.order.1.discount_fee",
         "order_promotion.order.1.coupon_id", "order_promotion.order.1.promotion_type"]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field, the answer is a value, and an order has its key."""
    body = json.dumps({**PAID, "msg": change(MSG, path, value)}).encode()
    found = parse(body)
    assert isinstance(found, Order | Rejected)
    key = CHANNEL.key("main", body, {})
    if isinstance(found, Order) or CHANNEL.thin(raw(body)):
        assert key is not None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*REFUND, *(f"msg.{name}" for name in REFUND["msg"])]), JSON, st.sampled_from([BY_BODY, BY_MSG]))
def test_no_value_in_a_refund_makes_anything_raise(path: str, value: Any, verified: str) -> None:
    """The same for refunds, in both forms and with a detail."""
    push = change(REFUND, path, value)
    for detail in (None, DETAIL):
        assert isinstance(parse(push, detail, verified), Order | Refund | Rejected | Skip)
    if CHANNEL.thin(raw(push, verified=verified)):
        assert CHANNEL.key("main", json.dumps(push).encode(), {}) is not None
