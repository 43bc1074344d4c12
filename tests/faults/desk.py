"""People at a desk who decide what is held, over orders.outcomes, each sent again until the broker has it, and then once more.

Law: what was decided is a fact and is kept; what came of it is read from the public topics alone. Whoever stands in for this desk
(the board, with its outbox) gives the same two things: `decided`, and `settled` when all of it is on the topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from typing import Any

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from orderstream import outcomes, times, topics
from orderstream.facts import Outcome
from orderstream.settings import Settings

WAYS = ("released",) * 8 + ("cancelled",) * 3 + ("correction", "after-sales", "after-sales", "confirmed-fraud")
SHARE = 0.5
"""Of the held orders those that somebody decides, and of these again those that they take back."""


class _Held(msgspec.Struct):
    order_id: str
    verdict_seq: int
    out: str | None = None
    decision: dict[str, Any] | None = None


_held = msgspec.json.Decoder(_Held).decode


class Desk:
    """decided: id -> what somebody decided and the broker has acknowledged."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._dice = random.Random(seed)
        self._topic = topics.name("orders.outcomes", settings.topic_prefix)
        self._outbox: list[dict[str, Any]] = []
        self._met: set[str] = set()
        self._closed = False
        self._idle = asyncio.Event()
        self.decided: dict[str, Outcome] = {}
        self.sent = 0
        """Records on the topic: more than there are decisions."""

    async def run(self) -> None:
        """Follow the verdicts for ever, also over a broker's restart."""
        name = topics.name("orders.verdicts", self._settings.topic_prefix)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.brokers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
        )
        # an answer that is lost is asked for again by us, under the same id: this is the road of a repeat
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.brokers, acks="all", request_timeout_ms=5000)
        await consumer.start()
        await producer.start()
        consumer.assign([TopicPartition(name, p) for p in range(self._settings.partitions)])
        try:
            while True:
                with contextlib.suppress(KafkaError):
                    for records in (await consumer.getmany(timeout_ms=300)).values():
                        for record in records:
                            self._look(_held(record.value))
                await self._send(producer)
        finally:
            await producer.stop()
            await consumer.stop()

    def _look(self, verdict: _Held) -> None:
        order, last = verdict.order_id, verdict.decision
        if self._closed:
            return
        if last is not None and last["outcome"] != "undone" and last["id"] not in self._met:
            self._met.add(last["id"])
            if self._dice.random() < SHARE:
                self._decide(verdict, "undone", last["id"])
        elif verdict.out in ("review", "frozen") and order not in self._met:
            self._met.add(order)
            if self._dice.random() < SHARE:
                self._decide(verdict, self._dice.choice(WAYS))

    def _decide(self, verdict: _Held, said: str, undoes: str | None = None) -> None:
        name = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        record = {
            "kind": "outcome", "id": name, "at": times.text(time.time_ns() // 1_000_000), "order_id": verdict.order_id,
            "outcome": said, "by": self._dice.choice(("wang", "li")), "reason": "checked", "seq": verdict.verdict_seq,
        }  # fmt: skip
        self._outbox.append(record if undoes is None else {**record, "undoes": undoes})

    async def _send(self, producer: AIOKafkaProducer) -> None:
        """What is in the outbox, up to three times each; what the broker did not acknowledge stays there."""
        self._idle.clear()
        left = []
        for record in self._outbox:
            try:
                for _ in range(self._dice.choice((1, 2, 3))):
                    await producer.send_and_wait(self._topic, orjson.dumps(record), record["order_id"].encode())
                    self.sent += 1
                self.decided[record["id"]] = outcomes.read(record)
            except KafkaError:
                left.append(record)
        self._outbox = left
        if not left:
            self._idle.set()

    async def settled(self) -> None:
        """Nothing more is decided from now on; until all that was is on the topic."""
        self._closed = True
        self._idle.clear()
        await asyncio.wait_for(self._idle.wait(), 60)
