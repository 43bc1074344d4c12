"""The hop from facts to answers: windows and profiles of the entities that live in a partition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from agents.normalise import Names
from orderstream import wire
from orderstream.detect import Detector
from orderstream.engine import Effects, Record, Send, partition_for
from orderstream.facts import Answer
from orderstream.metrics import Metrics
from orderstream.windows import Packs


class DetectState:
    """One partition's entities. Its changelog is the batches of facts: folded again, they give the same windows."""

    def __init__(self, partitions: int, names: Names, packs: Packs, zone: str, metrics: Metrics) -> None:
        self._partitions = partitions
        self._names = names
        self._detector = Detector(packs, zone)
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
        sends = [
            Send(self._names.dossiers, blob, partition=partition)
            for partition, items in answers.items()
            for blob in wire.packed(items)
        ]
        return Effects(sends, list(wire.packed(blobs)) or None)

    def restore(self, blob: bytes) -> None:
        for facts in wire.decode_blobs(blob):
            self._detector.restore(wire.decode_facts(facts))

    def idle(self) -> Effects | None:
        return None

    @property
    def entries(self) -> int:
        """Orders kept in the windows of this partition."""
        return self._detector.entries


def factory(partitions: int, names: Names, packs: Packs, zone: str, metrics: Metrics) -> Callable[[int], DetectState]:
    """Makes the state of a partition."""
    return lambda _: DetectState(partitions, names, packs, zone, metrics)
