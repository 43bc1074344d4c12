"""Normalise: raw records of one partition to orders, their facts and their dossiers.

Law: what is known of an order is a function of the set of its records. Its revision in force is the greatest by
(revision, updated_at, received_at); a repeat of (revision, updated_at) changes nothing, in whatever order they come; it was
received when its earliest record was. Catalogue and pack are those in force when the revision was received.
Reason: webhooks are repeated, overtake each other, and come after a crash once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from zlib import crc32

import cel
import msgspec

from orderstream import channels, identity, money
from orderstream.catalogue import Catalogue, Resolved, resolve
from orderstream.facts import Deal, Dossier, Fact, Finding
from orderstream.identity import Keys
from orderstream.orders import WITHDRAWN, Line, Order, Raw, Refund, Rejected, Skip
from orderstream.rules.pack import Pack
from orderstream.times import DAY

MEMORY = 60 * DAY
"""How long after its event time an order's records are told from new ones (ms); a cancellation after it finds no order."""

ABSENT = -1


class Revision(msgspec.Struct, array_like=True):
    """One (revision, updated_at) of an order: when its first record was received, and what that was.

    said: one number for each fact and each rule on the order alone that it led to: what two revisions share has been so
    since the earlier one was received.
    """

    number: int
    updated_at: int
    received_at: int
    body: str
    said: frozenset[int]
    position: int

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.number, self.updated_at, self.received_at)


class OrderState(msgspec.Struct, array_like=True):
    """What normalise remembers of an order.

    version: of its last dossier. said: that dossier, in short. raw: the record in force (None: only refunds have come); window:
    the last record in time to move windows, where that is an earlier one. facts: what its entities were told; gone: what they were told to forget. position: of the last record that counted.
    """

    order: str
    version: int
    at: int
    revisions: list[Revision] = []
    facts: dict[str, Fact] = {}
    gone: dict[str, Fact] = {}
    refunds: dict[str, Refund] = {}
    raw: Raw | None = None
    window: Raw | None = None
    said: bytes = b""
    position: int = -1


class Rejection(msgspec.Struct, rename={"body": "body_base64"}):
    """A record of orders.rejected: what can't be one order, why, and its original bytes."""

    order_id: str
    channel: str
    shop: str
    received_at: int
    code: str
    reason: str
    field: str | None
    pack: str
    verified: str
    headers: dict[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """The reason with its place, as people read it."""
        return f"{self.field}: {self.reason}" if self.field else self.reason


class Normalised(msgspec.Struct):
    """What a raw record leads to; all empty for a repeat or a skip."""

    facts: list[Fact] = []
    dossier: Dossier | None = None
    rejected: Rejection | None = None
    skipped: str | None = None
    state: OrderState | None = None


class Books(msgspec.Struct):
    """What every worker reads: the catalogue and the packs as of a time (ms UTC)."""

    catalogue: Catalogue
    pack_at: Callable[[int], Pack]


class Normaliser:
    """The orders of one partition. keys: how entities are named; books: catalogue and packs."""

    def __init__(self, books: Books, keys: Keys) -> None:
        self._books = books
        self._keys = keys
        self.orders: dict[str, OrderState] = {}
        self.progress = 0
        """The latest received_at (ms) that has been read here."""
        self._swept = 0

    def process(self, raw: Raw, position: int, now: int) -> Normalised:
        """Takes a raw record in. position: its place in its partition; the same record read again gets the same again.

        now: ms, when this happens, for the timings only.
        """
        self.progress = max(self.progress, raw.received_at)
        channel = channels.registry().get(raw.channel)
        if channel is None:
            digest = hashlib.sha256(raw.body).hexdigest()
            why = f"没有渠道 {raw.channel} 的解析 · nothing here reads the channel {raw.channel}"
            return Normalised(rejected=self._turn(raw, Rejected(f"raw:{digest}", "unknown-channel", why)))
        parsed = channel.parse(raw)
        if isinstance(parsed, Skip):
            return Normalised(skipped=parsed.reason)
        if isinstance(parsed, Rejected):
            return Normalised(rejected=self._turn(raw, parsed))
        if isinstance(parsed, Refund):
            return self._refund(parsed, position, now)
        return self._order(raw, parsed, position, now)

    def restore(self, state: OrderState) -> None:
        """Puts back what `process` had left of an order."""
        self.orders[state.order] = state
        self.progress = max([self.progress, *(r.received_at for r in state.revisions)])

    def sweep(self) -> None:
        """Forgets orders whose MEMORY is over by the data's own time, once a day of it."""
        if self.progress - self._swept < DAY:
            return
        self._swept = self.progress
        for order in [o for o, s in self.orders.items() if s.at < self.progress - MEMORY]:
            del self.orders[order]

    # -- the set of an order's records -----------------------------------------------------------------------------

    def _order(self, raw: Raw, order: Order, position: int, now: int) -> Normalised:
        state = self._state(order.order_id, order.created_at)
        body = hashlib.sha256(raw.body).hexdigest()[:16]
        number = order.revision if order.revision is not None else ABSENT
        updated = order.updated_at if order.updated_at is not None else ABSENT
        same = self._same(state, number, updated, body)
        if same is not None:
            if same.position == position:
                return self._again(state, position, now)
            if (same.received_at, same.body) <= (raw.received_at, body):
                return Normalised()
            state.revisions.remove(same)
        revision = Revision(number, updated, raw.received_at, body, frozenset(), position)
        state.revisions.append(revision)
        state.revisions.sort(key=lambda r: (r.key, r.body))
        state.position = position
        reading = self._read(state, raw, order)
        revision.said = reading.said()
        last = state.revisions[-1] is revision
        self._keep_window(state, reading, raw, revision, last=last)
        if not last:
            return self._settle(state, now)
        state.raw = raw
        return self._settle(state, now, None if state.refunds else reading)

    def _keep_window(self, state: OrderState, reading: Reading, raw: Raw, revision: Revision, *, last: bool) -> None:
        """Remembers the last record that came in time to move windows, once a later one is in force that did not."""
        if reading.movable:
            if last:
                state.window = None
            elif state.raw is not None and not self._reading(state).movable:
                before = state.window
                if before is None or self._key(state, before) < revision.key:
                    state.window = raw
        elif last and state.window is None and state.raw is not None:
            state.window = state.raw

    @staticmethod
    def _key(state: OrderState, raw: Raw) -> tuple[int, int, int]:
        body = hashlib.sha256(raw.body).hexdigest()[:16]
        return max((r.key for r in state.revisions if r.body == body), default=(ABSENT, ABSENT, 0))

    def _state(self, order: str, at: int) -> OrderState:
        state = self.orders.get(order)
        if state is None:
            state = self.orders[order] = OrderState(order, 0, at)
        return state

    def _read(self, state: OrderState, raw: Raw, order: Order) -> Reading:
        first = min(r.received_at for r in state.revisions)
        pack = self._books.pack_at(raw.received_at)
        return Reading(order, pack, raw.received_at, first, self._books.catalogue, self._keys)

    @staticmethod
    def _same(state: OrderState, number: int, updated: int, body: str) -> Revision | None:
        """The revision that a record repeats. Where the channel gives neither number nor time, only the same bytes repeat."""
        for revision in state.revisions:
            told = (revision.number, revision.updated_at) == (number, updated)
            if told and ((number, updated) != (ABSENT, ABSENT) or revision.body == body):
                return revision
        return None

    def _again(self, state: OrderState, position: int, now: int) -> Normalised:
        """The record that made this state, read once more after a crash: everything is said once more."""
        if state.position != position or state.raw is None:
            return Normalised()
        dossier = self._reading(state).dossier(state.version, state.facts, state.revisions, now)
        return Normalised(facts=[*state.facts.values(), *state.gone.values()], dossier=dossier, state=state)

    def _refund(self, refund: Refund, position: int, now: int) -> Normalised:
        state = self._state(refund.order_id, refund.at)
        if refund.refund_id in state.refunds:
            return self._again(state, position, now)
        state.refunds[refund.refund_id] = refund
        state.position = position
        return self._settle(state, now) if state.raw is not None else Normalised(state=state)

    def _reading(self, state: OrderState, raw: Raw | None = None) -> Reading:
        """The order's record in force, or another of its records, read anew."""
        raw = raw or state.raw
        assert raw is not None
        order = channels.channel(raw.channel).parse(raw)
        assert isinstance(order, Order)
        return self._read(state, raw, _with_refunds(order, state.refunds))

    def _settle(self, state: OrderState, now: int, reading: Reading | None = None) -> Normalised:
        """Works out what follows from all the order's records, and says what is new in it."""
        reading = reading or self._reading(state)
        state.at = reading.at
        version = state.version + 1
        facts = self._facts(state, reading, version)
        new = [f for key, f in facts.items() if f is not state.facts.get(key)]
        gone = {
            key: Fact(key, state.order, version, old.at, old.since, old.pack, enters=False, gone=True)
            for key, old in state.facts.items()
            if key not in facts
        }
        dossier = reading.dossier(version, facts, state.revisions, now)
        said = dossier.said()
        if state.version and not new and not gone and said == state.said:
            return Normalised(state=state)
        state.gone = {k: g for k, g in state.gone.items() if k not in facts} | gone
        state.facts = facts
        state.version = version
        state.said = said
        return Normalised(facts=[*new, *gone.values()], dossier=dossier, state=state)

    def _facts(self, state: OrderState, reading: Reading, version: int) -> dict[str, Fact]:
        """The facts in force, each with the version at which it became what it is."""
        if reading.order.status in WITHDRAWN:
            # what an entity no longer keeps can't be taken from it: its windows are judged as they were
            return {key: fact for key, fact in state.facts.items() if not reading.kept(key)}
        if not reading.movable and state.window is not None:
            in_time = self._reading(state, state.window)
            reading = reading if in_time.order.status in WITHDRAWN else in_time
        out: dict[str, Fact] = {}
        for fact in reading.facts():
            fact = msgspec.structs.replace(fact, since=_since(state.revisions, _number(fact)))  # noqa: PLW2901
            old = state.facts.get(fact.entity)
            if old is not None and msgspec.structs.replace(fact, version=old.version) == old:
                out[fact.entity] = old
            else:
                out[fact.entity] = msgspec.structs.replace(fact, version=version)
        return out

    def _turn(self, raw: Raw, rejected: Rejected) -> Rejection:
        pack = self._books.pack_at(raw.received_at)
        return Rejection(
            rejected.order_id,
            raw.channel,
            raw.shop,
            raw.received_at,
            rejected.code,
            rejected.reason,
            rejected.field,
            pack.version,
            raw.verified,
            raw.headers,
            raw.body,
        )


def _since(revisions: list[Revision], said: int) -> int:
    """received_at of the first record from which on, without a break up to the last that says it, the order has said this."""
    since = 0
    for revision in reversed(revisions):
        if said in revision.said:
            since = min(since or revision.received_at, revision.received_at)
        elif since:
            break
    return since or revisions[-1].received_at


def _number(fact: Fact) -> int:
    """One number for what a fact says, whatever its version, pack and clock."""
    said = (fact.entity, fact.user, fact.total, fact.skus, fact.quantity, fact.place, fact.out, fact.deals, fact.conversions)
    return crc32(msgspec.msgpack.encode(said))


def _rule_number(rule: str) -> int:
    return crc32(rule.encode())


def _with_refunds(order: Order, refunds: dict[str, Refund]) -> Order:
    """Money that went back, as the order's status: all of it withdraws the order, a part is a refund under way."""
    if not refunds or order.status in WITHDRAWN or order.status == "created":
        return order
    back = sum(r.amount for r in refunds.values() if r.currency == order.currency)
    if back <= 0:
        return order
    return msgspec.structs.replace(order, status="refunded" if back >= order.total else "refunding")


class Reading:
    """One revision of an order, read with its pack and its catalogue. at: the event time that it is judged at (ms)."""

    def __init__(self, order: Order, pack: Pack, received: int, first: int, catalogue: Catalogue, keys: Keys) -> None:
        self.order = order
        self.pack = pack
        self.received = received
        self.first = first
        self.tags = list(order.tags)
        self.at = order.created_at
        if self.at > first + pack.clock_ahead:
            self.at = first
            self.tags.append("clock-ahead")
        self.late = first - self.at > pack.lateness
        if self.late:
            self.tags.append("late")
        self.movable = received - self.at <= pack.lateness + pack.horizon or self.late
        """Whether this revision still moves windows: an edit past the horizon changes the order alone."""
        if not self.movable and order.status not in WITHDRAWN:
            self.tags.append("edited-late")
        self._judged: tuple[dict[str, Finding], list[str]] | None = None
        self._told: list[Fact] | None = None
        self._barred_rules: tuple[set[str], set[str]] | None = None
        self.resolved: Resolved = resolve(order, catalogue, received)
        self._keys = keys
        self.entities = self._entities()
        self.deals, self.deals_unknown = self._deals()
        self._map: dict[str, Any] | None = None

    @property
    def missing_fields(self) -> list[str]:
        """Harmless fields that the channel did not give."""
        address = self.order.ship_to
        out = [] if self.order.remark else ["remark"]
        return out if address is not None and address.postcode else [*out, "postcode"]

    def _entities(self) -> dict[str, list[str]]:
        """Entity kind -> keys, of the kinds that the pack asks."""
        order, keys, kinds = self.order, self._keys, self.pack.kinds
        buyer = order.buyer
        address = identity.address(order.ship_to) if kinds & {"address"} or self.pack.merge_within else None
        found: dict[str, list[str]] = {}

        def put(kind: str, value: str | None) -> None:
            if value is not None and kind in kinds:
                found[kind] = [keys.key(kind, value)]

        if buyer.id is not None and "user" in kinds:
            found["user"] = [keys.user(order.channel, buyer.id)]
        put("device", buyer.device)
        put("phone", identity.phone(buyer.phone) if buyer.phone else None)
        if buyer.ip is not None:
            put("ip", identity.ip(buyer.ip))
            put("segment", identity.segment(buyer.ip))
        put("payment", order.payment.id)
        put("address", address)
        if "sku" in kinds:
            skus = {*self.resolved.pieces, *(line.sku for line in self.resolved.lines if line.sku is not None and not line.gift)}
            found["sku"] = [f"sku:{sku}" for sku in sorted(skus)]
        if "pair" in kinds and self._implied():
            found["pair"] = sorted({f"pair:{pair}" for pair, _ in self._implied()})
        if self.pack.merge_within and address is not None and order.ship_to is not None:
            who = identity.phone(order.ship_to.phone or "") or identity.plain(order.ship_to.name or "")
            if who:
                found["receiver"] = [keys.key("receiver", f"{who}\0{address}")]
        return found

    @property
    def _converted(self) -> bool:
        """Whether money was converted at all: otherwise a rate is nobody's question."""
        articles = self.resolved.articles.values()
        return self.order.conversion is not None or any(
            a.base is not None and a.currency != self.order.currency for a in articles
        )

    def _implied(self) -> list[tuple[str, float]]:
        """Rates that the order was converted at: (pair, units of the second for one of the first)."""
        order = self.order
        out: list[tuple[str, float]] = []
        if order.conversion is not None and order.conversion.amount > 0:
            c = order.conversion
            out.append((f"{c.currency}/{c.to}", _units(c.to_amount, c.to) / _units(c.amount, c.currency)))
        for line in self.resolved.lines:
            article = self.resolved.articles.get(line.id)
            if article is not None and not line.gift and line.list_price and article.base and article.currency != order.currency:
                implied = _units(article.base, article.currency) / _units(line.list_price, order.currency)
                out.append((f"{order.currency}/{article.currency}", implied))
        return out

    def _deals(self) -> tuple[list[tuple[str, Deal]], list[str]]:
        """Main lines' prices after discounts, by sku, and the lines whose price can't be compared."""
        mains = [line for line in self.resolved.lines if not line.gift]
        amount = sum(line.price * line.quantity for line in mains)
        own = any(line.discount is not None for line in mains)
        off = 0 if own else min(sum(d.amount for d in self.order.discounts), amount)
        deals: list[tuple[str, Deal]] = []
        unknown: list[str] = []
        for line in mains:
            article = self.resolved.articles.get(line.id)
            base = article.base if article is not None else None
            if article is None or base is None or article.currency != self.order.currency:
                unknown.append(line.id)
                continue
            paid = line.price * line.quantity
            if own:
                deal = (paid - (line.discount or 0)) / line.quantity
            else:
                # one division of integers: a price on the limit is exactly on it
                deal = paid * (amount - off) / (line.quantity * amount) if amount else 0.0
            deals.append((article.sku, Deal(line.id, deal, base)))
        return deals, unknown

    # -- rules on the order alone ------------------------------------------------------------------------------------

    def context(self) -> cel.Context:
        """What CEL reads as `order` and `data`."""
        if self._map is None:
            fields = self.pack.order_fields
            whole = self._order_map()
            # handing over what no rule reads would cost more than judging
            self._map = whole if fields is None else {k: v for k, v in whole.items() if k in fields}
        return self.pack.reading(order=self._map)

    def _order_map(self) -> dict[str, Any]:
        order, found = self.order, self.resolved
        out: dict[str, Any] = {
            "status": order.status,
            "channel": order.channel,
            "shop": order.shop,
            "currency": order.currency,
            "total": order.total,
            "presale": order.presale,
            "hold": order.hold or "",
            "coupon": any(d.kind == "coupon" for d in order.discounts),
            "missing": self.missing_fields,
            "lines": [_line_map(line) for line in found.lines],
            "unmapped": [
                {"line": u.line, "code": u.code or "", "why": u.why, "nearest": [list(n) for n in u.nearest]}
                for u in found.unmapped
            ],
            "gifts_without_main": list(found.gifts_without_main),
            "gifts_unknown": list(found.gifts_unknown),
            "wrong_variants": list(found.wrong_variants),
            "variants_unknown": list(found.variants_unknown),
            "papers_missing": list(found.papers_missing),
            "wrong_hs_codes": list(found.wrong_hs_codes),
            "hs_codes_unknown": list(found.hs_codes_unknown),
            "deals_unknown": self.deals_unknown,
            "tags": self.tags,
        }
        number = order.buyer.phone or (order.ship_to.phone if order.ship_to else None)
        phone = identity.phone(number) if number else None
        if phone is not None:
            out["phone"] = phone
        if order.buyer.registered_at is not None:
            out["account_age_ms"] = self.at - order.buyer.registered_at
        return out

    def judge(self) -> tuple[dict[str, Finding], list[str]]:
        """Rules on the order alone: what fired, and what could not be judged."""
        if self._judged is None:
            self._judged = self._judge_own()
        return self._judged

    def _judge_own(self) -> tuple[dict[str, Finding], list[str]]:
        findings: dict[str, Finding] = {}
        missing: list[str] = []
        context = self.context()
        for judge in self.pack.own:
            fires = judge.test("when", context)
            if fires:
                evidence: dict[str, Any] = {"by": "order", "orders": []}
                if "detail" in judge.programs:
                    evidence["detail"] = judge.read("detail", context)
                evidence["value"] = judge.read("value", context)
                evidence["limit"] = judge.read("limit", context)
                findings[judge.id] = Finding(evidence, self.received, self.received)
            elif fires is None or ("unavailable" in judge.programs and judge.test("unavailable", context) is not False):
                missing.append(judge.id)
        return findings, missing

    def barred(self) -> tuple[set[str], set[str]]:
        """Entity rules that this order is no member of, and those among them that could not be judged."""
        if self._barred_rules is None:
            self._barred_rules = self._bar()
        return self._barred_rules

    def _bar(self) -> tuple[set[str], set[str]]:
        out: set[str] = set()
        missing: set[str] = set()
        for judge in self.pack.filtered:
            context = self.context()
            members = judge.test("members", context) if "members" in judge.programs else True
            if members is None or ("unavailable" in judge.programs and judge.test("unavailable", context) is not False):
                # a rule with a profile may still fire for another article of the order
                missing.add(judge.id)
                if "profile" not in judge.programs:
                    out.add(judge.id)
            elif not members:
                out.add(judge.id)
        for judge in self.pack.measured:
            measure = judge.rule.measure
            assert measure is not None
            foreign = measure.currency is not None and measure.currency != self.order.currency
            if foreign or (measure.distinct is not None and self.order.buyer.id is None):
                missing.add(judge.id)
                out.add(judge.id)
        return out, missing

    def kept(self, key: str) -> bool:
        """Whether the entity still keeps this order's fact when this revision is received, so that it can be withdrawn."""
        keep = self.pack.keep.get(key.partition(":")[0], 0)
        return self.received - self.at <= keep + self.pack.lateness + self.pack.horizon

    def said(self) -> frozenset[int]:
        """What this revision says, one number a fact and a rule that fired on the order alone; nothing where it withdraws."""
        if self.order.status in WITHDRAWN:
            return frozenset()
        return frozenset((*map(_number, self.facts()), *map(_rule_number, self.judge()[0])))

    # -- what goes out -----------------------------------------------------------------------------------------------

    def facts(self) -> list[Fact]:
        """One fact for each entity that the pack asks, without version and `since`."""
        if self._told is None:
            self._told = self._facts()
        return self._told

    def _facts(self) -> list[Fact]:
        order = self.order
        out, _ = self.barred()
        user = self._keys.user(order.channel, order.buyer.id) if order.buyer.id is not None else None
        skus = tuple(sorted({line.sku for line in self.resolved.lines if line.sku is not None and not line.gift}))
        total = order.total if order.currency == self.pack.policy.currency else None
        place = identity.place(order.ship_to) if "user" in self.entities else None
        facts: list[Fact] = []
        for kind, entity_keys in self.entities.items():
            barred = tuple(sorted(j.id for j in self.pack.by_kind.get(kind, ()) if j.id in out))
            for key in entity_keys:
                name = key.partition(":")[2]
                facts.append(
                    Fact(
                        key,
                        order.order_id,
                        0,
                        self.at,
                        0,
                        self.pack.version,
                        enters=not self.late,
                        user=user,
                        total=total,
                        skus=skus if kind in ("user", "device", "ip", "segment", "payment", "address", "phone") else (),
                        quantity=self.resolved.pieces.get(name, 0) if kind == "sku" else 0,
                        place=place if kind == "user" else None,
                        out=barred,
                        deals=tuple(d for sku, d in self.deals if sku == name) if kind == "sku" else (),
                        conversions=tuple(rate for pair, rate in self._implied() if pair == name) if kind == "pair" else (),
                    )
                )
        return facts

    def dossier(self, version: int, facts: dict[str, Fact], revisions: list[Revision], now: int) -> Dossier:
        """The order on its way to its verdict. revisions: from which it is told since when a rule has fired on it."""
        order, pack = self.order, self.pack
        if order.status in WITHDRAWN:
            return Dossier(
                order.order_id, version, pack.version, order.status, order.currency, order.total, order.created_at,
                self.first, {}, tags=tuple(self.tags), normalised_at=now,
            )  # fmt: skip
        fired, missing = self.judge()
        findings: dict[str, Finding] = {}
        for rule, finding in fired.items():
            since = _since(revisions, _rule_number(rule))
            findings[rule] = Finding(finding.evidence, since, since)
        _, barred = self.barred()
        asked = {key.partition(":")[0] for key in facts}
        absent = {j.id for j in pack.asking if asked.isdisjoint(j.kinds)}
        if not self._converted:
            absent -= {j.id for j in pack.by_kind.get("pair", ())}
        if self.resolved.unmapped:
            absent |= {j.id for j in pack.by_kind.get("sku", ())}
        if self.late:
            absent |= {j.id for j in pack.asking if j.windowed}
        filled, document = self._document()
        units = msgspec.json.encode(self.resolved.units)
        return Dossier(
            order.order_id,
            version,
            pack.version,
            order.status,
            order.currency,
            order.total,
            order.created_at,
            self.first,
            {key: fact.version for key, fact in facts.items()},
            findings,
            tuple(sorted({*missing, *barred, *absent})),
            tuple(self.tags),
            document,
            units,
            filled,
            hashlib.sha256(document + units).hexdigest()[:16],
            now,
        )

    def _document(self) -> tuple[tuple[str, ...], bytes]:
        """The order as it leaves, mapped and filled (JSON), and which fields were filled."""
        order, fill = self.order, self.pack.policy.fill
        filled: list[str] = []
        changes: dict[str, Any] = {"lines": self.resolved.lines}
        if not order.remark and "remark" in fill:
            changes["remark"] = fill["remark"]
            filled.append("remark")
        if order.ship_to is not None and not order.ship_to.postcode and "postcode" in fill:
            changes["ship_to"] = msgspec.structs.replace(order.ship_to, postcode=fill["postcode"])
            filled.append("postcode")
        return tuple(filled), msgspec.json.encode(msgspec.structs.replace(order, **changes))


def _units(amount: int, currency: str) -> float:
    return float(amount / 10 ** money.EXPONENT[currency])


def _line_map(line: Line) -> dict[str, Any]:
    listed = {} if line.list_price is None else {"list_price": line.list_price}
    return {
        **listed,
        "id": line.id,
        "sku": line.sku or "",
        "code": line.code or "",
        "quantity": line.quantity,
        "price": line.price,
        "gift": bool(line.gift),
    }
