"""What people may do, and what follows."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from orderstream import times
from orderstream.board import audit, decide, store
from orderstream.board.decide import UNDO, Decided, NotAllowedError, Person, Terms
from orderstream.board.store import Db
from tests.board.core.records import Feed, T, oid, outcome, place, recalled, signal, verdict

NOW = T + 10_000
LI = Person("li", frozenset({"reviewer"}))
WANG = Person("wang", frozenset({"supervisor"}))
BOSS = Person("boss", frozenset({"approver"}))


def release(
    db: Db, *numbers: str, by: Person = LI, seq: int = 1, at: int = NOW, terms: Terms | None = None, **more: Any
) -> Decided:
    return decide.decide(db, by, {oid(n): seq for n in numbers}, "release", "checked", at=at, terms=terms or Terms(), **more)


def said(db: Db) -> list[tuple[str, str]]:
    """(order, outcome) in the outbox."""
    return [(row["key"], row["value"]["outcome"]) for row in db.execute("SELECT key, value FROM board.outbox ORDER BY id")]


def state(db: Db, number: str) -> str:
    one = store.order(db, oid(number))
    assert one is not None
    return one.state


def test_a_decision_takes_effect_at_once_and_is_said_once(db: Db, feed: Feed) -> None:
    feed.waiting("A1")

    done = release(db, "A1")

    assert done.done == [oid("A1")]
    assert state(db, "A1") == "decided"
    assert store.waiting(db, store.Wanted(), 0).orders == 0
    (row,) = db.execute("SELECT value FROM board.outbox").fetchall()
    mine = store.decisions(db, oid("A1"))[0]
    assert row["value"] == {
        "order_id": oid("A1"), "at": times.text(NOW), "outcome": "released", "by": "li", "id": str(mine.id), "reason": "checked", "seq": 1,
    }  # fmt: skip


def test_of_two_people_at_once_one_wins_and_the_other_is_told(db: Db, feed: Feed, database: str) -> None:
    """Twenty rounds of two threads on one order: one decision each, and the other names who was first."""
    for number in range(20):
        feed.waiting(f"A{number}")
    together = threading.Barrier(2)
    results: dict[str, list[Decided]] = {"li": [], "wang": []}

    def work(who: Person) -> None:
        with store.connect(database) as mine:
            for number in range(20):
                together.wait(10)
                results[who.name].append(release(mine, f"A{number}", by=who))

    threads = [threading.Thread(target=work, args=(who,)) for who in (LI, WANG)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    for number, (one, other) in enumerate(zip(results["li"], results["wang"], strict=True)):
        winner, loser = ("li", other) if one.done else ("wang", one)
        assert len(one.done) + len(other.done) == 1
        refusal = loser.refused[oid(f"A{number}")]
        assert (refusal.code, refusal.by, refusal.decision) == ("not-waiting", winner, "release")
    assert len(said(db)) == 20


def test_what_is_new_since_it_was_seen_asks_again(db: Db, feed: Feed) -> None:
    feed.waiting("A1")
    feed(verdict("A1", 2, signal("duplicate-order"), signal("user-burst")))

    refused = release(db, "A1", seq=1)
    again = release(db, "A1", seq=2)

    assert refused.refused[oid("A1")].code == "changed"
    assert refused.refused[oid("A1")].rules == ("duplicate-order", "user-burst")
    assert again.done == [oid("A1")]


def test_more_of_the_same_evidence_asks_nobody_again(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("duplicate-order"))
    feed(verdict("A1", 2, signal("duplicate-order", "A0")))

    assert release(db, "A1", seq=1).done == [oid("A1")]


def test_a_case_is_decided_as_one_and_single_ones_are_left_out(db: Db, feed: Feed) -> None:
    for number in range(5):
        feed.waiting(f"A{number}", signal("user-burst", *(f"A{n}" for n in range(number))))
    case = store.case(db, store.waiting(db, store.Wanted(), 0).cards[0].case_id)
    assert case is not None

    done = decide.decide(
        db,
        WANG,
        {row.order_id: row.seq for row in case.orders if row.order_id != oid("A3")},
        "cancel",
        "fraud",
        at=NOW,
        terms=Terms(),
    )

    assert len(done.done) == 4
    left = store.case(db, case.card.case_id)
    assert left is not None
    assert (left.card.waiting, left.card.orders) == (1, 5)
    assert sorted(set(said(db))) == [(oid(f"A{n}"), "cancelled") for n in (0, 1, 2, 4)]


def test_undone_within_a_minute_and_not_after(db: Db, feed: Feed) -> None:
    feed.waiting("A1")
    first = release(db, "A1")
    with pytest.raises(NotAllowedError, match="whose"):
        decide.undo(db, Person("zhao", frozenset({"reviewer"})), first.bulk, at=NOW + 1)

    assert decide.undo(db, LI, first.bulk, at=NOW + UNDO) == [oid("A1")]

    assert state(db, "A1") == "waiting"
    assert said(db) == [(oid("A1"), "released"), (oid("A1"), "undone")]
    with pytest.raises(NotAllowedError, match="too-late"):
        decide.undo(db, LI, first.bulk, at=NOW + UNDO)  # it is undone already
    second = release(db, "A1", at=NOW + UNDO)
    with pytest.raises(NotAllowedError, match="too-late"):
        decide.undo(db, LI, second.bulk, at=NOW + 2 * UNDO + 1)


def test_what_takes_a_decision_back_is_later_than_it_by_any_clock(db: Db, feed: Feed) -> None:
    """The last by its own time stands: a clock that was set back between the two must not let the first one stand."""
    feed.waiting("A1")
    done = release(db, "A1")
    decide.undo(db, LI, done.bulk, at=NOW - 5_000)

    first, back = [times.parse(row["value"]["at"]) for row in db.execute("SELECT value FROM board.outbox ORDER BY id")]
    assert back > first


def test_what_was_taken_back_waits_though_the_stream_still_says_what_was(db: Db, feed: Feed) -> None:
    """The release is under way while it is taken back; its record comes, then the one that takes it back."""
    feed.waiting("A1")
    done = release(db, "A1")
    mine = store.decisions(db, oid("A1"))[0]
    told = {"id": str(mine.id), "outcome": "released", "by": "li", "at": NOW, "reason": "checked", "undoes": None}
    decide.undo(db, LI, done.bulk, at=NOW + 5)

    feed(verdict("A1", 2, signal("duplicate-order"), out="released", decision=told), place("released", "A1", 2, by="li"))
    assert state(db, "A1") == "waiting"
    feed(verdict("A1", 3, signal("duplicate-order"), out="review"), recalled("A1", 3, "outcome"), place("review", "A1", 3))
    assert state(db, "A1") == "waiting"
    assert release(db, "A1", seq=3, at=NOW + 9).done == [oid("A1")]


def test_the_stream_says_that_it_applied_or_that_it_did_not(db: Db, feed: Feed) -> None:
    feed.waiting("A1")
    feed.waiting("A2")
    release(db, "A1", "A2")
    one, two = (store.decisions(db, oid(n))[0] for n in ("A1", "A2"))
    told = {"id": str(one.id), "outcome": "released", "by": "li", "at": NOW, "reason": "checked", "undoes": None}
    missed = {"id": str(two.id), "outcome": "released", "by": "li", "why": "unseen", "rules": ["user-burst"]}

    feed(verdict("A1", 2, signal("duplicate-order"), out="released", decision=told))
    feed(verdict("A2", 2, signal("duplicate-order"), signal("user-burst"), out="review", decision=None, not_applied=[missed]))

    assert store.decisions(db, oid("A1"))[0].applied_at is not None
    assert (state(db, "A1"), state(db, "A2")) == ("decided", "waiting")
    assert store.decisions(db, oid("A2"))[0].state == "overtaken"


def test_frozen_needs_an_approver_who_did_not_ask(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))

    asked = release(db, "A1", by=BOSS)
    waits = store.asked(db)

    assert (asked.asked, asked.done, said(db)) == ([oid("A1")], [], [])
    assert [one.decision.order_id for one in waits] == [oid("A1")]
    mine = waits[0].decision.id
    for who, code in ((BOSS, "own"), (LI, "role")):
        with pytest.raises(NotAllowedError, match=code):
            decide.approve(db, who, mine, yes=True, at=NOW + 1)
    assert release(db, "A1").refused[oid("A1")].code == "asked"
    assert decide.approve(db, Person("ceo", frozenset({"approver"})), mine, yes=True, at=NOW + 2) == "effective"
    assert said(db) == [(oid("A1"), "released")]
    assert state(db, "A1") == "decided"


def test_a_great_amount_needs_two(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"), total=1_000_000)
    release(db, "A1", terms=Terms(two_from=1_000_000))
    mine = store.asked(db)[0].decision.id

    assert decide.approve(db, BOSS, mine, yes=True, at=NOW) == "more"
    with pytest.raises(NotAllowedError, match="said"):
        decide.approve(db, BOSS, mine, yes=True, at=NOW)
    assert said(db) == []
    assert decide.approve(db, Person("ceo", frozenset({"approver"})), mine, yes=True, at=NOW) == "effective"


def test_a_no_leaves_it_waiting(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    release(db, "A1")

    assert decide.approve(db, BOSS, store.asked(db)[0].decision.id, yes=False, at=NOW) == "refused"
    assert (state(db, "A1"), said(db), store.asked(db)) == ("waiting", [], [])
    assert release(db, "A1").asked == [oid("A1")]


def test_what_changed_since_it_was_asked_is_not_approved(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    release(db, "A1")
    feed(verdict("A1", 2, signal("platform-hold"), signal("user-burst")))

    with pytest.raises(NotAllowedError, match="changed"):
        decide.approve(db, BOSS, store.asked(db)[0].decision.id, yes=True, at=NOW)


def test_a_deputy_approves_during_absence_alone_and_not_for_who_asked(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    feed.waiting("A2", signal("platform-hold"))
    decide.absent(db, BOSS, BOSS, "wang", NOW, NOW + 100, at=NOW)
    release(db, "A1")
    release(db, "A2", by=BOSS)
    mine = {one.decision.order_id: one.decision.id for one in store.asked(db)}

    for order, at in (("A1", NOW - 1), ("A1", NOW + 100), ("A2", NOW + 50)):
        with pytest.raises(NotAllowedError, match="role"):
            decide.approve(db, WANG, mine[oid(order)], yes=True, at=at)
    assert decide.approve(db, WANG, mine[oid("A1")], yes=True, at=NOW + 99) == "effective"


def test_a_second_look_comes_first_where_it_is_asked_for(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    terms = Terms(verify=True)
    assert release(db, "A1", terms=terms).refused[oid("A1")].code == "unverified"
    decide.verify(db, LI, oid("A1"), "phone", "unreachable", at=NOW)
    assert release(db, "A1", terms=terms).refused[oid("A1")].code == "unverified"
    decide.verify(db, LI, oid("A1"), "phone", "confirmed", at=NOW + 1)

    assert release(db, "A1", terms=terms).asked == [oid("A1")]
    assert [one.result for one in store.verifications(db, oid("A1"))] == ["unreachable", "confirmed"]


@pytest.mark.parametrize(
    ("who", "what", "reason", "note", "code"),
    [
        (Person("an", frozenset({"analyst"})), "release", "checked", "", "role"),
        (LI, "cancel", "fraud", "", "role"),
        (LI, "release", "because", "", "reason"),
        (LI, "release", "other", " ", "note"),
        (Person("x", frozenset({"reviewer"}), ("api:live",)), "release", "checked", "", "shop"),
    ],
)
def test_who_may_not_is_told_why(db: Db, feed: Feed, who: Person, what: Any, reason: str, note: str, code: str) -> None:
    feed.waiting("A1")
    with pytest.raises(NotAllowedError, match=code):
        decide.decide(db, who, {oid("A1"): 1}, what, reason, note=note, at=NOW, terms=Terms())
    assert said(db) == []


def test_put_aside_comes_back_with_a_new_signal_or_the_customer_s_answer(db: Db, feed: Feed) -> None:
    for number in ("A1", "A2", "A3"):
        feed.waiting(number)
    decide.decide(db, LI, {oid("A1"): 1}, "correction", "address", at=NOW, terms=Terms())
    decide.decide(db, LI, {oid("A2"): 1}, "confirm", "duplicate", at=NOW, terms=Terms())
    decide.decide(db, LI, {oid("A3"): 1}, "correction", "article", at=NOW, terms=Terms())
    assert [state(db, n) for n in ("A1", "A2", "A3")] == ["correction", "asking", "correction"]

    feed(verdict("A1", 2, signal("duplicate-order"), signal("user-burst")))
    feed(outcome("A2", "customer-confirmed", id="x", by="customer"))
    feed(verdict("A3", 2, out="released"), place("released", "A3", 2))

    assert [state(db, n) for n in ("A1", "A2", "A3")] == ["waiting", "waiting", "closed"]
    assert store.order(db, oid("A2")).answer == "customer-confirmed"  # type: ignore[union-attr]


def test_a_customer_who_wants_only_one_stops_what_was_let_go(db: Db, feed: Feed) -> None:
    """The stream takes it back to review, whoever had released it: the machine or a person. Somebody has to see it, and decides."""
    feed(verdict("A1", 1, signal("ip-pair"), out="released"), place("released", "A1", 1))
    feed.waiting("A2")
    decide.decide(db, LI, {oid("A2"): 1}, "release", "checked", at=NOW, terms=Terms())
    mine = store.decisions(db, oid("A2"))[0]
    told = {"id": str(mine.id), "outcome": "released", "by": "li", "at": NOW, "reason": "checked", "undoes": None}
    feed(verdict("A2", 2, signal("duplicate-order"), out="released", decision=told), place("released", "A2", 2, by="li"))
    assert [state(db, n) for n in ("A1", "A2")] == ["closed", "decided"]

    answer = {"id": "l1", "outcome": "customer-single", "by": "customer", "at": NOW + 5000, "reason": None, "undoes": None}
    for number, seq, rule in (("A1", 2, "ip-pair"), ("A2", 3, "duplicate-order")):
        feed(place("review", number, seq), verdict(number, seq, signal(rule), out="review", decision=answer))
    assert [state(db, n) for n in ("A1", "A2")] == ["waiting", "waiting"]

    later = NOW + 10_000
    assert decide.decide(db, WANG, {oid("A1"): 2, oid("A2"): 3}, "cancel", "duplicate", at=later, terms=Terms()).refused == {}
    # what the stream said before it heard of that changes nothing
    feed(verdict("A1", 3, signal("ip-pair"), out="review", decision=answer))
    assert [state(db, n) for n in ("A1", "A2")] == ["decided", "decided"]


def test_a_board_that_was_away_reads_the_release_and_the_customer_s_answer_at_once(db: Db, feed: Feed) -> None:
    """One batch holds the verdict by which its decision was done and the one that takes it back: the order waits."""
    feed.waiting("A1")
    decide.decide(db, LI, {oid("A1"): 1}, "release", "checked", at=NOW, terms=Terms())
    mine = store.decisions(db, oid("A1"))[0]
    told = {"id": str(mine.id), "outcome": "released", "by": "li", "at": NOW, "reason": "checked", "undoes": None}
    answer = {"id": "l1", "outcome": "customer-single", "by": "customer", "at": NOW + 5000, "reason": None, "undoes": None}
    rule = signal("duplicate-order")

    released = verdict("A1", 2, rule, out="released", decision=told)
    feed.at_once(released, verdict("A1", 3, rule, out="review", decision=answer))

    assert state(db, "A1") == "waiting"


def test_a_release_that_was_said_elsewhere_stands_on_the_board(db: Db, feed: Feed) -> None:
    """A script, another desk: the outcome may be read before or after what it led to."""
    feed.waiting("A1")
    feed.waiting("A2")
    told = {"id": "q", "outcome": "released", "by": "zhao", "at": NOW, "reason": None, "undoes": None}
    feed(outcome("A1", "released", id="p", by="zhao"), place("released", "A1", 2, by="zhao"))
    feed(verdict("A2", 2, signal("duplicate-order"), out="released", decision=told), place("released", "A2", 2, by="zhao"))
    feed(outcome("A2", "released", id="q", by="zhao"))

    assert [state(db, n) for n in ("A1", "A2")] == ["decided", "decided"]
    assert [store.decisions(db, oid(n))[0].by for n in ("A1", "A2")] == ["zhao", "zhao"]
    assert said(db) == []


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"outcome": "lost"},
        {"outcome": "released", "at": 1},
        {"outcome": "undone"},
        {"order_id": oid("B2"), "outcome": "released"},
    ],
)
def test_an_outcome_that_cannot_be_read_stops_nobody(db: Db, feed: Feed, broken: dict[str, Any]) -> None:
    """Others write that topic: the stream has it among the rejects, and the board reads on."""
    feed.waiting("A1")
    topic, value = outcome("A1", "released", id="p", by="zhao")
    feed((topic, broken and {**value, **broken}, oid("A1")), (topic, value))

    assert state(db, "A1") == "decided"
    assert len(store.decisions(db, oid("A1"))) == 1


def test_each_decision_has_its_row_in_the_audit(db: Db, feed: Feed) -> None:
    feed.waiting("A1", signal("platform-hold"))
    release(db, "A1")
    decide.approve(db, BOSS, store.asked(db)[0].decision.id, yes=True, at=NOW)
    rows = db.execute("SELECT n, by, what FROM board.audit ORDER BY n").fetchall()

    assert [(r["n"], r["by"], r["what"]) for r in rows] == [(1, "li", "decide"), (2, "boss", "approve")]
    assert audit.verify(db) == []
