"""Windows: what one entity remembers, and what it says of each of its orders.

Law: an answer is a function of the *set* of orders and updates that the entity has seen, never of the sequence. A window
rule judges each order on its own window (t - W, t]; orders at the same instant see each other. When a record arrives, every
order whose window it falls into is judged again, and those whose answer changed are answered anew.
Reason: the same orders then get the same verdicts live, after a backlog, and in a backtest.

Times are ms UTC, amounts minor units, distances km.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from typing import Any

import cel

from orderstream import times
from orderstream.facts import Answer, Fact, Finding, Floor, Rate, Stock, Trust, Update
from orderstream.rules.pack import Judge, Pack

EVIDENCE_ORDERS = 20
"""At most so many other orders are named, the first by (time, id): later members then change no earlier evidence."""

EARTH_KM = 6371.0088
"""Mean radius of the Earth, km (IUGG)."""

_NOTHING: dict[str, Any] = {}
_NONE: list[Any] = []

Packs = Callable[[str], Pack]
"""The compiled pack of a version."""


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance in km between two (lat, lon) in degrees."""
    lat1, lon1, lat2, lon2 = map(math.radians, (*a, *b))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


class Fire:
    """A window that fires: what was measured, its first members, and since when (ms) it has been complete."""

    __slots__ = ("first", "found", "value")

    def __init__(self, value: float, first: list[str], found: int) -> None:
        self.value = value
        self.first = first
        self.found = found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fire) and (self.value, self.found, self.first) == (other.value, other.found, other.first)

    __hash__ = None  # type: ignore[assignment]


class Entry:
    """One order in an entity: its fact, and what has been judged of it so far."""

    __slots__ = ("answer", "fact", "findings", "fires", "marks", "missing", "skus")

    def __init__(self, fact: Fact) -> None:
        self.fact = fact
        self.skus = frozenset(fact.skus)
        self.findings: dict[str, Finding] = {}
        self.missing: tuple[str, ...] = ()
        self.fires: dict[str, Fire] = {}
        """Rules that mark all, and whose window ending here fires."""
        self.marks: dict[str, tuple[Entry, Fire, bool]] = {}
        """Rule -> the earliest window that marks this order, and whether that was found within the horizon."""
        self.answer: Answer | None = None


class Entity:
    """All orders of one entity within the horizon, sorted by (event time, order id), and what is known about it."""

    __slots__ = (
        "asking",
        "by_order",
        "cumulated",
        "entries",
        "floors",
        "gone",
        "keys",
        "kind",
        "name",
        "rates",
        "span",
        "stocks",
        "trusts",
        "zone",
    )

    def __init__(self, name: str, zone: str) -> None:
        self.name = name
        self.kind = name.partition(":")[0]
        self.zone = zone
        self.span = 0
        """The longest window (ms) of any rule that has judged here."""
        self.keys: list[tuple[int, str]] = []
        self.entries: list[Entry] = []
        self.by_order: dict[str, Entry] = {}
        self.asking: dict[str, Entry] = {}
        """Late orders: they ask about the profile and count in no window."""
        self.gone: dict[str, tuple[int, int]] = {}
        """Order -> (version, event time) of what has left, so that a stray older fact does not bring it back."""
        self.stocks: list[Stock] = []
        self.rates: list[Rate] = []
        self.floors: list[Floor] = []
        self.trusts: list[Trust] = []
        self.cumulated: dict[str, list[int]] = {}

    # -- what changes it ---------------------------------------------------------------------------------------------

    def apply(self, fact: Fact, packs: Packs) -> list[Entry]:
        """Takes a fact in; the entries whose answer may be another now (all concerned ones, where the fact is a repeat)."""
        old = self.by_order.get(fact.order) or self.asking.get(fact.order)
        left = self.gone.get(fact.order)
        if (old is not None and old.fact.version > fact.version) or (left is not None and left[0] > fact.version):
            return []
        if (old is not None and old.fact == fact) or (old is None and fact.gone and left == (fact.version, fact.at)):
            # the same again: answers that a crash may have swallowed are given again
            return self._concerned(fact.at)
        touched: dict[str, Entry] = {}
        self.span = max(self.span, *(j.span for j in packs(fact.pack).by_kind.get(self.kind, ())), 0)
        if old is not None:
            self._remove(old)
            self._rejudge(old.fact.at, packs, touched)
            self._unmark(old, packs, touched)
        if fact.gone:
            self.gone[fact.order] = (fact.version, fact.at)
            touched.pop(fact.order, None)
            return list(touched.values())
        self.gone.pop(fact.order, None)
        entry = Entry(fact)
        if fact.enters:
            self._insert(entry)
            self._rejudge(fact.at, packs, touched)
        else:
            self.asking[fact.order] = entry
        if entry.fact.order not in touched:
            self._judge_newest(entry, packs)
        touched[fact.order] = entry
        return list(touched.values())

    def learn(self, update: Update, packs: Packs) -> list[Entry]:
        """Takes reference data in; the entries that it is valid for, judged again."""
        shelf: Any
        if isinstance(update, Stock):
            shelf = self.stocks
        elif isinstance(update, Rate):
            shelf = self.rates
        elif isinstance(update, Floor):
            shelf = self.floors
        else:
            shelf = self.trusts
        if update not in shelf:
            insort(shelf, update)
        until = update.until if isinstance(update, (Floor, Trust)) else _next(shelf, update.at)
        touched: dict[str, Entry] = {}
        low = bisect_left(self.keys, (update.at, ""))
        high = len(self.keys) if until is None else bisect_left(self.keys, (until, ""))
        for entry in self.entries[low:high]:
            self._judge_newest(entry, packs)
            touched[entry.fact.order] = entry
            if isinstance(update, Trust):
                self._rejudge(entry.fact.at, packs, touched, instant_only=True)
        for entry in self.asking.values():
            if update.at <= entry.fact.at and (until is None or entry.fact.at < until):
                self._judge_newest(entry, packs)
                touched[entry.fact.order] = entry
        return list(touched.values())

    def expire(self, before: int) -> None:
        """Forgets orders with an event time before `before`, and reference data that no remaining order reads."""
        cut = bisect_left(self.keys, (before, ""))
        if cut:
            for entry in self.entries[:cut]:
                del self.by_order[entry.fact.order]
            del self.keys[:cut], self.entries[:cut]
            self.cumulated.clear()
        for order in [o for o, e in self.asking.items() if e.fact.at < before]:
            del self.asking[order]
        for order in [o for o, (_, at) in self.gone.items() if at < before]:
            del self.gone[order]
        dated: list[Any]
        for dated in (self.stocks, self.rates):
            past = bisect_left(dated, before, key=_at)
            if past > 1:
                del dated[: past - 1]
        self.floors = [f for f in self.floors if f.until > before]
        self.trusts = [t for t in self.trusts if t.until > before]

    @property
    def empty(self) -> bool:
        """Nothing is remembered here any more."""
        return not (self.entries or self.asking or self.gone or self.stocks or self.rates or self.floors or self.trusts)

    def oldest(self) -> int | None:
        """Event time of the first order that is still kept here."""
        kept = [self.keys[0][0]] if self.keys else []
        kept += [e.fact.at for e in self.asking.values()]
        kept += [at for _, at in self.gone.values()]
        return min(kept, default=None)

    def _insert(self, entry: Entry) -> None:
        key = (entry.fact.at, entry.fact.order)
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.entries.insert(index, entry)
        self.by_order[entry.fact.order] = entry
        self._forget_sums(index)

    def _remove(self, entry: Entry) -> None:
        if self.asking.pop(entry.fact.order, None) is not None:
            return
        index = bisect_left(self.keys, (entry.fact.at, entry.fact.order))
        del self.keys[index], self.entries[index]
        del self.by_order[entry.fact.order]
        self._forget_sums(index)

    def _forget_sums(self, index: int) -> None:
        for sums in self.cumulated.values():
            del sums[index + 1 :]

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judges(self, entry: Entry, packs: Packs) -> list[Judge]:
        return packs(entry.fact.pack).by_kind.get(self.kind, [])

    def _concerned(self, at: int) -> list[Entry]:
        """Every entry whose answer an order at this time has a part in."""
        low = bisect_right(self.keys, (at - self.span, "\U0010ffff"))
        high = bisect_left(self.keys, (at + self.span, ""))
        late = [e for e in self.asking.values() if e.fact.at == at]
        return [*self.entries[low : max(high, bisect_left(self.keys, (at + 1, "")))], *late]

    def _rejudge(self, at: int, packs: Packs, touched: dict[str, Entry], *, instant_only: bool = False) -> None:
        """Judges again every window that an order at this time falls into; adds the entries that it concerns to `touched`."""
        start = bisect_left(self.keys, (at, ""))
        changed: dict[str, list[int]] = {}
        for index in range(start, len(self.entries)):
            anchor = self.entries[index]
            later = anchor.fact.at - at
            if instant_only and later:
                break
            near = False
            for judge in self._judges(anchor, packs):
                if not judge.span or not (
                    at >= times.day_start(anchor.fact.at, self.zone) if judge.by_day else later < judge.span
                ):
                    continue
                near = True
                if judge.marks_all:
                    fire = self._fire(judge, anchor, index)
                    if fire != anchor.fires.get(judge.id):
                        if fire is None:
                            del anchor.fires[judge.id]
                        else:
                            anchor.fires[judge.id] = fire
                        changed.setdefault(judge.id, []).append(index)
            if not near and later:
                # spans differ by rule: only past the longest is nothing more concerned
                if later >= self.span:
                    break
                continue
            self._judge_newest(anchor, packs)
            touched[anchor.fact.order] = anchor
        for rule, indices in changed.items():
            self._remark(rule, indices, packs, touched)
        self._remark_around(at, packs, touched)

    def _unmark(self, left: Entry, packs: Packs, touched: dict[str, Entry]) -> None:
        """Marks made by the window of an order that has left are looked for elsewhere."""
        for rule in left.fires:
            low = bisect_right(self.keys, (left.fact.at - self.span, "\U0010ffff"))
            for entry in self.entries[low : bisect_left(self.keys, (left.fact.at + 1, ""))]:
                mark = entry.marks.get(rule)
                if mark is not None and mark[0] is left:
                    self._mark(rule, entry, packs)
                    touched[entry.fact.order] = entry

    def _remark(self, rule: str, indices: list[int], packs: Packs, touched: dict[str, Entry]) -> None:
        """Finds again, for every member of windows that changed, the earliest window that marks it."""
        span = max(packs(self.entries[i].fact.pack).judges[rule].span for i in indices)
        first = self.entries[indices[0]].fact.at
        last = self.entries[indices[-1]].fact.at
        low = bisect_right(self.keys, (first - span, "\U0010ffff"))
        high = bisect_left(self.keys, (last + 1, ""))
        appended = len(indices) == 1 and indices[0] == len(self.entries) - 1
        for entry in self.entries[low:high]:
            before = entry.marks.get(rule)
            if appended and before is not None and before[2] and rule in before[0].fires:
                # an earlier window marks it already: a window that ends later changes nothing
                continue
            self._mark(rule, entry, packs)
            if entry.marks.get(rule) != before:
                touched[entry.fact.order] = entry

    def _remark_around(self, at: int, packs: Packs, touched: dict[str, Entry]) -> None:
        """A newcomer may fall into windows that fired before it came, and a leaver's mark must go."""
        low = bisect_left(self.keys, (at, ""))
        high = bisect_left(self.keys, (at + 1, ""))
        for entry in self.entries[low:high]:
            for judge in self._judges(entry, packs):
                if judge.marks_all:
                    before = entry.marks.get(judge.id)
                    self._mark(judge.id, entry, packs)
                    if entry.marks.get(judge.id) != before:
                        touched[entry.fact.order] = entry

    def _mark(self, rule: str, entry: Entry, packs: Packs) -> None:
        """Sets the earliest firing window that has this entry for a member; one found within the horizon goes first."""
        pack = packs(entry.fact.pack)
        entry.marks.pop(rule, None)
        if rule in entry.fact.out or rule not in pack.judges:
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
                entry.marks[rule] = (anchor, fire, in_time)
            if in_time:
                return

    def _judge_newest(self, entry: Entry, packs: Packs) -> None:
        """Judges what concerns this order alone: rules that mark the newest, and profiles."""
        findings: dict[str, Finding] = {}
        missing: list[str] = []
        index = bisect_left(self.keys, (entry.fact.at, entry.fact.order)) if entry.fact.enters else -1
        context: cel.Context | None = None
        for judge in self._judges(entry, packs):
            if judge.marks_all or judge.id in entry.fact.out:
                continue
            rule = judge.rule
            measure = rule.measure
            stocked = "stock" in rule.needs or (measure is not None and measure.sum == "units")
            if stocked and entry.fact.quantity <= 0:
                continue
            if self._lacks(judge, entry) or (judge.windowed and not entry.fact.enters):
                missing.append(judge.id)
                continue
            if "profile" in judge.programs:
                if context is None:
                    context = self._context(entry, packs(entry.fact.pack))
                holds = judge.test("profile", context)
                if holds is None:
                    missing.append(judge.id)
                if not holds:
                    continue
            elif measure is None:
                continue
            fire: Fire | None = None
            if measure is not None:
                if measure.nearest is not None:
                    fire = self._nearest(judge, entry, index, missing)
                else:
                    fire = self._fire(judge, entry, index)
                if fire is None:
                    continue
            findings[judge.id] = self._finding(judge, entry, fire, context)
        entry.findings = findings
        entry.missing = tuple(missing)

    def _lacks(self, judge: Judge, entry: Entry) -> bool:
        at = entry.fact.at
        return ("stock" in judge.rule.needs and _as_of(self.stocks, at) is None) or (
            "rate" in judge.rule.needs and _as_of(self.rates, at) is None
        )

    def _context(self, entry: Entry, pack: Pack) -> cel.Context:
        """What a profile expression reads, as of the order's event time."""
        fact = entry.fact
        stock = _as_of(self.stocks, fact.at)
        rate = _as_of(self.rates, fact.at)
        floors = [f.price for f in self.floors if f.at <= fact.at < f.until]
        return pack.reading(
            fact={
                "quantity": fact.quantity,
                "deals": [{"line": d.line, "deal": d.deal, "base": d.base} for d in fact.deals],
                "conversions": [{"implied": c} for c in fact.conversions] if fact.conversions else _NONE,
            },
            stock={"available": stock.available, "locked": fact.order in stock.locks} if stock else _NOTHING,
            floor={"price": min(floors)} if floors else _NOTHING,
            rate={"value": rate.rate} if rate else _NOTHING,
        )

    def _finding(self, judge: Judge, entry: Entry, fire: Fire | None, context: cel.Context | None) -> Finding:
        fact = entry.fact
        evidence: dict[str, Any] = {"by": self.kind}
        if self.kind in ("sku", "pair"):
            evidence[self.kind] = self.name.partition(":")[2]
        evidence["orders"] = _others(fire, fact.order) if fire is not None else []
        value: Any = fire.value if fire is not None else None
        limit: Any = judge.limit
        if context is not None:
            if "value" in judge.programs:
                value = judge.read("value", context)
            if "limit" in judge.programs:
                limit = judge.read("limit", context)
            if "detail" in judge.programs:
                evidence["detail"] = judge.read("detail", context)
        evidence["value"] = value
        evidence["limit"] = limit
        return Finding(evidence, max(fact.since, fire.found if fire is not None else fact.since))

    def _bounds(self, judge: Judge, at: int) -> tuple[int, int]:
        low = times.day_start(at, self.zone) if judge.by_day else at - judge.span + 1
        return bisect_left(self.keys, (low, "")), bisect_left(self.keys, (at + 1, ""))

    def _fire(self, judge: Judge, anchor: Entry, index: int) -> Fire | None:
        """The window that ends at this order, if it fires."""
        if judge.id in anchor.fact.out or index < 0:
            return None
        trusts = self._trusts(judge.id, anchor.fact.at)
        if any(not t.users for t in trusts):
            return None
        low, high = self._bounds(judge, anchor.fact.at)
        measure = judge.rule.measure
        assert measure is not None
        if measure.sum is not None:
            sums = self._sums(measure.sum)
            value = sums[high] - sums[low]
            if not judge.fires(value):
                return None
            members = self.entries[low:high]
        else:
            if high - low < (judge.at_least or 0) and measure.distinct is None:
                return None
            window = self.entries[low:high]
            members = [e for e in window if _member(judge, anchor, e)]
            value = len(members) if measure.count is not None else _distinct(members, trusts)
            if not judge.fires(value):
                return None
        if trusts and measure.distinct is None:
            known = {user for t in trusts for user in t.users}
            if all(e.fact.user in known for e in members):
                return None
        first = [e.fact.order for e in members[: EVIDENCE_ORDERS + 1]]
        return Fire(value, first, self._found(judge, anchor, members, trusts))

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
            elif measure.sum == "total":
                total += entry.fact.total or 0
            elif measure.sum == "units":
                total += entry.fact.quantity
            else:
                total = _distinct(arrived[:count], trusts)
            if judge.fires(total):
                return max(latest, entry.fact.since)
        return latest

    def _sums(self, what: str) -> list[int]:
        """Cumulated sums over the sorted entries, extended from where the last change left them."""
        sums = self.cumulated.setdefault(what, [0])
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
        low, high = self._bounds(judge, entry.fact.at) if index >= 0 else (0, 0)
        others = [e for e in self.entries[low:high] if e is not entry and e.fact.place is not None]
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
        return [t for t in self.trusts if rule in t.rules and t.at <= at < t.until] if self.trusts else []

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, entry: Entry, position: int, packs: Packs) -> Answer:
        """What this entity says of an order now."""
        fact = entry.fact
        findings = dict(entry.findings)
        missing = list(entry.missing)
        for rule, (anchor, fire, _) in entry.marks.items():
            judge = packs(anchor.fact.pack).judges[rule]
            evidence = {"by": self.kind, "orders": _others(fire, fact.order), "value": fire.value, "limit": judge.limit}
            findings[rule] = Finding(evidence, max(fact.since, fire.found))
        if not fact.enters:
            missing += [j.id for j in self._judges(entry, packs) if j.marks_all]
        waived = sorted(
            {
                r
                for t in self.trusts
                if t.at <= fact.at < t.until and _waives(t, fact)
                for r in t.rules
                if not t.users or not _windowed(r, fact, packs, self.kind)
            }
        )
        merge: tuple[str, ...] = ()
        if self.kind == "receiver" and fact.enters:
            low = bisect_left(self.keys, (fact.at - packs(fact.pack).merge_within + 1, ""))
            merge = tuple(order for _, order in self.keys[low : bisect_left(self.keys, (fact.at + 1, ""))] if order != fact.order)
        return Answer(
            fact.order,
            self.name,
            fact.version,
            position,
            findings,
            tuple(sorted(missing)),
            tuple(waived),
            merge[:EVIDENCE_ORDERS],
        )


def _waives(trust: Trust, fact: Fact) -> bool:
    return not trust.users or fact.user in trust.users


def _windowed(rule: str, fact: Fact, packs: Packs, kind: str) -> bool:
    judge = packs(fact.pack).judges.get(rule)
    return judge is not None and judge.windowed and kind in judge.kinds


def _others(fire: Fire, order: str) -> list[str]:
    return [o for o in fire.first if o != order][:EVIDENCE_ORDERS]


def _member(judge: Judge, anchor: Entry, entry: Entry) -> bool:
    if judge.id in entry.fact.out:
        return False
    return not judge.sharing or not anchor.skus.isdisjoint(entry.skus)


def _distinct(members: Iterable[Entry], trusts: list[Trust]) -> int:
    """Accounts without a trusted relation: those of one trust count as one."""
    users = {e.fact.user for e in members if e.fact.user is not None}
    for trust in trusts:
        related = users.intersection(trust.users)
        if len(related) > 1:
            users -= related
            users.add(min(related))
    return len(users)


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
