"""A live-stream peak, order by order, with the answer beside each.

Law: `make` is pure. The same size, rate, seed and start give the same bytes, and an order that is labelled clean is clean by the
standard pack's own words (windows, sums, stock, prices, places), so that a false alarm is a fault and never bad luck.

How the size scales the incidents: with 3,000 orders or more, all are as the articles tell them (47 orders of one segment in 30 s,
176 double orders). Below that the double orders shrink in proportion (176 × orders ÷ 3000, at least one); the segment's 47 become 24
below 400 orders (the rule needs 20). Incidents take at most 60 % of the orders: what does not fit is left out, the segment first, and
`Scenario.incidents` lists only what is in.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from orderstream import times
from orderstream.channels import channel as channel_of
from orderstream.channels import wechatpay as pay
from orderstream.orders import Raw
from orderstream.simulators import api, douyin, jd, shopify, taobao, wechat, wechatpay, youzan
from orderstream.simulators import assortment as goods
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.people import DEQING, HANGZHOU, HUZHOU, People, Person
from orderstream.times import DAY, HOUR, MINUTE, SECOND

Outcome = Literal["released", "stopped", "withdrawn", "rejected"]
"""How an order should end. stopped: review or frozen, whichever the rules' levels say."""

FULL = 3_000
"""Orders from which on every incident has its full size."""

MAIN, LIVE, SITE = "main", "live", "global"
"""The shops: mini-program and live room (channel api), the Shopify site."""

USD = 7.11
"""Yuan for a dollar, as the scenario's `rate` record says."""


MARKETPLACES: tuple[str, ...] = ("youzan", "douyin", "wechat", "taobao", "jd")
"""The channels that have one shop more each, `main`, where they are asked for."""

HOLDING = frozenset({"wechat", "taobao", "jd"})
"""Marketplaces that can tell a shop not to ship."""
PAID_ONLY = frozenset({"jd"})
"""Marketplaces that tell of no order before it is paid."""
ASKED_ABOUT_REFUNDS = frozenset({"jd"})
"""Marketplaces whose orders do not say that a refund is under way."""
VARIANT_IN_TITLE = frozenset({"jd"})
"""Marketplaces that tell a line's colour in its title alone: `wrong-variant` is not available there."""

ASKED = frozenset({*MARKETPLACES, "shopify"})
"""Channels whose platform can be asked what its orders are now."""

SHOPS = (f"api:{MAIN}", f"api:{LIVE}", f"shopify:{SITE}", *(f"{channel}:{MAIN}" for channel in MARKETPLACES))
"""Every shop that may sell."""

BODIES = {
    "api": api.body,
    "shopify": shopify.body,
    "youzan": youzan.body,
    "douyin": douyin.body,
    "wechat": wechat.body,
    "taobao": taobao.body,
    "jd": jd.body,
}
"""How each channel's webhooks say what a draft is."""

DETAILS = {"youzan": youzan.detail, "douyin": douyin.detail, "wechat": wechat.detail, "taobao": taobao.detail}
"""What a platform answers when it is asked for the order that its webhook only names."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook. at: ms after the scenario's start at which the shop sends it; topic: Shopify's X-Shopify-Topic.

    revision, status: what the body says of the order; repeat: the same bytes were sent before. told: what it was made from, where
    a platform's API tells it as well. notice: it is WeChat Pay that tells it, and body what is within its seal.
    """

    at: int
    channel: str
    shop: str
    body: bytes
    order_id: str
    topic: str | None = None
    revision: int = 1
    status: str = "paid"
    repeat: bool = False
    told: tuple[Draft, Event] | None = None
    notice: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What intake keeps of the webhook's headers; a signature's value is nobody's after it."""
        topic = {"x-shopify-topic": self.topic} if self.topic is not None else {}
        return topic | ({pay.SIGNATURE: "simulated"} if self.notice else {})


@dataclass(frozen=True, slots=True)
class Expected:
    """What the standard pack should say of an order at the end.

    rules: medium and high rules that must be among its signals. low: low ones that must. incident: what it belongs to.
    """

    order_id: str
    outcome: Outcome
    rules: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    incident: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that goes wrong on purpose. orders: how many orders carry its mark, innocent companions left out."""

    id: str
    zh: str
    en: str
    orders: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole peak. start: ms UTC, the zero of every `Delivery.at`; duration: ms until the last one.

    reference: stock, trust, rate and floor records in the replay file's form, all older than the first order.
    """

    start: int
    duration: int
    deliveries: tuple[Delivery, ...]
    expected: dict[str, Expected]
    incidents: tuple[Incident, ...]
    catalogue: tuple[dict[str, Any], ...]
    reference: tuple[dict[str, Any], ...]


def make(
    orders: int,
    *,
    rate: float,
    seed: int = 1111,
    start: int,
    zone: str = "Asia/Shanghai",
    first_order: int = 0,
    first_buyer: int = 0,
    marketplaces: Sequence[str] = (),
    payments: bool = False,
) -> Scenario:
    """A peak of `orders` distinct orders at about `rate` a second, event times around `start` (ms UTC).

    zone: the shop's; the address past its *day's* limit is kept on one calendar day. first_order, first_buyer: how many there
    were before, for one peak after another: orders are then new ones, and the same first_buyer and seed bring the same people.
    marketplaces: of `MARKETPLACES`, those that sell besides: `beside` orders more each, and nothing of the others changes.
    payments: as many more of the mini-program's, of which WeChat Pay tells that they are paid.
    """
    if orders < 1 or rate <= 0:
        raise ValueError("a scenario needs at least one order and a rate above zero")
    return _Peak(orders, rate, seed, start, zone, first_order, first_buyer).run(marketplaces, payments=payments)


def beside(orders: int) -> int:
    """How many orders a marketplace's shop has beside a peak of so many."""
    return max(12, orders // 25)


def write_catalogue(path: Path, scenario: Scenario) -> None:
    """The catalogue file of the scenario's shop, JSON lines."""
    path.write_bytes(b"".join(compact(line) + b"\n" for line in scenario.catalogue))


def write_replay(path: Path, scenario: Scenario, *, transit_ms: int = 3) -> None:
    """The scenario as a replay file, JSON lines in arrival order: reference records first, then every delivery.

    transit_ms: between a shop's sending and received_at.
    """
    path.write_bytes(b"".join(compact(line) + b"\n" for line in replay(scenario, transit_ms=transit_ms)))


def replay(scenario: Scenario, *, transit_ms: int = 3) -> Iterable[dict[str, Any]]:
    """The records of `write_replay`."""
    yield from scenario.reference
    for delivery in scenario.deliveries:
        record: dict[str, Any] = {
            "kind": "raw",
            "channel": delivery.channel,
            "shop": delivery.shop,
            "received_at": times.text(scenario.start + delivery.at + transit_ms),
        }
        try:
            record["body"] = orjson.loads(delivery.body)
        except orjson.JSONDecodeError:
            record["body_base64"] = base64.b64encode(delivery.body).decode()
        if delivery.headers:
            record["headers"] = delivery.headers
        detail = detail_of(delivery)
        if detail is not None:
            record["detail"] = orjson.loads(detail)
        yield record


def detail_of(delivery: Delivery) -> bytes | None:
    """What the platform answers about a delivery that only names its order, at that moment; None for one that says all."""
    raw = Raw(delivery.channel, delivery.shop, 0, delivery.body)
    if delivery.told is None or not channel_of(delivery.channel).thin(raw):
        return None
    return DETAILS[delivery.channel](*delivery.told, goods.by_sku())


class _Peak:
    """The drawing of one scenario: every draw from one seeded generator, in one order."""

    def __init__(self, orders: int, rate: float, seed: int, start: int, zone: str, first_order: int, first_buyer: int) -> None:
        self.size = orders
        self.start = start
        self.zone = zone
        self.span = max(int(orders / rate * 1000), 2_000)
        self.rng = random.Random(seed)  # noqa: S311  a simulation that must repeat
        self.people = People(self.rng, first_buyer)
        self.articles = goods.by_sku()
        self.numbers = self.first = first_order
        self.gateways = 0
        self.deliveries: list[Delivery] = []
        self.expected: dict[str, Expected] = {}
        self.incidents: list[Incident] = []
        self.trust: list[dict[str, Any]] = []
        self.shelf = [a for a in goods.ARTICLES if a.group in ("shelf", "bundle", "floor")]
        self.hot = [a for a in goods.ARTICLES if a.group == "hot"]

    def run(self, marketplaces: Sequence[str], *, payments: bool) -> Scenario:
        room = int(self.size * 0.6)
        doubles = max(1, round(176 * min(1.0, self.size / FULL))) if self.size >= 20 else 0
        room -= doubles
        for orders, incident in (
            (5, self._payment_shared),
            (5, self._address_sum),
            (3, self._gift),
            (4, self._price),
            (8, self._unusual_address),
            (5, self._near_threshold),
            (3, self._wrong_variant),
            (2, self._unknown_article),
            (5, self._rejected),
            (2, self._hold),
            (6, self._cross_border),
            (3, self._refunding),
            (6, self._fan_leader),
            (1, self._oversold),
            (4, self._virtual_phones),
            (5, self._all_at_once),
            (3 + self.size // 400, self._late),
            (3 + self.size // 150, self._cancelled),
        ):
            if orders <= room:
                room -= orders
                incident(orders)
        burst = 47 if self.size >= 400 else 24
        if burst <= room:
            self._segment_burst(burst)
        self._buyers(self.size - (self.numbers - self.first) - doubles, doubles)
        # last of all, so that they change nothing that was drawn before
        if marketplaces:
            self._marketplaces(marketplaces)
        if payments:
            self._payments(beside(self.size))
        self.deliveries.sort(key=lambda d: (d.at, d.order_id))
        return Scenario(
            start=self.start,
            duration=self.deliveries[-1].at,
            deliveries=tuple(self.deliveries),
            expected=self.expected,
            incidents=tuple(self.incidents),
            catalogue=tuple(goods.catalogue()),
            reference=tuple(self._reference()),
        )

    # the people who just buy

    def _buyers(self, count: int, doubles: int) -> None:
        doubled = set(self.rng.sample(range(max(1, int(count * 0.8))), min(doubles, int(count * 0.8)))) if doubles else set()
        for i in range(count):
            at = int((i + self.rng.random()) * self.span / count)
            draft = self._clean(at)
            # their history needs no second order of another kind: the label of both must hold by itself
            if i in doubled:
                draft = replace(draft, channel="api", shop=LIVE, dollars=None)
                draft.buyer = self.people.buyer()
                draft.lines, draft.coupon = [self._line(self.rng.choice(self.hot))], 0
                self._send(draft)
                self._double(draft)
            else:
                self._ordinary(draft)
        if doubled:
            self._note("double-orders", "粉丝团重复下单", "double orders by fan clubs", len(doubled))

    def _ordinary(self, draft: Draft) -> None:
        rng = self.rng
        luck = rng.random()
        if luck < 0.04 and draft.channel == "api":
            # ordered first, paid some seconds later: pending in between
            self._send(draft, status="created", revision=1)
            paid = draft.created + rng.randint(1_000, 6_000)
            self._deliver(draft, paid, status="paid", revision=2)
        elif luck < 0.07:
            # a platform that did not hear our answer sends the same bytes again
            first = self._send(draft)
            for _ in range(rng.randint(1, 4)):
                again = first.at + rng.randint(150, 8_000)
                self.deliveries.append(replace(first, at=again, repeat=True))
        else:
            self._send(draft)

    def _clean(self, at: int) -> Draft:
        """An order that no medium or high rule has anything to say about."""
        rng = self.rng
        site = rng.random() < 0.15
        buyer = self.people.buyer(abroad=site)
        if not site and at >= self.gateways and rng.random() < 0.2:
            # a carrier's gateway: many people behind one segment, far below a burst
            buyer = replace(buyer, ip=f"100.64.8.{rng.randint(2, 250)}")
            self.gateways = at + 4_000
        while True:
            lines, coupon = self._basket(site=site)
            draft = Draft(
                self._number(),
                "shopify" if site else "api",
                SITE if site else rng.choice((MAIN, LIVE, LIVE)),
                buyer,
                lines,
                at,
                coupon,
                remark=None if rng.random() < 0.1 else rng.choice(("请尽快发货", "工作日送", "放快递柜", "送货前电话联系")),
                postcode=rng.random() > 0.05,
                dollars=USD * rng.uniform(0.995, 1.005) if site and rng.random() < 0.5 else None,
            )
            near = any(limit * 97 <= draft.total <= limit * 102 for limit in (999, 1999, 4999))
            if draft.total < 300_000 and not near:
                return draft
            self.numbers -= 1

    def _basket(self, *, site: bool) -> tuple[list[Line], int]:
        rng = self.rng
        lines: list[Line] = []
        coupon = 0
        if rng.random() < 0.68:
            rack = self._line(rng.choices(self.hot, (6, 4))[0], rng.choices((1, 2), (9, 1))[0])
            lines.append(rack)
            luck = rng.random()
            if luck < 0.12 and not site:
                # the gift's condition is on the racks' own total: sold at base price, and without a coupon
                lines.append(Line(goods.CLOTH_GIFT, 1, 0, gift=True))
                return lines, 0
            if luck < 0.25:
                lines.append(self._line(rng.choice(self.shelf)))
        else:
            chosen = rng.sample(self.shelf, rng.choices((1, 2, 3), (7, 2, 1))[0])
            lines += [self._line(article, rng.choices((1, 2), (8, 2))[0]) for article in chosen]
        # at most 5 % off what was not marked down already: well above the 85 %
        if rng.random() < 0.2:
            coupon = sum(line.quantity * (line.price or 0) for line in lines) // 2000 * 100
        return lines, coupon

    def _line(self, article: goods.Article, quantity: int = 1) -> Line:
        # the blanket is sold far below its base price: its campaign's floor allows it
        return Line(article.sku, quantity, 22_900 if article.group == "floor" else article.base)

    # the incidents

    def _double(self, draft: Draft) -> None:
        """The same again a moment later: mostly the same user, at times the same phone with another account."""
        again = replace(
            draft, number=self._number(), created=draft.created + self.rng.randint(400, min(240_000, max(2_000, self.span // 6)))
        )
        if self.rng.random() < 0.25:
            again.buyer = replace(self.people.buyer(), device=draft.buyer.device)
        self._send(again, rules=("duplicate-order",), incident="double-orders")

    def _segment_burst(self, count: int) -> None:
        first = int(self.span * 0.3)
        width = min(28 * SECOND, int(self.span * 0.6))
        shoe = self.articles[goods.SNEAKER]
        for i in range(count):
            buyer = replace(
                self.people.buyer(),
                ip=f"203.0.113.{2 + i * 5 % 250}",
                registered_days=self.rng.uniform(2, 10),
            )
            draft = self._draft(first + width * i // count, [self._line(shoe)], buyer=buyer, shop=LIVE, remark=None)
            self._send(draft, rules=("ip-segment-burst",), incident="segment-burst")
        self._note("segment-burst", f"同一 IP 段 30 秒 {count} 单抢购跑鞋", f"{count} orders from one segment in 30 s", count)

    def _payment_shared(self, _: int) -> None:
        for i in range(3):
            buyer = replace(self.people.buyer(), payment="p-proxy-7")
            draft = self._draft(self._moment(0.2 + 0.2 * i), [self._line(self.hot[0])], buyer=buyer)
            self._send(draft, rules=("payment-shared",), incident="payment-shared")
        home = self.people.buyer()
        couple = [replace(home, payment="p-family-1"), replace(self.people.buyer(home.place), payment="p-family-1")]
        for i, buyer in enumerate(couple):
            self._send(self._draft(self._moment(0.25 + 0.3 * i), [self._line(self.shelf[i])], buyer=buyer))
        self.trust.append(
            {
                "kind": "trust",
                "at": times.text(self.start - DAY),
                "until": times.text(self.start + 365 * DAY),
                "entity": "payment",
                "key": "p-family-1",
                "with": [buyer.user for buyer in couple],
                "rules": ["payment-shared"],
                "why": "family",
            }
        )
        self._note("payment-shared", "多个账号共用一个支付账户", "a payment account shared by accounts", 3)

    def _address_sum(self, count: int) -> None:
        spellings = ("翠苑街道文二路８８８号９幢１０１室", "翠苑街道文二路888号9幢101室", "翠苑街道文二路八百八十八号九幢101室")
        desk = self.articles[goods.DESK]
        step = min(60_000, self.span // 25)
        first = self._one_day(int(self.span * 0.15), step * count)
        past = 0
        for i in range(count):
            buyer = self.people.buyer().at(HANGZHOU, spellings[i % len(spellings)])
            rules = ("address-sum",) if (i + 1) * desk.base > 500_000 else ()
            past += bool(rules)
            draft = self._draft(first + i * step, [self._line(desk)], buyer=buyer)
            self._send(draft, rules=rules, incident="address-sum")
        self._note("address-sum", "同一地址当日累计超 5000 元", "an address past its day's limit", past)

    def _gift(self, _: int) -> None:
        cloth, hooks = Line(goods.CLOTH_GIFT, 1, 0, gift=True), self._line(self.articles["SKU7"])
        tablet = Line("SKU34", 1, 0, gift=True)
        for i, lines in enumerate(([hooks, cloth], [self._line(self.hot[1]), tablet], [self._line(self.shelf[4]), cloth])):
            draft = self._draft(self._moment(0.1 + 0.25 * i), lines)
            self._send(draft, rules=("gift-without-main",), incident="gift-without-main")
        self._note("gift-without-main", "有赠品无主商品", "a gift without its main article", 3)

    def _price(self, _: int) -> None:
        rack, lamp = self.hot[0], self.articles["SKU24"]
        cases = (
            ([Line(rack.sku, 1, 13_900)], 0),
            ([Line(lamp.sku, 1, 27_000)], 0),
            # a fair price, and a coupon that takes a third of it
            ([self._line(rack)], 6_000),
            # exactly 85 %: not under it
            ([Line(lamp.sku, 2, lamp.base * 85 // 100)], 0),
        )
        for i, (lines, coupon) in enumerate(cases):
            draft = self._draft(self._moment(0.12 + 0.2 * i), lines, coupon=coupon)
            self._send(draft, rules=("price-deviation",) if i < 3 else (), incident="price-deviation" if i < 3 else None)
        self._note("price-deviation", "成交价低于基准价 85%", "a price under 85 %", 3)

    def _unusual_address(self, _: int) -> None:
        for far, (place, rules) in enumerate(((HUZHOU, ("unusual-address",)), (DEQING, ()))):
            home = self.people.buyer(HANGZHOU).at(HANGZHOU, f"古荡街道天目山路{100 + far}号{far + 1}幢501室")
            for i, minutes in enumerate((50, 35, 20)):
                # earlier the same evening; their webhooks were held up and come now, well within the lateness
                draft = self._draft(-minutes * MINUTE, [self._line(self.shelf[6 + 2 * i])], buyer=home)
                self._send(draft, sent=40 * (3 * far + i))
            away = home.at(place, f"府前路{20 + far}号2单元301室")
            draft = self._draft(self._moment(0.5 + 0.1 * far), [self._line(self.hot[0])], buyer=away)
            self._send(draft, rules=rules, incident="unusual-address" if rules else None)
        self._note("unusual-address", "收货地偏离常驻区域 60 公里", "an address 60 km from the usual", 1)

    def _near_threshold(self, _: int) -> None:
        fan, box = self.articles[goods.EXACT_998], self.articles[goods.EXACT_999]
        for i, article in enumerate((fan, box, fan, box)):
            draft = self._draft(self._moment(0.15 + 0.18 * i), [self._line(article)])
            self._send(draft, low=("near-threshold",), incident="near-threshold")
        # the same sum with a coupon is a good customer
        draft = self._draft(self._moment(0.5), [self._line(box), self._line(self.articles["SKU7"])], coupon=3_000)
        self._send(draft)
        self._note("near-threshold", "998、999 元且无优惠券", "998- and 999-yuan orders without coupon", 4)

    def _wrong_variant(self, count: int) -> None:
        for i in range(count):
            line = self._line(self.articles[goods.RACK_WALNUT])
            line.code, line.colour = goods.LIVE_WRONG_CODE, "原木色"
            self._send(
                self._draft(self._moment(0.2 + 0.22 * i), [line], shop=LIVE), rules=("wrong-variant",), incident="wrong-variant"
            )
        self._note("wrong-variant", "编码映射到错误颜色", "the wrong colour behind a mapped code", count)

    def _unknown_article(self, count: int) -> None:
        for i in range(count):
            line = self._line(self.hot[0])
            line.code = ("mini-1O1", "mini-9101")[i % 2]
            self._send(self._draft(self._moment(0.3 + 0.3 * i), [line]), rules=("unknown-article",), incident="unknown-article")
        self._note("unknown-article", "未映射的商品编码", "an article code that nobody mapped", count)

    def _hold(self, count: int) -> None:
        for i in range(count):
            draft = self._draft(self._moment(0.35 + 0.3 * i), [self._line(self.shelf[2])], hold="平台风控：请勿发货")
            self._send(draft, rules=("platform-hold",), incident="platform-hold")
        self._note("platform-hold", "平台要求暂停发货", "the platform says do not ship", count)

    def _cross_border(self, _: int) -> None:
        chest = self.articles[goods.EXPORT]
        papers = {"hs_codes": {"1": chest.hs}, "declaration": "D20261111-01"}
        cases: tuple[tuple[str, str | None, float | None, dict[str, Any] | None], ...] = (
            ("shopify", "currency-odds", USD * 1.12, None),
            ("shopify", "customs-missing", None, None),
            ("api", "customs-missing", None, None),
            ("api", "hs-code", None, {"hs_codes": {"1": "85171300"}, "declaration": "D20261111-02"}),
            ("api", None, None, papers),
            ("shopify", None, USD, None),
        )
        for i, (channel, rule, dollars, customs) in enumerate(cases):
            article = self.shelf[0] if rule == "currency-odds" or (channel == "shopify" and rule is None) else chest
            draft = self._draft(
                self._moment(0.1 + 0.13 * i),
                [self._line(article)],
                buyer=self.people.buyer(abroad=True),
                channel=channel,
                shop=SITE if channel == "shopify" else MAIN,
                dollars=dollars,
                customs=customs,
            )
            self._send(draft, rules=(rule,) if rule else (), incident="cross-border" if rule else None)
        self._note("cross-border", "跨境：汇率异常、清关资料缺失、海关编码错误", "cross-border: conversion, papers, HS code", 4)

    def _refunding(self, count: int) -> None:
        for i in range(count):
            draft = self._draft(self._moment(0.1 + 0.2 * i), [self._line(self.shelf[8])])
            self._send(draft, rules=("refund-open",), incident="refund-open", revision=1)
            self._deliver(draft, draft.created + self._soon(), status="refunding", revision=2)
        self._note("refund-open", "发货前申请退款", "a refund under way before shipment", count)

    def _fan_leader(self, count: int) -> None:
        buyer = self.people.buyer()
        first, step = self._moment(0.1), min(60_000, self.span // 9)
        for i in range(count):
            draft = self._draft(first + step * i, [self._line(self.hot[1])], buyer=buyer, shop=LIVE)
            rules = ("user-burst", "duplicate-order") if i else ("user-burst",)
            self._send(draft, rules=rules, incident="user-burst")
        self._note("user-burst", f"粉丝团团长代拍 {count} 单", f"a fan club's leader places {count} orders", count)

    def _oversold(self, _: int) -> None:
        draft = self._draft(self._moment(0.45), [self._line(self.articles[goods.SHORT], 8)])
        self._send(draft, rules=("oversold",), incident="oversold")
        self._note("oversold", "下单数量超过可用库存", "a quantity above what is available", 1)

    def _virtual_phones(self, count: int) -> None:
        device = self.people.buyer().device
        first, step = self._moment(0.5), min(60_000, self.span // 25)
        for i in range(count):
            buyer = replace(self.people.buyer(), device=device, phone=f"170{40_000_000 + i:08d}", registered_days=0.05)
            draft = self._draft(first + step * i, [self._line(self.articles[goods.SMALL])], buyer=buyer)
            self._send(draft, rules=("virtual-phone-batch",), incident="virtual-phone-batch")
        self._note("virtual-phone-batch", "虚拟号批量注册＋小额支付", "virtual numbers, new accounts, small payments", count)

    def _all_at_once(self, count: int) -> None:
        """The first article's level three: price, address and pace together."""
        desk = self.articles[goods.DESK]
        price = desk.base * 8 // 10
        buyer = self.people.buyer()
        step = min(60_000, self.span // 40)
        first = self._one_day(int(self.span * 0.55), step * count)
        for i in range(count):
            rules = ("price-deviation", "user-burst") + (("address-sum",) if (i + 1) * price > 500_000 else ())
            draft = self._draft(first + i * step, [Line(desk.sku, 1, price)], buyer=buyer)
            self._send(draft, rules=rules, incident="all-at-once")
        self._note("all-at-once", "价格异常＋地址集中＋高频下单", "price, address and burst together", count)

    def _late(self, count: int) -> None:
        for i in range(count):
            draft = self._draft(-(70 + i % 30) * MINUTE, [self._line(self.hot[0])])
            self._send(draft, sent=self._moment(0.05 + 0.9 * i / count), incident="late", tag="late")
        self._note("late", "渠道延迟一小时以上才送达", "orders that arrive over an hour late", count)

    def _cancelled(self, count: int) -> None:
        for i in range(count):
            draft = self._draft(self._moment(0.02 + 0.8 * i / count), [self._line(self.rng.choice(self.shelf))])
            self._send(draft, outcome="withdrawn", incident="cancelled", status="created", revision=1)
            paid = draft.created + self._soon()
            self._deliver(draft, paid, status="paid", revision=2)
            self._deliver(draft, paid + self._soon(), status="cancelled", revision=3)
        self._note("cancelled", "下单、付款、取消", "ordered, paid, cancelled", count)

    def _rejected(self, count: int) -> None:
        rack = {"id": "1", "code": self.hot[0].code("api"), "quantity": 1, "price": "199.00"}
        broken: tuple[dict[str, Any], ...] = (
            {"lines": [rack | {"price": "NaN"}]},
            {"lines": [rack | {"quantity": 0}]},
            {"currency": "XXQ"},
            {"created_at": "2026-11-11 00:00:01"},
        )
        for i in range(count):
            draft = self._draft(self._moment(0.1 + 0.17 * i), [self._line(self.hot[0])])
            if i < len(broken):
                draft.extra = broken[i]
                self._send(draft, outcome="rejected", incident="rejected")
                continue
            body = BODIES[draft.channel](draft, Event(self.start, "paid", 1, draft.created), self.articles)[:-40]
            name = f"raw:{hashlib.sha256(body).hexdigest()}"
            self.expected[name] = Expected(name, "rejected", incident="rejected")
            self.deliveries.append(Delivery(draft.created, draft.channel, draft.shop, body, name))
        self._note("rejected", "无法解析的报文", "payloads that are no order", count)

    # the marketplaces

    def _marketplaces(self, channels: Sequence[str]) -> None:
        """A shop on each: mostly people who just buy, and of each thing that goes wrong there a few."""
        count = beside(self.size)
        few = 1 + count // 60
        if {"taobao", "douyin"} <= {*channels}:
            self._two_channels(few)
        for channel in channels:
            self._market_double(channel, few)
            if channel not in ASKED_ABOUT_REFUNDS:
                self._market_refunding(channel, few)
            if channel in HOLDING:
                self._market_held(channel, few)
            self._market_unknown(channel, few)
            self._market_cancelled(channel, few)
            if channel not in VARIANT_IN_TITLE:
                self._market_variant(channel, few)
            self._market_gift(channel, few)
            self._market_price(channel, few)
            plain = count - sum(order.startswith(f"{channel}:") for order in self.expected)
            for i in range(plain):
                self._market_ordinary(self._market_draft(channel, int((i + self.rng.random()) * self.span / plain)))
        shops = len(channels) * few
        refunding, holding, varied = (
            few * len([c for c in channels if c in some])
            for some in ({*channels} - ASKED_ABOUT_REFUNDS, HOLDING, {*channels} - VARIANT_IN_TITLE)
        )
        self._note("market-double", "平台店铺重复下单", "double orders in marketplaces' shops", shops)
        self._note("market-refund", "平台店铺发货前申请退款", "refunds under way in marketplaces' shops", refunding)
        self._note("market-hold", "平台要求店铺暂停发货", "marketplaces that say do not ship", holding)
        self._note("market-unknown", "平台店铺的编码未映射", "unmapped codes in marketplaces' shops", shops)
        self._note("market-cancelled", "平台店铺下单、付款、取消", "paid and cancelled in marketplaces' shops", shops)
        self._note("market-variant", "平台店铺编码映射到错误颜色", "the wrong colour in marketplaces' shops", varied)
        self._note("market-gift", "平台店铺有赠品无主商品", "gifts without their main article in marketplaces' shops", shops)
        self._note("market-price", "平台店铺成交价低于基准价 85%", "prices under 85 % in marketplaces' shops", shops)

    def _two_channels(self, count: int) -> None:
        """One buyer, one article, two channels with a code each: seen where both show who receives, and not where they hide it."""
        for i in range(2 * count):
            shown = i % 2 == 0
            buyer = self.people.buyer()
            first = self._moment(0.1 + 0.35 * i / count)
            lines = [self._line(self.hot[0])]
            self._send(self._draft(first, lines, buyer=buyer, channel="taobao", open=shown))
            again = first + self.rng.randint(2_000, min(240_000, max(4_000, self.span // 6)))
            # the same person has another number on every channel
            other = replace(buyer, user=self.people.buyer().user)
            rules = ("duplicate-order",) if shown else ()
            draft = self._draft(again, lines, buyer=other, channel="douyin", open=shown)
            self._send(draft, rules=rules, incident="two-channels" if shown else None)
        self._note("two-channels", "同一买家在淘宝和抖音重复下单", "one buyer's double orders on Taobao and Douyin", count)

    def _market_draft(self, channel: str, at: int, lines: list[Line] | None = None) -> Draft:
        """An order that no medium or high rule has anything to say about."""
        while True:
            basket, coupon = self._basket(site=False) if lines is None else (lines, 0)
            draft = self._draft(at, basket, channel=channel, coupon=coupon)
            near = any(limit * 97 <= draft.total <= limit * 102 for limit in (999, 1999, 4999))
            if draft.total < 300_000 and not near:
                return draft
            self.numbers -= 1

    def _market_ordinary(self, draft: Draft) -> None:
        if self.rng.random() < 0.2:
            self._send(draft, status="created", revision=1)
            self._deliver(draft, draft.created + self._soon(), status="paid", revision=2)
            return
        first = self._send(draft)
        if self.rng.random() < 0.1:
            again = first.at + self.rng.randint(150, 4_000)
            self.deliveries.append(replace(first, at=again, repeat=True))

    def _market_double(self, channel: str, count: int) -> None:
        for i in range(count):
            draft = self._market_draft(channel, self._moment(0.1 + 0.7 * i / count), [self._line(self.hot[0])])
            self._send(draft)
            again = draft.created + self.rng.randint(2_000, min(240_000, max(4_000, self.span // 6)))
            self._send(replace(draft, number=self._number(), created=again), rules=("duplicate-order",), incident="market-double")

    def _market_refunding(self, channel: str, count: int) -> None:
        for i in range(count):
            draft = self._market_draft(channel, self._moment(0.15 + 0.7 * i / count), [self._line(self.shelf[8])])
            self._send(draft, rules=("refund-open",), incident="market-refund", revision=1)
            self._deliver(draft, draft.created + self._soon(), status="refunding", revision=2)

    def _market_held(self, channel: str, count: int) -> None:
        for i in range(count):
            draft = self._market_draft(channel, self._moment(0.15 + 0.7 * i / count), [self._line(self.shelf[8])])
            draft.hold = "平台风控：请勿发货"
            self._send(draft, rules=("platform-hold",), incident="market-hold")

    def _market_unknown(self, channel: str, count: int) -> None:
        for i in range(count):
            line = self._line(self.hot[1])
            line.code = self.articles[line.sku].code(channel) + "X"
            draft = self._market_draft(channel, self._moment(0.2 + 0.7 * i / count), [line])
            self._send(draft, rules=("unknown-article",), incident="market-unknown")

    def _market_variant(self, channel: str, count: int) -> None:
        for i in range(count):
            # the page sells the natural one, its code is the walnut one's
            line = self._line(self.articles[goods.RACK_WALNUT])
            line.colour = "原木色"
            draft = self._market_draft(channel, self._moment(0.25 + 0.7 * i / count), [line])
            self._send(draft, rules=("wrong-variant",), incident="market-variant")

    def _market_gift(self, channel: str, count: int) -> None:
        for i in range(count):
            lines = [self._line(self.articles["SKU7"]), Line(goods.CLOTH_GIFT, 1, 0, gift=True)]
            draft = self._market_draft(channel, self._moment(0.3 + 0.6 * i / count), lines)
            self._send(draft, rules=("gift-without-main",), incident="market-gift")

    def _market_price(self, channel: str, count: int) -> None:
        for i in range(count):
            draft = self._market_draft(channel, self._moment(0.1 + 0.8 * i / count), [Line(goods.RACK_WOOD, 1, 13_900)])
            self._send(draft, rules=("price-deviation",), incident="market-price")

    def _market_cancelled(self, channel: str, count: int) -> None:
        for i in range(count):
            draft = self._market_draft(channel, self._moment(0.05 + 0.7 * i / count), [self._line(self.shelf[3])])
            self._send(draft, outcome="withdrawn", incident="market-cancelled", status="created", revision=1)
            paid = draft.created + self._soon()
            self._deliver(draft, paid, status="paid", revision=2)
            self._deliver(draft, paid + self._soon(), status="cancelled", revision=3)

    # WeChat Pay, which tells of the mini-program's orders beside it

    def _payments(self, count: int) -> None:
        """Orders that the mini-program tells of before they are paid; that they are, and what went back, WeChat Pay says."""
        few = 1 + count // 60
        for i in range(few):
            at = 0.1 + 0.7 * i / few
            draft = self._waiting(at, rules=("platform-hold",), incident="paid-twice", tag="payment-differs")
            first = self._notice(draft, draft.created + self._soon())
            self._notice(draft, first.at + self._soon(), payment="again", revision=3)
            draft = self._waiting(at + 0.05, rules=("platform-hold",), incident="paid-wrong", tag="payment-differs")
            self._notice(draft, draft.created + self._soon(), amount=draft.total - 1_000)
            draft = self._waiting(at + 0.1, outcome="withdrawn", incident="paid-back")
            self._back(draft, self._notice(draft, draft.created + self._soon()), draft.total, "refunded")
            draft = self._waiting(at + 0.15, rules=("refund-open",), incident="paid-part-back")
            self._back(draft, self._notice(draft, draft.created + self._soon()), 1_000, "refunding")
        for i in range(plain := count - 4 * few):
            draft = self._waiting((i + self.rng.random()) / plain)
            # one in five is known at WeChat Pay before the mini-program has told of its order; one in five is said again
            notice = self._notice(draft, draft.created - 300 if i % 5 == 1 else draft.created + self._soon())
            if i % 5 == 3:
                self.deliveries.append(replace(notice, at=notice.at + self.rng.randint(150, 4_000), repeat=True))
        self._note("paid-twice", "微信支付：一单付款两次", "WeChat Pay: one order paid twice", few)
        self._note("paid-wrong", "微信支付：实付与订单金额不符", "WeChat Pay: another sum than the order costs", few)
        self._note("paid-back", "微信支付：全额退款", "WeChat Pay: all of it refunded", few)
        self._note("paid-part-back", "微信支付：部分退款", "WeChat Pay: a part refunded", few)

    def _waiting(self, share: float, **labels: Any) -> Draft:
        """A clean order of the mini-program that nobody has paid yet."""
        draft = self._market_draft("api", self._moment(share))
        self._send(draft, status="created", revision=1, **labels)
        return draft

    def _notice(self, draft: Draft, at: int, *, amount: int | None = None, payment: str = "", revision: int = 2) -> Delivery:
        """That it is paid: what it costs, or another amount (fen). at: ms after start; payment: tells two of one order apart."""
        paid = draft.total if amount is None else amount
        said = wechatpay.transaction(wechatpay.MCHID, draft.name, paid, wechatpay.time(self.start + at), payment=payment)
        return self._told(draft, at, said, "paid", revision)

    def _back(self, draft: Draft, notice: Delivery, amount: int, status: str) -> None:
        """That fen went back after the notice of its payment."""
        at = notice.at + self._soon()
        refund = f"5030000{draft.name}"
        said = wechatpay.refund(wechatpay.MCHID, draft.name, refund, amount, draft.total, wechatpay.time(self.start + at))
        self._told(draft, at, said, status, 3)

    def _told(self, draft: Draft, at: int, said: dict[str, Any], status: str, revision: int) -> Delivery:
        sent = max(0, at) + self.rng.randint(20, 250)
        told = Delivery(sent, draft.channel, draft.shop, compact(said), draft.order_id, None, revision, status, notice=True)
        self.deliveries.append(told)
        return told

    # small parts

    def _draft(self, created: int, lines: list[Line], *, buyer: Person | None = None, **values: Any) -> Draft:
        person = buyer or self.people.buyer()
        return Draft(self._number(), values.pop("channel", "api"), values.pop("shop", MAIN), person, lines, created, **values)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _note(self, incident: str, zh: str, en: str, orders: int) -> None:
        self.incidents.append(Incident(incident, zh, en, orders))

    def _moment(self, share: float) -> int:
        return int(self.span * min(share, 0.97) + self.rng.random() * self.span * 0.02)

    def _soon(self) -> int:
        return self.rng.randint(500, max(1_000, min(5_000, self.span // 10)))

    def _one_day(self, first: int, width: int) -> int:
        """`first`, moved off a midnight of the shop that would part what must meet on one day."""
        midnight = times.day_start(self.start + first + width + SECOND, self.zone) - self.start
        return midnight + SECOND if first - SECOND < midnight else first

    def _send(
        self,
        draft: Draft,
        *,
        outcome: Outcome | None = None,
        rules: tuple[str, ...] = (),
        low: tuple[str, ...] = (),
        incident: str | None = None,
        tag: str | None = None,
        sent: int | None = None,
        status: str = "paid",
        revision: int = 1,
    ) -> Delivery:
        """Deliver a draft for the first time, and note what should come of it."""
        ending: Outcome = outcome or ("stopped" if rules else "released")
        self.expected[draft.order_id] = Expected(draft.order_id, ending, rules, low, incident, tag)
        return self._deliver(draft, draft.created if sent is None else sent, status=status, revision=revision)

    def _deliver(self, draft: Draft, at: int, *, status: str, revision: int) -> Delivery:
        event = Event(self.start, status, revision, at)
        body = BODIES[draft.channel](draft, event, self.articles)
        topic = None
        if draft.channel == "shopify":
            topic = "orders/create" if revision == 1 else "orders/updated"
        # a shop's own way from the buyer's click to its webhook
        sent = max(0, at) + self.rng.randint(20, 250)
        told = (draft, event) if draft.channel in ASKED else None
        delivery = Delivery(sent, draft.channel, draft.shop, body, draft.order_id, topic, revision, status, told=told)
        if draft.channel not in PAID_ONLY or status != "created":
            self.deliveries.append(delivery)
        return delivery

    def _reference(self) -> Iterable[dict[str, Any]]:
        # older than the oldest order of the scenario, which is a late one of 100 minutes
        day = times.text(self.start - DAY)
        for article in goods.ARTICLES:
            if not article.components:
                # the WMS counts down as orders leave: a long run must not sell the shelf empty by accident
                plenty = 0 if article.group in ("scarce", "short") else 10 * self.size
                yield {"kind": "stock", "at": day, "sku": article.sku, "available": max(article.stock, plenty), "locks": []}
        yield {"kind": "rate", "at": day, "pair": "USD/CNY", "rate": f"{USD:.2f}"}
        # the site charges dollars for yuan: a quotation both ways, as a bank's table has it
        yield {"kind": "rate", "at": day, "pair": "CNY/USD", "rate": f"{1 / USD:.6f}"}
        yield {
            "kind": "floor",
            "sku": goods.FLOOR,
            "from": times.text(self.start - 6 * HOUR),
            "until": times.text(self.start + DAY),
            "price": "209.00",
        }
        yield from self.trust
