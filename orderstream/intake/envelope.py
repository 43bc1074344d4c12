"""What intake adds to a raw record on its way into Kafka: the key, which decides the partition, and the topic.

Law: the key is the order that the bytes are about, else the hash of the bytes. Reason: all that is said of one order, by
whatever delivery and however broken, comes to one place in one sequence. What only names an order goes where its detail is
waited for, and never to the line. How the rest travels is `orderstream.wire`'s.
"""

from __future__ import annotations

import hashlib

import msgspec
from aiokafka.partitioner import murmur2

from orderstream import topics
from orderstream.channels import Channel
from orderstream.orders import Raw
from orderstream.settings import Settings
from orderstream.wire import pending_headers, raw_headers

MAX_HEADER = 1024
"""Characters of an HTTP header that are kept: none that a parser needs is longer."""


def key_of(channel: Channel, raw: Raw) -> str:
    """The record's key."""
    return channel.key(raw.shop, raw.body, raw.headers) or "raw:" + hashlib.sha256(raw.body).hexdigest()


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key, as every Kafka client's default (murmur2) chooses it."""
    # aiokafka's own: the engine's quicker one would bring Faust into this process
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


class Parcel(msgspec.Struct, frozen=True):
    """A raw record as it goes to Kafka."""

    topic: str
    key: bytes
    partition: int
    value: bytes | None
    headers: list[tuple[str, bytes]]


def parcel(channel: Channel, raw: Raw, settings: Settings) -> Parcel:
    """Where a raw record goes: to its channel's topic, or to orders.pending where it waits for its detail."""
    waits = raw.detail is None and channel.thin(raw)
    prefix, key = settings.topic_prefix, key_of(channel, raw)
    topic = topics.name("orders.pending", prefix) if waits else topics.raw(channel.id, prefix)
    headers = pending_headers(raw) if waits else raw_headers(raw)
    return Parcel(topic, key.encode(), partition_of(key, settings.partitions), raw.body, headers)
