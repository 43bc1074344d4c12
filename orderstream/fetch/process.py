"""The fetch process: owns partitions of orders.pending, fetches what waits on them, and polls the shops that fall into them.

Law: what is owned is owned through the consumer group alone, and what is known of it was read from Kafka after it was assigned. So
a process that dies is replaced by whoever gets its partitions, from what Kafka has.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
import traceback
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from orderstream import access, topics
from orderstream.channels import Channel
from orderstream.channels import registry as channels
from orderstream.channels.reading import MAX_BODY
from orderstream.fetch.lane import Lane
from orderstream.fetch.outlet import Outlet, Polled
from orderstream.fetch.poll import Poller
from orderstream.fetch.pull import Puller
from orderstream.fetch.seen import Seen
from orderstream.fetch.share import Item, Share, parked_key
from orderstream.intake.envelope import key_of, partition_of
from orderstream.metrics import Metrics
from orderstream.normalise import Rejection
from orderstream.orders import Raw, Rejected
from orderstream.platforms import Gone, Transient, Unauthorised
from orderstream.platforms import registry as platforms
from orderstream.platforms.accounts import Accounts
from orderstream.platforms.client import Client, Resting, connections
from orderstream.platforms.limits import backoff
from orderstream.process import joined, logs, shown, started, told_to_end
from orderstream.settings import Settings
from orderstream.wire import EnvelopeError, read_pending

log = logging.getLogger("orderstream.fetch")

COMMIT_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""How long calls under way may take when we are told to stop; what they do not finish comes again."""
AGAIN_BASE, AGAIN_LONGEST = 5.0, 300.0
"""Seconds between two attempts for one parked order; a platform that rests is not asked at all."""
NO_ACCOUNT = "no-account"
_STATES = {"closed": 0, "half-open": 1, "open": 2}

_polled = msgspec.json.Decoder(Polled).decode


def group(settings: Settings) -> str:
    """The consumer group of all fetch processes of an installation."""
    return settings.topic_prefix + "fetch"


class Fetch:
    """One process. `run` until told to stop."""

    def __init__(self, settings: Settings, address: str, metrics: Metrics) -> None:
        self._settings = settings
        self._address = address
        self._metrics = metrics
        self._accounts = Accounts(settings)
        self._known: dict[str, Any] = {}
        self._http = connections()
        self._outlet = Outlet(address, settings)
        self._seen = Seen(address, settings, group(settings))
        self._shares: dict[int, Share] = {}
        self._lanes: dict[str, Lane] = {}
        self._runners: list[asyncio.Task[None]] = []
        self._poller = Poller(self._outlet, self._seen, metrics, self._share_of, self._lanes)
        self._puller = Puller(self._outlet, metrics, self._share_of, self._lanes)
        self._chance = random.Random()  # noqa: S311  spreads attempts, hides nothing
        self._pending, self._parked, self._polled = (
            topics.name(name, settings.topic_prefix) for name in ("orders.pending", "orders.parked", "platforms.polled")
        )
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=address,
            group_id=group(settings),
            client_id="orderstream-fetch",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # whoever owns a partition of one of the three topics owns it of all of them
            partition_assignment_strategy=(RangePartitionAssignor,),
            # the broker's own least: so long do a dead process's orders wait for another
            session_timeout_ms=6_000,
            heartbeat_interval_ms=2_000,
            **access.client(settings),
        )
        # reads the bytes of what is parked, by their place
        self._shelf = AIOKafkaConsumer(
            bootstrap_servers=address, enable_auto_commit=False, max_partition_fetch_bytes=65_536, **access.client(settings)
        )
        self._reading = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises NoBroker, NotAdmitted; any other error is a bug, after which nothing was committed wrongly."""
        async with contextlib.aclosing(self._http), started(self._address, self._outlet, self._consumer, self._shelf, self._seen):
            self._consumer.subscribe([self._pending, self._parked, self._polled], listener=_Listener(self))
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._read(stop)
                await self._settle()
            await self._commit()

    # -- what comes from Kafka ---------------------------------------------------------------------------------------

    async def _read(self, stop: asyncio.Event) -> None:
        ready, next_second = False, 0.0
        self._look_at_accounts()
        while not stop.is_set():
            got = await self._consumer.getmany(timeout_ms=100, max_records=500)
            for part, records in got.items():
                share = self._shares.get(part.partition)
                if share is not None:
                    await self._take(share, part.topic, records)
            await self._load()
            if not ready and self._shares:
                ready = True
                print("取详情服务就绪 · fetch is ready", flush=True)  # noqa: T201  whoever started us waits for this line
            if time.monotonic() >= next_second:
                next_second = time.monotonic() + COMMIT_SECONDS
                await self._commit()
                self._look_at_accounts()
                self._show()

    async def _take(self, share: Share, topic: str, records: list[Any]) -> None:
        if topic == self._pending:
            await self._fresh(share, records)
            return
        for record in records:
            if topic == self._parked:
                self._waits(share, record)
            elif record.value is not None:
                said = _polled(record.value)
                share.polled[said.account] = said.until

    async def _fresh(self, share: Share, records: list[Any]) -> None:
        full = []
        for record in records:
            share.progress.take(record.offset)
            key = parked_key(record.partition, record.offset, record.timestamp)
            try:
                raw = read_pending(record.headers, record.value, record.timestamp)
            except EnvelopeError as error:
                await self._refuse(share, _strange(record, str(error)))
                share.progress.done(record.offset)
                continue
            lane = self._lane(f"{raw.channel}:{raw.shop}")
            item = Item(share, key, record.offset, raw.received_at, raw)
            if lane.client is None:
                full.append(self._put_off(lane, item, raw, 0, NO_ACCOUNT))
            elif lane.full or lane.resting:
                full.append(self._put_off(lane, item, raw, 0, ""))
            else:
                lane.add(item)
        await asyncio.gather(*full)

    def _waits(self, share: Share, record: Any) -> None:
        if record.value is None:
            share.unpark(record.key)
            return
        headers = dict(record.headers)
        try:
            raw = read_pending(record.headers, None, record.timestamp)
            attempts = int(headers.get("attempts", b"0"))
        except ValueError:
            log.warning("orders.parked %d@%d is nobody's of ours and is passed over", record.partition, record.offset)
            return
        error = headers.get("error", b"").decode(errors="replace")
        item = Item(share, record.key, record.offset, raw.received_at, None, attempts, error)
        share.park(item)
        wait = backoff(attempts - 1, AGAIN_BASE, AGAIN_LONGEST, self._chance) if attempts else 0
        self._lane(f"{raw.channel}:{raw.shop}").wait(item, wait)

    async def _load(self) -> None:
        """Sees whether the books of newly owned partitions have been read to their ends."""
        for share in [*self._shares.values()]:
            if share.loaded or share.lost:
                continue
            parts = [TopicPartition(topic, share.partition) for topic in (self._parked, self._polled)]
            try:
                positions = [await self._consumer.position(part) for part in parts]
                ends = await self._consumer.end_offsets(parts)
            except (KafkaError, AssertionError):
                # taken from us in this moment
                return
            if all(at >= ends[part] for part, at in zip(parts, positions, strict=True)):
                share.loaded = True
                for lane in self._lanes.values():
                    lane.look()

    async def _commit(self) -> None:
        offsets = {
            TopicPartition(self._pending, share.partition): share.progress.safe
            for share in self._shares.values()
            if share.progress.safe is not None and not share.lost
        }
        if offsets:
            # refused amid a rebalance: then its new owner does some again
            with contextlib.suppress(KafkaError):
                await self._consumer.commit(offsets)

    async def _settle(self) -> None:
        """Starts nothing more, and gives what is under way a moment."""
        for runner in self._runners:
            runner.cancel()
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and not all(lane.idle for lane in self._lanes.values()):  # noqa: ASYNC110  once in a life
            await asyncio.sleep(0.02)
        for lane in self._lanes.values():
            lane.cancel()

    # -- one order ---------------------------------------------------------------------------------------------------

    async def _work(self, lane: Lane, item: Item) -> None:
        """Fetches one order's detail, or puts it off."""
        try:
            raw = item.raw or await self._bytes(item)
        except KafkaError:
            lane.wait(item, COMMIT_SECONDS)
            return
        client = lane.client
        if raw is None or item.share.lost:
            return
        if client is None:
            await self._put_off(lane, item, raw, item.attempts, NO_ACCOUNT)
            return
        channel = channels()[raw.channel]
        order = channel.key(raw.shop, raw.body, raw.headers)
        if order is None:
            await self._never(item, channel, raw, "bad-order-id", "记录没有指明订单 · the record names no order")
            return
        try:
            detail = await client.platform.detail(client, order.split(":", 2)[2])
        except Gone as error:
            said = f"平台称没有此订单（{error.code}） · the platform has no such order ({error.code})"
            self._count(lane, "gone")
            await self._never(item, channel, raw, "no-such-order", said)
        except Resting:
            await self._put_off(lane, item, raw, item.attempts, item.error)
        except (Transient, Unauthorised) as error:
            self._count(lane, "unauthorised" if isinstance(error, Unauthorised) else "failed")
            await self._put_off(lane, item, raw, item.attempts + 1, error.code)
        except Exception as bug:  # noqa: BLE001  the last line before an order would be lost
            # one order's bug is not another's: it stays where people see it, and no sentence of it, which may hold the order
            where = traceback.extract_tb(bug.__traceback__)[-1]
            log.error("%s: %s in %s:%d is a bug", lane.name, type(bug).__name__, where.name, where.lineno or 0)  # noqa: TRY400
            self._count(lane, "failed")
            await self._put_off(lane, item, raw, item.attempts + 1, f"bug-{type(bug).__name__}")
        else:
            if not detail:
                await self._put_off(lane, item, raw, item.attempts + 1, "empty-answer")
            elif len(detail) > MAX_BODY:
                await self._never(item, channel, raw, "too-large", "详情超过 1 MB · the detail is over 1 MB")
            else:
                await self._outlet.bring(channel, msgspec.structs.replace(raw, detail=detail))
                self._count(lane, "fetched")
                await self._finish(item)

    async def _bytes(self, item: Item) -> Raw | None:
        """The record of a parked item; None where it has been overtaken."""
        part = TopicPartition(self._parked, item.share.partition)
        async with self._reading:
            self._shelf.assign([part])
            self._shelf.seek(part, item.offset)
            while not item.gone and not item.share.lost:
                for record in (await self._shelf.getmany(part, timeout_ms=1000, max_records=1)).get(part, ()):
                    if record.offset != item.offset:
                        return None
                    return read_pending(record.headers, record.value, record.timestamp)
        return None

    async def _put_off(self, lane: Lane, item: Item, raw: Raw, attempts: int, error: str) -> None:
        """To orders.parked, from where it comes back to its lane; its place on orders.pending is done with."""
        if item.share.lost:
            return
        if item.raw is None and (attempts, error) == (item.attempts, item.error):
            lane.wait(item, 0)
            return
        await self._outlet.park(item.share.partition, item.key, raw, attempts, error)
        if item.raw is not None:
            item.share.progress.done(item.offset)

    async def _never(self, item: Item, channel: Channel, raw: Raw, code: str, reason: str) -> None:
        """To orders.rejected, with the bytes as they came."""
        key = key_of(channel, raw)
        found = channel.parse(raw) if code == "bad-order-id" else None
        if isinstance(found, Rejected):
            code, reason = found.code, found.reason
        rejection = Rejection(
            key, raw.channel, raw.shop, raw.received_at, code, reason, None, "", raw.verified, raw.headers, raw.body
        )
        await self._refuse(item.share, rejection)
        await self._finish(item)

    async def _refuse(self, share: Share, rejection: Rejection) -> None:
        self._metrics.reject(rejection.channel, rejection.code, len(rejection.body))
        await self._outlet.reject(share.partition, rejection)

    async def _finish(self, item: Item) -> None:
        """Its raw record or its rejection is in Kafka."""
        if item.raw is None:
            await self._outlet.unpark(item.share.partition, item.key)
        else:
            item.share.progress.done(item.offset)

    # -- shops -------------------------------------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._client(name), self._work)
            self._runners += [
                self._tasks.create_task(lane.run(self._tasks)),
                self._tasks.create_task(self._poller.run(lane)),
                self._tasks.create_task(self._puller.run(lane)),
            ]
        return lane

    def _client(self, name: str) -> Client | None:
        account = self._known.get(name)
        if account is None or account.channel not in channels() or account.channel not in platforms():
            return None
        client = Client(self._http, platforms()[account.channel], account)
        client.share(self._part)
        return client

    def _look_at_accounts(self) -> None:
        """Takes up what changed in the accounts: a new key, another rate, a shop that came or went."""
        known = dict(self._accounts())
        before, self._known = self._known, known
        for name in known.keys() | before.keys():
            if known.get(name) != before.get(name):
                lane = self._lane(name)
                lane.client = self._client(name)
                lane.look()

    @property
    def _part(self) -> float:
        """The part of all partitions, and of each account's rate, that is ours; one partition's before we own any."""
        return max(1, len(self._shares)) / max(self._settings.partitions, len(self._shares))

    def _share_of(self, name: str) -> Share | None:
        return self._shares.get(partition_of(name, self._settings.partitions))

    # -- what is shown -----------------------------------------------------------------------------------------------

    def _count(self, lane: Lane, outcome: str) -> None:
        self._metrics.fetches.labels(lane.channel, lane.shop, outcome).inc()

    def _show(self) -> None:
        now, ms = time.monotonic(), time.time_ns() // 1_000_000
        waiting: dict[str, int] = dict.fromkeys(self._lanes, 0)
        oldest: dict[str, int] = {}
        for lane in self._lanes.values():
            for item in lane.items():
                waiting[lane.name] += 1
                oldest[lane.name] = min(item.since, oldest.get(lane.name, ms))
        for name, lane in self._lanes.items():
            labels = lane.channel, lane.shop
            self._metrics.fetch_pending.labels(*labels).set(waiting[name])
            self._metrics.fetch_oldest.labels(*labels).set(max(0, ms - oldest.get(name, ms)) / 1000)
            if lane.client is not None:
                self._metrics.breaker.labels(*labels).set(_STATES[lane.client.breaker.state(now)])
            share = self._share_of(name)
            if share is not None and name in share.polled and lane.client is not None and lane.client.account.poll_seconds:
                self._metrics.poll_age.labels(*labels).set(max(0, ms - share.polled[name]) / 1000)
            else:
                self._metrics.gone(self._metrics.poll_age, *labels)
        for partition in self._shares:
            part = TopicPartition(self._pending, partition)
            end = self._consumer.highwater(part)
            following = self._shares[partition].progress.following
            if end is not None and following is not None:
                self._metrics.lag.labels("orders.pending", str(partition)).set(max(0, end - following))

    # -- rebalances --------------------------------------------------------------------------------------------------

    async def lose(self) -> None:
        """Every partition is given up before it is assigned anew."""
        await self._commit()
        for partition, share in self._shares.items():
            share.lost = True
            self._metrics.gone(self._metrics.lag, "orders.pending", str(partition))
        self._shares = {}

    def own(self, partitions: set[int]) -> None:
        """These are ours from now on."""
        self._shares = {partition: Share(partition) for partition in partitions}
        for lane in self._lanes.values():
            if lane.client is not None:
                lane.client.share(self._part)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        del revoked
        await self._fetch.lose()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._fetch.own({part.partition for part in assigned})


def _strange(record: Any, why: str) -> Rejection:
    """A record on orders.pending that nobody of ours wrote."""
    value = record.value or b""
    name = "raw:" + hashlib.sha256(value).hexdigest()
    return Rejection(name, "pending", "", record.timestamp, "bad-envelope", why, None, "", "none", {}, value)


def run(settings: Settings) -> int:
    """Runs the process until SIGTERM or Ctrl-C; its exit code. Raises UserError."""
    logs(settings, "aiokafka")
    settings = joined(settings)
    metrics = Metrics()
    served = shown(metrics, settings)

    async def until_told() -> None:
        await Fetch(settings, str(settings.brokers), metrics).run(told_to_end())

    try:
        asyncio.run(until_told())
    finally:
        served.close()
    return 0
