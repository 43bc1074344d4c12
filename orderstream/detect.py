"""Detect: the entities of one partition, fed with facts, giving answers.

Law: every fact is answered once it is known (often with nothing), every order whose answer changed is answered anew, and
what no order can ask for any more is forgotten by the data's own time: an entity keeps an order until every normaliser has
read past its event time + the longest window + lateness + horizon. Never by the wall clock, never by the latest seen.
"""

from __future__ import annotations

import heapq

from orderstream import times
from orderstream.facts import Answer, Fact, FactBatch, Update
from orderstream.rules.pack import Pack
from orderstream.windows import Entity, Entry, Packs


class Detector:
    """The entities of one partition. zone: IANA name of the shop's calendar day. sources: how many normalisers tell it facts."""

    def __init__(self, packs: Packs, zone: str, sources: int = 1) -> None:
        self._sources = sources
        self._packs = packs
        self._zone = zone
        self._entities: dict[str, Entity] = {}
        self._position = 0
        self._progress: dict[int, tuple[int, bool]] = {}
        self._due: list[tuple[int, str]] = []
        self._versions: set[str] = set()
        self._keep: dict[str, int] = {}
        self.entries = 0
        """Orders kept in all entities of this partition."""

    def process(self, batch: FactBatch) -> list[Answer]:
        """Takes a batch in. The answers, each order and entity once: the latest counts."""
        out: list[Answer] = []
        for entity, entry in self._take(batch):
            out.append(entity.answer(entry, self._position, self._packs))
            self._position += 1
        return out

    def restore(self, batch: FactBatch) -> None:
        """Takes a batch in that has been answered before."""
        self._position += len(self._take(batch))

    def _take(self, batch: FactBatch) -> list[tuple[Entity, Entry]]:
        facts: dict[str, list[Fact]] = {}
        news: list[Update] = []
        for item in batch.items:
            if isinstance(item, Fact):
                self._meet(item.pack)
                facts.setdefault(item.entity, []).append(item)
            else:
                news.append(item)
        answers: dict[tuple[str, str], tuple[Entity, Entry]] = {}
        for name, said in facts.items():
            entity = self._entity(name)
            before = len(entity.entries)
            concerned = entity.apply(said, self._packs)
            self.entries += len(entity.entries) - before
            self._schedule(entity, min(fact.at for fact in said))
            answers.update(((entry.fact.order, name), (entity, entry)) for entry in concerned)
        for update in news:
            entity = self._entity(update.entity)
            concerned = entity.learn(update, self._packs)
            answers.update(((entry.fact.order, update.entity), (entity, entry)) for entry in concerned)
        self._advance(batch)
        return list(answers.values())

    def _entity(self, name: str) -> Entity:
        entity = self._entities.get(name)
        if entity is None:
            entity = self._entities[name] = Entity(name, self._zone)
        return entity

    def _meet(self, version: str) -> None:
        """Learns how long each kind of entity must keep an order for a pack version."""
        if version in self._versions:
            return
        self._versions.add(version)
        pack: Pack = self._packs(version)
        for kind, span in pack.keep.items():
            # once for an order's own lateness, once for records that arrive in another order than they were received
            self._keep[kind] = max(self._keep.get(kind, 0), span + pack.horizon + 2 * pack.lateness)

    def _schedule(self, entity: Entity, at: int) -> None:
        if not entity.scheduled:
            entity.scheduled = True
            heapq.heappush(self._due, (at + self._keep[entity.kind] + times.HOUR, entity.name))

    def _advance(self, batch: FactBatch) -> None:
        """Moves the data's clock, and forgets what has come due."""
        known = self._progress.get(batch.source)
        self._progress[batch.source] = (max(batch.progress, known[0] if known else 0), batch.idle)
        if len(self._progress) < self._sources:
            return
        busy = [progress for progress, idle in self._progress.values() if not idle]
        now = min(busy) if busy else max(progress for progress, _ in self._progress.values())
        while self._due and self._due[0][0] <= now:
            _, name = heapq.heappop(self._due)
            entity = self._entities.get(name)
            if entity is None:
                continue
            before = len(entity.entries)
            entity.expire(now - self._keep[entity.kind])
            self.entries += len(entity.entries) - before
            oldest = entity.oldest()
            if oldest is not None:
                heapq.heappush(self._due, (oldest + self._keep[entity.kind] + times.HOUR, name))
            else:
                entity.scheduled = False
                if entity.empty:
                    del self._entities[name]
