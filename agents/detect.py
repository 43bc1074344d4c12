"""The hop from facts to answers: windows and profiles of the entities that live in a partition."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from agents.normalise import Names
from orderstream import wire
from orderstream.detect import Detector
from orderstream.engine import Effects, Record, Send, partition_for
from orderstream.facts import Answer, Fact, FactBatch
from orderstream.metrics import Metrics
from orderstream.windows import Packs


class DetectState:
    """One partition's entities. Its changelog is the batches of facts: folded again, they give the same windows."""

    def __init__(self, partition: int, partitions: int, names: Names, packs: Packs, zone: str, metrics: Metrics) -> None:
        self._partition = str(partition)
        self._partitions = partitions
        self._names = names
        self._detector = Detector(packs, zone, sources=partitions)
        self._metrics = metrics

    def process(self, records: Sequence[Record]) -> Effects:
        answers: dict[int, list[Answer]] = defaultdict(list)
        blobs: list[bytes] = []
        for record in records:
            if record.value is None:
                continue
            batch = wire.decode_facts(record.value)
            for answer in self._detector.process(batch):
                answers[partition_for(answer.order.encode(), self._partitions)].append(answer)
            blobs.append(record.value)
            self._count(record, batch)
        sends = [
            Send(self._names.dossiers, blob, partition=partition)
            for partition, items in answers.items()
            for blob in wire.packed(items)
        ]
        self._show()
        return Effects(sends, list(wire.packed(blobs)) or None)

    def restore(self, blob: bytes) -> None:
        for facts in wire.decode_blobs(blob):
            self._detector.restore(wire.decode_facts(facts))

    def idle(self) -> Effects | None:
        self._show()
        return None

    def _count(self, record: Record, batch: FactBatch) -> None:
        facts = Counter(fact.order.partition(":")[0] for fact in batch.items if isinstance(fact, Fact))
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
