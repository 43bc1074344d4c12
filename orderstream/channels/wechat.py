"""WeChat shop (微信小店): sealed and signed events that only name an order; the order is the answer of `channels/ec/order/get`.

Law: an event is proved by its signature, its time and the app's id inside it, and then says one thing: this order has changed.
What the order is, its detail says alone. Amounts are fen, times Unix seconds, numbers of orders past 2^53 and now text, now digits.
A shop's secret is `appid:token:EncodingAESKey`.

Status, and why
    10: created, not paid. 12 (a gift that its receiver has not taken), 13 (a group that is not full): paid, but nobody may ship
    yet and 12 has no address, so `created`: they wait, and their tag says for what. 20, 21, 30, 100: paid. 17, to be redeemed in
    person [one source]: paid. 200, all of it returned: refunded. 250: cancelled. Whatever is new: created, because the worst that
    follows is a wait. A paid order with an after-sale under way is `refunding`.
    While the platform lets nobody ship a paid order, because the buyer wants another address or another article and the shop has
    not answered, the order is on hold.

Order of arrival: by `update_time`, which counts whole seconds; of two states within one the one further on is the later.

Gift orders (somebody buys, somebody else receives): `openid` is then the receiver; the buyer is `present_giver_openid`, or unknown.

Money: `Line.price` is the price before any discount, `Line.discount` what `real_price` (paid for the whole line) leaves of it;
`Order.discounts` says who gave how much. Both describe the same money. Pieces whose after-sale is over are no longer in the order.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orderstream.channels import Proved, Push, Refused, Reply, reading, wechat_seal
from orderstream.channels.reading import MAX_LINES, Fault, fen, part, parts, said, unix, unsaid, whole
from orderstream.money import MAX_MINOR
from orderstream.orders import WITHDRAWN, Address, Buyer, Discount, Line, Order, Parsed, Payment, Raw, Refund, Skip, Status

MAX_SKEW_MS = 300_000
"""How far a signature's timestamp may be from our clock: a captured push cannot be replayed next day."""
MAX_ECHO = 1024
MAX_MESSAGE = 65_536
"""Bytes of a message: an event has some 300, and what is longer names no order."""
POLLED = "orderstream_order_changed"
"""The event of a message that we wrote ourselves, because the platform's list says that an order has changed."""
FOLLOWED = ("channels_ec_order_", "channels_ec_aftersale_", "channels_ec_present_aftersale_")
"""How events about orders begin; one of them that is new is followed like its neighbours."""
REFUND_DONE = frozenset({"MERCHANT_REFUND_SUCCESS", "MERCHANT_RETURN_SUCCESS"})
CURRENCY = "CNY"

_STATUS: dict[int, Status] = {
    10: "created",
    12: "created",
    13: "created",
    17: "paid",
    20: "paid",
    21: "paid",
    30: "paid",
    100: "paid",
    200: "refunded",
    250: "cancelled",
}
_WAITS = {12: "gift-unaccepted", 13: "group-unformed"}
_TO_SHIP = frozenset({20, 21})
_METHODS = {1: "wechatpay", 2: "pay-later", 3: "lottery", 4: "points"}
_SKU_CHANGE_ASKED = 3
_HOLD_ADDRESS = "买家改地址待商家处理 · the buyer asks for another address"
_HOLD_SKU = "买家换货品待商家处理 · the buyer asks for another article"
_SHARES = {
    "finder_discounted_price": "finder",
    "vip_discounted_price": "member",
    "bulkbuy_discounted_price": "group",
    "cash_coupon_discounted_price": "platform",
    "national_subsidy_discounted_price": "subsidy",
    "national_subsidy_merchant_discounted_price": "subsidy",
    "deduction_price": "points",
    "change_down_price": "price-change",
}
"""Discounts of a whole order beside the merchant's own, by what we call them."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_STAMP = re.compile(r"[0-9]{1,12}")
_DIGEST = re.compile(r"[0-9a-f]{40}")


class _Sealed(msgspec.Struct):
    Encrypt: str = ""


class _Named(msgspec.Struct):
    order_id: Any = None


_SEALED = msgspec.json.Decoder(_Sealed)
_SHAPE = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAMED = msgspec.json.Decoder(_Named)
_VALUE = msgspec.json.Decoder(str)


class WeChat:
    """The channel; `CHANNEL` is the one there is."""

    id = "wechat"
    headers: tuple[str, ...] = ()
    accepted = Reply(b"success")

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it, and the message inside; for a check of the address, what to answer. Raises Refused."""
        apps = [app for secret in secrets if (app := wechat_seal.read(secret)) is not None]
        if not apps:
            raise Refused("unusable-secret")
        if push.method == "GET":
            echo = push.query.get("echostr", "")
            if not 0 < len(echo) <= MAX_ECHO:
                raise Refused("unsigned")
            _signed_by(apps, push.query, "signature", now_ms)
            return Proved("sha1", (), echo.encode("utf-8", "replace"))
        encrypted = _encrypted(push.body)
        for app in _signed_by(apps, push.query, "msg_signature", now_ms, encrypted):
            message = wechat_seal.opened(app, encrypted)
            if message is not None:
                return Proved("aes-256-cbc", (message,))
        raise Refused("unreadable")

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of an event's message."""
        del headers
        number = _about(body)
        return None if number is None else f"wechat:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """Every event that names an order is; none says more than that."""
        return raw.detail is None and _about(raw.body) is not None and _followed(_event(raw.body))

    def parse(self, raw: Raw) -> Parsed:
        """The order or refund that an event's detail is, its Skip, or its Rejected. Never raises for what was sent."""
        try:
            return _read(raw)
        except Fault as fault:
            return reading.rejected(raw, _about(raw.body), fault)


CHANNEL = WeChat()


def polled(number: str) -> bytes:
    """The message that stands for an event, for an order that the platform lists as changed."""
    return msgspec.json.encode({"MsgType": "event", "Event": POLLED, "order_info": {"order_id": number}})


def aftersale_done(number: str, case: str) -> bytes:
    """The same for a refund that the platform lists; number: the order's, case: the after-sale case's own."""
    about = {"order_id": number, "after_sale_order_id": case}
    return msgspec.json.encode({"MsgType": "event", "Event": POLLED, "finder_shop_aftersale_status_update": about})


# -- proof ---------------------------------------------------------------------------------------------------------------


def _signed_by(
    apps: Sequence[wechat_seal.App], query: Mapping[str, str], name: str, now_ms: int, *more: str
) -> list[wechat_seal.App]:
    """The apps whose token made this signature, at a time near enough. Raises Refused. Looks at all of them, whichever it is."""
    given, stamp, nonce = query.get(name, ""), query.get("timestamp", ""), query.get("nonce", "")
    if not _DIGEST.fullmatch(given) or not _STAMP.fullmatch(stamp) or not nonce:
        raise Refused("unsigned")
    proved = [app for app in apps if hmac.compare_digest(wechat_seal.signature(app.token, stamp, nonce, *more), given)]
    if not proved:
        raise Refused("bad-signature")
    if abs(now_ms - int(stamp) * 1000) > MAX_SKEW_MS:
        raise Refused("stale")
    return proved


def _encrypted(body: bytes) -> str:
    try:
        found = _SEALED.decode(body).Encrypt
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = ""
    if not found:
        raise Refused("unsigned")
    return found


# -- what a message is about ---------------------------------------------------------------------------------------------


def _followed(event: str | None) -> bool:
    return event is not None and (event.startswith(FOLLOWED) or event == POLLED)


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _SHAPE.decode(body) if len(body) <= MAX_MESSAGE else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _event(body: bytes) -> str | None:
    try:
        return said(_VALUE.decode(_members(body).get("Event", b"")))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _about(body: bytes) -> str | None:
    """The number of the order that a message names: in `order_info`, or in whatever an after-sale event has in its place."""
    members = _members(body)
    for value in (members.get("order_info", b""), *members.values()):
        try:
            number = _number(_NAMED.decode(value).order_id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if number is not None:
            return number
    return None


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    found = str(value) if not isinstance(value, int) or 0 <= value < 10**20 else ""
    return found if _NUMBER.fullmatch(found) else None


# -- the detail ----------------------------------------------------------------------------------------------------------


def _read(raw: Raw) -> Parsed:
    message = reading.document(raw.body)
    if not isinstance(message, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    event = said(message.get("Event"))
    if not _followed(event):
        named = (event or said(message.get("MsgType")) or "?")[:64]
        return Skip(f"不处理事件 {named} · the event {named} is not followed")
    number = _about(raw.body)
    if number is None:
        raise Fault("bad-order-id", "缺少订单号", "order_id is missing or no number", "order_id")
    return _detail(raw, number)


def _detail(raw: Raw, number: str) -> Parsed:
    if raw.detail is None:
        raise Fault("no-detail", "事件没有订单详情", "the event came without the order's detail")
    answer = part(reading.document(raw.detail))
    code = answer.get("errcode")
    if not unsaid(code) and whole(code) != 0:
        shown = (said(code) or "?")[:20]
        raise Fault("no-detail", f"平台没有给出详情（{shown}）", f"the platform gave no detail ({shown})", "detail.errcode")
    order, aftersale = part(answer.get("order")), part(answer.get("after_sale_order"))
    named = _number((order or aftersale).get("order_id"))
    if named != number:
        field = f"detail.{'order' if order or not aftersale else 'after_sale_order'}.order_id"
        raise Fault("wrong-detail", "详情不是这个订单的", "the detail is not this order's", field)
    return _order(raw, number, order) if order else _refund(raw, number, aftersale)


def _about_fen(value: Any) -> int:
    """An amount that only explains: 0 where it is none."""
    found = whole(value)
    return found if found is not None and found <= MAX_MINOR else 0


def _about_unix(value: Any) -> int | None:
    """A time that only helps: None where there is none; the platform writes 0 for "not yet"."""
    try:
        return reading.optional_unix(value, "")
    except Fault:
        return None


def _order(raw: Raw, number: str, order: Mapping[str, Any]) -> Order:
    detail = part(order.get("order_detail"))
    price = part(detail.get("price_info"))
    delivery = part(detail.get("delivery_info"))
    products = reading.listed(detail.get("product_infos"))
    tags: list[str] = []
    lines, remaining = _lines(products, tags)
    stated, updated = whole(order.get("status")), order.get("update_time")
    status = _status(stated, tags)
    busy = _aftersale(order, parts(products))
    if status == "paid":
        status = "refunding" if busy else "paid" if remaining else "refunded"
    total = fen(price.get("order_price"), "order.order_detail.price_info.order_price")
    if not _adds_up(price, parts(products), total):
        tags.append("amounts-differ")
    address = part(delivery.get("address_info"))
    buyer, union = _buyer(order, tags)
    keys = {"hash_code": said(address.get("hash_code")), "unionid": union}
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=None,
        status=status,
        created_at=unix(order.get("create_time"), "order.create_time"),
        updated_at=None if unsaid(updated) else reading.as_of(unix(updated, "order.update_time"), status),
        currency=CURRENCY,
        total=total,
        lines=lines,
        discounts=_discounts(price, part(detail.get("coupon_info")), parts(products), total),
        buyer=buyer,
        payment=Payment(method=_method(part(detail.get("pay_info")).get("payment_method"))),
        ship_to=_address(address, tags),
        keys={name: value for name, value in keys.items() if value is not None},
        ship_by=_ship_by(parts(products)) if status not in WITHDRAWN else None,
        hold=_hold(delivery, parts(products)) if stated in _TO_SHIP else None,
        presale=any(whole(part(one.get("sku_deliver_info")).get("stock_type")) == 1 for one in parts(products)),
        remark=said(part(detail.get("ext_info")).get("customer_notes")),
        tags=tuple(tags),
    )


def _status(stated: int | None, tags: list[str]) -> Status:
    if stated is None or stated not in _STATUS:
        tags.append("status-unknown")
        return "created"
    if stated in _WAITS:
        tags.append(_WAITS[stated])
    return _STATUS[stated]


def _aftersale(order: Mapping[str, Any], products: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a return or refund is under way."""
    open_cases = whole(part(order.get("aftersale_detail")).get("on_aftersale_order_cnt"))
    return bool(open_cases) or any(whole(one.get("on_aftersale_sku_cnt")) for one in products)


def _lines(given: Any, tags: list[str]) -> tuple[tuple[Line, ...], bool]:
    """The lines that are left (all of them where none is), and whether there are any."""
    where = "order.order_detail.product_infos"
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有商品行", "the order has no product_infos", where)
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", where)
    left: list[Line] = []
    gone: list[Line] = []
    seen: dict[str, int] = {}
    for at, one in enumerate(given):
        field = f"{where}[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{field} 不是对象", f"{field} is not an object", field)
        ordered = reading.quantity(one.get("sku_cnt"), f"{field}.sku_cnt")
        remaining = max(ordered - (whole(one.get("finish_aftersale_sku_cnt")) or 0), 0)
        line_id = _line_id(one, at)
        seen[line_id] = seen.get(line_id, 0) + 1
        if seen[line_id] > 1:
            # the same article twice, as a gift or at another price, from an order without unique ids
            line_id = f"{line_id}-{seen[line_id]}"
        (left if remaining else gone).append(_line(one, line_id, ordered, remaining or ordered, field))
    if gone and left:
        tags.append("lines-removed")
    return tuple(left or gone), bool(left)


def _line_id(one: Mapping[str, Any], at: int) -> str:
    own = said(one.get("product_unique_id"))
    if own is None:
        product, sku = said(one.get("product_id")), said(one.get("sku_id"))
        own = f"{product or ''}-{sku}" if sku is not None else product
    return own[: reading.MAX_ID] if own is not None else str(at + 1)


def _line(one: Mapping[str, Any], line_id: str, ordered: int, shown: int, field: str) -> Line:
    price = fen(one.get("sale_price"), f"{field}.sale_price")
    if price * ordered > MAX_MINOR:
        raise Fault("bad-amount", f"{field} 金额过大", f"{field} comes to too large an amount", f"{field}.sale_price")
    paid = _paid(one, field)
    # a price that was raised is no discount: the sums differ, and that is said
    off = None if paid is None else max(price * ordered - paid, 0)
    gift = one.get("is_free_gift")
    market = one.get("market_price")
    return Line(
        id=line_id,
        code=_code(one),
        quantity=shown,
        price=price,
        title=said(one.get("title")),
        spec=_spec(one.get("sku_attrs")),
        list_price=None if unsaid(market) else fen(market, f"{field}.market_price"),
        gift=None if unsaid(gift) else bool(reading.true(gift)),
        discount=None if off is None else off if shown == ordered else off * shown // ordered,
    )


def _paid(one: Mapping[str, Any], field: str) -> int | None:
    """What is paid for the whole line, fen; None where the platform does not say."""
    if not unsaid(one.get("real_price")):
        return fen(one["real_price"], f"{field}.real_price")
    asked = [name for flag, name in _ASKED.items() if reading.true(one.get(flag)) and not unsaid(one.get(name))]
    return min((fen(one[name], f"{field}.{name}") for name in asked), default=None)


_ASKED = {"is_discounted": "estimate_price", "is_change_price": "change_price"}
"""Prices that count only where their flag says so: otherwise they are 0, or what they would have been."""


def _code(one: Mapping[str, Any]) -> str | None:
    """The shop's own code, else the platform's number of the variant or product."""
    own = said(one.get("sku_code"), one.get("out_sku_id"))
    return reading.code(own, sku=said(one.get("sku_id")), product=said(one.get("product_id")))


def _spec(given: Any) -> dict[str, str]:
    return reading.spec((said(one.get("attr_key")), said(one.get("attr_value"))) for one in parts(given))


def _ship_by(products: Sequence[Mapping[str, Any]]) -> int | None:
    """The first time by which something must have left; of a pre-sale without one, when it is meant to."""
    given = [_about_unix(one.get("delivery_deadline")) for one in products]
    meant = [_about_unix(part(one.get("sku_deliver_info")).get("predict_delivery_time")) for one in products]
    return min((at for at in given if at is not None), default=min((at for at in meant if at is not None), default=None))


def _hold(delivery: Mapping[str, Any], products: Sequence[Mapping[str, Any]]) -> str | None:
    if part(delivery.get("address_under_review")):
        return _HOLD_ADDRESS
    changes = (part(one.get("change_sku_info")).get("preshipment_change_sku_state") for one in products)
    return _HOLD_SKU if any(whole(state) == _SKU_CHANGE_ASKED for state in changes) else None


def _buyer(order: Mapping[str, Any], tags: list[str]) -> tuple[Buyer, str | None]:
    """Who ordered, and their number across the apps of one owner."""
    if reading.true(order.get("is_present")):
        tags.append("gift-order")
        return Buyer(id=said(order.get("present_giver_openid"))), said(order.get("present_giver_unionid"))
    return Buyer(id=said(order.get("openid"))), said(order.get("unionid"))


def _method(stated: Any) -> str | None:
    number = whole(stated)
    return None if not number else _METHODS.get(number, f"wechat-{number}"[:32])


def _address(given: Mapping[str, Any], tags: list[str]) -> Address | None:
    more = part(given.get("tel_number_ext_info"))
    number, lent = said(given.get("tel_number")), said(more.get("virtual_tel_number"))
    if whole(given.get("use_tel_number")) == 1 or (number is not None and number == lent):
        # lent for this order, and to somebody else after it: who took it for the receiver's would find one person in two
        tags.append("phone-virtual")
        number = None
    found = Address(
        name=said(given.get("user_name")),
        phone=number or said(more.get("real_tel_number")),
        province=said(given.get("province_name")),
        city=said(given.get("city_name")),
        district=said(given.get("county_name")),
        detail=said(" ".join(filter(None, (said(given.get("detail_info")), said(given.get("house_number")))))),
        postcode=said(given.get("postal_code")),
    )
    return None if found == Address() else found


def _freight(price: Mapping[str, Any]) -> int:
    return _about_fen(price.get("change_freight" if reading.true(price.get("is_change_freight")) else "freight"))


def _shares(price: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, kind in _SHARES.items():
        amount = _about_fen(price.get(name))
        if amount:
            found[kind] = found.get(kind, 0) + amount
    return found


def _taken_off(price: Mapping[str, Any]) -> int:
    """What `discounted_price` says was taken off: the merchant's own, or all of it, the platform has said both."""
    return _about_fen(price.get("merchant_discounted_price" if unsaid(price.get("discounted_price")) else "discounted_price"))


def _adds_up(price: Mapping[str, Any], products: Sequence[Mapping[str, Any]], total: int) -> bool:
    """False where the detail's own sums contradict each other."""
    each = [(_about_fen(one.get("sale_price")) * (whole(one.get("sku_cnt")) or 0), one) for one in products]
    goods = sum(amount for amount, _ in each)
    bought = sum(amount for amount, one in each if not reading.true(one.get("is_free_gift")))
    stated = goods if unsaid(price.get("product_price")) else _about_fen(price.get("product_price"))
    if stated not in {goods, bought}:
        return False
    off, freight, shares = _taken_off(price), _freight(price), _shares(price)
    if total not in {stated + freight - off, stated + freight - off - sum(shares.values())}:
        return False
    paid = [one.get("real_price") for one in products]
    if any(unsaid(one) for one in paid):
        return True
    together = sum(_about_fen(one) for one in paid) + freight
    # points are taken off the order, and by some accounts off its lines too
    return total in {together, together - shares.get("points", 0)}


def _discounts(
    price: Mapping[str, Any], coupon: Mapping[str, Any], products: Sequence[Mapping[str, Any]], total: int
) -> tuple[Discount, ...]:
    """Who took how much off. kind "coupon": the merchant's own, where the order used a coupon."""
    shares, off = _shares(price), _taken_off(price)
    goods = _about_fen(price.get("product_price")) + _freight(price)
    within = sum(shares.values())
    if within <= off and total == goods - off:
        off -= within
    used = said(coupon.get("user_coupon_id")) or any(parts(one.get("order_product_coupon_info_list")) for one in products)
    found = {"coupon" if used else "merchant": off} | shares
    return tuple(Discount(kind, amount) for kind, amount in found.items() if amount)


def _refund(raw: Raw, number: str, aftersale: Mapping[str, Any]) -> Refund | Skip:
    """The money that went back. What is only under way is the order's own detail's to tell."""
    state = (said(aftersale.get("status")) or "?")[:64]
    if state not in REFUND_DONE:
        return Skip(f"售后未完成退款：{state} · no money has gone back: {state}")
    refund_id = _number(aftersale.get("after_sale_order_id"))
    where = "detail.after_sale_order"
    if refund_id is None:
        raise Fault(
            "missing-field", "缺少售后单号", "after_sale_order_id is missing or no number", f"{where}.after_sale_order_id"
        )
    paid_back = fen(part(aftersale.get("refund_info")).get("amount"), f"{where}.refund_info.amount")
    at = "complete_time" if _about_unix(aftersale.get("complete_time")) is not None else "update_time"
    done = unix(aftersale.get(at), f"{where}.{at}")
    return Refund(f"{raw.channel}:{raw.shop}:{number}", refund_id, paid_back, CURRENCY, done)
