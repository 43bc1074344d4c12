"""WeChat Pay v3: what the shop's own mini-program hears of payments, and the shop's own orders (`api`) with it.

Law: a notification says that money came or went for an order that the shop's own site tells of; it has no lines and is never an
order. It is proved by WeChat Pay's RSA signature over time, nonce and raw body, then opened with the merchant's APIv3 key, and must
be this merchant's. Reason: `out_trade_no` is the site's own order number, so payment and order meet as `api:<shop>:<number>`.

A secret is `mchid:APIv3 key:serial:public key`: the serial (or `PUB_KEY_ID_…`) that `Wechatpay-Serial` names, and the key or
certificate that goes with it as base64 of its DER: the lines of the PEM file without the first and the last. While WeChat Pay
changes keys both are in force; the serial chooses.

Several orders paid at once (合单) are a record each. Of a service provider (服务商) mchid is the provider's own, whose key seals the
messages; as `sp_mchid/sub_mchid` it stands for that one merchant of the provider's alone.

It is no channel of its own: `api` has it as a second door, which a push with `Wechatpay-Signature` goes through.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from orderstream.channels import Proved, Push, Refused, reading
from orderstream.channels.reading import Fault, fen, part, said, unsaid
from orderstream.orders import Paid, Parsed, Raw, Refund, Skip

MAX_SKEW_MS = 300_000
"""How far a signature's timestamp may be from our clock; WeChat Pay's own documentation says 5 minutes."""
HOW = "rsa-sha256"
TIMESTAMP, NONCE, SIGNATURE, SERIAL = (f"wechatpay-{name}" for name in ("timestamp", "nonce", "signature", "serial"))
ALGORITHM = "AEAD_AES_256_GCM"

_MONEY = frozenset({"out_trade_no", "trade_state", "refund_status", "sub_orders"})
"""What only payments and refunds have: a score, a coupon, a complaint comes in at the same address."""
_STAMP = re.compile(r"[0-9]{1,12}")
_NONCE = re.compile(r"[!-~]{1,128}")
MAX_ORDERS = 1_000
"""Orders that are paid at once; WeChat Pay allows 50. More of them stay together, and are a reject."""

_PARTS = re.compile(r"([0-9]{1,32})(?:/([0-9]{1,32}))?:([!-~]{32}):([0-9A-Za-z_]{1,64}):([0-9A-Za-z+/=]{100,8000})")


class Merchant(msgspec.Struct, frozen=True):
    """What a secret holds. sub: the one merchant of a service provider's."""

    mchid: str
    sub: str | None
    key: bytes
    serial: str
    public: Any

    def __repr__(self) -> str:
        return "Merchant(***)"


class _Sealed(msgspec.Struct):
    ciphertext: str
    nonce: str
    algorithm: str
    associated_data: str = ""


class _Notice(msgspec.Struct):
    resource: _Sealed


class _About(msgspec.Struct):
    out_trade_no: Any = None
    mchid: Any = None
    sp_mchid: Any = None
    sub_mchid: Any = None
    combine_mchid: Any = None
    sub_orders: msgspec.Raw = msgspec.Raw()


_NOTICE = msgspec.json.Decoder(_Notice)
_ABOUT = msgspec.json.Decoder(_About)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def verify(push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
    """Who sent it, and the transaction or refund inside, of several orders each one's. Raises Refused."""
    merchants = [one for secret in secrets if (one := merchant(secret)) is not None]
    if not merchants:
        raise Refused("unusable-secret")
    stamp, nonce = push.headers.get(TIMESTAMP, ""), push.headers.get(NONCE, "")
    signature = _base64(push.headers.get(SIGNATURE, ""))
    if not _STAMP.fullmatch(stamp) or not _NONCE.fullmatch(nonce) or not signature:
        raise Refused("unsigned")
    signed = f"{stamp}\n{nonce}\n".encode() + push.body + b"\n"
    serial = push.headers.get(SERIAL, "")
    proved = [one for one in merchants if one.serial == serial and _genuine(one, signature, signed)]
    if not proved:
        raise Refused("bad-signature")
    if abs(now_ms - int(stamp) * 1000) > MAX_SKEW_MS:
        raise Refused("stale")
    for one in proved:
        resource = _opened(one, push.body)
        bodies = () if resource is None else _carried(one, resource)
        if bodies:
            return Proved(HOW, bodies)
    raise Refused("unreadable")


def number(body: bytes) -> str | None:
    """The own site's number of the order that was paid or refunded."""
    try:
        return reading.usable_id(_ABOUT.decode(body).out_trade_no)
    except _UNREADABLE:
        return None


def parse(raw: Raw) -> Parsed:
    """The payment or refund of a record, its Skip, or its Rejected. Never raises for what was sent."""
    try:
        return _read(raw)
    except Fault as fault:
        return reading.rejected(raw, number(raw.body), fault)


@lru_cache(maxsize=256)
def merchant(secret: bytes) -> Merchant | None:
    """The merchant of a secret; None for what is none."""
    found = _PARTS.fullmatch(secret.decode("ascii", "replace"))
    der = None if found is None else _base64(found[5])
    public = None if der is None else _public(der)
    return None if found is None or public is None else Merchant(found[1], found[2], found[3].encode(), found[4], public)


def _public(der: bytes) -> rsa.RSAPublicKey | None:
    for load in (load_der_public_key, lambda data: x509.load_der_x509_certificate(data).public_key()):
        try:
            found = load(der)
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(found, rsa.RSAPublicKey):
            return found
    return None


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True) or None
    except ValueError:
        return None


def _genuine(one: Merchant, signature: bytes, signed: bytes) -> bool:
    try:
        one.public.verify(signature, signed, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _opened(one: Merchant, body: bytes) -> bytes | None:
    """The resource of a notification, where this merchant's key opens it."""
    try:
        sealed = _NOTICE.decode(body).resource
    except _UNREADABLE:
        return None
    data, nonce = _base64(sealed.ciphertext), sealed.nonce.encode()
    if sealed.algorithm != ALGORITHM or data is None or not 8 <= len(nonce) <= 128:
        return None
    try:
        return AESGCM(one.key).decrypt(nonce, data, sealed.associated_data.encode())
    except InvalidTag:
        return None


def _carried(one: Merchant, resource: bytes) -> tuple[bytes, ...]:
    """The messages of a resource that are this merchant's: itself, or each order that was paid with others."""
    try:
        about = _ABOUT.decode(resource)
    except _UNREADABLE:
        return ()
    named = {said(about.mchid), said(about.sp_mchid), said(about.combine_mchid)} - {None}
    # one that names nobody is ours by the key: it is about something else than payments
    if named and one.mchid not in named:
        return ()
    try:
        orders = [bytes(order) for order in _LIST.decode(about.sub_orders)]
    except _UNREADABLE:
        orders = []
    parts = orders if 0 < len(orders) <= MAX_ORDERS else [resource]
    return tuple(part for part in parts if one.sub in {None, _sub(part)})


def _sub(message: bytes) -> str | None:
    try:
        return said(_ABOUT.decode(message).sub_mchid)
    except _UNREADABLE:
        return None


def _read(raw: Raw) -> Refund | Paid | Skip:
    body = reading.document(raw.body)
    if not isinstance(body, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    if not body.keys() & _MONEY:
        return Skip("不是支付或退款通知 · a notification of something else than a payment or refund")
    about = number(raw.body)
    if about is None:
        raise Fault("bad-order-id", "缺少商户订单号", "out_trade_no is missing or no usable id", "out_trade_no")
    order, amount = f"{raw.channel}:{raw.shop}:{about}", part(body.get("amount"))
    stated = said(amount.get("currency"))
    currency = "CNY" if stated is None else reading.currency(stated, "amount.currency")
    refund = said(body.get("refund_id"))
    state = (said(body.get("trade_state" if refund is None else "refund_status")) or "?")[:32]
    if state != "SUCCESS":
        return Skip(f"款项未到账：{state} · no money has moved: {state}")
    at = reading.time(body.get("success_time"), "success_time")
    if refund is not None:
        return Refund(order, refund, fen(amount.get("refund"), "amount.refund"), currency, at)
    payment = said(body.get("transaction_id"))
    if payment is None:
        raise Fault("missing-field", "缺少微信支付订单号", "transaction_id is missing", "transaction_id")
    # of an order that was paid with others it has another name
    total = "total_amount" if unsaid(amount.get("total")) and "total_amount" in amount else "total"
    return Paid(order, payment, fen(amount.get(total), f"amount.{total}"), currency, at)
