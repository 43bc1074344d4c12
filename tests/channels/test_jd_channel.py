"""The JD channel: rows that are whole orders, and JD's many ways of saying nothing."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from orderstream.channels import Push, Refused
from orderstream.channels.jd import CHANNEL, PARENT, parents
from orderstream.orders import Discount, Order, Raw, Refund, Rejected, Replaced, Skip

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"jd-{name}.json").read_text("utf-8"))
    return found


ROW, REFUND = fixture("order"), fixture("refund")
NUMBER = "290000000001"


def raw(body: Any) -> Raw:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Raw("jd", "main", 1_794_326_420_000, text)


def parse(body: Any) -> Any:
    return CHANNEL.parse(raw(body))


def order(**values: Any) -> Order:
    found = parse({**ROW, **values})
    assert isinstance(found, Order), found
    return found


def items(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The row's lines, each with its changes."""
    return [{**line, **more} for line, more in zip(copy.deepcopy(ROW["itemInfoList"]), changes, strict=True)]


def test_a_whole_order() -> None:
    """Every field that we use."""
    found = order()
    assert (found.order_id, found.number, found.revision, found.status) == (
        f"jd:main:{NUMBER}",
        NUMBER,
        None,
        "paid",
    )
    assert (found.created_at, found.updated_at) == (1_794_326_401_000, 1_794_326_416_001)
    assert (found.currency, found.total, found.tags) == ("CNY", 41_100, ("receiver-encrypted",))
    rack, hook = found.lines
    # 20 off by name, and of the shop's other 21 its part by price: 21 × 378 ÷ 437
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.discount) == (
        "1012_testuuid0001",
        "tb-981",
        2,
        19_900,
        2_000 + 1_816,
    )
    assert (hook.id, hook.code, hook.quantity, hook.price, hook.discount) == (
        "10050000000002-2", "sku:10050000000002", 1, 5_900, 284,
    )  # fmt: skip
    assert (rack.title, rack.gift) == ("测试置物架 原木色 大号", None)
    assert found.discounts == (Discount("promotion", 2_000), Discount("promotion", 2_100), Discount("coupon", 500))
    assert (found.buyer.id, found.buyer.ip, found.buyer.device) == ("oTestOpenIdBuyer0001", None, None)
    assert (found.payment.id, found.payment.method) == (None, "online")
    assert found.keys == {
        "oaid": "jdTestOaid0001",
        "desen_mobile": "656233eb0000000000000000000000000001",
        "desen_telephone": "656233eb0000000000000000000000000001",
    }
    assert found.ship_to is not None
    assert (found.ship_to.name, found.ship_to.phone, found.ship_to.detail) == (None, "136*******5", None)
    assert (found.ship_to.province, found.ship_to.city, found.ship_to.district) == ("浙江", "杭州市", "西湖区")
    assert (found.hold, found.remark) == (None, "请送货前电话")


@pytest.mark.parametrize(
    "body",
    [
        {"orderId": NUMBER, "state": "WAIT_SELLER_STOCK_OUT", "responseJson": json.dumps(ROW)},
        {"jingdong_pop_order_get_responce": {"code": "0", "orderDetailInfo": {"apiResult": {}, "orderInfo": ROW}}},
        {**ROW, "orderId": int(NUMBER)},
        {
            **ROW,
            "couponDetailList": [one for many in ROW["couponDetailList"] for one in (many if isinstance(many, list) else [many])],
        },
    ],
)
def test_every_wrapping_is_the_same_order(body: Any) -> None:
    """A row of the database, an answer about one order, a number as a number, coupons in lists of lists or flat."""
    assert parse(body) == order()
    assert CHANNEL.key("main", raw(body).body, {}) == f"jd:main:{NUMBER}"
    assert not CHANNEL.thin(raw(body))


@pytest.mark.parametrize("name", ["vatInfo", "consigneeInfo", "couponDetailList", "sendpayMap", "openIdBuyer", "open_id_buyer", "pin",
                                  "orderRemark", "payType", "parentOrderId", "invoiceEasyInfo", "outBoundDate", "dataVersion"])  # fmt: skip
@pytest.mark.parametrize("nothing", [[], {}, "", "null", None])
def test_four_kinds_of_nothing(name: str, nothing: Any) -> None:
    """[] where an object is expected, and whatever else stands for nothing, is nothing."""
    assert order(**{name: nothing}).order_id == f"jd:main:{NUMBER}"


@pytest.mark.parametrize("never", ["0001-01-01 00:00:00", "1970-01-01 00:00:00", "", None, []])
def test_years_that_stand_for_no_time(never: Any) -> None:
    """A time that never was is absent, and where a time is needed it is missing."""
    found = order(modified=never, dataVersion=None)
    assert (found.updated_at, found.revision) == (None, None)
    assert parse({**ROW, "orderStartTime": never}).code == "bad-time"


@pytest.mark.parametrize(
    ("state", "status", "held"),
    [
        ("NOT_PAY", "created", False),
        ("WAIT_SELLER_STOCK_OUT", "paid", False),
        ("WAIT_SELLER_DELIVERY", "paid", False),
        ("WAIT_GOODS_RECEIVE_CONFIRM", "paid", False),
        ("FINISHED_L", "paid", False),
        ("PAUSE", "paid", True),
        ("POP_ORDER_PAUSE", "paid", True),
        ("LOCKED", "paid", True),
        ("DELIVERY_RETURN", "refunding", False),
        ("TRADE_CANCELED", "cancelled", False),
    ],
)
def test_status(state: str, status: str, held: bool) -> None:
    """JD's words; locked and paused orders are paid and must not ship."""
    found = order(orderState=state)
    assert (found.status, found.hold is not None, "status-unknown" in found.tags) == (status, held, False)


@pytest.mark.parametrize("state", [None, "", "ON_MARS", 3])
def test_an_unknown_status_waits_and_says_so(state: Any) -> None:
    """What JD invents tomorrow is not paid."""
    found = order(orderState=state)
    assert (found.status, "status-unknown" in found.tags) == ("created", True)


def test_a_child_stands_in_its_parents_place() -> None:
    """A row with a parent is an order of its own, and told for the parent it is that one's end; for anybody else it is a reject."""
    child = {**ROW, "parentOrderId": "290000000090", "directParentOrderId": 290000000091}
    assert order(**child).tags == ("split", "receiver-encrypted")
    assert parents(raw(child).body) == ["290000000091", "290000000090"]
    assert parents(raw(ROW).body) == parents(raw({**ROW, "parentOrderId": NUMBER}).body) == parents(b"nothing") == []
    told = structs.replace(raw(child), headers={PARENT: "290000000090"})
    assert CHANNEL.key("main", told.body, told.headers) == "jd:main:290000000090"
    assert CHANNEL.parse(told) == Replaced("jd:main:290000000090", f"jd:main:{NUMBER}")
    strange = CHANNEL.parse(structs.replace(told, headers={PARENT: "5"}))
    assert isinstance(strange, Rejected)
    assert (strange.order_id, strange.code) == ("jd:main:5", "not-its-child")


def test_the_revision() -> None:
    """With dataVersion or without one clock: `modified`, and within a second the later state is the later, or what dataVersion is finer."""
    for version in ("1794326416000", None):
        states = ("NOT_PAY", "WAIT_SELLER_STOCK_OUT", "TRADE_CANCELED")
        made, paid, gone = (order(orderState=state, dataVersion=version) for state in states)
        assert (made.revision, paid.revision, gone.revision) == (None, None, None)
        assert (made.updated_at, paid.updated_at, gone.updated_at) == (1_794_326_416_000, 1_794_326_416_001, 1_794_326_416_003)
    assert order(dataVersion="1794326416250").updated_at == 1_794_326_416_250
    # what is no time is a number of its own
    assert order(dataVersion=17).revision == 17
    assert parse({**ROW, "dataVersion": "x"}).field == "dataVersion"


@pytest.mark.parametrize(("given", "method"), [("4-在线支付", "online"), ("1-货到付款", "cod"), ("2-邮局汇款", "post-remittance"), ("3", "pickup"),
                                               ("5-公司转账", "company-transfer"), ("6-银行卡转账", "bank-card"), ("7-新", "7"), ("", None), (4, "online")])  # fmt: skip
def test_pay_types(given: Any, method: str | None) -> None:
    """The number before the dash."""
    assert order(payType=given).payment.method == method


def test_a_split_order_s_child_and_a_replacement() -> None:
    """Children are orders of their own that name their parent; 0 and itself are no parent."""
    assert "split" in order(parentOrderId="245000000001", directParentOrderId="245000000001").tags
    for parent in ("0", 0, "", NUMBER):
        assert "split" not in order(parentOrderId=parent, directParentOrderId=parent).tags
    assert "after-sales" in order(returnOrder="2").tags
    assert "after-sales" not in order(returnOrder=0).tags


@pytest.mark.parametrize(
    ("values", "buyer"),
    [
        ({}, "oTestOpenIdBuyer0001"),
        ({"openIdBuyer": "oNewer"}, "oNewer"),
        ({"open_id_buyer": None}, "o*TestXid"),
        ({"open_id_buyer": None, "xidBuyer": None}, None),
        ({"open_id_buyer": None, "xidBuyer": None, "pin": "jd_real"}, "jd_real"),
    ],
)
def test_the_buyer(values: dict[str, Any], buyer: str | None) -> None:
    """JD's open id, its xid, the account's name where it is shown; a masked name is nobody."""
    assert order(**values).buyer.id == buyer


def test_ciphertext_is_no_name_and_no_address() -> None:
    """What is encrypted is left out and tagged; what is plain or masked is kept for people to read."""
    consignee = {**ROW["consigneeInfo"], "fullname": "张**", "fullAddress": "浙江杭州市西湖区文三路1号"}
    found = order(consigneeInfo=consignee)
    assert found.ship_to is not None
    assert (found.ship_to.name, found.ship_to.detail, found.tags) == ("张**", "浙江杭州市西湖区文三路1号", ())


@pytest.mark.parametrize(
    ("values", "code"),
    [({}, "sku:10050000000002"), ({"productNo": "HOOK"}, "HOOK"), ({"productNo": "HOOK", "outerSkuId": "H-1"}, "H-1"),
     ({"skuId": ""}, "ware:10020000000002"), ({"skuId": "", "wareId": None}, None)],
)  # fmt: skip
def test_a_line_s_code(values: dict[str, Any], code: str | None) -> None:
    """The shop's own code, its article number, JD's number of either."""
    assert order(itemInfoList=items({}, values)).lines[1].code == code


@pytest.mark.parametrize(
    ("values", "differ"),
    [
        ({}, False),
        ({"orderTotalPrice": "457.01"}, True),
        ({"orderSellerPrice": "416.01"}, True),
        ({"orderTotalPrice": ""}, False),
    ],
)
def test_amounts_that_do_not_add_up_are_kept_and_tagged(values: dict[str, Any], differ: bool) -> None:
    """orderSellerPrice = orderTotalPrice − sellerDiscount, and the lines are the total; nothing is corrected."""
    assert ("amounts-differ" in order(**values).tags) == differ


def test_totals_of_newer_rows() -> None:
    """orderPayment, else shouldPay, else what the seller gets and the freight."""
    assert order(orderPayment=None, shouldPay="400.00").total == 40_000
    assert order(orderPayment=None, freightPrice="6.00").total == 42_200


def test_without_a_seller_s_discount_the_lines_say_nothing() -> None:
    """An absent sellerDiscount is not 0."""
    assert [line.discount for line in order(sellerDiscount=None).lines] == [None, None]
    assert [line.discount for line in order(sellerDiscount="0.00", couponDetailList=[]).lines] == [0, 0]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30_000), st.integers(1, 9), st.integers(0, 3), st.integers(0, 40_000)), min_size=1, max_size=6
    ),
    st.integers(0, 100),
)
def test_what_comes_off_the_lines_is_the_seller_s_discount(drawn: list[tuple[int, int, int, int]], percent: int) -> None:
    """Whatever is named for which SKU, some of it JD's own money: to the fen, and no line below zero."""

    def yuan(fen: int) -> str:
        return f"{fen // 100}.{fen % 100:02d}"

    made = [{"skuId": str(sku + 1), "itemTotal": str(num), "jdPrice": yuan(price), "itemExt": ""} for price, num, sku, _ in drawn]
    coupons = [{"skuId": str(sku + 1), "couponType": "30-单品促销优惠", "couponPrice": yuan(off)} for _, _, sku, off in drawn]
    whole = sum(price * num for price, num, _, _ in drawn) * percent // 100
    found = order(itemInfoList=made, couponDetailList=coupons, sellerDiscount=yuan(whole))
    assert sum(line.discount or 0 for line in found.lines) == whole
    assert all(0 <= (line.discount or 0) <= line.price * line.quantity for line in found.lines)


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        ("orderId", None, "bad-order-id", "orderId"),
        ("orderId", "x", "bad-order-id", "orderId"),
        ("orderPayment", "1e5", "bad-amount", "orderPayment"),
        ("orderStartTime", "yesterday", "bad-time", "orderStartTime"),
        ("itemInfoList", [], "no-lines", "itemInfoList"),
        ("itemInfoList.0", 5, "wrong-type", "itemInfoList[0]"),
        ("itemInfoList.0.jdPrice", "NaN", "bad-amount", "itemInfoList[0].jdPrice"),
        ("itemInfoList.0.itemTotal", "0", "bad-quantity", "itemInfoList[0].itemTotal"),
        ("itemInfoList.1.itemExt", '{"skuUuid":"1012_testuuid0001"}', "duplicate-line", "itemInfoList[1].itemExt"),
        ("sellerDiscount", "-1.00", "bad-amount", "sellerDiscount"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str, field: str) -> None:
    """A field that decides is right or the record is a reject with its place."""
    found = parse(change(ROW, path, value))
    assert isinstance(found, Rejected)
    assert (found.code, found.field) == (code, field)


def test_a_refund_is_in_fen() -> None:
    """Money that is back, of the order that it belongs to."""
    found = parse(REFUND)
    assert found == Refund(f"jd:main:{NUMBER}", "9800000001", 5_600, "CNY", 1_794_447_000_000)
    assert CHANNEL.key("main", raw(REFUND).body, {}) == found.order_id
    assert parse({**REFUND, "checkTime": "0001-01-01 00:00:00"}).at == 1_794_445_200_000


@pytest.mark.parametrize("status", [0, 1, 2, 4, 5, 6, 11, None, "x"])
def test_a_refund_that_has_moved_no_money_is_a_skip(status: Any) -> None:
    """Asked for, agreed to, refused: the order says itself that it is locked."""
    assert isinstance(parse({**REFUND, "status": status}), Skip)


@pytest.mark.parametrize(
    ("name", "value"), [("applyRefundSum", "56.00"), ("applyRefundSum", -1), ("id", None), ("applyTime", "x")]
)
def test_a_refund_is_read_exactly(name: str, value: Any) -> None:
    """56.00 yuan is not 5600 fen: whatever is no whole number is no amount."""
    found = parse({**REFUND, "checkTime": "", name: value})
    assert isinstance(found, Rejected)
    assert found.field == name


@pytest.mark.parametrize(
    "push", [Push(b""), Push(json.dumps(ROW).encode(), {"sign": "x"}, {"sign": "x"}), Push(b"", method="GET")]
)
def test_nobody_pushes(push: Push) -> None:
    """JD proves no sender, so nothing that comes over HTTP is JD's."""
    with pytest.raises(Refused, match="not-pushed") as refused:
        CHANNEL.verify(push, (b"12345:secret",), 0)
    assert refused.value.status == 401


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [*ROW, *(f"itemInfoList.0.{name}" for name in ROW["itemInfoList"][0]), *(f"consigneeInfo.{name}" for name in ROW["consigneeInfo"]),
         "itemInfoList.0", "couponDetailList.0", "couponDetailList.0.0", "couponDetailList.1.couponPrice", "couponDetailList.1.couponType",
         "couponDetailList.1.skuId", "responseJson", "orderInfo", "openIdBuyer", "xid_buyer", "shouldPay"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field: a value, under the key that it was filed by."""
    body = change(ROW, path, value)
    found = parse(body)
    assert isinstance(found, Order | Rejected | Skip)
    if isinstance(found, Order):
        assert CHANNEL.key("main", raw(body).body, {}) == found.order_id


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(REFUND)), JSON)
def test_no_value_in_a_refund_makes_the_parser_raise(name: str, value: Any) -> None:
    """The same for refunds."""
    assert isinstance(parse({**REFUND, name: value}), Refund | Rejected | Skip)


def test_the_published_example_is_an_order() -> None:
    """schemas/examples shows a row, under the key that it has on Kafka."""
    file = Path(__file__).parents[2] / "schemas" / "examples" / "raw-record.jd.json"
    record = json.loads(file.read_text("utf-8"))
    body = base64.b64decode(record["value_base64"])
    found = parse(body)
    assert isinstance(found, Order)
    assert record["key"] == found.order_id == CHANNEL.key("main", body, {})
