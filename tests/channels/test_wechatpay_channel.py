"""WeChat Pay's notifications: WeChat Pay's signature, this merchant's message, the own site's order."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from api_cases import change
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.channels import Proved, Push, Refused
from orderstream.channels.api import CHANNEL, sign
from orderstream.channels.wechatpay import SIGNATURE, merchant
from orderstream.intake.app import create_app
from orderstream.orders import Paid, Raw, Refund, Rejected, Skip
from orderstream.settings import Settings
from orderstream.simulators import wechatpay as simulator
from tests.fuzz.mutations import mutated
from tests.sink import MemorySink

SIGNING, NEXT = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
MCHID, KEY, SERIAL, NEXT_SERIAL = (
    "1900000001",
    "0123456789abcdef0123456789ABCDEF",
    "5157F09EFDC096DE15EB",
    "PUB_KEY_ID_0119000000012026",
)
SECRETS = (
    simulator.secret(MCHID, KEY, SERIAL, SIGNING).encode(),
    simulator.secret(MCHID, KEY, NEXT_SERIAL, NEXT).encode(),
)
SIGNED = {SIGNATURE: "what intake keeps of the delivery"}
STAMP = 1_794_326_402
SP, SUB = "1800000001", "1900000001"
PROVIDER = simulator.secret(SP, KEY, SERIAL, SIGNING).encode()
ITS_MERCHANT = simulator.secret(f"{SP}/{SUB}", KEY, SERIAL, SIGNING).encode()
PAYMENT = simulator.transaction(MCHID, "A1001", 35_800, "2026-11-11T00:00:02+08:00")
REFUND = simulator.refund(MCHID, "A1001", "50000000382019052709732678859", 17_900, 35_800, "2026-11-11T00:01:00+08:00")


def verify(headers: dict[str, str], body: bytes, secrets: Any = SECRETS, now: int = STAMP * 1000) -> Proved:
    return CHANNEL.verify(Push(body, {name.lower(): value for name, value in headers.items()}), secrets, now)


def refused(code: str, headers: dict[str, str], body: bytes, secrets: Any = SECRETS, now: int = STAMP * 1000) -> None:
    with pytest.raises(Refused, match=code) as told:
        verify(headers, body, secrets, now)
    assert told.value.status == 401


def parse(body: Any) -> Any:
    kept = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CHANNEL.parse(Raw("api", "main", STAMP * 1000, kept, SIGNED))


@pytest.mark.parametrize(("serial", "signing"), [(SERIAL, SIGNING), (NEXT_SERIAL, NEXT)])
@pytest.mark.parametrize("resource", [PAYMENT, REFUND])
def test_either_key_proves_a_notification(serial: str, signing: Any, resource: Any) -> None:
    """The serial chooses; what is kept is the message inside."""
    found = verify(*simulator.notify(resource, KEY, serial, signing, STAMP))
    assert found.how == "rsa-sha256"
    assert [json.loads(body) for body in found.bodies] == [resource]


def test_a_certificate_is_as_good_as_its_key() -> None:
    """Merchants of before have WeChat Pay's certificate and no bare key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated")])
    day = datetime(2026, 11, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(SIGNING.public_key())
    made = made.serial_number(1).not_valid_before(day).not_valid_after(day + timedelta(days=1))
    der = made.sign(SIGNING, SHA256()).public_bytes(Encoding.DER)
    secret = f"{MCHID}:{KEY}:{SERIAL}:{base64.b64encode(der).decode()}".encode()
    assert verify(*simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, STAMP), secrets=(secret,)).bodies


def test_what_proves_nothing_is_refused() -> None:
    """Another key under this serial, another serial, another body, no signature, WeChat Pay's own probe, an old one."""
    headers, body = simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, STAMP)
    refused("bad-signature", *simulator.notify(PAYMENT, KEY, SERIAL, NEXT, STAMP))
    refused("bad-signature", {**headers, "Wechatpay-Serial": NEXT_SERIAL}, body)
    refused("bad-signature", {**headers, "Wechatpay-Serial": ""}, body)
    refused("bad-signature", headers, body + b" ")
    refused("bad-signature", {**headers, "Wechatpay-Timestamp": str(STAMP + 1)}, body)
    refused("bad-signature", {**headers, "Wechatpay-Nonce": "x"}, body)
    refused("unsigned", {}, body)
    refused("unsigned", {**headers, "Wechatpay-Signature": "WECHATPAY/SIGNTEST/"}, body)
    refused("unsigned", {**headers, "Wechatpay-Nonce": "a\nb"}, body)
    refused("stale", headers, body, now=STAMP * 1000 + 300_001)
    refused("stale", headers, body, now=STAMP * 1000 - 300_001)
    assert verify(headers, body, now=STAMP * 1000 + 300_000)


def test_what_is_inside_must_be_this_merchant_s() -> None:
    """Another merchant's message, one under another key, nothing that is one: one answer, after the signature."""
    other = simulator.transaction("1900000002", "A1001", 1, "2026-11-11T00:00:02+08:00")
    refused("unreadable", *simulator.notify(other, KEY, SERIAL, SIGNING, STAMP))
    refused("unreadable", *simulator.notify(PAYMENT, KEY[::-1], SERIAL, SIGNING, STAMP))


def of_provider(resource: Any, sub: str = SUB) -> Any:
    """The message as it is told where a service provider takes the money for its merchants."""
    return {**{name: value for name, value in resource.items() if name != "mchid"}, "sp_mchid": SP, "sub_mchid": sub}


def combined(mchid: str, *subs: str) -> Any:
    """Several orders paid at once, A1 and on; of each: who sells it."""
    paid = {"total_amount": 35_800, "payer_amount": 30_000, "currency": "CNY", "payer_currency": "CNY"}
    orders = [
        {"mchid": mchid, "sub_mchid": sub, "out_trade_no": f"A{at}", "transaction_id": f"420{at}", "trade_state": "SUCCESS",
         "success_time": "2026-11-11T00:00:02.120+08:00", "amount": paid}
        for at, sub in enumerate(subs, 1)
    ]  # fmt: skip
    return {"combine_mchid": mchid, "combine_out_trade_no": "P1", "sub_orders": orders, "combine_payer_info": {"openid": "o1"}}


def carried(resource: Any, secret: bytes) -> list[Any]:
    """What each message of a notification is read as."""
    found = verify(*simulator.notify(resource, KEY, SERIAL, SIGNING, STAMP), secrets=(secret,))
    return [parse(body) for body in found.bodies]


def test_orders_that_were_paid_at_once_are_a_record_each() -> None:
    """Each under its own number, for what it costs itself; a list that is none is kept whole and rejected."""
    (one, two) = carried(combined(MCHID, "", ""), SECRETS[0])
    assert one == Paid("api:main:A1", "4201", 35_800, "CNY", 1_794_326_402_120)
    assert (two.order_id, two.payment_id) == ("api:main:A2", "4202")
    for odd in (None, [], {}, "x", [combined(MCHID, "")["sub_orders"][0]] * 1_001):
        (kept,) = carried({**combined(MCHID), "sub_orders": odd}, SECRETS[0])
        assert isinstance(kept, Rejected)


@pytest.mark.parametrize("resource", [PAYMENT, REFUND])
def test_a_service_provider_s_message_is_its_merchant_s(resource: Any) -> None:
    """By the provider's own secret for all of its merchants, by one that names a merchant for that one alone."""
    for secret in (PROVIDER, ITS_MERCHANT):
        assert carried(of_provider(resource), secret) == [parse(resource)]
    assert carried(of_provider(resource, "1900000009"), PROVIDER)
    headers, body = simulator.notify(of_provider(resource, "1900000009"), KEY, SERIAL, SIGNING, STAMP)
    refused("unreadable", headers, body, secrets=(ITS_MERCHANT,))
    refused("unreadable", headers, body)
    of_two = combined(SP, SUB, "1900000009")
    assert [one.order_id for one in carried(of_two, PROVIDER)] == ["api:main:A1", "api:main:A2"]
    assert [one.order_id for one in carried(of_two, ITS_MERCHANT)] == ["api:main:A1"]


def test_what_is_about_no_payment_is_skipped() -> None:
    """A score or a coupon comes to the same address: taken, so that it is not sent for a day, and said to be nothing."""
    for other in ({"mchid": MCHID, "out_order_no": "x", "state": "DOING"}, {"stock_creator_mchid": "9", "coupon_id": "1"}, {}):
        (found,) = carried(other, SECRETS[0])
        assert isinstance(found, Skip)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Any one bit of the body or the signature."""
    headers, body = simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, STAMP)
    signature = bytearray(base64.b64decode(headers["Wechatpay-Signature"]))
    changed = bytearray(body)
    part = data.draw(st.sampled_from([signature, changed]))
    at = data.draw(st.integers(0, len(part) * 8 - 1))
    part[at // 8] ^= 1 << at % 8
    refused("bad-signature", {**headers, "Wechatpay-Signature": base64.b64encode(signature).decode()}, bytes(changed))


def test_a_malformed_secret_is_none() -> None:
    """Also one whose key is no RSA key; and a good one shows nothing of itself."""
    good = SECRETS[0].decode()
    curve = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    mchid, key, serial, public = good.split(":")
    for bad in ("", mchid, f"{mchid}:{key}:{serial}", f"x:{key}:{serial}:{public}", f"{mchid}:{key[1:]}:{serial}:{public}",
                f"{mchid}:{key}:{serial}:{base64.b64encode(curve).decode()}", f"{mchid}:{key}:{serial}:{public[4:]}"):  # fmt: skip
        assert merchant(bad.encode()) is None
        refused("unusable-secret", *simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, STAMP), secrets=(bad.encode(), b"\xff"))
    found = merchant(good.encode())
    assert found is not None
    assert key not in repr(found)


def test_a_payment_is_the_own_site_s_order_s() -> None:
    """Under the number that the site gave it; what it costs, and when."""
    body = json.dumps(PAYMENT).encode()
    assert parse(body) == Paid("api:main:A1001", "4200000000A1001", 35_800, "CNY", 1_794_326_402_000)
    assert CHANNEL.key("main", body, SIGNED) == "api:main:A1001"
    assert not CHANNEL.thin(Raw("api", "main", 0, body, SIGNED))


def test_the_site_and_wechat_pay_have_a_door_each() -> None:
    """With both secrets set a site's order is still proved by the site's own, and never by what WeChat Pay's door is set up with."""
    body, site = b'{"order_id": "A1001"}', b"the site's"
    signed = {name.lower(): value for name, value in sign(body, site, STAMP).items()}
    assert verify(signed, body, (*SECRETS, site)) == Proved("hmac-sha256", (body,))
    refused("bad-signature", signed, body)
    refused("bad-signature", sign(body, SECRETS[0], STAMP), body, (*SECRETS, site))
    assert CHANNEL.key("main", body, {}) == "api:main:A1001"
    assert verify(*simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, STAMP), secrets=(site, *SECRETS)).how == "rsa-sha256"


async def test_it_comes_in_at_the_site_s_own_address() -> None:
    """Kept opened and with its signature, under the site's order; 200 is all that WeChat Pay reads of the answer."""
    sink = MemorySink()
    app = create_app(Settings.load(secrets=json.dumps({"api:main": [SECRETS[0].decode(), "the site's"]})), sink)
    headers, body = simulator.notify(PAYMENT, KEY, SERIAL, SIGNING, int(time.time()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as client:
        answer = await client.post("/hooks/api/main", content=body, headers=headers)
        refusal = await client.post("/hooks/api/main", content=body + b" ", headers=headers)
    assert (answer.status_code, refusal.status_code) == (200, 401)
    (raw,) = sink.kept
    assert (json.loads(raw.body), raw.verified) == (PAYMENT, "rsa-sha256")
    assert raw.headers == {SIGNATURE: headers["Wechatpay-Signature"]}
    assert isinstance(CHANNEL.parse(raw), Paid)


def test_a_refund_is_a_refund() -> None:
    """The line's own event."""
    assert parse(REFUND) == Refund("api:main:A1001", "50000000382019052709732678859", 17_900, "CNY", 1_794_326_460_000)


@pytest.mark.parametrize(
    ("base", "path", "value", "kind"),
    [
        (PAYMENT, "trade_state", "USERPAYING", Skip),
        (REFUND, "refund_status", "ABNORMAL", Skip),
        (PAYMENT, "out_trade_no", ..., Rejected),
        (PAYMENT, "out_trade_no", "a:b", Rejected),
        (PAYMENT, "transaction_id", "", Rejected),
        (PAYMENT, "amount.total", "358.00", Rejected),
        (PAYMENT, "amount.currency", "RMB", Rejected),
        (PAYMENT, "success_time", "2026-11-11 00:00:02", Rejected),
        (REFUND, "amount.refund", ..., Rejected),
    ],
)
def test_what_moved_no_money_is_skipped_and_what_is_none_rejected(base: Any, path: str, value: Any, kind: type) -> None:
    """Each says why."""
    found = parse(change(base, path, value))
    assert isinstance(found, kind)
    assert " · " in found.reason


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([PAYMENT, REFUND, of_provider(PAYMENT), combined(MCHID, "")["sub_orders"][0]]))
def test_nothing_anywhere_makes_the_parser_raise(seed: int, base: Any) -> None:
    """Faults of structure and damaged bytes: a value, under the order's own key."""
    body = mutated(Random(seed), json.dumps(base).encode())
    found = parse(body)
    assert isinstance(found, Paid | Refund | Skip | Rejected)
    if isinstance(found, Paid | Refund):
        assert found.order_id == CHANNEL.key("main", body, SIGNED)
