"""Verdict: signals to a level, a level to a verdict.

Law: a verdict is a pure function of the dossier, its answers, the pack and what the world said of the order. It says of every
rule whether it fired, stayed silent, or could not be judged; absent is never clean. The score only sorts.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A line and what explains it. rules: id -> state and evidence; merge: other orders to the same receiver."""

    line: Line
    tags: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    combinations: list[str]
    merge: list[str]


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
    heard = {entity: answers[entity] for entity in dossier.expects}
    waived = {rule for answer in heard.values() for rule in answer.waived}
    missing = {*dossier.missing, *(rule for answer in heard.values() for rule in answer.missing)}
    found: dict[str, list[tuple[str, Finding]]] = {}
    for entity, answer in heard.items():
        for rule, one_found in answer.findings.items():
            found.setdefault(rule, []).append((entity, one_found))
    off: set[str] = set()
    resting: dict[str, list[tuple[str, Finding]]] = {}
    for entity, answer in heard.items():
        for rule, snoozed in answer.snoozed.items() if answer.snoozed else ():
            if snoozed is None:
                off.add(rule)
            else:
                resting.setdefault(rule, []).append((entity, snoozed))
    signals: list[Signal] = []
    not_available: list[str] = []
    states: list[dict[str, Any]] = []
    for one in pack.judges.values():
        finding, in_time = _finding(one, dossier, found.get(one.id), pack.horizon, shipped_at)
        state = "silent"
        snoozed = finding if one.id in off else None
        if finding is None and one.id in resting:
            finding, in_time = _finding(one, dossier, resting[one.id], pack.horizon, shipped_at)
            snoozed = finding
        if finding is not None and one.id in waived:
            tags.append({"tag": "trusted", "rule": one.id})
        elif finding is not None and one.rule.tag_only:
            tags.append({"tag": "tag-only", "rule": one.id, "evidence": finding.evidence})
        elif snoozed is not None:
            tags.append({"tag": "snoozed", "rule": one.id, "evidence": snoozed.evidence})
        elif finding is not None and not in_time:
            tags.append({"tag": "found-late", "rule": one.id, "evidence": finding.evidence})
        elif finding is not None:
            state = "fired"
            signals.append(Signal(one.id, one.rule.level, finding.evidence))
        elif one.id in missing:
            state = "not_available"
            not_available.append(one.id)
        states.append({"id": one.id, "state": state, "evidence": signals[-1].evidence if state == "fired" else None})
    level, combinations = _level(signals, not_available, pack)
    verdict: Decision = "pending" if dossier.status == "created" else pack.policy.levels[level].verdict
    score = sum(pack.weight(s.rule) for s in signals)
    line = Line(dossier.order, verdict, level, score, pack.version, signals, not_available)
    merge = [order for answer in heard.values() for order in answer.merge]
    return Verdict(line, tags, states, combinations, merge)


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
    ranked: list[tuple[bool, int, str, int, str, Finding]] = []
    for entity, finding in found:
        late = finding.found - finding.since > horizon or (shipped_at is not None and finding.found > shipped_at)
        kind, _, name = entity.partition(":")
        place = one.kinds.index(kind) if kind in one.kinds else len(one.kinds)
        # the name of a hashed kind sorts otherwise in another installation: there what was found decides
        ranked.append((late, place, name if kind in OPEN_KINDS else "", finding.found, str(finding.evidence), finding))
    late, *_, finding = min(ranked, key=lambda f: f[:5])
    return finding, not late


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
