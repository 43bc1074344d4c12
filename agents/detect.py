"""The hop from facts to answers: windows and profiles of the entities that live in a partition."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from agents.normalise import Names
from orderstream import wire
from orderstream.detect import Detector
from orderstream.engine import Effects, Record, Send, partition_for
from orderstream.facts import Answers, Mail
from orderstream.metrics import Metrics
from orderstream.pages import Page
from orderstream.windows import Packs

_logged = msgspec.msgpack.Decoder(list[tuple[int, bytes]])
_laid = msgspec.msgpack.Decoder(tuple[int, list[str], Page])


@lru_cache(maxsize=8192)
def _address(order: str, partitions: int) -> tuple[int, str]:
    """Where an order lives, and its channel: all of its entities ask within a second."""
    return partition_for(order.encode(), partitions), order.partition(":")[0]


class DetectState:
    """One partition's entities. Its changelog is the batches of facts, each with the position of the answer after it."""

    def __init__(self, partition: int, partitions: int, names: Names, packs: Packs, zone: str, metrics: Metrics) -> None:
        self._partition = str(partition)
        self._partitions = partitions
        self._names = names
        self._detector = Detector(packs, zone, sources=partitions)
        self._metrics = metrics

    def process(self, records: Sequence[Record]) -> Effects:
        mail: dict[int, list[Mail]] = defaultdict(list)
        log: list[tuple[int, bytes]] = []
        for record in records:
            if record.value is None:
                continue
            batch = wire.decode_facts(record.value)
            told: Counter[str] = Counter()
            for order, answers in self._detector.process(batch).items():
                partition, channel = _address(order, self._partitions)
                mail[partition].append((order, [Answers(answers)]))
                told[channel] += len(answers)
            log.append((self._detector.position, record.value))
            self._count(record, told)
        sends = [
            Send(self._names.dossiers, blob, partition=partition)
            for partition, items in mail.items()
            for blob in wire.packed(items)
        ]
        self._show()
        return Effects(sends, list(wire.packed(log)) or None)

    def restore(self, blob: bytes) -> None:
        if blob.startswith(wire.LAID):
            position, packs, page = _laid.decode(memoryview(blob)[len(wire.LAID) :])
            self._detector.lay(page, packs, position)
            return
        for position, batch in _logged.decode(blob):
            self._detector.restore(wire.decode_sealed(batch), position)

    def dump(self) -> Iterator[bytes]:
        detector = self._detector
        for piece in detector.dump():
            if isinstance(piece, Page):
                yield wire.LAID + wire.encode((detector.position, detector.packs, piece))
            else:
                yield wire.encode([(detector.position, wire.encode(piece))])

    def idle(self) -> Effects | None:
        self._show()
        return None

    def _count(self, record: Record, facts: Mapping[str, int]) -> None:
        for channel, number in facts.items():
            self._metrics.facts.labels(channel).inc(number)
        if facts:
            # the topic's timestamps are the broker's own (LogAppendTime): from when the facts could be read
            waited = time.time_ns() // 1_000_000 - record.timestamp_ms
            self._metrics.hop_latency.labels("detect").observe(max(0, waited) / 1000)

    def _show(self) -> None:
        self._metrics.window_entries.labels(self._partition).set(self._detector.entries)


def factory(partitions: int, names: Names, packs: Packs, zone: str, metrics: Metrics) -> Callable[[int], DetectState]:
    """Makes the state of a partition."""
    return lambda partition: DetectState(partition, partitions, names, packs, zone, metrics)
