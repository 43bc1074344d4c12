"""The kernel's parts by themselves: amounts, times, identity, catalogue, verdict, route, the book of packs."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from histories import BOOK, GOODS, HOME, KEYS, STANDARD, Record, T, raw, text
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream import identity, money, times
from orderstream.catalogue import Catalogue, read_article, resolve
from orderstream.channels import channel
from orderstream.facts import Answer, Answers, Dossier, Finding, Mail, OrderItem, Outcome
from orderstream.normalise import Books, Normaliser
from orderstream.orders import Address, Order, Raw
from orderstream.replay import read_item
from orderstream.route import Public, Router, _whole_verdict
from orderstream.rules.book import Activation, PackBook, activation_record, pack_record, read_record
from orderstream.rules.model import Action
from orderstream.rules.pack import Pack
from orderstream.times import HOUR, MINUTE, SECOND
from orderstream.verdict import Verdict, judge

steady = settings(max_examples=60, derandomize=True, deadline=None)

# -- money and times ------------------------------------------------------------------------------------------------------


@steady
@given(st.integers(0, money.MAX_MINOR), st.sampled_from(("CNY", "JPY", "KWD")))
def test_amounts_there_and_back(minor: int, currency: str) -> None:
    """Minor units written as text and read again are the same, in currencies of none, two and three decimals."""
    assert money.minor(money.major(minor, currency), currency) == minor


AMOUNTS = st.from_regex(r"-?[0-9]{0,12}(\.[0-9]{0,4})?", fullmatch=True) | st.sampled_from(
    ["1e3", " 1", "1_0", "٣", "1.50\n", "01"]
)


@given(AMOUNTS | st.decimals(allow_nan=None) | st.integers(), st.sampled_from(("CNY", "JPY", "KWD")))
def test_a_plain_amount_is_what_decimals_make_of_it(amount: Decimal | str | int, currency: str) -> None:
    """The short way says what the long one says, or nothing."""
    quick = money.plain(amount, currency)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(money, "plain", lambda *_: None)
        if quick is not None:
            assert money.minor(amount, currency) == quick
        elif re.fullmatch("[0-9]{1,10}", str(amount)):
            pytest.fail("as plain as can be")


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-0.01", "1.005", "1e30", "", "1,00", str(money.MAX_MINOR)])
def test_amounts_are_exact_or_refused(amount: str) -> None:
    """What is not finite, below zero, too precise, too large or no number is refused and never rounded."""
    with pytest.raises(money.AmountError):
        money.minor(amount, "CNY")


def test_an_amount_finer_than_its_currency_may_end_in_noughts() -> None:
    """10.500 yuan is 1050 fen; half a yen is nothing."""
    assert money.minor(Decimal("10.500"), "CNY") == 1050
    with pytest.raises(money.AmountError):
        money.minor("0.5", "JPY")


@steady
@given(st.integers(0, times.MAX_MS))
def test_times_there_and_back(ms: int) -> None:
    """A time written as text and read again is the same millisecond, and its day began at most a day before."""
    assert times.parse(times.text(ms)) == ms
    assert 0 <= ms - times.day_start(ms, "Asia/Shanghai") < times.DAY or ms < times.parse("1992-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "said", ["2026-11-11T00:00:00", "2026-13-01T00:00:00Z", "yesterday", "1969-12-31T23:59:59Z", "2101-01-01T00:00:00Z"]
)
def test_times_are_not_guessed(said: str) -> None:
    """A time without an offset, or one that no shop means, is refused."""
    with pytest.raises(times.TimeError):
        times.parse(said)


def test_a_day_of_summer_time_is_an_hour_short() -> None:
    """The day begins at local midnight, also where the clock has jumped since."""
    noon = times.parse("2026-03-29T12:00:00+02:00")

    assert noon - times.day_start(noon, "Europe/Berlin") == 11 * HOUR


# -- identity -------------------------------------------------------------------------------------------------------------


def spelt(**given_: Any) -> str | None:
    return identity.address(Address(**given_))


@pytest.mark.parametrize(
    "other",
    [
        {"province": "浙江", "city": "杭州", "district": "西湖", "detail": "文三路一号"},
        {"detail": "浙江省杭州市西湖区文三路１号"},
        {"city": "杭州市", "district": "西湖区", "detail": "文三路 1 号"},
        {"province": "浙江省", "city": "杭州市", "district": "西湖区", "detail": "浙江省杭州市西湖区文三路1号"},
    ],
)
def test_spellings_of_one_address_meet(other: dict[str, str]) -> None:
    """Full width, numerals, short names, spaces and repeated divisions change nothing."""
    assert spelt(**other) == spelt(province="浙江省", city="杭州市", district="西湖区", detail="文三路1号") is not None


def test_doors_of_one_street_are_two() -> None:
    """Another number, and one street in another city, is another address."""
    doors = [(city, f"文三路{n}号") for city in ("杭州市", "宁波市") for n in ("1", "2", "十一", "11")]

    assert len({spelt(province="浙江省", city=city, detail=door) for city, door in doors}) == 6


@pytest.mark.parametrize("fragment", ["北京", "北京市", "浙江省杭州市西湖区", "", "文三路**号", "1"])
def test_fragments_are_no_address(fragment: str) -> None:
    """What many people share, or the platform has hidden, is no key."""
    assert spelt(detail=fragment) is None


def test_networks() -> None:
    """Segments are /24 and /64; an IPv4 inside an IPv6 is the IPv4; what is no address is none."""
    assert identity.segment("203.0.113.7") == identity.segment("203.0.113.255") == "203.0.113.0/24"
    assert identity.segment("203.0.114.7") != identity.segment("203.0.113.7")
    assert identity.segment("2001:db8::1") == identity.segment("2001:db8:0:0:ffff::9") != identity.segment("2001:db8:0:1::1")
    assert identity.ip("::ffff:203.0.113.7") == "203.0.113.7"
    assert identity.ip("2001:DB8:0::1") == "2001:db8::1"
    assert identity.ip("203.0.113.256") is None


def test_numbers() -> None:
    """Spaces, width and China's code change no number; a masked one is none."""
    assert {identity.phone(n) for n in ("13800000000", "+86 138-0000-0000", "0086 13800000000", "１３８００００００００")} == {
        "13800000000"
    }
    assert identity.phone("138****0000") is None


def test_keys_hide_what_they_stand_for() -> None:
    """A key shows nothing of its value, differs by kind and channel, and by secret."""
    keys = identity.Keys(b"one")

    assert "13800000000" not in keys.key("phone", "13800000000")
    assert keys.key("device", "x").split(":")[1] != keys.key("payment", "x").split(":")[1]
    assert keys.user("api", "7") != keys.user("shopify", "7")
    assert identity.Keys(b"two").key("device", "x") != keys.key("device", "x")
    assert keys.key("sku", "SKU1") == "sku:SKU1"


# -- catalogue ------------------------------------------------------------------------------------------------------------


def goods(*lines: Record) -> Catalogue:
    return Catalogue(read_article(json.dumps({"name": line["sku"], **line})) for line in lines)


def ordered(catalogue: Catalogue, *lines: Record, at: int = T) -> Any:
    body = {"order_id": "1", "created_at": text(T), "currency": "CNY", "lines": list(lines)}
    order = channel("api").parse(Raw("api", "main", T, json.dumps(body).encode()))
    assert isinstance(order, Order)
    return resolve(order, catalogue, at)


def code(name: str, **more: str) -> dict[str, str]:
    return {"channel": "api", "code": name, **more}


@steady
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 5))
def test_units_in_are_pieces_out(counts: list[int], quantity: int) -> None:
    """Bundles of bundles come apart into as many pieces as they hold, and no money moves."""
    nested: list[Record] = [{"sku": "S0", "codes": []}]
    pieces = quantity
    for level, count in enumerate(counts, 1):
        nested.append(
            {"sku": f"S{level}", "codes": [code(f"s{level}")], "components": [{"sku": f"S{level - 1}", "quantity": count}]}
        )
        pieces *= count

    found = ordered(goods(*nested), {"code": f"s{len(counts)}", "quantity": quantity, "price": "10.00"})

    assert found.pieces == {"S0": pieces}
    assert sum(count for unit in found.units for count in unit.skus.values()) == pieces
    assert [(line.quantity, line.price) for line in found.lines] == [(quantity, 1000)]


def test_a_code_of_two_articles_is_none() -> None:
    """An ambiguous code is said so with what is nearest; a mapping for the shop goes before one for the channel."""
    line = {"code": "x", "quantity": 1, "price": "1.00"}

    both = ordered(goods({"sku": "A", "codes": [code("x")]}, {"sku": "B", "codes": [code("x")]}), line)
    ours = ordered(goods({"sku": "A", "codes": [code("x")]}, {"sku": "B", "codes": [code("x", shop="main")]}), line)

    assert [u.why for u in both.unmapped] == ["ambiguous"]
    assert [one.sku for one in both.lines] == [None]
    assert [one.sku for one in ours.lines] == ["B"]


def test_entries_hold_from_their_time() -> None:
    """An order is read with the entry in force when it was received, to the millisecond, and none before the first."""
    catalogue = goods(
        {"sku": "A", "codes": [code("x")], "at": text(T)}, {"sku": "A", "codes": [code("y")], "at": text(T + SECOND)}
    )
    line = {"code": "x", "quantity": 1, "price": "1.00"}

    assert [ordered(catalogue, line, at=at).lines[0].sku for at in (T - 1, T, T + SECOND - 1, T + SECOND)] == [
        None,
        "A",
        "A",
        None,
    ]


def test_a_gift_leaves_with_its_main() -> None:
    """A gift goes out with the line that earns it; below its total, it is said to have none."""
    hook = {"code": "c3", "quantity": 1, "price": "0.00", "gift": True}

    assert ordered(GOODS, {"code": "c1", "quantity": 2, "price": "75.00"}, hook).gifts_without_main == ()
    assert ordered(GOODS, {"code": "c1", "quantity": 2, "price": "74.99"}, hook).gifts_without_main == ("2",)
    assert len(ordered(GOODS, {"code": "c1", "quantity": 2, "price": "75.00"}, hook).units) == 1


# -- verdict --------------------------------------------------------------------------------------------------------------


def dossier(pack: Pack = STANDARD, **changes: Any) -> Dossier:
    """A complete dossier of a clean order that nobody is asked about, changed as told."""
    books = Books(GOODS, PackBook([pack]).at)
    body = {"currency": "CNY", "remark": "快", "ship_to": HOME, "lines": [{"code": "c1", "quantity": 1, "price": "100.00"}]}
    made = Normaliser(books, KEYS).process(read_item(raw("1", T, T, body), KEYS, "CNY"), 0, 0).dossier  # type: ignore[arg-type]
    assert made is not None
    return msgspec.structs.replace(made, **{"expects": {}, "findings": {}, "missing": (), **changes})


def found(*rules: str, at: int = T) -> dict[str, Any]:
    return {rule: Finding({"orders": [], "value": 1, "limit": 1}, at, T) for rule in rules}


@pytest.mark.parametrize(
    ("rules", "level", "verdict"),
    [
        ((), "none", "released"),
        (("ip-pair", "near-threshold"), "low", "released"),
        (("ip-pair", "oversold"), "medium", "review"),
        (("platform-hold", "ip-pair"), "high", "frozen"),
        (("price-deviation", "address-sum"), "medium", "review"),
        (("price-deviation", "address-sum", "user-burst"), "high", "frozen"),
        (("price-deviation", "user-burst"), "medium", "review"),
    ],
)
def test_the_highest_level_decides(rules: tuple[str, ...], level: str, verdict: str) -> None:
    """Signals do not add up; the combination of a low price, an address's sum and a burst does."""
    line = judge(dossier(findings=found(*rules)), {}, STANDARD).line

    assert (line.level, line.verdict) == (level, verdict)
    assert line.score == sum({"low": 10, "medium": 40, "high": 100}[STANDARD.rules[rule].level] for rule in rules)


def test_unpaid_is_pending_and_withdrawn_is_nothing() -> None:
    """An unpaid order is judged and waits; a withdrawn one has no level, score, signals or open questions."""
    waiting = judge(dossier(status="created", findings=found("platform-hold")), {}, STANDARD).line
    gone = judge(dossier(status="cancelled", findings=found("platform-hold"), missing=("ip-pair",)), {}, STANDARD).line

    assert (waiting.verdict, waiting.level) == ("pending", "high")
    assert (gone.verdict, gone.level, gone.score, gone.signals, gone.not_available) == ("withdrawn", "none", 0, [], [])


def changed(rule: str, **words: Any) -> Pack:
    return Pack(STANDARD.policy, {**STANDARD.rules, rule: msgspec.structs.replace(STANDARD.rules[rule], **words)})


def test_absent_is_as_the_rule_says() -> None:
    """A rule that could not judge is named; it asks for a review only where its file says so, and not while it is off."""
    asks = changed("ip-pair", absent="review")
    off = Pack(asks.policy, {**asks.rules, "ip-pair": msgspec.structs.replace(asks.rules["ip-pair"], tag_only=True)})

    levels = [judge(dossier(pack, missing=("ip-pair",)), {}, pack).line for pack in (STANDARD, asks, off)]

    assert [(line.verdict, line.not_available) for line in levels] == [
        ("released", ["ip-pair"]), ("review", ["ip-pair"]), ("released", ["ip-pair"]),
    ]  # fmt: skip


def test_tag_only_counts_for_nothing() -> None:
    """A rule that the on-call has switched off is told in tags."""
    off = STANDARD.without("platform-hold")

    verdict = judge(dossier(off, findings=found("platform-hold")), {}, off)

    assert verdict.line.verdict == "released"
    assert [(tag["tag"], tag["rule"]) for tag in verdict.tags] == [("tag-only", "platform-hold")]


@pytest.mark.parametrize(("at", "verdict"), [(T + HOUR, "frozen"), (T + HOUR + 1, "released")])
def test_shipping_ends_recalls(at: int, verdict: str) -> None:
    """What is found after the order was shipped is only told."""
    assert judge(dossier(findings=found("platform-hold", at=at)), {}, STANDARD, T + HOUR).line.verdict == verdict


def test_what_one_order_shows_no_other_has() -> None:
    """Orders of which nothing is found share what a pack says of them; what fires in one stays out of it."""
    missing = ("ip-pair", "no-such-rule")
    before = judge(dossier(missing=missing), {}, STANDARD)
    fired = judge(dossier(findings=found("platform-hold"), missing=missing), {}, STANDARD)
    whole = judge(dossier(), {}, STANDARD)
    after = judge(dossier(missing=missing), {}, STANDARD)

    def states(verdict: Verdict) -> dict[str, str]:
        return {one["id"]: one["state"] for one in verdict.rules if one["state"] != "silent"}

    assert states(before) == states(after) == {"ip-pair": "not_available"}
    assert states(fired) == {"ip-pair": "not_available", "platform-hold": "fired"}
    assert states(whole) == {}
    assert list(STANDARD.rules) == [one["id"] for one in fired.rules] == [one["id"] for one in whole.rules]
    off = STANDARD.without("ip-pair")
    assert judge(dossier(off, missing=missing), {}, off).line.pack == off.version


def test_a_verdict_is_said_by_its_content() -> None:
    """Whether its rules were written before or not, a verdict's bytes are the same: a case that was kept knows what it has said."""
    quiet = judge(dossier(missing=("ip-pair",)), {}, STANDARD)
    assert quiet.quiet is not None
    plain = {"line": quiet.line, "tags": [], "rules": quiet.rules, "combinations": [], "merge": []}

    assert msgspec.msgpack.encode(_whole_verdict(quiet)) == msgspec.msgpack.encode(plain)
    value = verdict_of(Desk().dossier(missing=("ip-pair",)))
    assert json.loads(msgspec.json.encode(value))["rules"] == quiet.rules


# -- route ----------------------------------------------------------------------------------------------------------------


def mail(item: OrderItem) -> list[Mail]:
    return [("api:main:1", [item])]


class Desk:
    """A router with one order, and the ERP's view of it."""

    def __init__(self) -> None:
        self.router = Router(PackBook([STANDARD]).pack)
        self.version = 0

    def dossier(self, *rules: str, **changes: Any) -> list[Public]:
        self.version += 1
        return self.router.process(mail(dossier(version=self.version, findings=found(*rules), **changes)), 0)

    def outcome(self, said: str) -> list[Public]:
        return self.router.process(mail(Outcome("api:main:1", T, said, "王")), 0)


def topics(told: list[Public]) -> set[str]:
    return {public.topic for public in told} - {"orders.verdicts", "orders.actions"}


def verdict_of(told: list[Public]) -> dict[str, Any]:
    return next(public.value for public in told if public.topic == "orders.verdicts")


def actions(told: list[Public]) -> dict[str, str]:
    return {public.value["id"]: public.value["action"] for public in told if public.topic == "orders.actions"}


def test_released_then_stricter_is_recalled() -> None:
    """A stricter verdict than the one that went out is a recall, with the next number; the other way it goes out again."""
    desk = Desk()

    assert topics(desk.dossier()) == {"orders.released"}
    second = desk.dossier("oversold")
    assert topics(second) == {"orders.recalled", "orders.review"}
    assert verdict_of(second)["verdict_seq"] == 2
    assert topics(desk.dossier()) == {"orders.released"}


def test_withdrawn_is_recalled_only_if_it_was_out() -> None:
    """A cancelled order is recalled where the ERP has it, and is silent where it never did."""
    out, in_review = Desk(), Desk()
    out.dossier()
    in_review.dossier("oversold")

    assert topics(out.dossier(status="cancelled", document=None)) == {"orders.recalled"}
    assert topics(in_review.dossier(status="cancelled", document=None)) == set()


def test_a_freeze_that_was_shown_stands() -> None:
    """The machine's verdict follows the orders; the freeze is held until a person lifts it, and then the order goes out."""
    desk = Desk()
    desk.dossier("platform-hold")

    eased = desk.dossier()
    assert (verdict_of(eased)["verdict"], verdict_of(eased)["held"], topics(eased)) == ("released", True, set())
    lifted = desk.outcome("released")
    assert (verdict_of(lifted)["held"], topics(lifted)) == (False, {"orders.released"})


def test_people_outrank_the_machine() -> None:
    """A signal after a person's release changes nothing outside and tells somebody."""
    desk = Desk()
    desk.dossier("oversold")
    desk.outcome("released")

    later = desk.dossier("oversold", "platform-hold")

    assert "orders.recalled" not in topics(later)
    assert "orders.frozen" not in topics(later)
    assert "notify" in actions(later).values()


def test_confirmed_fraud_recalls() -> None:
    """What the world says is fraud is recalled, once shipped no more."""
    desk, shipped = Desk(), Desk()
    desk.dossier()
    shipped.dossier()
    shipped.outcome("shipped")

    assert "orders.recalled" in topics(desk.outcome("confirmed-fraud"))
    assert "orders.recalled" not in topics(shipped.outcome("confirmed-fraud"))


def test_the_same_again() -> None:
    """What is read twice is said once; after a crash once more, under the same number, with the same action ids."""
    desk = Desk()
    item = dossier(version=1, findings=found("ip-pair"))
    first = desk.router.process(mail(item), 0)

    assert desk.router.process(mail(item), 0) == []
    again = desk.router.process(mail(item), 0, again=True)
    assert verdict_of(again)["verdict_seq"] == verdict_of(first)["verdict_seq"] == 1
    assert actions(again) == actions(first)
    assert set(actions(first).values()) == {"confirm", "lock-stock"}


def test_each_role_that_a_rule_names_is_told() -> None:
    """Two `notify` of one rule to different roles are two actions, each once, also when it is all said again."""
    rule = STANDARD.rules["oversold"]
    roles = ("supervisor", "risk", "supervisor")
    told_by = msgspec.structs.replace(rule, actions=tuple(Action("notify", to=role) for role in roles))
    pack = Pack(STANDARD.policy, {**STANDARD.rules, "oversold": told_by})
    router = Router(lambda version: pack)
    item = dossier(version=1, findings=found("oversold"))

    told = router.process(mail(item), 0)
    by_id = {p.value["id"]: p.value["params"]["to"] for p in told if p.topic == "orders.actions" and p.value}
    assert sorted(by_id.values()) == ["risk", "supervisor"]
    again = router.process(mail(item), 0, again=True)
    assert set(actions(again)) == set(by_id)
    assert actions(router.process(mail(dossier(version=2, findings=found("oversold"))), 0)) == {}


def test_nothing_goes_out_unanswered() -> None:
    """An order waits for every answer of the version that it asked for."""
    desk = Desk()
    asked = dossier(version=1, expects={"ip:x": 2})

    assert desk.router.process(mail(asked), 0) == []
    assert desk.router.process(mail(Answers({"ip:x": Answer(1, 5)})), 0) == []
    assert topics(desk.router.process(mail(Answers({"ip:x": Answer(2, 6)})), 0)) == {"orders.released"}
    assert desk.router.pending == {}


# -- the book of packs ----------------------------------------------------------------------------------------------------


def test_activations_count_by_time() -> None:
    """In whatever order activations are read, the one in force is the last at or before a time; the first holds before it."""
    one, two = STANDARD, STANDARD.without("ip-pair")
    told = [
        Activation(T, one.version, "publish"),
        Activation(T + MINUTE, two.version, "disable"),
        Activation(T + HOUR, one.version, "rollback"),
    ]

    for order in (told, told[::-1], [*told, *told]):
        book = PackBook()
        for pack in (one, two):
            read_record(book, *pack_record(pack))
        for activation in order:
            read_record(book, *activation_record(activation))
        times_ = (0, T, T + MINUTE - 1, T + MINUTE, T + HOUR - 1, T + HOUR)
        assert [book.at(ms).version for ms in times_] == [
            one.version,
            one.version,
            one.version,
            two.version,
            two.version,
            one.version,
        ]


def test_version_is_the_content() -> None:
    """The same words are the same version, a changed one another, and a pack survives the way over Kafka."""
    assert Pack.decode(STANDARD.encode()).version == STANDARD.version
    assert STANDARD.without("ip-pair").version != STANDARD.version
    assert BOOK.at(T).version != STANDARD.version
