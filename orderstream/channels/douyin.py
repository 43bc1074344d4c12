"""Douyin shop (抖店): signed lists of messages that only name an order; the order is the answer of `order.orderDetail`.

Law: a message is proved over the bytes of the whole push, kept by itself, and says one thing: this order has changed. What the
order is, its detail says alone; a refund that has gone through is complete in itself. Amounts are fen and times Unix seconds, each
now a number, now digits; numbers of orders are past 2^53. A shop's secret is `app_key:app_secret`.

Tags 100 to 199 are an order's, 200 to 299 an after-sale's: the platform's list of them is not known to be whole, so one that is new
is followed like its neighbours. 206 is money that went back, 111 a wish for another address.

Status, and why
    4, and an order whose lines are all cancelled: cancelled. 21, 22, 39, and an order whose lines' money is all back: refunded. 1, and
    103 (a deposit is paid): created. 105, 2, 101, 3, 5: paid, or `refunding` while one line's after-sale is open or its money back.
    An after-sale counts as open unless its number is known to mean that there is none or that it is over. An exchange is none.
    Whatever is new: created, because the worst that follows is a wait.
    A buyer who asks for another address puts a paid order on hold until the next message.

Order of arrival: the later of the detail's `update_time` and the message's own time, because nothing says that an after-sale moves
the first. A message's time that is later than the push itself does not count.

Money: `Line.discount` is the line's `promotion_amount` (shop, platform and talent) and what its price was lowered by.
`Order.discounts` says of what kinds the order's are; the two describe the same money and are never added up.

People: name, phone and address come encrypted with a masked twin. What is ciphertext is left out, the mask takes its place, and the
platform's own `doudian_open_id` (`buyer.id`) and `open_address_id` (`keys`) tell people and places apart. There is no IP and no device.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from orderstream.channels import Proved, Push, Refused, Reply, reading
from orderstream.channels.reading import MAX_LINES, Fault, part, parts, said, unsaid, whole
from orderstream.orders import Address, Buyer, Discount, Line, Order, Parsed, Payment, Raw, Refund, Skip, Status
from orderstream.times import MINUTE

SIGNATURE, METHOD = "event-sign", "sign-method"
MAX_MESSAGES = 1_000
"""Messages of one push. The platform sends a few; a push of more is kept as it is and rejected, not taken apart."""
MAX_AHEAD_MS = 5 * MINUTE
"""How far a message's time may be ahead of our clock and still order it."""
MAX_DISCOUNTS = 1_000
CURRENCY = "CNY"

TEST, ADDRESS_ASKED, REFUND_DONE = 0, 111, 206
_ORDER_TAGS, _AFTERSALE_TAGS = range(100, 200), range(200, 300)

_STATUS: dict[int, Status] = {1: "created", 105: "paid", 2: "paid", 101: "paid", 3: "paid", 4: "cancelled", 5: "paid"}
_MAIN_STATUS: dict[int, Status] = {21: "refunded", 22: "refunded", 39: "refunded", 103: "created"}
"""What only `main_status` says."""
_LINE_CANCELLED = 4
_NO_AFTERSALE = frozenset({0, 27, 28})
"""after_sale_status: none, refused, closed."""
_MONEY_BACK = 3
"""refund_status."""
_EXCHANGE = 3
"""after_sale_type."""
_COD = 0
_METHODS = {
    _COD: "cod", 1: "wechatpay", 2: "alipay", 3: "mini-program", 4: "bank-card", 5: "balance", 7: "zero-yuan", 8: "instalment",
    9: "bank-card", 12: "pay-later", 16: "cashier",
}  # fmt: skip
_HOLD_ADDRESS = "买家申请修改地址 · the buyer asks for another address"

_CIPHER = re.compile(r"[#$]\S{20,}|[0-9]@#\S+|##\S+")
"""The platform's ciphertexts; a plain text of theirs is what the shop was let read."""
_MESSAGE_TIME = re.compile(r"::[0-9]+:([0-9]{10}):")


class _Named(msgspec.Struct):
    p_id: Any = None


class _Shape(msgspec.Struct):
    """As much of a message as says what it is about."""

    tag: Any = None
    data: msgspec.Raw = msgspec.Raw()


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ALONE = msgspec.json.Decoder(tuple[msgspec.Raw])
"""A list of one: it stops reading at the second."""
_SHAPE = msgspec.json.Decoder(_Shape)
_NAMED = msgspec.json.Decoder(_Named)
_TEXT = msgspec.json.Decoder(str)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Douyin:
    """The channel; `CHANNEL` is the one there is."""

    id = "douyin"
    headers: tuple[str, ...] = ()
    accepted = Reply(b'{"code":0,"msg":"success"}', "application/json")

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it: the hash of app key, body and app secret, in hex. Raises Refused. A test carries nothing."""
        del now_ms  # the signature has no time in it; a repeated push is met by idempotence
        apps = [app for secret in secrets if (app := reading.app_of(secret)) is not None]
        if not apps:
            raise Refused("unusable-secret")
        method = push.headers.get(METHOD, "").strip().lower() or "md5"
        given = _digest(push.headers.get(SIGNATURE, ""), method)
        if given is None:
            raise Refused("unsigned")
        if not reading.matches(given, (_signature(push.body, app, method) for app in apps)):
            raise Refused("bad-signature")
        return Proved(method, tuple(one for one in _messages(push.body) if _tag(one) != TEST))

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of a message."""
        del headers
        number = _about(body)
        return None if number is None else f"douyin:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """Every message of an order or an after-sale, except of a refund that went through."""
        return raw.detail is None and _asks_detail(_tag(raw.body)) and _about(raw.body) is not None

    def parse(self, raw: Raw) -> Parsed:
        """The order that a message's detail is, the refund that it is itself, its Skip, or its Rejected. Never raises."""
        try:
            message = _message(reading.document(raw.body))
            tag = whole(message.get("tag"))
            if tag == TEST:
                return Skip("测试推送 · a test push")
            if tag is None or (tag not in _ORDER_TAGS and tag not in _AFTERSALE_TAGS):
                named = (said(message.get("tag")) or "?")[:64]
                return Skip(f"不处理消息 {named} · the tag {named} is not followed")
            data = _data(message.get("data"))
            number = _named(data.get("p_id"))
            if tag == REFUND_DONE:
                return _refund(raw, number, data)
            return _order(raw, number, tag, _happened(message, data, raw.received_at))
        except Fault as fault:
            return reading.rejected(raw, _about(raw.body), fault)


CHANNEL = Douyin()


def sign(body: bytes, secret: bytes | str, method: str = "md5") -> dict[str, str]:
    """The headers of a push, for simulators. secret: `app_key:app_secret`."""
    app = reading.app_of(secret.encode() if isinstance(secret, str) else secret)
    if app is None:
        raise ValueError("a secret is app_key:app_secret")
    return {
        "Content-Type": "application/json",
        "app-id": app[0].decode(),
        METHOD: method,
        SIGNATURE: _signature(body, app, method).hex(),
    }


def changed(number: str, at_ms: int) -> bytes:
    """The message that stands for an event, for an order that the platform lists as changed at that time."""
    return msgspec.json.encode(
        {"tag": "100", "msg_id": f"orderstream::{number}", "data": {"p_id": number, "update_time": at_ms // 1000}}
    )


# -- proof ---------------------------------------------------------------------------------------------------------------


def _signature(body: bytes, app: tuple[bytes, bytes], method: str) -> bytes:
    key, secret = app
    message = key + body + secret
    if method == "md5":
        return hashlib.md5(message, usedforsecurity=False).digest()  # the platform's own choice
    return hmac.new(secret, message, hashlib.sha256).digest()


def _digest(given: str, method: str) -> bytes | None:
    """The bytes of a hex digest as long as the method's; None for what is none."""
    size = {"md5": 32, "hmac-sha256": 64}.get(method)
    if size != len(given) or not re.fullmatch("[0-9a-fA-F]+", given):
        return None
    return bytes.fromhex(given)


def _messages(body: bytes) -> Sequence[bytes]:
    """The messages of a push, each as its bytes came; the push itself where it is no list of them, or a list without bounds."""
    try:
        found = _LIST.decode(body)
    except _UNREADABLE:
        return (body,)
    return [bytes(one) for one in found] if len(found) <= MAX_MESSAGES else (body,)


# -- what a message is about ---------------------------------------------------------------------------------------------


def _shape(body: bytes) -> _Shape | None:
    """A message, also out of a list of this one alone, as a push that was kept whole is."""
    try:
        return _SHAPE.decode(bytes(_ALONE.decode(body)[0]) if body.lstrip()[:1] == b"[" else body)
    except _UNREADABLE:
        return None


def _tag(body: bytes) -> int | None:
    shape = _shape(body)
    return None if shape is None else whole(shape.tag)


def _asks_detail(tag: int | None) -> bool:
    return tag is not None and tag != REFUND_DONE and (tag in _ORDER_TAGS or tag in _AFTERSALE_TAGS)


def _about(body: bytes) -> str | None:
    """The number of the order that a message names, by the same reading as `parse`'s, without making all of it."""
    shape = _shape(body)
    if shape is None:
        return None
    try:
        data = bytes(shape.data)
        if data[:1] == b'"':
            data = _TEXT.decode(data).encode()
        return _number(_NAMED.decode(data).p_id)
    except _UNREADABLE:
        return None


def _number(value: Any) -> str | None:
    """The number of an order or a line, from digits or an integer."""
    found = said(value)
    return None if found is None or found == "0" else reading.usable_id(found)


def _named(value: Any) -> str:
    number = _number(value)
    if number is None:
        raise Fault("bad-order-id", "缺少父订单号", "p_id is missing or no number", "data.p_id")
    return number


def _message(found: Any) -> dict[str, Any]:
    if isinstance(found, list):
        if len(found) != 1:
            raise Fault("too-many-values", "一条记录须是一条消息", "a record is one message, not a list of several or none")
        found = found[0]
    if not isinstance(found, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    return found


def _data(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = reading.document(value.encode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise Fault("wrong-type", "data 不是对象", "data is not an object", "data")
    return value


def _happened(message: Mapping[str, Any], data: Mapping[str, Any], received_at: int) -> int:
    """When a message's event happened (ms UTC), as far as it says so and can be believed; 0 where it does not."""
    names = ("update_time", "create_time", "pay_time", "cancel_time", "apply_time", "success_time", "close_time")
    stated = [_about_unix(data.get(name)) for name in names]
    told = _MESSAGE_TIME.search(said(message.get("msg_id"), message.get("msgId")) or "")
    stated.append(_about_unix(told[1]) if told else 0)
    return max((at for at in stated if at <= received_at + MAX_AHEAD_MS), default=0)


def _about_unix(value: Any) -> int:
    """A time that only helps: 0 where there is none."""
    try:
        return reading.optional_unix(value, "") or 0
    except Fault:
        return 0


def _about_fen(value: Any) -> int | None:
    """An amount that is only compared: None where there is none."""
    try:
        return None if unsaid(value) else reading.fen(value, "")
    except Fault:
        return None


def _signed(value: Any) -> int | None:
    """A change of an amount, fen; None where it is no number."""
    if isinstance(value, str) and value.startswith("-"):
        found = _about_fen(value[1:])
        return None if found is None else -found
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        found = _about_fen(-value)
        return None if found is None else -found
    return _about_fen(value)


# -- the detail ----------------------------------------------------------------------------------------------------------


def _order(raw: Raw, number: str, tag: int, happened: int) -> Order:
    order = _detail(raw.detail)
    where = "detail.order_id"
    if _number(order.get("order_id")) != number:
        raise Fault("wrong-detail", "详情不是这个订单的", "the detail is not this order's", where)
    given = reading.listed(order.get("sku_order_list"))
    tags: list[str] = []
    lines, rows = _lines(given, tags)
    status = _status(order, rows, tags)
    latest = max(happened, *(_about_unix(one.get("update_time")) for one in (order, *parts(given))))
    total = "order_amount" if _owed(order) else "pay_amount"
    paid = reading.fen(order.get(total), f"detail.{total}")
    if not _adds_up(order, parts(given), paid):
        tags.append("amounts-differ")
    place = said(order.get("open_address_id"))
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=None,
        status=status,
        created_at=reading.unix(order.get("create_time"), "detail.create_time"),
        updated_at=reading.as_of(latest, status) if latest else None,
        currency=CURRENCY,
        total=paid,
        lines=lines,
        discounts=_discounts(order),
        buyer=Buyer(id=said(order.get("doudian_open_id"), order.get("open_id"))),
        payment=Payment(method=_method(order.get("pay_type"))),
        ship_to=_address(order),
        keys={} if place is None else {"open_address_id": place},
        ship_by=_ship_by(order, rows),
        hold=_HOLD_ADDRESS if tag == ADDRESS_ASKED and status == "paid" else None,
        presale=bool(parts(order.get("order_phase_list"))) or any(whole(one.get("pre_sale_type")) for one in rows),
        remark=said(order.get("buyer_words")),
        tags=tuple(tags),
    )


def _detail(answer: bytes | None) -> dict[str, Any]:
    if answer is None:
        raise Fault("no-detail", "事件没有订单详情", "the event came without the order's detail")
    found = part(reading.document(answer))
    order = part(found.get("data")).get("shop_order_detail")
    if not isinstance(order, dict):
        shown = (said(found.get("code"), found.get("err_no")) or "?")[:20]
        raise Fault("no-detail", f"平台没有给出详情（{shown}）", f"the platform gave no detail ({shown})", "detail.data")
    return order


def _owed(order: Mapping[str, Any]) -> bool:
    """Whether `pay_amount` says nothing of what the order is worth: it is not there, or paid at the door and not yet."""
    paid = order.get("pay_amount")
    return unsaid(paid) or (whole(order.get("pay_type")) == _COD and whole(paid) == 0 and not unsaid(order.get("order_amount")))


def _status(order: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], tags: list[str]) -> Status:
    main = whole(order.get("main_status"))
    stated = main if unsaid(order.get("order_status")) else whole(order.get("order_status"))
    found = _STATUS.get(stated) if stated is not None else None
    if found != "cancelled" and main in _MAIN_STATUS:
        found = _MAIN_STATUS[main]
    if found is None:
        tags.append("status-unknown")
        return "created"
    if found != "paid":
        return found
    if all(whole(one.get("order_status")) == _LINE_CANCELLED for one in rows):
        return "cancelled"
    bought = [one for one in rows if not _is_gift(one)] or rows
    if all(_money_back(one) for one in bought):
        return "refunded"
    return "refunding" if any(_money_back(one) or _aftersale_open(one) for one in rows) else "paid"


def _money_back(line: Mapping[str, Any]) -> bool:
    state = part(line.get("after_sale_info"))
    return whole(state.get("refund_status")) == _MONEY_BACK and whole(state.get("after_sale_type")) != _EXCHANGE


def _aftersale_open(line: Mapping[str, Any]) -> bool:
    state = part(line.get("after_sale_info"))
    if unsaid(state.get("after_sale_status")) or whole(state.get("after_sale_type")) == _EXCHANGE:
        return False
    return whole(state.get("after_sale_status")) not in _NO_AFTERSALE


def _lines(given: Any, tags: list[str]) -> tuple[tuple[Line, ...], list[dict[str, Any]]]:
    """The lines that are left (all of them where none is), and what each was read from."""
    where = "detail.sku_order_list"
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有商品行", "the order has no sku_order_list", where)
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", where)
    read: list[tuple[Line, dict[str, Any]]] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        field = f"{where}[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{field} 不是对象", f"{field} is not an object", field)
        line = _line(one, _number(one.get("order_id")) or str(at + 1), field)
        if line.id in seen:
            raise Fault("duplicate-line", f"行号 {line.id} 重复", f"two lines have the id {line.id}", f"{field}.order_id")
        seen.add(line.id)
        read.append((line, one))
    left = [(line, one) for line, one in read if whole(one.get("order_status")) != _LINE_CANCELLED]
    if left and len(left) < len(read):
        tags.append("lines-removed")
    return tuple(line for line, _ in left or read), [one for _, one in left or read]


def _line(one: Mapping[str, Any], line_id: str, field: str) -> Line:
    quantity = reading.quantity(one.get("item_num"), f"{field}.item_num")
    off, change = one.get("promotion_amount"), _signed(one.get("modify_amount"))
    price = _price_of(one)
    return Line(
        id=line_id,
        code=_code(one),
        quantity=quantity,
        price=reading.fen(one.get(price), f"{field}.{price}"),
        title=said(one.get("product_name")),
        spec=_spec(one.get("spec")),
        gift=_is_gift(one),
        # a price that was raised is no discount: the sums differ, and that is said
        discount=None
        if unsaid(off) and change is None
        else max((0 if unsaid(off) else reading.fen(off, f"{field}.promotion_amount")) - (change or 0), 0),
    )


def _is_gift(line: Mapping[str, Any]) -> bool | None:
    """None where the platform's campaigns have nothing to do with it: a shop gives things away at price 0, too."""
    kind = said(line.get("given_product_type"))
    return None if kind is None else {"FREE": True, "MASTER": False}.get(kind.upper())


def _code(line: Mapping[str, Any]) -> str | None:
    """The shop's own code, else the platform's number of the variant or product; 0 is none."""
    own = said(line.get("code"), *(one for one in (line.get("out_sku_id"),) if one not in (0, "0")))
    product = said(line.get("product_id_str"), line.get("product_id"))
    return reading.code(own, sku=_number(line.get("sku_id")), product=_number(product))


def _spec(given: Any) -> dict[str, str]:
    return reading.spec((said(one.get("name")), said(one.get("value"))) for one in parts(given))


def _ship_by(order: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The first time by which something must leave: the order's own, else its lines'; of a pre-sale, when it is meant to."""
    for name in ("exp_ship_time", "appointment_ship_time"):
        own, given = _about_unix(order.get(name)), [at for one in rows if (at := _about_unix(one.get(name)))]
        if own or given:
            return own or min(given)
    return None


def _method(stated: Any) -> str | None:
    number = whole(stated)
    return None if number is None else _METHODS.get(number, f"douyin-{number}"[:32])


def _plain(value: Any, mask: Any) -> str | None:
    """A text that says something; where it is ciphertext, its masked twin."""
    found = said(value)
    if found is None or _CIPHER.fullmatch(found):
        found = said(mask)
    return None if found is None or _CIPHER.fullmatch(found) else found


def _address(order: Mapping[str, Any]) -> Address | None:
    given, mask = part(order.get("post_addr")), part(order.get("mask_post_addr"))

    def named(level: str) -> str | None:
        return said(part(given.get(level)).get("name"), part(mask.get(level)).get("name"))

    where = _plain(given.get("encrypt_detail"), mask.get("detail"))
    found = Address(
        name=_plain(order.get("encrypt_post_receiver"), order.get("mask_post_receiver")),
        phone=_plain(order.get("encrypt_post_tel"), order.get("mask_post_tel")),
        province=named("province"),
        city=named("city"),
        district=named("town"),
        detail=None if where is None else said((named("street") or "") + where),
    )
    return None if found == Address() else found


def _givers(order: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    details = part(order.get("promotion_detail"))
    for giver in ("shop", "platform", "kol"):
        yield giver, part(details.get(f"{giver}_discount_detail"))


def _discounts(order: Mapping[str, Any]) -> tuple[Discount, ...]:
    """What kinds of discounts there are, and how much each took off: coupons, campaigns, red packets, and a lowered price."""
    found: dict[str, int] = {}
    kinds = (("coupon", "coupon_info", "coupon_amount"), ("campaign", "full_discount_info", "campaign_amount"),
             ("redpack", "redpack_info", "redpack_amount"))  # fmt: skip
    for giver, detail in _givers(order):
        for kind, name, amount in kinds:
            listed = parts(detail.get(name))
            if len(listed) > MAX_DISCOUNTS:
                raise Fault("too-many-values", f"优惠超过 {MAX_DISCOUNTS} 项", f"more than {MAX_DISCOUNTS} discounts")
            for at, one in enumerate(listed):
                where = f"detail.promotion_detail.{giver}_discount_detail.{name}[{at}].{amount}"
                if not unsaid(one.get(amount)):
                    found[kind] = found.get(kind, 0) + reading.fen(one[amount], where)
    if not found and not unsaid(order.get("promotion_amount")):
        found["promotion"] = reading.fen(order["promotion_amount"], "detail.promotion_amount")
    lowered = -(_signed(order.get("modify_amount")) or 0)
    found |= {"price-change": max(lowered, 0), "payment": _about_fen(order.get("promotion_pay_amount")) or 0}
    return tuple(Discount(kind, amount) for kind, amount in found.items() if amount)


def _adds_up(order: Mapping[str, Any], rows: Collection[Mapping[str, Any]], paid: int) -> bool:
    """False where the detail's own sums contradict each other.

    Whether what was paid holds freight, insurance, tax, gifts and the payment's own discount is told nowhere for sure: it must
    lie between the sums without and with them.
    """

    def value(name: str) -> int:
        return _signed(order.get(name)) or 0

    sums = (
        ("promotion_amount", ("promotion_shop_amount", "promotion_platform_amount", "promotion_talent_amount")),
        ("total_promotion_amount", ("promotion_amount", "post_promotion_amount")),
        ("post_origin_amount", ("post_amount", "post_promotion_amount")),
    )
    for name, summands in sums:
        if not any(unsaid(order.get(one)) for one in (name, *summands)) and value(name) != sum(map(value, summands)):
            return False
    if any(not unsaid(one.get("sum_amount")) and _about_fen(one["sum_amount"]) != _worth(one) for one in rows):
        return False
    goods, gifts = (sum(_worth(one) for one in rows if bool(_is_gift(one)) is gift) for gift in (False, True))
    off = value("promotion_amount") - value("modify_amount")
    extras = sum(map(value, ("post_amount", "post_insurance_amount", "tax_amount", "modify_post_amount")))
    return goods - off - value("promotion_pay_amount") <= paid <= max(goods + gifts - off, 0) + max(extras, 0)


def _worth(line: Mapping[str, Any]) -> int:
    """Price by pieces, fen; both have been read before."""
    return (_about_fen(line.get(_price_of(line))) or 0) * (whole(line.get("item_num")) or 0)


def _price_of(line: Mapping[str, Any]) -> str:
    """The field that has the price a piece."""
    return "goods_price" if unsaid(line.get("origin_amount")) else "origin_amount"


# -- after-sales ---------------------------------------------------------------------------------------------------------


def _refund(raw: Raw, number: str, data: Mapping[str, Any]) -> Refund | Skip:
    """The money that went back; freight is in it."""
    refund_id = _number(data.get("aftersale_id"))
    if refund_id is None:
        raise Fault("missing-field", "缺少售后单号", "aftersale_id is missing or no number", "data.aftersale_id")
    amount = reading.fen(data.get("refund_amount"), "data.refund_amount")
    if amount == 0:
        return Skip("售后未涉及退款 · an after-sale that moves no money")
    return Refund(f"{raw.channel}:{raw.shop}:{number}", refund_id, amount, CURRENCY, _refunded_at(data))


def _refunded_at(data: Mapping[str, Any]) -> int:
    """When it went through: Unix seconds, `update_time` also as text."""
    name = next((one for one in ("success_time", "update_time", "apply_time") if _about_unix(data.get(one))), "success_time")
    return reading.unix(data.get(name), f"data.{name}")
