"""What is wrong between what was acknowledged, what came out, what the ERP holds, and what a backtest says.

Law: pure, and each sentence names the order. Books that were kept apart must agree: the shops' (acknowledged bodies), the people's
(what the board said yes to), the board's tables, the gateways', the topics', the ERP's, and the backtest's reading of the same raw
records. One that is empty agrees with nothing: see `_whole`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from orderstream.facts import Outcome

Fault = Literal["lost", "twice", "contradiction"]

STRICTER = frozenset({"review", "frozen"})
SAYS = frozenset({"release", "cancel", "correction", "after-sales"})
"""The decisions of the board that are an outcome."""
SERVED = frozenset({"correction", "customer-single", "customer-address"})
"""Outcomes that are over once the order has changed."""
TOLD = frozenset({"notify", "confirm"})
SAID = frozenset({"lock", "unlock"})


class Said(NamedTuple):
    """One record of a public topic, in the sequence of its partition. what: `released`, `review`, …; content: what must not
    change under one number. Of a verdict, out: the topic that the order stands on; decision: the id of what a person decided and
    stands; not_applied: ids of what changes nothing, and is said so.
    """

    order: str
    seq: int
    what: str
    content: bytes
    held: bool = False
    out: str = ""
    decision: str = ""
    not_applied: tuple[str, ...] = ()


class Decided(NamedTuple):
    """A decision in the board's tables. id: its outcome's; what: release, …; state: asked standing refused undone overtaken."""

    id: str
    bulk: str
    order: str
    what: str
    state: str
    effective: bool


class Deed(NamedTuple):
    """A row of what actions did. kind: action (taken apart) notify confirm lock unlock challenge; done_at: ms; due: by now or soon."""

    id: str
    order: str
    kind: str
    state: str
    done_at: int
    error: str | None
    due: bool


class Difference(NamedTuple):
    """One thing that is wrong."""

    fault: Fault
    order: str
    sentence: str


@dataclass
class Evidence:
    """The books. acknowledged: order id -> sha256 of its bodies; raw: sha256 of the bodies on the raw topics.

    verdicts: orders.verdicts. public: released, review, frozen and recalled. rejected: order ids of orders.rejected. erp: order id
    -> (verdict_seq, state); journal: (order id, verdict_seq, effect) of every effect. live, backtest: order id -> final line.
    outcomes: (id, bytes) of each record of orders.outcomes; decisions: id -> those that move an order.

    yes: (bulk, order, what) that the board said yes to. decided: its decisions. wall: order -> state of those that it shows as open;
    cards: case -> waiting orders, as its API says. answers: links that customers used. asked: ids on orders.actions. deeds: id -> row.
    taken: (key, ms) of each message that a gateway took. commands: (id, bytes) of each record of wms.commands.
    """

    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    raw: set[str] = field(default_factory=set)
    verdicts: list[Said] = field(default_factory=list)
    public: list[Said] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    erp: dict[str, tuple[int, str]] = field(default_factory=dict)
    journal: list[tuple[str, int, str]] = field(default_factory=list)
    live: dict[str, bytes] = field(default_factory=dict)
    backtest: dict[str, bytes] = field(default_factory=dict)
    outcomes: list[tuple[str, bytes]] = field(default_factory=list)
    decisions: dict[str, Outcome] = field(default_factory=dict)
    yes: set[tuple[str, str, str]] = field(default_factory=set)
    decided: list[Decided] = field(default_factory=list)
    wall: dict[str, str] = field(default_factory=dict)
    cards: dict[str, int] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    deeds: dict[str, Deed] = field(default_factory=dict)
    taken: list[tuple[str, int]] = field(default_factory=list)
    commands: list[tuple[str, bytes]] = field(default_factory=list)


def reconcile(books: Evidence) -> list[Difference]:
    """Every difference; none is what a run is for."""
    return [
        *_whole(books),
        *_lost(books),
        *_twice(books),
        *_contradictions(books),
        *_recalls(books),
        *_erp(books),
        *_decided(books),
        *_board(books),
        *_wall(books),
        *_deeds(books),
        *_backtest(books),
    ]


def _whole(books: Evidence) -> Iterator[Difference]:
    for name in (
        "acknowledged", "raw", "verdicts", "public", "erp", "journal", "live", "backtest", "outcomes", "decisions", "yes", "decided",
        "wall", "cards", "asked", "deeds", "taken", "commands",
    ):  # fmt: skip
        if not getattr(books, name):
            yield Difference("lost", "", f"nothing to compare: {name} is empty")


def _lost(books: Evidence) -> Iterator[Difference]:
    decided = {said.order for said in books.verdicts} | books.rejected
    for order, bodies in books.acknowledged.items():
        for body in bodies - books.raw:
            yield Difference("lost", order, f"a body was acknowledged and is on no topic (sha256 {body[:12]})")
        if order not in decided:
            yield Difference("lost", order, "acknowledged, and there is neither a verdict nor a reject")
        elif order not in books.live:
            yield Difference("lost", order, "acknowledged, and it has no final verdict")


def _twice(books: Evidence) -> Iterator[Difference]:
    effects: dict[tuple[str, int], list[str]] = defaultdict(list)
    for order, seq, effect in books.journal:
        effects[order, seq].append(effect)
    for (order, seq), found in effects.items():
        if len(found) > 1:
            yield Difference("twice", order, f"the ERP applied verdict {seq} {len(found)} times: {', '.join(found)}")


def _contradictions(books: Evidence) -> Iterator[Difference]:
    for topic, records in (("verdicts", books.verdicts), ("public", books.public)):
        contents: dict[tuple[str, int, str], set[bytes]] = defaultdict(set)
        for said in records:
            contents[said.order, said.seq, said.what if topic == "public" else ""].add(said.content)
        for (order, seq, what), found in contents.items():
            if len(found) > 1:
                yield Difference("contradiction", order, f"{topic} {what}: number {seq} has {len(found)} contents")


def overtaken(books: Evidence) -> list[Difference]:
    """Numbers that stand behind a greater one of their order: what a worker had in hand when it was stopped or cut off, and
    its heir had decided more meanwhile. Whoever goes by the numbers, as consumers must, is not misled; where no worker was
    displaced there may be none.
    """
    found = []
    for topic, records in (("verdicts", books.verdicts), ("public", books.public)):
        greatest: dict[tuple[str, str], int] = {}
        for said in records:
            place = said.order, said.what if topic == "public" else ""
            before = greatest.get(place, 0)
            if said.seq < before:
                sentence = f"{topic} {place[1]}: number {said.seq} was said after {before}"
                found.append(Difference("contradiction", said.order, sentence))
            greatest[place] = max(before, said.seq)
    return found


def _recalls(books: Evidence) -> Iterator[Difference]:
    """An order that was out as released is taken back before it is shown as anything stricter."""
    numbers: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for said in books.public:
        numbers[said.order][said.what].add(said.seq)
    for order, by in numbers.items():
        for what in STRICTER:
            for seq in by[what]:
                out = max((r for r in by["released"] if r < seq), default=None)
                if out is not None and not any(out < r <= seq for r in by["recalled"]):
                    yield Difference(
                        "contradiction", order, f"released as {out}, then {what} as {seq}, and not recalled between them"
                    )


def _erp(books: Evidence) -> Iterator[Difference]:
    """The ERP holds what the last record for it says, of exactly the orders that there is one for, and as the last verdict stands."""
    last: dict[str, Said] = {}
    for said in books.public:
        if said.what in ("released", "recalled") and (said.order not in last or said.seq >= last[said.order].seq):
            last[said.order] = said
    for order in last.keys() | books.erp.keys():
        told, held = last.get(order), books.erp.get(order)
        if told is None:
            yield Difference("twice", order, f"the ERP holds {held}, and no record told it to")
        elif held is None:
            yield Difference("lost", order, f"{told.what} as {told.seq} never reached the ERP")
        elif held != (told.seq, "accepted" if told.what == "released" else "stopped"):
            yield Difference("contradiction", order, f"the ERP holds {held} and was last told {told.what} as {told.seq}")
    for order, verdict in _final(books).items():
        accepted = books.erp.get(order, (0, ""))[1] == "accepted"
        if verdict.out == "released" and not accepted:
            yield Difference("lost", order, "the order stands as released, and the ERP has not accepted it")
        if verdict.out != "released" and accepted:
            yield Difference(
                "contradiction", order, f"the order stands as {verdict.out or 'nothing'}, and the ERP has accepted it"
            )


def _final(books: Evidence) -> dict[str, Said]:
    """The last verdict of each order."""
    final: dict[str, Said] = {}
    for said in books.verdicts:
        if said.order not in final or said.seq >= final[said.order].seq:
            final[said.order] = said
    return final


def _decided(books: Evidence) -> Iterator[Difference]:
    """What stands is what the desk decided last and has not taken back; each decision came in force once, or it is said why not."""
    final = _final(books)
    by_order: dict[str, list[Outcome]] = defaultdict(list)
    for one in books.decisions.values():
        by_order[one.order].append(one)
    for order, told in by_order.items():
        verdict = final.get(order)
        if verdict is None:
            yield Difference("lost", order, "a decision is on the topic, and there is no verdict that says so")
            continue
        counting = [one for one in told if one.id not in verdict.not_applied]
        back = {one.undoes: one.id for one in counting if one.outcome == "undone"}
        standing = [one for one in counting if one.outcome != "undone" and one.id not in back]
        last = max(standing, key=lambda one: (one.at, one.id), default=None)
        served = last is not None and last.outcome in SERVED and not verdict.decision
        wanted = {last.id} if last is not None else set(back.values()) or {""}
        if verdict.decision not in wanted and not served:
            yield Difference(
                "lost", order, f"decided {sorted(wanted)}, and the last verdict goes by {verdict.decision or 'nobody'}"
            )
    for order, said in _in_turn(books).items():
        known = {one.id for one in by_order.get(order, ())}
        for decision in {said.decision for said in said} - {""} - known:
            yield Difference("twice", order, f"it goes by {decision}, which nobody decided")
        entered = [
            now.decision
            for before, now in zip([None, *said], said, strict=False)
            if before is None or before.decision != now.decision
        ]
        # what was decided before stands again when what came after it is taken back
        again = sum(one.outcome == "undone" for one in by_order.get(order, ()))
        for decision in known:
            if entered.count(decision) > 1 + again:
                yield Difference("twice", order, f"decision {decision} came in force {entered.count(decision)} times")


def _board(books: Evidence) -> Iterator[Difference]:
    """What the board said yes to stands in its tables; each decision that took effect is one outcome, and no outcome is anything else."""
    rows = {row.id: row for row in books.decided}
    there = {(row.bulk, row.order) for row in books.decided}
    for bulk, order, what in books.yes:
        if (bulk, order) not in there:
            yield Difference("lost", order, f"the board said yes to {what} ({bulk}), and has no row of it")
    for row in books.decided:
        if (row.bulk, row.order, "undone") in books.yes and row.state not in ("undone", "overtaken"):
            yield Difference("lost", row.order, f"{row.what} {row.id} was taken back, and is {row.state}")
    contents: dict[str, set[bytes]] = defaultdict(set)
    for name, content in books.outcomes:
        contents[name].add(content)
    for name, found in contents.items():
        if len(found) > 1:
            yield Difference("contradiction", _whose(books, name), f"outcome {name} was said with {len(found)} contents")
    said = set(contents)
    for row in books.decided:
        speaks = row.what in SAYS and row.effective
        if speaks and row.id not in said:
            yield Difference("lost", row.order, f"{row.what} {row.id} took effect on the board, and no outcome says so")
        if not speaks and row.id in said:
            yield Difference(
                "twice", row.order, f"{row.what} {row.id} is {row.state} on the board, and an outcome says that it stands"
            )
    backs = {one.undoes: one for one in books.decisions.values() if one.outcome == "undone"}
    for row in books.decided:
        if row.state == "undone" and row.effective and row.what in SAYS and row.id not in backs:
            yield Difference("lost", row.order, f"{row.what} {row.id} was taken back on the board, and no outcome says so")
    for one in books.decisions.values():
        known = one.id in rows or one.id in books.answers
        if one.outcome == "undone":
            known = rows[one.undoes].state in ("undone", "overtaken") if one.undoes in rows else False
        if not known:
            yield Difference("twice", one.order, f"{one.outcome} {one.id} is on the topic, and nobody on the board decided it")
    for name in books.answers.keys() - said:
        yield Difference("lost", name, "a customer's answer was taken, and no outcome says so")
    final = _final(books)
    for row in books.decided:
        verdict = final.get(row.order)
        left_out = verdict is not None and row.id in verdict.not_applied
        if left_out != (row.state == "overtaken") and row.effective and row.state != "undone":
            yield Difference(
                "contradiction",
                row.order,
                f"{row.what} {row.id} is {row.state} on the board; the verdict left it out: {left_out}",
            )


def _whose(books: Evidence, outcome: str) -> str:
    return books.decisions[outcome].order if outcome in books.decisions else outcome


def _wall(books: Evidence) -> Iterator[Difference]:
    """The wall holds open what the stream keeps back, and nothing else; its cards count those that wait."""
    waits = {order for order, verdict in _final(books).items() if verdict.out in STRICTER}
    for order in waits - books.wall.keys():
        yield Difference("lost", order, "it stands on review or frozen, and is not on the wall")
    for order in books.wall.keys() - waits:
        yield Difference("contradiction", order, f"it is {books.wall[order]} on the wall, and the stream keeps nothing back")
    waiting = sum(state == "waiting" for state in books.wall.values())
    if sum(books.cards.values()) != waiting:
        yield Difference("contradiction", "", f"the wall's cards count {sum(books.cards.values())} orders, and {waiting} wait")


def _deeds(books: Evidence) -> Iterator[Difference]:
    """All that was asked for is done, and under its key once: what was noted as done is never done again."""
    for name in books.asked - books.deeds.keys():
        yield Difference("lost", name, "an action is on the topic, and nobody has read it")
    took: dict[str, list[int]] = defaultdict(list)
    for key, at in books.taken:
        took[key].append(at)
    commands: dict[str, set[bytes]] = defaultdict(set)
    for name, content in books.commands:
        commands[name].add(content)
    for deed in books.deeds.values():
        if deed.due or deed.state == "dead":
            yield Difference("lost", deed.order, f"{deed.kind} {deed.id} was never done: {deed.state} {deed.error or ''}")
        if deed.state == "sent" and deed.kind in TOLD and not took[deed.id] and deed.error is None:
            yield Difference("lost", deed.order, f"{deed.kind} {deed.id} is noted as done, and no gateway has taken it")
        if deed.state == "sent" and deed.kind in SAID and not commands[deed.id]:
            yield Difference("lost", deed.order, f"{deed.kind} {deed.id} is noted as done, and is on no topic")
        if any(at > deed.done_at for at in took[deed.id]) and deed.state == "sent":
            yield Difference("twice", deed.order, f"{deed.kind} {deed.id} was done again after it was noted as done")
    for key in {key for key in took if took[key]} - {deed.id for deed in books.deeds.values() if deed.kind in TOLD}:
        yield Difference("twice", key, "a gateway took a message that nobody was to be told")
    for name, found in commands.items():
        if found and name not in books.deeds:
            yield Difference("twice", name, "a command to the warehouse that nobody asked for")
        if len(found) > 1:
            yield Difference("contradiction", books.deeds[name].order, f"command {name} was said with {len(found)} contents")


def _in_turn(books: Evidence) -> dict[str, list[Said]]:
    """The verdicts of each order by their numbers, each number once."""
    numbers: dict[str, dict[int, Said]] = defaultdict(dict)
    for said in books.verdicts:
        numbers[said.order][said.seq] = said
    return {order: [by[seq] for seq in sorted(by)] for order, by in numbers.items()}


def _backtest(books: Evidence) -> Iterator[Difference]:
    for order in books.live.keys() | books.backtest.keys():
        live, again = books.live.get(order), books.backtest.get(order)
        if live is None:
            yield Difference("lost", order, f"a backtest gives a verdict and live there is none: {again!r}")
        elif again is None:
            yield Difference("twice", order, f"there is a live verdict, and a backtest gives none: {live!r}")
        elif live != again:
            yield Difference("contradiction", order, f"live {live!r}, backtest {again!r}")
