"""Small compacted topics that every worker reads whole: catalogues, rule packs.

A reference is read to its end before the app processes its first record, and followed from then on. It is no part of the
consumer group: each worker reads every partition.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

OnRecord = Callable[[bytes | None, bytes | None, int], None]


class Reference:
    """One such topic. `on_record(key, value, offset)` is called on the event loop; a value of None deletes the key.

    Order holds within a key (a partition), not between keys of different partitions. An exception in `on_record` stops the worker.
    """

    def __init__(self, topic: str, on_record: OnRecord) -> None:
        self.topic = topic
        self.read = 0
        self._on_record = on_record
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self, brokers: str, client: Mapping[str, Any] | None = None) -> None:
        """Read the topic as far as it reaches now. Given up halfway, it may be started again and repeats what it read."""
        try:
            await self._start(brokers, client)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, brokers: str, client: Mapping[str, Any] | None) -> None:
        self._consumer = consumer = AIOKafkaConsumer(
            bootstrap_servers=brokers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
            **(client or {}),
        )
        await consumer.start()
        partitions = await self._partitions(consumer)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        left = {tp for tp in partitions if ends[tp] > await consumer.position(tp)}
        while left:
            await self._take(1000)
            # the position also passes the holes that compaction leaves at the end
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}

    async def follow(self) -> None:
        """Go on for ever."""
        while True:
            await self._take(5000)

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        deadline = asyncio.get_running_loop().time() + 30.0
        while True:
            await consumer._client._wait_on_metadata(self.topic)  # noqa: SLF001 - there is no public way to ask for one topic
            numbers = consumer.partitions_for_topic(self.topic)
            if numbers:
                return [TopicPartition(self.topic, number) for number in sorted(numbers)]
            if asyncio.get_running_loop().time() > deadline:
                raise LookupError(f"the broker tells no partitions of {self.topic}")
            await asyncio.sleep(0.1)

    async def _take(self, timeout_ms: int) -> None:
        assert self._consumer is not None
        for records in (await self._consumer.getmany(timeout_ms=timeout_ms)).values():
            for record in records:
                self._on_record(record.key, record.value, record.offset)
            self.read += len(records)
