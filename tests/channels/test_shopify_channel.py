"""The Shopify channel: exact where we use a field, tolerant where we do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from api_cases import change
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Proved, Push, Refused
from orderstream.channels.shopify import CHANNEL, sign
from orderstream.orders import Conversion, Discount, Order, Raw, Refund, Rejected, Skip
from tests.fuzz import law

FIXTURES = Path(__file__).parent / "fixtures"
# other people's published payloads, kept beside the checkout and not in it
SAMPLES = Path(os.environ.get("ORDERSTREAM_SAMPLES") or Path(__file__).parents[3] / "shared" / "channels" / "samples")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the collected samples are not here")


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"shopify-{name}.json").read_text("utf-8"))
    return found


ORDER, REFUND = fixture("order"), fixture("refund")


def parse(body: Any, topic: str | None = None) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CHANNEL.parse(Raw("shopify", "main", 1_794_400_000_000, text, {} if topic is None else {"x-shopify-topic": topic}))


def order(body: Any, topic: str | None = "orders/create") -> Order:
    found = parse(body, topic)
    assert isinstance(found, Order), found
    return found


def test_a_whole_order() -> None:
    """Every field that we use, from a body that has a hundred more."""
    found = order((FIXTURES / "shopify-order.json").read_bytes())
    assert (found.order_id, found.revision, found.status) == ("shopify:main:5550001112223", None, "paid")
    # Shopify counts in seconds; 1: paid, which is later than made
    assert (found.created_at, found.updated_at) == (1_794_407_415_000, 1_794_407_416_001)
    assert (found.currency, found.total, found.tags) == ("CNY", 56_820, ())
    rack, hook = found.lines
    assert (rack.id, rack.code, rack.quantity, rack.price, rack.discount) == ("9990001", "tb-981", 2, 19_900, 3_980)
    assert rack.spec == {"option1": "Oak", "option2": "Large"}
    assert (hook.code, hook.discount, hook.spec, hook.gift) == ("variant:3330002", 2_000, {}, None)
    assert found.discounts == (Discount("coupon", 4_980), Discount("automatic", 1_000))
    assert found.conversion == Conversion("CNY", 56_820, "USD", 7_995)
    assert (found.buyer.id, found.buyer.ip, found.buyer.email, found.buyer.phone) == (
        "6660001112223", "198.51.100.23", "kim.tester@example.com", None,
    )  # fmt: skip
    assert found.ship_to is not None
    assert (found.ship_to.country, found.ship_to.detail, found.ship_to.lat) == ("US", "12 Sample Street Floor 3", 39.7990175)
    assert (found.payment.id, found.payment.method, found.remark) == (None, "shopify_payments", "Leave at the door")


def test_the_rest_form_is_unwrapped() -> None:
    """{"order": …} is the same order."""
    found = order(fixture("order-wrapped"), None)
    assert (found.order_id, found.status, len(found.lines)) == ("shopify:main:5550001112223", "paid", 2)
    assert CHANNEL.key("main", json.dumps(fixture("order-wrapped")).encode(), {}) == found.order_id
    assert parse({"refund": REFUND}) == parse(REFUND)


@pytest.mark.parametrize(
    ("financial", "cancelled_at", "status"),
    [
        ("paid", None, "paid"),
        ("authorized", None, "paid"),
        ("pending", None, "created"),
        ("partially_paid", None, "created"),
        ("expired", None, "created"),
        (None, None, "created"),
        ("partially_refunded", None, "refunding"),
        ("refunded", None, "refunded"),
        ("voided", None, "cancelled"),
        ("paid", "2026-11-11T10:00:00-05:00", "cancelled"),
        ("refunded", "2026-11-11T10:00:00-05:00", "cancelled"),
    ],
)
def test_status(financial: str | None, cancelled_at: str | None, status: str) -> None:
    """What the money says, unless the order is cancelled."""
    found = order({**ORDER, "financial_status": financial, "cancelled_at": cancelled_at})
    assert (found.status, found.tags) == (status, ())


@pytest.mark.parametrize("new", ["on_chain", 5])
def test_an_unknown_status_waits_and_says_so(new: Any) -> None:
    """A status that the platform invents tomorrow is not paid."""
    found = order({**ORDER, "financial_status": new})
    assert (found.status, found.tags) == ("created", ("status-unknown",))


def test_removed_lines_are_gone() -> None:
    """current_quantity is what is left to ship; the discount of the pieces that are left goes with them."""
    found = order(change(change(ORDER, "line_items.0.current_quantity", 1), "line_items.1.current_quantity", 0))
    assert [(line.code, line.quantity, line.discount) for line in found.lines] == [("tb-981", 1, 1_990)]
    assert (found.status, found.tags) == ("paid", ("lines-removed",))


def test_an_order_without_lines_left_is_cancelled() -> None:
    """Nothing to ship is the same as a cancellation, and a refunded order stays refunded."""
    gone = change(change(ORDER, "line_items.0.current_quantity", 0), "line_items.1.current_quantity", 0)
    assert (order(gone).status, len(order(gone).lines)) == ("cancelled", 2)
    assert order({**gone, "financial_status": "refunded"}).status == "refunded"


def test_a_free_order_has_its_price_in_its_allocations() -> None:
    """A code of 100 %: total_discount says 0.00 and the allocations say the truth."""
    body = change(ORDER, "line_items", [{**ORDER["line_items"][0], "discount_allocations": [{"amount": "398.00"}]}])
    body |= {"total_line_items_price": "398.00", "subtotal_price": "0.00", "total_price": "0.00", "current_total_price": "0.00"}
    found = order({**body, "payment_gateway_names": []})
    assert (found.total, found.lines[0].discount, found.payment.method, found.tags) == (0, 39_800, None, ())


def test_without_allocations_the_line_s_own_discount_counts() -> None:
    """Older bodies have total_discount only; a body with neither says nothing about the line."""
    assert (
        order(change(change(ORDER, "line_items.0.discount_allocations", ...), "line_items.0.total_discount", "5.00"))
        .lines[0]
        .discount
        == 500
    )
    bare = change(change(ORDER, "line_items.0.discount_allocations", ...), "line_items.0.total_discount", ...)
    assert order(bare).lines[0].discount is None


@pytest.mark.parametrize(
    ("path", "value"),
    [("total_line_items_price", "598.01"), ("subtotal_price", "538.21"), ("total_price", "538.19"), ("subtotal_price", "x")],
)
def test_sums_that_contradict_each_other_are_tagged(path: str, value: str) -> None:
    """The order stands as stated, and says that its amounts do not add up."""
    assert order({**ORDER, path: value}).tags == ("amounts-differ",)


@pytest.mark.parametrize(
    ("sku", "variant", "product", "code"),
    [("A", 1, 2, "A"), ("", 1, 2, "variant:1"), (None, None, 2, "product:2"), (None, None, None, None), (" A ", 1, 2, "A")],
)
def test_a_line_s_code(sku: str | None, variant: int | None, product: int | None, code: str | None) -> None:
    """The shop's SKU, else the platform's variant, else its product; a custom line has no code at all."""
    line = {**ORDER["line_items"][0], "sku": sku, "variant_id": variant, "product_id": product}
    assert order({**ORDER, "line_items": [line]}).lines[0].code == code


def test_default_title_is_no_spec() -> None:
    """An article without variants has no colour called "Default Title"."""
    assert order(change(ORDER, "line_items.0.variant_title", "Default Title")).lines[0].spec == {}


@pytest.mark.parametrize(
    "path", ["customer", "shipping_address", "client_details", "note", "discount_codes", "shipping_lines", "phone"]
)
def test_what_may_be_null_may_be_null(path: str) -> None:
    """The platform leaves out what an app may not see."""
    for body in ({**ORDER, path: None}, change(ORDER, path, ...)):
        assert order(body).order_id == "shopify:main:5550001112223"
    assert order({**ORDER, "shipping_address": None}).ship_to is None


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        ("id", None, "bad-order-id", "id"),
        ("id", "x", "bad-order-id", "id"),
        ("created_at", "2026-11-11 09:30:15", "bad-time", "created_at"),
        ("currency", "RMB", "bad-currency", "currency"),
        ("current_total_price", "-5.00", "bad-amount", "current_total_price"),
        ("line_items", [], "no-lines", "line_items"),
        ("line_items.0", "x", "wrong-type", "line_items[0]"),
        ("line_items.0.price", "NaN", "bad-amount", "line_items[0].price"),
        ("line_items.0.quantity", 1.5, "bad-quantity", "line_items[0].quantity"),
        ("line_items.1.id", 9990001, "duplicate-line", "line_items[1].id"),
    ],
)
def test_what_we_use_is_read_exactly(path: str, value: Any, code: str, field: str) -> None:
    """A field that decides is right or the record is a reject with its place."""
    found = parse(change(ORDER, path, value), "orders/updated")
    assert isinstance(found, Rejected)
    assert (found.code, found.field) == (code, field)


def test_a_refund_is_the_money_that_went_back() -> None:
    """The sum of successful refund transactions, whether written as text or as number; line subtotals are not it."""
    found = parse(REFUND, "refunds/create")
    assert found == Refund("shopify:main:5550001112223", "8880001", 18_410, "CNY", 1_794_495_601_000)
    assert CHANNEL.key("main", json.dumps(REFUND).encode(), {}) == found.order_id
    assert parse(REFUND, None) == found


def status_in_force(*records: tuple[Any, str]) -> tuple[str, int]:
    """The order's status and total after these deliveries (body, topic), with the refunds that came."""
    line, state = law.line(), None
    for at, (body, topic) in enumerate(records):
        raw = Raw("shopify", "main", 1_794_407_420_000 + at, json.dumps(body).encode(), {"x-shopify-topic": topic})
        done = line.process(raw, at, raw.received_at)
        state = done.dossier or state
    assert state is not None
    return state.status, state.total


def test_half_that_went_back_is_not_all_of_what_is_left() -> None:
    """A returned line lowers current_total_price by what was paid back for it: the order is in part refunded, whatever comes first."""
    lines = change(ORDER, "line_items.0.current_quantity", 0)["line_items"]
    back = {**REFUND, "transactions": [{**REFUND["transactions"][0], "amount": "358.20"}]}
    after = {**ORDER, "line_items": lines, "financial_status": "partially_refunded", "current_total_price": "210.00",
             "updated_at": "2026-11-12T10:00:01-05:00", "refunds": [back]}  # fmt: skip
    told = [(ORDER, "orders/create"), (back, "refunds/create"), (after, "orders/updated")]
    assert {status_in_force(*turn) for turn in permutations(told)} == {("refunding", 56_820)}
    rest = {**back, "id": 8880002, "transactions": [{**back["transactions"][0], "amount": "210.00"}]}
    assert status_in_force(*told, (rest, "refunds/create"))[0] == "refunded"
    # an edit before anything went back: what is to be paid now
    assert order({**after, "refunds": [], "financial_status": "paid"}).total == 21_000


def test_a_refund_that_was_under_way_counts_when_it_is_back() -> None:
    """First told with no money back, then with all of it."""
    whole = {**REFUND, "transactions": [{**REFUND["transactions"][0], "amount": "568.20"}]}
    pending = change(whole, "transactions.0.status", "pending")
    told = [(ORDER, "orders/create"), (pending, "refunds/create"), (whole, "refunds/create")]
    assert {status_in_force(*turn)[0] for turn in permutations(told)} == {"refunded"}
    assert status_in_force(*told[:2])[0] == "paid"


def test_made_and_paid_within_a_second_it_is_paid() -> None:
    """Both webhooks tell one updated_at; of two edits within a second the one received later counts, and a repeat changes nothing."""
    made = {**ORDER, "financial_status": "pending"}
    for turn in permutations([(made, "orders/create"), (ORDER, "orders/paid"), (made, "orders/create")]):
        assert status_in_force(*turn)[0] == "paid"
    line = law.line()
    for at, note in enumerate(("first", "second", "first")):
        raw = Raw("shopify", "main", 1_794_407_420_000 + at, json.dumps({**ORDER, "note": note}).encode())
        line.process(raw, at, raw.received_at)
    state = line.orders.get("shopify:main:5550001112223")
    assert state is not None
    assert state.current is not None
    assert (state.current.order.remark, len(state.revisions)) == ("second", 2)


def test_a_refund_under_way_is_an_event_too() -> None:
    """No transaction has succeeded yet: amount 0 and the order's key. One that names no currency moves no money."""
    pending = change(REFUND, "transactions", [{**REFUND["transactions"][0], "status": "pending"}])
    assert parse(pending).amount == 0
    assert isinstance(parse({**REFUND, "transactions": [], "refund_line_items": []}, "refunds/create"), Skip)
    mixed = change(REFUND, "transactions.0.currency", "USD")
    assert parse(mixed).code == "bad-currency"


def test_test_deliveries_are_nobody_s_order() -> None:
    """The admin page's notification is a ping, a shop's own test order a Skip; neither becomes an order."""
    ping = json.dumps(fixture("ping")).encode()
    assert carried(ping, {}) == ()
    assert isinstance(parse(ping, "orders/create"), Skip)
    assert isinstance(parse({**ORDER, "test": True}), Skip)
    for real in (ORDER, {**ORDER, "note": "820982911946154508"}):
        body = json.dumps(real).encode()
        assert carried(body, {"X-Shopify-Test": "true"}) == (body,)


@pytest.mark.parametrize("topic", ["products/update", "orders/delete", "", "x" * 500])
def test_a_topic_that_we_do_not_follow_is_an_explained_skip(topic: str) -> None:
    """Genuine, and asks for nothing."""
    found = parse(ORDER, topic)
    assert isinstance(found, Skip)
    assert len(found.reason) < 300


def test_a_topic_cannot_make_an_order_of_a_refund() -> None:
    """The topic is not signed: the body must fit the reading that it asks for."""
    assert isinstance(parse(REFUND, "orders/create"), Rejected)
    assert isinstance(parse(ORDER, "refunds/create"), Rejected)


SECRETS = (b"new", b"old")
BODY = (FIXTURES / "shopify-order.json").read_bytes()


def proved(body: bytes, headers: dict[str, str]) -> Proved:
    return CHANNEL.verify(Push(body, {name.lower(): value for name, value in headers.items()}), SECRETS, 0)


def verify(body: bytes, headers: dict[str, str]) -> str:
    return proved(body, headers).how


def carried(body: bytes, headers: dict[str, str]) -> tuple[bytes, ...]:
    """What of a signed push becomes raw records."""
    signed = sign(body, SECRETS[0], topic="orders/create", domain="s.example", delivery="1")
    return proved(body, {**headers, **signed}).bodies


def test_either_secret_proves_the_sender_over_the_raw_bytes() -> None:
    """The bytes as sent, with their escaped slashes: the same JSON written otherwise is another message."""
    assert b"\\/" in BODY
    for secret in SECRETS:
        headers = sign(BODY, secret, topic="orders/create", domain="s.example", delivery="1")
        assert verify(BODY, headers) == "hmac-sha256"
        with pytest.raises(Refused, match="bad-signature"):
            verify(json.dumps(json.loads(BODY)).encode(), headers)


def test_a_vector_of_our_own() -> None:
    """Base64 of HMAC-SHA256, as `printf 'orderstream' | openssl dgst -sha256 -hmac new -binary | base64` prints it."""
    assert verify(b"orderstream", {"X-Shopify-Hmac-Sha256": "sxmNaxNpGW6j569igSLj3cj+2MJ6LbghethnNbNGIqU="}) == "hmac-sha256"


@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of body or signature, changed."""
    headers = sign(BODY, SECRETS[1], topic="orders/create", domain="s.example", delivery="1")
    digest = bytearray(base64.b64decode(headers["X-Shopify-Hmac-Sha256"]))
    body = bytearray(BODY)
    part = data.draw(st.sampled_from([digest, body]))
    at = data.draw(st.integers(0, len(part) * 8 - 1))
    part[at // 8] ^= 1 << at % 8
    with pytest.raises(Refused, match="bad-signature"):
        verify(bytes(body), {**headers, "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode()})


@pytest.mark.parametrize(
    "value", [None, "", "====", "AAAA", base64.b64encode(b"x" * 31).decode(), base64.b64encode(b"x" * 33).decode(), "é"]
)
def test_what_is_no_digest_is_refused(value: str | None) -> None:
    """Exactly 32 bytes, or it is no signature."""
    with pytest.raises(Refused, match="unsigned"):
        verify(BODY, {} if value is None else {"X-Shopify-Hmac-Sha256": value})


@needs_samples
def test_published_signature_vectors() -> None:
    """Other people's vectors prove that we compute what the platform computes."""
    vectors = json.loads((SAMPLES / "vectors.json").read_text("utf-8"))["shopify_hmac"]
    for case in vectors["cases"]:
        body = case["raw_body"].encode()
        assert CHANNEL.verify(
            Push(body, {"x-shopify-hmac-sha256": case["x_shopify_hmac_sha256"]}), [vectors["secret"].encode()], 0
        )
        assert hmac.new(vectors["secret"].encode(), body, hashlib.sha256).digest() == base64.b64decode(
            case["x_shopify_hmac_sha256"]
        )


@needs_samples
def test_published_samples() -> None:
    """Each collected body is an order, an event or an explained skip; without its test mark the test order is an order."""
    wrapped = (SAMPLES / "shopify-1.json").read_bytes()
    assert isinstance(parse(wrapped), Skip)
    real = json.loads(wrapped)["order"] | {"test": False}
    assert (order(real).status, order(real).total, order(real).lines[1].discount) == ("cancelled", 950, 500)
    refund = parse((SAMPLES / "shopify-3.json").read_bytes())
    assert (refund.order_id, refund.amount, refund.currency) == ("shopify:main:450789469", 20_900, "USD")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [*ORDER, *(f"line_items.0.{name}" for name in ORDER["line_items"][0]), *(f"customer.{name}" for name in ORDER["customer"]),
         *(f"shipping_address.{name}" for name in ORDER["shipping_address"]), "line_items.0", "discount_codes.0", "discount_codes.0.amount",
         "line_items.0.discount_allocations.0", "line_items.0.discount_allocations.0.amount", "total_price_set.shop_money.amount",
         "line_items.1.discount_allocations.1.discount_application_index", "discount_applications.1.type",
         "client_details.browser_ip", "total_price_set.presentment_money.currency_code"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field, the answer is a value, and the key can be asked for."""
    body = change(ORDER, path, value)
    assert isinstance(parse(body, "orders/updated"), Order | Rejected | Skip)
    CHANNEL.key("main", json.dumps(body).encode(), {})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*REFUND, "transactions.0", *(f"transactions.0.{name}" for name in REFUND["transactions"][0])]), JSON)
def test_no_value_in_a_refund_makes_the_parser_raise(path: str, value: Any) -> None:
    """The same for refunds."""
    assert isinstance(parse(change(REFUND, path, value), "refunds/create"), Refund | Rejected | Skip)
