"""The reconciliation can fail: each thing that may go wrong, put into books that agree, is named with its order."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from orderstream.channels import registry
from orderstream.facts import Outcome
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import SHOPS
from tests.faults.kinds import KINDS
from tests.faults.ledger import Campaign, Ledger, Round, counted, plan, table
from tests.faults.reconcile import Decided, Deed, Evidence, Said, overtaken, reconcile
from tests.faults.traffic import Traffic


def agreeing() -> Evidence:
    """Five orders: A released; B released, then reviewed and recalled; C frozen; D no order at all; E reviewed, released by a person."""
    return Evidence(
        acknowledged={"A": {"a"}, "B": {"b"}, "C": {"c"}, "D": {"d"}, "E": {"e"}},
        raw={"a", "b", "c", "d", "e"},
        verdicts=[
            Said("A", 1, "released", b"1", out="released"), Said("B", 1, "released", b"1", out="released"),
            Said("B", 2, "review", b"2", out="review"), Said("C", 1, "frozen", b"1", out="frozen"),
            Said("E", 1, "review", b"1", out="review"), Said("E", 2, "review", b"2", out="released", decision="e1", not_applied=("e0",)),
        ],
        public=[
            Said("A", 1, "released", b"1"), Said("B", 1, "released", b"1"), Said("B", 2, "review", b"2"),
            Said("B", 2, "recalled", b"2"), Said("C", 1, "frozen", b"1"), Said("E", 1, "review", b"1"), Said("E", 2, "released", b"2"),
        ],
        rejected={"D"},
        erp={"A": (1, "accepted"), "B": (2, "stopped"), "E": (2, "accepted")},
        journal=[("A", 1, "released"), ("B", 1, "released"), ("B", 2, "recalled"), ("E", 2, "released")],
        live={"A": b"released", "B": b"review", "C": b"frozen", "D": b"rejected", "E": b"review"},
        backtest={"A": b"released", "B": b"review", "C": b"frozen", "D": b"rejected", "E": b"review"},
        decisions={name: Outcome("E", at, said, "wang", name) for name, at, said in (("e0", 1, "cancelled"), ("e1", 2, "released"))},
        outcomes=[("e0", b"0"), ("e1", b"1"), ("e1", b"1"), ("k1", b"k")],
        yes={("b0", "E", "cancel"), ("b1", "E", "release")},
        decided=[Decided("e0", "b0", "E", "cancel", "overtaken", True), Decided("e1", "b1", "E", "release", "standing", True)],
        wall={"B": "waiting", "C": "waiting"}, cards={"c-1": 2}, answers={"k1": "customer-confirmed"},
        asked={"a1"}, deeds={deed.id: deed for deed in (
            Deed("a1", "A", "action", "sent", 5, None, False), Deed("m1", "A", "notify", "sent", 9, None, False),
            Deed("l1", "A", "lock", "sent", 9, None, False), Deed("u1", "A", "unlock", "waiting", 0, None, False),
        )},
        taken=[("m1", 7), ("m1", 8)], commands=[("l1", b"l"), ("l1", b"l")],
    )  # fmt: skip


def test_books_that_agree_have_no_difference() -> None:
    """Also where a crash repeated a record: the same number with the same content."""
    books = agreeing()
    books.verdicts += [books.verdicts[2]]
    books.public += [Said("B", 2, "recalled", b"2"), Said("A", 1, "released", b"1")]

    assert reconcile(books) == []


def _no_verdict(books: Evidence) -> None:
    books.acknowledged["X"] = {"a"}


def _no_raw(books: Evidence) -> None:
    books.raw.discard("c")


def _no_final(books: Evidence) -> None:
    del books.live["C"], books.backtest["C"]


def _no_release(books: Evidence) -> None:
    del books.erp["A"]


def _not_applied(books: Evidence) -> None:
    books.public = [said for said in books.public if said.order != "A"]
    del books.erp["A"]


def _applied_twice(books: Evidence) -> None:
    books.journal.append(("A", 1, "recalled"))


def _unasked(books: Evidence) -> None:
    books.erp["Y"] = (1, "accepted")


def _only_live(books: Evidence) -> None:
    del books.backtest["A"]


def _two_contents(books: Evidence) -> None:
    books.verdicts.append(Said("C", 1, "frozen", b"other"))


def _two_contents_public(books: Evidence) -> None:
    books.public.append(Said("A", 1, "released", b"other"))


def _not_recalled(books: Evidence) -> None:
    books.public = [said for said in books.public if said.what != "recalled"]
    books.erp["B"] = (1, "accepted")
    books.journal.pop()


def _behind(books: Evidence) -> None:
    books.erp["B"] = (1, "accepted")


def _decision_lost(books: Evidence) -> None:
    books.verdicts[-1] = books.verdicts[-1]._replace(decision="", out="review")
    books.public.pop()
    books.journal.pop()
    del books.erp["E"]


def _decision_not_told(books: Evidence) -> None:
    books.decisions["e2"] = Outcome("E", 3, "after-sales", "li", "e2")


def _decided_twice(books: Evidence) -> None:
    last = books.verdicts[-1]
    books.verdicts += [last._replace(seq=3, decision="", content=b"3"), last._replace(seq=4, content=b"4")]


def _decided_by_nobody(books: Evidence) -> None:
    books.verdicts.append(books.verdicts[-1]._replace(seq=3, decision="e9", content=b"3"))
    del books.decisions["e1"]


def _taken_back(books: Evidence) -> None:
    books.decisions["e2"] = Outcome("E", 3, "undone", "li", "e2", undoes="e1")


def _not_on_the_wall(books: Evidence) -> None:
    del books.wall["C"]
    books.cards["c-1"] = 1


def _on_the_wall_for_nothing(books: Evidence) -> None:
    books.wall["A"] = "waiting"
    books.cards["c-1"] = 3


def _yes_for_nothing(books: Evidence) -> None:
    books.yes.add(("b9", "E", "cancel"))


def _undo_for_nothing(books: Evidence) -> None:
    books.yes.add(("b1", "E", "undone"))


def _never_said(books: Evidence) -> None:
    books.outcomes = [one for one in books.outcomes if one[0] != "e1"]


def _refused_and_said(books: Evidence) -> None:
    books.decided[0] = books.decided[0]._replace(state="refused", effective=False)


def _said_by_nobody(books: Evidence) -> None:
    books.decided.pop()


def _back_never_said(books: Evidence) -> None:
    books.decided[1] = books.decided[1]._replace(state="undone")


def _two_outcomes(books: Evidence) -> None:
    books.outcomes.append(("e1", b"other"))


def _overtaken_unnoticed(books: Evidence) -> None:
    books.decided[0] = books.decided[0]._replace(state="standing")


def _answer_lost(books: Evidence) -> None:
    books.answers["k2"] = "customer-single"


def _action_lost(books: Evidence) -> None:
    books.asked.add("a2")


def _never_done(books: Evidence) -> None:
    books.deeds["u1"] = books.deeds["u1"]._replace(due=True)


def _dead(books: Evidence) -> None:
    books.deeds["u1"] = books.deeds["u1"]._replace(state="dead")


def _never_told(books: Evidence) -> None:
    books.deeds["m2"] = books.deeds["m1"]._replace(id="m2")


def _told_again(books: Evidence) -> None:
    books.taken.append(("m1", 10))


def _told_by_nobody(books: Evidence) -> None:
    books.taken.append(("m9", 8))


def _never_commanded(books: Evidence) -> None:
    books.deeds["l2"] = books.deeds["l1"]._replace(id="l2")


def _commanded_by_nobody(books: Evidence) -> None:
    books.commands.append(("l9", b"l"))


def _two_commands(books: Evidence) -> None:
    books.commands.append(("l1", b"other"))


def _other_verdict(books: Evidence) -> None:
    books.backtest["C"] = b"review"


@pytest.mark.parametrize(
    ("harm", "fault", "order"),
    [
        (_no_verdict, "lost", "X"),
        (_no_raw, "lost", "C"),
        (_no_final, "lost", "C"),
        (_no_release, "lost", "A"),
        (_not_applied, "lost", "A"),
        (_applied_twice, "twice", "A"),
        (_unasked, "twice", "Y"),
        (_only_live, "twice", "A"),
        (_two_contents, "contradiction", "C"),
        (_two_contents_public, "contradiction", "A"),
        (_not_recalled, "contradiction", "B"),
        (_behind, "contradiction", "B"),
        (_other_verdict, "contradiction", "C"),
        (_decision_lost, "lost", "E"),
        (_decision_not_told, "lost", "E"),
        (_decided_twice, "twice", "E"),
        (_decided_by_nobody, "twice", "E"),
        (_taken_back, "lost", "E"),
        (_not_on_the_wall, "lost", "C"),
        (_on_the_wall_for_nothing, "contradiction", "A"),
        (_yes_for_nothing, "lost", "E"),
        (_undo_for_nothing, "lost", "E"),
        (_never_said, "lost", "E"),
        (_refused_and_said, "twice", "E"),
        (_said_by_nobody, "twice", "E"),
        (_back_never_said, "lost", "E"),
        (_two_outcomes, "contradiction", "E"),
        (_overtaken_unnoticed, "contradiction", "E"),
        (_answer_lost, "lost", "k2"),
        (_action_lost, "lost", "a2"),
        (_never_done, "lost", "A"),
        (_dead, "lost", "A"),
        (_never_told, "lost", "A"),
        (_told_again, "twice", "A"),
        (_told_by_nobody, "twice", "m9"),
        (_never_commanded, "lost", "A"),
        (_commanded_by_nobody, "twice", "l9"),
        (_two_commands, "contradiction", "A"),
    ],
)
def test_each_harm_is_named(harm: Callable[[Evidence], None], fault: str, order: str) -> None:
    """A lost, doubled or contradictory order is found, with its name and nobody else's."""
    books = copy.deepcopy(agreeing())
    harm(books)
    found = reconcile(books)

    assert {(d.fault, d.order) for d in found} >= {(fault, order)}
    assert {d.order for d in found} == {order}


def test_cards_that_count_otherwise_are_named() -> None:
    """Of no order: the wall as the API shows it has another number of waiting orders than its tables."""
    books = agreeing()
    books.cards["c-1"] = 5

    assert [d.sentence for d in reconcile(books)] == ["the wall's cards count 5 orders, and 2 wait"]


def test_a_number_behind_a_greater_one_is_named() -> None:
    """Not among the differences, since a displaced worker may leave one; a campaign without such a fault takes none."""
    books = agreeing()
    assert overtaken(books) == []
    books.verdicts.append(books.verdicts[1])

    assert [d.order for d in overtaken(books)] == ["B"]
    assert reconcile(books) == []


def test_books_with_nothing_in_them_agree_with_nothing() -> None:
    """A run that read the wrong topics is no proof."""
    assert {d.sentence for d in reconcile(Evidence())} >= {
        "nothing to compare: acknowledged is empty",
        "nothing to compare: erp is empty",
    }


def test_a_failed_campaign_s_rounds_do_not_count_and_are_shown(tmp_path) -> None:
    """The ledger is read back as it was written, over several runs; only what reconciled is a round."""
    ledger = Ledger(tmp_path / "x" / "ledger.jsonl")
    ledger.add(Campaign("t", "abc", 1, [Round("zombie", 10, 3.0, 9.0), Round("late", 5, 0.2, 4.0)], 15))
    ledger.add(Campaign("t", "abc", 2, [Round("zombie", 10, 9.0, 9.0, lost=1)], 10, "1 differences", "place"))
    ledger.add(Campaign("t", "abc", 3, [Round("zombie", 7, 4.5, 9.0)], 7))
    campaigns = ledger.read()

    assert counted(campaigns) == {"zombie": 2, "late": 1}
    (zombie,) = table(campaigns, ["zombie"])
    assert zombie[1:] == ("2", "17", "1", "0", "0", "4.5")


def test_a_plan_is_the_seed_s_and_takes_what_lacks_most() -> None:
    """The same seed plans the same; nothing beyond what is wanted; every kind comes."""
    kinds = list(KINDS)
    assert plan(5, 2, {}, kinds, 100) == plan(5, 2, {}, kinds, 100)
    whole = plan(5, 2, {}, kinds, 1e9)
    assert sorted(whole) == sorted(kinds * 2)
    done = dict.fromkeys(kinds, 2) | {"zombie": 0}
    assert plan(5, 2, done, kinds, 1e9) == ["zombie", "zombie"]


def test_every_channel_has_traffic() -> None:
    """A channel that is registered and that no simulated shop sends for would pass untested."""
    deliveries = Traffic("http://127.0.0.1:1", Market(SHOPS), 40, 1).peak(600).deliveries
    assert {d.channel for d in deliveries} == set(registry())
    assert {f"{d.channel}:{d.shop}" for d in deliveries} == set(SHOPS)
