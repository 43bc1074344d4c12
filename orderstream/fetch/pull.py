"""Pulling: where a platform keeps a queue instead of pushing, its messages are taken, kept in Kafka, and only then confirmed.

Law: a message is confirmed when every in-sync replica has it, and not before. Whatever ends between the two, the platform sends it
again, and the line behind takes the repeat for one. Reason: a confirmation is the platform's leave to forget.

The queue may be an app's and hold several shops' messages: each goes to the shop whose account names its seller (`user_id`), to the
account's own where that names none. One of a shop without an account is left where it is, and comes again when it has one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from orderstream.channels import registry
from orderstream.fetch.lane import Lane
from orderstream.fetch.outlet import Outlet
from orderstream.fetch.share import Share
from orderstream.metrics import Metrics
from orderstream.orders import Raw
from orderstream.platforms import PlatformError, Pulled, Queue
from orderstream.platforms.client import Client, Resting
from orderstream.platforms.limits import backoff

log = logging.getLogger("orderstream.fetch")

LOOK_SECONDS = 0.2
EMPTY_SECONDS = 1.0
"""How long an empty queue is left alone: each question is a call of the account's rate."""
AGAIN_BASE, AGAIN_LONGEST = 1.0, 60.0
"""Seconds between two attempts while the platform does not answer."""
HOW = "pull"
"""How the sender was proved: we asked the platform itself, with the account's signature."""


class Puller:
    """Pulls for the shops whose names fall into owned partitions. share_of: the partition's books of an account, while owned."""

    def __init__(
        self, outlet: Outlet, metrics: Metrics, share_of: Callable[[str], Share | None], lanes: Mapping[str, Lane]
    ) -> None:
        self._outlet = outlet
        self._metrics = metrics
        self._share_of = share_of
        self._lanes = lanes
        self._chance = random.Random()  # noqa: S311  spreads questions, hides nothing
        self._strange: set[tuple[str, str | None]] = set()

    async def run(self, lane: Lane) -> None:
        """Pulls one shop's queue, until cancelled; nothing where its platform has none."""
        due, failures = 0.0, 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while time.monotonic() >= due and (client := self._client(lane)) is not None:
                try:
                    more = await self._round(lane, client)
                except PlatformError as error:
                    failures += not isinstance(error, Resting)
                    self._metrics.pulled.labels(lane.channel, lane.shop, "failed").inc()
                    due = time.monotonic() + backoff(failures, AGAIN_BASE, AGAIN_LONGEST, self._chance)
                else:
                    failures = 0
                    due = time.monotonic() + (0 if more else EMPTY_SECONDS)

    def _client(self, lane: Lane) -> Client | None:
        """The client to pull with, where this is ours to do now."""
        client, share = lane.client, self._share_of(lane.name)
        if client is None or share is None or not share.loaded or share.lost or not isinstance(client.platform, Queue):
            return None
        return client

    async def _round(self, lane: Lane, client: Client) -> bool:
        """Takes, keeps, confirms; True where there may be more."""
        queue = client.platform
        assert isinstance(queue, Queue)
        messages = await queue.pull(client)
        shops = {one.id: self._shop(lane, client, one) for one in messages}
        kept = [one for one in messages if shops[one.id] is not None]
        channel = registry()[lane.channel]
        now = time.time_ns() // 1_000_000
        await asyncio.gather(
            *(self._outlet.bring(channel, Raw(lane.channel, shops[one.id] or "", now, one.body, {}, HOW)) for one in kept)
        )
        # what stands above returns when Kafka has them all; an error in it never comes here
        if kept:
            await queue.confirm(client, [one.id for one in kept])
            self._metrics.pulled.labels(lane.channel, lane.shop, "kept").inc(len(kept))
        return bool(kept)

    def _shop(self, lane: Lane, client: Client, one: Pulled) -> str | None:
        """The shop that a message is about; None where no account names its seller."""
        if one.seller is None or "user_id" not in client.account.extra or client.account.extra["user_id"] == one.seller:
            return lane.shop
        for other in self._lanes.values():
            if other.channel == lane.channel and other.client is not None:
                account = other.client.account
                if account.app_key == client.account.app_key and account.extra.get("user_id") == one.seller:
                    return other.shop
        self._metrics.pulled.labels(lane.channel, lane.shop, "strange").inc()
        if (lane.name, one.seller) not in self._strange:
            self._strange.add((lane.name, one.seller))
            log.warning("%s: messages of seller %s stay in the queue: no account has it as user_id", lane.name, one.seller)
        return None
