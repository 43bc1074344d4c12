"""Reading: one revision of an order, read with the pack and the catalogue in force when it was received.

Law: a reading is a pure function of the order, the pack, the catalogue and two times, and says all that follows from the order
alone: its event time, its entities and facts, what its own rules find, the document that may leave. Nothing here remembers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from orderstream import identity, money
from orderstream.catalogue import Catalogue, Resolved, resolve
from orderstream.catalogue.index import Near
from orderstream.facts import Deal, Dossier, Fact, Finding
from orderstream.identity import Keys
from orderstream.orders import WITHDRAWN, Line, Order
from orderstream.rules.pack import Judge, Pack, Values


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
    again: bool = False
    """We had it read once more: it counts from then on, beside the channel's own record."""

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.number, self.updated_at, self.received_at)


class Reading:
    """One revision of an order, read with its pack and its catalogue. at: the event time that it is judged at (ms)."""

    __slots__ = (
        "_barred_rules", "_catalogue", "_judged", "_keys", "_numbers", "_told", "_values", "at", "deals", "deals_unknown", "entities",
        "first", "late", "movable", "order", "pack", "received", "resolved", "stamp", "tags", "unsure", "user",
    )  # fmt: skip

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
        self.stamp = (0, 0)
        """Version and `since` of its facts, where they are known before the facts are made."""
        self._told: dict[str, Fact] | None = None
        self._numbers: dict[str, int] = {}
        self._barred_rules: tuple[frozenset[str], set[str]] | None = None
        self.resolved: Resolved = resolve(order, catalogue, received)
        self._catalogue = catalogue
        self._keys = keys
        self.user: str | None = None
        """The account's key, the platform's best."""
        self.unsure: dict[str, int] = {}
        """Keys that are less than sure, and how sure they are (`identity.RANK`)."""
        self.entities = self._entities()
        self.deals, self.deals_unknown = self._deals()
        self._values: Values | None = None

    @property
    def missing_fields(self) -> list[str]:
        """Harmless fields that the channel did not give."""
        address = self.order.ship_to
        out = [] if self.order.remark else ["remark"]
        return out if address is not None and address.postcode else [*out, "postcode"]

    def _entities(self) -> dict[str, list[str]]:
        """Entity kind -> keys, of the kinds that the pack asks."""
        pack = self.pack
        found, self.unsure = identity.known(self.order, self._keys, pack.known, pack.least, merging=pack.merge_within > 0)
        self.user = found["user"][0] if "user" in found else None
        if "user" not in pack.kinds:
            found.pop("user", None)
        if "sku" in pack.kinds:
            skus = {*self.resolved.pieces, *[line.sku for line in self.resolved.lines if line.sku is not None and not line.gift]}
            if skus:
                found["sku"] = [f"sku:{sku}" for sku in sorted(skus)]
        if "pair" in pack.kinds and (implied := self._implied()):
            found["pair"] = sorted({f"pair:{pair}" for pair, _ in implied})
        return found

    @property
    def _converted(self) -> bool:
        """Whether money was converted at all: otherwise a rate is nobody's question."""
        if self.order.conversion is not None:
            return True
        foreign = [a for a in self.resolved.articles.values() if a.currency != self.order.currency]
        return any(a.base is not None for a in foreign)

    def _implied(self) -> list[tuple[str, float]]:
        """Rates that the order was converted at: (pair, units of the second for one of the first)."""
        order = self.order
        out: list[tuple[str, float]] = []
        if order.conversion is not None and order.conversion.amount > 0:
            c = order.conversion
            out.append((f"{c.currency}/{c.to}", _units(c.to_amount, c.to) / _units(c.amount, c.currency)))
        for line in self.resolved.lines:
            article = self.resolved.articles.get(line.id)
            if article is None or article.currency == order.currency:
                continue
            if not line.gift and line.list_price and (base := article.base):
                implied = _units(base, article.currency) / _units(line.list_price, order.currency)
                out.append((f"{order.currency}/{article.currency}", implied))
        return out

    def _deals(self) -> tuple[list[tuple[str, Deal]], list[str]]:
        """Main lines' prices after discounts, by sku, and the lines whose price can't be compared."""
        mains = [line for line in self.resolved.lines if not line.gift]
        articles = self.resolved.articles
        if not [article for article in articles.values() if article.base_price is not None]:
            return [], [line.id for line in mains]
        amount = sum([line.price * line.quantity for line in mains])
        own = any(line.discount is not None for line in mains)
        off = 0 if own or not self.order.discounts else min(sum(d.amount for d in self.order.discounts), amount)
        deals: list[tuple[str, Deal]] = []
        unknown: list[str] = []
        for line in mains:
            article = articles.get(line.id)
            base = article.base if article is not None and article.currency == self.order.currency else None
            if article is None or base is None:
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

    def context(self) -> Values:
        """What expressions read as `order` and `data`."""
        if self._values is None:
            # making and handing over what no rule reads would cost more than judging
            self._values = self.pack.values(order=self.fields(self.pack.order_fields))
        return self._values

    def fields(self, asked: Iterable[str] | None = None) -> dict[str, Any]:
        """What `order` is to expressions: these of its fields, all of them where none are named."""
        out: dict[str, Any] = {}
        for name in _FIELDS if asked is None else asked:
            read = _FIELDS.get(name)
            value = None if read is None else read(self)
            if value is not None:
                out[name] = value
        return out

    @property
    def unmapped(self) -> list[dict[str, Any]]:
        """The lines that name no article of ours, with what they may be where a rule asks for that: it takes milliseconds."""
        found = self.resolved.unmapped
        if not found:
            return []
        like = self._catalogue.nearest if self.pack.asks_nearest else _nothing_like
        return [
            {"line": u.line, "code": u.code or "", "why": u.why, "nearest": [list(n) for n in like(u.text, self.received)]}
            for u in found
        ]

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

    def barred(self) -> tuple[frozenset[str], set[str]]:
        """Entity rules that this order is no member of, and those among them that could not be judged."""
        if self._barred_rules is None:
            self._barred_rules = self._bar()
        return self._barred_rules

    def _bar(self) -> tuple[frozenset[str], set[str]]:
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
            if foreign or (measure.distinct is not None and self.user is None):
                missing.add(judge.id)
                out.add(judge.id)
        return frozenset(out), missing

    def kept(self, key: str) -> bool:
        """Whether the entity still keeps this order's fact when this revision is received, so that it can be withdrawn."""
        keep = self.pack.keep.get(key.partition(":")[0], 0)
        return self.received - self.at <= keep + self.pack.lateness + self.pack.horizon

    def said(self) -> frozenset[int]:
        """What this revision says, one number a fact and a rule that fired on the order alone; nothing where it withdraws."""
        if self.order.status in WITHDRAWN:
            return frozenset()
        return frozenset((*self.numbers().values(), *map(_rule_number, self.judge()[0])))

    # -- what goes out -----------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Fact]:
        """Entity -> what it is told, for each that the pack asks, with `stamp`."""
        if self._told is None:
            self._told, self._numbers = self._facts()
        return self._told

    def numbers(self) -> dict[str, int]:
        """Entity -> one number for what it is told, whatever the version, the pack and the clock.

        Of 64 bits: two that are equal say the same.
        """
        self.facts()
        return self._numbers

    def _facts(self) -> tuple[dict[str, Fact], dict[str, int]]:
        order, pack, user, late, deals = self.order, self.pack, self.user, self.late, self.deals
        number, at, version, resolved, unsure = order.order_id, self.at, pack.version, self.resolved, self.unsure
        stamp, since_ms = self.stamp
        out, _ = self.barred()
        skus = tuple(sorted({line.sku for line in resolved.lines if line.sku is not None and not line.gift}))
        total = order.total if order.currency == pack.policy.currency else None
        facts: dict[str, Fact] = {}
        numbers: dict[str, int] = {}
        for kind, entity_keys in self.entities.items():
            barred = pack.among(kind, out) if out else ()
            shared = skus if kind in _SHARING else ()
            place = identity.place(order.ship_to) if kind == "user" else None
            quantity, sold, rates = 0, _NO_DEALS, _NO_RATES
            for key in entity_keys:
                without = barred
                if key in unsure and (blind := pack.stricter(kind, unsure[key])):
                    without = tuple(sorted({*barred, *blind}))
                if kind == "sku":
                    name = key[4:]
                    quantity = resolved.pieces.get(name, 0)
                    sold = tuple([deal for sku, deal in deals if sku == name]) if deals else ()
                elif kind == "pair":
                    name = key[5:]
                    rates = tuple([rate for pair, rate in self._implied() if pair == name])
                facts[key] = Fact(
                    number, stamp, at, since_ms, version, not late, False, user, total, shared, quantity, place, without, sold, rates
                )  # fmt: skip
                said = _packed((key, user, total, shared, quantity, place, without, sold, rates))
                numbers[key] = int.from_bytes(blake2b(said, digest_size=8).digest())
        return facts, numbers

    def dossier(self, version: int, expects: dict[str, int], revisions: list[Revision], now: int) -> Dossier:
        """The order on its way to its verdict. expects: entity -> version of its fact. revisions: from which it is told since when a rule has fired on it."""
        order, pack = self.order, self.pack
        if order.status in WITHDRAWN:
            return Dossier(
                order.order_id, version, pack.version, order.status, order.currency, order.total, order.created_at,
                self.first, {}, tags=tuple(self.tags), normalised_at=now,
            )  # fmt: skip
        fired, missing = self.judge()
        findings: dict[str, Finding] = {}
        for rule, finding in fired.items():
            first = since(revisions, _rule_number(rule))
            findings[rule] = Finding(finding.evidence, first, first)
        _, barred = self.barred()
        absent = pack.absent(
            self._kinds(expects),
            frozenset([j.id for j in pack.strict if not any(self._seen(j, key) for key in expects)]) if pack.strict else _NOBODY,
            converted=self._converted,
            unmapped=bool(self.resolved.unmapped),
            late=self.late,
        )
        filled, document = self._document()
        units = _json(self.resolved.units)
        return Dossier(
            order.order_id,
            version,
            pack.version,
            order.status,
            order.currency,
            order.total,
            order.created_at,
            self.first,
            expects,
            findings,
            tuple(sorted({*missing, *barred, *absent})) if missing or barred else absent,
            tuple(self.tags),
            document,
            units,
            filled,
            hashlib.sha256(document + units).hexdigest()[:16],
            now,
        )

    def _kinds(self, keys: dict[str, int]) -> frozenset[str]:
        """The kinds of these entities."""
        if self._told is not None and keys.keys() == self._told.keys():
            return frozenset(self.entities)
        return frozenset([key.partition(":")[0] for key in keys])

    def _seen(self, judge: Judge, key: str) -> bool:
        """Whether a rule asks an entity: it is of its kinds, and known as surely as the rule needs."""
        return key.partition(":")[0] in judge.kinds and self.unsure.get(key, identity.SURE) >= judge.least

    def _document(self) -> tuple[tuple[str, ...], bytes]:
        """The order as it leaves, mapped and filled (JSON), and which fields were filled."""
        order, fill = self.order, self.pack.policy.fill
        filled: list[str] = []
        lines, remark, ship_to = self.resolved.lines, order.remark, order.ship_to
        if not remark and "remark" in fill:
            remark = fill["remark"]
            filled.append("remark")
        if ship_to is not None and not ship_to.postcode and "postcode" in fill:
            ship_to = msgspec.structs.replace(ship_to, postcode=fill["postcode"])
            filled.append("postcode")
        return tuple(filled), _json(msgspec.structs.replace(order, lines=lines, remark=remark, ship_to=ship_to))


_json = msgspec.json.Encoder().encode
_packed = msgspec.msgpack.Encoder().encode

_NOBODY: frozenset[str] = frozenset()
_NO_DEALS: tuple[Deal, ...] = ()
_NO_RATES: tuple[float, ...] = ()

_SHARING = frozenset({"user", "person", "device", "ip", "segment", "payment", "address", "phone"})
"""Kinds of entities in which orders may share an article."""


def _units(amount: int, currency: str) -> float:
    return float(amount / 10 ** money.EXPONENT[currency])


def _nothing_like(text: str, at: int) -> tuple[Near, ...]:
    del text, at
    return ()


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


_FIELDS: dict[str, Callable[[Reading], Any]] = {
    "status": lambda r: r.order.status,
    "channel": lambda r: r.order.channel,
    "shop": lambda r: r.order.shop,
    "currency": lambda r: r.order.currency,
    "total": lambda r: r.order.total,
    "presale": lambda r: r.order.presale,
    "hold": lambda r: r.order.hold or "",
    "coupon": lambda r: any(d.kind == "coupon" for d in r.order.discounts),
    "missing": lambda r: r.missing_fields,
    "lines": lambda r: [_line_map(line) for line in r.resolved.lines],
    "unmapped": lambda r: r.unmapped,
    "gifts_without_main": lambda r: [*r.resolved.gifts_without_main],
    "gifts_unknown": lambda r: [*r.resolved.gifts_unknown],
    "wrong_variants": lambda r: [*r.resolved.wrong_variants],
    "variants_unknown": lambda r: [*r.resolved.variants_unknown],
    "papers_missing": lambda r: [*r.resolved.papers_missing],
    "wrong_hs_codes": lambda r: [*r.resolved.wrong_hs_codes],
    "hs_codes_unknown": lambda r: [*r.resolved.hs_codes_unknown],
    "deals_unknown": lambda r: r.deals_unknown,
    "tags": lambda r: r.tags,
    "phone": lambda r: identity.own(r.order),
    "account_age_ms": lambda r: None if r.order.buyer.registered_at is None else r.at - r.order.buyer.registered_at,
}
"""What expressions may read of `order`; what is None is not there for them."""


def since(revisions: list[Revision], said: int) -> int:
    """received_at of the first record from which on, without a break up to the last that says it, the order has said this."""
    if len(revisions) == 1:
        return revisions[0].received_at
    first = 0
    for revision in reversed(revisions):
        if said in revision.said:
            first = min(first or revision.received_at, revision.received_at)
        elif first:
            break
    return first or revisions[-1].received_at


def _rule_number(rule: str) -> int:
    return crc32(rule.encode())
