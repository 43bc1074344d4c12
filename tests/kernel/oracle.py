"""A second opinion: the rules read once more, from the written agreement, on the final set of orders.

Law: nothing here is shared with the code that it judges. It loops over all pairs of orders, keeps no windows, sorts nothing by
arrival, and its numbers are written out, not read from the pack. What it does share is what it does not question: the channel's
parser, the catalogue's reading of an order, the spelling of addresses, amounts and times.

Times are ms UTC, amounts minor units, distances km.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from orderstream import channels, identity, money, times
from orderstream.catalogue import Catalogue, Resolved, read_article, resolve
from orderstream.orders import Order, Raw, Rejected

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True)
class Numbers:
    """What the standard pack says in numbers; a test of rare patterns may lower a count."""

    lateness: int = HOUR
    horizon: int = 24 * HOUR
    clock_ahead: int = 5 * MINUTE
    user_burst: int = 5
    segment_burst: int = 20
    address_sum: int = 500_000
    accounts: int = 2
    low_stock: int = 3
    rush: int = 10
    price_percent: int = 85
    far_km: float = 50.0
    places: int = 3
    limits: tuple[int, ...] = (99_900, 199_900, 499_900)
    virtual: tuple[str, ...] = ("162", "165", "167", "170", "171")
    small: int = 1_000
    young: int = DAY
    batch: int = 3


STANDARD = Numbers()

LEVEL = {
    "missing-info": 1, "duplicate-order": 2, "user-burst": 2, "ip-pair": 1, "ip-segment-burst": 3, "address-sum": 2,
    "payment-shared": 2, "stock-risk": 2, "oversold": 2, "refund-open": 2, "stock-rush": 3, "price-deviation": 2,
    "gift-without-main": 2, "unusual-address": 2, "near-threshold": 1, "unknown-article": 2, "wrong-variant": 2,
    "virtual-phone-batch": 3, "currency-odds": 2, "customs-missing": 2, "hs-code": 2, "platform-hold": 3,
}  # fmt: skip
NAMES = ("none", "low", "medium", "high")
VERDICTS = ("released", "released", "review", "frozen")


@dataclass(frozen=True)
class Opinion:
    """What becomes of an order."""

    verdict: str
    level: str = "none"
    fired: frozenset[str] = frozenset()
    not_available: frozenset[str] = frozenset()


@dataclass
class Known:
    """An order as its records say it. at: event time; since: kind of entity -> when it first said so to that, and went on so."""

    order: Order
    first: int
    received: int
    at: int
    late: bool
    found: Resolved
    since: dict[str, int] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    user: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        return self.order.order_id

    @property
    def skus(self) -> frozenset[str]:
        """Articles that it can share: mapped, no gifts, bundles as they are."""
        return frozenset(line.sku for line in self.found.lines if line.sku is not None and not line.gift)

    @property
    def place(self) -> tuple[float, float] | None:
        return identity.place(self.order.ship_to)

    @property
    def phone(self) -> str | None:
        """The buyer's number, the receiver's only where the buyer has none that can be read."""
        return identity.own(self.order)

    @property
    def age(self) -> int | None:
        registered = self.order.buyer.registered_at
        return None if registered is None else self.at - registered


@dataclass(frozen=True)
class Member:
    """As what an order stands in windows, and in those of which kinds of entity."""

    known: Known
    kinds: frozenset[str]


KEEP = {
    "user": 180 * DAY, "device": 10 * MINUTE, "ip": 10 * SECOND, "segment": 10 * MINUTE, "payment": 30 * DAY, "address": DAY,
    "sku": MINUTE, "number": 5 * MINUTE, "named": 5 * MINUTE,
}  # fmt: skip
"""The longest window that is asked of each kind of entity."""


@dataclass(frozen=True)
class Reference:
    """What replay records other than orders say."""

    stock: tuple[dict[str, Any], ...]
    trust: tuple[dict[str, Any], ...]
    rate: tuple[dict[str, Any], ...]
    floor: tuple[dict[str, Any], ...]
    shipped: Mapping[str, int]


def opinions(
    items: Iterable[Mapping[str, Any]], catalogue: Iterable[Mapping[str, Any]], numbers: Numbers = STANDARD
) -> dict[str, Opinion]:
    """What becomes of every order of a replay file's records, by its id."""
    records = list(items)
    goods = Catalogue(read_article(json.dumps(line)) for line in catalogue)
    raws = [_raw(r) for r in records if r.get("kind", "raw") == "raw"]
    out: dict[str, Opinion] = {}
    histories: dict[str, list[tuple[Raw, Order]]] = {}
    for raw in raws:
        parsed = channels.channel(raw.channel).parse(raw)
        if isinstance(parsed, Rejected):
            out[parsed.order_id] = Opinion("rejected")
        elif isinstance(parsed, Order):
            histories.setdefault(parsed.order_id, []).append((raw, parsed))
    reference = Reference(
        tuple(dict(r) for r in records if r.get("kind") == "stock"),
        tuple(dict(r) for r in records if r.get("kind") == "trust"),
        tuple(dict(r) for r in records if r.get("kind") == "rate"),
        tuple(dict(r) for r in records if r.get("kind") == "floor"),
        _shipped(records),
    )
    final: dict[str, Known] = {}
    members: dict[str, Member] = {}
    for order, history in histories.items():
        final[order], member = _known(history, goods, numbers)
        if member is not None:
            members[order] = member
    court = Court(final, members, reference, numbers)
    for order in final:
        out[order] = court.judge(order)
    return out


def _raw(record: Mapping[str, Any]) -> Raw:
    if "body_base64" in record:
        body = base64.b64decode(record["body_base64"])
    else:
        # compact, with sorted keys: the bytes whose hash names a record without an order id
        body = json.dumps(record["body"], ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    headers = {k.lower(): str(v) for k, v in record.get("headers", {}).items()}
    return Raw(record["channel"], record["shop"], times.parse(record["received_at"]), body, headers)


def _shipped(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for record in records:
        if record.get("kind") == "outcome" and record["outcome"] == "shipped":
            at = times.parse(record["at"])
            out[record["order_id"]] = min(at, out.get(record["order_id"], at))
    return out


# -- what an order's records come to ------------------------------------------------------------------------------------


def _key(raw: Raw, order: Order) -> tuple[int, int, int]:
    number = -1 if order.revision is None else order.revision
    updated = -1 if order.updated_at is None else order.updated_at
    return number, updated, raw.received_at


def _known(history: Sequence[tuple[Raw, Order]], goods: Catalogue, numbers: Numbers) -> tuple[Known, Member | None]:
    """The order in force, and as what it stands in windows (None: in none)."""
    first = min(raw.received_at for raw, _ in history)
    revisions: dict[tuple[Any, ...], tuple[Raw, Order]] = {}
    for raw, order in sorted(history, key=lambda h: h[0].received_at):
        number, updated, _ = _key(raw, order)
        # a repeat of (revision, updated_at) changes nothing; without a revision only what says the same is a repeat
        same = (number, updated) if number != -1 else (number, updated, repr(order))
        revisions.setdefault(same, (raw, order))
    ordered = sorted(revisions.values(), key=lambda h: _key(*h))
    readings = [_reading(raw, order, first, goods, numbers) for raw, order in ordered]
    _say_since(readings)
    last = readings[-1]
    if last.late:
        return last, None
    # a change past the horizon changes the order alone: its windows stay as they were, a withdrawal as long as they are kept
    closing = numbers.lateness + numbers.horizon
    standing: list[Known] = []
    for reading, after in zip(readings, [*readings[1:], None], strict=True):
        if not _withdrawn(reading):
            standing.append(reading)
        elif after is not None and not _withdrawn(after):
            standing.clear()  # back from withdrawal: it comes anew
    moving = [r for r in standing if r.received - r.at <= closing] or standing[:1]
    if not _withdrawn(last):
        return last, Member(moving[-1], frozenset(KEEP))
    withdrawn_at = last.received
    for reading in reversed(readings):
        if not _withdrawn(reading):
            break
        withdrawn_at = min(withdrawn_at, reading.received)
    stays = frozenset(kind for kind, span in KEEP.items() if withdrawn_at - last.at > span + closing)
    return last, Member(moving[-1], stays) if moving else None


def _withdrawn(known: Known) -> bool:
    return known.order.status in ("cancelled", "refunded")


def _reading(raw: Raw, order: Order, first: int, goods: Catalogue, numbers: Numbers) -> Known:
    at = order.created_at
    if at > first + numbers.clock_ahead:
        at = first
    late = first - at > numbers.lateness
    found = resolve(order, goods, raw.received_at)
    known = Known(order, first, raw.received_at, at, late, found)
    buyer = order.buyer
    if buyer.id is not None:
        known.user = (order.channel, buyer.id)
        known.keys["user"] = f"{order.channel} {buyer.id}"
    if buyer.device is not None:
        known.keys["device"] = buyer.device
    ip = None if buyer.ip is None else identity.ip(buyer.ip)
    if ip is not None:
        known.keys["ip"] = ip
        known.keys["segment"] = str(identity.segment(ip))
    if order.payment.id is not None:
        known.keys["payment"] = order.payment.id
    address = identity.address(order.ship_to)
    if address is not None:
        known.keys["address"] = address
    # who it is, on whatever account and channel: by a number, or by a name at an address
    number = identity.own(order)
    if number is not None:
        known.keys["number"] = number
    called = identity.name(order.ship_to.name) if order.ship_to is not None else None
    if called is not None and address is not None:
        known.keys["named"] = f"{called} {address}"
    return known


def _say_since(readings: list[Known]) -> None:
    """since: of the first record in an unbroken row of revisions that say the same to an entity."""
    for kind in KEEP:
        said = [_said(reading, kind) for reading in readings]
        for index, reading in enumerate(readings):
            reading.since[kind] = reading.received
            for back in range(index, -1, -1):
                if said[back] is None or said[back] != said[index]:
                    break
                reading.since[kind] = min(reading.since[kind], readings[back].received)


def _said(k: Known, kind: str) -> object:
    """What an order tells the entities of a kind; None where it is withdrawn."""
    if _withdrawn(k):
        return None
    shared = (k.user, k.order.total, k.order.currency, k.phone, k.age is None, _small_virtual(k, STANDARD))
    if kind == "sku":
        return shared, k.found.pieces, _deals(k), k.found.unmapped == ()
    return shared, k.keys.get(kind), k.skus, k.place if kind == "user" else None


# -- judging ------------------------------------------------------------------------------------------------------------


class Court:
    def __init__(self, final: dict[str, Known], members: dict[str, Member], reference: Reference, numbers: Numbers) -> None:
        self.final = final
        self.reference = reference
        self.n = numbers
        self.members = members

    def judge(self, order: str) -> Opinion:
        known = self.final[order]
        status = known.order.status
        if status in ("cancelled", "refunded"):
            return Opinion("withdrawn")
        fired, missing = self._alone(known)
        for rule, found, absent in self._shared(known):
            if found:
                fired.add(rule)
            elif absent:
                missing.add(rule)
        missing -= fired
        trusted = self._trusted(known)
        fired -= trusted
        level = max((LEVEL[rule] for rule in fired), default=0)
        if {"price-deviation", "address-sum"} <= fired and fired & {"user-burst", "ip-segment-burst"}:
            level = 3
        verdict = "pending" if status == "created" else VERDICTS[level]
        return Opinion(verdict, NAMES[level], frozenset(fired), frozenset(missing))

    # rules on the order alone

    def _alone(self, k: Known) -> tuple[set[str], set[str]]:
        fired: set[str] = set()
        missing: set[str] = set()
        order, found = k.order, k.found

        def say(rule: str, hit: bool, absent: bool = False) -> None:
            if hit:
                fired.add(rule)
            elif absent:
                missing.add(rule)

        postcode = order.ship_to.postcode if order.ship_to else None
        say("missing-info", not order.remark or not postcode)
        say("refund-open", order.status == "refunding")
        say("platform-hold", order.hold is not None)
        say("unknown-article", bool(found.unmapped))
        say("gift-without-main", bool(found.gifts_without_main), bool(found.gifts_unknown))
        say("wrong-variant", bool(found.wrong_variants), bool(found.variants_unknown))
        say("customs-missing", bool(found.papers_missing), bool(found.unmapped))
        say("hs-code", bool(found.wrong_hs_codes), bool(found.hs_codes_unknown))
        coupon = any(d.kind == "coupon" for d in order.discounts)
        yuan = order.currency == "CNY"
        near = any(Fraction(99, 100) * limit <= order.total <= limit for limit in self.n.limits)
        say("near-threshold", yuan and not coupon and near, not yuan)
        say("price-deviation", self._too_cheap(k), _not_comparable(k))
        shipped = self.reference.shipped.get(k.id)
        if shipped is not None and k.received > shipped:
            fired = {"price-deviation"} & fired
        return fired, missing

    def _too_cheap(self, k: Known) -> bool:
        for sku, deal, base in _deals(k):
            if deal >= Fraction(self.n.price_percent, 100) * base:
                continue
            floors = [
                money.minor(f["price"], "CNY")
                for f in self.reference.floor
                if f["sku"] == sku and times.parse(f["from"]) <= k.at < times.parse(f["until"])
            ]
            if not floors or deal < min(floors):
                return True
        return False

    # rules on what orders share

    def _shared(self, k: Known) -> Iterator[tuple[str, bool, bool]]:
        """(rule, fired, not available if not fired)."""
        n, keys = self.n, k.keys
        by = lambda *kinds: not any(kind in keys for kind in kinds)  # noqa: E731
        same = ("user", "device", "number", "named")
        yield "duplicate-order", self._counted(k, same, 5 * MINUTE, 2, share=True), k.late or by(*same)
        yield "ip-pair", self._counted(k, ("ip",), 10 * SECOND, 2), k.late or by("ip")
        burst = self._marked(k, ("user",), 10 * MINUTE, n.user_burst, rule="user-burst", share=True)
        yield "user-burst", burst, k.late or by("user")
        segment = self._marked(k, ("segment",), 30 * SECOND, n.segment_burst, rule="ip-segment-burst", share=True)
        yield "ip-segment-burst", segment, k.late or by("segment")
        batch = self._marked(k, ("device", "segment"), 10 * MINUTE, n.batch, rule="virtual-phone-batch", only=self._virtual)
        unknown = k.phone is None or k.age is None or k.order.currency != "CNY"
        yield "virtual-phone-batch", batch, k.late or by("device", "segment") or unknown
        shared = self._marked(k, ("payment",), 30 * DAY, n.accounts, rule="payment-shared", distinct=True)
        yield "payment-shared", shared, k.late or by("payment") or k.user is None
        yield "address-sum", self._day_sum(k), k.late or by("address") or k.order.currency != "CNY"
        yield from self._stock(k)
        yield self._conversion(k)
        far, absent = self._far(k)
        yield "unusual-address", far, absent

    def _virtual(self, k: Known) -> bool:
        return _small_virtual(k, self.n)

    def _as_member(self, order: str) -> Known | None:
        member = self.members.get(order)
        return None if member is None else member.known

    def _of(self, kind: str) -> list[Known]:
        return [m.known for m in self.members.values() if kind in m.kinds]

    def _window(self, judged: Known, kind: str, since: int) -> list[Known]:
        """Members of the entity in (since, the judged order's time]."""
        key = judged.keys.get(kind)
        if key is None:
            return []
        return [m for m in self._of(kind) if m.keys.get(kind) == key and since < m.at <= judged.at]

    def _counted(self, k: Known, kinds: Sequence[str], span: int, least: int, *, share: bool = False) -> bool:
        """Whether the order's own window fires in time."""
        me = self._as_member(k.id)
        if me is None:
            return False
        for kind in kinds:
            group = [m for m in self._window(me, kind, me.at - span) if not share or m.id == me.id or m.skus & me.skus]
            if share and not me.skus:
                continue
            done = _completed(group, me, least, kind)
            if done is not None and self._in_time(me, kind, done):
                return True
        return False

    def _marked(
        self,
        k: Known,
        kinds: Sequence[str],
        span: int,
        least: int,
        *,
        rule: str,
        share: bool = False,
        only: Any = None,
        distinct: bool = False,
    ) -> bool:
        """Whether any order's window that fires in time has this order as a member."""
        me = self._as_member(k.id)
        if me is None or (only is not None and not only(me)) or (distinct and me.user is None):
            return False
        for kind in kinds:
            for judged in self._window_after(me, kind, span):
                if only is not None and not only(judged):
                    continue
                group = [
                    m
                    for m in self._window(judged, kind, judged.at - span)
                    if (only is None or only(m)) and (not share or m.skus & judged.skus) and not (distinct and m.user is None)
                ]
                if not any(m.id == me.id for m in group) or self._off(judged, group, rule, kind, distinct=distinct):
                    continue
                families = self._families(judged, rule, kind) if distinct else []
                done = _completed(group, judged, least, kind, distinct=distinct, families=families)
                if done is not None and self._in_time(me, kind, done):
                    return True
        return False

    def _window_after(self, me: Known, kind: str, span: int) -> list[Known]:
        key = me.keys.get(kind)
        if key is None:
            return []
        return [j for j in self._of(kind) if j.keys.get(kind) == key and j.at - span < me.at <= j.at]

    def _day_sum(self, k: Known) -> bool:
        me = self._as_member(k.id)
        if me is None or me.order.currency != "CNY":
            return False
        group = [m for m in self._window(me, "address", _midnight(me.at) - 1) if m.order.currency == "CNY"]
        done = _summed(
            [(m.since["address"], m.order.total) for m in group], me.since["address"], self.n.address_sum, strictly=True
        )
        return done is not None and self._in_time(me, "address", done)

    def _stock(self, k: Known) -> Iterator[tuple[str, bool, bool]]:
        pieces = {sku: count for sku, count in k.found.pieces.items() if count > 0}
        known = {sku: self._available(k, sku) for sku in pieces}
        unsure = bool(k.found.unmapped) or any(v is None for v in known.values())
        low = [sku for sku, v in known.items() if v is not None and v[0] < self.n.low_stock]
        yield "stock-risk", any(not known[sku][1] for sku in low), unsure  # type: ignore[index]
        yield "oversold", any(v is not None and pieces[sku] > v[0] and not v[1] for sku, v in known.items()), unsure
        rush = False
        me = self._as_member(k.id)
        if me is not None:
            for sku in low:
                group = [m for m in self._of("sku") if m.found.pieces.get(sku, 0) > 0 and me.at - MINUTE < m.at <= me.at]
                done = _summed(
                    [(m.since["sku"], m.found.pieces[sku]) for m in group], me.since["sku"], self.n.rush, strictly=False
                )
                rush = rush or (done is not None and self._in_time(me, "sku", done))
        yield "stock-rush", rush, unsure or k.late

    def _conversion(self, k: Known) -> tuple[str, bool, bool]:
        """What the channel converted, and list prices against base prices in another currency, against the reference rate."""
        order, found = k.order, k.found
        abroad = [a for a in found.articles.values() if a.base is not None and a.currency != order.currency]
        implied: list[tuple[str, Fraction]] = []
        said = order.conversion
        if said is not None and said.amount > 0:
            charged, shown = _whole(said.to_amount, said.to), _whole(said.amount, said.currency)
            implied.append((f"{said.currency}/{said.to}", charged / shown))
        for item in found.lines:
            article = found.articles.get(item.id)
            if article not in abroad or item.gift or not item.list_price or not article.base:
                continue
            base = _whole(article.base, article.currency)
            implied.append((f"{order.currency}/{article.currency}", base / _whole(item.list_price, order.currency)))
        odd = unsure = False
        for pair, rate_of_order in implied:
            told = [r for r in self.reference.rate if r["pair"] == pair and times.parse(r["at"]) <= k.at]
            if told:
                rate = Fraction(max(told, key=lambda r: (times.parse(r["at"]), Fraction(r["rate"])))["rate"])
                odd = odd or abs(rate_of_order - rate) > Fraction(3, 100) * rate
            else:
                unsure = True
        asked = bool(abroad) or said is not None
        return "currency-odds", odd, unsure or (asked and not implied)

    def _available(self, k: Known, sku: str) -> tuple[int, bool] | None:
        """(pieces available, whether they are locked for this order) as of the order's event time."""
        past = [s for s in self.reference.stock if s["sku"] == sku and times.parse(s["at"]) <= k.at]
        if not past:
            return None
        # of two counts at one moment the greater one
        last = max(past, key=lambda s: (times.parse(s["at"]), s["available"], sorted(s.get("locks") or ())))
        return last["available"], k.id in (last.get("locks") or ())

    def _far(self, k: Known) -> tuple[bool, bool]:
        me = self._as_member(k.id)
        if me is None or k.late or me.place is None:
            return False, True
        past = [m for m in self._window(me, "user", me.at - 180 * DAY) if m.id != me.id and m.place is not None]
        if len(past) < self.n.places:
            return False, True
        nearest = min(_km(me.place, m.place) for m in past)
        done = sorted(m.since["user"] for m in past)[self.n.places - 1]
        return nearest > self.n.far_km and self._in_time(me, "user", max(done, me.since["user"])), False

    # what is known beside orders

    def _in_time(self, me: Known, kind: str, complete: int) -> bool:
        """Found within the horizon, and before the order was shipped."""
        shipped = self.reference.shipped.get(me.id)
        return complete - me.since[kind] <= self.n.horizon and (shipped is None or complete <= shipped)

    def _trusts(self, k: Known) -> Iterator[dict[str, Any]]:
        """Trust records on an entity of the order, in force at its event time: not after the first end that was told of one."""
        for trust in self.reference.trust:
            begins = times.parse(trust["at"]) if "at" in trust else 0
            ends = min(_until(one) for one in self.reference.trust if one | _ENDS == trust | _ENDS)
            if begins <= k.at < ends and _means(trust["entity"], trust["key"], k):
                yield trust

    def _trusted(self, k: Known) -> set[str]:
        """Rules that are off for this order, whoever else is there."""
        return {rule for trust in self._trusts(k) if not trust.get("with") for rule in trust["rules"]}

    def _families(self, judged: Known, rule: str, kind: str) -> list[set[str]]:
        return [set(t["with"]) for t in self._trusts(judged) if t.get("with") and rule in t["rules"] and t["entity"] == kind]

    def _off(self, judged: Known, group: Sequence[Known], rule: str, kind: str, *, distinct: bool) -> bool:
        """Whether the window of the judged order is trusted: its entity at that time, or all who are in it with each other."""
        if any(rule in t["rules"] and not t.get("with") and t["entity"] == kind for t in self._trusts(judged)):
            return True
        families = self._families(judged, rule, kind)
        users = {m.user[1] if m.user else None for m in group}
        return not distinct and bool(families) and users <= set().union(*families)


_ENDS = {"until": None, "why": None, "by": None}
"""What may differ between records of one trust."""


def _until(trust: dict[str, Any]) -> int:
    return times.parse(trust["until"]) if trust.get("until") else times.MAX_MS


def _means(entity: str, key: str, k: Known) -> bool:
    if entity == "user":
        return k.user is not None and k.user[1] == key
    if entity == "address":
        return k.keys.get("address") == identity.address_text(key)
    if entity == "segment":
        return k.keys.get("segment") == identity.segment(key)
    return k.keys.get(entity) == key


def _completed(
    group: Sequence[Known], judged: Known, least: int, kind: str, *, distinct: bool = False, families: Sequence[set[str]] = ()
) -> int | None:
    """When the judged order's group first counted `least` with it in it, or None. Accounts of one family count as one."""
    seen: list[Known] = []
    for member in sorted(group, key=lambda m: m.since[kind]):
        seen.append(member)
        if (_accounts(seen, families) if distinct else len(seen)) >= least:
            return max(member.since[kind], judged.since[kind])
    return None


def _accounts(members: Sequence[Known], families: Sequence[set[str]]) -> int:
    apart = [{m.user} for m in members if m.user is not None]
    for family in families:
        of_it = [group for group in apart if any(user[1] in family for user in group)]
        apart = [group for group in apart if group not in of_it]
        if of_it:
            apart.append(set().union(*of_it))
    return len({frozenset(group) for group in apart})


def _summed(values: Iterable[tuple[int, int]], judged: int, limit: int, *, strictly: bool) -> int | None:
    total = 0
    for since, value in sorted(values):
        total += value
        if total > limit or (total == limit and not strictly):
            return max(since, judged)
    return None


def _small_virtual(k: Known, n: Numbers) -> bool:
    return (
        k.phone is not None
        and k.phone.startswith(n.virtual)
        and k.age is not None
        and k.age < n.young
        and k.order.currency == "CNY"
        and k.order.total <= n.small
    )


def _deals(k: Known) -> list[tuple[str, Fraction, int]]:
    """(sku, price a piece after its share of the discounts by amount, base price) of comparable main lines."""
    mains = [line for line in k.found.lines if not line.gift]
    amount = sum(line.price * line.quantity for line in mains)
    own = any(line.discount is not None for line in mains)
    off = min(sum(d.amount for d in k.order.discounts), amount)
    out = []
    for line in mains:
        article = k.found.articles.get(line.id)
        if article is None or article.base is None or article.currency != k.order.currency:
            continue
        whole = Fraction(line.price * line.quantity)
        share = Fraction(line.discount or 0) if own else (whole * off / amount if amount else Fraction(0))
        out.append((article.sku, (whole - share) / line.quantity, article.base))
    return out


def _whole(amount: int, currency: str) -> Fraction:
    return Fraction(amount, 10 ** money.EXPONENT[currency])


def _not_comparable(k: Known) -> bool:
    mains = [line for line in k.found.lines if not line.gift]
    return bool(k.found.unmapped) or len(_deals(k)) < len(mains)


def _midnight(ms: int) -> int:
    """The beginning of a day in Shanghai, which has kept no summer time since 1991."""
    local = datetime.fromtimestamp(ms // 1000, timezone(timedelta(hours=8)))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return int(midnight.timestamp()) * 1000


def _km(a: tuple[float, float], b: tuple[float, float] | None) -> float:
    """The angle between two vectors on a sphere of 6371.0088 km."""
    assert b is not None

    def vector(place: tuple[float, float]) -> tuple[float, float, float]:
        lat, lon = map(math.radians, place)
        return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)

    u, v = vector(a), vector(b)
    cross = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    return 6371.0088 * math.atan2(math.hypot(*cross), sum(x * y for x, y in zip(u, v, strict=True)))
