"""Shopify: fat webhooks, signed over the raw bytes.

Law: the platform adds fields every week, so what we do not know is ignored; what we use is read exactly or the record is a
Rejected. Amounts are shop money (`currency`), and a JSON number is as exact as a text. Nothing is decided by a header
that the signature does not cover, except which of our two readings (order, refund) to try; the body must then fit it.

Status, and why
    `cancelled_at` or voided: cancelled. refunded: refunded. partially_refunded: refunding, a person should look before it
    ships. paid: paid. authorized: paid, because the money is secured and shops that capture on fulfilment get no
    orders/paid before they ship: as `created` such an order would never leave us. pending, partially_paid, expired, none
    and whatever is new: created, because the worst that follows is a wait for the next event.

Discounts
    `Line.discount` is the line's own share (sum of its `discount_allocations`; `total_discount` says 0.00 for code
    discounts and is read only where a body has no allocations at all). Deal prices use that. `Order.discounts` tells what
    kinds of discounts the order has and how much each took off: "coupon" for every code, "automatic", "manual" or
    "script" for the rest. The two describe the same money and are never added up.

Quantities are `current_quantity` where given: what is still to be shipped after edits and removals. A line at 0 is gone; an
order whose lines are all gone is cancelled. Shopify has no revision number: `updated_at` orders the deliveries.

`total` is `current_total_price`, after edits; once money has gone back it is no less than `total_price`, before returns: the
line takes refunds from it, and a half that went back must not look like all of what is left.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from orderstream import times
from orderstream.channels import Proved, Push, Refused, Reply, reading
from orderstream.channels.reading import MAX_LINES, MAX_QUANTITY, Fault, absent
from orderstream.channels.reading import part as _part
from orderstream.channels.reading import parts as _parts
from orderstream.channels.reading import said as _said
from orderstream.orders import (
    WITHDRAWN,
    Address,
    Buyer,
    Conversion,
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

TEST_ORDER = 820982911946154508
"""The id in every test notification that Shopify's admin page sends."""
ORDER_TOPICS = frozenset({"orders/create", "orders/updated", "orders/paid", "orders/cancelled", "orders/edited"})
REFUND_TOPIC = "refunds/create"
TOPIC, SIGNATURE = "x-shopify-topic", "x-shopify-hmac-sha256"

_STATUS: dict[str, Status] = {
    "paid": "paid",
    "authorized": "paid",
    "partially_refunded": "refunding",
    "refunded": "refunded",
    "voided": "cancelled",
}
_NUMBER = re.compile(r"[0-9]{1,20}")
MAX_DISCOUNTS = 5_000
"""Codes, applications and the lines' shares of them, of an order: each is read several times, and its kinds stay in the order."""
MAX_OPTIONS = 10
"""Parts of a variant's title; the platform has three, and what is past the last stays in it."""


class _Shape(msgspec.Struct):
    """As much of a body as says which order it is about: ids read, the rest only seen to be there (empty: it is not)."""

    id: Any = None
    order_id: msgspec.Raw = msgspec.Raw()
    order: msgspec.Raw = msgspec.Raw()
    refund: msgspec.Raw = msgspec.Raw()
    line_items: msgspec.Raw = msgspec.Raw()
    transactions: msgspec.Raw = msgspec.Raw()
    refund_line_items: msgspec.Raw = msgspec.Raw()


_SHAPE = msgspec.json.Decoder(_Shape)
_VALUE = msgspec.json.Decoder()


class Shopify:
    """The channel; `CHANNEL` is the one there is."""

    id = "shopify"
    headers: tuple[str, ...] = (TOPIC,)
    accepted = Reply()

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it: base64 of HMAC-SHA256(app secret, body). Raises Refused. The admin page's test carries nothing.

        (A shop's own test order goes on and is skipped where it can be seen.)
        """
        del now_ms  # the signature has no time in it; a repeated delivery is met by idempotence
        body = push.body
        digest = reading.base64_digest(push.headers.get(SIGNATURE))
        if digest is None:
            raise Refused("unsigned")
        if not reading.signed(digest, body, secrets):
            raise Refused("bad-signature")
        ping = str(TEST_ORDER).encode() in body and _about(body, push.headers.get(TOPIC)) == str(TEST_ORDER)
        return Proved("hmac-sha256", () if ping else (body,))

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of an order's or a refund's body, also of one wrapped as the REST interface does."""
        number = _about(body, headers.get(TOPIC))
        return None if number is None else f"shopify:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """Never: a webhook holds the whole order."""
        del raw
        return False

    def parse(self, raw: Raw) -> Parsed:
        """The order or refund of a raw record, its Skip, or its Rejected. Never raises for what was sent."""
        topic = raw.headers.get(TOPIC)
        if topic is not None and topic != REFUND_TOPIC and topic not in ORDER_TOPICS:
            return Skip(f"不处理主题 {topic[:64]} · the topic {topic[:64]} is not followed")
        try:
            body = _unwrapped(reading.document(raw.body))
            refund = topic == REFUND_TOPIC if topic is not None else _is_refund(body.keys())
            return _refund(raw, body) if refund else _order(raw, body)
        except Fault as fault:
            return reading.rejected(raw, _about(raw.body, topic), fault)


CHANNEL = Shopify()


def sign(body: bytes, secret: bytes | str, *, topic: str, domain: str, delivery: str) -> dict[str, str]:
    """The headers of a delivery, for simulators. domain: `shop.myshopify.com`; delivery: an id that repeats with a retry."""
    key = secret.encode() if isinstance(secret, str) else secret
    return {
        "Content-Type": "application/json",
        "X-Shopify-Topic": topic,
        "X-Shopify-Hmac-Sha256": base64.b64encode(hmac.new(key, body, hashlib.sha256).digest()).decode(),
        "X-Shopify-Shop-Domain": domain,
        "X-Shopify-API-Version": "2025-07",
        "X-Shopify-Webhook-Id": delivery,
    }


def _about(body: bytes, topic: str | None) -> str | None:
    """The number of the order that a body is about, by the same reading as `parse`'s, without making all of it."""
    try:
        shape = _SHAPE.decode(body)
        inner = [one for one in (shape.order, shape.refund) if bytes(one).startswith(b"{")]
        if inner and shape.id is None:
            shape = _SHAPE.decode(inner[0])
        given = {name for name in shape.__struct_fields__ if name != "id" and bytes(getattr(shape, name))}
        refund = topic == REFUND_TOPIC if topic is not None else _is_refund(given)
        return _number((_VALUE.decode(shape.order_id) if "order_id" in given else None) if refund else shape.id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    said = str(value) if not isinstance(value, int) or abs(value) < 10**20 else ""
    return said if _NUMBER.fullmatch(said) else None


def _unwrapped(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    if body.get("id") is None:
        for wrapper in ("order", "refund"):
            if isinstance(body.get(wrapper), dict):
                inner: dict[str, Any] = body[wrapper]
                return inner
    return body


def _is_refund(fields: Collection[str]) -> bool:
    return "line_items" not in fields and "order_id" in fields and ("transactions" in fields or "refund_line_items" in fields)


def _about_amount(value: Any, currency: str) -> int | None:
    """An amount that is only compared: None where it is none."""
    try:
        return None if absent(value) else reading.amount(value, currency, "")
    except Fault:
        return None


def _order(raw: Raw, body: Mapping[str, Any]) -> Order | Skip:
    number = _number(body.get("id"))
    if number == str(TEST_ORDER) or reading.true(body.get("test")):
        return Skip("测试订单 · a test order")
    if number is None:
        raise Fault("bad-order-id", "缺少订单号", "id is missing or no number", "id")
    currency = reading.currency(body.get("currency"), "currency")
    if _discount_count(body) > MAX_DISCOUNTS:
        raise Fault("too-many-values", f"折扣超过 {MAX_DISCOUNTS} 项", f"more than {MAX_DISCOUNTS} discounts")
    lines, remaining, tags = _lines(reading.listed(body.get("line_items")), currency)
    status = _status(body, tags)
    if not remaining and status not in WITHDRAWN:
        status = "cancelled"
    if not _adds_up(body, currency):
        tags.append("amounts-differ")
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=None,
        status=status,
        created_at=reading.time(body.get("created_at"), "created_at"),
        updated_at=_updated(body, status),
        currency=currency,
        total=_total(body, currency),
        lines=lines,
        discounts=_discounts(body, currency),
        buyer=_buyer(body, tags),
        payment=Payment(method=_method(body.get("payment_gateway_names"))),
        ship_to=_address(body.get("shipping_address"), tags),
        conversion=_conversion(body, currency, tags),
        remark=_said(body.get("note")),
        tags=tuple(tags),
    )


def _updated(body: Mapping[str, Any], status: Status) -> int | None:
    said = reading.optional_time(body.get("updated_at"), "updated_at")
    # an order is often made and paid within the second that Shopify counts
    return said if said is None or said % times.SECOND else reading.as_of(said, status)


def _total(body: Mapping[str, Any], currency: str) -> int:
    """What the buyer pays. `current_total_price` falls with what goes back, and `total_price` does not: refunds are counted against it."""
    current = body.get("current_total_price")
    if absent(current):
        return reading.amount(body.get("total_price"), currency, "total_price")
    now = reading.amount(current, currency, "current_total_price")
    before = _about_amount(body.get("total_price"), currency) if _parts(body.get("refunds")) else None
    return now if before is None else max(now, before)


def _method(names: Any) -> str | None:
    found = reading.opened(names)
    return _said(",".join(one for one in found if isinstance(one, str))) if isinstance(found, list) else None


def _status(body: Mapping[str, Any], tags: list[str]) -> Status:
    if not absent(body.get("cancelled_at")):
        return "cancelled"
    said = _said(body.get("financial_status"))
    if said in _STATUS:
        return _STATUS[said]
    if said not in {"pending", "partially_paid", "expired", None}:
        tags.append("status-unknown")
    return "created"


def _lines(given: Any, currency: str) -> tuple[tuple[Line, ...], bool, list[str]]:
    """The lines still to ship (all of them where none is), whether there are any, and the tags that go with them."""
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有商品行", "the order has no line_items", "line_items")
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", "line_items")
    remaining: list[Line] = []
    gone: list[Line] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        where = f"line_items[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{where} 不是对象", f"{where} is not an object", where)
        line_id = _said(one.get("id")) or str(at + 1)
        if line_id in seen:
            name = line_id[:64]
            raise Fault("duplicate-line", f"行号 {name} 重复", f"two lines have the id {name}", f"{where}.id")
        seen.add(line_id)
        ordered = _count(one.get("quantity"), f"{where}.quantity")
        current = one.get("current_quantity")
        left = ordered if absent(current) else _count(current, f"{where}.current_quantity")
        if left == 0 and ordered == 0:
            raise Fault("bad-quantity", f"{where} 数量为 0", f"{where}.quantity is 0", f"{where}.quantity")
        shown = left or ordered
        line = Line(
            id=line_id,
            code=_code(one),
            quantity=shown,
            price=reading.amount(one.get("price"), currency, f"{where}.price"),
            title=_said(one.get("title"), one.get("name")),
            spec=_spec(one.get("variant_title")),
            gift=None,
            discount=_line_discount(one, currency, ordered, shown, where),
        )
        (remaining if left else gone).append(line)
    return tuple(remaining or gone), bool(remaining), ["lines-removed"] if gone and remaining else []


def _count(value: Any, where: str) -> int:
    found = reading.whole(value)
    if found is None or found > MAX_QUANTITY:
        raise Fault("bad-quantity", f"{where} 须为整数", f"{where} must be an integer from 0 to {MAX_QUANTITY}", where)
    return found


def _code(line: Mapping[str, Any]) -> str | None:
    """The shop's own SKU, else the platform's number of the variant or product; None for a custom line, which has neither."""
    variant, product = _number(line.get("variant_id")), _number(line.get("product_id"))
    return reading.code(_said(line.get("sku")), variant=variant, product=product)


def _spec(title: Any) -> dict[str, str]:
    said = _said(title)
    # what the platform writes for an article without variants
    if said is None or said == "Default Title":
        return {}
    return {f"option{at}": part.strip() for at, part in enumerate(said.split(" / ", MAX_OPTIONS - 1), 1) if part.strip()}


def _line_discount(line: Mapping[str, Any], currency: str, ordered: int, shown: int, where: str) -> int | None:
    allocations = reading.listed(line.get("discount_allocations"))
    if isinstance(allocations, list):
        whole = sum(
            reading.amount(one.get("amount"), currency, f"{where}.discount_allocations[{at}].amount")
            for at, one in enumerate(_parts(allocations))
        )
    elif absent(line.get("total_discount")):
        return None
    else:
        whole = reading.amount(line["total_discount"], currency, f"{where}.total_discount")
    # the platform allocates to the pieces ordered; the pieces that are left have their part of it
    return whole if ordered in {shown, 0} else whole * shown // ordered


def _discount_count(body: Mapping[str, Any]) -> int:
    shares = (line.get("discount_allocations") for line in _parts(body.get("line_items")) + _parts(body.get("shipping_lines")))
    lists = (body.get("discount_codes"), body.get("discount_applications"), *shares)
    return sum(len(one) for one in lists if isinstance(one, list))


def _discounts(body: Mapping[str, Any], currency: str) -> tuple[Discount, ...]:
    found = [
        Discount("coupon", reading.amount(one.get("amount"), currency, f"discount_codes[{at}].amount"))
        for at, one in enumerate(_parts(body.get("discount_codes")))
    ]
    taken: dict[int, int] = {}
    for line in _parts(body.get("line_items")) + _parts(body.get("shipping_lines")):
        for one in _parts(line.get("discount_allocations")):
            index, amount = reading.whole(one.get("discount_application_index")), _about_amount(one.get("amount"), currency)
            if index is not None and amount is not None:
                taken[index] = taken.get(index, 0) + amount
    for index, one in enumerate(_parts(body.get("discount_applications"))):
        kind = _said(one.get("type")) or "other"
        # codes stand in discount_codes already
        if kind != "discount_code" and taken.get(index):
            found.append(Discount(kind, taken[index]))
    return tuple(found)


def _adds_up(body: Mapping[str, Any], currency: str) -> bool:
    """False where the body's own sums contradict each other; taxes and shipping only ever add to the subtotal."""
    lines = _parts(body.get("line_items"))
    priced = 0
    for line in lines:
        price, count = _about_amount(line.get("price"), currency), reading.whole(line.get("quantity"))
        if price is None or count is None:
            return False
        priced += price * count
    stated = body.get("total_line_items_price")
    if not absent(stated) and _about_amount(stated, currency) != priced:
        return False
    if absent(body.get("subtotal_price")):
        return True
    subtotal = _about_amount(body["subtotal_price"], currency)
    total = _about_amount(body.get("total_price"), currency)
    if subtotal is None or total is None or total < subtotal:
        return False
    if all(isinstance(reading.listed(line.get("discount_allocations")), list) for line in lines):
        allocated = [_about_amount(one.get("amount"), currency) for line in lines for one in _parts(line["discount_allocations"])]
        return None not in allocated and subtotal == priced - sum(amount or 0 for amount in allocated)
    return subtotal <= priced


def _buyer(body: Mapping[str, Any], tags: list[str]) -> Buyer:
    customer, client = _part(body.get("customer")), _part(body.get("client_details"))
    address = _said(body.get("browser_ip"), client.get("browser_ip"))
    ip = None if address is None else reading.ip(address)
    if address is not None and ip is None:
        tags.append("ip-invalid")
    try:
        registered = reading.optional_time(customer.get("created_at"), "customer.created_at")
    except Fault:
        registered = None
    return Buyer(
        id=_said(customer.get("id")),
        registered_at=registered,
        device=_said(body.get("device_id")),
        ip=ip,
        phone=_said(body.get("phone"), customer.get("phone")),
        email=_said(body.get("email"), body.get("contact_email"), customer.get("email")),
    )


def _address(given: Any, tags: list[str]) -> Address | None:
    one = _part(given)
    try:
        place = reading.coordinates(one.get("latitude"), one.get("longitude"), "shipping_address")
    except Fault:
        place = None
    if place is None:
        tags.append("coordinates-invalid")
        place = None, None
    named = " ".join(part for part in (_said(one.get("first_name")), _said(one.get("last_name"))) if part)
    found = Address(
        name=_said(one.get("name"), named),
        phone=_said(one.get("phone")),
        country=_said(one.get("country_code"), one.get("country")),
        province=_said(one.get("province"), one.get("province_code")),
        city=_said(one.get("city")),
        detail=_said(" ".join(part for part in (_said(one.get("address1")), _said(one.get("address2"))) if part)),
        postcode=_said(one.get("zip")),
        lat=place[0],
        lon=place[1],
    )
    return None if found == Address() else found


def _conversion(body: Mapping[str, Any], currency: str, tags: list[str]) -> Conversion | None:
    shown = _said(body.get("presentment_currency"))
    if shown is None or shown == currency:
        return None
    both = _part(body.get("total_price_set"))
    own, theirs = _part(both.get("shop_money")), _part(both.get("presentment_money"))
    if not own and not theirs:
        return None
    try:
        to = reading.currency(theirs.get("currency_code"), "total_price_set.presentment_money.currency_code")
        return Conversion(
            currency=currency,
            amount=reading.amount(own.get("amount"), currency, "total_price_set.shop_money.amount"),
            to=to,
            to_amount=reading.amount(theirs.get("amount"), to, "total_price_set.presentment_money.amount"),
        )
    except Fault:
        tags.append("conversion-invalid")
        return None


def _refund(raw: Raw, body: Mapping[str, Any]) -> Refund | Skip:
    number, refund_id = _number(body.get("order_id")), _number(body.get("id"))
    if number is None:
        raise Fault("bad-order-id", "缺少订单号", "order_id is missing or no number", "order_id")
    if refund_id is None:
        raise Fault("missing-field", "缺少退款号", "id is missing or no number", "id")
    transactions = _parts(body.get("transactions"))
    if len(transactions) > MAX_LINES:
        raise Fault("too-many-values", f"交易超过 {MAX_LINES} 笔", f"more than {MAX_LINES} transactions", "transactions")
    if transactions and all(reading.true(one.get("test")) for one in transactions):
        return Skip("测试退款 · a test refund")
    currencies = {_said(one.get("currency")) for one in transactions} - {None}
    if not currencies:
        for line in _parts(body.get("refund_line_items")):
            currencies |= {_said(_part(_part(line.get("subtotal_set")).get("shop_money")).get("currency_code"))} - {None}
    if not currencies:
        return Skip("退款未涉及金额 · a refund that moves no money")
    if len(currencies) > 1:
        raise Fault("bad-currency", "退款有多种货币", "the refund has several currencies", "transactions")
    currency = reading.currency(currencies.pop(), "transactions[0].currency")
    paid_back = sum(
        reading.amount(one.get("amount"), currency, f"transactions[{at}].amount")
        for at, one in enumerate(transactions)
        if one.get("kind") == "refund" and one.get("status") == "success"
    )
    at = "created_at" if absent(body.get("processed_at")) else "processed_at"
    return Refund(f"{raw.channel}:{raw.shop}:{number}", refund_id, paid_back, currency, reading.time(body.get(at), at))
