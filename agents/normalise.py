"""The hop from raw records to facts and dossiers; reference records pass through it to their entities."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec

from orderstream import topics, wire
from orderstream.engine import Effects, Record, Send, partition_for
from orderstream.facts import Forget, News, OrderItem, batch
from orderstream.identity import Keys
from orderstream.metrics import Metrics, observe
from orderstream.normalise import Books, Normaliser, OrderState, Rejection
from orderstream.orders import Raw
from orderstream.pages import Page
from orderstream.replay import ReplayError, updates


class Logged(msgspec.Struct, array_like=True):
    """A changelog record: orders and their states, and how far (ms) the data's clock had come."""

    progress: int
    states: list[tuple[str, msgspec.Raw]]


_logged = msgspec.msgpack.Decoder(Logged)
_laid = msgspec.msgpack.Decoder(tuple[int, Page])


class Forgotten(msgspec.Struct):
    """What a hop needs of a record of orders.forgotten."""

    order_id: str


_forgotten = msgspec.json.Decoder(Forgotten)


class Names:
    """The names on the broker of the topics that the hops write and read. prefix: the installation's."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.facts = topics.name("orders.facts", prefix)
        self.dossiers = topics.name("orders.dossiers", prefix)
        self.rejected = topics.name("orders.rejected", prefix)
        self.outcomes = topics.name("orders.outcomes", prefix)
        self.stock = topics.name("wms.stock", prefix)
        self.updates = topics.name("reference.updates", prefix)
        self.forgotten = topics.name("orders.forgotten", prefix)

    def public(self, topic: str) -> str:
        return topics.name(topic, self.prefix)


class NormaliseState:
    """One partition's orders. now: ms, for the timings that verdicts carry."""

    def __init__(
        self, partition: int, partitions: int, names: Names, books: Books, keys: Keys, currency: str, metrics: Metrics
    ) -> None:
        self._partition = partition
        self._partitions = partitions
        self._names = names
        self._normaliser = Normaliser(books, keys, partitions)
        self._keys = keys
        self._currency = currency
        self._metrics = metrics
        self._latency = metrics.hop_latency.labels("normalise")
        self._told_idle = False

    def process(self, records: Sequence[Record]) -> Effects:
        now = time.time_ns() // 1_000_000
        facts: dict[int, dict[str, list[News]]] = defaultdict(dict)
        dossiers: dict[int, dict[str, list[OrderItem]]] = defaultdict(dict)
        sends: list[Send] = []
        changed: dict[str, OrderState] = {}
        waits: dict[str, list[float]] = {}
        for record in records:
            if record.topic in (self._names.stock, self._names.updates):
                rejection = self._learn(record, facts)
            elif record.topic == self._names.forgotten:
                rejection = self._forget(record, dossiers, changed)
            else:
                rejection = self._order(record, now, facts, dossiers, changed, waits)
            if rejection is not None:
                self._metrics.reject(rejection.channel, rejection.code, len(rejection.body))
                value = msgspec.json.encode(rejection)
                sends.append(Send(self._names.rejected, value, rejection.order_id.encode(), public=True))
        for channel, waited in waits.items():
            self._metrics.orders.labels("normalise", channel).inc(len(waited))
            observe(self._latency, waited)
        self._told_idle = False
        sends += self._fact_sends(facts, idle=False)
        for partition, items in dossiers.items():
            sends += [Send(self._names.dossiers, blob, partition=partition) for blob in wire.packed(items.items())]
        self._normaliser.sweep()
        return Effects(sends, self._log(changed) or None)

    def _log(self, changed: dict[str, OrderState]) -> list[bytes]:
        states = [(order, msgspec.Raw(self._normaliser.log(state))) for order, state in changed.items()]
        return [self._logged(blob) for blob in wire.packed(states)]

    def _logged(self, states: bytes) -> bytes:
        return wire.encode((self._normaliser.progress, msgspec.Raw(states)))

    def dump(self) -> Iterator[bytes]:
        for page in self._normaliser.dump():
            yield wire.LAID + wire.encode((self._normaliser.progress, page))

    def restore(self, blob: bytes) -> None:
        if blob.startswith(wire.LAID):
            progress, page = _laid.decode(memoryview(blob)[len(wire.LAID) :])
            self._normaliser.lay(page, progress)
            return
        logged = _logged.decode(blob)
        for order, state in logged.states:
            self._normaliser.restore(order, bytes(state), logged.progress)

    def idle(self) -> Effects | None:
        """Tells the entities that nothing more comes from here for now, so that they wait for others only."""
        if self._told_idle:
            return None
        self._told_idle = True
        return Effects(self._fact_sends({p: {} for p in range(self._partitions)}, idle=True))

    def _order(
        self,
        record: Record,
        now: int,
        facts: dict[int, dict[str, list[News]]],
        dossiers: dict[int, dict[str, list[OrderItem]]],
        changed: dict[str, OrderState],
        waits: dict[str, list[float]],
    ) -> Rejection | None:
        try:
            raw = self._raw(record)
        except wire.EnvelopeError as error:
            return strange(record, "bad-envelope", str(error))
        waits.setdefault(raw.channel, []).append(max(0, now - raw.received_at) / 1000)
        done = self._normaliser.process(raw, record.offset, now)
        partitions = self._partitions
        for entity, fact in done.facts.items():
            told = facts[wire.entity_partition(entity, partitions)]
            if entity in told:
                told[entity].append(fact)
            else:
                told[entity] = [fact]
        if done.dossier is not None:
            order = done.dossier.order
            dossiers[partition_for(order.encode(), self._partitions)].setdefault(order, []).append(done.dossier)
            if "late" in done.dossier.tags:
                self._metrics.late_orders.labels(raw.channel).inc()
        if done.state is not None:
            changed[done.state.order] = done.state
        return done.rejected

    def _forget(
        self, record: Record, dossiers: dict[int, dict[str, list[OrderItem]]], changed: dict[str, OrderState]
    ) -> Rejection | None:
        try:
            order = _forgotten.decode(record.value or b"").order_id
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return strange(record, "bad-forgotten", str(error))
        state = self._normaliser.forget(order)
        if state is not None:
            changed[order] = state
        # route is told in any case: it may know what is no more known here
        dossiers[partition_for(order.encode(), self._partitions)].setdefault(order, []).append(Forget(order))
        return None

    def _raw(self, record: Record) -> Raw:
        return wire.read_raw(record.topic, record.headers, record.value, record.timestamp_ms)

    def _learn(self, record: Record, facts: dict[int, dict[str, list[News]]]) -> Rejection | None:
        kind = {"kind": "stock"} if record.topic == self._names.stock else {}
        try:
            said = json.loads(record.value or b"")
            for update in updates({**kind, **said}, self._keys, self._currency):
                facts[wire.entity_partition(update.entity, self._partitions)].setdefault(update.entity, []).append(update)
        except (ReplayError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return strange(record, "bad-reference", str(error))
        return None

    def _fact_sends(self, facts: dict[int, dict[str, list[News]]], *, idle: bool) -> list[Send]:
        progress = self._normaliser.progress
        out: list[Send] = []
        for partition, items in facts.items():
            for part in _parts(items, 2000):
                told = batch(self._partition, progress, part, idle=idle)
                out.append(Send(self._names.facts, wire.encode(told), partition=partition))
        return out


def _parts(items: dict[str, list[News]], most: int) -> list[dict[str, list[News]]]:
    if len(items) <= most:
        return [items]
    entities = list(items)
    return [{entity: items[entity] for entity in entities[start : start + most]} for start in range(0, len(entities), most)]


def strange(record: Record, code: str, why: str) -> Rejection:
    """A record that is nobody's order and nobody's reference: it goes where people see it, with its bytes."""
    value = record.value or b""
    digest = hashlib.sha256(value).hexdigest()
    channel = record.topic.rsplit(".", 1)[1]
    return Rejection(f"raw:{digest}", channel, "", record.timestamp_ms, code, why, None, "", "none", {}, value)


def factory(
    partitions: int, names: Names, books: Books, keys: Keys, currency: str, metrics: Metrics
) -> Callable[[int], NormaliseState]:
    """Makes the state of a partition."""
    return lambda partition: NormaliseState(partition, partitions, names, books, keys, currency, metrics)
