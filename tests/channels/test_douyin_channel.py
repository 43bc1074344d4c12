"""The Douyin channel: proved over the bytes of a push, a record a message, the order from its detail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Proved, Push, Refused
from orderstream.channels.douyin import CHANNEL, MAX_MESSAGES, changed, sign
from orderstream.orders import Address, Discount, Order, Raw, Refund, Rejected, Skip

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLES = Path(os.environ.get("ORDERSTREAM_SAMPLES") or Path(__file__).parents[3] / "shared" / "channels" / "samples")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the collected samples are not here")

RECEIVED = 1_794_330_010_000
NUMBER = "4900000000000000123"
PAID = json.loads((FIXTURES / "douyin-paid.json").read_text("utf-8"))
DETAIL = json.loads((FIXTURES / "douyin-paid.detail.json").read_text("utf-8"))
REFUND = json.loads((FIXTURES / "douyin-refund.json").read_text("utf-8"))
ORDER = DETAIL["data"]["shop_order_detail"]


def parse(message: Any, detail: Any = None, *, received: int = RECEIVED) -> Any:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    answer = detail if isinstance(detail, bytes | None) else json.dumps(detail).encode()
    return CHANNEL.parse(Raw("douyin", "main", received, body, detail=answer))


def order(detail: Any, message: Any = PAID) -> Order:
    """The order of a `shop_order_detail`."""
    found = parse(message, {"code": 10000, "data": {"shop_order_detail": detail}})
    assert isinstance(found, Order), found
    return found


def told(tag: int, **data: Any) -> dict[str, Any]:
    """A message of an order."""
    return {"tag": tag, "msg_id": f"x::{tag}:1794330003:1", "data": {"p_id": NUMBER, **data}}


def test_a_whole_order() -> None:
    """Every field that we use, out of a detail whose scalars are half text, half number."""
    found = parse(PAID, DETAIL)
    assert isinstance(found, Order)
    assert (found.order_id, found.revision, found.status, found.tags) == (f"douyin:main:{NUMBER}", None, "paid", ())
    assert (found.created_at, found.updated_at, found.ship_by) == (1_794_330_000_000, 1_794_330_004_001, 1_794_502_803_000)
    assert (found.currency, found.total, found.presale, found.hold, found.remark) == ("CNY", 55_320, False, None, "放门口")
    rack, chair, cloth = found.lines
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.discount, rack.gift) == (
        "4900000000000000124", "dy10188", 2, 19_900, 3_580, False,
    )  # fmt: skip
    assert (rack.title, rack.spec) == ("多功能收纳架", {"颜色": "原木色", "尺寸": "三层"})
    assert (chair.code, chair.price, chair.discount, chair.gift) == ("sku:1719024557525050", 20_100, 2_000, None)
    assert (cloth.code, cloth.price, cloth.gift) == ("dy13388", 0, True)
    assert found.discounts == (
        Discount("coupon", 2_500), Discount("campaign", 2_500), Discount("redpack", 80), Discount("price-change", 500),
    )  # fmt: skip
    assert (found.buyer.id, found.buyer.ip, found.buyer.device) == (ORDER["doudian_open_id"], None, None)
    assert found.keys == {"open_address_id": ORDER["open_address_id"]}
    assert (found.payment.id, found.payment.method) == (None, "alipay")
    assert found.ship_to == Address("李*", "1********20", None, "浙江省", "杭州市", "西湖区", "翠苑街道文*路***号")


def test_text_or_number_is_the_same_order() -> None:
    """Which scalars come as text differs from answer to answer and changes nothing."""

    def as_(kind: type, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_(kind, one) for name, one in value.items()}
        if isinstance(value, list):
            return [as_(kind, one) for one in value]
        if isinstance(value, int) and kind is str:
            return str(value)
        return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() and kind is int else value

    assert order(as_(str, ORDER)) == order(as_(int, ORDER)) == order(ORDER)


def test_a_plain_receiver_is_kept() -> None:
    """Where the shop may read it: the text itself; where there is neither text nor mask: nothing."""
    plain = {"encrypt_post_receiver": "李雷", "encrypt_post_tel": "13800000020", "post_addr": {"encrypt_detail": "文一路1号"}}
    found = order({**ORDER, **plain, "mask_post_addr": None}).ship_to
    assert found == Address("李雷", "13800000020", detail="文一路1号")
    sealed = order({**ORDER, "mask_post_receiver": ORDER["encrypt_post_receiver"]}).ship_to
    assert sealed is not None
    assert sealed.name is None
    bare = {name: value for name, value in ORDER.items() if not name.startswith("mask_")}
    assert order(bare).ship_to == Address(province="浙江省", city="杭州市", district="西湖区")
    assert order({**bare, "post_addr": None, "encrypt_post_receiver": "", "encrypt_post_tel": None}).ship_to is None


@pytest.mark.parametrize(
    ("stated", "main", "status"),
    [
        (1, 1, "created"),
        (105, 105, "paid"),
        (2, 2, "paid"),
        ("101", "101", "paid"),
        (3, 3, "paid"),
        (5, 5, "paid"),
        (4, 4, "cancelled"),
        (2, 103, "created"),
        (4, 21, "cancelled"),
        (3, 21, "refunded"),
        (5, "39", "refunded"),
        ("", 2, "paid"),
    ],
)
def test_status(stated: Any, main: Any, status: str) -> None:
    """What `order_status` says, and what only `main_status` can."""
    found = order({**ORDER, "order_status": stated, "main_status": main})
    assert (found.status, found.tags) == (status, ())


@pytest.mark.parametrize("new", [77, "x", None, True])
def test_an_unknown_status_waits_and_says_so(new: Any) -> None:
    """A status that the platform invents tomorrow is not paid."""
    found = order({**ORDER, "order_status": new, "main_status": new})
    assert (found.status, found.tags) == ("created", ("status-unknown",))


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ({"after_sale_status": "6", "after_sale_type": 2}, {}, "refunding"),
        ({"after_sale_status": 7, "after_sale_type": "0"}, {}, "refunding"),
        ({"after_sale_status": 99, "after_sale_type": 1}, {}, "refunding"),
        ({"after_sale_status": 13, "after_sale_type": 3}, {}, "paid"),
        ({"after_sale_status": 27}, {"after_sale_status": 28}, "paid"),
        ({"after_sale_status": 0}, {"after_sale_status": ""}, "paid"),
        ({"after_sale_status": 12, "refund_status": 3}, {}, "refunding"),
        ({"after_sale_status": 12, "refund_status": "3"}, {"after_sale_status": 12, "refund_status": 3}, "refunded"),
    ],
)
def test_an_aftersale_of_a_line_is_the_order_s(first: dict[str, Any], second: dict[str, Any], status: str) -> None:
    """An open one, or one line's money back, waits for a person; all bought lines' money back ends the order."""
    asked = change(change(ORDER, "sku_order_list.0.after_sale_info", first), "sku_order_list.1.after_sale_info", second)
    assert order(asked).status == status


def test_cancelled_lines_are_gone() -> None:
    """A line that was cancelled alone leaves the order; when all are, the order is."""
    one = order(change(ORDER, "sku_order_list.1.order_status", "4"))
    assert ([line.code for line in one.lines], one.status, one.tags) == (["dy10188", "dy13388"], "paid", ("lines-removed",))
    rows = [{**row, "order_status": 4} for row in ORDER["sku_order_list"]]
    assert (order({**ORDER, "sku_order_list": rows}).status, len(order({**ORDER, "sku_order_list": rows}).lines)) == (
        "cancelled",
        3,
    )


def test_presale() -> None:
    """Phases, or a line's own mark; a deposit that is paid is not an order that is."""
    assert order({**ORDER, "order_phase_list": [{"total_phase": "2", "pay_success": "true"}]}).presale
    assert order(change(ORDER, "sku_order_list.0.pre_sale_type", "1")).presale
    deposit = order({**ORDER, "main_status": 103, "order_phase_list": [{"total_phase": 2}]})
    assert (deposit.presale, deposit.status) == (True, "created")
    late = {**ORDER, "exp_ship_time": 0, "appointment_ship_time": "1795000000"}
    assert order(late).ship_by == 1_795_000_000_000


def test_another_address_asked_for_holds_a_paid_order() -> None:
    """Until the next message; an order that is not paid waits anyway."""
    asked = told(111)
    assert order(ORDER, asked).hold
    assert order({**ORDER, "order_status": 1, "main_status": 1}, asked).hold is None
    assert order(ORDER, told(112)).hold is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("promotion_shop_amount", 3_001),
        ("total_promotion_amount", 5_281),
        ("post_origin_amount", 1_199),
        ("sku_order_list.0.sum_amount", 39_801),
        ("pay_amount", 56_000),
        ("pay_amount", 50_000),
        ("modify_amount", 2_000),
    ],
)
def test_sums_that_contradict_each_other_are_tagged(path: str, value: int) -> None:
    """The order stands as stated, and says that its amounts do not add up."""
    assert order(change(ORDER, path, value)).tags == ("amounts-differ",)


def test_cash_on_delivery_is_worth_what_is_owed() -> None:
    """Nothing is paid yet: 0 would say that the order costs nothing."""
    owed = order({**ORDER, "pay_type": 0, "pay_amount": 0, "order_amount": 55_320})
    assert (owed.total, owed.payment.method, owed.tags) == (55_320, "cod", ())
    assert order({**ORDER, "pay_type": 7, "pay_amount": 0}).total == 0


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"code": " A ", "sku_id": 1}, "A"),
        ({"code": "", "out_sku_id": "77", "sku_id": 1}, "77"),
        ({"out_sku_id": 0, "sku_id": 1, "product_id": 2}, "sku:1"),
        ({"sku_id": "0", "product_id": 2, "product_id_str": "22"}, "product:22"),
        ({}, None),
    ],
)
def test_a_line_s_code(row: dict[str, Any], code: str | None) -> None:
    """The shop's own, else the platform's variant, else its product; 0 is no code."""
    line = {"order_id": "1", "item_num": 1, "origin_amount": 55_320, **row}
    assert order({**ORDER, "sku_order_list": [line]}).lines[0].code == code


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        ("create_time", "2026-11-11", "bad-time", "detail.create_time"),
        ("create_time", 1_794_330_000_000_000, "bad-time", "detail.create_time"),
        ("pay_amount", "-1", "bad-amount", "detail.pay_amount"),
        ("pay_amount", 553.2, "bad-amount", "detail.pay_amount"),
        ("sku_order_list", [], "no-lines", "detail.sku_order_list"),
        ("sku_order_list.0", "x", "wrong-type", "detail.sku_order_list[0]"),
        ("sku_order_list.0.item_num", "0", "bad-quantity", "detail.sku_order_list[0].item_num"),
        ("sku_order_list.0.origin_amount", "NaN", "bad-amount", "detail.sku_order_list[0].origin_amount"),
        ("sku_order_list.1.order_id", "4900000000000000124", "duplicate-line", "detail.sku_order_list[1].order_id"),
        ("order_id", "4900000000000000999", "wrong-detail", "detail.order_id"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str, field: str) -> None:
    """A field that decides is right or the record is a reject with its place, under the order's id."""
    found = parse(PAID, {"data": {"shop_order_detail": change(ORDER, path, value)}})
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code, found.field) == (f"douyin:main:{NUMBER}", code, field)


def test_no_detail_is_a_reject_that_says_so() -> None:
    """Neither none nor the platform's refusal passes for an order."""
    assert parse(PAID).code == "no-detail"
    refused = parse(PAID, {"code": 40003, "sub_code": "isv.access-token-expired", "data": {}})
    assert (refused.code, "40003" in refused.reason) == ("no-detail", True)


def test_the_later_of_event_and_detail_orders_the_records() -> None:
    """An after-sale need not move the detail's own time; a time ahead of the push is nobody's."""
    asked = told(200, aftersale_id="7", apply_time=1_794_330_008)
    open_case = change(ORDER, "sku_order_list.0.after_sale_info", {"after_sale_status": 6, "after_sale_type": 2})
    before, after = order(ORDER), order(open_case, asked)
    assert before.updated_at is not None
    assert after.updated_at == 1_794_330_008_002
    closed = order(ORDER, told(207, close_time="1794330009"))
    assert closed.updated_at == 1_794_330_009_001
    wild = order(ORDER, told(200, apply_time=1_994_330_008))
    assert wild.updated_at == before.updated_at


def test_within_one_second_the_further_state_is_the_later() -> None:
    """Made and paid in one second: two records, and the paid one is in force."""
    made = order({**ORDER, "order_status": 1, "main_status": 1})
    assert (made.updated_at or 0) < (order(ORDER).updated_at or 0) < (order({**ORDER, "order_status": 4}).updated_at or 0)


def test_a_refund_that_went_through_is_whole_in_itself() -> None:
    """The amount with its freight, under the case's number; it waits for nothing."""
    raw = Raw("douyin", "main", RECEIVED, json.dumps(REFUND).encode())
    assert not CHANNEL.thin(raw)
    assert CHANNEL.parse(raw) == Refund(f"douyin:main:{NUMBER}", "7100000000000000001", 36_220, "CNY", 1_794_416_400_000)
    rfc = change(change(REFUND, "data.success_time", ...), "data.update_time", "2026-11-12T01:00:00+08:00")
    assert parse(rfc) == CHANNEL.parse(raw)
    assert isinstance(parse(change(REFUND, "data.refund_amount", 0)), Skip)
    for path, value, code in (
        ("data.aftersale_id", "", "missing-field"),
        ("data.refund_amount", "1.5", "bad-amount"),
        ("data.success_time", "soon", "bad-time"),
        ("data.p_id", None, "bad-order-id"),
    ):
        assert parse(change(REFUND, path, value)).code == code


@pytest.mark.parametrize("tag", [100, "101", 103, 106, 108, 109, 110, 111, 112, 113, 199, 200, 201, 202, 204, "207", 208, 217])
def test_every_other_message_of_an_order_waits_for_its_detail(tag: Any) -> None:
    """Also one whose tag is new."""
    for message in (told(tag), {"tag": tag, "msgId": "1", "data": json.dumps({"p_id": int(NUMBER)})}):
        raw = Raw("douyin", "main", RECEIVED, json.dumps(message).encode())
        assert CHANNEL.thin(raw)
        assert CHANNEL.key("main", raw.body, {}) == f"douyin:main:{NUMBER}"
        assert not CHANNEL.thin(Raw("douyin", "main", RECEIVED, raw.body, detail=b"{}"))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"tag": "0", "msg_id": "0", "data": "2021"}, Skip),
        ({"tag": 400, "data": {"product_id": 1}}, Skip),
        ({"tag": None, "data": {}}, Skip),
        ({"tag": "一百", "data": {}}, Skip),
        ({"tag": 100, "data": {"p_id": ""}}, Rejected),
        ({"tag": 100, "data": "no json"}, Rejected),
        ({"tag": 100, "data": [1]}, Rejected),
        ({"tag": 100}, Rejected),
        ([], Rejected),
        ([told(100), told(110)], Rejected),
        ("x", Rejected),
        (b"\xff", Rejected),
    ],
)
def test_what_asks_for_nothing_waits_for_nothing(message: Any, kind: type) -> None:
    """A message that names no order, or none of ours, never waits for a detail that nobody could fetch."""
    found = parse(message)
    assert isinstance(found, kind)
    assert " · " in found.reason
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    assert not CHANNEL.thin(Raw("douyin", "main", RECEIVED, body))


def test_what_we_write_ourselves_reads_like_theirs() -> None:
    """The message that stands for an order of the platform's list."""
    body = changed(NUMBER, 1_794_330_009_000)
    assert CHANNEL.key("main", body, {}) == f"douyin:main:{NUMBER}"
    assert CHANNEL.thin(Raw("douyin", "main", RECEIVED, body))
    assert parse(body, DETAIL).updated_at == 1_794_330_009_001


# -- proof ---------------------------------------------------------------------------------------------------------------

SECRETS = (b"7001:new-secret", b"7001:old-secret")
BODY = b'[{"tag": "110",  "msg_id":"1","data":"{\\"p_id\\":4900000000000000123}"} ,{"msgId":"2","tag":100,"data":{"p_id":5}}]'
METHODS = ("md5", "hmac-sha256")


def proved(body: bytes, headers: dict[str, str], secrets: tuple[bytes, ...] = SECRETS) -> Proved:
    return CHANNEL.verify(Push(body, {name.lower(): value for name, value in headers.items()}), secrets, 0)


@pytest.mark.parametrize("method", METHODS)
def test_either_secret_proves_the_sender_over_the_raw_bytes(method: str) -> None:
    """The bytes as sent: the same JSON written otherwise is another push."""
    for secret in SECRETS:
        headers = sign(BODY, secret, method)
        assert proved(BODY, headers).how == method
        with pytest.raises(Refused, match="bad-signature"):
            proved(json.dumps(json.loads(BODY)).encode(), headers)
        with pytest.raises(Refused, match="bad-signature"):
            proved(BODY, headers, (b"7001:another-shop's", b"7002:new-secret"))


def test_vectors_of_our_own() -> None:
    """As `printf 'k[]s' | md5sum` and `… | openssl dgst -sha256 -hmac s` print them; no method is MD5, and case does not matter."""
    body, secret = b"[]", (b"k:s",)
    plain = "0539ecd43d2e7c8acc87f20dfd98c916"
    keyed = "1b0d9c3ac7df2aa200824c9f1a241c0657ec040986b3035b02a691df81c65229"
    assert proved(body, {"event-sign": plain.upper()}, secret).how == "md5"
    assert proved(body, {"Event-Sign": keyed, "Sign-Method": "HMAC-SHA256"}, secret).how == "hmac-sha256"
    with pytest.raises(Refused, match="unsigned"):
        proved(body, {"event-sign": keyed, "sign-method": "md5"}, secret)


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of body or signature, changed."""
    method = data.draw(st.sampled_from(METHODS))
    headers = sign(BODY, SECRETS[1], method)
    digest, body = bytearray(bytes.fromhex(headers["event-sign"])), bytearray(BODY)
    part = data.draw(st.sampled_from([digest, body]))
    at = data.draw(st.integers(0, len(part) * 8 - 1))
    part[at // 8] ^= 1 << at % 8
    with pytest.raises(Refused, match="bad-signature"):
        proved(bytes(body), {**headers, "event-sign": digest.hex()})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"event-sign": ""},
        {"event-sign": "0" * 31},
        {"event-sign": "0" * 31 + "é"},
        {"event-sign": "0" * 31 + "٣"},
        {"event-sign": " " + "0" * 31},
        {"event-sign": "0" * 64},
        {"event-sign": "0" * 32, "sign-method": "hmac-sha256"},
        {"event-sign": "0" * 32, "sign-method": "none"},
    ],
)
def test_what_is_no_digest_is_refused(headers: dict[str, str]) -> None:
    """As long as its method's, in hex, or it is no signature."""
    with pytest.raises(Refused, match="unsigned"):
        proved(BODY, headers)


@pytest.mark.parametrize("secret", [b"", b"x", b":x", b"x:", b":"])
def test_a_malformed_secret_is_none(secret: bytes) -> None:
    """It proves nobody, and spoils nothing beside it."""
    with pytest.raises(Refused, match="unusable-secret"):
        proved(BODY, sign(BODY, SECRETS[0]), (secret,))
    assert proved(BODY, sign(BODY, SECRETS[0]), (secret, SECRETS[0])).how == "md5"


def carried(body: bytes) -> tuple[bytes, ...]:
    return proved(body, sign(body, SECRETS[0])).bodies


def test_each_message_is_kept_by_itself_as_it_came() -> None:
    """Their bytes, blanks and all; a lone object is one message; what is unreadable is kept whole."""
    first, second = carried(BODY)
    assert first == b'{"tag": "110",  "msg_id":"1","data":"{\\"p_id\\":4900000000000000123}"}'
    assert [CHANNEL.key("main", one, {}) for one in (first, second)] == [f"douyin:main:{NUMBER}", "douyin:main:5"]
    assert carried(first) == (first,)
    for odd in (b"", b"{", b'"x"', b"\xff\xff"):
        assert carried(odd) == (odd,)
    assert parse(b"[" + first + b"]", DETAIL) == parse(first, DETAIL)


def test_a_test_push_carries_nothing() -> None:
    """Answered like any other; beside a real message only that one is kept."""
    ping = b'{"tag":"0","msg_id":"0","data":"2021-01-01 00:00:00"}'
    assert carried(b"[" + ping + b"]") == carried(ping) == carried(b"[]") == ()
    assert carried(b"[" + ping + b',{"tag":0}, {"tag":110,"data":{"p_id":1}}]') == (b'{"tag":110,"data":{"p_id":1}}',)
    assert CHANNEL.accepted.body == b'{"code":0,"msg":"success"}'


def test_a_push_of_too_many_is_kept_whole() -> None:
    """And rejected with its reason, rather than a million records made of a megabyte."""
    many = json.dumps([told(100)] * (MAX_MESSAGES + 1)).encode()
    assert len(carried(json.dumps([told(100)] * MAX_MESSAGES).encode())) == MAX_MESSAGES
    assert carried(many) == (many,)
    assert parse(many).code == "too-many-values"


# -- samples, and whatever else may come -----------------------------------------------------------------------------------


@needs_samples
def test_published_samples() -> None:
    """The documentation's own examples: each message names its order, and the detail is read field by field."""
    for name, number in (("3", "12345"), ("4", "xxxxxxx"), ("5", "12345"), ("9", "4705288465508532862")):
        body = (SAMPLES / f"douyin-{name}.json").read_bytes()
        assert CHANNEL.key("main", body, {}) == f"douyin:main:{number}"
        assert CHANNEL.thin(Raw("douyin", "main", RECEIVED, body))
    number = "4781320682406083640"
    found = parse(changed(number, 0), (SAMPLES / "douyin-1.json").read_bytes())
    assert isinstance(found, Order)
    assert (found.status, found.total, found.presale, found.tags) == ("created", 500, True, ("amounts-differ",))
    assert (found.created_at, found.updated_at, found.ship_by) == (1_617_355_413_000, 1_617_355_413_000, 1_617_355_413_000)
    (line,) = found.lines
    assert (line.id, line.code, line.quantity, line.price, line.discount, line.gift) == (number, "ahgldjj", 2, 100, 1_010, True)
    assert (line.title, line.spec) == ("XX鞋子", {"颜色": "蓝"})
    assert found.discounts == (
        Discount("coupon", 300), Discount("campaign", 600), Discount("redpack", 200),
        Discount("price-change", 10), Discount("payment", 10),
    )  # fmt: skip
    assert found.ship_to == Address("张三", "12345678911", None, "北京市", "市辖区", "海淀区", "中关村街道丹棱街1号")
    assert found.buyer.id is not None
    assert (found.buyer.id[:4], found.payment.method, found.remark) == ("#zuL", "wechatpay", "要xxx")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ROW = ORDER["sku_order_list"][0]
PATHS = [*ORDER, *(f"sku_order_list.0.{name}" for name in ROW), "sku_order_list.0", "post_addr.city", "post_addr.city.name",
         "mask_post_addr.detail", "sku_order_list.0.after_sale_info.refund_status", "sku_order_list.0.spec.0.name",
         *(f"promotion_detail.{giver}" for giver in ORDER["promotion_detail"]),
         "promotion_detail.shop_discount_detail.coupon_info.0", "promotion_detail.shop_discount_detail.coupon_info.0.coupon_amount"]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field of a detail, the answer is a value."""
    found = parse(PAID, {"code": 10000, "data": {"shop_order_detail": change(ORDER, path, value)}})
    assert isinstance(found, Order | Rejected)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["tag", "msgId", "data", *(f"data.{name}" for name in REFUND["data"])]), JSON)
def test_no_value_in_a_message_makes_anything_raise(path: str, value: Any) -> None:
    """The same for messages; what names an order has its key, and what is thin has one, too."""
    body = json.dumps(change(REFUND, path, value)).encode()
    found = parse(body)
    assert isinstance(found, Refund | Rejected | Skip)
    raw = Raw("douyin", "main", RECEIVED, body)
    if isinstance(found, Refund) or CHANNEL.thin(raw):
        assert CHANNEL.key("main", body, {}) is not None
