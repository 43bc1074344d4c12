"""Route: the dossiers of one partition, gathered from their answers, to verdicts and what follows from them.

Law: an order is decided when every fact of it has been answered, and again when an answer changes. Each change is one verdict
with the next number of its order; a stricter one than what is out is a recall; a freeze that was shown stands until a person
lifts it; a person's decision is never undone, only told of. The same input read once more says the same once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from orderstream.facts import Answer, Dossier, Forget, OrderItem, Outcome
from orderstream.normalise import MEMORY
from orderstream.orders import WITHDRAWN
from orderstream.rules.model import Action, duration
from orderstream.rules.pack import Pack
from orderstream.times import DAY
from orderstream.verdict import Verdict, complete, judge
from orderstream.windows import Packs


class Case(msgspec.Struct, array_like=True):
    """What route remembers of an order.

    number: verdict_seq of the last verdict; said: that verdict and document, in short. out: the public topic the order stands
    on ("released", "review", "frozen" or ""); shown: what stands there, in short; acted: actions asked for. released: it has been released to the ERP at some time. lifted: a person decided; known: the
    rules that had fired by then.
    """

    order: str
    dossier: Dossier | None = None
    answers: dict[str, Answer] = {}
    number: int = 0
    said: bytes = b""
    verdict: str = ""
    out: str = ""
    released: bool = False
    recalled: bool = False
    frozen: bool = False
    shipped_at: int | None = None
    lifted: Outcome | None = None
    fraud: Outcome | None = None
    acted: set[str] = set()
    shown: bytes = b""
    locked: bool = False
    known: set[str] | None = None


class Public(msgspec.Struct):
    """A record for a public topic, keyed by the order's id; value None: a tombstone."""

    topic: str
    order: str
    value: dict[str, Any] | None


PERSONAL = ("orders.released", "orders.review", "orders.frozen")
"""The public topics that carry the order itself."""


class Router:
    """The dossiers of one partition."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self.cases: dict[str, Case] = {}
        self.pending: dict[str, int] = {}
        """Orders that wait for answers -> when (ms) their dossier was made."""
        self._progress = 0
        self._swept = 0

    def process(self, items: Iterable[OrderItem], now: int, *, again: bool = False) -> list[Public]:
        """Takes dossiers, answers and outcomes in; the public records that follow, each order decided once.

        again: they have been taken in before a crash, and what followed may not have gone out: it is said once more. now: ms.
        """
        touched: dict[str, Case] = {}
        out: list[Public] = []
        for item in items:
            if isinstance(item, Forget):
                out += self._forget(item.order)
                continue
            case = self.cases.get(item.order)
            if case is None:
                case = self.cases[item.order] = Case(item.order)
            if self._take(case, item) or again:
                touched[item.order] = case
        for case in touched.values():
            out += self._decide(case, now, again=again)
        return out

    def _decide(self, case: Case, now: int, *, again: bool) -> list[Public]:
        dossier = case.dossier
        if dossier is None:
            return []
        if not complete(dossier, case.answers):
            self.pending.setdefault(case.order, dossier.normalised_at)
            return []
        self.pending.pop(case.order, None)
        pack = self._packs(dossier.pack)
        verdict = judge(dossier, case.answers, pack, case.shipped_at)
        outcomes = (case.lifted, case.fraud)
        said = _short((verdict, dossier.digest, dossier.status, outcomes))
        if said == case.said:
            return self._records(case, verdict, pack, now, again=True) if again else []
        case.said = said
        case.number += 1
        previous = case.verdict
        case.verdict = verdict.line.verdict
        if case.lifted is not None and case.known is None:
            case.known = {signal.rule for signal in verdict.line.signals}
        self._move(case)
        return self._records(case, verdict, pack, now, previous, again=again)

    def _forget(self, order: str) -> list[Public]:
        """Drops the order's document, and takes it off the topics that carry it. Its verdict and its number stay."""
        case = self.cases.get(order)
        if case is not None and case.dossier is not None:
            case.dossier = msgspec.structs.replace(case.dossier, document=None, units=b"[]", filled=())
        return [Public(topic, order, None) for topic in PERSONAL]

    def sweep(self) -> None:
        """Forgets cases whose MEMORY is over by the data's own time, once a day of it."""
        if self._progress - self._swept < DAY:
            return
        self._swept = self._progress
        old = [o for o, c in self.cases.items() if c.dossier is not None and c.dossier.received_at < self._progress - MEMORY]
        for order in old:
            del self.cases[order]
            self.pending.pop(order, None)

    def _take(self, case: Case, item: Dossier | Answer | Outcome) -> bool:
        """Puts an item into its case; False where it says nothing new."""
        if isinstance(item, Dossier):
            self._progress = max(self._progress, item.received_at)
            if case.dossier is not None and case.dossier.version >= item.version:
                return False
            case.dossier = item
            # what entities said that this order has left is no part of it any more
            case.answers = {e: a for e, a in case.answers.items() if e in item.expects or a.version > item.version}
            return True
        if isinstance(item, Answer):
            known = case.answers.get(item.entity)
            if known is not None and (known.version, known.position) >= (item.version, item.position):
                return False
            case.answers[item.entity] = item
            return known is None or msgspec.structs.replace(known, position=item.position) != item
        if item.outcome == "shipped":
            if case.shipped_at is not None and case.shipped_at <= item.at:
                return False
            case.shipped_at = item.at
        elif item.outcome == "released" and case.lifted is None:
            case.lifted = item
        elif item.outcome == "confirmed-fraud" and case.fraud is None:
            case.fraud = item
        else:
            return False
        return True

    def _move(self, case: Case) -> None:
        """Where the order stands now for those outside."""
        verdict = case.verdict
        if case.fraud is not None and case.released and case.shipped_at is None:
            case.out, case.recalled = "", True
        elif verdict == "withdrawn":
            case.recalled = case.recalled or case.out == "released"
            case.out = ""
        elif verdict == "pending":
            pass
        elif case.lifted is not None:
            case.out, case.released, case.recalled = "released", True, False
        elif case.frozen and verdict != "frozen":
            pass  # held: the freeze that was shown stands
        else:
            if case.out == "released" and verdict != "released":
                case.recalled = True
            case.out = verdict
            case.frozen = case.frozen or verdict == "frozen"
            if verdict == "released":
                case.released, case.recalled = True, False

    def _held(self, case: Case) -> bool:
        return case.frozen and case.lifted is None and case.verdict not in ("frozen", "withdrawn")

    def _records(
        self, case: Case, verdict: Verdict, pack: Pack, now: int, previous: str | None = None, *, again: bool
    ) -> list[Public]:
        """What is to be said of a case as it stands; where it is said again, all of it.

        Those who ship or review are told when something changed for them: a verdict, a rule, the order. That more evidence came
        for the same rules stands on orders.verdicts alone.
        """
        dossier = case.dossier
        assert dossier is not None
        line = verdict.line
        signals = [{"rule": s.rule, "level": s.level, "evidence": s.evidence} for s in line.signals]
        head = {"order_id": case.order, "verdict_seq": case.number}
        whole = {
            **head,
            "verdict": line.verdict,
            "level": line.level,
            "score": line.score,
            "pack": line.pack,
            "signals": signals,
            "not_available": line.not_available,
            "rejected": None,
            "tags": verdict.tags,
            "held": self._held(case),
            "combinations": verdict.combinations,
            "rules": verdict.rules,
            "status": dossier.status,
            "currency": dossier.currency,
            "total": dossier.total,
            "channel": case.order.split(":", 1)[0],
            "shop": case.order.split(":", 2)[1],
            "previous": previous or None,
            "timings": {
                "created_at": dossier.created_at,
                "received_at": dossier.received_at,
                "normalised_at": dossier.normalised_at,
                "decided_at": now,
            },
        }
        out = [Public("orders.verdicts", case.order, whole)]
        held = self._held(case)
        rules = [(signal.rule, signal.level) for signal in line.signals]
        shown = _short((case.out, case.recalled, held, line.verdict, line.level, line.pack, rules, dossier.digest, case.lifted))
        if again or shown != case.shown:
            case.shown = shown
            if case.recalled:
                cause = self._cause(case)
                recalled = {
                    **head,
                    "verdict": line.verdict,
                    "level": line.level,
                    "pack": line.pack,
                    "signals": signals,
                    "cause": cause,
                }
                out.append(Public("orders.recalled", case.order, recalled))
            if case.out and not held and line.verdict != "pending" and dossier.document is not None:
                out.append(Public(f"orders.{case.out}", case.order, self._order(case, verdict, head, signals)))
        for action in self._actions(case, verdict, pack):
            if again or action["id"] not in case.acted:
                case.acted.add(action["id"])
                out.append(Public("orders.actions", case.order, action))
        return out

    @staticmethod
    def _cause(case: Case) -> str:
        assert case.dossier is not None
        if case.fraud is not None:
            return "outcome"
        return case.dossier.status if case.dossier.status in WITHDRAWN else "signals"

    @staticmethod
    def _order(case: Case, verdict: Verdict, head: dict[str, Any], signals: list[dict[str, Any]]) -> dict[str, Any]:
        """The record of released, review or frozen: the order itself with its units, and why."""
        assert case.dossier is not None
        assert case.dossier.document is not None
        line = verdict.line
        record = {
            **head,
            "verdict": case.out,
            "level": line.level,
            "score": line.score,
            "pack": line.pack,
            "signals": signals,
            # as they are: what was encoded once is not read to be written again
            "order": msgspec.Raw(case.dossier.document),
            "units": msgspec.Raw(case.dossier.units),
            "filled": list(case.dossier.filled),
        }
        record["by"] = (case.lifted.by or "person") if case.lifted is not None else "machine"
        if verdict.merge:
            record["merge_group"] = verdict.merge[0]
            record["merge_with"] = verdict.merge
        return record

    def _actions(self, case: Case, verdict: Verdict, pack: Pack) -> list[dict[str, Any]]:
        """What the verdict asks others to do, each with a key by which it is done once."""
        dossier = case.dossier
        assert dossier is not None
        out: list[dict[str, Any]] = []
        if verdict.line.verdict in ("withdrawn", "review", "frozen") and case.locked and case.recalled:
            out.append(_action(case, "unlock-stock", None, verdict.line.level, None, {}))
        if verdict.line.verdict in ("withdrawn", "pending"):
            return out
        new = {signal.rule for signal in verdict.line.signals} - (case.known or set())
        if case.lifted is not None and new:
            # people outrank the machine: a later signal tells them and changes nothing
            told = {"to": "supervisor", "why": "signal-after-decision", "rules": sorted(new)}
            out.append(_action(case, "notify", None, verdict.line.level, None, told))
        late = {"to": "supervisor", "why": "found-late"}
        out += [_action(case, "notify", t["rule"], "low", None, late) for t in verdict.tags if t["tag"] == "found-late"]
        for signal in verdict.line.signals:
            rule = pack.rules[signal.rule]
            wanted = rule.actions if rule.actions is not None else pack.policy.levels[rule.level].actions
            for action in wanted:
                until = dossier.received_at + duration(action.lasts) if action.lasts else None
                out.append(_action(case, action.do, signal.rule, signal.level, until, _params(action)))
                case.locked = case.locked or action.do == "lock-stock"
        return out


def _short(value: Any) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(value)).digest()[:12]


def _params(action: Action) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if action.by:
        params["by"] = list(action.by)
    if action.to is not None:
        params["to"] = action.to
    return params


def _action(case: Case, do: str, rule: str | None, level: str, until: int | None, params: dict[str, Any]) -> dict[str, Any]:
    said = (case.order, do, rule, params.get("why"), params.get("rules"))
    key = hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:32]
    return {
        "id": key,
        "order_id": case.order,
        "verdict_seq": case.number,
        "action": do,
        "rule": rule,
        "level": level,
        "until": until,
        "params": params,
    }
