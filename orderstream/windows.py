"""Windows: what one entity remembers, and what it says of each of its orders.

Law: an answer is a function of the *set* of orders and updates that the entity has seen, never of the sequence. A window
rule judges each order on its own window (t - W, t]; orders at the same instant see each other. When a record arrives, every
order whose window it falls into is judged again, and those whose answer changed are answered anew.
Reason: the same orders then get the same verdicts live, after a backlog, and in a backtest.

Times are ms UTC, amounts minor units, distances km.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from orderstream import outcomes, times
from orderstream.facts import Answer, Came, Fact, Finding, Floor, News, Rate, Snooze, Stock, Trust, Update
from orderstream.rules.pack import Judge, Judges, Pack, Values

EVIDENCE_ORDERS = 20
"""At most so many other orders are named, the first by (time, id): later members then change no earlier evidence."""

TELLABLE = 32
"""Orders of an entity up to which it is kept as bytes while nobody asks for it. A busy one would be read again and again."""

BUSY = 32
"""Orders of an entity from which on it is remembered where windows begin."""
NEARBY = 8
"""Orders that are passed by on the way from one window's beginning to the next one's, rather than searched among all."""

EARTH_KM = 6371.0088
"""Mean radius of the Earth, km (IUGG)."""

_LAST = "\U0010ffff"
"""Sorts after every order id."""

_NOTHING: dict[str, Any] = {}
"""Shared wherever there is nothing; never written."""
_NONE: list[Any] = []


@lru_cache(maxsize=65536)
def _together(names: tuple[str, ...]) -> frozenset[str]:
    """One set for all that name the same."""
    return frozenset(names)


_HISTORY: dict[str, frozenset[str]] = {
    "returned": frozenset({"returned"}),
    "complaints": frozenset({"complaint", "wrong-shipment"}),
    "frauds": outcomes.FRAUDS,
}
"""What an expression may read of what came of other orders."""

Packs = Callable[[str], Pack]
"""The compiled pack of a version."""


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance in km between two (lat, lon) in degrees."""
    lat1, lon1, lat2, lon2 = map(math.radians, (*a, *b))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


class Fire(msgspec.Struct, gc=False):
    """A window that fires: what was measured, its first members, and since when (ms) it has been complete."""

    value: float
    first: list[str]
    found: int


class Entry(msgspec.Struct, eq=False, gc=False):
    """One order in an entity: its fact, and what has been judged of it so far. Made by `_entry`.

    Nothing in it leads back to an entry, so the collector need not know of it: a worker has hundreds of thousands.

    judges: the rules of the fact's pack that ask this kind of entity. before: event times at which the order stood here with earlier
    versions of its fact. judged: whether findings, missing and marks have been worked out, and follow every change from then
    on; fired: whether `fires` has been. missing: rules that cannot judge it, sorted. profiles: rule -> whether its profile's
    condition holds, no other order has a part in that. fires: rules that mark all, and whose window ending here fires. marks: rule
    -> the earliest window that marks this order, by the fact that it ends at, and whether that was found within the horizon.
    """

    fact: Fact
    judges: Judges
    before: tuple[int, ...]
    judged: bool
    fired: bool
    findings: dict[str, Finding]
    missing: tuple[str, ...]
    profiles: dict[str, bool | None]
    fires: dict[str, Fire]
    marks: dict[str, tuple[Fact, Fire, bool]]


def _entry(fact: Fact, judges: Judges, before: tuple[int, ...] = ()) -> Entry:
    """An order of which nothing has been judged. What is empty is shared, and made when it is first written: most meet nothing."""
    return Entry(fact, judges, before, False, False, _NOTHING, (), _NOTHING, _NOTHING, _NOTHING)


class Rare:
    """What few entities have: late orders that only ask, orders that left, and reference data."""

    __slots__ = ("asking", "came", "floors", "gone", "rates", "snoozes", "stocks", "trusts")

    def __init__(self) -> None:
        self.asking: dict[str, Entry] = {}
        """Late orders: they ask about the profile and count in no window."""
        self.gone: dict[str, Fact] = {}
        """Order -> the fact that it has left, so that a stray older one does not bring it back."""
        self.stocks: list[Stock] = []
        self.rates: list[Rate] = []
        self.floors: list[Floor] = []
        self.trusts: list[Trust] = []
        self.snoozes: list[Snooze] = []
        self.came: list[Came] = []


_NO_RARE = Rare()
"""Shared by the entities that have none; never written."""


class Entity:
    """All orders of one entity within the horizon, sorted by (event time, order id), and what is known about it."""

    __slots__ = (
        "by_order", "cumulated", "dormant", "entries", "firing", "keys", "kind", "lows", "name", "rare", "scheduled", "span", "zone",
    )  # fmt: skip

    def __init__(self, name: str, zone: str) -> None:
        self.name = name
        self.kind = sys.intern(name.partition(":")[0])
        self.zone = zone
        self.scheduled = False
        """Whether the detector will look here when the oldest order is due to be forgotten."""
        self.span = 0
        """The longest window (ms) of any rule that has judged here."""
        self.keys: list[tuple[int, str]] = []
        self.entries: list[Entry] = []
        self.by_order: dict[str, Entry] = {}
        self.rare = _NO_RARE
        self.cumulated: dict[str, list[int]] = _NOTHING
        self.lows: dict[str, int] = _NOTHING
        """Rule -> where the window began that was looked at last, in a busy entity: the next one begins nearby."""
        self.firing: dict[str, int] = _NOTHING
        """Rule that marks all -> how many windows are known to fire."""
        self.dormant = 0
        """Orders of which that is not known: they came back from bytes, and nothing has happened near them since."""

    def _own(self) -> Rare:
        """Its own Rare, to be written."""
        if self.rare is _NO_RARE:
            self.rare = Rare()
        return self.rare

    # -- what changes it ---------------------------------------------------------------------------------------------

    def apply(self, facts: Sequence[Fact], packs: Packs) -> dict[str, Entry]:
        """Takes facts in; the entries, by order, whose answer is new or another now, and all that a repeated fact concerns.

        Many facts at once cost little more than one: every window that they fall into is judged once, after all are in.
        """
        if len(facts) == 1 and (touched := self._enter(facts[0], packs)) is not None:
            return touched
        if self.dormant:
            known = [e.fact.at for f in facts if (e := self.by_order.get(f.order)) is not None]
            self._wake([*known, *(f.at for f in facts)])
        moved: list[int] = []
        fresh: list[Entry] = []
        left: list[Entry] = []
        repeated: list[int] = []
        for fact in facts:
            old = self.by_order.get(fact.order) or self.rare.asking.get(fact.order)
            gone = self.rare.gone.get(fact.order)
            if (old is not None and old.fact.version > fact.version) or (gone is not None and gone.version > fact.version):
                continue
            if (old is not None and old.fact == fact) or (old is None and fact.gone and gone == fact):
                repeated += [fact.at, *(old.before if old is not None else ())]
                continue
            judges = packs(fact.pack).kind(self.kind)
            self.span = max(self.span, judges.span)
            if old is not None:
                self._remove(old)
                left.append(old)
                moved.append(old.fact.at)
            if fact.gone:
                self._own().gone[fact.order] = fact
                continue
            self.rare.gone.pop(fact.order, None)
            past = () if old is None else old.before if old.fact.at == fact.at else (*old.before, old.fact.at)
            entry = _entry(fact, judges, past)
            fresh.append(entry)
            if fact.enters:
                self._insert(entry)
                moved.append(fact.at)
            else:
                self._own().asking[fact.order] = entry
        touched = {}
        self._rejudge(sorted(set(moved)), packs, touched)
        for entry in left:
            self._unmark(entry, packs, touched)
        for entry in fresh:
            order = entry.fact.order
            if self.rare.asking.get(order) is entry:
                self._judge(entry, packs, None, -1)
            if entry is self.by_order.get(order) or entry is self.rare.asking.get(order):
                touched[order] = entry
        for at in repeated:
            # the same again: answers that a crash may have swallowed are given again
            touched.update((e.fact.order, e) for e in self._concerned(at))
        return touched

    def pass_by(self, fact: Fact, judges: Judges, missing: tuple[str, ...]) -> bool:
        """Takes in an order that is in no window with another one, and of which it finds nothing but what cannot judge it.

        False, and nothing done, where it is no such order.
        """
        at, keys = fact.at, self.keys
        if self.rare is not _NO_RARE or fact.order in self.by_order:
            return False
        reach = max(self.span, judges.reach)
        if keys and at - keys[-1][0] < reach:
            index = bisect_left(keys, (at, ""))
            if index == len(keys) or keys[index][0] - at < reach or (index and at - keys[index - 1][0] < reach):
                return False
        self.admit(fact, judges, missing)
        return True

    def admit(self, fact: Fact, judges: Judges, missing: tuple[str, ...]) -> None:
        """Takes in an order that no other has a part in, and of which it has said that these cannot judge it, and nothing else."""
        entry = _entry(fact, judges)
        entry.judged = entry.fired = True
        entry.missing = missing
        self.span = max(self.span, judges.span)
        self._insert(entry)

    def _enter(self, fact: Fact, packs: Packs) -> dict[str, Entry] | None:
        """Takes in an order that comes behind all others in time, as most do: no window but its own can have changed.

        None, and nothing done, where it is no such order.
        """
        order, keys, rare = fact.order, self.keys, self.rare
        if not fact.enters or fact.gone or order in self.by_order or (keys and fact.at <= keys[-1][0]):
            return None
        if rare is not _NO_RARE and (order in rare.asking or order in rare.gone):
            return None
        judges = packs(fact.pack).kind(self.kind)
        self.span = max(self.span, judges.span)
        index = len(keys)
        entry = _entry(fact, judges)
        entry.fired = True
        keys.append((fact.at, order))
        self.entries.append(entry)
        self.by_order[order] = entry
        touched = {order: entry}
        refired: dict[str, list[int]] = {}
        if judges.marking:
            self._refire(entry, index, judges.marking, refired)
        self._judge(entry, packs, None, index)
        if refired:
            # which earlier windows fire has a part in who is marked by which
            self._wake([fact.at])
            self._remark(refired, packs, touched)
        return touched

    def learn(self, update: Update, packs: Packs) -> dict[str, Entry]:
        """Takes reference data in; the entries, by order, whose answer is another now, or all that it holds for where it is a repeat."""
        if isinstance(update, Trust):
            # it changes who counts in windows: what they were must be known first
            for entry in self.entries:
                if not entry.judged:
                    self._recall(entry, packs)
        shelf = self._shelf(update)
        again = update in shelf or isinstance(update, (Trust, Snooze))
        ended = _shelve(shelf, update)
        if isinstance(update, Came):
            until = None
        elif isinstance(update, (Trust, Snooze)):
            until = ended
        else:
            until = update.until if isinstance(update, Floor) else _next(shelf, update.at)
        low = bisect_left(self.keys, (update.at, ""))
        high = len(self.keys) if until is None else bisect_left(self.keys, (until, ""))
        touched: dict[str, Entry] = {}
        refired: dict[str, list[int]] = {}
        for index in range(low, high):
            entry = self.entries[index]
            if isinstance(update, Came) and not entry.judges.remembering:
                # no rule asks what came of others: a busy article's every return would have all its orders judged again
                continue
            known = entry.judged
            if not known:
                self._recall(entry, packs)
            if self._judge(entry, packs, None, index) or again or not known:
                touched[entry.fact.order] = entry
            if isinstance(update, Trust):
                self._refire(entry, index, entry.judges.marking, refired)
        self._remark(refired, packs, touched)
        for entry in self.rare.asking.values():
            held = update.at <= entry.fact.at and (until is None or entry.fact.at < until)
            if held and (self._judge(entry, packs, None, -1) or again):
                touched[entry.fact.order] = entry
        return touched

    def _shelf(self, update: Update) -> list[Any]:
        rare = self._own()
        if isinstance(update, Stock):
            return rare.stocks
        if isinstance(update, Rate):
            return rare.rates
        if isinstance(update, (Snooze, Came)):
            return rare.snoozes if isinstance(update, Snooze) else rare.came
        return rare.floors if isinstance(update, Floor) else rare.trusts

    def expire(self, before: int) -> None:
        """Forgets orders with an event time before `before`, and reference data that no remaining order reads."""
        cut = bisect_left(self.keys, (before, ""))
        if cut:
            for entry in self.entries[:cut]:
                del self.by_order[entry.fact.order]
                self._unfire(entry)
            del self.keys[:cut], self.entries[:cut]
            self.cumulated = _NOTHING
        rare = self.rare
        if rare is _NO_RARE:
            return
        for order in [o for o, e in rare.asking.items() if e.fact.at < before]:
            del rare.asking[order]
        for order in [o for o, f in rare.gone.items() if f.at < before]:
            del rare.gone[order]
        dated: list[Any]
        for dated in (rare.stocks, rare.rates):
            past = bisect_left(dated, before, key=_at)
            if past > 1:
                del dated[: past - 1]
        rare.floors = [f for f in rare.floors if f.until > before]
        rare.trusts = [t for t in rare.trusts if t.until > before]
        rare.snoozes = [s for s in rare.snoozes if s.until > before]
        rare.came = [c for c in rare.came if c.at >= before]

    @property
    def empty(self) -> bool:
        """Nothing is remembered here any more."""
        return not (
            self.entries
            or self.rare.asking
            or self.rare.gone
            or self.rare.stocks
            or self.rare.rates
            or self.rare.floors
            or self.rare.trusts
            or self.rare.snoozes
            or self.rare.came
        )

    def oldest(self) -> int | None:
        """Event time of the first order that is still kept here."""
        kept = [self.keys[0][0]] if self.keys else []
        kept += [e.fact.at for e in self.rare.asking.values()]
        kept += [f.at for f in self.rare.gone.values()]
        return min(kept, default=None)

    def _insert(self, entry: Entry) -> None:
        key = (entry.fact.at, entry.fact.order)
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.entries.insert(index, entry)
        self.by_order[entry.fact.order] = entry
        self.dormant += not entry.fired
        self._forget_sums(index)

    def _remove(self, entry: Entry) -> None:
        if self.rare.asking.pop(entry.fact.order, None) is not None:
            return
        index = bisect_left(self.keys, (entry.fact.at, entry.fact.order))
        del self.keys[index], self.entries[index]
        del self.by_order[entry.fact.order]
        self._unfire(entry)
        self._forget_sums(index)

    def _unfire(self, entry: Entry) -> None:
        for rule in entry.fires:
            self.firing[rule] -= 1
        self.dormant -= not entry.fired

    def _forget_sums(self, index: int) -> None:
        for sums in self.cumulated.values():
            del sums[index + 1 :]

    # -- as bytes ----------------------------------------------------------------------------------------------------

    @property
    def tellable(self) -> bool:
        """Whether it is better kept as bytes while nobody asks for it."""
        rare = self.rare
        kept = rare.stocks or rare.rates or rare.floors or rare.trusts or rare.snoozes
        return len(self.entries) + len(rare.came) <= TELLABLE and not kept

    def told(self) -> list[News]:
        """What it would have to be told to be what it is."""
        rare = self.rare
        out: list[News] = [*rare.stocks, *rare.rates, *rare.floors, *rare.trusts, *rare.snoozes, *rare.came]
        for entry in (*self.entries, *rare.asking.values()):
            fact = entry.fact
            for n, at in enumerate(entry.before):
                out.append(msgspec.structs.replace(fact, version=fact.version - len(entry.before) + n, at=at))
            out.append(fact)
        return out + list(rare.gone.values())

    def remember(self, news: Iterable[News], packs: Packs) -> None:
        """Takes in what has been answered before, into an entity that knows nothing yet. Nothing is judged until somebody asks."""
        standing: dict[str, Entry] = {}
        for one in news:
            if not isinstance(one, Fact):
                _shelve(self._shelf(one), one)
                continue
            known = standing.get(one.order)
            if known is not None and (known.fact.version > one.version or known.fact == one):
                continue
            past: tuple[int, ...] = ()
            if known is not None and not known.fact.gone and not one.gone:
                past = known.before if known.fact.at == one.at else (*known.before, known.fact.at)
            standing[one.order] = _entry(one, packs(one.pack).kind(self.kind), past)
        self.span = max((entry.judges.span for entry in standing.values()), default=0)
        for order, entry in standing.items():
            if entry.fact.gone:
                self._own().gone[order] = entry.fact
            elif entry.fact.enters:
                self.by_order[order] = entry
            else:
                self._own().asking[order] = entry
        self.entries = sorted(self.by_order.values(), key=_place)
        self.keys = [_place(entry) for entry in self.entries]
        self.dormant = len(self.entries)
        self._settle()

    def _settle(self) -> None:
        """Where no order is in a window with another, and of none anything is found, that is known without being asked."""
        if self.rare is not _NO_RARE:
            return
        last = None
        unable: list[tuple[str, ...]] = []
        for entry in self.entries:
            missing = entry.judges.silent(entry.fact)
            if missing is None or (last is not None and entry.fact.at - last < max(self.span, 1)):
                return
            last = entry.fact.at
            unable.append(missing)
        for entry, missing in zip(self.entries, unable, strict=True):
            entry.judged = entry.fired = True
            entry.missing = missing
        self.dormant = 0

    def _wake(self, times: list[int]) -> None:
        """Before something changes at these times: works out which windows around them fire now."""
        if not self.dormant or not times:
            return
        span = max(self.span, 1)
        low = bisect_right(self.keys, (min(times) - span, _LAST))
        # twice: a window that changes may have for a member one that a later window has, too
        high = bisect_left(self.keys, (max(times) + 2 * span, ""))
        for index in range(low, high):
            anchor = self.entries[index]
            if not anchor.fired:
                self._refire(anchor, index, anchor.judges.marking, {})
                self._awake(anchor)

    def _awake(self, anchor: Entry) -> None:
        self.dormant -= 1
        anchor.fired = True

    def _recall(self, entry: Entry, packs: Packs) -> None:
        """Works out what was known of an order that came back from bytes."""
        self._wake([entry.fact.at])
        asking = self.rare.asking.get(entry.fact.order) is entry
        self._judge(entry, packs, None, -1 if asking else bisect_left(self.keys, _place(entry)))
        if not asking:
            for judge in entry.judges.marking:
                self._mark(judge.id, entry, packs)

    # -- judging -----------------------------------------------------------------------------------------------------

    def _concerned(self, at: int) -> list[Entry]:
        """Every entry whose answer an order at this time has a part in."""
        span = max(self.span, 1)
        low = bisect_right(self.keys, (at - span, _LAST))
        high = bisect_left(self.keys, (at + span, ""))
        return [*self.entries[low:high], *(e for e in self.rare.asking.values() if e.fact.at == at)]

    def _rejudge(self, moved: list[int], packs: Packs, touched: dict[str, Entry]) -> None:
        """Judges again every window into which an order came, or out of which one went, at these times (sorted)."""
        if not moved:
            return
        refired: dict[str, list[int]] = {}
        fresh: list[Entry] = []
        index = bisect_left(self.keys, (moved[0], ""))
        while index < len(self.entries):
            anchor = self.entries[index]
            at = anchor.fact.at
            place = bisect_right(moved, at)
            last = moved[place - 1]
            if at - last >= max(self.span, 1):
                # no change within the longest window before this order: on to the next change
                if place == len(moved):
                    break
                index = bisect_left(self.keys, (moved[place], ""))
                continue
            judges = anchor.judges
            if judges.marking:
                self._refire(anchor, index, [j for j in judges.marking if self._reaches(j, last, at)], refired)
            if not anchor.fired:
                self._awake(anchor)
            if not anchor.judged:
                fresh.append(anchor)
                self._judge(anchor, packs, None, index)
                touched[anchor.fact.order] = anchor
            elif judges.windowed and self._judge_again(anchor, last, packs, index):
                touched[anchor.fact.order] = anchor
            index += 1
        self._remark(refired, packs, touched)
        for entry in fresh:
            # a newcomer may fall into windows that fired before it came
            for judge in entry.judges.marking:
                self._mark(judge.id, entry, packs)

    def _reaches(self, judge: Judge, back: int, at: int) -> bool:
        """Whether the window of an order at `at` reaches back to a time."""
        return back >= times.day_start(at, self.zone) if judge.by_day else at - back < judge.span

    def _refire(self, anchor: Entry, index: int, judges: Iterable[Judge], refired: dict[str, list[int]]) -> None:
        """Looks again whether the windows that end at this order fire; notes its index by rule where that changed."""
        for judge in judges:
            fire = self._fire(judge, anchor, index)
            before = anchor.fires.get(judge.id)
            if fire == before:
                continue
            if fire is None:
                del anchor.fires[judge.id]
            else:
                anchor.fires = {**anchor.fires, judge.id: fire}
            if self.firing is _NOTHING:
                self.firing = {}
            self.firing[judge.id] = self.firing.get(judge.id, 0) + (before is None) - (fire is None)
            refired.setdefault(judge.id, []).append(index)

    def _unmark(self, left: Entry, packs: Packs, touched: dict[str, Entry]) -> None:
        """Marks made by the window of an order that has left are looked for elsewhere."""
        for rule in left.fires:
            low = bisect_right(self.keys, (left.fact.at - self.span, _LAST))
            for entry in self.entries[low : bisect_left(self.keys, (left.fact.at + 1, ""))]:
                mark = entry.marks.get(rule)
                if not entry.judged or (mark is not None and mark[0] is left.fact):
                    self._mark(rule, entry, packs)
                    touched[entry.fact.order] = entry

    def _remark(self, refired: dict[str, list[int]], packs: Packs, touched: dict[str, Entry]) -> None:
        """Finds again, for every member of windows that changed, the earliest window that marks it."""
        for rule, indices in refired.items():
            first = self.keys[indices[0]]
            last = self.keys[indices[-1]]
            low = bisect_right(self.keys, (first[0] - self.span, _LAST))
            for entry in self.entries[low : bisect_left(self.keys, (last[0] + 1, ""))]:
                before = entry.marks.get(rule)
                if before is not None and before[2] and (before[0].at, before[0].order) < first:
                    # an earlier window, which has not changed, marks it already
                    continue
                self._mark(rule, entry, packs)
                if entry.marks.get(rule) != before or not entry.judged:
                    touched[entry.fact.order] = entry

    def _mark(self, rule: str, entry: Entry, packs: Packs) -> None:
        """Sets the earliest firing window that has this entry for a member; one found within the horizon goes first."""
        pack = packs(entry.fact.pack)
        if rule in entry.marks:
            entry.marks = {r: mark for r, mark in entry.marks.items() if r != rule}
        if not self.firing.get(rule) or rule in entry.fact.out or rule not in pack.judges:
            return
        for index in range(bisect_left(self.keys, (entry.fact.at, "")), len(self.entries)):
            anchor = self.entries[index]
            judge = packs(anchor.fact.pack).judges.get(rule)
            if judge is None:
                continue
            later = anchor.fact.at - entry.fact.at
            if later >= judge.span:
                break
            if judge.by_day and entry.fact.at < times.day_start(anchor.fact.at, self.zone):
                break
            fire = anchor.fires.get(rule)
            if fire is None or not _member(judge, anchor, entry):
                continue
            in_time = max(fire.found, entry.fact.since) - entry.fact.since <= pack.horizon
            if in_time or rule not in entry.marks:
                entry.marks = {**entry.marks, rule: (anchor.fact, fire, in_time)}
            if in_time:
                return

    def _judge_again(self, entry: Entry, last: int, packs: Packs, index: int) -> bool:
        """Judges those windows of an order that reach back to a time; whether anything changed."""
        changed = False
        others: list[Judge] = []
        fact = entry.fact
        for judge in entry.judges.windowed:
            if not self._reaches(judge, last, fact.at):
                continue
            if not judge.plain:
                # what it lacks, and what its profile says, is not of other orders
                settled = judge.id in entry.missing or entry.profiles.get(judge.id, True) is False
                if not settled or judge.remembers or (judge.rule.measure is not None and judge.rule.measure.nearest):
                    others.append(judge)
                continue
            fire = None if judge.of_pieces and fact.quantity <= 0 else self._fire(judge, entry, index)
            before = entry.findings.get(judge.id)
            if fire is None:
                if before is not None:
                    entry.findings = {rule: f for rule, f in entry.findings.items() if rule != judge.id}
                    changed = True
                continue
            finding = self._finding(judge, entry, fire, None)
            if finding != before:
                entry.findings = {**entry.findings, judge.id: finding}
                changed = True
        return (bool(others) and self._judge(entry, packs, others, index)) or changed

    def _judge(self, entry: Entry, packs: Packs, only: list[Judge] | None, index: int) -> bool:
        """Judges what concerns this order alone: profiles, and rules that mark the newest; whether anything changed.

        only: just these windows, the order itself and the profile being what they were. index: its place, -1 for a late order.
        """
        fact = entry.fact
        missing: list[str]
        if only is None:
            judges = entry.judges.alone if fact.enters and self._lonely(fact.at, index) else entry.judges.newest
            findings: dict[str, Finding] = {}
            missing = []
            entry.profiles = _NOTHING
        else:
            judges = only
            findings = {rule: f for rule, f in entry.findings.items() if not any(j.id == rule for j in only)}
            missing = [rule for rule in entry.missing if not any(j.id == rule for j in only)]
        context: Values | None = None
        for judge in judges:
            if judge.id in fact.out:
                continue
            if judge.of_pieces and fact.quantity <= 0:
                continue
            if judge.plain and fact.enters:
                plain = self._fire(judge, entry, index)
                if plain is not None:
                    findings[judge.id] = self._finding(judge, entry, plain, None)
                continue
            measure = judge.rule.measure
            if self._lacks(judge, entry) or (judge.windowed and not fact.enters):
                missing.append(judge.id)
                continue
            if "profile" in judge.programs:
                if only is None or judge.remembers:
                    context = context or self._context(entry, packs(fact.pack), judge, index)
                    entry.profiles = {**entry.profiles, judge.id: judge.test("profile", context)}
                holds = entry.profiles[judge.id]
                if holds is None:
                    missing.append(judge.id)
                if not holds:
                    continue
            fire: Fire | None = None
            if measure is not None:
                fire = self._nearest(judge, entry, index, missing) if measure.nearest else self._fire(judge, entry, index)
                if fire is None:
                    continue
            if judge.explains:
                context = context or self._context(entry, packs(fact.pack), judge, index)
            findings[judge.id] = self._finding(judge, entry, fire, context)
        unable = tuple(sorted(missing)) if missing else ()
        changed = not entry.judged or findings != entry.findings or unable != entry.missing
        entry.judged = True
        entry.findings = findings or _NOTHING
        entry.missing = unable
        return changed

    def _lonely(self, at: int, index: int) -> bool:
        """Whether no window that ends at this place has another order in it."""
        keys = self.keys
        return (index == 0 or at - keys[index - 1][0] >= self.span) and (index + 1 == len(keys) or keys[index + 1][0] > at)

    def _lacks(self, judge: Judge, entry: Entry) -> bool:
        at = entry.fact.at
        return ("stock" in judge.rule.needs and _as_of(self.rare.stocks, at) is None) or (
            "rate" in judge.rule.needs and _as_of(self.rare.rates, at) is None
        )

    def _context(self, entry: Entry, pack: Pack, judge: Judge, index: int) -> Values:
        """What a profile expression reads, as of the order's event time. index: its place, -1 for a late order."""
        fact = entry.fact
        stock = _as_of(self.rare.stocks, fact.at)
        rate = _as_of(self.rare.rates, fact.at)
        floors = [f.price for f in self.rare.floors if f.at <= fact.at < f.until]
        return pack.values(
            fact={
                "quantity": fact.quantity,
                "deals": [{"line": d.line, "deal": d.deal, "base": d.base} for d in fact.deals],
                "conversions": [{"implied": c} for c in fact.conversions] if fact.conversions else _NONE,
            },
            stock={"available": stock.available, "locked": fact.order in stock.locks} if stock else _NOTHING,
            floor={"price": min(floors)} if floors else _NOTHING,
            rate={"value": rate.rate} if rate else _NOTHING,
            history=self._history(judge, fact, index) if judge.remembers else _NOTHING,
        )

    def _history(self, judge: Judge, fact: Fact, index: int) -> dict[str, int]:
        """How many other orders there are in the rule's window that ends at this order, and what had come of them by then."""
        low, high = self._bounds(judge, fact.at, index) if index >= 0 else (0, 0)
        others = {e.fact.order for e in self.entries[low:high]} - {fact.order}
        return {"orders": len(others), **{name: len(others & self._met(said, fact.at)) for name, said in _HISTORY.items()}}

    def _met(self, said: frozenset[str], at: int) -> set[str]:
        """The orders that had met one of these outcomes by a time; one that was taken back by then has not."""
        came = [c for c in self.rare.came if c.at <= at] if self.rare.came else []
        back = {c.order for c in came if c.outcome == "undone"} if said is outcomes.FRAUDS else set()
        return {c.order for c in came if c.outcome in said} - back

    def _finding(self, judge: Judge, entry: Entry, fire: Fire | None, context: Values | None) -> Finding:
        fact = entry.fact
        evidence: dict[str, Any] = {"by": self.kind}
        if self.kind in ("sku", "pair"):
            evidence[self.kind] = self.name.partition(":")[2]
        evidence["orders"] = _others(fire, fact.order) if fire is not None else []
        value: Any = fire.value if fire is not None else None
        limit: Any = judge.limit
        if context is not None and judge.explains:
            if "value" in judge.programs:
                value = judge.read("value", context)
            if "limit" in judge.programs:
                limit = judge.read("limit", context)
            if "detail" in judge.programs:
                evidence["detail"] = judge.read("detail", context)
        evidence["value"] = value
        evidence["limit"] = limit
        return Finding(evidence, max(fact.since, fire.found if fire is not None else fact.since), fact.since)

    def _bounds(self, judge: Judge, at: int, index: int) -> tuple[int, int]:
        """Where the window begins and ends that ends at a time. index: of the order at that time."""
        low = times.day_start(at, self.zone) if judge.by_day else at - judge.span + 1
        keys = self.keys
        if len(keys) < BUSY:
            return bisect_left(keys, (low, "")), bisect_left(keys, (at + 1, ""))
        begin = self.lows.get(judge.id, 0)
        end = min(begin + NEARBY, len(keys))
        if end > begin and (begin == 0 or keys[begin - 1][0] < low) and keys[end - 1][0] >= low:
            while keys[begin][0] < low:
                begin += 1
        else:
            begin = bisect_left(keys, (low, ""))
        if self.lows is _NOTHING:
            self.lows = {}
        self.lows[judge.id] = begin
        if keys[index][0] == at and (index + 1 == len(keys) or keys[index + 1][0] > at):
            return begin, index + 1
        return begin, bisect_left(keys, (at + 1, ""), begin)

    def _fire(self, judge: Judge, anchor: Entry, index: int) -> Fire | None:
        """The window that ends at this order, if it fires."""
        fact = anchor.fact
        if index < 0 or (judge.fewest > 1 and self._fewer(judge, fact.at, index)) or judge.id in fact.out:
            return None
        trusts = _NONE
        if self.rare.trusts:
            trusts = self._trusts(judge.id, fact.at)
            if any(not t.users for t in trusts):
                return None
        low, high = self._bounds(judge, fact.at, index)
        measure = judge.rule.measure
        assert measure is not None
        if measure.sum is not None:
            sums = self._sums(measure.sum)
            value = sums[high] - sums[low]
            if not judge.fires(value):
                return None
            if not trusts:
                first = [order for _, order in self.keys[low : min(high, low + EVIDENCE_ORDERS + 1)]]
                return Fire(value, first, self._summed(judge, anchor, low, high, value))
            members = self.entries[low:high]
        else:
            members = [e for e in self.entries[low:high] if _member(judge, anchor, e)]
            value = len(members) if measure.count is not None else _distinct(members, trusts)
            if not judge.fires(value):
                return None
        if trusts and measure.distinct is None:
            known = {user for t in trusts for user in t.users}
            if all(e.fact.user in known for e in members):
                return None
        first = [e.fact.order for e in members[: EVIDENCE_ORDERS + 1]]
        return Fire(value, first, self._found(judge, anchor, members, trusts))

    def _fewer(self, judge: Judge, at: int, index: int) -> bool:
        """Whether fewer orders than the rule needs are in the window that ends at this place."""
        fewest = judge.fewest
        keys = self.keys
        high = index + 1
        if high < len(keys) and keys[high][0] == at:
            high = bisect_left(keys, (at + 1, ""), high)
        if high < fewest:
            return True
        return keys[high - fewest][0] < (times.day_start(at, self.zone) if judge.by_day else at - judge.span + 1)

    def _found(self, judge: Judge, anchor: Entry, members: list[Entry], trusts: list[Trust]) -> int:
        """When (ms) the record came with which this window first fired, the order that it ends at being there."""
        latest = anchor.fact.since
        if all(e.fact.since <= latest for e in members):
            return latest
        measure = judge.rule.measure
        assert measure is not None
        arrived = sorted(members, key=lambda e: e.fact.since)
        total = 0
        for count, entry in enumerate(arrived, 1):
            if measure.count is not None:
                total = count
            elif measure.sum is not None:
                total += (entry.fact.total or 0) if measure.sum == "total" else entry.fact.quantity
            else:
                total = _distinct(arrived[:count], trusts)
            if judge.fires(total):
                return max(latest, entry.fact.since)
        return latest

    def _summed(self, judge: Judge, anchor: Entry, low: int, high: int, value: int) -> int:
        """When (ms) the record came with which a window's sum first fired. Looks only at those that came after its last order."""
        since = anchor.fact.since
        latest = self._latest(high)
        later: list[tuple[int, int]] = []
        index = high
        # no order before the place where the latest arrival so far is no later than this can be one that came later
        while index > low and latest[index] > since:
            index -= 1
            fact = self.entries[index].fact
            if fact.since > since:
                later.append(
                    (fact.since, (fact.total or 0) if judge.rule.measure and judge.rule.measure.sum == "total" else fact.quantity)
                )
        value -= sum(amount for _, amount in later)
        found = since
        for arrived, amount in sorted(later):
            if judge.fires(value):
                break
            value += amount
            found = arrived
        return found

    def _latest(self, high: int) -> list[int]:
        """The latest `since` among the first n sorted entries, for n up to `high`."""
        latest = self.cumulated.get("latest")
        if latest is not None and len(latest) > high:
            return latest
        latest = self._cumulated("latest")
        for entry in self.entries[len(latest) - 1 : high]:
            latest.append(max(latest[-1], entry.fact.since))
        return latest

    def _cumulated(self, what: str) -> list[int]:
        if self.cumulated is _NOTHING:
            self.cumulated = {}
        return self.cumulated.setdefault(what, [0])

    def _sums(self, what: str) -> list[int]:
        """Cumulated sums over the sorted entries, extended from where the last change left them."""
        sums = self.cumulated.get(what)
        if sums is not None and len(sums) > len(self.entries):
            return sums
        sums = self._cumulated(what)
        total = sums[-1]
        for entry in self.entries[len(sums) - 1 :]:
            total += (entry.fact.total or 0) if what == "total" else entry.fact.quantity
            sums.append(total)
        return sums

    def _nearest(self, judge: Judge, entry: Entry, index: int, missing: list[str]) -> Fire | None:
        """Distance (km, one decimal) from the nearest of the buyer's other places in the window."""
        here = entry.fact.place
        measure = judge.rule.measure
        assert measure is not None
        low, high = self._bounds(judge, entry.fact.at, index) if index >= 0 else (0, 0)
        others = [e for e in self.entries[low:high] if e is not entry and e.fact.place is not None]
        if self.rare.came:
            # where a fraud was sent to is nobody's usual place
            frauds = self._met(outcomes.FRAUDS, entry.fact.at)
            others = [e for e in others if e.fact.order not in frauds]
        if here is None or len(others) < measure.members:
            missing.append(judge.id)
            return None
        if any(not t.users or entry.fact.user in t.users for t in self._trusts(judge.id, entry.fact.at)):
            return None
        nearest = min(distance(here, e.fact.place) for e in others if e.fact.place is not None)
        if not judge.fires(nearest):
            return None
        return Fire(
            round(nearest, 1), [e.fact.order for e in others[:EVIDENCE_ORDERS]], self._nearest_found(judge, entry, others)
        )

    def _nearest_found(self, judge: Judge, entry: Entry, others: list[Entry]) -> int:
        # a place nearby would silence the rule, so it is found when the last of the history that it rests on is there
        measure = judge.rule.measure
        assert measure is not None
        arrived = sorted(e.fact.since for e in others)
        return max(entry.fact.since, arrived[measure.members - 1])

    def _trusts(self, rule: str, at: int) -> list[Trust]:
        return [t for t in self.rare.trusts if rule in t.rules and t.at <= at < t.until] if self.rare.trusts else []

    def _waived(self, entry: Entry, packs: Packs) -> set[str]:
        """Rules that a trust switches off for this order. A trust among accounts is heeded where windows are judged."""
        fact = entry.fact
        waived: set[str] = set()
        for trust in self.rare.trusts:
            if not trust.at <= fact.at < trust.until:
                continue
            if not trust.users:
                waived.update(trust.rules)
            elif fact.user in trust.users:
                windowed = {j.id for j in packs(fact.pack).by_kind.get(self.kind, ()) if j.windowed}
                waived.update(r for r in trust.rules if r not in windowed)
        return waived

    def _elsewhere(self, waived: set[str], entry: Entry, packs: Packs) -> set[str]:
        """Of the waived rules those that do not ask this kind of entity: they are off for the order itself."""
        return waived - {j.id for j in packs(entry.fact.pack).by_kind.get(self.kind, ())} if waived else waived

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, entry: Entry, position: int, packs: Packs) -> Answer:
        """What this entity says of an order now."""
        if not entry.judged:
            self._recall(entry, packs)
        fact = entry.fact
        rare = self.rare
        if not (entry.marks or rare.trusts or rare.snoozes) and fact.enters and self.kind != "receiver":
            return Answer(fact.version, position, entry.findings, entry.missing, (), (), _NOTHING)
        waived = self._waived(entry, packs)
        findings = {rule: finding for rule, finding in entry.findings.items() if rule not in waived}
        missing = list(entry.missing)
        for rule, (anchor, fire, _) in entry.marks.items():
            if rule in waived:
                continue
            judge = packs(anchor.pack).judges[rule]
            evidence = {"by": self.kind, "orders": _others(fire, fact.order), "value": fire.value, "limit": judge.limit}
            findings[rule] = Finding(evidence, max(fact.since, fire.found), fact.since)
        if not fact.enters:
            missing += [j.id for j in packs(fact.pack).kind(self.kind).marking]
        snoozed: dict[str, Finding | None] = {}
        if self.rare.snoozes:
            resting = {rule for s in self.rare.snoozes if s.at <= fact.at < s.until for rule in s.rules} - waived
            snoozed = {rule: findings.pop(rule) for rule in sorted(resting & findings.keys())}
            snoozed.update(dict.fromkeys(sorted(self._elsewhere(resting, entry, packs))))
        merge: tuple[str, ...] = ()
        if self.kind == "receiver" and fact.enters:
            low = bisect_left(self.keys, (fact.at - packs(fact.pack).merge_within + 1, ""))
            merge = tuple(order for _, order in self.keys[low : bisect_left(self.keys, (fact.at + 1, ""))] if order != fact.order)
        return Answer(
            fact.version,
            position,
            findings,
            tuple(sorted(missing)),
            tuple(sorted(self._elsewhere(waived, entry, packs))),
            merge[:EVIDENCE_ORDERS],
            snoozed,
        )


def _shelve(shelf: list[Any], update: Update) -> int:
    """Puts reference data where it is kept, once; of a trust or a rest, until when (ms) it held before or holds now.

    One that is told again with another end is the same one, and the earlier end counts: so somebody can end it.
    """
    if not isinstance(update, (Trust, Snooze)):
        if update not in shelf:
            insort(shelf, update)
        return 0
    same = [one for one in shelf if msgspec.structs.replace(one, until=update.until) == update]
    ends: list[int] = [update.until, *(one.until for one in same)]
    for one in same:
        shelf.remove(one)
    insort(shelf, msgspec.structs.replace(update, until=min(ends)))
    return max(ends)


def _others(fire: Fire, order: str) -> list[str]:
    first = fire.first
    return [o for o in first if o != order] if order in first else first[:EVIDENCE_ORDERS]


def _member(judge: Judge, anchor: Entry, entry: Entry) -> bool:
    if judge.id in entry.fact.out:
        return False
    return not judge.sharing or not _together(anchor.fact.skus).isdisjoint(entry.fact.skus)


def _distinct(members: Iterable[Entry], trusts: list[Trust]) -> int:
    """Accounts without a trusted relation: those whom trusts link, directly or through others, count as one."""
    users = {e.fact.user for e in members if e.fact.user is not None}
    families: list[set[str]] = []
    for trust in trusts:
        family = users.intersection(trust.users)
        apart = [f for f in families if f.isdisjoint(family)]
        families = [*apart, family.union(*(f for f in families if not f.isdisjoint(family)))]
    return len(users) - sum(len(family) - 1 for family in families if family)


def _place(entry: Entry) -> tuple[int, str]:
    return (entry.fact.at, entry.fact.order)


def _at(update: Update) -> int:
    return update.at


def _as_of(dated: list[Any], at: int) -> Any:
    """The last of updates sorted by `at` that holds at a time; of two with the same `at`, the greater value."""
    if not dated:
        return None
    index = bisect_right(dated, at, key=_at)
    return dated[index - 1] if index else None


def _next(dated: list[Any], at: int) -> int | None:
    index = bisect_right(dated, at, key=_at)
    return dated[index].at if index < len(dated) else None
