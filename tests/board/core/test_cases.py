"""Which orders are one incident."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.board import cases, store
from orderstream.board.store import Db
from tests.board.core.records import Feed, oid, signal, verdict
from tests.postgres import another

NUMBERS = [f"A{n}" for n in range(8)]
Said = dict[str, list[list[str]]]


def partition(db: Db) -> dict[str, str]:
    return {row["order_id"]: row["case_id"] for row in db.execute("SELECT order_id, case_id FROM board.orders")}


def wanted(final: dict[str, list[str]]) -> dict[str, str]:
    """By hand: walk from each order to all that it can reach."""
    near: dict[str, set[str]] = {n: set() for n in NUMBERS}
    for one, others in final.items():
        for other in others:
            near[one].add(other)
            near[other].add(one)
    out = {}
    for start in final:
        seen, todo = {start}, [start]
        while todo:
            for other in near[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        out[oid(start)] = cases.case_id(min(map(oid, seen)))
    return out


@pytest.fixture(scope="module")
def several(database_server: str) -> str:
    """A database for many examples, one after the other."""
    return another(database_server, "several", "board_template")


@settings(max_examples=15, deadline=None)
@given(
    said=st.dictionaries(
        st.sampled_from(NUMBERS), st.lists(st.lists(st.sampled_from(NUMBERS), max_size=3), min_size=1, max_size=3), min_size=2
    ),
    chance=st.integers(0, 10_000),
)
def test_cases_follow_from_what_evidence_says_now_and_from_nothing_else(several: str, said: Said, chance: int) -> None:
    """However verdicts of several orders are interleaved, growing or falling apart meanwhile, the cases are the same at the end."""
    turns = [number for number, versions in said.items() for _ in versions]
    random.Random(chance).shuffle(turns)
    with store.connect(several) as db:
        db.execute("TRUNCATE board.orders, board.cases, board.members, board.edges, board.merged, board.events, board.offsets")
        feed = Feed(db)
        told = dict.fromkeys(said, 0)
        for number in turns:
            others = [o for o in said[number][told[number]] if o != number]
            told[number] += 1
            feed(verdict(number, told[number], signal("user-burst", *others)))

        final = {number: [o for o in versions[-1] if o != number] for number, versions in said.items()}
        assert partition(db) == wanted(final)
        counts = {r["case_id"]: r["waiting"] for r in db.execute("SELECT case_id, waiting FROM board.cases WHERE waiting > 0")}
        mine = list(wanted(final).values())
        assert counts == {case: mine.count(case) for case in set(mine)}


def test_one_burst_is_one_card_with_what_waits_of_it(db: Db, feed: Feed) -> None:
    """Orders that evidence names together are one case; its card sums what waits."""
    feed.waiting("A1", signal("user-burst"), total=100)
    feed.waiting("A2", signal("user-burst", "A1"), total=200)
    feed.waiting("A3", signal("user-burst", "A1", "A2"), signal("platform-hold", by="order"), total=300)
    feed.waiting("B1", signal("duplicate-order"))

    wall = store.waiting(db, store.Wanted(), 0)

    assert (wall.cases, wall.orders) == (2, 4)
    burst = next(card for card in wall.cards if card.waiting == 3)
    assert (burst.total, burst.currency, burst.level, burst.title) == (600, "CNY", "high", "platform-hold")
    assert burst.rules == ["platform-hold", "user-burst"]


def test_an_article_that_many_want_joins_nobody(db: Db, feed: Feed) -> None:
    """Evidence about a SKU names strangers: they are no incident."""
    feed.waiting("A1", signal("stock-rush", by="sku"))
    feed.waiting("A2", signal("stock-rush", "A1", by="sku"))

    assert store.waiting(db, store.Wanted(), 0).cases == 2


def test_whoever_has_a_case_open_is_led_on(db: Db, feed: Feed) -> None:
    """A case that goes into another one is found under its old name, too."""
    feed.waiting("A5", signal("user-burst"))
    feed.waiting("A7", signal("user-burst"))
    old = store.waiting(db, store.Wanted(), 0).cards
    feed(verdict("A5", 2, signal("user-burst", "A7")))

    found = {one.case_id: store.case(db, one.case_id) for one in old}

    assert {None if case is None else case.card.waiting for case in found.values()} == {2}
    assert len({case.card.case_id for case in found.values() if case}) == 1
