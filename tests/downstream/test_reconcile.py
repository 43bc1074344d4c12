"""A day counted twice comes to the same, to the last coin; whatever is changed on one side is named, and nothing else."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import msgspec
import pytest

from orderstream import simulators, times
from orderstream.board.store import connect
from orderstream.catalogue import Catalogue
from orderstream.consumers.erp import Erp
from orderstream.downstream import flow as flows
from orderstream.downstream import reconcile as books
from orderstream.downstream import store
from orderstream.downstream.flow import Ack, Acked, Flow, Judged, Said
from orderstream.downstream.read import told
from orderstream.downstream.reconcile import ChannelSide, Difference, Place, Sum, as_csv, bounds, compare
from orderstream.identity import Keys
from orderstream.normalise import Books, Normaliser
from orderstream.orders import Raw, Refund
from orderstream.pipeline import Pipeline
from orderstream.replay import body_bytes, read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load_all
from orderstream.settings import data_file
from orderstream.simulators.scenario import replay

DAY = date(2026, 11, 11)
ZONE = "Asia/Shanghai"
SINCE, UNTIL = bounds(DAY, ZONE)
KEYS = Keys(b"k")


class Peak:
    """A simulated peak through the whole line in process, with a real example ERP behind it."""

    def __init__(self, folder) -> None:
        scenario = simulators.make(400, rate=50, start=times.parse("2026-11-11T20:00:00+08:00"))
        file = folder / "catalogue.jsonl"
        simulators.write_catalogue(file, scenario)
        self.packs = PackBook(load_all([data_file("rules/standard")]))
        self.catalogue = Catalogue.load(file)
        line = Pipeline(self.catalogue, self.packs, KEYS, ZONE)
        erp = Erp(folder / "erp.sqlite")
        self.raws: list[Raw] = []
        self.flows: dict[str, Flow] = {}
        position = {"orders.released": 0, "orders.recalled": 0}
        for record in replay(scenario):
            item = read_item(record, KEYS, "CNY")
            if isinstance(item, Raw):
                self.raws.append(item)
            for public in line.feed(item):
                value = msgspec.json.encode(public.value)
                if public.topic in (*position, "orders.verdicts"):
                    self.take(public.topic, value)
                if public.topic in position:
                    erp.take(public.topic, 0, [(position[public.topic], value)])
                    position[public.topic] += 1
        while waiting := erp.outgoing():
            for one in waiting:
                self.take(one.topic, one.value.encode())
            erp.gone(waiting)
        erp.close()

    def take(self, topic: str, value: bytes) -> None:
        said = told(topic, value, 1)
        assert said is not None
        flows.take(self.flows.setdefault(said.order_id, Flow(said.order_id)), said.item)

    def side(self, raws: list[Raw] | None = None) -> ChannelSide:
        side = ChannelSide()
        for raw in self.raws if raws is None else raws:
            side.take(raw)
        return side


@pytest.fixture(scope="module")
def peak(tmp_path_factory) -> Peak:
    return Peak(tmp_path_factory.mktemp("peak"))


def test_a_whole_peak_agrees_to_the_last_coin(peak):
    """Channel, line and ERP have the same orders and the same money; and every order is in one figure."""
    found = compare(peak.side(), peak.flows, SINCE, UNTIL)
    assert [one for several in found.differences.values() for one in several] == []
    orders = peak.side().orders()
    assert sum(sums.came.count for sums in found.figures.values()) == len(orders) > 390
    for place, sums in found.figures.items():
        of_shop = [o for o in orders.values() if (o.channel, o.shop, o.currency) == place]
        assert (sums.came.count, sums.came.amount) == (len(of_shop), sum(o.total for o in of_shop))
        parts = [sums.unpaid, sums.withdrawn, sums.held, sums.released, sums.unjudged]
        assert sum(part.count for part in parts) == sums.came.count
        assert sum(part.amount for part in parts) == sums.came.amount
        assert sums.applied == sums.released
    assert {len(one.said) > 1 for one in peak.flows.values()} == {True, False}  # recalls were among them


def test_the_channel_s_side_is_the_order_in_force_as_live(peak):
    """The same revision of each order as the line's own normaliser has, whatever comes in which order and how often."""
    line = Normaliser(Books(peak.catalogue, peak.packs.at), KEYS)
    for position, raw in enumerate(peak.raws):
        line.process(raw, position, 0)
    orders = peak.side([*reversed(peak.raws), *peak.raws[::3]]).orders()
    for order_id, order in orders.items():
        state = line.orders.get(order_id)
        assert state is not None
        assert state.current is not None
        assert (order.total, order.revision, order.lines) == (
            state.current.order.total, state.current.order.revision, state.current.order.lines,
        )  # fmt: skip


def test_one_fen_and_one_order_are_found_and_nothing_else(peak):
    """An acknowledgement that is missing, one fen booked too little, an order that no channel told of: three differences."""
    flowing = {name: msgspec.json.decode(msgspec.json.encode(one), type=Flow) for name, one in peak.flows.items()}
    good = sorted(n for n, f in flowing.items() if f.said and f.said[0].released and f.acks["erp"].seq == f.said[0].seq)
    silent, short, ghost = good[0], good[1], "api:main:GHOST"
    del flowing[silent].acks["erp"]
    ack = flowing[short].acks["erp"]
    assert ack.total is not None
    flowing[short].acks["erp"] = msgspec.structs.replace(ack, total=ack.total - 1)
    flowing[ghost] = Flow(
        ghost, Judged(1, "released", "paid", 1, created_at=SINCE), [Said(1, 1, True, currency="CNY", total=500)]
    )
    found = compare(peak.side(), flowing, SINCE, UNTIL)
    assert {d.order_id: (d.kind, d.expected, d.found) for several in found.differences.values() for d in several} == {
        silent: ("not-acknowledged", flowing[silent].said[0].total, None),
        short: ("booked-differs", ack.total, ack.total - 1),
        ghost: ("unknown-to-channel", None, 500),
    }
    text = as_csv(DAY, found)
    assert text.startswith("\ufeffday,channel,shop,order_id,kind,")
    lines = {row["order_id"]: row for row in csv.DictReader(io.StringIO(text[1:]))}
    assert (lines[short]["difference"], lines[short]["currency"]) == ("-0.01", "CNY")
    released = sum(sums.released.amount for sums in found.figures.values())
    applied = sum(sums.applied.amount for sums in found.figures.values())
    assert released - applied == flowing[silent].said[0].total + 1


def api(number: str, at: str, price: str, **fields) -> Raw:
    body = {
        "order_id": number, "created_at": at, "currency": "CNY",
        "lines": [{"code": "c1", "quantity": 1, "price": price}], **fields,
    }  # fmt: skip
    received = times.parse(fields.get("updated_at", at)) + 1000
    return Raw("api", "main", received, body_bytes(body))


def one(*raws: Raw, **flowing: Flow) -> tuple[books.Figures, list[Difference]]:
    side = ChannelSide()
    for raw in raws:
        side.take(raw)
    found = compare(side, {f"api:main:{name}": flow for name, flow in flowing.items()}, SINCE, UNTIL)
    place = Place("api", "main", "CNY")
    return found.figures.get(place, books.Figures()), found.differences.get(place, [])


def booked(seq: int, effect: str = "accepted", total: int | None = 100, refunded: int | None = None) -> Acked:
    return Acked("erp", Ack(seq, effect, 1, 1, "CNY" if total is not None else None, total, refunded=refunded))


def flow(number: str, *items) -> Flow:
    made = Flow(f"api:main:{number}")
    for item in items:
        flows.take(made, item)
    return made


NOON = "2026-11-11T12:00:00+08:00"
OUT = Said(1, 1, True, "p@1", "CNY", 100)


@pytest.mark.parametrize(
    ("status", "items", "found"),
    [
        ("paid", [OUT, booked(1)], []),
        ("paid", [OUT, booked(1, "changed")], []),
        ("paid", [OUT], [("not-acknowledged", 100, None)]),
        ("paid", [OUT, booked(1, "refused", None)], [("refused", 100, None)]),
        ("paid", [OUT, booked(1, total=None)], [("booked-unsaid", 100, None)]),
        ("paid", [OUT, booked(1, "stopped", None)], [("booked-differs", 100, 0)]),
        ("paid", [Said(1, 1, True, "p@1", "CNY", 101), booked(1, total=101)], [("total-differs", 100, 101)]),
        ("paid", [Judged(2, "review", "paid", 1), OUT, booked(1), Said(2, 2, False)], [("not-stopped", 0, 100)]),
        ("paid", [Judged(2, "review", "paid", 1), OUT, booked(1), Said(2, 2, False), booked(2, "stopped", None)], []),
        ("paid", [Judged(1, "review", "paid", 1)], []),
        ("cancelled", [OUT, booked(1)], [("not-withdrawn", 0, 100)]),
        ("created", [Judged(1, "pending", "created", 1)], []),
        ("paid", [], [("unjudged", 100, None)]),
    ],
)  # fmt: skip
def test_each_disagreement_has_its_name(status, items, found):
    """What the sides say of one order, and what is made of it."""
    flowing = {"A1": flow("A1", *items)} if items else {}
    _, differences = one(api("A1", NOON, "1.00", status=status), **flowing)
    assert [(d.kind, d.expected, d.found) for d in differences] == found


def test_of_two_records_of_one_revision_the_first_received_counts():
    """As live, whichever is read first; a later revision replaces both."""
    first = api("A1", NOON, "1.00", revision=1)
    again = Raw("api", "main", first.received_at + 5, api("A1", NOON, "9.00", revision=1).body)
    for raws in ((first, again), (again, first)):
        assert one(*raws)[0].came == Sum(1, 100)
    assert one(again, api("A1", NOON, "2.00", revision=2), first)[0].came == Sum(1, 200)


def test_a_day_ends_at_the_shop_s_midnight():
    """The last millisecond of the day is in it, the first of the next is not."""
    raws = [api("A1", "2026-11-11T00:00:00.000+08:00", "1.00"), api("A2", "2026-11-11T23:59:59.999+08:00", "1.00")]
    sums, _ = one(*raws, api("A0", "2026-11-10T23:59:59.999+08:00", "1.00"), api("A3", "2026-11-12T00:00:00.000+08:00", "1.00"))
    assert sums.came == Sum(2, 200)


def test_refunds_count_on_the_day_they_were_paid_back_and_once(tmp_path):
    """A part leaves the order where it is; all of it withdraws the order; the same refund told twice is one."""
    shopify = json.loads((data_file("tests/channels/fixtures") / "shopify-order.json").read_text())
    refund = json.loads((data_file("tests/channels/fixtures") / "shopify-refund.json").read_text())
    order_raw = Raw("shopify", "main", 1, json.dumps(shopify).encode(), {"x-shopify-topic": "orders/create"})
    refund_raw = Raw("shopify", "main", 2, json.dumps(refund).encode(), {"x-shopify-topic": "refunds/create"})
    side = ChannelSide()
    for raw in (refund_raw, order_raw, refund_raw):
        side.take(raw)
    [order], [back] = side.orders().values(), side.refunds.values()
    assert order.order_id == back.order_id
    found = compare(side, {}, back.at, back.at + 1)
    assert found.figures[Place("shopify", "main", back.currency)].refunds == Sum(1, back.amount)
    assert not any(sums.refunds.count for sums in compare(side, {}, back.at + 1, back.at + 2).figures.values())
    assert order.status == ("refunded" if back.amount >= order.total else "paid")


def back(number: str, refund: str, amount: int, at: int = SINCE + 1, currency: str = "CNY") -> Refund:
    return Refund(f"api:main:{number}", refund, amount, currency, at)


@pytest.mark.parametrize(
    ("items", "refunds", "earlier", "found"),
    [
        ([OUT, booked(1, refunded=30)], [back("A1", "R1", 30)], [], []),
        ([OUT, booked(1)], [back("A1", "R1", 30)], [], [("refund-unsaid", 30, None)]),
        ([OUT, booked(1, refunded=29)], [back("A1", "R1", 30)], [], [("refund-differs", 30, 29)]),
        ([OUT, booked(1, refunded=5)], [], [], [("refund-differs", 0, 5)]),
        ([OUT, booked(1)], [], [], []),
        # the ERP's later word for the same release, and what an earlier day was told
        ([OUT, booked(1, refunded=10), booked(1, refunded=40), booked(1)], [back("A1", "R2", 30)], [back("A1", "R1", 10)], []),
        # the same refund, under way and paid; of another currency
        ([OUT, booked(1, refunded=30)], [back("A1", "R1", 30), back("A1", "R3", 9, currency="USD")], [back("A1", "R1", 0)], []),
        # all of it: that it is still released is what is said
        ([OUT, booked(1)], [back("A1", "R1", 100)], [], [("not-withdrawn", 0, 100)]),
        # what nobody has booked is not compared twice
        ([OUT], [back("A1", "R1", 30)], [], [("not-acknowledged", 100, None)]),
    ],
)
def test_what_went_back_in_part_is_compared(items, refunds, earlier, found):
    """To the last coin, over all refunds of an order; what the ERP does not say is a difference too."""
    side = ChannelSide()
    side.take(api("A1", NOON, "1.00", status="paid"))
    side.refunds = {(one.order_id, one.refund_id): one for one in refunds}
    told = compare(side, {"api:main:A1": flow("A1", *items)}, SINCE, UNTIL, earlier)
    assert [(d.kind, d.expected, d.found) for several in told.differences.values() for d in several] == found


def test_refunds_are_kept_for_later_days_and_go_with_their_orders(database):
    """Of two of one refund the greater sum counts, whichever was told first; another order's are not asked for."""
    with connect(database) as db:
        store.keep_refunds(db, [back("A1", "R1", 0), back("A1", "R2", 5), back("A9", "R1", 7)])
        store.keep_refunds(db, [back("A1", "R1", 30), back("A1", "R2", 4)])
        kept = sorted(store.refunds(db, ["api:main:A1"]), key=lambda one: one.refund_id)

        assert kept == [back("A1", "R1", 30), back("A1", "R2", 5)]


def test_a_refund_of_an_older_order_is_compared_on_its_own_day():
    """Of an order that no record of the day tells of but its refund: by what was released and booked; and not on the day after."""
    side = ChannelSide()
    side.refunds = {("api:main:A9", "R1"): back("A9", "R1", 30)}
    flowing = {"api:main:A9": flow("A9", OUT, booked(1, refunded=20))}
    (difference,) = compare(side, flowing, SINCE, UNTIL).differences[Place("api", "main", "CNY")]
    assert (difference.kind, difference.expected, difference.found) == ("refund-differs", 30, 20)
    assert compare(side, flowing, UNTIL, UNTIL + 1).differences == {}
    side.refunds = {("api:main:A9", "R1"): back("A9", "R1", 100)}
    (difference,) = compare(side, flowing, SINCE, UNTIL).differences[Place("api", "main", "CNY")]
    assert (difference.kind, difference.found) == ("not-withdrawn", 100)


def test_a_spreadsheet_is_given_text_and_no_formula():
    """A shop or reason that begins like one."""
    assert books._plain("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert books._plain("-0.01") == "-0.01"
