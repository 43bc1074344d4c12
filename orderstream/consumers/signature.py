"""Who sent a request, proved: what an ERP or a WMS copies that speaks HTTP with orderstream, in either direction.

Law: signed is what is acted on: the time, the key and the bytes of the body as they came, before anybody parses them. A secret
is changed without a gap because the sender signs with all that it has and the receiver takes any that it has.

Headers: `X-Orderstream-Timestamp: <unix seconds>`, `X-Orderstream-Key: <order id>/<verdict_seq>`, and `X-Orderstream-Signature:
sha256=<hex>[,sha256=<hex>…]`, each the HMAC-SHA256 of `<timestamp>.<key>.` and the raw body under one of the sender's secrets.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence

TIMESTAMP, KEY, SIGNATURE = "X-Orderstream-Timestamp", "X-Orderstream-Key", "X-Orderstream-Signature"
MAX_SKEW = 300
"""Seconds: an older request is refused, so that one that was overheard cannot be sent again next day."""


class UnsignedError(ValueError):
    """The request is not proved. Its text is for our own log: whoever sent it is told 401 and nothing else."""


def sign(secrets: Sequence[bytes], key: str, body: bytes, now: int) -> dict[str, str]:
    """The headers of a request. secrets: newest first; now: unix seconds."""
    marks = ",".join(f"sha256={_digest(secret, str(now), key, body)}" for secret in secrets)
    return {TIMESTAMP: str(now), KEY: key, SIGNATURE: marks}


def verify(secrets: Iterable[bytes], headers: Mapping[str, str], body: bytes, now: int) -> str:
    """The key of a genuine request. headers: any case; now: unix seconds. Raises UnsignedError."""
    lower = {name.lower(): value for name, value in headers.items()}
    stamp, key, said = (lower.get(name.lower(), "") for name in (TIMESTAMP, KEY, SIGNATURE))
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or not key or not said.isascii():
        raise UnsignedError("a header is missing or not of its form")
    marks = [mark.strip().removeprefix("sha256=").lower() for mark in said.split(",")[:4]]
    wanted = [_digest(secret, stamp, key, body) for secret in secrets]
    # no early end: how long it takes tells nothing of which part was right
    if not any([hmac.compare_digest(mark, one) for mark in marks for one in wanted]):  # noqa: C419
        raise UnsignedError("no signature is of a secret that we have")
    if abs(now - int(stamp)) > MAX_SKEW:
        raise UnsignedError("its time is more than five minutes from ours")
    return key


def _digest(secret: bytes, stamp: str, key: str, body: bytes) -> str:
    return hmac.new(secret, f"{stamp}.{key}.".encode() + body, hashlib.sha256).hexdigest()
