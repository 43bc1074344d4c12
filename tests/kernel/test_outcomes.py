"""Outcomes: what people say stands above the machine, once, in whatever order and however often it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from histories import BOOK, KEYS, STANDARD, Record, T, among, histories, line, run, text
from hops import METRICS, NAMES, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_parts import actions, dossier, found, mail, topics, verdict_of
from test_restart import claims

from agents import route as hop
from orderstream import engine, outcomes, wire
from orderstream.facts import Answer, Answers, Outcome
from orderstream.replay import read_item
from orderstream.route import Public, Router, freeze
from orderstream.rules.book import PackBook
from orderstream.times import HOUR

quick = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)

# -- any set of outcomes, in any order -------------------------------------------------------------------------------------

SAID = ("released", "released", "cancelled", "correction", "after-sales", "customer-confirmed", "customer-single",
        "customer-address", "confirmed-fraud", "returned", "complaint")  # fmt: skip


@st.composite
def decisions(draw: st.DrawFn) -> list[Record]:
    """Outcomes of a few orders, some of them taken back, some without an id."""
    out: list[Record] = []
    for n in range(draw(st.integers(1, 6))):
        said = {
            "kind": "outcome",
            "order_id": f"api:main:{draw(among(1, 2, 3))}",
            "at": text(T + 2 * HOUR + draw(among(0, 1, 2))),
        }
        if out and draw(among(False, False, True)):
            whose = draw(st.sampled_from(out))
            undone = {"outcome": "undone", "order_id": whose["order_id"], "undoes": outcomes.read(whose).id}
            out.append({**said, **undone, "id": f"u{n}", "by": "li"})
        else:
            name = {} if draw(among(False, False, True)) else {"id": f"d{n}"}
            out.append({**said, **name, "outcome": draw(st.sampled_from(SAID)), "by": draw(among("wang", "li"))})
    return out


def expected(told: list[Record], order: str) -> str | None:
    """The id of what stands, read from the agreement: the last by its time, what was taken back left out."""
    of = sorted({o.id: o for o in map(outcomes.read, told) if o.order == order}.values(), key=lambda o: (o.at, o.id))
    moving = [o for o in of if o.outcome in outcomes.ENDS | outcomes.WAITS | {"released"}]
    for one in reversed(moving):
        if not any(u.outcome == "undone" and u.undoes == one.id for u in of):
            return one.id
    undone = [u.id for u in of if u.outcome == "undone" and any(u.undoes == one.id for one in moving)]
    return undone[-1] if undone else None


def standing(history: list[Record]) -> dict[str, Any]:
    """Order -> where it stands in the end, by whose decision, and whether an ERP holds it."""
    pipeline, told = line(), []
    for record in history:
        told += pipeline.feed(read_item(record, KEYS, "CNY"))
    last = {p.order: p.value for p in told if p.topic == "orders.verdicts" and p.value is not None}
    held = erp((p.topic, p.value) for p in told if p.value is not None)
    return {order: (v["out"], (v["decision"] or {}).get("id"), v["held"], order in held) for order, v in last.items()}


def erp(told: Any) -> set[str]:
    """The orders that an ERP holds which heeds the numbers."""
    last: dict[str, tuple[int, str]] = {}
    for topic, value in told:
        if topic in ("orders.released", "orders.recalled"):
            last[value["order_id"]] = max(last.get(value["order_id"], (0, "")), (value["verdict_seq"], topic))
    return {order for order, (_, topic) in last.items() if topic == "orders.released"}


@quick
@given(histories(most=3), decisions(), st.data())
def test_outcomes_in_any_order_and_often(history: list[Record], told: list[Record], data: Any) -> None:
    """Whatever the sequence and the repeats, each order stands where the last decision by its own time put it."""
    once = standing(history + told)
    again = data.draw(st.permutations(told)) + data.draw(st.lists(st.sampled_from(told), max_size=6))

    assert standing(history + again) == once
    for order, (out, decision, _, held) in once.items():
        # what the channel corrected is no more to be corrected: nothing changes an order after these outcomes, so all wait
        assert decision == expected(told, order)
        assert held == (out == "released")


@quick
@given(histories(), decisions(), st.data())
def test_no_decision_changes_what_the_machine_found(history: list[Record], told: list[Record], data: Any) -> None:
    """Wherever outcomes fall among the records, the verdicts of a backtest stay, byte for byte."""
    mixed = data.draw(st.permutations(history + told))

    assert run(mixed) == run([r for r in mixed if r.get("kind") != "outcome"])


@settings(quick, max_examples=100)
@given(histories(most=4), decisions(), st.integers(1, 3), seeds, st.integers(1, 6), st.data())
def test_decided_once_whatever_dies(
    history: list[Record], told: list[Record], partitions: int, seed: int, deaths: int, data: Any
) -> None:
    """Sent up to three times, with workers killed at any points: nothing is said twice in two ways, the ERP holds what stands,
    and what stands is what was decided.
    """
    again = told + data.draw(st.lists(st.sampled_from(told), max_size=2 * len(told)))
    world = World([*history, *again], partitions, seed)

    world.run(deaths)

    assert world.lines() == run(history)
    for topic in ("orders.verdicts", "orders.released", "orders.review", "orders.frozen", "orders.recalled"):
        assert {key: said for key, said in claims(world, topic).items() if len(said) > 1} == {}
    verdicts = sorted(world.values("orders.verdicts"), key=lambda v: v["verdict_seq"])
    last = {v["order_id"]: v for v in verdicts}
    numbers = {
        topic: {(v["order_id"], v["verdict_seq"]) for v in world.values(f"orders.{topic}")}
        for topic in ("released", "review", "frozen")
    }
    shown = {
        topic: {v["order_id"]: v for v in sorted(world.values(f"orders.{topic}"), key=lambda v: v["verdict_seq"])}
        for topic in numbers
    }
    held = erp((f"orders.{topic}", v) for topic in ("released", "recalled") for v in world.values(f"orders.{topic}"))
    for order, v in last.items():
        assert (order in held) == (v["out"] == "released"), v
        said = (v["decision"] or {}).get("id")
        if said is not None or not any(o["order_id"] == order and o["outcome"] in outcomes.SERVED for o in told):
            assert said == expected(told, order)
        if v["out"] and v["verdict"] != "pending":
            # wherever it stands, there is its record, and the newest one says whose decision it is (a freeze that stands is not shown again)
            assert order in shown[v["out"]]
            if not v["held"]:
                assert (shown[v["out"]][order]["decision"] or {}).get("id") == said


# -- one order at a desk ----------------------------------------------------------------------------------------------------


class Desk:
    """A router with one order; its case goes through bytes after each step, as it does over a restart."""

    def __init__(self) -> None:
        self.router = Router(PackBook([STANDARD]).pack)
        self.version = 0
        self.ids = 0

    def _process(self, item: Any) -> list[Public]:
        told = self.router.process(mail(item), 0)
        order, standing, sealed = self.router.log(mail(item)[0])
        self.router = Router(PackBook([STANDARD]).pack)
        self.router.restore(order, standing, sealed, T)
        return told

    def dossier(self, *rules: str, **changes: Any) -> list[Public]:
        self.version += 1
        return self._process(dossier(version=self.version, findings=found(*rules), **changes))

    def say(self, outcome: str, *, at: int = T + HOUR, seq: int | None = None, undoes: str | None = None) -> list[Public]:
        self.ids += 1
        return self._process(Outcome("api:main:1", at + self.ids, outcome, "wang", f"d{self.ids}", "known-buyer", seq, undoes))

    @property
    def last(self) -> str:
        return f"d{self.ids}"


def test_a_release_says_who_and_why() -> None:
    """The public record carries the person's id and reason; the note stays where it was said."""
    desk = Desk()
    desk.dossier("oversold")

    told = desk.say("released", seq=1)

    (released,) = [p.value for p in told if p.topic == "orders.released"]
    assert released is not None
    assert (released["by"], released["decision"]["reason"], released["decision"]["id"]) == ("wang", "known-buyer", "d1")
    assert (verdict_of(told)["out"], verdict_of(told)["verdict"]) == ("released", "review")


@pytest.mark.parametrize(
    ("details", "group", "together"),
    [
        ({}, "api:main:A", ["api:main:A", "api:main:B"]),
        ({"merge_with": ["api:main:B", "api:main:GONE"]}, "api:main:B", ["api:main:B"]),
        ({"merge_with": []}, None, None),
    ],
)
def test_a_release_says_what_it_leaves_with(details: Record, group: str | None, together: list[str] | None) -> None:
    """Of the candidates those that the person wanted, none where they wanted none; all where nobody said; taken back, all again."""
    desk = Desk()
    desk._process(dossier(version=1, expects={"receiver:r": 1}, findings=found("oversold")))
    desk._process(Answers({"receiver:r": Answer(1, 0, merge=("api:main:A", "api:main:B"))}))
    said = {"order_id": "api:main:1", "at": text(T + HOUR), "outcome": "released", "by": "wang", "id": "d1", "seq": 1}

    (released,) = [p.value for p in desk._process(outcomes.read({**said, "details": details})) if p.topic == "orders.released"]

    assert released is not None
    assert (released.get("merge_group"), released.get("merge_with")) == (group, together)
    back = outcomes.read({**said, "at": text(T + HOUR + 1), "outcome": "undone", "id": "u1", "undoes": "d1"})
    (review,) = [p.value for p in desk._process(back) if p.topic == "orders.review"]
    assert review is not None
    assert review["merge_with"] == ["api:main:A", "api:main:B"]


@pytest.mark.parametrize(("before", "recalled"), [((), True), (("oversold",), False), (("platform-hold",), False)])
def test_cancelled_stands_nowhere(before: tuple[str, ...], recalled: bool) -> None:
    """A cancelled order stands on no public topic, is recalled where the ERP has it, and asks for nothing any more."""
    desk = Desk()
    desk.dossier(*before)

    told = desk.say("cancelled", seq=1)

    assert topics(told) == ({"orders.recalled"} if recalled else set())
    assert verdict_of(told)["out"] is None
    assert topics(desk.dossier(*before, "ip-pair")) <= {"orders.recalled"}


@pytest.mark.parametrize("sequence", [("d1", "u1"), ("u1", "d1")])
@pytest.mark.parametrize(("before", "out"), [((), "released"), (("oversold",), "review"), (("platform-hold",), "frozen")])
def test_an_end_taken_back_of_an_order_that_is_pending_again(
    sequence: tuple[str, str], before: tuple[str, ...], out: str
) -> None:
    """It stands where it stood, and whoever reads the topics knows it, whichever of both outcomes was heard first."""
    desk, told = Desk(), []
    told += desk.dossier(*before)
    told += desk.dossier(*before, status="created")
    end = Outcome("api:main:1", T + HOUR, "cancelled", "wang", "d1", None, 1)
    back = Outcome("api:main:1", T + HOUR + 1, "undone", "wang", "u1", None, 1, "d1")

    for name in sequence:
        told += desk._process({"d1": end, "u1": back}[name])

    last = verdict_of(told[::-1])
    assert (last["verdict"], last["out"], last["decision"]["id"]) == ("pending", out, "u1")
    assert erp((p.topic, p.value) for p in told if p.value is not None) == ({"api:main:1"} if out == "released" else set())
    assert topics(told) >= {f"orders.{out}"}


@pytest.mark.parametrize("said", ["correction", "after-sales", "customer-single", "customer-address"])
def test_what_waits_is_recalled_and_reviewed(said: str) -> None:
    """What was out is taken back and waits for a person."""
    desk = Desk()
    desk.dossier()

    told = desk.say(said)

    assert topics(told) == {"orders.recalled", "orders.review"}
    (recalled,) = [p.value for p in told if p.topic == "orders.recalled"]
    assert recalled is not None
    assert (recalled["cause"], recalled["verdict"], recalled["decision"]["outcome"]) == ("outcome", "review", said)


def test_a_correction_ends_when_the_order_is_corrected() -> None:
    """The order changed: the machine has it again. What was handed to after-sales stays there."""
    desk, other = Desk(), Desk()
    for one, said in ((desk, "correction"), (other, "after-sales")):
        one.dossier("unknown-article")
        one.say(said)

    assert topics(desk.dossier(digest="another")) == {"orders.released"}
    assert verdict_of(other.dossier(digest="another"))["out"] == "review"


def test_a_correction_of_what_has_been_corrected_is_over() -> None:
    """The person saw the first verdict; the order had changed by the time that they said what is wrong with it."""
    desk = Desk()
    desk.dossier("oversold")
    desk.dossier(digest="another")

    assert verdict_of(desk.say("cancelled"))["out"] is None
    desk = Desk()
    desk.dossier("oversold")
    desk.dossier("oversold", digest="another")
    assert desk.say("correction", seq=1) == []


def test_a_decision_taken_back() -> None:
    """The order goes back to where the machine has it, recalled where the person had released it; another person's stands again."""
    desk = Desk()
    desk.dossier("oversold")
    desk.say("released", seq=1)

    told = desk.say("undone", undoes=desk.last)

    assert topics(told) == {"orders.recalled", "orders.review"}
    assert verdict_of(told)["decision"]["outcome"] == "undone"
    assert topics(desk.say("released")) == {"orders.released"}
    desk.say("cancelled")
    assert topics(desk.say("undone", undoes=desk.last)) == {"orders.released"}


def test_a_lifted_freeze_taken_back_is_shown_again() -> None:
    """A freeze that eased and was lifted goes back to the frozen, also for those who read only that topic."""
    desk = Desk()
    desk.dossier("platform-hold")
    desk.dossier()
    desk.say("released")

    told = desk.say("undone", undoes=desk.last)

    assert topics(told) == {"orders.recalled", "orders.frozen"}
    assert verdict_of(told)["held"] is True


def test_what_has_left_is_not_taken_back() -> None:
    """After shipping nothing is undone or cancelled, and somebody is told so."""
    desk = Desk()
    desk.dossier("oversold")
    desk.say("released", seq=1)
    release = desk.last
    desk.say("shipped", at=T + 2 * HOUR)

    for said, undoes in (("undone", release), ("cancelled", None), ("customer-address", None)):
        told = desk.say(said, at=T + 3 * HOUR, undoes=undoes)
        assert topics(told) == set()
        assert (verdict_of(told)["out"], verdict_of(told)["not_applied"][-1]["why"]) == ("released", "after-shipping")
        assert "notify" in actions(told).values()


@pytest.mark.parametrize("said", sorted(outcomes.DECISIONS))
def test_a_decision_on_what_nobody_had_seen(said: str) -> None:
    """A rule fired after the verdict that the person saw: the order stays, they are told; with the new number it counts."""
    desk = Desk()
    desk.dossier("oversold")
    desk.dossier("oversold", "platform-hold")

    told = desk.say(said, seq=1)

    verdict = verdict_of(told)
    assert (verdict["out"], verdict["decision"], topics(told)) == ("frozen", None, set())
    assert [(one["id"], one["why"], one["rules"]) for one in verdict["not_applied"]] == [("d1", "unseen", ["platform-hold"])]
    (notice,) = [p.value for p in told if p.topic == "orders.actions" and p.value and p.value["action"] == "notify"
                 and p.value["params"].get("decision")]  # fmt: skip
    assert notice is not None
    assert notice["params"] == {
        "to": "supervisor",
        "why": "decision-unseen",
        "decision": "d1",
        "by": "wang",
        "rules": ["platform-hold"],
    }
    assert verdict_of(desk.say(said, seq=verdict["verdict_seq"]))["decision"]["id"] == "d2"


def test_an_order_that_changed_is_not_released_unseen() -> None:
    """What they saw is not what would leave; to cancel it they need not see it anew."""
    desk, other = Desk(), Desk()
    for one in (desk, other):
        one.dossier("oversold")
        one.dossier("oversold", digest="another address")

    assert verdict_of(desk.say("released", seq=1))["out"] == "review"
    assert verdict_of(other.say("cancelled", seq=1))["out"] is None


def test_more_of_the_same_is_no_news() -> None:
    """A newer verdict without a new rule does not stop a decision: two people who saw the same may both say so."""
    desk = Desk()
    desk.dossier("oversold")
    desk.say("after-sales", seq=1)

    assert verdict_of(desk.say("released", seq=1))["decision"]["id"] == "d2"


def test_an_older_version_s_bytes() -> None:
    """A case that was written before outcomes had ids keeps its person's decision, and knows it when it is said again."""
    desk = Desk()
    desk.dossier("oversold")
    case = desk.router.cases.peek("api:main:1")
    assert case is not None
    case.lifted = Outcome("api:main:1", T + HOUR, "released", "wang")
    case.known = {"oversold"}
    router = Router(PackBook([STANDARD]).pack)
    router.restore("api:main:1", 2, freeze(case), T)
    again = outcomes.read({"order_id": "api:main:1", "at": text(T + HOUR), "outcome": "released", "by": "wang"})

    assert router.process(mail(again), 0) == []
    told = router.process(mail(dossier(version=9, findings=found("oversold", "ip-pair"))), 0)
    assert verdict_of(told)["out"] == "released"


@pytest.mark.parametrize(
    "record",
    [
        {"outcome": "undone"}, {"outcome": "released", "undoes": "d1"}, {"outcome": "released", "seq": 0},
        {"outcome": "released", "seq": "1"}, {"outcome": "released", "id": 5}, {"outcome": "released", "reason": "x" * 201},
        {"outcome": "released", "details": {"merge_with": "A"}}, {"outcome": "released", "details": {"merge_with": [1]}},
    ],
)  # fmt: skip
def test_half_an_outcome_is_none(record: Record) -> None:
    """It goes where people see it, instead of being guessed at."""
    with pytest.raises(ValueError, match=r"undoes|seq|text|merge_with"):
        outcomes.read({"order_id": "api:main:1", "at": text(T), **record})


def test_an_id_is_taken_in_once() -> None:
    """The same id with another word is the same outcome: the first one counts."""
    desk = Desk()
    desk.dossier("oversold")
    desk.say("released")

    assert desk.router.process(mail(Outcome("api:main:1", T + 2 * HOUR, "cancelled", "li", "d1")), 0) == []


def test_a_crash_repeats_a_decision() -> None:
    """Read again after a restart, a decision is said once more under the same number, and its actions under the same ids."""
    order = [("api:main:1", [dossier(BOOK.at(T), findings=found("oversold"))])]
    body = b'{"order_id":"api:main:1","at":"2026-11-12T00:00:00Z","outcome":"released","by":"wang","id":"d1"}'
    log: list[bytes] = []

    def read(*records: engine.Record) -> list[tuple[str, Any]]:
        state = hop.factory(1, NAMES, BOOK.pack, METRICS)(0)
        for blob in log:
            state.restore(blob)
        effects = state.process(records)
        log.extend([effects.log] if isinstance(effects.log, bytes) else effects.log or [])
        return [(s.topic, {**json.loads(s.value or b"{}"), "timings": None, "previous": None}) for s in effects.sends]

    read(engine.Record(NAMES.dossiers, 0, 0, None, wire.encode(order), (), T))
    said = engine.Record(NAMES.outcomes, 0, 0, None, body, (), T)
    first = read(said)

    assert {topic for topic, _ in first} >= {"orders.verdicts", "orders.released"}
    assert [one for one in read(said) if one in first] == first
    assert {value.get("verdict_seq") for _, value in read(said)} == {2}
