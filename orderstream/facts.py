"""What travels between the hops: facts to entities, answers and dossiers to orders.

Law: a fact says all that an entity needs to judge an order by itself, and nothing personal: entities are keyed hashes, the
rest are ids, times (ms UTC), amounts (minor units of the pack's currency) and coordinates. Every item carries the version of
what it speaks for, so that a repeat changes nothing and an older one is known to be older.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


class Deal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A line's price a piece after its share of the discounts (minor units, may be fractional), and its article's base price."""

    line: str
    deal: float
    base: int


class Fact(msgspec.Struct, array_like=True, frozen=True, tag="f", gc=False):
    """What one order says of one entity; which one stands beside it.

    version: grows with each change of this fact. at: the order's event time. since: received_at of the record from which on
    the order's facts have been these; a pattern is found when its last member's `since` has come. enters: counts in windows
    (a late order only asks). gone: the order is withdrawn or has left this entity. out: rules that this order is no member of.
    """

    order: str
    version: int
    at: int
    since: int
    pack: str
    enters: bool = True
    gone: bool = False
    user: str | None = None
    total: int | None = None
    skus: tuple[str, ...] = ()
    quantity: int = 0
    place: tuple[float, float] | None = None
    out: tuple[str, ...] = ()
    deals: tuple[Deal, ...] = ()
    conversions: tuple[float, ...] = ()


class Stock(msgspec.Struct, array_like=True, frozen=True, tag="s", order=True, gc=False):
    """Pieces of a SKU available to everybody from `at` on; locks: orders that hold theirs."""

    entity: str
    at: int
    available: int
    locks: tuple[str, ...] = ()


class Trust(msgspec.Struct, array_like=True, frozen=True, tag="t", order=True, gc=False):
    """An entity for which rules are off from `at` to before `until`; users: only among these (keys), empty: for everybody.

    Told again with another `until` it is the same one, and the earlier end counts; so of a `Snooze`.
    """

    entity: str
    at: int
    until: int
    rules: tuple[str, ...]
    users: tuple[str, ...] = ()


class Rate(msgspec.Struct, array_like=True, frozen=True, tag="r", order=True, gc=False):
    """The reference rate of a currency pair from `at` on: one unit of the first is `rate` of the second."""

    entity: str
    at: int
    rate: float


class Floor(msgspec.Struct, array_like=True, frozen=True, tag="p", order=True, gc=False):
    """A campaign's lowest allowed price of a SKU (minor units) from `at` to before `until`."""

    entity: str
    at: int
    until: int
    price: int


class Snooze(msgspec.Struct, array_like=True, frozen=True, tag="z", order=True, gc=False):
    """An entity for whose orders from `at` to before `until` rules are judged and count for nothing."""

    entity: str
    at: int
    until: int
    rules: tuple[str, ...]


class Came(msgspec.Struct, array_like=True, frozen=True, tag="w", order=True, gc=False):
    """What came of an order of this entity: an outcome that teaches (`outcomes.TEACHES`), or that it was taken back."""

    entity: str
    at: int
    order: str
    outcome: str


Update = Stock | Trust | Rate | Floor | Snooze | Came
"""Reference data: what is known about an entity, as of a time."""


News = Fact | Stock | Trust | Rate | Floor | Snooze | Came
"""What an entity can be told."""

Told = tuple[str, int, list[News]]
"""An entity, the earliest event time (ms) of the facts that it is told (NO_FACT where there are none), and what it is told."""

NO_FACT = -1
NO_SOURCE = -1


class FactBatch(msgspec.Struct, array_like=True, gc=False):
    """What one normaliser sends to one partition of entities at once, each entity once.

    source: its partition, NO_SOURCE where it is no normaliser: nothing is forgotten because of it. progress: the latest received_at
    (ms) that it has seen. idle: it has nothing left to read.
    packs: the pack versions that facts name.
    """

    source: int
    progress: int
    idle: bool
    packs: list[str]
    items: list[Told]


def batch(source: int, progress: int, items: dict[str, list[News]], *, idle: bool = False) -> FactBatch:
    """A batch of what entities are told."""
    packs: dict[str, None] = {}
    told: list[Told] = []
    for entity, news in items.items():
        earliest: int | None = None
        for one in news:
            if type(one) is Fact:
                packs[one.pack] = None
                if earliest is None or one.at < earliest:
                    earliest = one.at
        told.append((entity, NO_FACT if earliest is None else earliest, news))
    return FactBatch(source, progress, idle, list(packs), told)


class Finding(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A rule that fired: its evidence, when (ms) the record came that completed it, and when what the order has to do with it."""

    evidence: dict[str, Any]
    found: int
    since: int


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one entity says of one order: what fired, what could not be judged, which rules on other kinds a trust switches off.

    version: the fact's that it answers. position: grows with each answer of the entity's partition; of two, the later counts.
    merge: other orders to the same receiver within the pack's time, earliest first. snoozed: rules that count for nothing, with
    what this entity found; None: whatever is found elsewhere.
    """

    version: int
    position: int
    findings: dict[str, Finding] = {}
    missing: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    snoozed: dict[str, Finding | None] = {}


class Answers(msgspec.Struct, array_like=True, frozen=True, tag="a", gc=False):
    """What the entities of one partition say of one order: entity -> its answer."""

    by: dict[str, Answer]


class Dossier(msgspec.Struct, array_like=True, frozen=True, tag="d", gc=False):
    """An order on its way to its verdict: what it is, what it says by itself, and whose answers it waits for.

    version: grows with each change. expects: entity -> version of the fact that must be answered. findings: of rules on the
    order alone. missing: rules whose input is absent, unless an entity finds them fired. document, units: the order as it
    will leave and its fulfilment units (JSON), None where it is withdrawn. digest: changes when these do.
    """

    order: str
    version: int
    pack: str
    status: str
    currency: str
    total: int
    created_at: int
    received_at: int
    expects: dict[str, int]
    findings: dict[str, Finding] = {}
    missing: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    document: bytes | None = None
    units: bytes = b"[]"
    filled: tuple[str, ...] = ()
    digest: str = ""
    normalised_at: int = 0

    def said(self) -> bytes:
        """All that it says but its version and when it was made, in short."""
        return hashlib.sha256(msgspec.msgpack.encode(msgspec.structs.replace(self, version=0, normalised_at=0))).digest()[:12]


class Outcome(msgspec.Struct, array_like=True, frozen=True, tag="o", gc=False):
    """What people or the world said of an order; `outcomes` has the words. at: ms UTC.

    id: by which it is known when it is said again. reason: a short word, no person's data. seq: verdict_seq of the verdict that
    the person saw, None where nobody says. undoes: the id that it takes back. merge: of a release, the orders that it is to leave
    with, None where its person has said nothing of that.
    """

    order: str
    at: int
    outcome: str
    by: str | None = None
    id: str = ""
    reason: str | None = None
    seq: int | None = None
    undoes: str | None = None
    merge: tuple[str, ...] | None = None


class Forget(msgspec.Struct, array_like=True, frozen=True, tag="x", gc=False):
    """Somebody's wish: what an order says of a person is to go. What has been decided of it stays."""

    order: str


OrderItem = Dossier | Answers | Outcome | Forget
"""What can come to an order."""

Mail = tuple[str, list[OrderItem]]
"""An order, and what comes to it at once."""
