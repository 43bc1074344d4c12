"""Kafka's default partitioner, so that a key lands where every other Kafka client would put it.

aiokafka's murmur2 walks bytes and masks each step; this one reads whole words and remembers recent keys, because one order id
is sent to several topics within a second.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from struct import unpack_from

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=8192)
def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (seed 0x9747b28c), unsigned 32 bit."""
    length = len(data)
    words = length >> 2
    h = 0x9747B28C ^ length
    for word in unpack_from(f"<{words}I", data):
        k = (word * _M) & _MASK
        h = ((h * _M) & _MASK) ^ (((k ^ (k >> 24)) * _M) & _MASK)
    tail = length & 3
    if tail:
        h = ((h ^ int.from_bytes(data[words << 2 :], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of that many partitions, as Kafka's own producers choose it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Partitioner:
    """The same, in the shape aiokafka calls."""

    def __call__(self, key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
        if key is None:
            return random.choice(available or all_partitions)  # noqa: S311 - spreading load, no secret
        return all_partitions[partition_for(key, len(all_partitions))]
