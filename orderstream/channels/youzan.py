"""Youzan (有赞): fat pushes, signed over the raw bytes or, in the old form, over their `msg` alone.

Law: nothing is decided by what the signature does not cover. `Event-Sign` covers the whole push. The old `sign` covers `msg` only:
then number, state and time are read from there, and where the push's `type` would say what happened, the platform is asked.
A shop's secret is `client_id:client_secret`.

`msg` is JSON, URL-encoded as Java does it (a blank is "+") for `trade_*`, an object for refunds. What has the whole order in it is
the order. A close, a memo, a refund under way only names it and waits for its detail, the answer of `youzan.trade.get`; a refund that
went through is complete in itself where its type is covered. The detail may come from a replica that lags behind: a close is a
close and a refund under way is one, whatever the detail still says.

Status, and why
    TRADE_CLOSED: cancelled. WAIT_BUYER_PAY: created, and so WAIT_CONFIRM, paid, but its group is not full or the shop has not taken it.
    All else that is known: paid. By `refund_state`, 12 is refunded and whatever else is not 0 is refunding. Whatever is new:
    created, because the worst that follows is a wait.

Order of arrival: `version`, which is `update_time` in seconds, where it is covered; never the order of arrival, which the platform
does not keep.

Money is yuan as text, but `deduction_pay` and `deduction_real_pay` are fen. `Line.price` is the price after the article's own
discount, `Line.list_price` the one before; `Line.discount` is the line's share of the order's discounts (`total_fee` less
`payment`). "null" is a text that means nothing, {} a time that does.

Coordinates are Baidu's, within a kilometre of WGS84's.

People: `yz_open_id` tells buyers apart, else Youzan's older number of them. Ciphertext is left out. There is no IP and no device. An
order to be fetched at the shop has no address: the one in it is the shop's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeGuard
from urllib.parse import quote_plus, unquote_plus

import msgspec

from orderstream import times
from orderstream.channels import Proved, Push, Refused, Reply, reading
from orderstream.channels.reading import MAX_LINES, Fault, part, parts, said, unsaid, whole
from orderstream.orders import (
    WITHDRAWN,
    Address,
    Buyer,
    Customs,
    Discount,
    Line,
    Order,
    Parsed,
    Payment,
    Raw,
    Refund,
    Skip,
    Status,
)

SIGNATURE = "event-sign"
BY_BODY, BY_MSG = "md5", "md5-msg"
"""How a push was proved: all of it, or only its `msg`."""
CURRENCY = "CNY"
ORDER_TYPE = "trade_TradeCreate"
REFUND_DONE = frozenset({"trade_refund_RefundSuccess", "youzan_trade_RefundSuccess"})
REFUND_OVER = REFUND_DONE | {"trade_refund_RefundClosed", "youzan_trade_RefundClosed"}
_FOLLOWED = ("trade_", "youzan_trade_")

_STATUS: dict[str, Status] = {
    "WAIT_BUYER_PAY": "created",
    "TRADE_PAID": "paid",
    "PAID": "paid",
    "WAIT_CONFIRM": "created",
    "WAIT_SELLER_SEND_GOODS": "paid",
    "WAIT_BUYER_CONFIRM_GOODS": "paid",
    "TRADE_SUCCESS": "paid",
    "TRADE_CLOSED": "cancelled",
}
_REFUNDED = 12
"""refund_state: all of it went back."""
_SELF_FETCH = 1
"""express_type."""
_METHODS = {10: "wechat"}
_DIGEST = re.compile(r"[0-9a-fA-F]{32}")
_CIPHER = re.compile(r"\$[A-Za-z0-9+/=_-]+\$[0-9]+\$")
_MS = 10**11
"""From here on a version counts ms: the orders' count seconds, the refunds' milliseconds."""
MAX_ESCAPES = 60_000
"""Of a `msg`: some hundred lines. More of them, and one push takes longer than the 50 ms that the fuzz law allows."""
_LEAST_TIME = 10**9
"""Below it a version is a count of something else (2001)."""


class _Shape(msgspec.Struct):
    """As much of a push as says what it is about."""

    type: Any = None
    test: Any = None
    sign: Any = None
    msg: msgspec.Raw = msgspec.Raw()


class _Info(msgspec.Struct):
    tid: Any = None


class _Full(msgspec.Struct):
    order_info: msgspec.Raw = msgspec.Raw()


class _Told(msgspec.Struct):
    """As much of a `msg`."""

    tid: Any = None
    full_order_info: msgspec.Raw = msgspec.Raw()


_SHAPE = msgspec.json.Decoder(_Shape)
_TOLD = msgspec.json.Decoder(_Told)
_FULL = msgspec.json.Decoder(_Full)
_INFO = msgspec.json.Decoder(_Info)
_TEXT = msgspec.json.Decoder(str)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Youzan:
    """The channel; `CHANNEL` is the one there is."""

    id = "youzan"
    headers: tuple[str, ...] = ()
    accepted = Reply(b'{"code":0,"msg":"success"}', "application/json")

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it: MD5 of client id, body (or, without the header, `msg`) and client secret. Raises Refused."""
        del now_ms  # the signature has no time in it; a repeated push is met by idempotence
        clients = [client for secret in secrets if (client := reading.app_of(secret)) is not None]
        if not clients:
            raise Refused("unusable-secret")
        shape = _shape(push.body)
        given = push.headers.get(SIGNATURE)
        how, signed = BY_BODY, push.body
        if given is None and shape is not None:
            given, how, signed = reading.said(shape.sign), BY_MSG, _signed_msg(shape)
        if given is None or not _DIGEST.fullmatch(given):
            raise Refused("unsigned")
        if not reading.matches(bytes.fromhex(given), (_signature(signed, client) for client in clients)):
            raise Refused("bad-signature")
        return Proved(how, () if shape is not None and reading.true(shape.test) else (push.body,))

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id that a push's `msg` names; what stands beside it may be unproved."""
        del headers
        number = _about(body)[0]
        return None if number is None else f"youzan:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """A push that names an order and does not hold it, unless it is a refund that surely went through."""
        if raw.detail is not None:
            return False
        number, fat = _about(raw.body)
        shape = _shape(raw.body)
        if number is None or fat or shape is None or reading.true(shape.test) or not _followed(shape.type):
            return False
        return not _refunded(raw, shape.type)

    def parse(self, raw: Raw) -> Parsed:
        """The order in a push or its detail, the refund that it is, its Skip, or its Rejected. Never raises."""
        try:
            push = _push(reading.document(raw.body))
            kind = push.get("type")
            if reading.true(push.get("test")):
                return Skip("测试推送 · a test push")
            if not _followed(kind):
                named = (said(kind) or "?")[:64]
                return Skip(f"不处理消息 {named} · the type {named} is not followed")
            msg = _msg(push.get("msg"))
            number = _named(msg)
            if isinstance(msg.get("full_order_info"), dict):
                return _order(raw, number, msg, _version(raw, push))
            if _refunded(raw, kind):
                return _refund(raw, number, msg, push)
            return _changed(raw, number, msg, kind)
        except Fault as fault:
            return reading.rejected(raw, _about(raw.body)[0], fault)


CHANNEL = Youzan()


def sign(body: bytes, secret: bytes | str) -> dict[str, str]:
    """The headers of a push, for simulators. secret: `client_id:client_secret`."""
    client = _client(secret)
    return {
        "Content-Type": "application/json",
        "Client-Id": client[0].decode(),
        "Event-Sign": _signature(body, client).hex(),
    }


def sign_msg(msg: str, secret: bytes | str) -> str:
    """The old form's `sign` of a `msg` as it stands in the push."""
    return _signature(msg.encode(), _client(secret)).hex()


def packed(msg: bytes) -> str:
    """A `msg` as the platform writes it: URL-encoded as Java does."""
    return quote_plus(msg, safe="*-._")


def changed(number: str, at_ms: int) -> bytes:
    """The push that stands for an order that the platform lists as changed at that time."""
    msg = {"tid": number, "update_time": times.beijing(at_ms)}
    return msgspec.json.encode({"type": ORDER_TYPE, "id": number, "version": at_ms // 1000, "msg": msg})


# -- proof ---------------------------------------------------------------------------------------------------------------


def _client(secret: bytes | str) -> tuple[bytes, bytes]:
    client = reading.app_of(secret.encode() if isinstance(secret, str) else secret)
    if client is None:
        raise ValueError("a secret is client_id:client_secret")
    return client


def _signature(signed: bytes, client: tuple[bytes, bytes]) -> bytes:
    return hashlib.md5(client[0] + signed + client[1], usedforsecurity=False).digest()  # the platform's own choice


def _signed_msg(shape: _Shape) -> bytes:
    """What the old form signs: the text of `msg` as it stands there, still URL-encoded; an object's bytes."""
    msg = bytes(shape.msg)
    try:
        return _TEXT.decode(msg).encode() if msg[:1] == b'"' else msg
    except _UNREADABLE:
        return msg


# -- what a push is about ------------------------------------------------------------------------------------------------


def _shape(body: bytes) -> _Shape | None:
    try:
        return _SHAPE.decode(body)
    except _UNREADABLE:
        return None


def _followed(kind: Any) -> TypeGuard[str]:
    return isinstance(kind, str) and kind.startswith(_FOLLOWED)


def _refunded(raw: Raw, kind: Any) -> bool:
    """Whether a push says, under its signature, that a refund went through."""
    return kind in REFUND_DONE and raw.verified != BY_MSG


def _about(body: bytes) -> tuple[str | None, bool]:
    """The number of the order that a push's `msg` names, and whether the whole order is in it, without making all of it."""
    shape = _shape(body)
    if shape is None:
        return None, False
    try:
        msg = bytes(shape.msg)
        told = _TOLD.decode(_unpacked(_TEXT.decode(msg)).encode() if msg[:1] == b'"' else msg)
        full = bytes(told.full_order_info)
        if full[:1] != b"{":
            return _number(told.tid), False
        info = bytes(_FULL.decode(full).order_info)
        return _number(_INFO.decode(info).tid if info[:1] == b"{" else None), True
    except (*_UNREADABLE, Fault):
        return None, False


def _unpacked(msg: str) -> str:
    """A `msg` as its JSON. Raises Fault. One that nobody has encoded is JSON as it stands: a "+" in it is one."""
    if msg.lstrip()[:1] == "{":
        return msg
    if msg.count("%") > MAX_ESCAPES:
        raise Fault("too-many-values", f"msg 超过 {MAX_ESCAPES} 个转义", f"msg has more than {MAX_ESCAPES} escapes", "msg")
    try:
        return unquote_plus(msg, errors="strict")
    except UnicodeDecodeError:
        raise Fault("not-utf8", "msg 不是 UTF-8", "msg is not UTF-8", "msg") from None


def _number(value: Any) -> str | None:
    found = said(value)
    return None if found is None else reading.usable_id(found)


def _push(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    return found


def _msg(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = reading.document(_unpacked(value).encode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise Fault("wrong-type", "msg 不是对象", "msg is not an object", "msg")
    return value


def _named(msg: Mapping[str, Any]) -> str:
    full = msg.get("full_order_info")
    field = "msg.full_order_info.order_info.tid" if isinstance(full, dict) else "msg.tid"
    number = _number(part(full.get("order_info")).get("tid") if isinstance(full, dict) else msg.get("tid"))
    if number is None:
        raise Fault("bad-order-id", "缺少订单号", "tid is missing or no order number", field)
    return number


def _version(raw: Raw, push: Mapping[str, Any]) -> int:
    """A push's version as ms UTC; 0 where it is none or nobody has proved it."""
    found = whole(push.get("version"))
    if found is None or found < _LEAST_TIME or raw.verified == BY_MSG:
        return 0
    ms = found if found >= _MS else found * times.SECOND
    return ms if ms <= times.MAX_MS else 0


def _time(value: Any, field: str) -> int | None:
    """A time of Beijing, None where there is none: old pushes write {} for that."""
    if isinstance(value, dict) or said(value) is None:
        return None
    return reading.beijing(value, field)


def _about_time(value: Any) -> int:
    """A time that only helps: 0 where there is none."""
    try:
        return _time(value, "") or 0
    except Fault:
        return 0


def _yuan(value: Any, field: str) -> int:
    """Fen of an amount in yuan."""
    return reading.amount(value, CURRENCY, field)


def _about_yuan(value: Any) -> int | None:
    """An amount that is only compared or explains, fen, below zero too: None where there is none."""
    text = said(value) if isinstance(value, str) else value
    lowered = isinstance(text, str) and text.startswith("-")
    try:
        found = None if unsaid(text) else _yuan(text.removeprefix("-") if isinstance(text, str) else text, "")
    except Fault:
        return None
    return -found if lowered and found is not None else found


# -- an order ------------------------------------------------------------------------------------------------------------


def _changed(raw: Raw, number: str, msg: Mapping[str, Any], kind: str) -> Order:
    """The order in a push's detail, with what the push itself knows better."""
    if raw.detail is None:
        raise Fault("no-detail", "事件没有订单详情", "the event came without the order's detail")
    answer = part(reading.document(raw.detail))
    places = (answer, part(answer.get("data")), part(answer.get("response")))
    found = next((one for one in places if isinstance(one.get("full_order_info"), dict)), None)
    if found is None:
        shown = (said(answer.get("code"), part(answer.get("gw_err_resp")).get("err_code")) or "?")[:20]
        raise Fault("no-detail", f"平台没有给出详情（{shown}）", f"the platform gave no detail ({shown})", "detail.data")
    if _number(part(found["full_order_info"].get("order_info")).get("tid")) != number:
        where = "detail.full_order_info.order_info.tid"
        raise Fault("wrong-detail", "详情不是这个订单的", "the detail is not this order's", where)
    order = _order(raw, number, found, _about_time(msg.get("update_time")))
    status = order.status
    if status not in WITHDRAWN:
        if said(msg.get("close_type")) is not None:
            status = "cancelled"
        elif said(msg.get("refund_id")) is not None and status == "paid" and (raw.verified == BY_MSG or kind not in REFUND_OVER):
            status = "refunding"
    if status == order.status:
        return order
    updated = None if order.updated_at is None else reading.as_of(order.updated_at, status)
    return msgspec.structs.replace(order, status=status, updated_at=updated)


def _order(raw: Raw, number: str, msg: Mapping[str, Any], version: int) -> Order:
    """version: ms UTC, 0 where it is not known."""
    full = msg["full_order_info"]
    info, money, address = part(full.get("order_info")), part(full.get("pay_info")), part(full.get("address_info"))
    given = reading.listed(full.get("orders"))
    tags: list[str] = []
    lines = _lines(given)
    status = _status(info, tags)
    where = "full_order_info.order_info"
    updated = max(version, _time(info.get("update_time"), f"{where}.update_time") or 0)
    total = _yuan(money.get("payment"), "full_order_info.pay_info.payment")
    if not _adds_up(money, part(msg.get("order_promotion")), parts(given), total):
        tags.append("amounts-differ")
    fetched = whole(info.get("express_type")) == _SELF_FETCH
    if fetched:
        tags.append("self-fetch")
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=None,
        status=status,
        created_at=reading.beijing(info.get("created"), f"{where}.created"),
        updated_at=reading.as_of(updated, status) if updated else None,
        currency=CURRENCY,
        total=total,
        lines=lines,
        discounts=_discounts(money, part(msg.get("order_promotion"))),
        buyer=_buyer(part(full.get("buyer_info"))),
        payment=Payment(method=_method(info)),
        ship_to=_address(address, fetched=fetched, tags=tags),
        keys=_keys(part(full.get("buyer_info")), address, fetched=fetched),
        customs=_customs(lines, parts(given)),
        presale=_presale(info, money, parts(given)),
        remark=_remark(part(full.get("remark_info")), parts(given)),
        tags=tuple(tags),
    )


def _status(info: Mapping[str, Any], tags: list[str]) -> Status:
    found = _STATUS.get(said(info.get("status")) or "")
    if found is None:
        tags.append("status-unknown")
        return "created"
    state = info.get("refund_state")
    if found != "created" and whole(state) == _REFUNDED:
        return "refunded"
    if found == "paid" and said(state) is not None and whole(state) != 0:
        return "refunding"
    return found


def _lines(given: Any) -> tuple[Line, ...]:
    where = "full_order_info.orders"
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有商品行", "the order has no orders", where)
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", where)
    lines: list[Line] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        field = f"{where}[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{field} 不是对象", f"{field} is not an object", field)
        line = _line(one, _number(one.get("oid")) or str(at + 1), field)
        if line.id in seen:
            raise Fault("duplicate-line", f"行号 {line.id} 重复", f"two lines have the id {line.id}", f"{field}.oid")
        seen.add(line.id)
        lines.append(line)
    return tuple(lines)


def _line(one: Mapping[str, Any], line_id: str, field: str) -> Line:
    quantity = reading.quantity(one.get("num"), f"{field}.num")
    listed = _yuan(one["price"], f"{field}.price") if _stated(one.get("price")) else None
    if listed is None or _stated(one.get("discount_price")):
        each = _yuan(one.get("discount_price"), f"{field}.discount_price")
    else:
        each = listed
    due, paid = _about_yuan(one.get("total_fee")), _about_yuan(one.get("payment"))
    return Line(
        id=line_id,
        code=_code(one),
        quantity=quantity,
        price=each,
        title=said(one.get("title")),
        spec=_spec(one.get("sku_properties_name")),
        list_price=listed,
        gift=reading.true(one.get("is_present")),
        # a price that was raised is no discount: the sums differ, and that is said
        discount=None if paid is None else max((each * quantity if due is None else due) - paid, 0),
    )


def _stated(value: Any) -> bool:
    """Whether an amount stands there, as a text or as a number."""
    return said(value) is not None or isinstance(value, Decimal)


def _code(one: Mapping[str, Any]) -> str | None:
    """The shop's own code, else the platform's number of the variant or article."""
    own = said(*(one.get(name) for name in ("outer_sku_id", "outer_item_id", "sku_no", "item_no")))
    return reading.code(own, sku=_number(one.get("sku_id")), item=_number(one.get("item_id")))


def _spec(given: Any) -> dict[str, str]:
    return reading.spec((said(one.get("k")), said(one.get("v"))) for one in parts(given))


def _plain(value: Any) -> str | None:
    """A text that says something and is no ciphertext."""
    found = said(value)
    return None if found is None or _CIPHER.fullmatch(found) else found


def _keys(buyer: Mapping[str, Any], address: Mapping[str, Any], *, fetched: bool) -> dict[str, str]:
    """What is ciphertext: one value is one ciphertext in a shop, as far as anybody has seen. Of what is fetched the address is the shop's."""
    named = {"buyer_phone": buyer.get("buyer_phone"), "receiver_tel": address.get("receiver_tel")}
    if not fetched:
        named["delivery_address"] = address.get("delivery_address")
    return {name: found for name, value in named.items() if (found := said(value)) is not None and _CIPHER.fullmatch(found)}


def _buyer(given: Mapping[str, Any]) -> Buyer:
    older = said(*(one for one in (given.get("buyer_id"),) if whole(one) != 0))
    return Buyer(
        id=said(given.get("yz_open_id")) or older or said(given.get("outer_user_id")),
        phone=_plain(given.get("buyer_phone")),
    )


def _method(info: Mapping[str, Any]) -> str | None:
    stated, number = said(info.get("pay_type_str")), whole(info.get("pay_type"))
    if stated is not None:
        return stated.lower()[:64]
    return None if number is None else _METHODS.get(number, f"youzan-{number}"[:32])


def _address(given: Mapping[str, Any], *, fetched: bool, tags: list[str]) -> Address | None:
    person = Address(name=_plain(given.get("receiver_name")), phone=_plain(given.get("receiver_tel")))
    if not fetched:
        extra = part(given.get("address_extra"))
        try:
            place = reading.coordinates(_degrees(extra.get("lat")), _degrees(extra.get("lon")), "address_extra")
        except Fault:
            place = None
        if place is None:
            tags.append("coordinates-invalid")
            place = None, None
        person = msgspec.structs.replace(
            person,
            province=said(given.get("delivery_province")),
            city=said(given.get("delivery_city")),
            district=said(given.get("delivery_district")),
            detail=_plain(given.get("delivery_address")),
            postcode=said(given.get("delivery_postal_code")),
            lat=place[0],
            lon=place[1],
        )
    return None if person == Address() else person


def _degrees(value: Any) -> Any:
    """A coordinate, where it is a number's text its number."""
    if not isinstance(value, str):
        return value
    found = said(value)
    return None if found is None else float(found) if re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{1,30})?", found) else found


def _customs(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]]) -> Customs | None:
    codes = {line.id: code for line, one in zip(lines, rows, strict=True) if (code := said(one.get("customs_code"))) is not None}
    return Customs(codes) if codes else None


def _presale(info: Mapping[str, Any], money: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    phases = bool(parts(money.get("phase_payments")))
    return phases or bool(reading.true(part(info.get("order_tags")).get("is_preorder"))) or any(map(_ahead, rows))


def _ahead(line: Mapping[str, Any]) -> bool:
    return bool(reading.true(line.get("is_pre_sale")))


def _remark(given: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What the buyer wrote to the order, else to its articles."""
    own = said(given.get("buyer_message"))
    if own is not None:
        return own
    words: list[str] = []
    for one in rows:
        answers = reading.opened(one.get("buyer_messages"))
        listed = part(answers).values() if isinstance(answers, dict) else [answers]
        words += [word for value in listed if (word := said(value)) is not None]
    return "；".join(words) or None


def _discounts(money: Mapping[str, Any], promotion: Mapping[str, Any]) -> tuple[Discount, ...]:
    """What kinds of discounts of the order there are, and how much each took off."""
    found: dict[str, int] = {}
    for at, one in enumerate(parts(promotion.get("order"))):
        coupon = said(one.get("coupon_id")) not in {None, "0"} or "coupon" in (said(one.get("promotion_type")) or "").lower()
        kind = "coupon" if coupon else (said(one.get("promotion_type")) or "promotion")[:64]
        if _stated(one.get("discount_fee")):
            found[kind] = found.get(kind, 0) + _yuan(one["discount_fee"], f"order_promotion.order[{at}].discount_fee")
    if not found:
        found["promotion"] = _about_yuan(promotion.get("order_discount_fee")) or 0
    # these two are fen, whatever stands around them
    deduction = money.get("deduction_real_pay" if said(money.get("deduction_pay")) is None else "deduction_pay")
    found |= {
        "item": _about_yuan(promotion.get("item_discount_fee")) or 0,
        "price-change": -(_about_yuan(promotion.get("adjust_fee")) or 0),
        "deduction": 0 if said(deduction) is None else reading.fen(deduction, "full_order_info.pay_info.deduction_pay"),
    }
    return tuple(Discount(kind, amount) for kind, amount in found.items() if amount > 0)


def _adds_up(money: Mapping[str, Any], promotion: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], total: int) -> bool:
    """False where the push's own sums contradict each other.

    Whether `total_fee` is before or after the articles' own discounts, and whether lines share the freight, depends on the
    order's age: one of the readings must fit.
    """
    paid: list[int] = []
    for one in rows:
        each, count = _about_yuan(one.get("discount_price")), whole(one.get("num"))
        due, share = _about_yuan(one.get("total_fee")), _about_yuan(one.get("payment"))
        if each is not None and due is not None and due != each * (count or 0):
            return False
        if share is not None:
            paid.append(share)
    freight = _about_yuan(money.get("post_fee")) or 0
    if rows and len(paid) == len(rows) and sum(paid) not in {total, total - freight}:
        return False
    goods = _about_yuan(money.get("total_fee"))
    if goods is None:
        return True
    off, own, adjusted = (
        _about_yuan(promotion.get(name)) or 0 for name in ("order_discount_fee", "item_discount_fee", "adjust_fee")
    )
    due = goods - off + adjusted + freight
    return total in {due, due - own}


# -- refunds -------------------------------------------------------------------------------------------------------------


def _refund(raw: Raw, number: str, msg: Mapping[str, Any], push: Mapping[str, Any]) -> Refund | Skip:
    """The money that went back."""
    refund_id = _number(msg.get("refund_id"))
    if refund_id is None:
        raise Fault("missing-field", "缺少退款号", "refund_id is missing or no number", "msg.refund_id")
    field = "refunded_fee" if _stated(msg.get("refunded_fee")) or not _stated(msg.get("refund_fee")) else "refund_fee"
    amount = _yuan(msg.get(field), f"msg.{field}")
    if amount == 0:
        return Skip("售后未涉及退款 · an after-sale that moves no money")
    at = _about_time(msg.get("update_time")) or _version(raw, {"version": msg.get("version")}) or _version(raw, push)
    if not at:
        raise Fault("bad-time", "缺少退款时间", "the refund says no time", "msg.update_time")
    return Refund(f"{raw.channel}:{raw.shop}:{number}", refund_id, amount, CURRENCY, at)
