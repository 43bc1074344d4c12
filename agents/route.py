"""The hop from dossiers and answers to verdicts, and the only writer of the public order topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from agents.normalise import Names, strange
from orderstream import wire
from orderstream.engine import Effects, Record, Send
from orderstream.facts import Mail
from orderstream.metrics import Metrics
from orderstream.pages import Page
from orderstream.replay import outcome
from orderstream.route import Public, Router, Standing
from orderstream.windows import Packs


class BadOutcome(ValueError):  # noqa: N818 - named for what it is
    """A record of orders.outcomes that can't be read."""


class Logged(msgspec.Struct, array_like=True):
    """A changelog record: up to which offset of its topic it goes, how far (ms) the data's clock had come, and the cases."""

    topic: str
    offset: int
    progress: int
    cases: list[tuple[str, Standing, bytes]]


_logged = msgspec.msgpack.Decoder(Logged)
_laid = msgspec.msgpack.Decoder(tuple[int, dict[str, int], Page])


class RouteState:
    """One partition's dossiers. Its changelog is its cases once they are decided, and what came to them until then."""

    def __init__(self, partition: int, partitions: int, names: Names, packs: Packs, metrics: Metrics) -> None:
        self._partition = str(partition)
        self._names = names
        self._router = Router(packs, partitions)
        self._metrics = metrics
        self._applied: dict[str, int] = {}

    def process(self, records: Sequence[Record]) -> Effects:
        now = time.time_ns() // 1_000_000
        sends: list[Send] = []
        log: list[bytes] = []
        repeated: list[Mail] = []
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
                continue
            for public in self._router.process(mail, now):
                sends += self._sends(public, again=False)
            cases = wire.packed(self._router.log(one) for one in mail)
            log += self._named(record, list(cases) or [wire.encode([])])
        if repeated:
            # what a crash may have swallowed is said once more, of each order as it stands now
            for public in self._router.process(repeated, now, again=True):
                sends += self._sends(public, again=True)
            log += [self._logged("", -1, cases) for cases in wire.packed(self._router.log(one) for one in repeated)]
        self._router.sweep()
        self._show(now)
        return Effects(sends, log or None)

    def _named(self, record: Record, cases: list[bytes]) -> list[bytes]:
        """Blobs of which the first names the record: once that one is written, the record is known to have been taken in."""
        self._applied[record.topic] = record.offset
        first = self._logged(record.topic, record.offset, cases[0])
        return [first, *(self._logged("", -1, more) for more in cases[1:])]

    def _logged(self, topic: str, offset: int, cases: bytes) -> bytes:
        return wire.encode((topic, offset, self._router.progress, msgspec.Raw(cases)))

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
            said = outcome(json.loads(record.value or b""))
        except KeyError as error:
            raise BadOutcome(f"it lacks {error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadOutcome(str(error)) from error
        return [(said.order, [said])]

    def _sends(self, public: Public, *, again: bool) -> list[Send]:
        if not again:
            self._count(public)
        value = None if public.value is None else msgspec.json.encode(public.value)
        return [Send(self._names.public(public.topic), value, public.order.encode(), public=True)]

    def _count(self, public: Public) -> None:
        metrics, value = self._metrics, public.value
        if value is None:
            return
        if public.topic == "orders.actions":
            metrics.actions.labels(value["action"]).inc()
        elif public.topic == "orders.recalled":
            metrics.recalls.labels(value["cause"]).inc()
        elif public.topic == "orders.verdicts":
            channel, timings = value["channel"], value["timings"]
            metrics.orders.labels("route", channel).inc()
            metrics.verdicts.labels(channel, value["verdict"], value["level"]).inc()
            metrics.hop_latency.labels("route").observe(max(0, timings["decided_at"] - timings["normalised_at"]) / 1000)
            if value["verdict_seq"] == 1:
                metrics.latency.labels(channel).observe(max(0, timings["decided_at"] - timings["received_at"]) / 1000)
            for signal in value["signals"]:
                metrics.signals.labels(signal["rule"], signal["level"]).inc()
            for rule in value["not_available"]:
                metrics.not_available.labels(rule).inc()
            for tag in value["tags"]:
                if tag["tag"] == "found-late":
                    metrics.found_late.labels(tag["rule"]).inc()

    def _show(self, now: int) -> None:
        waiting = self._router.pending
        self._metrics.pending_dossiers.labels(self._partition).set(len(waiting))
        # the first that began to wait is the oldest: a dict keeps the order of its keys
        oldest = next(iter(waiting.values()), now)
        self._metrics.oldest_dossier.labels(self._partition).set(max(0, now - oldest) / 1000)


def factory(partitions: int, names: Names, packs: Packs, metrics: Metrics) -> Callable[[int], RouteState]:
    """Makes the state of a partition."""
    return lambda partition: RouteState(partition, partitions, names, packs, metrics)
