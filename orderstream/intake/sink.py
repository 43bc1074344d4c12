"""The way into Kafka: one idempotent producer, a bound on what waits in it, and an answer in bounded time.

Law: `put` returns only when every in-sync replica has the record. When that takes too long the caller is told so, though
the record may still arrive: its sender will send it again, and the line behind us is idempotent. A record that is still
waiting counts against the bound until it is settled, so a Kafka that is away cannot fill our memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from orderstream import access
from orderstream.broker import MAX_MESSAGE
from orderstream.channels import Channel
from orderstream.intake import metrics
from orderstream.intake.envelope import parcel
from orderstream.orders import Raw
from orderstream.settings import Settings

log = logging.getLogger("orderstream.intake")

REQUEST_MS = 3000
"""How long one produce request may take before it is tried on a new connection."""
STOP_SECONDS = 8.0
MAX_WAITING = 64 * 1_048_576
"""Bytes that may wait for Kafka: a thousand bodies of the largest size would be a gigabyte."""


class Busy(Exception):  # noqa: N818  states, not errors of ours
    """As many records as we allow are waiting for Kafka."""


class Unavailable(Exception):  # noqa: N818
    """Kafka did not acknowledge in time, or not at all."""


class Sink:
    """Puts raw records into their channel's topic, thin ones on orders.pending. `start` before the first, `stop` after the last."""

    def __init__(self, address: str, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._client = access.client(settings)
        self._producer: AIOKafkaProducer | None = None
        self._in_flight = 0
        self._bytes = 0
        self._mending: asyncio.Task[None] | None = None
        self._away = False

    async def start(self) -> None:
        """Connects. Raises KafkaError where nobody answers."""
        self._producer = await self._connect()

    async def stop(self) -> None:
        """Sends what waits, then closes; gives up after some seconds when Kafka is away."""
        if self._mending is not None:
            self._mending.cancel()
        await self._close(self._producer)
        self._producer = None

    async def ready(self) -> bool:
        """True when Kafka answers now."""
        if self._producer is None:
            return False
        places = self._address.split(",")
        return any(
            await asyncio.gather(
                *(asyncio.to_thread(access.answers, one, 1.5, self._client.get("ssl_context")) for one in places)
            )
        )

    async def put(self, channel: Channel, raw: Raw) -> None:
        """Returns when Kafka has acknowledged the record. Raises Busy or Unavailable."""
        producer = self._producer
        if producer is None:
            raise Unavailable
        if self._in_flight >= self._settings.intake_in_flight or self._bytes + len(raw.body) > MAX_WAITING:
            raise Busy
        began = time.perf_counter()
        self._count(1, len(raw.body))
        sending = asyncio.ensure_future(self._send(producer, channel, raw))
        sending.add_done_callback(partial(self._settled, len(raw.body)))
        try:
            # shielded: a record that is under way is not taken back, it is only no longer waited for
            async with asyncio.timeout(self._settings.intake_ack_seconds):
                await asyncio.shield(sending)
        except (TimeoutError, KafkaError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                self._mend(producer, error)
            self._tell(away=True)
            raise Unavailable from None
        self._tell(away=False)
        metrics.ACK_SECONDS.observe(time.perf_counter() - began)

    async def _send(self, producer: AIOKafkaProducer, channel: Channel, raw: Raw) -> None:
        one = parcel(channel, raw, self._settings)
        acknowledged = await producer.send(
            one.topic, value=one.value, key=one.key, partition=one.partition, headers=one.headers, timestamp_ms=raw.received_at
        )
        await acknowledged

    def _tell(self, *, away: bool) -> None:
        """Two lines for an outage, however long it is and however many deliveries it meets."""
        if away != self._away:
            self._away = away
            log.warning("Kafka does not acknowledge: deliveries get 503" if away else "Kafka acknowledges again")

    def _settled(self, size: int, sending: asyncio.Future[None]) -> None:
        self._count(-1, -size)
        if not sending.cancelled():
            sending.exception()  # looked at: nobody may be waiting any more

    def _count(self, change: int, size: int) -> None:
        self._in_flight += change
        self._bytes += size
        metrics.IN_FLIGHT.set(self._in_flight)

    def _mend(self, broken: AIOKafkaProducer, error: KafkaError) -> None:
        """Replaces a producer that will not recover (its sequence is lost, its session fenced); once at a time."""
        if self._producer is not broken:
            return
        self._producer = None
        log.warning("producer replaced: %s", type(error).__name__)
        self._mending = asyncio.ensure_future(self._replace(broken))

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        while True:
            try:
                self._producer = await self._connect()
                break
            except (KafkaError, OSError):
                await asyncio.sleep(1)
        await self._close(broken)

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._address,
            client_id="orderstream-intake",
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            max_request_size=MAX_MESSAGE,
            max_batch_size=262_144,
            request_timeout_ms=REQUEST_MS,
            retry_backoff_ms=50,
            **self._client,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _close(self, producer: Any) -> None:
        if producer is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await producer.stop()
        except (TimeoutError, KafkaError):
            log.warning("Kafka did not take the last records before we stopped: their senders were told, and send again")
            with contextlib.suppress(Exception):
                await producer.client.close()
