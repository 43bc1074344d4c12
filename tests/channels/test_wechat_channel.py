"""The WeChat shop channel: a sealed event is opened for its app alone, and its detail says what the order is."""

from __future__ import annotations

import base64
import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from api_cases import change
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence import last

from orderstream.channels import Proved, Push, Refused, wechat_seal
from orderstream.channels.wechat import CHANNEL, aftersale_done, polled
from orderstream.orders import Discount, Order, Raw, Refund, Rejected, Skip
from orderstream.simulators import wechat as simulator
from tests.fuzz import law

FIXTURES = Path(__file__).parent / "fixtures"
# other people's published payloads, kept beside the checkout and not in it
SAMPLES = Path(os.environ.get("ORDERSTREAM_SAMPLES") or Path(__file__).parents[3] / "shared" / "channels" / "samples")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the collected samples are not here")
NUMBER, ORDER_ID = "3712345678901234567", "wechat:main:3712345678901234567"
KEY, OTHER_KEY = "0123456789abcdefghijABCDEFGHIJ0123456789abc", "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJ"
SECRET, OLD = f"wx0123456789abcdef:token-one:{KEY}", f"wx0123456789abcdef:token-two:{OTHER_KEY}"
SECRETS = (SECRET.encode(), OLD.encode())
STAMP = 1_794_326_402
NOW = STAMP * 1000


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"wechat-{name}.json").read_text("utf-8"))
    return found


EVENT, CASE_EVENT, ANSWER, CASE = fixture("event"), fixture("aftersale"), fixture("event.detail"), fixture("aftersale.detail")
MESSAGE = json.dumps(EVENT).encode()


def raw(body: Any, detail: Any = None) -> Raw:
    def text(value: Any) -> bytes:
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    return Raw("wechat", "main", NOW, text(body), detail=None if detail is None else text(detail))


def parse(body: Any, detail: Any = None) -> Any:
    return CHANNEL.parse(raw(body, detail))


def order(*changes: tuple[str, Any]) -> Order:
    """The order of the fixture, with changes under `order`."""
    answer = ANSWER
    for path, value in changes:
        answer = change(answer, f"order.{path}", value)
    found = parse(EVENT, answer)
    assert isinstance(found, Order), found
    return found


PRODUCT, PRICE, DELIVERY = "order_detail.product_infos.0", "order_detail.price_info", "order_detail.delivery_info"


# -- proof ---------------------------------------------------------------------------------------------------------------


def verify(query: dict[str, str], body: bytes, secrets: Any = SECRETS, now: int = NOW) -> Proved:
    return CHANNEL.verify(Push(body, {}, query), secrets, now)


@pytest.mark.parametrize("secret", [SECRET, OLD])
def test_either_secret_opens_the_message(secret: str) -> None:
    """What is kept is the message, and the answer is the platform's word."""
    query, body = simulator.sign(MESSAGE, secret, STAMP)
    assert verify(query, body) == Proved("aes-256-cbc", (MESSAGE,))
    assert CHANNEL.accepted.body == b"success"


def test_two_secrets_may_share_their_token() -> None:
    """While only the key changes, the signature fits both: each is tried."""
    twins = (f"wx0123456789abcdef:token-one:{OTHER_KEY}".encode(), SECRETS[0])
    assert verify(*simulator.sign(MESSAGE, SECRET, STAMP), secrets=twins).bodies == (MESSAGE,)


@pytest.mark.parametrize("skew", [-300, 300])
def test_a_signature_holds_for_five_minutes(skew: int) -> None:
    """The time is signed: a captured push is refused next day, a changed time does not fit."""
    query, body = simulator.sign(MESSAGE, SECRET, STAMP)
    assert verify(query, body, now=NOW + skew * 1000)
    with pytest.raises(Refused, match="stale"):
        verify(query, body, now=NOW + skew * 1000 + skew // 300)
    with pytest.raises(Refused, match="bad-signature"):
        verify({**query, "timestamp": str(STAMP + skew)}, body)


def test_the_address_is_checked_by_an_echo() -> None:
    """GET: the text comes back as it is, and nothing is kept."""
    query = simulator.check(SECRET, STAMP, "4375120948345356249")
    found = CHANNEL.verify(Push(b"", {}, query, "GET"), SECRETS, NOW)
    assert (found.bodies, found.reply) == ((), b"4375120948345356249")
    for name, value, code in [
        ("signature", "0" * 40, "bad-signature"),
        ("nonce", "1", "bad-signature"),
        ("signature", "", "unsigned"),
        ("echostr", "", "unsigned"),
        ("echostr", "x" * 2000, "unsigned"),
    ]:
        with pytest.raises(Refused, match=code):
            CHANNEL.verify(Push(b"", {}, {**query, name: value}, "GET"), SECRETS, NOW)
    with pytest.raises(Refused, match="stale"):
        CHANNEL.verify(Push(b"", {}, query, "GET"), SECRETS, NOW + 301_000)


def test_a_check_s_signature_is_no_push_s() -> None:
    """The address check signs no body: it cannot be used to send one."""
    query, body = simulator.sign(MESSAGE, SECRET, STAMP)
    with pytest.raises(Refused, match="bad-signature"):
        verify({**query, "msg_signature": query["signature"]}, body)


@pytest.mark.parametrize(
    "secret",
    ["", "wx1", f"wx1:token:{KEY[:-1]}", f"wx1:token:{KEY}x", f"wx1::{KEY}", f"wx1:to ken:{KEY}", f"wx1:token:{KEY[:-1]}*"],
)
def test_a_malformed_secret_is_none(secret: str) -> None:
    """It proves nobody, raises nothing, and does not stand in the way of a good one."""
    query, body = simulator.sign(MESSAGE, SECRET, STAMP)
    with pytest.raises(Refused, match="unusable-secret") as refused:
        verify(query, body, secrets=(secret.encode(), b"\xff:\xff:\xff"))
    assert refused.value.status == 401
    assert verify(query, body, secrets=(secret.encode(), *SECRETS))


def test_a_key_s_last_character_may_say_more_than_it_can_hold() -> None:
    """43 characters hold 258 bits: two of them are nobody's, and need not be 0. The key is as `base64 -d` prints it."""
    assert KEY[-1] != "A"
    app, twin = wechat_seal.read(SECRET.encode()), wechat_seal.read(f"{SECRET[:-1]}d".encode())
    assert app is not None
    assert twin is not None
    assert app.key == twin.key
    assert app.key.hex() == "d35db7e39ebbf3d69b71d79f8218a3001083105187209d35db7e39ebbf3d69b7"
    assert KEY not in repr(app)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of what is signed: the sealed text, the time, the nonce, the signature."""
    query, body = simulator.sign(MESSAGE, SECRET, STAMP)
    sealed = json.loads(body)["Encrypt"]
    name = data.draw(st.sampled_from(["Encrypt", "timestamp", "nonce", "msg_signature"]))
    text = bytearray((sealed if name == "Encrypt" else query[name]).encode())
    at = data.draw(st.integers(0, len(text) * 8 - 1))
    text[at // 8] ^= 1 << at % 8
    changed = text.decode("latin-1")
    if name == "Encrypt":
        body = json.dumps({"Encrypt": changed}).encode()
    else:
        query = {**query, name: changed}
    with pytest.raises(Refused, match=r"bad-signature|unsigned") as refused:
        verify(query, body)
    assert refused.value.status == 401


def signed(encrypted: str) -> tuple[dict[str, str], bytes]:
    """A push that is rightly signed, whatever is in it."""
    token = SECRET.split(":")[1]
    proof = wechat_seal.signature(token, str(STAMP), "7", encrypted)
    return {"timestamp": str(STAMP), "nonce": "7", "msg_signature": proof}, json.dumps({"Encrypt": encrypted}).encode()


def enciphered(plain: bytes) -> str:
    app = wechat_seal.read(SECRET.encode())
    assert app is not None
    encryptor = Cipher(algorithms.AES(app.key), modes.CBC(app.key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode()


def plain(message: bytes, *, length: int | None = None, appid: bytes = b"wx0123456789abcdef") -> bytes:
    """What is enciphered, without its filling."""
    said = len(message) if length is None else length
    return b"n" * 16 + said.to_bytes(4) + message + appid


def filled(text: bytes, last: int | None = None) -> bytes:
    fill = 32 - len(text) % 32
    return text + bytes([fill]) * (fill - 1) + bytes([fill if last is None else last])


def test_what_is_inside_has_one_answer() -> None:
    """Another app's message, a wrong filling, a wrong length, no base64: one code, one status, nothing to learn from."""
    whole = plain(b"m" * 12)
    assert verify(*signed(enciphered(filled(whole)))).bodies == (b"m" * 12,)
    broken = [
        enciphered(filled(plain(b"m" * 12, appid=b"wx0123456789abcdee"))),
        enciphered(filled(plain(b"m" * 12, appid=b""))),
        enciphered(filled(whole, last=0)),
        enciphered(filled(whole, last=33)),
        enciphered(filled(whole, last=255)),
        enciphered(filled(whole, last=13)),
        enciphered(whole[:46] + b"\x02\x01"),
        enciphered(filled(plain(b"m" * 12, length=13))),
        enciphered(filled(plain(b"m" * 12, length=2**32 - 1))),
        # whole, and not filled at all
        enciphered(plain(b"m" * 10)),
        enciphered(b"\x10" * 16),
        enciphered(b"\x20" * 32),
        base64.b64encode(b"x" * 17).decode(),
        "AAAA",
        "*",
        "é",
    ]
    told = set()
    for encrypted in broken:
        with pytest.raises(Refused) as refused:
            verify(*signed(encrypted))
        told.add((refused.value.code, refused.value.status))
    assert told == {("unreadable", 401)}


def test_every_length_of_message_is_filled_and_opened() -> None:
    """The filling is 1 to 32 bytes, of blocks of 32 and not of AES's 16."""
    app = wechat_seal.read(SECRET.encode())
    assert app is not None
    for length in range(70):
        sealed = wechat_seal.sealed(app, b"x" * length, b"n" * 16)
        assert len(base64.b64decode(sealed)) % 32 == 0
        assert wechat_seal.opened(app, sealed) == b"x" * length


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"Encrypt":""}', b'{"Encrypt":1}', b'{"Encrypt":null}', b"<xml></xml>"]
)
def test_a_body_without_anything_sealed_is_unsigned(body: bytes) -> None:
    """Also the plain form, which a shop's platform does not send."""
    query, _ = simulator.sign(MESSAGE, SECRET, STAMP)
    with pytest.raises(Refused, match="unsigned"):
        verify(query, body)


@needs_samples
def test_published_vectors() -> None:
    """Other people's vectors prove that we compute what the platform computes."""
    vectors = json.loads((SAMPLES / "vectors.json").read_text("utf-8"))
    case = vectors["wechat_msg"]
    secret = f"{case['appid']}:{case['token']}:{case['encoding_aes_key']}".encode()
    query = {name: case[name] for name in ("timestamp", "nonce", "msg_signature")}
    body = json.dumps({"ToUserName": case["appid"], "Encrypt": case["encrypt"]}).encode()
    assert verify(query, body, [secret], int(case["timestamp"]) * 1000).bodies == (case["plaintext"].encode(),)
    check = vectors["wechat_url_verify"]
    secret = f"wx1:{check['token']}:{KEY}".encode()
    found = CHANNEL.verify(Push(b"", {}, check, "GET"), [secret], int(check["timestamp"]) * 1000)
    assert found.reply == check["echostr"].encode()


# -- events --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", ["new", "pay", "cancel", "deliver", "confirm", "settle", "ext_info_update", "thought_up_tomorrow"]
)
@pytest.mark.parametrize("number", [NUMBER, int(NUMBER)])
def test_every_order_event_is_thin(event: str, number: Any) -> None:
    """It names its order, as text or as a number past 2^53, and waits for the detail; without one it is a reject."""
    body = {**EVENT, "Event": f"channels_ec_order_{event}", "order_info": {"order_id": number}}
    assert CHANNEL.thin(raw(body))
    assert CHANNEL.key("main", json.dumps(body).encode(), {}) == ORDER_ID
    assert not CHANNEL.thin(raw(body, ANSWER))
    assert parse(body, ANSWER) == order()
    assert (parse(body).order_id, parse(body).code) == (ORDER_ID, "no-detail")


@pytest.mark.parametrize(
    ("event", "member"),
    [
        ("channels_ec_aftersale_update", "finder_shop_aftersale_status_update"),
        # its own name is not documented
        ("channels_ec_present_aftersale_update", "some_present_update"),
    ],
)
def test_aftersale_events_are_thin_and_read_either_detail(event: str, member: str) -> None:
    """The order as it is now, or the case whose money went back; whatever the member is called that names them."""
    body = {**CASE_EVENT, "Event": event}
    body[member] = body.pop("finder_shop_aftersale_status_update")
    assert CHANNEL.thin(raw(body))
    assert CHANNEL.key("main", json.dumps(body).encode(), {}) == ORDER_ID
    assert parse(body, ANSWER) == order()
    assert parse(body, CASE) == Refund(ORDER_ID, "2000000000000000017", 17_900, "CNY", 1_794_412_798_000)


def test_what_the_platform_lists_reads_like_an_event() -> None:
    """The poller's own messages."""
    assert CHANNEL.thin(Raw("wechat", "main", NOW, polled(NUMBER)))
    assert parse(polled(NUMBER), ANSWER) == order()
    assert isinstance(parse(aftersale_done(NUMBER, "2000000000000000017"), CASE), Refund)
    assert CHANNEL.key("main", aftersale_done(NUMBER, "1"), {}) == ORDER_ID


@pytest.mark.parametrize(
    "body", [{"MsgType": "text"}, {"Event": "user_enter_tempsession"}, {"Event": ["x"]}, {}, {**EVENT, "Event": None}]
)
def test_what_is_not_about_an_order_is_skipped(body: Any) -> None:
    """Genuine, and asks for nothing."""
    assert isinstance(parse(body), Skip)
    assert not CHANNEL.thin(raw(body))


@pytest.mark.parametrize("number", [None, "", "x", "1" * 21, -1, 1.5, True, {}, 10**20, "１２"])
def test_an_event_without_a_number_is_a_reject(number: Any) -> None:
    """There is nothing to ask the platform for."""
    body = {**EVENT, "order_info": {"order_id": number}}
    assert not CHANNEL.thin(raw(body))
    assert CHANNEL.key("main", json.dumps(body).encode(), {}) is None
    assert (parse(body, ANSWER).code, parse(body, ANSWER).field) == ("bad-order-id", "order_id")


@pytest.mark.parametrize(
    ("answer", "code", "field"),
    [
        ({"errcode": 40001, "errmsg": "x"}, "no-detail", "detail.errcode"),
        ({"errcode": 0}, "wrong-detail", "detail.order.order_id"),
        ([], "wrong-detail", "detail.order.order_id"),
        (b"<html>", "not-json", None),
        (change(ANSWER, "order.order_id", "3712345678901234568"), "wrong-detail", "detail.order.order_id"),
        (change(CASE, "after_sale_order.order_id", "1"), "wrong-detail", "detail.after_sale_order.order_id"),
    ],
)
def test_a_detail_that_is_not_this_order_s_is_a_reject(answer: Any, code: str, field: str | None) -> None:
    """Under the order's own id, so that it is found there."""
    found = parse(EVENT, answer)
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code, found.field) == (ORDER_ID, code, field)


# -- the order -----------------------------------------------------------------------------------------------------------


def test_a_whole_order() -> None:
    """Every field that we use."""
    found = order()
    assert (found.order_id, found.revision, found.status) == (ORDER_ID, None, "paid")
    assert (found.created_at, found.updated_at) == (1_794_326_390_000, 1_794_326_401_001)
    assert (found.currency, found.total, found.remark, found.hold, found.presale) == ("CNY", 36_800, "请尽快发货", None, False)
    rack, cloth = found.lines
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.list_price, rack.discount) == (
        "900000000000000001", "wx-101", 2, 19_900, 25_900, 4_000,
    )  # fmt: skip
    assert (rack.title, rack.spec, rack.gift) == ("多功能收纳架", {"颜色": "原木色", "尺寸": "三层"}, None)
    assert (cloth.code, cloth.price, cloth.discount, cloth.gift) == ("sku:3000000033", 1_500, 1_500, True)
    assert found.discounts == (Discount("coupon", 3_000), Discount("finder", 1_000))
    assert (found.buyer.id, found.buyer.phone, found.buyer.ip, found.buyer.device) == (
        "oTESTbuyer000000000000000001",
        None,
        None,
        None,
    )
    assert (found.payment.id, found.payment.method) == (None, "wechatpay")
    assert found.ship_to is not None
    assert (found.ship_to.name, found.ship_to.phone, found.ship_to.province, found.ship_to.city, found.ship_to.district) == (
        "李**", "138****0001", "浙江省", "杭州市", "西湖区",
    )  # fmt: skip
    assert (found.ship_to.detail, found.ship_to.postcode, found.ship_to.country) == ("文三路*** 3幢***", "310012", None)
    assert found.keys == {"hash_code": "5f0e1d2c3b4a59687766554433221100", "unionid": "uTESTbuyer000000000000000001"}
    assert (found.ship_by, found.tags) == (1_794_499_200_000, ("phone-virtual",))


@pytest.mark.parametrize(
    ("stated", "status", "tag"),
    [
        (10, "created", None),
        (12, "created", "gift-unaccepted"),
        (13, "created", "group-unformed"),
        (17, "paid", None),
        (20, "paid", None),
        ("20", "paid", None),
        (21, "paid", None),
        (30, "paid", None),
        (100, "paid", None),
        (200, "refunded", None),
        (250, "cancelled", None),
        (999, "created", "status-unknown"),
        ("paid", "created", "status-unknown"),
        (None, "created", "status-unknown"),
    ],
)
def test_status(stated: Any, status: str, tag: str | None) -> None:
    """What may ship is paid; what the platform thinks up tomorrow waits."""
    found = order(("status", stated))
    assert (found.status, found.tags) == (status, ("phone-virtual",) if tag is None else (tag, "phone-virtual"))
    assert (found.ship_by is None) == (status in {"refunded", "cancelled"})


@pytest.mark.parametrize("where", ["aftersale_detail.on_aftersale_order_cnt", f"{PRODUCT}.on_aftersale_sku_cnt"])
def test_an_aftersale_under_way_is_a_refund_under_way(where: str) -> None:
    """Of a paid order; one that is not paid, or is gone, stays what it is."""
    assert order((where, 1)).status == "refunding"
    assert order((where, 1), ("status", 10)).status == "created"
    assert order((where, 1), ("status", 250)).status == "cancelled"


def test_of_two_states_in_one_second_the_further_one_is_the_later() -> None:
    """update_time counts seconds: an order made and paid in one must not stay unpaid."""
    made, paid = order(("status", 10)), order(("status", 20))
    assert made.updated_at is not None
    assert paid.updated_at is not None
    assert made.updated_at // 1000 == paid.updated_at // 1000 == ANSWER["order"]["update_time"]
    assert made.updated_at < paid.updated_at


def test_pieces_that_went_back_are_no_longer_ordered() -> None:
    """The share of the discount goes with them; an order with nothing left is refunded."""
    one_less = order((f"{PRODUCT}.finish_aftersale_sku_cnt", 1))
    assert [(line.quantity, line.discount) for line in one_less.lines] == [(1, 2_000), (1, 1_500)]
    gone = order((f"{PRODUCT}.finish_aftersale_sku_cnt", 2))
    assert [line.code for line in gone.lines] == ["sku:3000000033"]
    assert (gone.status, "lines-removed" in gone.tags) == ("paid", True)
    nothing = order((f"{PRODUCT}.finish_aftersale_sku_cnt", 9), ("order_detail.product_infos.1.finish_aftersale_sku_cnt", 1))
    assert (nothing.status, len(nothing.lines)) == ("refunded", 2)


def test_a_gift_order_s_openid_is_the_receiver() -> None:
    """Who bought it is the giver; where that is not told, nobody is."""
    given_away = ("is_present", True), ("present_giver_openid", "oGIVER"), ("present_giver_unionid", "uGIVER")
    found = order(*given_away)
    assert (found.buyer.id, found.keys["unionid"], "gift-order" in found.tags) == ("oGIVER", "uGIVER", True)
    unknown = order(("is_present", 1))
    assert (unknown.buyer.id, "unionid" in unknown.keys) == (None, False)
    waiting = order(*given_away, ("status", 12), (f"{DELIVERY}.address_info", ...))
    assert (waiting.status, waiting.ship_to, "gift-unaccepted" in waiting.tags) == ("created", None, True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{DELIVERY}.address_under_review", {"user_name": "王**"}),
        (f"{PRODUCT}.change_sku_info", {"preshipment_change_sku_state": 3}),
    ],
)
def test_what_the_shop_has_to_answer_first_is_a_hold(path: str, value: Any) -> None:
    """The platform lets nobody ship it before; afterwards, and before payment, it is nobody's business."""
    hold = order((path, value)).hold
    assert hold is not None
    assert " · " in hold
    assert order((path, value), ("status", 30)).hold is None
    assert order((path, value), ("status", 10)).hold is None
    assert order((path, {})).hold is None


def test_presale_and_its_day() -> None:
    """stock_type 1; where no deadline is given, the day that was announced."""
    found = order((f"{PRODUCT}.sku_deliver_info", {"stock_type": 1, "predict_delivery_time": "1796000000"}))
    assert (found.presale, found.ship_by) == (True, 1_794_499_200_000)
    found = order(
        (f"{PRODUCT}.sku_deliver_info", {"stock_type": 1, "predict_delivery_time": "1796000000"}),
        (f"{PRODUCT}.delivery_deadline", 0), ("order_detail.product_infos.1.delivery_deadline", ...),
    )  # fmt: skip
    assert found.ship_by == 1_796_000_000_000


@pytest.mark.parametrize(
    ("values", "discount"),
    [
        ({"real_price": 35_800}, 4_000),
        ({"real_price": "35800"}, 4_000),
        ({"real_price": 0}, 39_800),
        ({"real_price": ..., "is_discounted": True, "estimate_price": 35_800}, 4_000),
        ({"real_price": ..., "is_change_price": True, "change_price": 30_000}, 9_800),
        ({"real_price": ..., "is_discounted": False, "estimate_price": 0}, None),
        ({"real_price": None, "is_discounted": False}, None),
        ({"real_price": 50_000}, 0),
    ],
)
def test_a_line_s_discount_is_what_is_not_paid_for_it(values: dict[str, Any], discount: int | None) -> None:
    """real_price says it; without it a price that was lowered does, where its flag says that it was."""
    assert order(*((f"{PRODUCT}.{name}", value) for name, value in values.items())).lines[0].discount == discount


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({f"{PRICE}.order_price": 36_801}, True),
        ({f"{PRICE}.product_price": 39_801}, True),
        ({f"{PRODUCT}.sale_price": 19_901}, True),
        ({f"{PRODUCT}.real_price": 35_801}, True),
        ({f"{PRODUCT}.real_price": ...}, False),
        # discounted_price as the sum of all of them
        ({f"{PRICE}.discounted_price": 4_000}, False),
        # the gift's price counted in and taken off
        ({f"{PRICE}.product_price": 41_300, f"{PRICE}.discounted_price": 4_500}, False),
        ({f"{PRICE}.is_change_freight": True, f"{PRICE}.change_freight": 0, f"{PRICE}.order_price": 35_800}, False),
        # points, taken off the order alone
        ({f"{PRICE}.deduction_price": 500, f"{PRICE}.order_price": 36_300}, False),
        # points, taken off the line as well
        ({f"{PRICE}.deduction_price": 500, f"{PRICE}.order_price": 36_300, f"{PRODUCT}.real_price": 35_300}, False),
    ],
)
def test_sums_that_contradict_each_other_are_kept_and_said(changes: dict[str, Any], *, flagged: bool) -> None:
    """Flagged, never corrected: the total is what the platform says."""
    found = order(*changes.items())
    assert ("amounts-differ" in found.tags) == flagged
    assert found.total == changes.get(f"{PRICE}.order_price", 36_800)


def test_discounts_come_to_what_was_taken_off() -> None:
    """However the platform counts its own: inside discounted_price, or beside it."""
    beside, within = order(), order((f"{PRICE}.discounted_price", 4_000))
    assert beside.discounts == within.discounts == (Discount("coupon", 3_000), Discount("finder", 1_000))
    plain_off = order(("order_detail.coupon_info", {}), (f"{PRODUCT}.order_product_coupon_info_list", []))
    assert plain_off.discounts[0] == Discount("merchant", 3_000)


@pytest.mark.parametrize(
    ("given_codes", "code"),
    [
        ({"sku_code": " A-1 "}, "A-1"),
        ({"sku_code": "", "out_sku_id": "B-2"}, "B-2"),
        ({"sku_code": ""}, "sku:3000000021"),
        ({"sku_code": None, "sku_id": 3000000021}, "sku:3000000021"),
        ({"sku_code": "", "sku_id": 0}, "product:10000000000011"),
        ({"sku_code": "", "sku_id": "", "product_id": ""}, None),
    ],
)
def test_the_shop_s_own_code_goes_first(given_codes: dict[str, Any], code: str | None) -> None:
    """Then the platform's numbers, which cannot be taken for a code of the shop's."""
    assert order(*((f"{PRODUCT}.{name}", value) for name, value in given_codes.items())).lines[0].code == code


def test_lines_without_unique_ids_are_told_apart() -> None:
    """By product and SKU, and where the same comes twice, by their number."""
    products = [{**one, "product_unique_id": ""} for one in ANSWER["order"]["order_detail"]["product_infos"]]
    ids = [line.id for line in order(("order_detail.product_infos", [*products, products[0]])).lines]
    assert ids == ["10000000000011-3000000021", "10000000000033-3000000033", "10000000000011-3000000021-2"]


@pytest.mark.parametrize(
    ("changes", "phone", "lent"),
    [
        ({}, "138****0001", True),
        ({"use_tel_number": 0}, "138****0001", True),
        ({"tel_number_ext_info": None}, None, True),
        ({"tel_number": "13812345678", "use_tel_number": 0}, "13812345678", False),
        ({"tel_number": "138****0001", "use_tel_number": 0, "tel_number_ext_info": {}}, "138****0001", False),
        (
            {"tel_number": "", "use_tel_number": 0, "tel_number_ext_info": {"real_tel_number": "138****0001"}},
            "138****0001",
            False,
        ),
    ],
)
def test_a_lent_number_is_nobody_s(changes: dict[str, Any], phone: str | None, *, lent: bool) -> None:
    """The platform lends it for one order: two orders with it are not one person's."""
    found = order(*((f"{DELIVERY}.address_info.{name}", value) for name, value in changes.items()))
    assert found.ship_to is not None
    assert (found.ship_to.phone, "phone-virtual" in found.tags) == (phone, lent)


@pytest.mark.parametrize(
    ("stated", "method"),
    [(1, "wechatpay"), ("2", "pay-later"), (3, "lottery"), (4, "points"), (9, "wechat-9"), (0, None), (None, None)],
)
def test_payment_methods(stated: Any, method: str | None) -> None:
    """By name; one that is new by its number."""
    assert order(("order_detail.pay_info", {"payment_method": stated})).payment.method == method


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("create_time", 0.5, "bad-time"),
        ("create_time", None, "bad-time"),
        ("update_time", "yesterday", "bad-time"),
        ("order_detail", None, "no-lines"),
        ("order_detail.product_infos", [], "no-lines"),
        ("order_detail.product_infos.0", "x", "wrong-type"),
        (f"{PRODUCT}.sku_cnt", 0, "bad-quantity"),
        (f"{PRODUCT}.sku_cnt", 1.5, "bad-quantity"),
        (f"{PRODUCT}.sale_price", "199.00", "bad-amount"),
        (f"{PRODUCT}.sale_price", -1, "bad-amount"),
        (f"{PRODUCT}.sale_price", 10**14, "bad-amount"),
        (f"{PRODUCT}.real_price", "x", "bad-amount"),
        (f"{PRICE}.order_price", None, "bad-amount"),
        (f"{PRICE}.order_price", 367.99, "bad-amount"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str) -> None:
    """A field that decides is right or the record is a reject with its place."""
    found = parse(EVENT, change(ANSWER, f"order.{path}", value))
    assert isinstance(found, Rejected)
    assert (found.order_id, found.code) == (ORDER_ID, code)
    assert found.field is not None


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("status", "MERCHANT_RETURN_SUCCESS", Refund(ORDER_ID, "2000000000000000017", 17_900, "CNY", 1_794_412_798_000)),
        ("complete_time", 0, Refund(ORDER_ID, "2000000000000000017", 17_900, "CNY", 1_794_412_799_000)),
        ("status", "USER_WAIT_RETURN", Skip),
        ("status", None, Skip),
        ("refund_info", None, Rejected),
        ("after_sale_order_id", None, Rejected),
        ("complete_time", "x", Refund(ORDER_ID, "2000000000000000017", 17_900, "CNY", 1_794_412_799_000)),
    ],
)
def test_a_refund_is_money_that_went_back(path: str, value: Any, found: Any) -> None:
    """What is only under way is the order's own detail's to say."""
    got = parse(CASE_EVENT, change(CASE, f"after_sale_order.{path}", value))
    assert isinstance(got, found) if isinstance(found, type) else got == found


@needs_samples
def test_published_samples() -> None:
    """Each collected payload is an order, an event or an explained reject."""
    detail = (SAMPLES / "wechat-1.json").read_bytes()
    found = parse(polled("37423523451235145"), detail)
    assert (found.status, found.total, found.remark, found.tags) == ("refunding", 10_500, "发顺丰", ())
    assert (found.created_at, found.buyer.id, found.payment.method) == (1_658_505_600_000, "OPENID", "wechatpay")
    (line,) = found.lines
    assert (line.code, line.quantity, line.price, line.discount) == ("sku:23424", 10, 2_000, None)
    assert found.discounts == (Discount("coupon", 10_000),)
    for name in ("wechat-2", "wechat-3", "wechat-4"):
        event = Raw("wechat", "main", NOW, (SAMPLES / f"{name}.json").read_bytes())
        assert CHANNEL.thin(event)
        assert CHANNEL.key("main", event.body, {}) == "wechat:main:3705115058471208928"
        assert parse(event.body).code == "no-detail"
    refund = parse(aftersale_done("1768683047558651", "123456"), (SAMPLES / "wechat-9.json").read_bytes())
    assert refund == Refund("wechat:main:1768683047558651", "123456", 11, "CNY", 1_612_754_444_000)


@pytest.mark.parametrize("turn", list(permutations(range(4))))
def test_whatever_comes_first_the_line_has_the_last_state(turn: tuple[int, ...]) -> None:
    """Made and paid within one second, told twice: fetched in any sequence, the order is paid, by one of these records alone."""
    states = [change(change(ANSWER, "order.status", status), "order.update_time", 1_794_326_390) for status in (10, 20)]
    records = [raw(EVENT, states[0]), raw(EVENT, states[1]), raw(polled(NUMBER), states[0]), raw(polled(NUMBER), states[1])]
    assert last(records, turn, ORDER_ID) == ("paid", 2)


# -- whatever comes ------------------------------------------------------------------------------------------------------


def test_good_deliveries_are_read() -> None:
    """An order and a refund among the seeds, each under its own key, and in the published example; what is too long to be an event names no order."""
    assert {law.obey(CHANNEL, *law.split(seed)) for seed in law.seeds("wechat")} >= {"order", "refund"}
    example = json.loads((law.EXAMPLES / "raw-record.wechat.json").read_text("utf-8"))
    shown = parse(base64.b64decode(example["value_base64"]), example["headers"]["detail"].encode())
    assert (shown.order_id, shown.status, shown.tags) == (example["key"], "paid", ())
    long = {**EVENT, "more": "x" * 70_000}
    assert (CHANNEL.thin(raw(long)), parse(long, ANSWER).code) == (False, "bad-order-id")


@pytest.mark.parametrize("bomb", ["keys", "as many objects as are read", "quotes in a string that never ends", "open brackets"])
def test_a_bomb_in_the_detail_s_place_is_a_value(bomb: str) -> None:
    """The platform's own answer may be broken too."""
    assert isinstance(parse(EVENT, law.bombs()[bomb]), Rejected)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["timestamp", "nonce", "msg_signature", "signature", "echostr"]), st.text(max_size=45)),
)
def test_noise_proves_nobody(body: bytes, query: dict[str, str]) -> None:
    """Whatever is sent, and however."""
    for method in ("POST", "GET"):
        with pytest.raises(Refused):
            CHANNEL.verify(Push(body, {}, query, method), SECRETS, NOW)
