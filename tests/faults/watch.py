"""What comes out of the installation, and when: the harness's clock for "it goes on".

Nothing is judged here: the reconciliation reads the topics anew when all is over.
"""

from __future__ import annotations

import time

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from orderstream import topics
from orderstream.settings import Settings


class _Named(msgspec.Struct):
    order_id: str


_named = msgspec.json.Decoder(_Named).decode


class Watch:
    """Which orders have a verdict or a reject, and since when (monotonic seconds)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.decided: dict[str, float] = {}

    async def run(self) -> None:
        """Follow for ever, also over a broker's restart."""
        names = [topics.name(t, self._settings.topic_prefix) for t in ("orders.verdicts", "orders.rejected")]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.brokers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        consumer.assign([TopicPartition(name, p) for name in names for p in range(self._settings.partitions)])
        try:
            while True:
                try:
                    batches = await consumer.getmany(timeout_ms=500)
                except KafkaError:
                    continue
                now = time.monotonic()
                for records in batches.values():
                    for record in records:
                        if record.value is not None:
                            self.decided.setdefault(_named(record.value).order_id, now)
        finally:
            await consumer.stop()
