"""Polling: each shop's platform is asked what has changed, and what has not been seen comes in like a push.

Law: progress is on platforms.polled and moves when all that was listed is in Kafka; each question reaches back behind it, since
platforms list late and clocks differ. A shop that is polled for the first time begins then: what it sold before is somebody
else's. Reason: webhooks are lost, and nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from aiokafka.errors import KafkaError

from orderstream.channels import Channel, registry
from orderstream.fetch.lane import Lane
from orderstream.fetch.outlet import Outlet, Polled
from orderstream.fetch.seen import Seen
from orderstream.fetch.share import Share
from orderstream.metrics import Metrics
from orderstream.orders import Raw
from orderstream.platforms import PlatformError
from orderstream.platforms.client import Client, Resting
from orderstream.platforms.limits import backoff
from orderstream.times import HOUR, MINUTE

log = logging.getLogger("orderstream.fetch")

OVERLAP = 10 * MINUTE
"""How far a question reaches back behind the last one (ms)."""
SLICE = HOUR
"""The longest stretch that is asked for at once (ms): after an outage progress is kept in between."""
SETTLE_SECONDS = 60.0
"""What is younger is left to the webhooks and their details, which are on their way."""
LOOK_SECONDS = 0.2
AT_ONCE = 50
"""Records that are brought in before the next are listed."""


class Poller:
    """Polls the shops whose names fall into owned partitions. share_of: the partition's books of an account, while owned."""

    def __init__(
        self, outlet: Outlet, seen: Seen, metrics: Metrics, share_of: Callable[[str], Share | None], lanes: Mapping[str, Lane]
    ) -> None:
        self._outlet = outlet
        self._seen = seen
        self._metrics = metrics
        self._share_of = share_of
        self._lanes = lanes
        self._chance = random.Random()  # noqa: S311  spreads questions, hides nothing

    async def run(self, lane: Lane) -> None:
        """Polls one shop whenever it is due, until cancelled."""
        due, failures, share = 0.0, 0, None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before, share = share, self._share_of(lane.name)
            client = lane.client
            if share is not before:
                due = 0.0
            if client is None or share is None or not share.loaded or client.account.poll_seconds == 0 or time.monotonic() < due:
                continue
            every = client.account.poll_seconds
            try:
                behind = await self._round(lane, client, share)
            except (PlatformError, KafkaError) as error:
                # that it rests is no new failure
                failures += not isinstance(error, Resting)
                self._metrics.polls.labels(lane.channel, lane.shop, "failed").inc()
                due = time.monotonic() + backoff(failures, min(5.0, every / 4), every, self._chance)
            else:
                failures = 0
                self._metrics.polls.labels(lane.channel, lane.shop, "ok").inc()
                due = time.monotonic() + (0 if behind else every * self._chance.uniform(0.9, 1.1))

    async def _round(self, lane: Lane, client: Client, share: Share) -> bool:
        """Asks once; True where more is to be asked for at once."""
        now = _now()
        until = now - int(min(SETTLE_SECONDS, client.account.poll_seconds / 5) * 1000)
        done = share.polled.get(lane.name)
        if done is None:
            await self._progress(lane, share, until)
            return False
        since, end = done - OVERLAP, min(until, done + SLICE)
        if end <= done:
            return False
        await self._seen.refresh(self._names(), min(since, *(s.polled[n] - OVERLAP for n, s in self._owned() if n in s.polled)))
        channel, missed, batch = registry()[lane.channel], 0, list[Raw]()
        try:
            async for one in client.platform.changed(client, since, end):
                raw = Raw(lane.channel, lane.shop, _now(), one.body, dict(one.headers), "poll", one.detail)
                if not self._seen.has(channel, raw, one.changed_at):
                    batch.append(raw)
                    missed += 1
                if len(batch) >= AT_ONCE:
                    await self._bring(channel, batch)
        except KafkaError:
            raise
        except PlatformError:
            # what was listed is good, whatever became of the next page
            await self._bring(channel, batch)
            raise
        except Exception as bug:  # noqa: BLE001  a shop whose list cannot be read stops no other
            # no sentence of it: it may hold what was being read
            log.error("polling %s: %s is a bug: the shop is not reconciled", lane.name, type(bug).__name__)  # noqa: TRY400
            raise PlatformError(f"bug-{type(bug).__name__}") from None
        finally:
            self._metrics.polled_in.labels(lane.channel, lane.shop).inc(missed)
        await self._bring(channel, batch)
        if not share.lost:
            await self._progress(lane, share, end)
        return end < until

    async def _bring(self, channel: Channel, batch: list[Raw]) -> None:
        await asyncio.gather(*(self._outlet.bring(channel, raw) for raw in batch))
        batch.clear()

    async def _progress(self, lane: Lane, share: Share, until: int) -> None:
        await self._outlet.polled(share.partition, Polled(lane.name, until, _now()))
        share.polled[lane.name] = until

    def _owned(self) -> list[tuple[str, Share]]:
        found = ((name, self._share_of(name)) for name, lane in self._lanes.items() if lane.client is not None)
        return [(name, share) for name, share in found if share is not None]

    def _names(self) -> set[str]:
        return {name for name, _ in self._owned()}


def _now() -> int:
    return time.time_ns() // 1_000_000
