"""What of some shops' orders has come in, read from Kafka: so that a poll brings in what the webhooks missed and nothing else.

Law: a listed change has been seen when the order is still waiting for its detail, which will then hold it; when the same bytes
came in; or when a record of the order is as new, by the platform's own clock. Times of two clocks are never compared. Reason: a
change that is taken for seen and is not is lost in silence; one that comes in twice is one verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from orderstream import access, topics
from orderstream.channels import Channel, registry
from orderstream.orders import Order, Raw
from orderstream.settings import Settings
from orderstream.times import HOUR, MINUTE
from orderstream.wire import EnvelopeError, read_pending, read_raw

MARGIN = 5 * MINUTE
"""How far Kafka's clock may be from the platforms' (ms): records are looked for that long before the change."""
KEEP = 24 * HOUR
"""How long what was seen is remembered (ms), behind the oldest question."""
BREATH = 50
"""Records that are parsed before others have their turn."""


class Seen:
    """The index of one process. `refresh` brings it up to date; `has` asks."""

    def __init__(self, address: str, settings: Settings, group: str) -> None:
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=address, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
            **access.client(settings),
        )  # fmt: skip
        self._lock = asyncio.Lock()
        self._names: frozenset[str] = frozenset()
        self._since = 0
        self._newest: dict[str, tuple[int, int]] = {}
        self._bodies: dict[int, int] = {}
        self._parked: dict[bytes, str] = {}
        self._waiting: set[str] = set()

    async def start(self) -> None:
        await self._consumer.start()

    async def stop(self) -> None:
        await self._consumer.stop()

    def has(self, channel: Channel, raw: Raw, changed_at: int | None) -> bool:
        """Whether a listed change has come in. raw: what the list made of it; changed_at: ms by the platform's clock."""
        order = channel.key(raw.shop, raw.body, raw.headers)
        if order is None:
            return False
        if channel.thin(raw):
            if order in self._waiting:
                return True
            if changed_at is None:
                return False
        elif not isinstance(channel.parse(raw), Order):
            # a refund of its own, or what is none: nothing of the order tells whether it came
            return _print(order, raw) in self._bodies
        if _print(order, raw) in self._bodies:
            return True
        newest = self._newest.get(order)
        return newest is not None and changed_at is not None and newest[0] >= changed_at

    async def refresh(self, names: Iterable[str], since: int) -> None:
        """Reads what came in meanwhile. names: the accounts that will be asked for; since: ms, the oldest change of interest."""
        async with self._lock:
            wanted = frozenset(names)
            if not wanted <= self._names or since < self._since:
                self._names, self._since = wanted, since
                await self._rewind()
            await self._tail()
            self._forget(since - KEEP)

    async def _rewind(self) -> None:
        self._newest, self._bodies, self._parked = {}, {}, {}
        prefix, count = self._settings.topic_prefix, self._settings.partitions
        raws = [topics.raw(channel, prefix) for channel in {name.partition(":")[0] for name in self._names}]
        waiting = [topics.name("orders.parked", prefix), topics.name("orders.pending", prefix)]
        self._consumer.assign([TopicPartition(name, at) for name in (*raws, *waiting) for at in range(count)])
        parts = [TopicPartition(name, at) for name in raws for at in range(count)]
        places = await self._consumer.offsets_for_times(dict.fromkeys(parts, max(0, self._since - MARGIN)))
        ends = await self._consumer.end_offsets(parts)
        for part, place in places.items():
            self._consumer.seek(part, ends[part] if place is None else place.offset)
        await self._consumer.seek_to_beginning(*(TopicPartition(waiting[0], at) for at in range(count)))

    async def _tail(self) -> None:
        pending = topics.name("orders.pending", self._settings.topic_prefix)
        parked = topics.name("orders.parked", self._settings.topic_prefix)
        parts = self._consumer.assignment()
        pending_now: set[str] = set()
        for part in parts:
            if part.topic == pending:
                # what is before it is finished: its order is in a raw record, or parked
                committed = await self._consumer.committed(part)
                if committed is None:
                    await self._consumer.seek_to_beginning(part)
                else:
                    self._consumer.seek(part, committed)
        ends = await self._consumer.end_offsets(parts)
        left = [part for part in parts if await self._consumer.position(part) < ends[part]]
        while left:
            got = await self._consumer.getmany(*left, timeout_ms=500)
            for part, records in got.items():
                for number, record in enumerate(records):
                    if part.topic == pending:
                        pending_now.add((record.key or b"").decode())
                    elif part.topic == parked:
                        self._park(record)
                    else:
                        self._come(record)
                        if number % BREATH == 0:
                            await asyncio.sleep(0)
            left = [part for part in left if await self._consumer.position(part) < ends[part]]
        self._waiting = pending_now | set(self._parked.values())

    def _park(self, record: Any) -> None:
        if record.value is None:
            self._parked.pop(record.key, None)
            return
        for raw in _whole(lambda: read_pending(record.headers, record.value, record.timestamp)):
            channel = registry().get(raw.channel)
            order = None if channel is None else channel.key(raw.shop, raw.body, raw.headers)
            if order is not None:
                self._parked[record.key] = order

    def _come(self, record: Any) -> None:
        for raw in _whole(lambda: read_raw(record.topic, record.headers, record.value, record.timestamp)):
            if f"{raw.channel}:{raw.shop}" not in self._names:
                continue
            order = (record.key or b"").decode()
            self._bodies[_print(order, raw)] = record.timestamp
            parsed = registry()[raw.channel].parse(raw)
            if isinstance(parsed, Order):
                at = parsed.created_at if parsed.updated_at is None else parsed.updated_at
                self._newest[order] = (max(at, self._newest.get(order, (0, 0))[0]), record.timestamp)

    def _forget(self, before: int) -> None:
        self._newest = {order: said for order, said in self._newest.items() if said[1] >= before}
        self._bodies = {body: at for body, at in self._bodies.items() if at >= before}


def _print(order: str, raw: Raw) -> int:
    """Tells one body from another, within this process."""
    return hash((order, raw.body))


def _whole(read: Any) -> Iterator[Raw]:
    """The record, where its envelope is whole."""
    try:
        yield read()
    except EnvelopeError:
        return
