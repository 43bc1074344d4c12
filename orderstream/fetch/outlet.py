"""The way into Kafka: one idempotent producer, each record acknowledged by every in-sync replica before anything follows from it.

Law: a send is tried until it is acknowledged. Where it never can be (a right is missing, the producer is fenced) the process
ends: what it had taken is not committed and comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from orderstream import access, topics
from orderstream.broker import MAX_MESSAGE
from orderstream.channels import Channel
from orderstream.intake.envelope import Parcel, parcel
from orderstream.normalise import Rejection
from orderstream.orders import Raw
from orderstream.settings import Settings
from orderstream.wire import pending_headers

log = logging.getLogger("orderstream.fetch")

AGAIN_SECONDS = 0.5
STOP_SECONDS = 8.0


class Polled(msgspec.Struct, frozen=True):
    """A record of platforms.polled: every change of this account before `until` has come in. ms UTC."""

    account: str
    until: int
    at: int


class Outlet:
    """Where fetched, parked, refused and polled go. `start` before the first, `stop` after the last."""

    def __init__(self, address: str, settings: Settings) -> None:
        self._settings = settings
        self._parked = topics.name("orders.parked", settings.topic_prefix)
        self._rejected = topics.name("orders.rejected", settings.topic_prefix)
        self._polled = topics.name("platforms.polled", settings.topic_prefix)
        self._away = False
        self._producer = AIOKafkaProducer(
            bootstrap_servers=address,
            client_id="orderstream-fetch",
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            max_request_size=MAX_MESSAGE,
            max_batch_size=262_144,
            **access.client(settings),
        )

    async def start(self) -> None:
        """Connects. Raises KafkaError where nobody answers."""
        await self._producer.start()

    async def stop(self) -> None:
        """Sends what waits; gives up after some seconds when Kafka is away."""
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._producer.stop()

    async def bring(self, channel: Channel, raw: Raw) -> None:
        """A raw record, to where it belongs: with its detail to the line, without one that it needs to orders.pending."""
        await self._send(parcel(channel, raw, self._settings))

    async def park(self, partition: int, key: bytes, raw: Raw, attempts: int, error: str) -> None:
        """What waits longer than a moment, with what was tried."""
        await self._send(Parcel(self._parked, key, partition, raw.body, pending_headers(raw, attempts, error)))

    async def unpark(self, partition: int, key: bytes) -> None:
        """It waits no more."""
        await self._send(Parcel(self._parked, key, partition, None, []))

    async def reject(self, partition: int, rejection: Rejection) -> None:
        """What will never be an order, with its bytes."""
        await self._send(Parcel(self._rejected, rejection.order_id.encode(), partition, msgspec.json.encode(rejection), []))

    async def polled(self, partition: int, said: Polled) -> None:
        """How far an account has been polled."""
        await self._send(Parcel(self._polled, said.account.encode(), partition, msgspec.json.encode(said), []))

    async def _send(self, one: Parcel) -> None:
        while True:
            try:
                await self._producer.send_and_wait(
                    one.topic, value=one.value, key=one.key, partition=one.partition, headers=one.headers
                )
            except KafkaError as error:
                if not error.retriable:
                    raise access.denied(error) or error from None
                self._tell(away=True)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._tell(away=False)
                return

    def _tell(self, *, away: bool) -> None:
        if away != self._away:
            self._away = away
            log.warning("Kafka does not acknowledge: everything waits" if away else "Kafka acknowledges again")
