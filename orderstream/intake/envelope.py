"""A raw record as Kafka carries it: value the body's bytes, everything else in the key and the headers.

Law: what goes in comes out: `raw_of(channel, value, headers_of(raw)) == raw`. Reason: the parser that runs after Kafka must
see the very bytes that were verified before it, and the moment they came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from aiokafka.partitioner import murmur2

from orderstream.channels import Channel
from orderstream.orders import Raw

_HTTP = "h."
MAX_HEADER = 1024
"""Characters of an HTTP header that are kept: none that a parser needs is longer."""


def headers_of(raw: Raw) -> list[tuple[str, bytes]]:
    """The Kafka headers of a raw record (docs/records.md)."""
    found = [
        ("shop", raw.shop.encode()),
        ("received_at", str(raw.received_at).encode()),
        ("verified", raw.verified.encode()),
        *((_HTTP + name, value.encode()) for name, value in raw.headers.items()),
    ]
    if raw.detail is not None:
        found.append(("detail", raw.detail))
    return found


def raw_of(channel: str, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Raw:
    """The raw record of a Kafka record. Raises ValueError where it has no envelope: somebody else wrote it."""
    said = {name: text for name, text in headers if text is not None}
    try:
        return Raw(
            channel=channel,
            shop=said["shop"].decode(),
            received_at=int(said["received_at"]),
            body=value or b"",
            headers={name.removeprefix(_HTTP): text.decode() for name, text in said.items() if name.startswith(_HTTP)},
            verified=said["verified"].decode(),
            detail=said.get("detail"),
        )
    except KeyError as missing:
        raise ValueError(f"no header {missing}") from None


def key_of(channel: Channel, raw: Raw) -> str:
    """The record's key: the order it is about, else the hash of its bytes."""
    return channel.key(raw.shop, raw.body, raw.headers) or "raw:" + hashlib.sha256(raw.body).hexdigest()


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key, as every Kafka client's default (murmur2) chooses it."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)
