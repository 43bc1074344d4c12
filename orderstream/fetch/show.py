"""What `orderstream intake pending` shows: the orders that wait for their detail, from what Kafka holds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from orderstream import access, kafka, times, topics
from orderstream.channels import registry
from orderstream.errors import NoBroker
from orderstream.fetch.share import parked_key
from orderstream.settings import Settings
from orderstream.wire import EnvelopeError, read_pending

COLUMNS = ["订单 order", "渠道 channel", "店铺 shop", "自 since", "次数 attempts", "最后的原因 last error"]


class Waits(msgspec.Struct, frozen=True):
    """One record. order: its id, or the raw record's hash. since: ms UTC of its receipt. error: "" where none was told yet."""

    order: str
    channel: str
    shop: str
    since: int
    attempts: int
    error: str


def pending(settings: Settings, brokers: str, channel: str | None = None, shop: str | None = None) -> list[Waits]:
    """All that waits, longest first. Raises NoBroker, NotAdmitted, TopicsUnfit.

    What was fetched in the last second may still be among them: how far the processes are stands in Kafka no sooner.
    """
    client = access.client(settings)
    # before what is parked: an order parked meanwhile is met there, and none is in neither
    unread = asyncio.run(_unread(settings, brokers, topics.name("orders.pending", settings.topic_prefix)))
    parked: dict[bytes, kafka.Message] = {}
    for message in kafka.scan(brokers, [topics.name("orders.parked", settings.topic_prefix)], client=client):
        if message.value is None:
            parked.pop(message.key or b"", None)
        else:
            parked[message.key or b""] = message
    fresh = [m for m in unread if parked_key(m.partition, m.offset, m.timestamp) not in parked]
    found = [one for message in (*parked.values(), *fresh) if (one := _waits(message)) is not None]
    return sorted(
        (one for one in found if channel in (None, one.channel) and shop in (None, one.shop)),
        key=lambda one: (one.since, one.order),
    )


async def _unread(settings: Settings, brokers: str, topic: str) -> list[kafka.Message]:
    """What the fetch processes have not said to be done: all that follows the lowest record under way, of each partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, group_id=settings.topic_prefix + "fetch", enable_auto_commit=False,
        auto_offset_reset="earliest", **access.client(settings),
    )  # fmt: skip
    found: list[kafka.Message] = []
    try:
        await consumer.start()
        parts = [TopicPartition(topic, at) for at in range(settings.partitions)]
        # it begins where the group is, without joining it
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        while [part for part in parts if await consumer.position(part) < ends[part]]:
            for part, records in (await consumer.getmany(timeout_ms=500)).items():
                found += [
                    kafka.Message(topic, part.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records
                ]
    except KafkaError as error:
        raise access.denied(error) or NoBroker(access.silent(brokers)) from None
    finally:
        await consumer.stop()
    return found


def _waits(message: kafka.Message) -> Waits | None:
    headers = dict(message.headers)
    try:
        raw = read_pending(message.headers, message.value, message.timestamp)
        attempts = int(headers.get("attempts", b"0"))
    except (EnvelopeError, ValueError):
        return None
    channel = registry().get(raw.channel)
    order = None if channel is None else channel.key(raw.shop, raw.body, raw.headers)
    return Waits(
        order or "—", raw.channel, raw.shop, raw.received_at, attempts, headers.get("error", b"").decode(errors="replace")
    )


def title(found: list[Waits]) -> str:
    return f"等待详情 {len(found)} · waiting for their detail"


def rows(found: list[Waits], limit: int) -> list[tuple[str, ...]]:
    return [
        (one.order, one.channel, one.shop, times.text(one.since), str(one.attempts), one.error or "—") for one in found[:limit]
    ]


def as_json(found: list[Waits], limit: int) -> str:
    """The same for programs."""
    said: dict[str, Any] = {"count": len(found), "longest": [msgspec.to_builtins(one) for one in found[:limit]]}
    return json.dumps(said, ensure_ascii=False)
