"""The simulated peak: repeatable, complete, and clean where it says so."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, defaultdict
from itertools import pairwise
from math import asin, cos, radians, sin, sqrt

import pytest

from orderstream import times
from orderstream.catalogue import Catalogue
from orderstream.channels import Push, channel
from orderstream.identity import Keys
from orderstream.orders import Order, Paid, Raw, Refund, Rejected
from orderstream.pipeline import Pipeline
from orderstream.replay import read_file
from orderstream.rules import pack
from orderstream.rules.book import PackBook
from orderstream.settings import data_file
from orderstream.simulators import Scenario, make, write_catalogue, write_replay
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import ASKED_ABOUT_REFUNDS, HOLDING, MARKETPLACES, VARIANT_IN_TITLE, beside, detail_of
from orderstream.times import HOUR, MINUTE, SECOND

START = times.parse("2026-11-11T20:00:00+08:00")
FULL = make(3000, rate=50, start=START)
SEVEN = make(3000, rate=50, start=START, marketplaces=MARKETPLACES, payments=True)
EVERY = {
    "segment-burst", "double-orders", "payment-shared", "address-sum", "gift-without-main", "price-deviation", "unusual-address",
    "near-threshold", "wrong-variant", "unknown-article", "late", "cancelled", "cross-border", "platform-hold", "rejected",
    "user-burst", "oversold", "virtual-phone-batch", "all-at-once", "refund-open",
}  # fmt: skip


def first_bodies(scenario: Scenario, channel: str = "api") -> dict[str, dict]:
    """The first payload of every order of a channel that is one."""
    found: dict[str, dict] = {}
    for d in scenario.deliveries:
        if d.channel == channel and scenario.expected[d.order_id].outcome != "rejected":
            found.setdefault(d.order_id, json.loads(d.body))
    return found


def created(body: dict) -> int:
    return times.parse(body["created_at"])


def skus(body: dict) -> set[str]:
    return {line["code"] for line in body["lines"] if not line["gift"]}


def fen(text: str) -> int:
    return round(float(text) * 100)


def test_the_same_arguments_give_the_same_bytes():
    """A scenario repeats to the byte; another seed gives another one."""
    assert make(300, rate=50, start=START) == make(300, rate=50, start=START)
    assert make(300, rate=50, start=START, seed=2).deliveries != make(300, rate=50, start=START).deliveries


@pytest.mark.parametrize("orders", [1, 2, 7, 30, 120, 450, 1000])
def test_size_is_the_number_of_distinct_orders(orders):
    """Whatever the size, exactly that many distinct orders are sent, each with an expectation."""
    scenario = make(orders, rate=200, start=START)
    assert {d.order_id for d in scenario.deliveries} == set(scenario.expected)
    assert len(scenario.expected) == orders


@pytest.mark.parametrize("orders", [1, 80, 3000])
def test_marketplaces_come_on_top_and_change_nothing(orders):
    """Each has its own orders beside the others', and what the others send stays as it was, to the byte."""
    alone, whole = make(orders, rate=50, start=START), make(orders, rate=50, start=START, marketplaces=MARKETPLACES)
    ours = {o: e for o, e in whole.expected.items() if o.partition(":")[0] not in MARKETPLACES}
    assert ours == alone.expected
    assert tuple(d for d in whole.deliveries if d.channel not in MARKETPLACES) == alone.deliveries
    assert Counter(o.partition(":")[0] for o in set(whole.expected) - set(ours)) == dict.fromkeys(MARKETPLACES, beside(orders))
    for name in MARKETPLACES:
        theirs = {e.incident for o, e in whole.expected.items() if o.startswith(name + ":")}
        assert theirs >= {"market-double", "market-unknown", "market-cancelled", "market-gift", "market-price"}
        assert ("market-variant" in theirs) == (name not in VARIANT_IN_TITLE)
        assert ("market-refund" in theirs, "market-hold" in theirs) == (name not in ASKED_ABOUT_REFUNDS, name in HOLDING)
    counts = Counter(e.incident for e in whole.expected.values() if e.incident and (e.rules or e.outcome == "withdrawn"))
    assert all(counts[i.id] == i.orders > 0 for i in whole.incidents if i.id.startswith(("market-", "two-")))


@pytest.mark.parametrize("orders", [80, 3000])
def test_payments_come_on_top_and_change_nothing(orders):
    """Orders of the mini-program that wait until WeChat Pay says that they are paid, at times before the site has told of them."""
    alone = make(orders, rate=50, start=START, marketplaces=MARKETPLACES)
    whole = make(orders, rate=50, start=START, marketplaces=MARKETPLACES, payments=True)
    new = set(whole.expected) - set(alone.expected)
    assert tuple(d for d in whole.deliveries if d.order_id not in new) == alone.deliveries
    assert {o.rpartition(":")[0] for o in new} == {"api:main"}
    assert len(new) == beside(orders)
    by_order = defaultdict(list)
    for d in whole.deliveries:
        if d.order_id in new:
            by_order[d.order_id].append(d)
    assert all([d.status for d in ds if not d.notice] == ["created"] and any(d.notice for d in ds) for ds in by_order.values())
    assert any(ds[0].notice for ds in by_order.values())
    assert any(d.repeat for ds in by_order.values() for d in ds)
    counts = Counter(whole.expected[o].incident for o in new)
    assert all(counts[i.id] == i.orders > 0 for i in whole.incidents if i.id.startswith("paid-"))
    assert {i.id for i in whole.incidents if i.id.startswith("paid-")} == {
        "paid-twice", "paid-wrong", "paid-back", "paid-part-back"
    }  # fmt: skip


def test_a_notice_comes_in_at_the_mini_program_s_door():
    """Sealed and signed as WeChat Pay does it, proved by what intake is told of the shop, and kept as it was drawn."""
    market = Market(["api:main"])
    notice = next(d for d in SEVEN.deliveries if d.notice)
    posting = market.posting(notice)
    push = Push(posting.body, {name.lower(): value for name, value in posting.headers.items()})
    secrets = [secret.encode() for secret in market.doors()["api:main"]]
    stamp = int(push.headers["wechatpay-timestamp"]) * 1000
    proved = channel("api").verify(push, secrets, stamp)
    assert (proved.how, proved.bodies) == ("rsa-sha256", (notice.body,))


def test_full_size_has_every_incident_as_told():
    """3,000 orders hold every incident: 47 of one segment within 30 s, 176 double orders."""
    counts = {i.id: i.orders for i in FULL.incidents}
    assert set(counts) == EVERY
    assert (counts["segment-burst"], counts["double-orders"]) == (47, 176)

    bodies = first_bodies(FULL)
    burst = [created(bodies[o]) for o, e in FULL.expected.items() if e.incident == "segment-burst"]
    assert len(burst) == 47
    assert max(burst) - min(burst) < 30 * SECOND
    marked = Counter(
        e.incident for e in FULL.expected.values() if e.incident and (e.rules or e.low or e.outcome != "released" or e.tag)
    )
    assert marked == counts


@pytest.mark.parametrize("orders", [3000, 60])
def test_a_clean_order_is_clean_by_the_rules_own_words(orders):
    """No released order shares, sums or prices itself into a medium or high rule, checked by brute force."""
    scenario = make(orders, rate=50, start=START)
    bodies = first_bodies(scenario)
    clean = {o for o in bodies if scenario.expected[o].outcome == "released" and scenario.expected[o].tag is None}
    in_time = {o: b for o, b in bodies.items() if scenario.expected[o].tag is None}
    catalogue = {c["code"]: line for line in scenario.catalogue for c in line["codes"] if c["channel"] == "api"}

    def others(order: str, what: str, back: int) -> list[str]:
        mine, t = bodies[order], created(bodies[order])
        value = {"user": mine["buyer"]["id"], "device": mine["buyer"]["device"]}.get(what) or mine["buyer"]["ip"].rpartition(".")[
            0
        ]
        return [
            o for o in groups[what][value] if o != order and t - back < created(bodies[o]) <= t and skus(bodies[o]) & skus(mine)
        ]

    groups: dict[str, dict[str, list[str]]] = {w: defaultdict(list) for w in ("user", "device", "segment", "payment", "address")}
    for o, b in in_time.items():
        groups["user"][b["buyer"]["id"]].append(o)
        groups["device"][b["buyer"]["device"]].append(o)
        groups["segment"][b["buyer"]["ip"].rpartition(".")[0]].append(o)
        groups["payment"][b["payment"]["id"]].append(o)
        groups["address"][b["ship_to"]["detail"]].append(o)
    trusted = {t["key"] for t in scenario.reference if t["kind"] == "trust"}

    for o in clean:
        body = bodies[o]
        assert not others(o, "user", 5 * MINUTE), o
        assert not others(o, "device", 5 * MINUTE), o
        assert len(others(o, "segment", 30 * SECOND)) < 10, o
        assert (
            body["payment"]["id"] in trusted
            or len({bodies[p]["buyer"]["id"] for p in groups["payment"][body["payment"]["id"]]}) == 1
        )
        same = [p for p in groups["address"][body["ship_to"]["detail"]] if created(bodies[p]) <= created(body)]
        assert sum(fen(bodies[p]["total"]) for p in same) <= 500_000, o
        gross = sum(fen(line["price"]) * line["quantity"] for line in body["lines"])
        for line in body["lines"]:
            article = catalogue[line["code"]]
            if line["gift"]:
                need = article["gift"]
                of = [x for x in body["lines"] if catalogue[x["code"]]["sku"] in need["with_any"]]
                assert sum(fen(x["price"]) * x["quantity"] for x in of) >= fen(need["min_total"]), o
                continue
            deal = fen(line["price"]) * fen(body["total"]) / gross
            floor = next((f for f in scenario.reference if f["kind"] == "floor" and f["sku"] == article["sku"]), None)
            assert deal >= (fen(floor["price"]) if floor else 0.85 * fen(article["base_price"])), o
            stock = next(
                (s["available"] for s in scenario.reference if s["kind"] == "stock" and s["sku"] == article["sku"]), None
            )
            assert stock is None or stock >= 1000, o
            if "colour" in article:
                assert line["spec"]["颜色"] == article["colour"]["name"], o
        near = any(0.99 * limit * 100 <= fen(body["total"]) <= limit * 100 for limit in (999, 1999, 4999))
        if not scenario.expected[o].low and not body.get("discounts"):
            assert not near, o


def test_double_orders_share_a_user_or_device_within_five_minutes():
    """Each double order repeats an article of an earlier order of the same user or device, none at the same instant."""
    bodies = first_bodies(FULL)
    for o, e in FULL.expected.items():
        if e.incident != "double-orders":
            continue
        mine = bodies[o]
        before = [
            p
            for p, b in bodies.items()
            if p != o
            and (b["buyer"]["id"] == mine["buyer"]["id"] or b["buyer"]["device"] == mine["buyer"]["device"])
            and 0 < created(mine) - created(b) < 5 * MINUTE
            and skus(b) & skus(mine)
        ]
        assert len(before) == 1, o


def test_a_buyer_on_two_channels_is_told_by_what_both_show(tmp_path):
    """One person, one article under two codes: caught where name and number stand there plainly; masked, nothing joins the two."""
    whole = make(80, rate=50, start=START, marketplaces=("taobao", "douyin"))
    first: dict[str, Order] = {}
    for d in whole.deliveries:
        if d.channel in ("taobao", "douyin"):
            raw = Raw(d.channel, d.shop, 0, d.body, detail=detail_of(d))
            parsed = channel(d.channel).parse(raw)
            assert isinstance(parsed, Order)
            first.setdefault(d.order_id, parsed)
    [caught] = [first[o] for o, e in whole.expected.items() if e.incident == "two-channels"]
    [before] = [o for o in first.values() if o.channel == "taobao" and o.ship_to.phone == caught.ship_to.phone]
    assert 0 < caught.created_at - before.created_at < 5 * MINUTE
    assert caught.lines[0].code != before.lines[0].code
    assert caught.buyer.id != before.buyer.id
    assert sum("*" in o.ship_to.phone for o in first.values()) == len(first) - 2


def test_long_runs_keep_each_incident_inside_its_window():
    """At half an hour's length, doubles still fall within 5 minutes and the fan club's leader within 10."""
    slow = make(3000, rate=1.6, start=START)
    bodies = first_bodies(slow)
    leader = sorted(created(bodies[o]) for o, e in slow.expected.items() if e.incident == "user-burst")
    assert leader[-1] - leader[0] < 10 * MINUTE
    assert all(0 < b - a < 5 * MINUTE for a, b in pairwise(leader))
    phones = [created(bodies[o]) for o, e in slow.expected.items() if e.incident == "virtual-phone-batch"]
    assert max(phones) - min(phones) < 10 * MINUTE


@pytest.mark.parametrize("minutes", range(-4, 3))
def test_the_address_passes_its_limit_on_one_calendar_day(minutes):
    """However near midnight the peak starts, the address's orders lie on one day of the shop."""
    scenario = make(3000, rate=50, start=times.parse("2026-11-12T00:00:00+08:00") + minutes * 20 * SECOND)
    bodies = first_bodies(scenario)
    for incident in ("address-sum", "all-at-once"):
        days = {
            times.day_start(created(bodies[o]), "Asia/Shanghai") for o, e in scenario.expected.items() if e.incident == incident
        }
        assert len(days) == 1


def test_the_unusual_address_is_60_km_off_after_three_usual_ones():
    """The buyer's three earlier orders precede it, arrive within the lateness, and lie 60 km away; the 40 km buyer is clean."""
    bodies = first_bodies(FULL)
    [far] = [o for o, e in FULL.expected.items() if e.incident == "unusual-address"]
    mine = bodies[far]
    past = [b for o, b in bodies.items() if b["buyer"]["id"] == mine["buyer"]["id"] and o != far]
    assert len(past) == 3
    assert all(created(b) < created(mine) for b in past)
    assert all(50 < kilometres(b["ship_to"], mine["ship_to"]) < 65 for b in past)
    sent = {d.order_id: d.at for d in reversed(FULL.deliveries)}
    for o, b in bodies.items():
        if b["buyer"]["id"] == mine["buyer"]["id"]:
            assert FULL.start + sent[o] - created(b) < HOUR


def kilometres(a: dict, b: dict) -> float:
    p, q = radians(a["lat"]), radians(b["lat"])
    h = sin((q - p) / 2) ** 2 + cos(p) * cos(q) * sin(radians(b["lon"] - a["lon"]) / 2) ** 2
    return 2 * 6371.0 * asin(sqrt(h))


def test_late_orders_are_late_and_all_others_are_not():
    """Only orders tagged late arrive more than an hour after they were made."""
    first = {d.order_id: d.at for d in reversed(FULL.deliveries)}
    for o, body in first_bodies(FULL).items():
        wait = FULL.start + first[o] - created(body)
        assert (wait > HOUR) == (FULL.expected[o].tag == "late"), o
        assert wait > -5 * MINUTE


def test_repeats_are_the_same_bytes():
    """A repeated delivery has the very bytes of an earlier one; there are orders delivered five times and orders cancelled."""
    by_order = defaultdict(list)
    for d in FULL.deliveries:
        by_order[d.order_id].append(d)
    counts = Counter(sum(d.repeat for d in ds) for ds in by_order.values())
    assert set(counts) >= {0, 1, 4}
    for ds in by_order.values():
        seen = set()
        for d in ds:
            assert not d.repeat or d.body in seen
            seen.add(d.body)


def test_catalogue_and_replay_are_of_the_published_form(tmp_path):
    """Our own loader reads the catalogue; every replay line has its kind's fields; a body that is no JSON keeps its bytes."""
    write_catalogue(tmp_path / "catalogue.jsonl", FULL)
    catalogue = Catalogue.load(tmp_path / "catalogue.jsonl")
    assert catalogue.size >= 40
    assert catalogue.skus("api", "live", "live-rack-b", START) == ["SKU2"]

    write_replay(tmp_path / "replay.jsonl", FULL)
    lines = [json.loads(line) for line in (tmp_path / "replay.jsonl").read_text("utf-8").splitlines()]
    assert Counter(line["kind"] for line in lines)["raw"] == len(FULL.deliveries)
    raws = [line for line in lines if line["kind"] == "raw"]
    arrivals = [times.parse(line["received_at"]) for line in raws]
    assert arrivals == sorted(arrivals)
    [broken] = [line for line in raws if "body_base64" in line]
    digest = hashlib.sha256(base64.b64decode(broken["body_base64"])).hexdigest()
    assert FULL.expected[f"raw:{digest}"].outcome == "rejected"
    assert all("x-shopify-topic" in line["headers"] for line in raws if line["channel"] == "shopify")


def test_every_payload_is_read_by_its_channel_as_meant():
    """Each delivery parses to an order (WeChat Pay's to its payment or refund) of the id that the scenario says, the rejected ones to a reject."""
    for d in SEVEN.deliveries:
        raw = Raw(d.channel, d.shop, SEVEN.start + d.at, d.body, d.headers, detail=detail_of(d))
        parsed = channel(d.channel).parse(raw)
        meant = Rejected if SEVEN.expected[d.order_id].outcome == "rejected" else Paid | Refund if d.notice else Order
        assert isinstance(parsed, meant), (d.order_id, parsed)
        assert parsed.order_id == d.order_id


@pytest.mark.parametrize(("orders", "rate"), [(1000, 50), (80, 200), (400, 2)])
def test_the_kernel_with_the_standard_pack_says_what_is_expected(tmp_path, orders, rate):
    """Replayed through the line in process, each order ends as labelled: every incident caught, no false alarm."""
    scenario = make(orders, rate=rate, start=START, marketplaces=MARKETPLACES, payments=True)
    write_catalogue(tmp_path / "catalogue.jsonl", scenario)
    write_replay(tmp_path / "replay.jsonl", scenario)
    keys = Keys(b"k")
    book = PackBook([pack.load(data_file("rules/standard"))])
    line = Pipeline(Catalogue.load(tmp_path / "catalogue.jsonl"), book, keys, "Asia/Shanghai")
    for item in read_file(tmp_path / "replay.jsonl", keys, "CNY"):
        line.feed(item)
    verdicts = {v.order_id: v for v in line.verdicts()}

    assert set(verdicts) == set(scenario.expected)
    for order, expected in scenario.expected.items():
        said = verdicts[order]
        ending = "stopped" if said.verdict in ("review", "frozen") else said.verdict
        assert ending == expected.outcome, (order, expected, said)
        assert {*expected.rules, *expected.low} <= {signal.rule for signal in said.signals}, (order, expected, said)
