"""WeChat Pay v3, simulated: a notification, encrypted for the merchant and signed by WeChat Pay's key."""

from __future__ import annotations

import base64
import hashlib
import secrets
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orderstream import times
from orderstream.simulators.drafts import compact

MCHID = "1900000001"
"""Of the simulated merchant."""


class Merchant:
    """A merchant of its own: APIv3 key and WeChat Pay's signing key are made anew."""

    def __init__(self) -> None:
        self._key = secrets.token_hex(16)
        self._serial = f"PUB_KEY_ID_{secrets.token_hex(12).upper()}"

    @cached_property
    def _signing(self) -> rsa.RSAPrivateKey:
        # a quarter of a second that only those spend who are paid
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def secret(self) -> str:
        """What the merchant's shop is set up with."""
        return secret(MCHID, self._key, self._serial, self._signing)

    def notify(self, resource: dict[str, Any], timestamp: int) -> tuple[dict[str, str], bytes]:
        """(headers, body) of a notification, signed at a time (Unix seconds)."""
        return notify(resource, self._key, self._serial, self._signing, timestamp)


def time(ms: int) -> str:
    """A time as WeChat Pay writes it."""
    return f"{times.beijing(ms).replace(' ', 'T')}+08:00"


def secret(mchid: str, key: str, serial: str, signing: rsa.RSAPrivateKey) -> str:
    """What the merchant's shop is set up with. key: the APIv3 key, 32 characters."""
    der = signing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{mchid}:{key}:{serial}:{base64.b64encode(der).decode()}"


def transaction(mchid: str, number: str, amount: int, at: str, openid: str = "oPAYER", *, payment: str = "") -> dict[str, Any]:
    """What is told of a payment. number: the shop's own; amount: fen; at: ISO 8601 with an offset; payment: another one of it."""
    return {
        "mchid": mchid,
        "appid": "wx0123456789abcdef",
        "out_trade_no": number,
        "transaction_id": f"4200000000{number}{payment}",
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "bank_type": "OTHERS",
        "success_time": at,
        "payer": {"openid": openid},
        "amount": {"total": amount, "payer_total": amount, "currency": "CNY", "payer_currency": "CNY"},
    }


def refund(mchid: str, number: str, refund_id: str, amount: int, total: int, at: str) -> dict[str, Any]:
    """What is told of a refund; amount, total: fen that go back, and of how many."""
    return {
        "mchid": mchid,
        "out_trade_no": number,
        "transaction_id": f"4200000000{number}",
        "out_refund_no": f"r{refund_id}",
        "refund_id": refund_id,
        "refund_status": "SUCCESS",
        "success_time": at,
        "amount": {"total": total, "refund": amount, "payer_total": total, "payer_refund": amount},
    }


def notify(
    resource: dict[str, Any], key: str, serial: str, signing: rsa.RSAPrivateKey, timestamp: int
) -> tuple[dict[str, str], bytes]:
    """(headers, body) of a notification about a transaction or a refund. timestamp: Unix seconds."""
    kind = "refund" if "refund_id" in resource else "transaction"
    plain = compact(resource)
    # repeats itself with the same input, which a real one must not
    nonce = hashlib.sha256(plain).hexdigest()
    cipher = AESGCM(key.encode()).encrypt(nonce[:12].encode(), plain, kind.encode())
    body = compact(
        {
            "id": nonce,
            "create_time": resource.get("success_time", "2026-11-11T00:00:02+08:00"),
            "resource_type": "encrypt-resource",
            "event_type": f"{kind.upper()}.SUCCESS",
            "summary": "支付成功" if kind == "transaction" else "退款成功",
            "resource": {
                "original_type": kind,
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(cipher).decode(),
                "associated_data": kind,
                "nonce": nonce[:12],
            },
        }
    )
    signed = f"{timestamp}\n{nonce[:32]}\n".encode() + body + b"\n"
    signature = base64.b64encode(signing.sign(signed, padding.PKCS1v15(), SHA256())).decode()
    headers = {
        "Content-Type": "application/json",
        "Wechatpay-Timestamp": str(timestamp),
        "Wechatpay-Nonce": nonce[:32],
        "Wechatpay-Signature": signature,
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
    }
    return headers, body
