"""The three hops over topics in memory, with workers that die.

A lane does what the engine does with a partition of a hop: process at once, write the changelog in order, send to inner topics
beside it in any order of partitions, publish only behind the changelog, acknowledge last. Every one of these steps is a step of
its own here, so a death may fall between any two of them.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from histories import BOOK, GOODS, KEYS, ZONE, when

from agents import detect, normalise, route
from agents.normalise import Names
from orderstream import detect as entities
from orderstream import replay, shelf, topics, wire
from orderstream.engine import Effects, Record, Send, partition_for
from orderstream.metrics import Metrics
from orderstream.normalise import Books, Rejection
from orderstream.orders import Raw
from orderstream.rules.book import PackBook
from orderstream.verdict import Line, Signal, rejected_line

NAMES = Names("")
RAW = topics.raw("api", "")
METRICS = Metrics()
HOT, WHOLE, PART = shelf.HOT, wire.MAX_RECORD, entities.PART


@dataclass
class Batch:
    """What a processed batch still has to do before its input is acknowledged."""

    source: tuple[str, int] | None
    logs: deque[bytes]
    inner: dict[tuple[str, int], deque[Send]]
    public: deque[Send]

    @property
    def published(self) -> bool:
        return not self.logs and not self.public

    @property
    def done(self) -> bool:
        return self.published and not any(self.inner.values())


@dataclass
class Lane:
    """A partition of a hop. read: how far it has read each topic; committed: how far it has acknowledged it."""

    hop: str
    partition: int
    inputs: list[str]
    make: Callable[[int], Any]
    state: Any = None
    read: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    committed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    changelog: list[bytes] = field(default_factory=list)
    batches: deque[Batch] = field(default_factory=deque)

    def begin(self) -> None:
        self.state = self.make(self.partition)
        for blob in self.changelog:
            self.state.restore(blob)
        self.read = defaultdict(int, self.committed)

    def dump(self) -> None:
        """What is remembered is written down anew, where nothing of it still waits to be logged."""
        if not any(batch.logs for batch in self.batches):
            self.changelog = list(self.state.dump())

    def die(self) -> None:
        self.state = None
        self.batches.clear()


class World:
    """The line on `partitions` partitions, fed with a history."""

    def __init__(self, history: Iterable[Mapping[str, Any]], partitions: int, seed: int, book: PackBook = BOOK) -> None:
        self.random = random.Random(seed)
        self.partitions = partitions
        self.topics: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in history:
            self.feed(record)
        books = Books(GOODS, book.at)
        makers: list[tuple[str, list[str], Callable[[int], Any]]] = [
            (
                "normalise",
                [RAW, NAMES.stock, NAMES.updates],
                normalise.factory(partitions, NAMES, books, KEYS, "CNY", METRICS),
            ),
            ("detect", [NAMES.facts], detect.factory(partitions, NAMES, book.pack, ZONE, METRICS)),
            ("route", [NAMES.dossiers, NAMES.outcomes], route.factory(partitions, NAMES, book.pack, METRICS)),
        ]
        self.lanes = [Lane(hop, p, inputs, make) for hop, inputs, make in makers for p in range(partitions)]
        for lane in self.lanes:
            lane.begin()

    def feed(self, record: Mapping[str, Any]) -> None:
        """A replay record comes to its topic."""
        kind = record.get("kind", "raw")
        if kind == "raw":
            item = replay.read_item(record, KEYS, "CNY")
            assert isinstance(item, Raw)
            key = f"api:{item.shop}:{record['body'].get('order_id')}"
            headers = tuple(wire.raw_headers(item))
            self._append(RAW, partition_for(key.encode(), self.partitions), item.body, headers, item.received_at)
            return
        topic, key = {
            "stock": (NAMES.stock, record.get("sku")),
            "outcome": (NAMES.outcomes, record.get("order_id")),
        }.get(kind, (NAMES.updates, record.get("key") or record.get("sku") or record.get("pair")))
        partition = partition_for(str(key).encode(), self.partitions)
        self._append(topic, partition, json.dumps(record).encode(), (), when(record))

    def _append(self, topic: str, partition: int, value: bytes | None, headers: Any = (), at: int = 0) -> None:
        log = self.topics[topic, partition]
        log.append(Record(topic, partition, len(log), None, value, headers, at))

    # -- steps -------------------------------------------------------------------------------------------------------

    def waiting(self, lane: Lane) -> list[str]:
        return [t for t in lane.inputs if lane.read[t] < len(self.topics[t, lane.partition])]

    def take(self, lane: Lane, topic: str) -> None:
        """The next few records of one topic."""
        start = lane.read[topic]
        records = self.topics[topic, lane.partition][start : start + self.random.choice((1, 1, 2, 5, 100))]
        lane.read[topic] = records[-1].offset + 1
        self._launch(lane, lane.state.process(records), (topic, lane.read[topic]))

    def _launch(self, lane: Lane, effects: Effects, source: tuple[str, int] | None) -> None:
        log = effects.log
        logs = [] if log is None else [log] if isinstance(log, bytes) else log
        inner: dict[tuple[str, int], deque[Send]] = defaultdict(deque)
        for send in effects.sends:
            if not send.public:
                assert send.partition is not None
                inner[send.topic, send.partition].append(send)
        lane.batches.append(Batch(source, deque(logs), inner, deque(s for s in effects.sends if s.public)))

    def flush(self, lane: Lane) -> bool:
        """One small thing that the broker does for a lane; False if there is nothing."""
        steps: list[Callable[[], None]] = []
        first = next((b for b in lane.batches if b.logs), None)
        if first is not None:
            steps.append(lambda: lane.changelog.append(first.logs.popleft()))
        seen: set[tuple[str, int]] = set()
        for batch in lane.batches:
            for target, sends in batch.inner.items():
                if sends and target not in seen:
                    seen.add(target)
                    steps.append(lambda sends=sends, target=target: self._append(*target, sends.popleft().value))  # type: ignore[misc]
        unpublished = next((b for b in lane.batches if not b.published), None)
        if unpublished is not None and not unpublished.logs:
            steps.append(lambda: self._publish(unpublished.public.popleft()))
        if lane.batches and lane.batches[0].done:
            steps.append(lambda: self._acknowledge(lane))
        if not steps:
            return False
        self.random.choice(steps)()
        return True

    def _publish(self, send: Send) -> None:
        assert send.key is not None
        self._append(send.topic, partition_for(send.key, self.partitions), send.value)

    def _acknowledge(self, lane: Lane) -> None:
        source = lane.batches.popleft().source
        if source is not None:
            lane.committed[source[0]] = source[1]

    def settle(self, lane: Lane) -> None:
        while self.flush(lane):
            pass

    # -- a run -------------------------------------------------------------------------------------------------------

    def run(self, deaths: int) -> None:
        """Reads everything, in a random interleaving of lanes, with so many deaths on the way; then comes to rest."""
        while True:
            ready = [lane for lane in self.lanes if self.waiting(lane) and len(lane.batches) < 4]
            busy = [lane for lane in self.lanes if lane.batches]
            if not ready and not busy:
                if deaths == 0:
                    break
                deaths -= self._kill()
                continue
            # what is not asked for at once becomes bytes, sooner or later
            shelf.HOT = self.random.choice((1, 1, 3, 4096))
            # and what is too much for one record is several
            wire.MAX_RECORD = self.random.choice((500, 3000, WHOLE))
            entities.PART = self.random.choice((1, PART))
            if self.random.random() < 0.05:
                self.random.choice(self.lanes).dump()
            if deaths and self.random.random() < 0.08:
                deaths -= self._kill()
            elif ready and (not busy or self.random.random() < 0.5):
                lane = self.random.choice(ready)
                self.take(lane, self.random.choice(self.waiting(lane)))
            else:
                self.flush(self.random.choice(busy))
        shelf.HOT, wire.MAX_RECORD, entities.PART = HOT, WHOLE, PART
        for lane in self.lanes:
            effects = lane.state.idle()
            if effects is not None:
                self._launch(lane, effects, None)
                self.settle(lane)
        while ready := [lane for lane in self.lanes if self.waiting(lane)]:
            for lane in ready:
                self.take(lane, self.waiting(lane)[0])
                self.settle(lane)

    def _kill(self) -> int:
        """One partition moves away, or the whole worker dies; all that it had not written is lost."""
        dying = self.lanes if self.random.random() < 0.5 else [self.random.choice(self.lanes)]
        for lane in dying:
            lane.die()
        for lane in dying:
            lane.begin()
        return 1

    # -- what came of it ---------------------------------------------------------------------------------------------

    def values(self, topic: str) -> list[dict[str, Any]]:
        """Everything on a public topic, partition by partition."""
        return [json.loads(r.value or b"") for p in range(self.partitions) for r in self.topics[topic, p]]

    def lines(self) -> list[bytes]:
        """The last verdict of every order, and rejects, as a backtest writes them."""
        out: dict[str, Line] = {}
        rejections = [
            msgspec.json.decode(r.value or b"", type=Rejection)
            for p in range(self.partitions)
            for r in self.topics[NAMES.rejected, p]
        ]
        for turned in sorted(rejections, key=lambda r: (r.received_at, r.sentence), reverse=True):
            out[turned.order_id] = rejected_line(turned.order_id, turned.sentence, turned.pack)
        for v in sorted(self.values("orders.verdicts"), key=lambda v: v["verdict_seq"]):
            signals = [Signal(s["rule"], s["level"], s["evidence"]) for s in v["signals"]]
            out[v["order_id"]] = Line(v["order_id"], v["verdict"], v["level"], v["score"], v["pack"], signals, v["not_available"])
        return [out[order].encode() for order in sorted(out)]
