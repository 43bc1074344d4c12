"""What intake adds to a raw record on its way into Kafka: the key, which decides the partition.

Law: the key is the order that the bytes are about, else the hash of the bytes. Reason: all that is said of one order, by
whatever delivery and however broken, comes to one place in one sequence. How the rest travels is `orderstream.wire`'s.
"""

from __future__ import annotations

import hashlib

from aiokafka.partitioner import murmur2

from orderstream.channels import Channel
from orderstream.orders import Raw

MAX_HEADER = 1024
"""Characters of an HTTP header that are kept: none that a parser needs is longer."""


def key_of(channel: Channel, raw: Raw) -> str:
    """The record's key."""
    return channel.key(raw.shop, raw.body, raw.headers) or "raw:" + hashlib.sha256(raw.body).hexdigest()


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key, as every Kafka client's default (murmur2) chooses it."""
    # aiokafka's own: the engine's quicker one would bring Faust into this process
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)
