"""Route: the dossiers of one partition, gathered from their answers, to verdicts and what follows from them.

Law: an order is decided when every fact of it has been answered, and again when an answer changes. Each change is one verdict
with the next number of its order; a stricter one than what is out is a recall; a freeze that was shown stands until a person
lifts it. What a person decided stands above the machine, for what they had seen: a later signal is told and undoes nothing, and
a decision on what its person had not seen changes nothing and is told. The same input read once more says the same once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from orderstream import outcomes
from orderstream.facts import Answer, Answers, Came, Dossier, Forget, Mail, News, OrderItem, Outcome
from orderstream.normalise import MEMORY
from orderstream.orders import WITHDRAWN
from orderstream.pages import Page
from orderstream.rules.model import Action, duration
from orderstream.rules.pack import Pack
from orderstream.shelf import LARGE, Frozen, Shelf
from orderstream.verdict import Verdict, complete, judge
from orderstream.windows import Packs


class Case(msgspec.Struct, array_like=True):
    """What route remembers of an order.

    number: verdict_seq of the last verdict; said: that verdict and document, in short. out: the public topic the order stands
    on ("released", "review", "frozen" or ""); shown: what stands there, in short; acted: actions asked for. released: it has been
    released to the ERP at some time. met: where there is no dossier, how far (ms) the data's clock had come; heard: in bytes only,
    the answers that the dossier expects, in its order. lifted, fraud: in bytes of an older version only, now `outcomes`.

    outcomes: those that move it or teach, by id; unseen: those of them that count for nothing, since their person had not seen all: id ->
    the rules that had fired meanwhile. stands: id of the outcome in force; known: the rules that had fired when it came in force.
    began: rule -> number with which it began to fire; changed: number with which the order itself last changed; returned: number
    with which it went back to a freeze that a person had lifted, or, pending, to where it had been taken from. taught: what its
    entities have been told of it, in short. rest: where it stood when it was last more than pending.
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
    met: int = -1
    heard: list[Answer | None] = []
    outcomes: dict[str, Outcome] = {}
    unseen: dict[str, list[str]] = {}
    stands: str = ""
    began: dict[str, int] = {}
    changed: int = 0
    returned: int = 0
    taught: bytes = b""
    rest: str = ""


_case = msgspec.msgpack.Decoder(Case)
_items = msgspec.msgpack.Decoder(list[OrderItem])
_encode = msgspec.msgpack.Encoder().encode

Standing = Literal[0, 1, 2, 3]
"""What a case's bytes are after a record: items to be added (0) or all of it (2), and one more where it waits for answers."""

_PART, _WHOLE = b"\x00", b"\x02"


class Public(msgspec.Struct):
    """A record for a public topic, keyed by the order's id; value None: a tombstone."""

    topic: str
    order: str
    value: dict[str, Any] | None


PERSONAL = ("orders.released", "orders.review", "orders.frozen")
"""The public topics that carry the order itself."""


class Router:
    """The dossiers of one of so many partitions."""

    def __init__(self, packs: Packs, partitions: int = 1) -> None:
        self._packs = packs
        self.cases: Shelf[Case] = Shelf(lambda case: _WHOLE + freeze(case), _thaw, LARGE * partitions)
        self.pending: dict[str, int] = {}
        """Orders that wait for answers -> when (ms) their dossier was made."""
        self.progress = 0
        """The latest received_at (ms) of any dossier."""
        self._lessons: dict[str, list[News]] = {}

    def process(self, mail: Sequence[Mail], now: int, *, again: bool = False) -> list[Public]:
        """Takes dossiers, answers and outcomes in; the public records that follow, each order decided once.

        again: they have been taken in before a crash, and what followed may not have gone out: it is said once more. now: ms.
        """
        touched: dict[str, Case] = {}
        out: list[Public] = []
        for order, items in mail:
            case = self._case(order)
            for item in items:
                if isinstance(item, Dossier):
                    self.progress = max(self.progress, item.received_at)
                elif isinstance(item, Forget):
                    if order in touched and not again:
                        # what has come before it goes out before it goes
                        out += self._decide(touched.pop(order), now, again=False)
                    out += [Public(topic, order, None) for topic in PERSONAL]
                if take(case, item) or again:
                    touched[order] = case
        for case in touched.values():
            if case.outcomes:
                self._teach(case, again=again)
            out += self._decide(case, now, again=again)
        self.cases.cool(2 * len(mail))
        return out

    def lessons(self) -> dict[str, list[News]]:
        """What entities are to be told since this was last asked: what came of their orders."""
        lessons, self._lessons = self._lessons, {}
        return lessons

    def _teach(self, case: Case, *, again: bool) -> None:
        """Has the entities of an order told what came of it: those that it has now, each once and after a crash once more."""
        if case.dossier is None:
            return
        teach = [one for one in case.outcomes.values() if one.outcome in outcomes.TEACHES]
        ids = {one.id for one in teach}
        teach += [one for one in case.outcomes.values() if one.undoes in ids]
        entities = sorted(case.dossier.expects)
        taught = _short((entities, sorted(one.id for one in teach)))
        if not teach or (taught == case.taught and not again):
            return
        case.taught = taught
        for entity in entities:
            came = [Came(entity, one.at, case.order, one.outcome) for one in teach]
            self._lessons.setdefault(entity, []).extend(came)

    def log(self, mail: Mail) -> tuple[str, Standing, bytes]:
        """What is to be remembered of mail that has been processed, for `restore`.

        A case that is remembered whole lies as these bytes from then on: most are never asked for again, and an object is taken
        apart for less while it is still in the processor's cache.
        """
        order, items = mail
        case = self.cases.peek(order)
        if case is None or case.dossier is None or order in self.pending:
            return order, 1 if order in self.pending else 0, _encode(items)
        sealed = freeze(case)
        self.cases.lay(order, _WHOLE + sealed)
        return order, 2, sealed

    def dump(self) -> Iterator[Page]:
        """All cases, for `lay`, in any number of helpings. Which of them wait, `pending` says."""
        return self.cases.dump(_whole)

    def lay(self, page: Page, waiting: dict[str, int], progress: int) -> None:
        """Puts back what `dump` gave, in place of what is known of the same orders. waiting: those of them in `pending`."""
        self.progress = max(self.progress, progress)
        for order in self.pending.keys() & page.names() if self.pending else ():
            del self.pending[order]
        self.pending |= waiting
        self.cases.lay_page(page)

    def restore(self, order: str, standing: Standing, sealed: bytes, progress: int) -> None:
        """Puts back what `log` gave, unread. progress: as it was then (ms)."""
        self.progress = max(self.progress, progress)
        if standing & 1:
            self.pending.setdefault(order, progress)
        elif self.pending:
            self.pending.pop(order, None)
        new = self.cases.lay(order, _WHOLE + sealed) if standing & 2 else self.cases.add(order, _PART + sealed)
        if new:
            self.cases.remind(self.progress + MEMORY, order)
        elif new is None:
            case = self._case(order)
            for item in _items.decode(sealed):
                take(case, item)

    def _case(self, order: str) -> Case:
        case = self.cases.get(order)
        if case is None:
            case = Case(order)
            self.cases.put(order, case)
            self.cases.remind(self.progress + MEMORY, order)
        return case

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
        decision, not_applied = (_in_force(case), _not_applied(case)) if case.outcomes else (None, [])
        # all that the record says, timings left out: what is said again after a crash under the same number is the same
        person = (decision, not_applied)
        said = _short((_whole_verdict(verdict), dossier.digest, dossier.status, dossier.currency, dossier.total, person))
        if said == case.said:
            return self._records(case, decision, not_applied, verdict, pack, now, again=True) if again else []
        case.said = said
        case.number += 1
        previous = case.verdict
        case.verdict = verdict.line.verdict
        fired = {signal.rule for signal in verdict.line.signals}
        case.began = {rule: case.began.get(rule, case.number) for rule in fired}
        stands = "" if decision is None else decision.id
        if stands != case.stands:
            case.stands, case.known = stands, fired if stands else None
        _move(case, "" if decision is None else decision.outcome)
        return self._records(case, decision, not_applied, verdict, pack, now, previous, again=again)

    def sweep(self) -> None:
        """Forgets cases whose MEMORY is over by the data's own time."""
        for order in self.cases.until(self.progress):
            case = self.cases.peek(order)
            if case is None:
                continue
            met = case.dossier.received_at if case.dossier is not None else case.met
            if met < 0:
                # what came before any dossier has no time yet: it has this one
                met = self.progress
                self._case(order).met = met
            if met >= self.progress - MEMORY:
                self.cases.remind(met + MEMORY, order)
            else:
                self.cases.discard(order)
                self.pending.pop(order, None)

    def _records(
        self,
        case: Case,
        decision: Outcome | None,
        not_applied: list[dict[str, Any]],
        verdict: Verdict,
        pack: Pack,
        now: int,
        previous: str | None = None,
        *,
        again: bool,
    ) -> list[Public]:
        """What is to be said of a case as it stands; where it is said again, all of it.

        Those who ship or review are told when something changed for them: a verdict, a rule, the order. That more evidence came
        for the same rules stands on orders.verdicts alone.
        """
        dossier = case.dossier
        assert dossier is not None
        line = verdict.line
        signals = [{"rule": s.rule, "level": s.level, "evidence": s.evidence} for s in line.signals]
        said = None if decision is None else _told(decision)
        held = case.frozen and _held(case, decision)
        channel, shop, _ = case.order.split(":", 2)
        whole = {
            "order_id": case.order,
            "verdict_seq": case.number,
            "verdict": line.verdict,
            "level": line.level,
            "score": line.score,
            "pack": line.pack,
            "signals": signals,
            "not_available": line.not_available,
            "rejected": None,
            "tags": verdict.tags,
            "held": held,
            "out": case.out or None,
            "decision": said,
            "not_applied": not_applied,
            "combinations": verdict.combinations,
            "rules": verdict.rules if verdict.quiet is None else verdict.quiet.json,
            "status": dossier.status,
            "currency": dossier.currency,
            "total": dossier.total,
            "channel": channel,
            "shop": shop,
            "previous": previous or None,
            "timings": {
                "created_at": dossier.created_at,
                "received_at": dossier.received_at,
                "normalised_at": dossier.normalised_at,
                "decided_at": now,
            },
        }
        out = [Public("orders.verdicts", case.order, whole)]
        rules = [(signal.rule, signal.level) for signal in line.signals]
        shown = _short((case.out, case.recalled, held, line.verdict, line.level, line.pack, rules, dossier.digest, decision))
        if again or shown != case.shown:
            case.shown = shown
            if case.recalled:
                recalled = {
                    "order_id": case.order,
                    "verdict_seq": case.number,
                    "verdict": case.out or "withdrawn",
                    "level": line.level,
                    "pack": line.pack,
                    "signals": signals,
                    "cause": _cause(case, decision),
                    "decision": said,
                }
                out.append(Public("orders.recalled", case.order, recalled))
            shows = case.number == case.returned or not (held or line.verdict == "pending")
            if case.out and shows and dossier.document is not None:
                record = self._order(case, decision, verdict, signals)
                record["decision"] = said
                if decision is not None and decision.outcome != "undone":
                    record["by"] = decision.by or "person"
                out.append(Public(f"orders.{case.out}", case.order, record))
        if rules or verdict.tags or case.locked or decision is not None or not_applied:
            for action in self._actions(case, decision, not_applied, verdict, pack):
                if again or action["id"] not in case.acted:
                    case.acted.add(action["id"])
                    out.append(Public("orders.actions", case.order, action))
        return out

    @staticmethod
    def _order(case: Case, decision: Outcome | None, verdict: Verdict, signals: list[dict[str, Any]]) -> dict[str, Any]:
        """The record of released, review or frozen: the order itself with its units, and why."""
        assert case.dossier is not None
        assert case.dossier.document is not None
        line = verdict.line
        record = {
            "order_id": case.order,
            "verdict_seq": case.number,
            "verdict": case.out,
            "level": line.level,
            "score": line.score,
            "pack": line.pack,
            "signals": signals,
            # as they are: what was encoded once is not read to be written again
            "order": msgspec.Raw(case.dossier.document),
            "units": msgspec.Raw(case.dossier.units),
            "filled": list(case.dossier.filled),
            "by": "machine",
        }
        merge = verdict.merge
        if decision is not None and decision.merge is not None:
            # somebody has said which of the candidates it leaves with
            merge = [other for other in merge if other in decision.merge]
        if merge:
            record["merge_group"] = merge[0]
            record["merge_with"] = merge
        return record

    def _actions(
        self, case: Case, decision: Outcome | None, not_applied: list[dict[str, Any]], verdict: Verdict, pack: Pack
    ) -> list[dict[str, Any]]:
        """What the verdict asks others to do, each with a key by which it is done once."""
        dossier = case.dossier
        assert dossier is not None
        level = verdict.line.level
        out: list[dict[str, Any]] = []
        for one in not_applied:
            # people outrank the machine for what they have seen: they are told, and decide again
            told = {
                "to": "supervisor",
                "why": f"decision-{one['why']}",
                "decision": one["id"],
                "by": one["by"],
                "rules": one["rules"],
            }
            out.append(_action(case, "notify", None, level, None, told))
        over = decision is not None and decision.outcome in outcomes.ENDS
        gone = verdict.line.verdict in ("withdrawn", "review", "frozen") and case.recalled
        if case.locked and (gone or (over and not case.out)):
            out.append(_action(case, "unlock-stock", None, level, None, {}))
        if over or verdict.line.verdict in ("withdrawn", "pending"):
            return out
        new = {signal.rule for signal in verdict.line.signals} - (case.known or set())
        if decision is not None and decision.outcome == "released" and new:
            # people outrank the machine: a later signal tells them and changes nothing
            after = {"to": "supervisor", "why": "signal-after-decision", "rules": sorted(new)}
            out.append(_action(case, "notify", None, level, None, after))
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


def take(case: Case, item: OrderItem) -> bool:
    """Puts an item into its case; False where it says nothing new."""
    if isinstance(item, Dossier):
        if case.dossier is not None and case.dossier.version >= item.version:
            return False
        if case.dossier is not None and case.dossier.digest != item.digest:
            case.changed = case.number + 1
        case.dossier = item
        if case.answers:
            # what entities said that this order has left is no part of it any more
            case.answers = {e: a for e, a in case.answers.items() if e in item.expects or a.version > item.version}
        return True
    if isinstance(item, Answers):
        if case.answers.keys().isdisjoint(item.by):
            case.answers.update(item.by)
            return bool(item.by)
        heard = [_hear(case, entity, answer) for entity, answer in item.by.items()]
        return any(heard)
    if isinstance(item, Forget):
        # its verdict and its number stay
        if case.dossier is not None:
            case.dossier = msgspec.structs.replace(case.dossier, document=None, units=b"[]", filled=())
        return False
    if item.outcome == "shipped":
        if case.shipped_at is not None and case.shipped_at <= item.at:
            return False
        case.shipped_at = item.at
        return True
    if item.outcome not in outcomes.MOVES | outcomes.TEACHES or item.id in case.outcomes:
        return False
    if item.seq is None:
        # nobody says what the person saw: all there was
        item = msgspec.structs.replace(item, seq=case.number)
    elif item.outcome in outcomes.DECISIONS:
        new = sorted(rule for rule, number in case.began.items() if number > item.seq)
        if new or (item.outcome == "released" and case.changed > item.seq):
            case.unseen[item.id] = new
    case.outcomes[item.id] = item
    return True


def _in_force(case: Case) -> Outcome | None:
    """What somebody decided and stands above the machine, or has just been taken back."""
    seen = [one for one in case.outcomes.values() if one.id not in case.unseen]
    last = outcomes.in_force(seen, case.shipped_at)
    if last is not None and last.outcome in outcomes.SERVED and case.changed > (last.seq or 0):
        # what was to be corrected has been: the machine has it again
        return None
    return last


def _not_applied(case: Case) -> list[dict[str, Any]]:
    """The outcomes that count for nothing, and why: `unseen` (rules: what had fired meanwhile) or `after-shipping`."""
    out = []
    for one in sorted(case.outcomes.values(), key=lambda one: (one.at, one.id)):
        unseen = case.unseen.get(one.id)
        if unseen is not None or outcomes.too_late(one, case.shipped_at):
            why = "after-shipping" if unseen is None else "unseen"
            out.append({"id": one.id, "outcome": one.outcome, "by": one.by, "why": why, "rules": unseen or []})
    return out


def _move(case: Case, decision: str) -> None:
    """Where the order stands now for those outside. decision: the outcome in force, "" where the machine decides."""
    verdict, before = case.verdict, case.out
    if verdict == "withdrawn" or decision in outcomes.ENDS:
        case.out = ""
    elif verdict == "pending":
        # not paid any more: it stays where it was, and comes back there where an end is taken back, whichever was heard first
        case.out = case.rest
    elif decision == "released":
        case.out = "released"
    else:
        case.frozen = case.frozen or verdict == "frozen"
        if case.frozen:
            # the freeze that was shown stands
            case.out = "frozen"
        else:
            case.out = "review" if decision in outcomes.WAITS else verdict
    if case.out == "released":
        case.released, case.recalled = True, False
    elif before == "released":
        case.recalled = True
    if case.out not in ("", before) and (verdict == "pending" or case.out == "frozen" != verdict):
        case.returned = case.number
    if verdict != "pending":
        case.rest = case.out


def _held(case: Case, decision: Outcome | None) -> bool:
    """Whether the machine would have it otherwise than the freeze that was shown and that nobody has lifted."""
    lifted = decision is not None and (decision.outcome == "released" or decision.outcome in outcomes.ENDS)
    return case.frozen and not lifted and case.verdict not in ("frozen", "withdrawn")


def _cause(case: Case, decision: Outcome | None) -> str:
    """Of a recall."""
    assert case.dossier is not None
    if case.dossier.status in WITHDRAWN:
        return case.dossier.status
    return "signals" if decision is None else "outcome"


def _told(decision: Outcome) -> dict[str, Any]:
    """A decision as public records say it: who, when, why in a word."""
    return {
        "id": decision.id,
        "outcome": decision.outcome,
        "by": decision.by,
        "at": decision.at,
        "reason": decision.reason,
        "undoes": decision.undoes,
    }


def _hear(case: Case, entity: str, answer: Answer) -> bool:
    """Takes an answer in; whether it says anything new."""
    known = case.answers.get(entity)
    if known is not None and (known.version, known.position) >= (answer.version, answer.position):
        return False
    case.answers[entity] = answer
    return known is None or msgspec.structs.replace(known, position=answer.position) != answer


def freeze(case: Case) -> bytes:
    """A case's bytes. Who answered is not said again where the dossier says it."""
    if case.dossier is not None:
        expects = case.dossier.expects
        heard = list(map(case.answers.get, expects))
        rest = {}
        if len(case.answers) + heard.count(None) > len(expects):
            rest = {entity: answer for entity, answer in case.answers.items() if entity not in expects}
        case = msgspec.structs.replace(case, answers=rest, heard=heard)
    return _encode(case)


def _whole(order: str, minute: int, held: Frozen | Case) -> bytes:
    del minute
    if isinstance(held, bytes) and held[:1] == _WHOLE:
        return held
    return _WHOLE + freeze(held if isinstance(held, Case) else _thaw(order, held))


def _thaw(order: str, frozen: Frozen) -> Case:
    case = Case(order)
    for part in [frozen] if isinstance(frozen, bytes) else frozen:
        if part[:1] == _WHOLE:
            case = _case.decode(part[1:])
            if case.lifted is not None or case.fraud is not None:
                _renew(case)
            if case.dossier is not None:
                expected = zip(case.dossier.expects, case.heard, strict=True)
                case.answers |= {entity: answer for entity, answer in expected if answer is not None}
                case.heard = []
        else:
            for item in _items.decode(part[1:]):
                take(case, item)
    return case


def _renew(case: Case) -> None:
    """Reads what an older version wrote down of outcomes."""
    for older in (case.lifted, case.fraud):
        if older is not None:
            take(case, msgspec.structs.replace(older, id=outcomes.derived(older.order, older.at, older.outcome, older.by)))
    case.lifted = case.fraud = None


def _whole_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict for its short form: as msgpack writes it, that has no end of rules to go through where they are all alike."""
    rules = verdict.rules if verdict.quiet is None else verdict.quiet.packed
    return {
        "line": verdict.line,
        "tags": verdict.tags,
        "rules": rules,
        "combinations": verdict.combinations,
        "merge": verdict.merge,
    }


def _short(value: Any) -> bytes:
    return hashlib.sha256(_encode(value)).digest()[:12]


def _params(action: Action) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if action.by:
        params["by"] = list(action.by)
    if action.to is not None:
        params["to"] = action.to
    return params


def _action(case: Case, do: str, rule: str | None, level: str, until: int | None, params: dict[str, Any]) -> dict[str, Any]:
    # of one rule each role is told; what route itself has to tell goes by its reason
    whom = params["decision"] if "decision" in params else None if "why" in params else params.get("to")
    said = (case.order, do, rule, params.get("why"), params.get("rules"), *(() if whom is None else (whom,)))
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
