"""What an order waits for depends on what was said of it, not on who was read first; a parcel's differences are the whole of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderstream.downstream.flow import (
    Ack,
    Acked,
    Flow,
    Judged,
    Left,
    Parcel,
    Said,
    Settled,
    Unit,
    checked,
    take,
    waits,
    wrong,
)
from orderstream.downstream.parcels import Difference, compare
from orderstream.rules.model import Limits

ORDER = "api:main:A1"
LIMITS = Limits({"erp": 600, "wms": 900}, 5000, 4000)


def limits(version: str) -> Limits:
    return LIMITS if version == "p@1" else Limits({}, None, None)


def flow(*items) -> Flow:
    made = Flow(ORDER)
    for item in items:
        take(made, item)
    return made


def said(seq: int, at: int, *units: dict[str, int], **fields) -> Said:
    return Said(seq, at, True, "p@1", "CNY", 100, tuple(Unit(unit) for unit in units), **fields)


def recalled(seq: int, at: int) -> Said:
    return Said(seq, at, False, "p@1")


def ack(system: str, seq: int, at: int, effect: str = "accepted", **fields) -> Acked:
    return Acked(system, Ack(seq, effect, at, at, **fields))


def parcel(shipment: str, at: int, skus: dict[str, int], seq: int = 1, **fields) -> Parcel:
    return Parcel(shipment, seq, at, skus, **fields)


def kinds(one: Flow) -> dict[str, int]:
    return {wait.kind: wait.due for wait in waits(one, limits)}


# parcels

SKUS = st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 3), max_size=4)


@given(SKUS, SKUS)
def test_differences_are_the_whole_difference(expected, sent):
    """What was expected, less what is missing, plus what is too much, is what was sent; a right parcel has none."""
    found = compare(expected, sent, complete=True)
    pieces = Counter(expected)
    for one in found:
        if one.kind in ("wrong-variant", "too-many", "not-ordered"):
            pieces[one.sku] += one.pieces
        if one.kind in ("missing-pieces", "missing-part"):
            pieces[one.sku] -= one.pieces
        if one.kind == "wrong-variant":
            pieces[one.instead_of] -= one.pieces
    assert {sku: count for sku, count in pieces.items() if count} == sent
    assert (found == ()) == (expected == sent)


@given(SKUS, SKUS)
def test_a_parcel_that_is_not_complete_lacks_nothing(expected, sent):
    """Only what should not be in it counts, and all of that."""
    found = compare(expected, sent, complete=False)
    assert {one.kind for one in found} <= {"too-many", "not-ordered"}
    assert sum(one.pieces for one in found) == sum((Counter(sent) - Counter(expected)).values())


@pytest.mark.parametrize(
    ("expected", "sent", "found"),
    [
        ({"RED": 1}, {"BLUE": 1}, [Difference("wrong-variant", "BLUE", 1, "RED")]),
        ({"RED": 2}, {"RED": 1}, [Difference("missing-pieces", "RED", 1)]),
        ({"SHELF": 1, "SCREWS": 1}, {"SHELF": 1}, [Difference("missing-part", "SCREWS", 1)]),
        ({"RED": 1}, {"RED": 2}, [Difference("too-many", "RED", 1)]),
        ({"RED": 1}, {"RED": 1, "CAP": 1}, [Difference("not-ordered", "CAP", 1)]),
    ],
)
def test_each_mistake_of_a_warehouse_has_its_name(expected, sent, found):
    """The wrong colour, one of two pieces, a part that is missing, one too many, somebody else's article."""
    assert list(compare(expected, sent, complete=True)) == found


# waits


def test_a_release_waits_for_both_systems_until_each_has_said_so():
    """Each has its own time; a refusal does not wait for it to be over."""
    order = flow(said(1, 1000, {"A": 1}))
    assert kinds(order) == {"unacknowledged-erp": 1600, "unacknowledged-wms": 1900}
    take(order, ack("erp", 1, 1100))
    take(order, ack("wms", 1, 1200, "refused", reason="no such SKU"))
    assert kinds(order) == {"refused-wms": 1200, "unpicked": 6100}


def test_a_recall_must_be_acknowledged_as_well():
    """That it was released and acknowledged says nothing of the recall; picking is waited for no more."""
    order = flow(said(1, 1000, {"A": 1}), ack("erp", 1, 1001), ack("wms", 1, 1001), recalled(2, 2000))
    assert kinds(order) == {"unacknowledged-erp": 2600, "unacknowledged-wms": 2900}
    take(order, ack("erp", 2, 2001, "intercept"))
    take(order, ack("wms", 2, 2001, "stopped"))
    assert kinds(order) == {"intercept": 2001}
    take(order, Left("returned", 9000))
    assert kinds(order) == {}


def test_picking_is_waited_for_from_the_first_acknowledgement_and_for_a_presale_from_its_day():
    """Units that are picked wait no more; what is not there yet cannot be picked."""
    units = (Unit({"A": 1}), Unit({"B": 1}, ships_at=50_000))
    order = flow(Said(1, 1000, True, "p@1", "CNY", 1, units), ack("erp", 1, 1500), ack("wms", 1, 1200))
    assert kinds(order) == {"unpicked": 6200}
    take(order, ack("wms", 1, 3000, "picked", units=(0,)))
    assert kinds(order) == {"unpicked": 55_000}
    take(order, ack("wms", 1, 3001, "picked", units=(1,)))
    assert kinds(order) == {}


def test_paid_and_kept_back_is_stuck_from_when_it_began():
    """Another verdict of the same kind does not begin it anew; a release ends it; what is not paid is not stuck."""
    held = Judged(1, "review", "paid", 1000, "p@1", 1000)
    order = flow(held, Judged(2, "frozen", "paid", 3000, "p@1", 3000))
    assert kinds(order) == {"stuck": 5000}
    take(order, Judged(3, "released", "paid", 4000, "p@1"))
    assert kinds(order) == {}
    assert kinds(flow(Judged(1, "review", "created", 1000, "p@1"))) == {}


def test_a_released_order_past_its_ship_by_is_stuck_until_it_leaves():
    """Whatever was acknowledged, the platform's day counts."""
    order = flow(said(1, 1000, {"A": 1}, ship_by=8000), ack("erp", 1, 1), ack("wms", 1, 1, "picked", whole=True))
    assert kinds(order) == {"stuck": 8000}
    take(order, parcel("P1", 2000, {"A": 1}))
    assert kinds(order) == {}


def test_a_pack_without_limits_waits_for_nothing():
    """An installation without acknowledgements has no wall of them."""
    assert waits(flow(Said(1, 1000, True, "other@1")), limits) == []


def test_what_a_person_has_settled_comes_back_with_another_verdict():
    """It is this verdict's trouble that was settled."""
    order = flow(said(1, 1000, {"A": 1}), ack("erp", 1, 1), ack("wms", 1, 5, "refused"), Settled("refused-wms", 1))
    assert "refused-wms" not in kinds(order)
    for item in (said(2, 2000, {"A": 2}), ack("erp", 2, 1), ack("wms", 2, 2001, "refused")):
        take(order, item)
    assert kinds(order)["refused-wms"] == 2001


# shipments


def test_a_wrong_parcel_is_one_finding_however_often_it_is_said():
    """Its id is the finding's own; a correction of the same shipment takes it away."""
    order = flow(said(1, 1000, {"RED": 2}), parcel("P1", 2000, {"RED": 1}))
    bad = wrong(order)
    assert bad is not None
    assert bad.differences == (Difference("missing-pieces", "RED", 1),)
    assert kinds(order) == {"wrong-shipment": 2000}
    take(order, parcel("P1", 2000, {"RED": 1}))
    assert wrong(order) == bad
    take(order, parcel("P1", 3000, {"RED": 2}))
    assert wrong(order) is None


def test_two_parcels_of_one_order_are_right_together():
    """While more is to come nothing is missing; a piece too much is wrong at once."""
    order = flow(said(1, 1000, {"A": 1, "B": 1}), parcel("P1", 2000, {"A": 1}, complete=False))
    assert wrong(order) is None
    take(order, parcel("P2", 3000, {"B": 1}))
    assert wrong(order) is None
    take(order, parcel("P3", 4000, {"B": 1}, complete=False))
    bad = wrong(order)
    assert bad is not None
    assert bad.differences == (Difference("too-many", "B", 1),)


def test_a_parcel_is_compared_with_the_release_in_force_when_it_left():
    """An edit that came afterwards makes no mistake of it; a recall that came before does."""
    order = flow(said(1, 1000, {"A": 1}), parcel("P1", 2000, {"A": 1}), said(2, 3000, {"A": 2}))
    assert wrong(order) is None
    assert wrong(flow(said(1, 1000, {"A": 1}), said(2, 1500, {"A": 2}), parcel("P1", 2000, {"A": 1}))) is not None
    after = wrong(flow(said(1, 1000, {"A": 1}), recalled(2, 1500), parcel("P1", 2000, {"A": 1})))
    assert after is not None
    assert after.differences == (Difference("not-released"),)
    assert wrong(flow(said(1, 1000, {"A": 1}), recalled(2, 2500), parcel("P1", 2000, {"A": 1}))) is None


def test_a_parcel_read_before_its_release_is_judged_when_that_comes():
    """Two topics have no order between them."""
    order = flow(parcel("P1", 2000, {"A": 1}, seq=2), said(1, 1000, {"B": 1}))
    assert wrong(order) is None
    take(order, said(2, 1900, {"A": 1}))
    assert wrong(order) is None


def test_before_it_leaves_a_parcel_is_judged_by_what_holds_now():
    """Go only for the release in force, and with what has left already."""
    order = flow(said(1, 1000, {"A": 1}, {"B": 1}), parcel("P1", 2000, {"A": 1}, unit=0))
    assert checked(order, parcel("P2", 3000, {"B": 1}, unit=1)) == ()
    assert checked(order, parcel("P2", 3000, {"A": 1}, unit=1)) == (Difference("wrong-variant", "A", 1, "B"),)
    assert checked(order, parcel("P2", 3000, {"A": 1}, unit=0)) == (Difference("too-many", "A", 1),)
    assert checked(order, parcel("P1", 3000, {"A": 1}, unit=0)) == ()
    take(order, recalled(2, 2500))
    assert checked(order, parcel("P2", 3000, {"B": 1}, unit=1)) == (Difference("not-released"),)
    assert checked(Flow(ORDER), parcel("P2", 3000, {})) == (Difference("not-released"),)


# promise 4

TOPICS = [
    [Judged(1, "review", "paid", 900, "p@1", 900), Judged(2, "released", "paid", 1000, "p@1")],
    [said(2, 1000, {"A": 1}, {"B": 2}), said(4, 1900, {"A": 1}, {"B": 1})],
    [recalled(3, 1500), recalled(5, 9000)],
    [ack("erp", 2, 1100), ack("erp", 3, 1600, "stopped"), ack("erp", 4, 2000), ack("erp", 5, 9100, "intercept")],
    [ack("wms", 2, 1100), ack("wms", 4, 2000), ack("wms", 4, 2100, "picked", units=(0,)), ack("wms", 4, 2200, "picked", units=(1,))],
    [parcel("P1", 2300, {"A": 1}, seq=4, unit=0), parcel("P2", 2400, {"B": 2}, seq=4, unit=1)],
    [Left("shipped", 2500)],
]  # fmt: skip


@given(st.data())
def test_the_order_of_reading_changes_nothing(data):
    """However the topics interleave and their records repeat, the same is waited for and the same is wrong."""
    left = [[*records] for records in TOPICS]
    taken: list = []
    while any(left):
        topic = data.draw(st.sampled_from([one for one in left if one]))
        taken.append(topic.pop(0))
        if data.draw(st.booleans()):
            taken.append(data.draw(st.sampled_from(taken)))
    whole = flow(*(item for records in TOPICS for item in records))
    assert flow(*taken) == whole
    assert kinds(whole) == {"unacknowledged-wms": 9900, "intercept": 9100, "wrong-shipment": 2400}
