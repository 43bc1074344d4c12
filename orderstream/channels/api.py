"""`api`: the shop's own mini-program or site, and the format of replay files.

Law: the format is ours, so it is read to the letter. A field that it does not have, a wrong type, an amount with too many
decimals is a Rejected with its place; nothing is guessed and nothing is ignored. Reason: the sender is a program of the
shop's own people, who can mend it when told, and a misspelled `discount` that passed silently would change a verdict.
Where only a helpful extra is unusable (the buyer's IP, coordinates), the order stands without it and says so in its tags.

A request is signed: `X-Orderstream-Timestamp: <unix seconds>` and `X-Orderstream-Signature: sha256=<hex of
HMAC-SHA256(shop secret, "<timestamp>." + raw body)>`; the timestamp may differ from ours by 5 minutes.

What WeChat Pay tells of the shop's orders comes in beside them, under its own signature (`wechatpay`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from orderstream.channels import Proved, Push, Refused, Reply, reading, wechatpay
from orderstream.channels.reading import MAX_ID, MAX_LINES, MAX_QUANTITY, MAX_REVISION, Fault, absent, text
from orderstream.money import MAX_MINOR
from orderstream.orders import Address, Buyer, Customs, Discount, Line, Order, Parsed, Payment, Raw, Status

MAX_SKEW_MS = 300_000
"""How far a signature's timestamp may be from our clock: a captured delivery cannot be replayed next day."""
TIMESTAMP, SIGNATURE = "x-orderstream-timestamp", "x-orderstream-signature"

_STATUS: frozenset[str] = frozenset(get_args(Status))
_DIGITS = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")

Id = Annotated[str, Meta(max_length=MAX_ID)]
Short = Annotated[str, Meta(max_length=256)]
Long = Annotated[str, Meta(max_length=4000)]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    code: Id
    quantity: Annotated[int, Meta(ge=1, le=MAX_QUANTITY)]
    price: Any
    id: Id | None = None
    title: Annotated[str, Meta(max_length=512)] | None = None
    spec: Annotated[dict[Annotated[str, Meta(max_length=64)], Short | None], Meta(max_length=50)] | None = None
    list_price: Any = None
    gift: bool | Annotated[str, Meta(max_length=0)] | None = None


class _Discount(msgspec.Struct, forbid_unknown_fields=True):
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    amount: Any


class _Buyer(msgspec.Struct, forbid_unknown_fields=True):
    id: Id | None = None
    registered_at: str | None = None
    device: Id | None = None
    ip: Short | None = None
    phone: Short | None = None
    email: Short | None = None


class _Payment(msgspec.Struct, forbid_unknown_fields=True):
    id: Id | None = None
    method: Id | None = None


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    name: Short | None = None
    phone: Short | None = None
    country: Short | None = None
    province: Short | None = None
    city: Short | None = None
    district: Short | None = None
    detail: Annotated[str, Meta(max_length=512)] | None = None
    postcode: Short | None = None
    lat: Any = None
    lon: Any = None


class _Customs(msgspec.Struct, forbid_unknown_fields=True):
    hs_codes: Annotated[dict[Id, Short | None], Meta(max_length=MAX_LINES)] | None = None
    declaration: Long | None = None


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    """The format, field by field; `schemas/messages/api-order.v1.schema.json` says the same to others."""

    order_id: str
    created_at: str
    currency: str
    lines: Annotated[list[_Line], Meta(min_length=1, max_length=MAX_LINES)]
    revision: Annotated[int, Meta(ge=0, le=MAX_REVISION)] | Annotated[str, Meta(max_length=0)] | None = None
    status: str | None = None
    updated_at: str | None = None
    total: Any = None
    discounts: Annotated[list[_Discount], Meta(max_length=100)] | None = None
    ship_by: str | None = None
    hold: bool | Annotated[str, Meta(max_length=512)] | None = None
    presale: bool | Annotated[str, Meta(max_length=0)] | None = None
    buyer: _Buyer | None = None
    payment: _Payment | None = None
    ship_to: _Address | None = None
    customs: _Customs | None = None
    remark: Long | None = None


class _OrderId(msgspec.Struct):
    order_id: Any = None


_ID = msgspec.json.Decoder(_OrderId)


class Api:
    """The channel; `CHANNEL` is the one there is."""

    id = "api"
    headers: tuple[str, ...] = (wechatpay.SIGNATURE,)
    accepted = Reply()

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it. Raises Refused; which part failed goes to a metric, not to the sender."""
        if push.headers.get(wechatpay.SIGNATURE):
            return wechatpay.verify(push, secrets, now_ms)
        stamp = push.headers.get(TIMESTAMP, "")
        match = _SIGNATURE.fullmatch(push.headers.get(SIGNATURE, ""))
        if match is None or not _DIGITS.fullmatch(stamp):
            raise Refused("unsigned")
        own = [secret for secret in secrets if wechatpay.merchant(secret) is None]
        genuine = reading.signed(bytes.fromhex(match[1]), stamp.encode() + b"." + push.body, own)
        if not genuine:
            raise Refused("bad-signature")
        if abs(now_ms - int(stamp) * 1000) > MAX_SKEW_MS:
            raise Refused("stale")
        return Proved("hmac-sha256", (push.body,))

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of a body that names a usable one, however broken the rest is."""
        number = wechatpay.number(body) if headers.get(wechatpay.SIGNATURE) else _number(body)
        return None if number is None else f"api:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """Never: our own format says all there is."""
        del raw
        return False

    def parse(self, raw: Raw) -> Parsed:
        """The order or payment of a raw record, or its Rejected. Never raises for what was sent."""
        if raw.headers.get(wechatpay.SIGNATURE):
            return wechatpay.parse(raw)
        try:
            return _order(raw, msgspec.convert(reading.document(raw.body), _Order))
        except msgspec.ValidationError as error:
            return reading.rejected(raw, _number(raw.body), reading.fault_of(error))
        except Fault as fault:
            return reading.rejected(raw, _number(raw.body), fault)


CHANNEL = Api()


def sign(body: bytes, secret: bytes | str, timestamp: int) -> dict[str, str]:
    """The headers that prove a body to intake, for clients. timestamp: unix seconds, now."""
    key = secret.encode() if isinstance(secret, str) else secret
    digest = hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Orderstream-Timestamp": str(timestamp), "X-Orderstream-Signature": f"sha256={digest}"}


def _number(body: bytes) -> str | None:
    try:
        return reading.usable_id(_ID.decode(body).order_id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _order(raw: Raw, given: _Order) -> Order:
    number = reading.usable_id(given.order_id)
    if number is None:
        raise Fault(
            "bad-order-id", "order_id 须为 1–128 个可见字符，不含空格与冒号",
            "order_id must be 1 to 128 printable characters without blank or colon", "order_id",
        )  # fmt: skip
    status = given.status or "paid"
    if status not in _STATUS:
        raise Fault("bad-status", "status 不是约定的取值", f"status is none of {', '.join(sorted(_STATUS))}", "status")
    currency = reading.currency(given.currency, "currency")
    tags: list[str] = []
    lines = _lines(given.lines, currency)
    discounts = tuple(
        Discount(one.kind, reading.amount(one.amount, currency, f"discounts[{at}].amount"))
        for at, one in enumerate(given.discounts or ())
    )
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=given.revision if isinstance(given.revision, int) else None,
        status=status,  # type: ignore[arg-type]  # one of _STATUS
        created_at=reading.time(given.created_at, "created_at"),
        updated_at=reading.optional_time(given.updated_at, "updated_at"),
        currency=currency,
        total=_total(given.total, lines, discounts, currency, tags),
        lines=lines,
        discounts=discounts,
        buyer=_buyer(given.buyer, tags),
        payment=Payment(text(given.payment.id), text(given.payment.method)) if given.payment else Payment(),
        ship_to=_address(given.ship_to, tags),
        customs=_customs(given.customs),
        ship_by=reading.optional_time(given.ship_by, "ship_by"),
        hold="hold" if given.hold is True else text(given.hold or None),
        presale=given.presale is True,
        remark=text(given.remark),
        tags=tuple(tags),
    )


def _lines(given: list[_Line], currency: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        line_id = text(one.id) or str(at + 1)
        if line_id in seen:
            where = f"lines[{at}].id"
            raise Fault("duplicate-line", f"行号 {line_id} 重复", f"two lines have the id {line_id}", where)
        seen.add(line_id)
        code = text(one.code)
        if code is None:
            where = f"lines[{at}].code"
            raise Fault("missing-field", f"{where} 为空", f"{where} is empty", where)
        lines.append(
            Line(
                id=line_id,
                code=code,
                quantity=one.quantity,
                price=reading.amount(one.price, currency, f"lines[{at}].price"),
                title=text(one.title),
                spec=_texts(one.spec),
                list_price=None
                if absent(one.list_price)
                else reading.amount(one.list_price, currency, f"lines[{at}].list_price"),
                gift=one.gift is True,
            )
        )
    return tuple(lines)


def _texts(given: Mapping[str, str | None] | None) -> dict[str, str]:
    if not given:
        return {}
    said = ((key.strip(), text(value)) for key, value in given.items())
    return {key: value for key, value in said if key and value is not None}


def _total(given: Any, lines: Sequence[Line], discounts: Sequence[Discount], currency: str, tags: list[str]) -> int:
    due = sum(line.price * line.quantity for line in lines) - sum(discount.amount for discount in discounts)
    if absent(given):
        if due < 0:
            raise Fault("bad-total", "优惠超过商品金额", "the discounts exceed the lines", "discounts")
        if due > MAX_MINOR:
            raise Fault("bad-amount", "订单金额过大", "the lines' sum is too large", "lines")
        return due
    total = reading.amount(given, currency, "total")
    if total != due:
        tags.append("amounts-differ")
    return total


def _buyer(given: _Buyer | None, tags: list[str]) -> Buyer:
    if given is None:
        return Buyer()
    address = text(given.ip)
    ip = None if address is None else reading.ip(address)
    if address is not None and ip is None:
        tags.append("ip-invalid")
    return Buyer(
        id=text(given.id),
        registered_at=reading.optional_time(given.registered_at, "buyer.registered_at"),
        device=text(given.device),
        ip=ip,
        phone=text(given.phone),
        email=text(given.email),
    )


def _address(given: _Address | None, tags: list[str]) -> Address | None:
    if given is None:
        return None
    place = reading.coordinates(given.lat, given.lon, "ship_to")
    if place is None:
        tags.append("coordinates-invalid")
        place = None, None
    found = Address(
        name=text(given.name),
        phone=text(given.phone),
        country=text(given.country),
        province=text(given.province),
        city=text(given.city),
        district=text(given.district),
        detail=text(given.detail),
        postcode=text(given.postcode),
        lat=place[0],
        lon=place[1],
    )
    return None if found == Address() else found


def _customs(given: _Customs | None) -> Customs | None:
    if given is None:
        return None
    found = Customs(hs_codes=_texts(given.hs_codes), declaration=text(given.declaration))
    return None if found == Customs() else found
