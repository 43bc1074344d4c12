"""Forget: what somebody asked to erase, found, taken out, and told to the end.

Law: only what can be decided without the person's data is forgotten: an order under way stays until it is shipped, withdrawn
or out for longer than it could be recalled, unless one says otherwise. What is appended and never rewritten (raw records,
rejects, changelogs) leaves by its topic's retention, and the day is told. Reason: a tombstone in front of an open order would
lose it, and an erasure that hides what remains is none.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from orderstream import access, identity, kafka, times, topics, wire
from orderstream.channels import registry
from orderstream.kafka import Message, Outgoing
from orderstream.orders import Order
from orderstream.outcomes import ENDS
from orderstream.personal import Marks
from orderstream.rejected import remembered
from orderstream.route import PERSONAL
from orderstream.settings import Settings
from orderstream.topics import Topic

SEGMENT = 7 * times.DAY
"""Kafka's own segment.ms: what leaves by time leaves by the segment, when its newest record may go."""


class Person(msgspec.Struct, frozen=True):
    """Who asks: a buyer as the channel names them, a phone number, an e-mail; or orders by their ids."""

    buyer: str | None = None
    channel: str | None = None
    phone: str | None = None
    email: str | None = None
    orders: tuple[str, ...] = ()

    def is_of(self, order: Order) -> bool:
        """Whether an order is theirs: as its buyer, or as the one who receives it."""
        if order.order_id in self.orders:
            return True
        if self.buyer is not None and order.buyer.id == self.buyer and self.channel in (None, order.channel):
            return True
        numbers = [order.buyer.phone, order.ship_to.phone if order.ship_to else None]
        if self.phone is not None and identity.phone(self.phone) in {identity.phone(n) for n in numbers if n} - {None}:
            return True
        mail = order.buyer.email
        return self.email is not None and mail is not None and mail.strip().casefold() == self.email.strip().casefold()

    def marks(self) -> set[str]:
        """What they gave to be found by."""
        return {mark for mark in (self.buyer, self.phone, self.email, *self.orders) if mark}


class Found(msgspec.Struct):
    """What is known of a person. closed, open: their orders, by whether they can be forgotten now; marks: what they are known by."""

    closed: list[str] = []
    open: dict[str, str] = {}
    marks: set[str] = set()


class Remains(msgspec.Struct, frozen=True):
    """What a topic still holds of a person: how many records, and by when (ms) the last of them is gone."""

    topic: str
    records: int
    gone_by: int


class _Document(msgspec.Struct):
    order: Order


class _Decision(msgspec.Struct):
    outcome: str


class _Verdict(msgspec.Struct):
    verdict_seq: int
    verdict: str
    timings: dict[str, int]
    out: str | None = ""
    decision: _Decision | None = None

    @property
    def ended(self) -> bool:
        """Whether the channel has withdrawn it, or a person has cancelled it."""
        return self.verdict in ("withdrawn", "rejected") or (self.decision is not None and self.decision.outcome in ENDS)

    @property
    def stands(self) -> str:
        """As what it stands outside; a record of an older version says only the machine's verdict."""
        return self.out or self.verdict


class _Outcome(msgspec.Struct):
    outcome: str


_document = msgspec.json.Decoder(_Document).decode
_verdict = msgspec.json.Decoder(_Verdict).decode
_outcome = msgspec.json.Decoder(_Outcome).decode


def find(settings: Settings, brokers: str, person: Person) -> Found:
    """The person's orders, as far back as topics hold them. Raises NoBroker, TopicsUnfit, BadPack."""
    marks = Marks(person.marks())
    found = Found(marks=person.marks())
    orders = set(person.orders)
    carrying = [t for t in topics.declared() if t.name in PERSONAL or t.name.startswith("orders.raw.")]
    for topic, message in _read(settings, brokers, carrying):
        if message.value is None or not (_key(message) in orders or marks.within(message.value)):
            continue
        order = _order(topic, message)
        if order is not None and person.is_of(order):
            orders.add(order.order_id)
            found.marks |= {mark for mark in (order.buyer.id, order.buyer.phone, order.buyer.email) if mark}
    still = _open(settings, brokers, orders, remembered(settings, brokers))
    found.open = dict(sorted(still.items()))
    found.closed = sorted(orders - still.keys())
    return found


def erase(settings: Settings, brokers: str, orders: Iterable[str], seconds: float) -> bool:
    """Has the line forget these orders; False where the workers were not through with it in time. Raises NoBroker, TopicsUnfit."""
    topic = topics.name("orders.forgotten", settings.topic_prefix)
    now, by = times.text(_now()), getpass.getuser()
    records = [Outgoing(topic, order.encode(), msgspec.json.encode({"order_id": order, "at": now, "by": by})) for order in orders]
    kafka.send_all(brokers, records, access.client(settings))
    return kafka.worked_off(settings, brokers, seconds)


def remains(settings: Settings, brokers: str, found: Found) -> list[Remains]:
    """What topics still hold of a person, and until when. Raises NoBroker, TopicsUnfit."""
    marks = Marks(found.marks)
    gone = {*found.closed}
    counts: dict[str, tuple[int, int]] = {}
    for topic, message in _read(settings, brokers, [t for t in topics.declared() if t.personal]):
        if message.value is None or not (marks.within(message.value) or (topic.name in PERSONAL and _key(message) in gone)):
            continue
        name = topic.name.replace("{group}", settings.group)
        number, last = counts.get(name, (0, 0))
        counts[name] = (number + 1, max(last, _gone_by(topic, message.timestamp)))
    return [Remains(name, *counts[name]) for name in sorted(counts)]


def _gone_by(topic: Topic, at: int) -> int:
    """When (ms) a record that the broker took at `at` is certainly deleted."""
    if topic.config["cleanup.policy"] == "compact":
        # when its order's detail has come; nobody knows the day
        return times.MAX_MS
    return at + int(topic.config["retention.ms"]) + int(topic.config.get("segment.ms", SEGMENT))


def _open(settings: Settings, brokers: str, orders: set[str], recallable: int) -> dict[str, str]:
    """The orders that are still under way, and as what."""
    verdicts: dict[str, _Verdict] = {}
    shipped: set[str] = set()
    read = [t for t in topics.declared() if t.name in ("orders.verdicts", "orders.outcomes")]
    for topic, message in _read(settings, brokers, read):
        order = _key(message)
        if order not in orders or message.value is None:
            continue
        if topic.name == "orders.verdicts":
            told = _verdict(message.value)
            if order not in verdicts or verdicts[order].verdict_seq <= told.verdict_seq:
                verdicts[order] = told
        elif _outcome(message.value).outcome == "shipped":
            shipped.add(order)
    now = _now()
    return {
        order: told.stands
        for order, told in verdicts.items()
        if order not in shipped
        and not told.ended
        and not (told.stands == "released" and now - told.timings["decided_at"] > recallable)
    }


def _order(topic: Topic, message: Message) -> Order | None:
    """The order of a record; None where it is none."""
    try:
        if topic.name in PERSONAL:
            return _document(message.value or b"").order
        raw = wire.read_raw(topic.name, message.headers, message.value, message.timestamp)
    except (wire.EnvelopeError, msgspec.DecodeError):
        return None
    channel = registry().get(raw.channel)
    parsed = None if channel is None else channel.parse(raw)
    return parsed if isinstance(parsed, Order) else None


def _read(settings: Settings, brokers: str, wanted: Iterable[Topic]) -> Iterator[tuple[Topic, Message]]:
    names: Mapping[str, Topic] = {topic.on_broker(settings): topic for topic in wanted}
    for message in kafka.scan(brokers, names, client=access.client(settings)):
        yield names[message.topic], message


def _key(message: Message) -> str:
    return (message.key or b"").decode(errors="replace")


def _now() -> int:
    return time.time_ns() // 1_000_000
