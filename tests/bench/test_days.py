"""The days that long runs send: new orders, returning buyers, records as intake writes them."""

from __future__ import annotations

import orjson

from bench import days
from bench.reference.job import Reference
from orderstream import wire
from orderstream.channels import channel
from orderstream.identity import Keys
from orderstream.orders import CHANNELS, Order, Raw
from orderstream.replay import updates
from orderstream.times import DAY

ORDERS = 400


def bodies(number: int) -> list[dict]:
    """The mini-program's payloads of a day that are whole."""
    records, _ = days.day(number, ORDERS)
    return [orjson.loads(r.value) for r in records if r.topic == "orders.raw.api" and r.decided]


def people(number: int) -> dict[str, tuple]:
    """Buyer to where they live and what they pay with, of a day's ordinary buyers."""
    return {b["buyer"]["id"]: (b["ship_to"]["detail"], b["payment"]["id"], b["buyer"]["device"]) for b in bodies(number)}


def test_no_order_comes_twice():
    """Every day's orders are new, also where its buyers are those of an earlier day."""
    seen: set[str] = set()
    for number in (0, 1, days.COHORTS, days.COHORTS + 1):
        orders = {record.order for record in days.day(number, ORDERS)[0]}
        assert len(orders) >= ORDERS
        assert not orders & seen
        seen |= orders


def test_buyers_come_back_with_all_that_is_theirs():
    """The same people order again when their turn comes, from the same places; the days between are other people's."""
    assert people(1) == people(1 + days.COHORTS)
    assert not people(1).keys() & people(2).keys()


def test_a_day_is_a_day_long_and_in_order():
    """received_at lies within the day (a payment may follow seconds after midnight) and never goes back."""
    times = [record.at for record in days.day(3, ORDERS)[0]]
    assert times == sorted(times)
    assert times[0] >= days.START + 3 * DAY
    assert times[-1] < days.START + 4 * DAY + 60_000


def test_records_are_what_intake_writes():
    """Normalise finds the channel, the time and the order, under the key that intake would give it; rejects are marked as such."""
    records, _ = days.day(0, ORDERS)
    for record in records:
        raw = wire.read_raw(record.topic, record.headers, record.value, 0)
        assert raw.received_at == record.at
        parsed = channel(raw.channel).parse(raw)
        assert isinstance(parsed, Order) == record.decided
        if isinstance(parsed, Order):
            assert parsed.order_id == record.order == record.key.decode()
    assert {record.decided for record in records} == {True, False}
    assert {record.topic for record in records} == {f"orders.raw.{name}" for name in CHANNELS}


def test_reference_records_are_read_and_trusts_end():
    """Stock, rates and floors are told anew each day, and a trust ends, so that what is kept of them does not grow."""
    _, told = days.day(4, ORDERS)
    found = [update for _, _, value in told for update in updates(orjson.loads(value), Keys(b"test"), "CNY")]
    assert {type(update).__name__ for update in found} == {"Stock", "Rate", "Floor", "Trust"}
    assert all(update.until <= days.START + 6 * DAY for update in found if type(update).__name__ == "Trust")


def test_an_order_in_the_reference_job_s_words_is_the_same_order():
    """The reference job reads what is made for it, with the same lines and total."""
    shop = days.stretch(0, ORDERS, start=days.START, span=DAY, cohort=0)
    made = 0
    for delivery in shop.deliveries:
        told = days.of_reference_job(delivery)
        if told is None:
            continue
        made += 1
        theirs = Reference().parse(Raw("ref", "ref", 0, told[1]))
        ours = channel("api").parse(Raw("api", delivery.shop, 0, delivery.body))
        assert isinstance(theirs, Order)
        assert isinstance(ours, Order)
        assert (theirs.number, theirs.created_at) == (ours.number, ours.created_at)
        assert [(n.code, n.quantity, n.price) for n in theirs.lines] == [(n.code, n.quantity, n.price) for n in ours.lines]
    assert made > ORDERS / 2
