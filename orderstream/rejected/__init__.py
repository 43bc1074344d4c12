"""Rejected: what could not be one order, looked at and put back after the fix.

Law: a replay puts back the bytes and the envelope that came, so it says nothing that the channel did not say, and saying it
twice changes nothing. It comes with its own time of receipt as long as the windows still remember that time; after that it
comes as what it is, an order that is late, which window rules cannot judge. Reason: an entity forgets an order when the data's
clock has passed its windows, the horizon and the lateness; judged on what is left it would be called clean, and absent is not.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable

import msgspec

from orderstream import access, kafka, times, topics, wire
from orderstream.channels import registry
from orderstream.errors import BadPack
from orderstream.kafka import Outgoing
from orderstream.normalise import Rejection
from orderstream.orders import About, Order, Parsed, Raw, Rejected, Skip
from orderstream.rules.book import NoPackError
from orderstream.settings import Settings

AT_ONCE = 500
"""Records that are put back before the next are read: bodies are up to 1 MB."""

_decode = msgspec.json.Decoder(Rejection).decode


class Wanted(msgspec.Struct, frozen=True):
    """Which rejects are meant. ids: of rejects (their beginnings) or of orders; since, until: ms of receipt, until excluded."""

    ids: tuple[str, ...] = ()
    channel: str | None = None
    shop: str | None = None
    code: str | None = None
    since: int = 0
    until: int = times.MAX_MS

    def __contains__(self, reject: object) -> bool:
        if not isinstance(reject, Reject):
            return False
        r = reject.record
        return (
            self.since <= r.received_at < self.until
            and (self.channel is None or r.channel == self.channel)
            and (self.shop is None or r.shop == self.shop)
            and (self.code is None or r.code == self.code)
            and (not self.ids or any(reject.id.startswith(one) or r.order_id == one for one in self.ids))
        )


class Reject(msgspec.Struct, frozen=True):
    """A record of orders.rejected. id: short, the same for the same bytes of the same delivery."""

    id: str
    record: Rejection

    @property
    def raw(self) -> Raw | None:
        """The record as it came; None where it was no channel's, or its envelope was not whole."""
        return _raw(self.record)

    def now(self) -> Parsed | None:
        """What the parser of today makes of it; None where nothing can read it."""
        raw = self.raw
        return None if raw is None else registry()[raw.channel].parse(raw)


def _raw(r: Rejection) -> Raw | None:
    if not r.shop or r.channel not in registry():
        return None
    return Raw(r.channel, r.shop, r.received_at, r.body, r.headers, r.verified, r.detail)


def order_of(record: Rejection) -> str | None:
    """The order that the parser of today finds in a reject's bytes; None where it still is none."""
    raw = _raw(record)
    parsed = None if raw is None else registry()[raw.channel].parse(raw)
    return parsed.order_id if isinstance(parsed, About) else None


def read(settings: Settings, brokers: str, wanted: Wanted) -> Generator[Reject, None, None]:
    """The rejects that are meant, each once, in the sequence in which they were rejected. Raises NoBroker, TopicsUnfit."""
    topic = topics.name("orders.rejected", settings.topic_prefix)
    seen: set[str] = set()
    # an hour for clocks that differ: a record is rejected after it was received
    for message in kafka.scan(brokers, [topic], max(0, wanted.since - times.HOUR), access.client(settings)):
        if message.value is None:
            continue
        record = _decode(message.value)
        reject = Reject(reject_id(record), record)
        if reject in wanted and reject.id not in seen:
            seen.add(reject.id)
            yield reject


def reject_id(record: Rejection) -> str:
    """Twelve hex digits for one delivery: rejected again, whatever for, it is the same reject."""
    said = (record.channel, record.shop, record.received_at, record.headers, record.body)
    return hashlib.sha256(msgspec.msgpack.encode(said, order="deterministic")).hexdigest()[:12]


class Plan(msgspec.Struct):
    """What a replay puts back, and what it leaves. counts: by what becomes of a reject; orders: those that it concerns."""

    counts: Counter[str]
    orders: dict[str, int]

    @classmethod
    def empty(cls) -> Plan:
        return cls(Counter(), {})


def replay(rejects: Iterable[Reject], prefix: str, remembered: int, now: int, send: Callable[[list[Outgoing]], object]) -> Plan:
    """Puts back what can now be read, through `send`, some hundred records at a time. remembered: ms that windows look back for."""
    plan = Plan.empty()
    batch: list[Outgoing] = []
    for reject in rejects:
        raw, parsed = reject.raw, reject.now()
        if raw is None or parsed is None:
            plan.counts["unreadable"] += 1
        elif raw.detail is None and registry()[raw.channel].thin(raw):
            # what the parser of today makes of it shows when its detail has been fetched
            plan.counts["sent"] += 1
            plan.orders[_key(raw)] = raw.received_at
            batch.append(_outgoing(raw, prefix))
        elif isinstance(parsed, Rejected):
            plan.counts["still"] += 1
        elif isinstance(parsed, Skip):
            plan.counts["skip"] += 1
        else:
            stamped = _stamped(raw, parsed, remembered, now)
            plan.counts["late" if stamped.received_at != raw.received_at else "sent"] += 1
            plan.orders[parsed.order_id] = min(plan.orders.get(parsed.order_id, times.MAX_MS), raw.received_at)
            batch.append(_outgoing(stamped, prefix))
        if len(batch) >= AT_ONCE:
            send(batch)
            batch = []
    if batch:
        send(batch)
    return plan


def _stamped(raw: Raw, parsed: Parsed, remembered: int, now: int) -> Raw:
    """The record with the time of receipt that it comes with: a function of the record alone, so that a repeat is a repeat."""
    if now - raw.received_at <= remembered:
        return raw
    if isinstance(parsed, Order) and parsed.revision is None and parsed.updated_at is None:
        # its time of receipt is all that tells it from the order's newer records: a later one would put it in force
        return raw
    return msgspec.structs.replace(raw, received_at=raw.received_at + remembered + 1)


def _outgoing(raw: Raw, prefix: str) -> Outgoing:
    if raw.detail is None and registry()[raw.channel].thin(raw):
        pending = topics.name("orders.pending", prefix)
        return Outgoing(pending, _key(raw).encode(), raw.body, tuple(wire.pending_headers(raw)))
    return Outgoing(topics.raw(raw.channel, prefix), _key(raw).encode(), raw.body, tuple(wire.raw_headers(raw)))


def _key(raw: Raw) -> str:
    return registry()[raw.channel].key(raw.shop, raw.body, raw.headers) or "raw:" + hashlib.sha256(raw.body).hexdigest()


def remembered(settings: Settings, brokers: str) -> int:
    """How long after its receipt (ms) an order still finds all its neighbours in the windows, by the pack in force.

    Raises BadPack where none is.
    """
    try:
        pack = kafka.read_packs(settings, brokers).at(_now())
    except NoPackError:
        raise BadPack(
            "没有生效的规则包，请先执行 orderstream rules publish · no rule pack is active: orderstream rules publish DIR"
        ) from None
    return pack.horizon + pack.lateness


def put_back(settings: Settings, brokers: str, wanted: Wanted, *, dry: bool = False) -> Plan:
    """Replays the rejects that are meant; dry: only says what would be. Raises NoBroker, TopicsUnfit, BadPack."""

    def send(batch: list[Outgoing]) -> None:
        if not dry:
            kafka.send_all(brokers, batch, access.client(settings))

    return replay(read(settings, brokers, wanted), settings.topic_prefix, remembered(settings, brokers), _now(), send)


def outcome(settings: Settings, brokers: str, orders: dict[str, int], seconds: float) -> Counter[str] | None:
    """What became of replayed orders, by their verdict, once the line has worked them off; None where the time is over first.

    orders: id -> ms from which to look.
    """
    if not kafka.worked_off(settings, brokers, seconds):
        return None
    latest: dict[str, tuple[int, str]] = {}
    since = min(orders.values(), default=0) - times.HOUR
    verdicts = topics.name("orders.verdicts", settings.topic_prefix)
    for message in kafka.scan(brokers, [verdicts], max(0, since), access.client(settings)):
        order = (message.key or b"").decode()
        if order in orders and message.value is not None:
            told = _numbered(message.value)
            latest[order] = max(latest.get(order, (0, "")), (told.verdict_seq, told.verdict))
    found = Counter(verdict for _, verdict in latest.values())
    if len(orders) > len(latest):
        found["none"] = len(orders) - len(latest)
    return found


class _Number(msgspec.Struct):
    verdict_seq: int
    verdict: str


_numbered = msgspec.json.Decoder(_Number).decode


def _now() -> int:
    return time.time_ns() // 1_000_000
