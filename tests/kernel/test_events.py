"""What happens beside an order's revisions: money that comes and goes, other orders in its place; in whatever order it is told."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import msgspec
import pytest
from histories import GOODS, HOME, KEYS, STANDARD, Record, T, line, raw, run

from orderstream import replay, times
from orderstream.channels.jd import PARENT
from orderstream.channels.wechatpay import SIGNATURE
from orderstream.facts import Dossier
from orderstream.normalise import PAYMENT_DIFFERS, Books, Normaliser, OrderState
from orderstream.orders import Paid, Raw
from orderstream.rules.book import PackBook
from orderstream.simulators import wechatpay
from orderstream.times import HOUR, MINUTE, SECOND, text

BOOK = PackBook([STANDARD])
GOODS_LINE = [{"code": "c1", "quantity": 2, "price": "100.00"}]


def order(status: str = "created", revision: int = 1, received: int = T, **given: Any) -> Record:
    plain = {"currency": "CNY", "remark": "快", "lines": GOODS_LINE, "ship_to": HOME}
    return raw("A1", T, received, {**plain, **given}, revision=revision, status=status)


def told(resource: dict[str, Any], received: int) -> Record:
    """What intake keeps of a notification."""
    one = {"kind": "raw", "channel": "api", "shop": "main", "received_at": text(received), "body": resource}
    return {**one, "headers": {SIGNATURE: "proved"}}


def paid(fen: int = 20_000, payment: str = "", received: int = T + MINUTE) -> Record:
    resource = wechatpay.transaction("1900000001", "A1", fen, text(T + 30 * SECOND))
    return told({**resource, **({"transaction_id": payment} if payment else {})}, received)


def back(fen: int, refund: str = "r1", received: int = T + 3 * MINUTE) -> Record:
    return told(wechatpay.refund("1900000001", "A1", refund, fen, 20_000, text(T + 2 * MINUTE)), received)


def verdicts(records: list[Record]) -> list[Any]:
    return [json.loads(one) for one in run(records, lambda: line(BOOK, KEYS), KEYS)]


def verdict(*records: Record) -> Any:
    (one,) = verdicts([*records])
    return one


def dossier(*records: Record) -> Dossier:
    """What normalise says last of the order."""
    hop, said = Normaliser(Books(GOODS, BOOK.at), KEYS), None
    for at, record in enumerate(records):
        one = replay.read_item(record, KEYS, "CNY")
        assert isinstance(one, Raw)
        said = hop.process(one, at, T).dossier or said
    assert said is not None
    return said


def test_an_order_that_waits_is_paid() -> None:
    """Before its payment it is pending; with it it goes out; the payment alone is no order."""
    assert verdict(order())["verdict"] == "pending"
    assert verdict(order(), paid())["verdict"] == "released"
    assert (dossier(order(), paid()).status, dossier(order(), paid()).tags) == ("paid", ())
    assert verdicts([paid()]) == []


@pytest.mark.parametrize(
    "records",
    [
        [order(), paid(), paid(received=T + HOUR), order("paid", 2, T + 2 * MINUTE)],
        [order(), paid(), back(5_000), back(5_000, "r2"), back(0, "r3")],
        [order(), paid(1), paid(2, "another"), order("cancelled", 2, T + 2 * MINUTE)],
        [order(), paid(), back(0), back(20_000)],
    ],
)
def test_in_any_order_it_ends_the_same(records: list[Record]) -> None:
    """Before its order or after it, once or again, a refund that is told as nothing first: one end, byte for byte."""
    ends = {tuple(run([*one], lambda: line(BOOK, KEYS), KEYS)) for one in permutations(records)}

    assert len(ends) == 1


def test_another_sum_than_it_costs_stops_it() -> None:
    """Less, more, twice, or in other money: paid, kept as stated, said so, and held until somebody has looked."""
    euro = paid()
    euro["body"]["amount"]["currency"] = "EUR"
    for wrong in ([paid(1)], [paid(20_001)], [paid(), paid(payment="once more")], [euro]):
        assert verdict(order(), *wrong)["verdict"] == "frozen"
        one = dossier(order(), *wrong)
        assert (one.status, one.total, one.tags) == ("paid", 20_000, ("payment-differs",))
        assert [*one.findings] == ["platform-hold"]
        assert one.findings["platform-hold"].evidence["detail"] == PAYMENT_DIFFERS
    assert dossier(order(hold="风控"), paid(1)).findings["platform-hold"].evidence["detail"] == "风控"


def test_what_the_site_says_itself_stays_said() -> None:
    """An order that the site calls paid or cancelled is not held for the sum: it is tagged; a total lowered by a refund is no other sum."""
    assert verdict(order("paid"), paid(1))["verdict"] == "released"
    assert dossier(order("paid"), paid(1)).tags == ("payment-differs",)
    assert verdict(order("cancelled"), paid())["verdict"] == "withdrawn"
    less = order("paid", total="150.00", discounts=[{"kind": "coupon", "amount": "50.00"}])
    assert dossier(less, paid(), back(5_000)).tags == ()


def test_a_refund_is_taken_from_what_was_paid() -> None:
    """A part asks for a person, all of it withdraws; one told as 0 while it is under way counts when it is told again."""
    assert {s["rule"] for s in verdict(order(), paid(), back(5_000))["signals"]} == {"refund-open"}
    assert verdict(order(), paid(), back(20_000))["verdict"] == "withdrawn"
    assert verdict(order(), paid(), back(0))["verdict"] == "released"
    assert verdict(order(), paid(), back(0), back(20_000))["verdict"] == "withdrawn"


def jd_row(number: str, received: int, status: str = "WAIT_SELLER_STOCK_OUT", parent: str = "0", *, told_for: str = "") -> Record:
    items = [{"skuId": "1", "outerSkuId": "c1", "skuName": "收纳架", "itemTotal": "1", "jdPrice": "100.00"}]
    row = {"orderId": number, "parentOrderId": parent, "orderState": status, "orderStartTime": "2026-11-11 23:59:50",
           "modified": times.beijing(received - SECOND), "orderPayment": "100.00", "orderSellerPrice": "100.00",
           "orderTotalPrice": "100.00", "open_id_buyer": f"u{number}", "itemInfoList": items}  # fmt: skip
    one = {"kind": "raw", "channel": "jd", "shop": "main", "received_at": text(received), "body": row}
    return {**one, "headers": {PARENT: told_for}} if told_for else one


def test_a_split_order_is_not_shipped_beside_its_parts() -> None:
    """The parent is withdrawn, whatever is told of it and whenever; its children go their own way."""
    told = [
        jd_row("900", T),
        jd_row("901", T + MINUTE, parent="900"),
        jd_row("901", T + MINUTE, parent="900", told_for="900"),
        jd_row("902", T + MINUTE, parent="900", told_for="900"),
        jd_row("900", T + 2 * MINUTE, "LOCKED"),
    ]
    ends = {tuple(run([*one], lambda: line(BOOK, KEYS), KEYS)) for one in permutations(told)}
    assert len(ends) == 1
    said = {one["order_id"]: one["verdict"] for one in verdicts(told)}
    assert said.keys() == {"jd:main:900", "jd:main:901"}
    assert said["jd:main:900"] == "withdrawn"
    assert said["jd:main:901"] != "withdrawn"
    assert dossier(*told[2:]).tags == ("replaced",)
    assert verdicts(told[2:4]) == []


def test_it_survives_a_restart_and_is_said_again() -> None:
    """The payment is in the state, also in one that was written before there were any; the last record read again says all again."""
    raws = [one for one in (replay.read_item(record, KEYS, "CNY") for record in (paid(), order())) if isinstance(one, Raw)]
    first = Normaliser(Books(GOODS, BOOK.at), KEYS)
    for at, one in enumerate(raws):
        done = first.process(one, at, T)
    assert done.state is not None
    assert done.dossier is not None
    assert [*done.state.payments.values()] == [Paid("api:main:A1", "4200000000A1", 20_000, "CNY", T + 30 * SECOND)]
    second = Normaliser(Books(GOODS, BOOK.at), KEYS)
    second.restore("api:main:A1", msgspec.msgpack.encode(done.state), T)
    again = second.process(raws[1], 1, T)
    assert again.dossier is not None
    assert (again.dossier.version, again.dossier.said()) == (done.dossier.version, done.dossier.said())
    fields: list[msgspec.Raw] = msgspec.msgpack.decode(msgspec.msgpack.encode(done.state), type=list[msgspec.Raw])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:-2]), type=OrderState).payments == {}
