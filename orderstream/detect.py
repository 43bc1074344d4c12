"""Detect: the entities of one partition, fed with facts, giving answers.

Law: every fact is answered once it is known (often with nothing), every order whose answer changed is answered anew, and
what no order can ask for any more is forgotten by the data's own time: an entity keeps an order until every normaliser has
read past its event time + the longest window + lateness + horizon. Never by the wall clock, never by the latest seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import msgspec

from orderstream import times, wire
from orderstream.facts import NO_FACT, NO_SOURCE, Answer, Fact, FactBatch, News
from orderstream.pages import Page, page
from orderstream.rules.pack import Judges, Pack
from orderstream.shelf import Frozen, Shelf
from orderstream.windows import Entity, Entry, Packs

PART = 500
"""Facts of one entity that are written down at once."""

FEW = 8
"""Orders of an entity up to which they are kept as bytes from the first on, as long as none meets another."""

_SILENT: dict[str, Any] = {}
"""Shared by all answers that find nothing; never written."""


class Detector:
    """The entities of one partition. zone: IANA name of the shop's calendar day. sources: how many normalisers tell it facts."""

    def __init__(self, packs: Packs, zone: str, sources: int = 1) -> None:
        self._sources = sources
        self._packs = packs
        self._zone = zone
        self.entities: Shelf[Entity] = Shelf(self._freeze, self._thaw, sources, weigh=wire.length, outweighed=self._outweighed)
        self.position = 0
        """Of the next answer."""
        self._progress: dict[int, tuple[int, bool]] = {}
        self._versions: set[str] = set()
        self._judges: dict[str, dict[str, Judges]] = {}
        """Pack version -> kind of entity -> the rules that ask it."""
        self._keep: dict[str, int] = {}
        self._waits: dict[str, int] = {}
        """Kind of entity -> ms after an order's event time when it is looked whether it can be forgotten."""
        self.entries = 0
        """Orders kept in all entities of this partition."""

    def process(self, batch: FactBatch) -> dict[str, dict[str, Answer]]:
        """Takes a batch in. The answers: order -> entity -> the latest."""
        self._meet(batch.packs)
        out: dict[str, dict[str, Answer]] = defaultdict(dict)
        entities = self.entities
        for name, at, news in batch.items:
            fact = news[0]
            if len(news) > 1 or not _enters(fact):
                held = entities.get(name)
            else:
                found = entities.find(name)
                answer = self._pass(name, found, fact)
                if answer is not None:
                    out[fact.order][name] = answer
                    continue
                held = entities.get(name) if isinstance(found, bytes) else found
            entity = self._entity(name) if held is None else held
            for order, entry in self._tell(entity, at, news).items():
                out[order][name] = entity.answer(entry, self.position, self._packs)
                self.position += 1
        self._advance(batch.source, batch.progress, idle=batch.idle)
        entities.cool(2 * len(batch.items))
        return out

    def _pass(self, name: str, held: Entity | bytes | None, fact: Fact) -> Answer | None:
        """Takes in an order that shares no window of this entity with another one, and of which nothing is found, as of most.

        None, and nothing done, where it is no such order. Nothing is made of it but the bytes that are to be remembered, unless its
        entity is an object for others' sake.
        """
        kind = name[: name.index(":")]
        judges = self._judges_of(fact.pack, kind)
        missing = judges.silent(fact)
        if missing is None:
            return None
        if held is None:
            self.entities.begin(name, wire.encode((fact,)), fact.at + self._wait(kind))
        elif isinstance(held, bytes):
            beside = _beside(held, fact, judges.reach)
            if beside is None:
                return None
            self.entities.change(name, beside)
        elif not held.scheduled or not held.pass_by(fact, judges, missing):
            return None
        self.entries += 1
        self.position += 1
        return Answer(fact.version, self.position - 1, _SILENT, missing, (), (), _SILENT)

    def restore(self, batch: wire.Sealed, position: int) -> None:
        """Takes a batch in that has been answered before, unread. position: of the next answer after it."""
        self.position = max(self.position, position)
        self._meet(batch.packs)
        for name, at, sealed in batch.items:
            news = bytes(sealed)
            new = self.entities.add(name, news)
            if new is None:
                self._tell(self.entities.get(name) or self._entity(name), at, wire.decode_news(news))
                continue
            self.entries += wire.length(news)
            if new:
                self._schedule(name, at if at != NO_FACT else batch.progress)
        self._advance(batch.source, batch.progress, idle=batch.idle)

    def lay(self, page: Page, packs: Iterable[str], position: int) -> None:
        """Takes in what `dump` gave, unread, in place of what is known of the same entities."""
        self.position = max(self.position, position)
        self._meet(packs)
        self.entries += page.weight
        self.entities.lay_page(page)

    def dump(self) -> Iterator[Page | wire.Sealed]:
        """All that is remembered, for `lay` and `restore`, in any number of helpings; `position` and `packs` are as they are then."""
        for source, (progress, idle) in sorted(self._progress.items()):
            yield wire.Sealed(source, progress, idle, [], [])
        busy: list[tuple[int, str]] = []

        def whole(name: str, minute: int, held: Entity | Frozen) -> bytes | None:
            if isinstance(held, bytes) and wire.length(held) <= PART:
                return held
            news = _news(held)
            if len(news) <= PART:
                return wire.encode(news)
            busy.append((minute, name))
            return None

        # of what has only reference data nothing is due
        waiting = ((self._minute(entity), entity.name) for entity in self.entities.objects() if not entity.scheduled)
        yield from self.entities.dump(whole, waiting)
        for minute, name in busy:
            # a part at a time: what is told anew meanwhile has a higher version
            held = self.entities.held(name)
            news = _news(held) if held is not None else []
            if news:
                yield page([(name, minute, wire.encode(news[:PART]))], wire.length)
            for start in range(PART, len(news), PART):
                source, (progress, idle) = next(iter(self._progress.items()))
                part = msgspec.Raw(wire.encode(news[start : start + PART]))
                yield wire.Sealed(source, progress, idle, [], [(name, NO_FACT, part)])

    @property
    def packs(self) -> list[str]:
        """The pack versions that facts have named."""
        return sorted(self._versions)

    def _tell(self, entity: Entity, at: int, news: list[News]) -> dict[str, Entry]:
        """An entity is told something; its entries, by order, that are to be answered because of it."""
        count = len(entity.entries)
        facts: list[Fact] = [one for one in news if type(one) is Fact]
        concerned = entity.apply(facts, self._packs) if facts else {}
        if len(facts) < len(news):
            for one in news:
                if not isinstance(one, Fact):
                    concerned.update(entity.learn(one, self._packs))
        self.entries += len(entity.entries) - count
        if not entity.scheduled:
            # reference data of what nobody orders is to be forgotten too, but for the last
            entity.scheduled = True
            self._schedule(entity.name, at if at != NO_FACT else min(one.at for one in news))
        return concerned

    def _entity(self, name: str) -> Entity:
        entity = Entity(name, self._zone)
        self.entities.put(name, entity)
        return entity

    def _freeze(self, entity: Entity) -> bytes | None:
        if not entity.scheduled or not entity.tellable:
            return None
        news = entity.told()
        self.entries += len(news) - len(entity.entries)
        return wire.encode(news)

    def _thaw(self, name: str, frozen: Frozen) -> Entity:
        news = _read(frozen)
        if len(news) == 1 and (entity := self._of_one(name, news[0])) is not None:
            return entity
        entity = self._remembered(name, news)
        self.entries += len(entity.entries) - len(news)
        return entity

    def _of_one(self, name: str, fact: News) -> Entity | None:
        """An entity of which `_pass` has made bytes: it is known what it has said of its order."""
        if not _enters(fact):
            return None
        entity = Entity(name, self._zone)
        judges = self._judges_of(fact.pack, entity.kind)
        missing = judges.silent(fact)
        if missing is None:
            return None
        entity.admit(fact, judges, missing)
        entity.scheduled = True
        return entity

    def _remembered(self, name: str, news: list[News]) -> Entity:
        entity = Entity(name, self._zone)
        entity.remember(news, self._packs)
        entity.scheduled = True
        return entity

    def _judges_of(self, version: str, kind: str) -> Judges:
        try:
            return self._judges[version][kind]
        except KeyError:
            judges = self._judges.setdefault(version, {})[kind] = self._packs(version).kind(kind)
            return judges

    def _outweighed(self, held: Entity | Frozen) -> None:
        self.entries -= _count(held)

    def _meet(self, versions: Iterable[str]) -> None:
        """Learns how long each kind of entity must keep an order for a pack version."""
        for version in versions:
            if version in self._versions:
                continue
            self._versions.add(version)
            pack: Pack = self._packs(version)
            for kind, span in pack.keep.items():
                # once for an order's own lateness, once for records that arrive in another order than they were received
                self._keep[kind] = max(self._keep.get(kind, 0), span + pack.horizon + 2 * pack.lateness)
            self._waits.clear()

    def _kept(self, name: str) -> int:
        """How long (ms) an entity's order is kept."""
        return self._wait(name[: name.index(":")]) - times.HOUR

    def _wait(self, kind: str) -> int:
        wait = self._waits.get(kind)
        if wait is None:
            # a trust may be of a kind that no rule asks
            kept = self._keep.get(kind)
            wait = (kept if kept is not None else max(self._keep.values(), default=times.DAY)) + times.HOUR
            self._waits[kind] = wait
        return wait

    def _schedule(self, name: str, at: int) -> None:
        self.entities.remind(at + self._wait(name[: name.index(":")]), name)

    def _minute(self, entity: Entity) -> int:
        """When what has no orders is looked at again."""
        return (max(progress for progress, _ in self._progress.values()) + self._kept(entity.name)) // times.MINUTE

    def _advance(self, source: int, progress: int, *, idle: bool) -> None:
        """Moves the data's clock, and forgets what has come due."""
        if source == NO_SOURCE:
            return
        known = self._progress.get(source)
        self._progress[source] = (max(progress, known[0] if known else 0), idle)
        if len(self._progress) < self._sources:
            return
        busy = [progress for progress, idle in self._progress.values() if not idle]
        now = min(busy) if busy else max(progress for progress, _ in self._progress.values())
        for name in self.entities.until(now):
            oldest = self._expire(name, now - self._kept(name))
            if oldest is not None:
                self._schedule(name, oldest)

    def _expire(self, name: str, before: int) -> int | None:
        """Forgets an entity's orders before an event time (ms); that of the first which remains."""
        held = self.entities.held(name)
        if held is None:
            return None
        if isinstance(held, Entity):
            count = len(held.entries)
            held.expire(before)
            self.entries += len(held.entries) - count
            oldest = held.oldest()
            if oldest is None:
                held.scheduled = False
                if held.empty:
                    self.entities.discard(name)
            return oldest
        news = _read(held)
        kept: list[News] = []
        # most entities are one order's
        if not all(isinstance(one, Fact) and one.at < before for one in news):
            entity = self._remembered(name, news)
            entity.expire(before)
            kept = entity.told()
        self.entries += len(kept) - len(news)
        self.entities.discard(name)
        if not kept:
            return None
        self.entities.lay(name, wire.encode(kept))
        # only reference data: it is looked at again
        return min((one.at for one in kept if isinstance(one, Fact)), default=before + self._kept(name))


def _read(frozen: Frozen) -> list[News]:
    if isinstance(frozen, bytes):
        return wire.decode_news(frozen)
    return [one for part in frozen for one in wire.decode_news(part)]


def _news(held: Entity | Frozen) -> list[News]:
    return held.told() if isinstance(held, Entity) else _read(held)


def _count(held: Entity | Frozen) -> int:
    """Facts of an entity as it stands."""
    if isinstance(held, Entity):
        return len(held.entries)
    return sum(map(wire.length, [held] if isinstance(held, bytes) else held))


def _enters(one: News) -> TypeGuard[Fact]:
    """Whether it is of an order that counts in windows."""
    return type(one) is Fact and one.enters and not one.gone


def _beside(held: bytes, fact: Fact, reach: int) -> bytes | None:
    """An entity's bytes with one more order, where all are of one pack and none as near as `reach` (ms) to it; None where not."""
    if wire.length(held) >= FEW:
        return None
    news = wire.decode_news(held)
    for one in news:
        if not _enters(one) or one.order == fact.order or one.pack != fact.pack or abs(one.at - fact.at) < reach:
            return None
    return wire.encode((*news, fact))
