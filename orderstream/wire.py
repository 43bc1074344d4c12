"""Wire: the inner topics' codecs, and raw records as they stand on Kafka.

Law: bytes are made and read here only, so that two hops cannot disagree about them. Inner topics carry msgpack arrays, one
record a batch; nobody outside reads them. A raw record's value is the channel's bytes, its envelope the headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from orderstream.facts import FactBatch, Mail, News
from orderstream.orders import CHANNELS, Raw

T = TypeVar("T")

MAX_RECORD = 1_000_000
"""Bytes after which a batch is cut into another record: well under the broker's message.max.bytes of 4 MB."""

GROUP = 15
"""Items that are encoded at once: as many as a msgpack array of one byte more than they are themselves can have."""

LAID = b"\x00"
"""How a blob of a state's dump begins: no changelog record does."""

_encoder = msgspec.msgpack.Encoder()
_facts = msgspec.msgpack.Decoder(FactBatch)
_news = msgspec.msgpack.Decoder(list[News])
_mail = msgspec.msgpack.Decoder(list[Mail])


class Sealed(msgspec.Struct, array_like=True, gc=False):
    """A FactBatch whose news have not been read."""

    source: int
    progress: int
    idle: bool
    packs: list[str]
    items: list[tuple[str, int, msgspec.Raw]]


_sealed = msgspec.msgpack.Decoder(Sealed)

encode = _encoder.encode
decode_facts = _facts.decode
decode_sealed = _sealed.decode
decode_news = _news.decode
decode_mail = _mail.decode


def length(array: bytes) -> int:
    """How many elements a msgpack array has, without reading them."""
    head = array[0]
    if head & 0xF0 == 0x90:
        return head & 0x0F
    return int.from_bytes(array[1:3] if head == 0xDC else array[1:5])


def entity_partition(entity: str, partitions: int) -> int:
    """Where an entity lives: any stable hash will do on an inner topic."""
    return crc32(entity.encode()) % partitions


def packed(items: Iterable[Any]) -> Iterator[bytes]:
    """Items as msgpack arrays of at most about MAX_RECORD bytes each."""
    items = items if isinstance(items, list) else list(items)
    chunk: list[bytes | memoryview] = []
    size = count = 0
    for start in range(0, len(items), GROUP):
        group = items[start : start + GROUP]
        together = encode(group)
        if size + len(together) <= MAX_RECORD:
            # as nearly always
            if len(group) == len(items):
                yield together
                return
            # without the byte that says how many they are
            chunk.append(memoryview(together)[1:])
            size += len(together) - 1
            count += len(group)
            continue
        for item in group:
            blob = encode(item)
            if chunk and size + len(blob) > MAX_RECORD:
                yield b"".join((_head(count), *chunk))
                chunk, size, count = [], 0, 0
            chunk.append(blob)
            size += len(blob)
            count += 1
    if chunk:
        yield b"".join((_head(count), *chunk))


def _head(count: int) -> bytes:
    """How a msgpack array of so many elements begins."""
    if count < 1 << 4:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2) if count < 1 << 16 else b"\xdd" + count.to_bytes(4)


def raw_headers(raw: Raw) -> list[tuple[str, bytes]]:
    """The envelope of a raw record, as Kafka headers."""
    plain = [("shop", raw.shop), ("received_at", str(raw.received_at)), ("verified", raw.verified)]
    out = [(k, v.encode()) for k, v in plain]
    out += [(f"h.{k}", v.encode()) for k, v in raw.headers.items()]
    if raw.detail is not None:
        out.append(("detail", raw.detail))
    if raw.again:
        out.append(("again", b"1"))
    return out


def pending_headers(raw: Raw, attempts: int = 0, error: str = "") -> list[tuple[str, bytes]]:
    """The envelope of a record that waits for its detail: the same, its channel, and what was tried. error: a code."""
    tried = [("attempts", str(attempts).encode()), ("error", error.encode())] if attempts or error else []
    return [*raw_headers(raw), ("channel", raw.channel.encode()), *tried]


class EnvelopeError(ValueError):
    """A record on a raw topic that nobody of ours wrote: its envelope is not whole."""


def read_raw(topic: str, headers: Sequence[tuple[str, bytes]], value: bytes | None, timestamp_ms: int) -> Raw:
    """The raw record of a Kafka record; topic ends in the channel's id. Raises EnvelopeError.

    A record without received_at has the broker's time: an adapter that forgets it loses no order.
    """
    return _read(topic.rsplit(".", 1)[1], headers, value, timestamp_ms)


def read_pending(headers: Sequence[tuple[str, bytes]], value: bytes | None, timestamp_ms: int) -> Raw:
    """The same for a record of orders.pending or orders.parked, whose channel is a header. Raises EnvelopeError."""
    return _read(dict(headers).get("channel", b"").decode(errors="replace"), headers, value, timestamp_ms)


def _read(channel: str, headers: Sequence[tuple[str, bytes]], value: bytes | None, timestamp_ms: int) -> Raw:
    given = {k: v for k, v in headers if not k.startswith("h.")}
    try:
        shop = given["shop"].decode()
        received_at = int(given["received_at"]) if "received_at" in given else timestamp_ms
        kept = {k[2:]: v.decode() for k, v in headers if k.startswith("h.")}
        verified = given.get("verified", b"none").decode()
    except (KeyError, ValueError) as error:
        raise EnvelopeError(f"header {error}") from error
    if channel not in CHANNELS:
        raise EnvelopeError(f"no channel {channel!r}")
    return Raw(channel, shop, received_at, value or b"", kept, verified, given.get("detail"), "again" in given)
