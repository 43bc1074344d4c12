"""The process `orderstream downstream deliver`: releases and recalls to an ERP without Kafka, by signed HTTP.

Law: at least once from us, once by the key at the receiver: a request is repeated until somebody has heard "done". Only the ERP's
own word about a record ("this is wrong") makes it a dead letter; that the ERP is away or turns us all away never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec
from aiokafka.errors import KafkaError

from orderstream import topics
from orderstream.board.store import Db, answering, connect, migrate, now, url
from orderstream.consumers.inbox import Resume, connected
from orderstream.consumers.signature import sign
from orderstream.downstream import deliveries, store
from orderstream.downstream.deliveries import Delivery
from orderstream.downstream.process import RETRY_SECONDS
from orderstream.errors import BadSettings, NoDatabase
from orderstream.metrics import Metrics
from orderstream.process import joined, logs, shown, told_to_end
from orderstream.settings import PREFIX, Settings

T = TypeVar("T")

SECRETS = ("erp", "deliver")
"""Where the secrets stand in ORDERSTREAM_SECRETS: `"erp:deliver": ["new", "old"]`. A request is signed with all of them."""
WRONG = frozenset((400, 409, 413, 415, 422))
"""Statuses by which an ERP says that it is the record: sent again it would be no better."""
BACKOFF_SECONDS = (1.0, 300.0)
"""The first pause after a failure, and the longest; each one doubles."""
PATIENCE = 20
"""Attempts after which a record that fails while others are taken is dead."""
REST_AFTER, REST_SECONDS = 5, 60.0
"""Failures in a row after which the ERP is left alone, and for how long at most; then one record tries."""

log = logging.getLogger("orderstream.downstream")


class Answer(msgspec.Struct):
    """What an ERP may say in a 2xx: what it did, what it has booked. Nothing said: it did what the record asks."""

    effect: str | None = None
    currency: str | None = None
    total: int | None = None
    refunded: int | None = None
    reason: str | None = None


EFFECTS = frozenset(("accepted", "changed", "intercept", "refused", "stopped"))


def pause(attempts: int, dice: random.Random) -> float:
    """Seconds until a record is tried again: doubled each time, by chance up to half of it shorter, so that many do not come at once."""
    first, most = BACKOFF_SECONDS
    # the exponent is bounded first: 2**5000 is no float
    whole = min(most, first * 2.0 ** min(attempts, 20))
    return whole * dice.uniform(0.5, 1.0)


class Sender:
    """Sends what is due, as many at once as the settings say."""

    def __init__(self, settings: Settings, metrics: Metrics, db: Db, http: httpx.AsyncClient) -> None:
        self.settings, self.metrics, self.db, self.http = settings, metrics, db, http
        self.dice = random.Random()  # noqa: S311  spreads load, hides nothing
        self.in_a_row = 0
        self.rest_until = 0.0
        self.taken_at = 0
        """When the ERP last took a record, ms."""
        for outcome in ("delivered", "failed", "dead"):
            metrics.deliveries.labels(outcome)
        self.one = asyncio.Lock()
        """A connection has one transaction at a time."""

    async def work(self, stop: asyncio.Event) -> None:
        """Until stopped; what is under way then is finished. Raises NoDatabase."""
        under_way: set[asyncio.Task[None]] = set()
        looked = tidied = 0.0
        try:
            while not stop.is_set():
                if time.monotonic() - looked > 1:
                    looked = time.monotonic()
                    await self._in(self._show)
                if time.monotonic() - tidied > 3600:
                    tidied = time.monotonic()
                    await self._in(self._tidy)
                free = (1 if self.in_a_row >= REST_AFTER else self.settings.delivery_at_once) - len(under_way)
                rows = await self._in(self._claim, free) if free > 0 and time.monotonic() >= self.rest_until else []
                under_way |= {asyncio.create_task(self._deliver(row)) for row in rows}
                if under_way:
                    done, under_way = await asyncio.wait(under_way, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                if not rows:
                    await asyncio.sleep(0.05)
        finally:
            if under_way:
                await asyncio.wait(under_way)

    async def _in(self, work: Callable[..., T], *values: Any) -> T:
        async with self.one:
            return await asyncio.to_thread(work, *values)

    def _claim(self, free: int) -> list[Delivery]:
        with answering():
            return deliveries.claim(self.db, now(), free, int((self.settings.delivery_seconds + 5) * 1000))

    def _show(self) -> None:
        with answering():
            found = deliveries.counts(self.db)
        self.metrics.delivery_waiting.set(found.waiting)
        self.metrics.delivery_oldest.set(0 if found.oldest is None else max(0, now() - found.oldest) / 1000)
        self.metrics.delivery_dead.set(found.dead)

    def _tidy(self) -> None:
        with answering():
            deliveries.forget_old(self.db, now())

    async def _deliver(self, one: Delivery) -> None:
        status, said, wait = await self._post(one)
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            self.in_a_row, self.taken_at = 0, now()
            self.metrics.deliveries.labels("delivered").inc()
            await self._in(self._delivered, one, said)
            return
        error = f"HTTP {status} {said[:200].decode(errors='replace')}".strip() if status else said.decode(errors="replace")
        hopeless = one.attempts + 1 >= PATIENCE and self.taken_at > one.made_at and status != 0
        if status in WRONG or hopeless:
            self.metrics.deliveries.labels("dead").inc()
            log.error("%s is a dead letter: %s", one.key, error)
            await self._in(self._failed, one, error, None)
            return
        self.in_a_row += 1
        if self.in_a_row >= REST_AFTER:
            self.rest_until = time.monotonic() + min(REST_SECONDS, 2.0 ** min(self.in_a_row - REST_AFTER, 10))
        self.metrics.deliveries.labels("failed").inc()
        log.warning("%s is tried again: %s", one.key, error)
        seconds = max(wait, pause(one.attempts, self.dice))
        await self._in(self._failed, one, error, now() + int(seconds * 1000))

    async def _post(self, one: Delivery) -> tuple[int, bytes, float]:
        """(HTTP status, body, seconds that the ERP asks us to wait); status 0: nobody answered, and the reason."""
        secrets = self.settings.shop_secrets(*SECRETS)
        headers = {**sign(secrets, one.key, one.body, int(time.time())), "Content-Type": "application/json"}
        try:
            async with asyncio.timeout(self.settings.delivery_seconds):
                answer = await self.http.post(str(self.settings.delivery_url), content=one.body, headers=headers)
        except TimeoutError:
            return 0, f"no answer within {self.settings.delivery_seconds:g} s".encode(), 0
        except httpx.HTTPError as error:
            return 0, f"{type(error).__name__}: {error}".encode(), 0
        after = answer.headers.get("Retry-After", "")
        return answer.status_code, answer.content, min(3600.0, float(after)) if after.isascii() and after.isdigit() else 0.0

    def _delivered(self, one: Delivery, said: bytes) -> None:
        with answering():
            deliveries.delivered(self.db, one, acknowledgement(one, said, now()))

    def _failed(self, one: Delivery, error: str, next_at: int | None) -> None:
        with answering():
            deliveries.failed(self.db, one, error, next_at)


def acknowledgement(one: Delivery, said: bytes, at: int) -> dict[str, Any]:
    """The record of erp.acks that an ERP's 2xx stands for. What of its body is not of our form is not believed."""
    try:
        answer = msgspec.json.decode(said, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = Answer()
    usual = "accepted" if one.topic == "orders.released" else "stopped"
    ack: dict[str, Any] = {
        "order_id": one.order_id,
        "verdict_seq": one.seq,
        "at": at,
        "effect": answer.effect if answer.effect in EFFECTS else usual,
    }
    if answer.currency is not None and answer.total is not None and answer.total >= 0 and len(answer.currency) == 3:
        ack |= {"currency": answer.currency, "total": answer.total}
        if answer.refunded is not None and answer.refunded >= 0:
            ack["refunded"] = answer.refunded
    if answer.reason:
        ack["reason"] = answer.reason[:500]
    return ack


def run(settings: Settings) -> None:
    """Runs until SIGTERM or Ctrl-C. Raises UserError before it works, and for what no retry mends."""
    logs(settings, "aiokafka", "httpx", "httpcore", least=logging.ERROR)
    if settings.delivery_url is None:
        raise BadSettings(
            f"请设置 {PREFIX}DELIVERY_URL · set {PREFIX}DELIVERY_URL to the address at which the ERP takes releases and recalls"
        )
    if not settings.shop_secrets(*SECRETS):
        raise BadSettings(
            f'缺少密钥，请在 {PREFIX}SECRETS 中设 "erp:deliver" · no secret to sign with: set "erp:deliver" in {PREFIX}SECRETS'
        )
    settings = joined(settings)
    migrate(url(settings))
    metrics = Metrics()
    served = shown(metrics, settings)
    try:
        asyncio.run(until_signal(settings, metrics))
    finally:
        served.close()


async def until_signal(settings: Settings, metrics: Metrics) -> None:
    """Delivers until SIGTERM or SIGINT, beginning again whenever PostgreSQL comes back."""
    stop = told_to_end()
    while not stop.is_set():
        try:
            await _deliver(settings, metrics, stop)
        except NoDatabase as error:
            metrics.database.set(0)
            log.warning("%s", error.sentence)
        if not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)


async def _deliver(settings: Settings, metrics: Metrics, stop: asyncio.Event) -> None:
    reading, sending = await asyncio.to_thread(connect, url(settings)), await asyncio.to_thread(connect, url(settings))
    metrics.database.set(1)
    try:
        async with (
            httpx.AsyncClient(timeout=settings.delivery_seconds, follow_redirects=False) as http,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(_read(settings, metrics, reading, stop))
            group.create_task(Sender(settings, metrics, sending, http).work(stop))
    finally:
        reading.close()
        sending.close()


async def _read(settings: Settings, metrics: Metrics, db: Db, stop: asyncio.Event) -> None:
    prefix = settings.topic_prefix

    def position(topic: str, partition: int) -> int:
        with answering():
            return store.position(db, deliveries.READER, topic, partition)

    def take(topic: str, partition: int, records: list[tuple[int, int, bytes | None, bytes | None]]) -> None:
        with answering():
            deliveries.take(db, topic, partition, records)

    async with connected(settings, prefix + deliveries.READER) as consumer:
        resume = Resume(consumer, position, prefix)
        consumer.subscribe([topics.name(topic, prefix) for topic in deliveries.READS], listener=resume)
        ready = False
        while not stop.is_set():
            batches = await consumer.getmany(timeout_ms=200, max_records=200)
            if resume.trouble is not None:
                raise resume.trouble
            if not ready and consumer.assignment():
                ready = True
                print(f"投递 {settings.delivery_url} 就绪 · deliver is up", flush=True)  # noqa: T201  whoever started us waits for it
            for partition, records in batches.items():
                plain = partition.topic.removeprefix(prefix)
                rows = [(r.offset, r.timestamp, r.key, r.value) for r in records]
                await asyncio.to_thread(take, plain, partition.partition, rows)
                end = consumer.highwater(partition) or 0
                metrics.lag.labels(plain, partition.partition).set(max(0, end - records[-1].offset - 1))
            if batches:
                with contextlib.suppress(KafkaError):
                    await consumer.commit()
