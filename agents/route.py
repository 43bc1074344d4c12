"""The hop from dossiers and answers to verdicts, and the only writer of the public order topics."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec

from agents.normalise import Names, strange
from orderstream import outcomes, wire
from orderstream.engine import Effects, Record, Send
from orderstream.facts import NO_SOURCE, Mail, News, OrderItem, batch
from orderstream.metrics import Metrics, observe
from orderstream.pages import Page
from orderstream.route import Public, Router, Standing
from orderstream.windows import Packs


class BadOutcome(ValueError):  # noqa: N818 - named for what it is
    """A record of orders.outcomes that can't be read."""


Logging = tuple[str, Standing, bytes]
"""An order, and what `Router.log` says of it."""


class Logged(msgspec.Struct, array_like=True):
    """A changelog record: up to which offset of its topic it goes, how far (ms) the data's clock had come, and the cases."""

    topic: str
    offset: int
    progress: int
    cases: list[Logging]


encode = msgspec.json.Encoder().encode
_logged = msgspec.msgpack.Decoder(Logged)
_laid = msgspec.msgpack.Decoder(tuple[int, dict[str, int], Page])


class RouteState:
    """One partition's dossiers. Its changelog is its cases once they are decided, and what came to them until then."""

    def __init__(self, partition: int, partitions: int, names: Names, packs: Packs, metrics: Metrics) -> None:
        self._partition = str(partition)
        self._partitions = partitions
        self._names = names
        self._router = Router(packs, partitions)
        self._metrics = metrics
        self._applied: dict[str, int] = {}

    def process(self, records: Sequence[Record]) -> Effects:
        now = time.time_ns() // 1_000_000
        sends: list[Send] = []
        log: list[bytes] = []
        fresh: list[Mail] = []
        repeated: list[Mail] = []
        last: Record | None = None
        for record in records:
            try:
                mail = self._read(record)
            except BadOutcome as error:
                # nobody's outcome: it goes where people see it, with its bytes
                rejection = strange(record, "bad-outcome", str(error))
                self._metrics.reject(rejection.channel, rejection.code, len(rejection.body))
                value = msgspec.json.encode(rejection)
                sends.append(Send(self._names.rejected, value, rejection.order_id.encode(), public=True))
                continue
            if record.offset <= self._applied.get(record.topic, -1):
                repeated += mail
            elif record.topic == self._names.outcomes:
                # each word of people or the world is answered by itself
                self._take(mail, record, now, sends, log)
            else:
                fresh += mail
                last = record
        if last is not None:
            # an order is looked at once, however many records of a batch speak of it
            self._take(_together(fresh) if len(records) > 1 else fresh, last, now, sends, log)
        if repeated:
            # what a crash may have swallowed is said once more, of each order as it stands now
            repeated = _together(repeated)
            self._say(self._router.process(repeated, now, again=True), sends)
            log += [self._logged("", -1, cases) for cases in self._cases(repeated)]
        sends += self._lessons()
        self._router.sweep()
        self._show(now)
        return Effects(sends, log or None)

    def _take(self, mail: list[Mail], last: Record, now: int, sends: list[Send], log: list[bytes]) -> None:
        """Takes in what has not been before, up to the last of its records; adds what follows to sends and log."""
        public = self._router.process(mail, now)
        self._count(public)
        self._say(public, sends)
        # the first names the record: once that one is written, the record is known to have been taken in
        self._applied[last.topic] = last.offset
        cases = self._cases(mail)
        log.append(self._logged(last.topic, last.offset, next(cases, [])))
        log += [self._logged("", -1, more) for more in cases]

    def _cases(self, mail: list[Mail]) -> Iterator[list[Logging]]:
        """What is to be remembered of mail that has been processed, no more in a piece than a record may have."""
        piece: list[Logging] = []
        size = 0
        for one in mail:
            case = self._router.log(one)
            length = len(case[0]) + len(case[2])
            if piece and size + length > wire.MAX_RECORD:
                yield piece
                piece, size = [], 0
            piece.append(case)
            size += length
        if piece:
            yield piece

    def _lessons(self) -> list[Send]:
        """What entities are told of their orders, by the road of facts."""
        partitions: dict[int, dict[str, list[News]]] = defaultdict(dict)
        for entity, news in self._router.lessons().items():
            partitions[wire.entity_partition(entity, self._partitions)][entity] = news
        progress = self._router.progress
        return [
            Send(self._names.facts, wire.encode(batch(NO_SOURCE, progress, items)), partition=partition)
            for partition, items in partitions.items()
        ]

    def _logged(self, topic: str, offset: int, cases: list[Logging]) -> bytes:
        return wire.encode((topic, offset, self._router.progress, cases))

    def restore(self, blob: bytes) -> None:
        if blob.startswith(wire.LAID):
            progress, waiting, page = _laid.decode(memoryview(blob)[len(wire.LAID) :])
            self._router.lay(page, waiting, progress)
            return
        logged = _logged.decode(blob)
        if logged.topic:
            if logged.offset <= self._applied.get(logged.topic, -1):
                return
            self._applied[logged.topic] = logged.offset
        for order, standing, sealed in logged.cases:
            self._router.restore(order, standing, sealed, logged.progress)

    def dump(self) -> Iterator[bytes]:
        router = self._router
        for page in router.dump():
            names = page.names() if router.pending else ()
            waiting = {order: router.pending[order] for order in router.pending.keys() & names}
            yield wire.LAID + wire.encode((router.progress, waiting, page))
        for topic, offset in self._applied.items():
            yield wire.encode(Logged(topic, offset, router.progress, []))

    def idle(self) -> Effects | None:
        self._show(time.time_ns() // 1_000_000)
        return None

    def _read(self, record: Record) -> list[Mail]:
        if record.topic != self._names.outcomes:
            return wire.decode_mail(record.value) if record.value else []
        try:
            said = outcomes.read(json.loads(record.value or b""))
        except KeyError as error:
            raise BadOutcome(f"it lacks {error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadOutcome(str(error)) from error
        return [(said.order, [said])]

    def _say(self, public: list[Public], sends: list[Send]) -> None:
        """Adds the records for public topics to sends."""
        for one in public:
            value = None if one.value is None else encode(one.value)
            sends.append(Send(self._names.public(one.topic), value, one.order.encode(), public=True))

    def _count(self, public: list[Public]) -> None:
        """Counts what is said for the first time; a lock for each number once a batch."""
        metrics = self._metrics
        verdicts: dict[tuple[str, str, str], int] = {}
        lacking: dict[str, int] = {}
        waited: list[float] = []
        first: dict[str, list[float]] = {}
        for one in public:
            value = one.value
            if value is None:
                continue
            if one.topic == "orders.verdicts":
                channel, timings = value["channel"], value["timings"]
                said = (channel, value["verdict"], value["level"])
                verdicts[said] = verdicts.get(said, 0) + 1
                now = timings["decided_at"]
                waited.append(max(0, now - timings["normalised_at"]) / 1000)
                if value["verdict_seq"] == 1:
                    first.setdefault(channel, []).append(max(0, now - timings["received_at"]) / 1000)
                for rule in value["not_available"]:
                    lacking[rule] = lacking.get(rule, 0) + 1
                for signal in value["signals"]:
                    metrics.signals.labels(signal["rule"], signal["level"]).inc()
                for tag in value["tags"]:
                    if tag["tag"] == "found-late":
                        metrics.found_late.labels(tag["rule"]).inc()
            elif one.topic == "orders.actions":
                metrics.actions.labels(value["action"]).inc()
            elif one.topic == "orders.recalled":
                metrics.recalls.labels(value["cause"]).inc()
        for said, number in verdicts.items():
            metrics.orders.labels("route", said[0]).inc(number)
            metrics.verdicts.labels(*said).inc(number)
        for rule, number in lacking.items():
            metrics.not_available.labels(rule).inc(number)
        if waited:
            observe(metrics.hop_latency.labels("route"), waited)
        for channel, latencies in first.items():
            observe(metrics.latency.labels(channel), latencies)

    def _show(self, now: int) -> None:
        waiting = self._router.pending
        self._metrics.pending_dossiers.labels(self._partition).set(len(waiting))
        # the first that began to wait is the oldest: a dict keeps the order of its keys
        oldest = next(iter(waiting.values()), now)
        self._metrics.oldest_dossier.labels(self._partition).set(max(0, now - oldest) / 1000)


def _together(mail: list[Mail]) -> list[Mail]:
    """Mail with all that comes to an order in one place."""
    by_order: dict[str, list[OrderItem]] = {}
    for order, items in mail:
        known = by_order.get(order)
        by_order[order] = items if known is None else known + items
    return list(by_order.items())


def factory(partitions: int, names: Names, packs: Packs, metrics: Metrics) -> Callable[[int], RouteState]:
    """Makes the state of a partition."""
    return lambda partition: RouteState(partition, partitions, names, packs, metrics)
