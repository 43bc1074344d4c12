"""The standard pack says what the shop agreed on, and its examples hold it to every number."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orderstream import times
from orderstream.catalogue import Catalogue, read_article
from orderstream.identity import Keys
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules import examples
from orderstream.rules.book import PackBook
from orderstream.rules.model import Policy, Rule
from orderstream.rules.pack import Pack, PackError, load

FOLDER = Path(__file__).parents[2] / "rules" / "standard"
PACK = load(FOLDER)

LEVELS = {
    "missing-info": "low",
    "duplicate-order": "medium",
    "user-burst": "medium",
    "ip-pair": "low",
    "ip-segment-burst": "high",
    "address-sum": "medium",
    "payment-shared": "medium",
    "stock-risk": "medium",
    "oversold": "medium",
    "refund-open": "medium",
    "stock-rush": "high",
    "price-deviation": "medium",
    "gift-without-main": "medium",
    "unusual-address": "medium",
    "near-threshold": "low",
    "unknown-article": "medium",
    "wrong-variant": "medium",
    "virtual-phone-batch": "high",
    "currency-odds": "medium",
    "customs-missing": "medium",
    "hs-code": "medium",
    "platform-hold": "high",
}
ALWAYS_KNOWN = {"missing-info", "refund-open", "unknown-article", "platform-hold"}
"""Rules on what every order says."""


def replaced(rule: str, **changes: Any) -> Pack:
    """The standard pack with one rule changed."""
    return Pack(PACK.policy, {**PACK.rules, rule: msgspec.structs.replace(PACK.rules[rule], **changes)})


def measured(rule: str, **changes: Any) -> Pack:
    return replaced(rule, measure=msgspec.structs.replace(PACK.rules[rule].measure, **changes))


def with_data(**changes: Any) -> Pack:
    policy = msgspec.structs.replace(PACK.policy, data={**PACK.policy.data, **changes})
    return Pack(policy, PACK.rules)


def broken(pack: Pack) -> set[str]:
    """Rules whose examples no longer hold."""
    return {claim.rule for claim in examples.run(pack) if not claim.holds}


@pytest.mark.parametrize("rule", sorted(LEVELS))
def test_examples_hold(rule: str) -> None:
    """Every claim that a rule makes about itself is true of the whole line."""
    alone = Pack(msgspec.structs.replace(PACK.policy, combinations=()), {rule: PACK.rules[rule]})

    claims = list(examples.run(alone))

    assert claims
    assert [c for c in claims if not c.holds] == []


def test_examples_hold_beside_the_other_rules() -> None:
    """No rule changes what another one says."""
    assert broken(PACK) == set()


def test_ids_and_levels_are_the_table() -> None:
    """The pack has the agreed rules at the agreed levels, no fewer and no more."""
    assert {rule.id: rule.level for rule in PACK.rules.values()} == LEVELS


@pytest.mark.parametrize("rule", PACK.rules.values(), ids=lambda r: r.id)
def test_each_rule_shows_where_it_ends(rule: Rule) -> None:
    """A rule shows itself firing, silent and, where its input may be absent, not available."""
    shown = {outcome for example in rule.examples for outcome in example.expect.values()}

    expected = {"fired", "silent"} if rule.id in ALWAYS_KNOWN else {"fired", "silent", "not_available"}
    assert shown == expected


@pytest.mark.parametrize("rule", PACK.rules.values(), ids=lambda r: r.id)
def test_texts_are_whole(rule: Rule) -> None:
    """Both languages say all four things, with evidence that signals carry."""
    for text in (rule.title, rule.explain, rule.why, rule.blind):
        assert re.search("[一-龥]", text.zh)
        assert not re.search("[一-龥]", text.en)
        assert len(text.en) >= 8
    used = {lang: sorted(re.findall(r"\{(.*?)\}", text)) for lang, text in (("zh", rule.explain.zh), ("en", rule.explain.en))}
    assert set(used["zh"]) <= {"value", "limit", "orders", "detail"}
    assert used["zh"] == used["en"]
    assert rule.runbook == f"docs/operations.md#{rule.id}"


NEARLY: dict[str, Callable[[], Pack]] = {
    "missing-info": lambda: replaced("missing-info", when="size(order.missing) > 1"),
    "duplicate-order": lambda: measured("duplicate-order", at_least=3),
    "user-burst": lambda: measured("user-burst", at_least=4),
    "ip-pair": lambda: replaced("ip-pair", sharing="sku", on=("segment",)),
    "ip-segment-burst": lambda: measured("ip-segment-burst", at_least=19),
    "address-sum": lambda: measured("address-sum", above=499_999),
    "payment-shared": lambda: measured("payment-shared", at_least=3),
    "unusual-address": lambda: measured("unusual-address", members=2),
    "virtual-phone-batch": lambda: measured("virtual-phone-batch", at_least=2),
    "stock-rush": lambda: measured("stock-rush", at_least=9),
    "oversold": lambda: replaced("oversold", profile="fact.quantity >= stock.available && !stock.locked"),
    "stock-risk": lambda: replaced("stock-risk", profile="stock.available < data.low_stock"),
    "refund-open": lambda: replaced("refund-open", when='order.status != "created"'),
    "unknown-article": lambda: replaced("unknown-article", when="size(order.unmapped) > 1"),
    "gift-without-main": lambda: replaced("gift-without-main", unavailable=None),
    "wrong-variant": lambda: replaced("wrong-variant", unavailable=None),
    "customs-missing": lambda: replaced("customs-missing", unavailable=None),
    "hs-code": lambda: replaced("hs-code", unavailable=None),
    "platform-hold": lambda: replaced("platform-hold", when="true"),
    "near-threshold": lambda: replaced("near-threshold", unavailable=None),
    "price-deviation": lambda: replaced("price-deviation", unavailable=None),
    "currency-odds": lambda: replaced("currency-odds", needs=(), profile="false"),
}


def test_every_rule_is_nearly_wrong_once() -> None:
    assert sorted(NEARLY) == sorted(LEVELS)


@pytest.mark.parametrize("rule", sorted(NEARLY))
def test_a_rule_slightly_off_is_caught(rule: str) -> None:
    """The examples guard the rule: a version that is nearly right fails one of its own."""
    assert rule in broken(NEARLY[rule]())


WINDOWED = sorted(rule.id for rule in PACK.rules.values() if rule.within not in (None, "day"))


@pytest.mark.parametrize("rule", WINDOWED)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_window_slightly_off_is_caught(rule: str, by: int) -> None:
    """Examples stand within a millisecond of both sides of a window."""
    assert rule in broken(replaced(rule, within=f"{PACK.judges[rule].span + by}ms"))


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("stock-risk", {"low_stock": 2}),
        ("stock-risk", {"low_stock": 4}),
        ("stock-rush", {"low_stock": 4}),
        ("price-deviation", {"price_percent": 85.01}),
        ("price-deviation", {"price_percent": 84.99}),
        ("currency-odds", {"rate_percent": 2.999}),
        ("currency-odds", {"rate_percent": 3.01}),
        ("near-threshold", {"limits": [99_800, 199_900, 499_900]}),
        ("near-threshold", {"limits": [99_900, 199_900]}),
        ("near-threshold", {"near_percent": 98}),
        ("near-threshold", {"near_percent": 100}),
        ("virtual-phone-batch", {"virtual_prefixes": ["162", "167", "170", "171"]}),
        ("virtual-phone-batch", {"small_payment": 999}),
        ("virtual-phone-batch", {"small_payment": 1001}),
        ("virtual-phone-batch", {"young_account_ms": 86_399_999}),
        ("virtual-phone-batch", {"young_account_ms": 86_400_001}),
    ],
)
def test_a_number_slightly_off_is_caught(rule: str, changes: dict[str, Any]) -> None:
    """The policy's numbers stand in the examples too."""
    assert rule in broken(with_data(**changes))


# -- the policy ---------------------------------------------------------------------------------------------------------


def verdicts(*orders: dict[str, Any], pack: Pack = PACK) -> dict[str, Any]:
    """Final verdicts by order number; each order: a body of the api format and `at`, ms after the examples' T."""
    keys = Keys(b"test")
    line = Pipeline(Catalogue([read_article(msgspec.json.encode(examples.ARTICLE))]), PackBook([pack]), keys, examples.ZONE)
    for order in orders:
        given = dict(order)
        at = examples.T + given.pop("at", 0)
        body = {**examples.BODY, "created_at": times.text(at), **given}
        record = {"kind": "raw", "channel": "api", "shop": "main", "received_at": times.text(at + 1000), "body": body}
        line.feed(read_item(record, keys, pack.policy.currency))
    return {verdict.order_id.rsplit(":", 1)[1]: verdict for verdict in line.verdicts()}


HOME = {"province": "浙江省", "city": "杭州市", "district": "西湖区", "detail": "文三路1号", "postcode": "310012"}


def cheap(number: str, at: int, price: str = "60.00") -> dict[str, Any]:
    """20 pieces of an article of 100 yuan, all by one buyer to one address."""
    lines = [{"id": "1", "code": "c1", "quantity": 20, "price": price}]
    return {"order_id": number, "at": at, "buyer": {"id": "u1"}, "ship_to": HOME, "lines": lines}


def test_price_address_and_burst_together_are_high() -> None:
    """Five cheap orders of one buyer to one address: the fifth is past the day's limit, and the three together freeze it."""
    found = verdicts(*(cheap(f"A{n}", n * 10_000) for n in range(5)))

    assert {s.rule for s in found["A4"].signals} >= {"price-deviation", "address-sum", "user-burst"}
    assert (found["A4"].verdict, found["A4"].level) == ("frozen", "high")
    assert {s.rule for s in found["A3"].signals} >= {"price-deviation", "user-burst"}
    assert (found["A3"].verdict, found["A3"].level) == ("review", "medium")


def test_two_of_the_three_stay_medium() -> None:
    """The same five at the right price are a burst past the address's limit, and go to review."""
    found = verdicts(*(cheap(f"A{n}", n * 10_000, "100.00") for n in range(5)))

    assert {s.rule for s in found["A4"].signals} >= {"address-sum", "user-burst"}
    assert (found["A4"].verdict, found["A4"].level) == ("review", "medium")


def test_low_is_released() -> None:
    """A missing remark is filled in and stops nothing."""
    found = verdicts({"order_id": "A", "ship_to": HOME, "remark": None})

    assert (found["A"].verdict, found["A"].level, found["A"].score) == ("released", "low", 1)


def test_nothing_found_is_released() -> None:
    """An order that no rule says anything about has level none."""
    found = verdicts({"order_id": "A", "ship_to": HOME})

    assert (found["A"].verdict, found["A"].level, found["A"].score, found["A"].signals) == ("released", "none", 0, [])


def test_actions_of_low_rules() -> None:
    """Low orders leave at once: the buyer is asked and stock held, and missing-info only fills."""
    asked = {rule: [a.do for a in PACK.rules[rule].actions or ()] for rule in ("ip-pair", "near-threshold", "missing-info")}

    assert asked == {"ip-pair": ["confirm", "lock-stock"], "near-threshold": ["confirm", "lock-stock"], "missing-info": []}
    assert PACK.rules["missing-info"].actions == ()
    assert [a.lasts for a in PACK.rules["ip-pair"].actions or ()] == [None, "2h"]


def test_default_actions_follow_the_level() -> None:
    """Rules without actions of their own ask for the level's: a second check and a supervisor, or the risk team."""
    own = {rule.id for rule in PACK.rules.values() if rule.actions is not None}
    levels: dict[Any, Any] = {level: [a.do for a in outcome.actions] for level, outcome in PACK.policy.levels.items()}

    assert own == {"missing-info", "ip-pair", "near-threshold", "ip-segment-burst"}
    assert levels == {"none": [], "low": [], "medium": ["second-check", "notify"], "high": ["notify", "meeting"]}
    assert "challenge" in [a.do for a in PACK.rules["ip-segment-burst"].actions or ()]


# -- packs that cannot be used ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the pack, to spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "pack"))


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("ip-pair.yaml", "within: 10s", "witin: 10s", "witin"),
        ("ip-pair.yaml", "within: 10s", "within: 10 seconds", "10 seconds"),
        ("ip-pair.yaml", "at_least: 2", "at_least: 2, above: 1", "at_least, above"),
        ("ip-pair.yaml", "level: low", "level: lowest", "lowest"),
        ("ip-pair.yaml", "id: ip-pair", "id: ip-twin", "ip-twin"),
        ("ip-pair.yaml", '"on": [ip]', '"on": [isp]', "isp"),
        ("ip-pair.yaml", "B: fired", "B: silent", "an example that fires"),
        ("ip-pair.yaml", "examples:", "examples: [", "ip-pair"),
        ("near-threshold.yaml", "order.total <= l)", "order.total <= l", "when"),
        ("payment-shared.yaml", "measure: {distinct: user", "measure: {distinct: device", "device"),
        ("policy.yaml", "all: [price-deviation, address-sum]", "all: [price-deviation, adress-sum]", "adress-sum"),
        ("policy.yaml", "any: [user-burst", "any: [usr-burst", "usr-burst"),
        ("policy.yaml", "lateness: 1h", "lateness: soon", "soon"),
        ("policy.yaml", "lateness: 1h", "latenes: 1h", "latenes"),
        ("policy.yaml", "  none: {verdict: released}\n", "", "none"),
        ("policy.yaml", "currency: CNY", "currency: RMB", "RMB"),
    ],
)
def test_a_pack_that_cannot_be_understood_is_refused(folder: Path, file: str, old: str, new: str, why: str) -> None:
    """Whatever is wrong, the error names the file and the word."""
    spoil(folder / file, old, new)

    with pytest.raises(PackError) as refused:
        load(folder)

    assert file in str(refused.value)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_policy_is_no_pack(tmp_path: Path) -> None:
    """An empty folder is told from a pack."""
    with pytest.raises(PackError, match=r"policy\.yaml"):
        load(tmp_path)


def test_an_example_that_is_no_order_is_told(folder: Path) -> None:
    """A misspelled field in an example is a claim that fails, with the channel's own reason."""
    spoil(folder / "ip-pair.yaml", "buyer: {ip: 203.0.113.7}", "buyer: {ipp: 203.0.113.7}")

    failed = [claim for claim in examples.run(load(folder)) if not claim.holds]

    assert failed
    assert {claim.rule for claim in failed} == {"ip-pair"}
    assert any("ipp" in claim.got for claim in failed)


# -- the version --------------------------------------------------------------------------------------------------------


def test_a_changed_number_is_another_version() -> None:
    """Two packs of one version judge alike; when it holds from is not what it says."""
    later: Policy = msgspec.structs.replace(PACK.policy, active_from="2026-11-11T00:00:00+08:00")

    assert Pack(later, PACK.rules).version == PACK.version
    assert with_data(low_stock=4).version != PACK.version
    assert measured("ip-pair", at_least=3).version != PACK.version
    assert PACK.without("ip-pair").version != PACK.version


def test_a_published_pack_is_the_same_pack() -> None:
    """What is read back from the topic judges as what was sent."""
    again = Pack.decode(PACK.encode())

    assert again.version == PACK.version
    assert broken(again) == set()


def test_a_disabled_rule_counts_for_nothing() -> None:
    """Switched to tag-only, a rule gives no signal any more."""
    order = {"order_id": "A", "ship_to": HOME, "hold": "risk-check"}

    assert verdicts(order)["A"].verdict == "frozen"
    assert verdicts(order, pack=PACK.without("platform-hold"))["A"].verdict == "released"
