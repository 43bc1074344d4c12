"""The api channel: read to the letter."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import jsonschema
import pytest
from api_cases import BAD, FULL, GOOD, LEAST, Bad, change
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Push, Refused, channel, registry
from orderstream.channels.api import CHANNEL, sign
from orderstream.orders import CHANNELS, Discount, Order, Raw, Rejected
from orderstream.settings import data_file

SCHEMA = json.loads(data_file("schemas/messages/api-order.v1.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def raw(body: Any, shop: str = "main") -> Raw:
    text = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return Raw("api", shop, 1_794_326_402_000, text)


def order(body: Any) -> Order:
    found = CHANNEL.parse(raw(body))
    assert isinstance(found, Order), found
    return found


def reject(body: Any) -> Rejected:
    found = CHANNEL.parse(raw(body))
    assert isinstance(found, Rejected), found
    return found


def test_the_registry_knows_each_channel_by_its_id() -> None:
    """A channel is found by its id, and its id is one of the seven."""
    assert channel("api") is CHANNEL
    assert all(one.id == name for name, one in registry().items())
    assert {"api", "shopify"} < set(registry()) <= set(CHANNELS)


def test_a_full_order_says_everything_once() -> None:
    """Amounts are minor units, times UTC ms, and the total that agrees leaves no tag."""
    found = order(FULL)
    assert (found.order_id, found.number, found.revision, found.status) == ("api:main:A1001", "A1001", 1, "paid")
    assert (found.created_at, found.updated_at) == (1_794_326_401_123, 1_794_326_405_000)
    assert (found.total, found.discounts, found.tags) == (35_800, (Discount("coupon", 2_000),), ())
    line = found.lines[0]
    assert (line.id, line.code, line.quantity, line.price, line.list_price, line.discount) == (
        "1",
        "tb-981",
        2,
        18_900,
        19_900,
        None,
    )
    assert line.spec == {"颜色": "原木色"}
    assert line.gift is False
    assert found.ship_to is not None
    assert (found.ship_to.lat, found.ship_to.lon) == (30.27, 120.13)
    assert found.customs is not None
    assert found.customs.hs_codes == {"1": "94036099"}


def test_only_four_fields_are_needed() -> None:
    """The least order is paid, costs the sum of its lines, and what it lacks is None, not empty."""
    found = order(LEAST)
    assert (found.status, found.total, found.lines[0].id) == ("paid", 300, "1")
    assert (
        found.revision
        is found.updated_at
        is found.ship_to
        is found.customs
        is found.hold
        is found.remark
        is found.buyer.id
        is None
    )


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_is_absent(empty: Any) -> None:
    """Null and "" are the same as no field at all."""
    body = {
        **LEAST,
        **dict.fromkeys(("revision", "status", "updated_at", "total", "ship_by", "hold", "presale", "remark"), empty),
    }
    body["buyer"] = dict.fromkeys(FULL["buyer"], empty)
    body["ship_to"] = dict.fromkeys(FULL["ship_to"], empty)
    body["payment"] = dict.fromkeys(FULL["payment"], empty)
    body["lines"] = [
        {**LEAST["lines"][0], **dict.fromkeys(("id", "title", "list_price", "gift"), empty), "spec": {"颜色": empty}}
    ]
    assert order(body) == order(LEAST)


@pytest.mark.parametrize(("name", "body"), GOOD, ids=[name for name, _ in GOOD])
def test_good_bodies_are_orders_and_fit_the_schema(name: str, body: dict[str, Any]) -> None:
    """What the parser takes, the published schema takes."""
    order(body)
    VALIDATOR.validate(body)


@pytest.mark.parametrize("case", BAD, ids=[f"{bad.path}={str(bad.value)[:20]!r}" for bad in BAD])
def test_bad_bodies_are_rejected_with_their_place(case: Bad) -> None:
    """A reject has a stable code, the field's path and a sentence in both languages; the schema refuses the same body."""
    body = change(FULL, case.path, case.value)
    found = reject(body)
    assert (found.code, found.field) == (case.code, case.field)
    assert " · " in found.reason
    assert VALIDATOR.is_valid(body) is not case.schema


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not-json"),
        (b"not json", "not-json"),
        (b"[]", "wrong-type"),
        (b"null", "wrong-type"),
        (b'"x"', "wrong-type"),
        (b'{"order_id": "A1"} trailing', "not-json"),
        (b'{"order_id": NaN}', "not-json"),
        (b'{"order_id": "\xff"}', "not-utf8"),
        (b'\xef\xbb\xbf{"order_id": "A1"}', "not-json"),
        (b'{"order_id": "A1", "order_id": "A2"}', "duplicate-key"),
        (b'{"order_id": "A1", "buyer": {"id": "1", "id": "1"}}', "duplicate-key"),
        (b'{"order_id": "A1", "remark": ' + b"[" * 33 + b"]" * 33 + b"}", "too-deep"),
        (b"[" * 1_000, "too-deep"),
        (b"[" * 200_000, "too-many-values"),
        (b"[" + b"1," * 50_001 + b"1]", "too-many-values"),
        (b"{" * 40 + b'"' + b'\\"' * 200_000, "too-deep"),
        (b'{"order_id": "A1", "remark": "' + b"x" * 1_048_576 + b'"}', "too-large"),
        (b'{"order_id": "A1", "total": 1e99999999999999999999}', "bad-number"),
        (b'{"order_id": "A1", "total": -1e309}', "bad-number"),
        (b'{"order_id": "A1", "total": ' + b"9" * 5000 + b"}", "not-json"),
        (b'{"order_id": "A1", "remark": "\\ud800"}', "not-json"),
        (b'{"order_id": "A1", "remark": "a\\u0000"}', "bad-text"),
    ],
)
def test_what_is_no_single_json_value_is_rejected(body: bytes, code: str) -> None:
    """Bytes with two readings, or none that can be stored, are no order."""
    assert reject(body).code == code


def test_brackets_inside_texts_are_no_depth() -> None:
    """A remark full of brackets is a remark, and an escaped backslash before u0000 is no NUL."""
    assert order({**LEAST, "remark": '[{"' * 50}).remark == '[{"' * 50
    assert order({**LEAST, "remark": "\\u0000"}).remark == "\\u0000"


def test_a_json_number_is_exact() -> None:
    """0.1 + 0.2 is 30 fen, whether written as text or as number; a third decimal is refused in both."""
    body = b'{"order_id":"A","created_at":"2026-11-11T00:00:01Z","currency":"CNY","lines":[{"code":"c","quantity":1,"price":%s}]}'
    assert order(body % b"0.1").total == 10
    assert order(body % b"1e2").total == 10_000
    assert reject(body % b"0.105").code == "bad-amount"
    assert reject(body % b"1.00000000000000000000000000000001").code == "bad-amount"
    assert order(change(LEAST, "lines.0.price", "0.30")).lines[0].price == 30
    yen = order({**LEAST, "currency": "JPY", "lines": [{"code": "c", "quantity": 1, "price": 120}]})
    assert yen.total == 120


def test_a_total_that_differs_is_kept_and_seen() -> None:
    """The channel's total stands; the tag says that it is not the sum."""
    found = order({**FULL, "total": "300.00"})
    assert (found.total, found.tags) == (30_000, ("amounts-differ",))


def test_discounts_above_the_lines_are_refused_only_where_no_total_says_otherwise() -> None:
    """A negative sum is no total; with a stated total it is a contradiction to show."""
    body = {**LEAST, "discounts": [{"kind": "coupon", "amount": "3.01"}]}
    assert reject(body).code == "bad-total"
    assert order({**body, "total": 0}).tags == ("amounts-differ",)
    assert order({**LEAST, "discounts": [{"kind": "coupon", "amount": "3.00"}]}).total == 0


@pytest.mark.parametrize("ip", ["999.1.1.1", "unknown", "1.2.3", "0.0.0.0", "fe80::1%eth0", "1.2.3.4, 5.6.7.8"])
def test_an_unusable_ip_is_absent_and_tagged(ip: str) -> None:
    """A bad IP takes away the rules that need one, not the order."""
    found = order(change(FULL, "buyer.ip", ip))
    assert (found.buyer.ip, found.tags) == (None, ("ip-invalid",))


@pytest.mark.parametrize(
    ("said", "meant"),
    [("2001:DB8:0:0::1", "2001:db8::1"), ("::ffff:203.0.113.7", "203.0.113.7"), (" 203.0.113.7 ", "203.0.113.7")],
)
def test_one_ip_has_one_spelling(said: str, meant: str) -> None:
    """Two spellings of an address are one entity."""
    assert order(change(FULL, "buyer.ip", said)).buyer.ip == meant


@pytest.mark.parametrize(("lat", "lon"), [(91, 120), (30, 181), (-91.0, 0), (30, None), (None, 120), ("", 1)])
def test_coordinates_off_the_globe_are_absent_and_tagged(lat: Any, lon: Any) -> None:
    """Half a place or one off the globe is none."""
    found = order({**FULL, "ship_to": {**FULL["ship_to"], "lat": lat, "lon": lon}})
    assert found.ship_to is not None
    assert (found.ship_to.lat, found.ship_to.lon, found.tags) == (None, None, ("coordinates-invalid",))


@pytest.mark.parametrize(
    ("said", "meant"), [(True, "hold"), ("风控", "风控"), (False, None), (None, None), ("", None), ("  ", None)]
)
def test_hold_is_a_reason_or_nothing(said: Any, meant: str | None) -> None:
    """True without words is still a hold."""
    assert order({**FULL, "hold": said}).hold == meant


def test_two_lines_with_one_id_are_refused() -> None:
    """Also when one of them has its id only by its position."""
    line = LEAST["lines"][0]
    assert reject({**LEAST, "lines": [{**line, "id": "7"}, {**line, "id": "7"}]}).code == "duplicate-line"
    assert reject({**LEAST, "lines": [{**line, "id": "2"}, line]}).field == "lines[1].id"
    assert [one.id for one in order({**LEAST, "lines": [line, line, line]}).lines] == ["1", "2", "3"]


def test_a_reject_is_named_by_its_order_where_it_can_be() -> None:
    """Its id is the order's if the body names a usable one, else the hash of the bytes as they came."""
    assert reject({**FULL, "status": "?"}).order_id == "api:main:A1001"
    for body in (b"not json", json.dumps({**FULL, "order_id": "a b"}).encode()):
        assert reject(body).order_id == "raw:" + hashlib.sha256(body).hexdigest()


def test_every_revision_of_an_order_has_one_key() -> None:
    """The key is the order id however broken the rest is, and None where no number is usable."""
    for body in (FULL, {**FULL, "status": "cancelled", "revision": 9}, {"order_id": "A1001", "x": [[]]}):
        assert CHANNEL.key("main", raw(body).body, {}) == "api:main:A1001"
    for broken in (b"", b"[1]", b'{"order_id": 5}', b'{"order_id": "a:b"}', b"[" * 100_000, b'{"order_id":"\xff"}'):
        assert CHANNEL.key("main", broken, {}) is None


SECRETS = (b"new-secret", b"old-secret")
NOW = 1_794_326_400


def verify(body: bytes, headers: dict[str, str], now: int = NOW) -> str:
    return CHANNEL.verify(Push(body, {name.lower(): value for name, value in headers.items()}), SECRETS, now * 1000).how


@pytest.mark.parametrize("secret", SECRETS)
def test_either_secret_proves_the_sender(secret: bytes) -> None:
    """While secrets are changed both are good."""
    assert verify(b"body", sign(b"body", secret, NOW)) == "hmac-sha256"


def test_a_vector_made_elsewhere() -> None:
    """The value that `printf '1794326400.{}' | openssl dgst -sha256 -hmac new-secret` prints."""
    headers = sign(b"{}", "new-secret", NOW)
    assert headers["X-Orderstream-Signature"] == "sha256=" + VECTOR
    assert headers["X-Orderstream-Timestamp"] == str(NOW)


VECTOR = "c9a51aa3ccd94fae1ccbd14fd2f07f2583cd39c229a38d4d939a7a76ac625191"


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_is_refused(body: bytes, data: st.DataObject) -> None:
    """Any one bit of the body, changed after signing, refuses it."""
    headers = sign(body, SECRETS[0], NOW)
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    flipped = bytearray(body)
    flipped[at // 8] ^= 1 << at % 8
    with pytest.raises(Refused, match="bad-signature"):
        verify(bytes(flipped), headers)


def test_the_timestamp_is_signed_and_young() -> None:
    """Five minutes either way; a moved timestamp breaks the signature, so a captured delivery does not stay good."""
    headers = sign(b"x", SECRETS[0], NOW)
    for now in (NOW - 300, NOW + 300):
        verify(b"x", headers, now)
    for now in (NOW - 301, NOW + 301):
        with pytest.raises(Refused, match="stale"):
            verify(b"x", headers, now)
    with pytest.raises(Refused, match="bad-signature"):
        verify(b"x", {**headers, "X-Orderstream-Timestamp": str(NOW + 1)})


@pytest.mark.parametrize("name", ["X-Orderstream-Signature", "X-Orderstream-Timestamp"])
@pytest.mark.parametrize("value", [None, "", "sha256=", "sha256=zz", "md5=" + "0" * 64, "-5", "1e9", "９", "0" * 13])
def test_unsigned_or_malformed_is_refused(name: str, value: str | None) -> None:
    """A header that is missing or of another form is no signature, and nothing raises but Refused."""
    headers = sign(b"x", SECRETS[0], NOW)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(Refused) as refused:
        verify(b"x", headers)
    assert refused.value.status == 401


def test_no_secret_no_entry() -> None:
    """A shop without secrets accepts nothing, not even the signature of an empty secret."""
    with pytest.raises(Refused):
        CHANNEL.verify(Push(b"x", {name.lower(): value for name, value in sign(b"x", b"", NOW).items()}), (), NOW * 1000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    "order_id", "revision", "status", "created_at", "updated_at", "currency", "total", "discounts", "discounts.0",
    "discounts.0.amount", "ship_by", "hold", "presale", "buyer", "buyer.ip", "buyer.registered_at", "payment", "payment.id",
    "ship_to", "ship_to.lat", "ship_to.lon", "lines", "lines.0", "lines.0.id", "lines.0.price", "lines.0.quantity",
    "lines.0.spec", "lines.0.gift", "customs", "customs.hs_codes", "remark",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_the_parser_raise(path: str, value: Any) -> None:
    """Whatever stands in whatever field, the answer is an order or a reject, and the schema takes every order."""
    body = change(FULL, path, value)
    found = CHANNEL.parse(raw(body))
    assert isinstance(found, Order | Rejected)
    if isinstance(found, Order):
        VALIDATOR.validate(json.loads(json.dumps(body)))
        assert found.total >= 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_no_bytes_make_the_parser_raise(body: bytes) -> None:
    """Nor do any bytes."""
    assert isinstance(CHANNEL.parse(raw(body)), Rejected)


def test_a_replay_body_reads_as_the_live_one() -> None:
    """Key order and white space are not part of an order: sorted and compact it is the same."""
    compact = json.dumps(FULL, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert CHANNEL.parse(raw(compact)) == CHANNEL.parse(raw(copy.deepcopy(FULL)))
