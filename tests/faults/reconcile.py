"""What is wrong between what was acknowledged, what came out, what the ERP holds, and what a backtest says.

Law: pure, and each sentence names the order. Four books that were kept apart must agree: the shops' (acknowledged bodies), the
topics', the ERP's, and the backtest's reading of the same raw records. One that is empty agrees with nothing: see `whole`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Fault = Literal["lost", "twice", "contradiction"]

STRICTER = frozenset({"review", "frozen"})


class Said(NamedTuple):
    """One record of a public topic, in the sequence of its partition. what: `released`, `review`, …; content: what must not
    change under one number.
    """

    order: str
    seq: int
    what: str
    content: bytes
    held: bool = False


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


def reconcile(books: Evidence) -> list[Difference]:
    """Every difference; none is what a run is for."""
    return [
        *_whole(books),
        *_lost(books),
        *_twice(books),
        *_contradictions(books),
        *_recalls(books),
        *_erp(books),
        *_backtest(books),
    ]


def _whole(books: Evidence) -> Iterator[Difference]:
    for name in ("acknowledged", "raw", "verdicts", "public", "erp", "journal", "live", "backtest"):
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
    final: dict[str, Said] = {}
    for said in books.verdicts:
        if said.order not in final or said.seq >= final[said.order].seq:
            final[said.order] = said
    for order, verdict in final.items():
        accepted = books.erp.get(order, (0, ""))[1] == "accepted"
        if verdict.what == "released" and not verdict.held and not accepted:
            yield Difference("lost", order, "the last verdict is released, and the ERP has not accepted it")
        if (verdict.what in STRICTER or verdict.what == "withdrawn" or verdict.held) and accepted:
            yield Difference("contradiction", order, f"the last verdict is {verdict.what}, and the ERP has accepted it")


def _backtest(books: Evidence) -> Iterator[Difference]:
    for order in books.live.keys() | books.backtest.keys():
        live, again = books.live.get(order), books.backtest.get(order)
        if live is None:
            yield Difference("lost", order, f"a backtest gives a verdict and live there is none: {again!r}")
        elif again is None:
            yield Difference("twice", order, f"there is a live verdict, and a backtest gives none: {live!r}")
        elif live != again:
            yield Difference("contradiction", order, f"live {live!r}, backtest {again!r}")
