"""Verdict: signals to a level, a level to a verdict.

Law: a verdict is a pure function of the dossier, its answers, the pack and what the world said of the order. It says of every
rule whether it fired, stayed silent, or could not be judged; absent is never clean. The score only sorts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from orderstream.facts import Answer, Dossier, Finding
from orderstream.identity import OPEN_KINDS
from orderstream.orders import WITHDRAWN
from orderstream.rules.model import RANK, Level
from orderstream.rules.pack import Judge, Pack

Decision = Literal["released", "review", "frozen", "pending", "withdrawn", "rejected"]


class Signal(msgspec.Struct, frozen=True, gc=False):
    """One rule's finding about one order, as it stands in a verdict."""

    rule: str
    level: Level
    evidence: dict[str, Any]


class Line(msgspec.Struct, frozen=True, gc=False):
    """A final verdict as one line: what a backtest writes, and what two runs are compared by."""

    order_id: str
    verdict: Decision
    level: Level
    score: int
    pack: str
    signals: list[Signal]
    not_available: list[str]
    rejected: str | None = None

    def encode(self) -> bytes:
        """The line's bytes, without its newline."""
        return msgspec.json.encode(self)


class Quiet(msgspec.Struct, frozen=True, gc=False):
    """What a pack says where no rule has fired, and these lacked their input. It is shared by all such orders: nobody changes it.

    rules, as in a verdict; place: where each stands there; packed, json: their bytes, made once (msgpack, JSON).
    """

    level: Level
    verdict: Decision
    not_available: list[str]
    combinations: list[str]
    rules: list[dict[str, Any]]
    place: dict[str, int]
    packed: msgspec.Raw
    json: msgspec.Raw


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A line and what explains it. rules: id -> state and evidence; merge: other orders to the same receiver.

    quiet: where no rule has fired, whose `rules` these are.
    """

    line: Line
    tags: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    combinations: list[str]
    merge: list[str]
    quiet: Quiet | None = None


def rejected_line(order_id: str, reason: str, pack: str) -> Line:
    """The line of a record that is no order."""
    return Line(order_id, "rejected", "none", 0, pack, [], [], reason)


class Rejects:
    """Rejected records by the id that they bear: of several the one received first stands, whatever came first."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, bytes, Line]] = {}

    def add(self, received_at: int, line: Line) -> None:
        """Takes one in. received_at: ms."""
        one = (received_at, line.encode(), line)
        known = self._first.get(line.order_id)
        if known is None or one[:2] < known[:2]:
            self._first[line.order_id] = one

    def lines(self) -> dict[str, Line]:
        """Id -> the line that stands for it."""
        return {order: line for order, (_, _, line) in self._first.items()}


def complete(dossier: Dossier, answers: Mapping[str, Answer]) -> bool:
    """Whether every fact of this dossier has been answered."""
    for entity, version in dossier.expects.items():
        answer = answers.get(entity)
        if answer is None or answer.version != version:
            return False
    return True


def judge(dossier: Dossier, answers: Mapping[str, Answer], pack: Pack, shipped_at: int | None = None) -> Verdict:
    """The verdict on a complete dossier. shipped_at: ms, of a `shipped` outcome; what is found after it comes too late."""
    tags: list[dict[str, Any]] = [{"tag": tag} for tag in dossier.tags]
    if dossier.status in WITHDRAWN:
        return Verdict(Line(dossier.order, "withdrawn", "none", 0, pack.version, [], []), tags, [], [], [])
    # most answers have nothing to say
    missing = set(dossier.missing)
    found: dict[str, list[tuple[str, Finding]]] = {}
    speaking: list[tuple[str, Answer]] = []
    merge: list[str] = []
    for entity in dossier.expects:
        answer = answers[entity]
        if answer.findings:
            for rule, finding in answer.findings.items():
                found.setdefault(rule, []).append((entity, finding))
        if answer.missing:
            missing.update(answer.missing)
        if answer.merge:
            merge += answer.merge
        if answer.waived or answer.snoozed:
            speaking.append((entity, answer))
    if found or speaking or dossier.findings:
        return _found(dossier, found, speaking, missing, pack, shipped_at, tags, merge)
    quiet = _quiet(pack, frozenset(missing))
    verdict: Decision = "pending" if dossier.status == "created" else quiet.verdict
    line = Line(dossier.order, verdict, quiet.level, 0, pack.version, [], quiet.not_available)
    return Verdict(line, tags, quiet.rules, quiet.combinations, merge, quiet)


@lru_cache(maxsize=1024)
def _quiet(pack: Pack, missing: frozenset[str]) -> Quiet:
    """What there is to say where nothing was found. missing: rules that lacked their input; others than the pack's change nothing."""
    not_available = [rule for rule in pack.judges if rule in missing]
    level, combinations = _level([], not_available, pack)
    rules = [{"id": r, "state": "not_available" if r in missing else "silent", "evidence": None} for r in pack.judges]
    place = {rule: n for n, rule in enumerate(pack.judges)}
    packed, json = msgspec.Raw(msgspec.msgpack.encode(rules)), msgspec.Raw(msgspec.json.encode(rules))
    return Quiet(level, pack.policy.levels[level].verdict, not_available, combinations, rules, place, packed, json)


def _found(
    dossier: Dossier,
    found: dict[str, list[tuple[str, Finding]]],
    speaking: list[tuple[str, Answer]],
    missing: set[str],
    pack: Pack,
    shipped_at: int | None,
    tags: list[dict[str, Any]],
    merge: list[str],
) -> Verdict:
    """The verdict where something was found. found: rule -> entities and what they found; speaking: who waives or rests rules."""
    waived = {rule for _, answer in speaking for rule in answer.waived}
    off: set[str] = set()
    resting: dict[str, list[tuple[str, Finding]]] = {}
    for entity, answer in speaking:
        for rule, rested in answer.snoozed.items():
            if rested is None:
                off.add(rule)
            else:
                resting.setdefault(rule, []).append((entity, rested))
    signals: list[Signal] = []
    # in the pack's own sequence
    for rule in sorted({*dossier.findings, *found, *resting}):
        one = pack.judges.get(rule)
        if one is None:
            continue
        finding, in_time = _finding(one, dossier, found.get(rule), pack.horizon, shipped_at)
        snoozed = finding if rule in off else None
        if finding is None:
            finding, in_time = _finding(one, dossier, resting[rule], pack.horizon, shipped_at)
            snoozed = finding
        assert finding is not None
        missing.discard(rule)
        if rule in waived:
            tags.append({"tag": "trusted", "rule": rule})
        elif one.rule.tag_only:
            tags.append({"tag": "tag-only", "rule": rule, "evidence": finding.evidence})
        elif snoozed is not None:
            tags.append({"tag": "snoozed", "rule": rule, "evidence": snoozed.evidence})
        elif not in_time:
            tags.append({"tag": "found-late", "rule": rule, "evidence": finding.evidence})
        else:
            signals.append(Signal(rule, one.rule.level, finding.evidence))
    quiet = _quiet(pack, frozenset(missing))
    rules, level, combinations = quiet.rules, quiet.level, quiet.combinations
    if signals:
        rules = rules.copy()
        for signal in signals:
            rules[quiet.place[signal.rule]] = {"id": signal.rule, "state": "fired", "evidence": signal.evidence}
        level, combinations = _level(signals, quiet.not_available, pack)
    verdict: Decision = "pending" if dossier.status == "created" else pack.policy.levels[level].verdict
    score = sum(pack.weight(s.rule) for s in signals)
    line = Line(dossier.order, verdict, level, score, pack.version, signals, quiet.not_available)
    return Verdict(line, tags, rules, combinations, merge, None if signals else quiet)


def _finding(
    one: Judge, dossier: Dossier, found: list[tuple[str, Finding]] | None, horizon: int, shipped_at: int | None
) -> tuple[Finding | None, bool]:
    """The finding of a rule that an order shows, and whether it came in time to act on.

    Of several entities that fired, one found in time goes first, then the kind that the rule names first, then what was found first.
    """
    own = dossier.findings.get(one.id)
    if own is not None:
        return own, shipped_at is None or own.found <= shipped_at
    if found is None:
        return None, True
    if len(found) == 1:
        return found[0][1], not _late(found[0][1], horizon, shipped_at)
    ranked: list[tuple[bool, int, str, int, str, Finding]] = []
    for entity, finding in found:
        late = _late(finding, horizon, shipped_at)
        kind, _, name = entity.partition(":")
        place = one.kinds.index(kind) if kind in one.kinds else len(one.kinds)
        # the name of a hashed kind sorts otherwise in another installation: there what was found decides
        ranked.append((late, place, name if kind in OPEN_KINDS else "", finding.found, str(finding.evidence), finding))
    late, *_, finding = min(ranked, key=lambda f: f[:5])
    return finding, not late


def _late(finding: Finding, horizon: int, shipped_at: int | None) -> bool:
    return finding.found - finding.since > horizon or (shipped_at is not None and finding.found > shipped_at)


def _level(signals: list[Signal], not_available: list[str], pack: Pack) -> tuple[Level, list[str]]:
    """The highest level of signals, combinations, and rules that ask for a review where they could not judge."""
    level: Level = "none"
    for signal in signals:
        level = max(level, signal.level, key=RANK.__getitem__)
    fired = {s.rule for s in signals}
    held: list[str] = []
    for combination in pack.policy.combinations:
        if fired.issuperset(combination.all) and (not combination.any or fired.intersection(combination.any)):
            level = max(level, combination.level, key=RANK.__getitem__)
            held.append(combination.id)
    for rule in not_available:
        if pack.rules[rule].absent == "review" and not pack.rules[rule].tag_only:
            level = max(level, "medium", key=RANK.__getitem__)
    return level, held
