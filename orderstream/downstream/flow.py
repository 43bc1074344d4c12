"""Flow: everything that is known of one order's way behind the release, and what it waits for.

Law: `take` is idempotent, and records of different topics commute (of one topic an order's come by their numbers, or again);
`waits` and `wrong` are
functions of the flow and of the packs' limits, and read no clock. A wait that is past its `due` is what stands on the wall.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from orderstream.downstream.parcels import Difference, compare
from orderstream.rules.model import Limits

System = Literal["erp", "wms"]
SYSTEMS: tuple[System, ...] = ("erp", "wms")
Effect = Literal["accepted", "changed", "intercept", "picked", "refused", "stopped"]
WaitKind = Literal[
    "unacknowledged-erp", "unacknowledged-wms", "refused-erp", "refused-wms", "unpicked", "stuck", "wrong-shipment", "intercept"
]
WAITS: tuple[WaitKind, ...] = (
    "unacknowledged-erp", "unacknowledged-wms", "refused-erp", "refused-wms", "unpicked", "stuck", "wrong-shipment", "intercept",
)  # fmt: skip
KEPT = 8
"""Releases and recalls of one order that are remembered, newest first by number: a parcel is compared with one of them."""
SETTLE_MS = 300_000
"""How long a parcel may be ahead of the record that released its order: two topics have no order between them."""


class Unit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pieces that leave together. ships_at: ms, of a pre-sale."""

    skus: dict[str, int]
    ships_at: int | None = None


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order's last verdict. at, created_at (the order's): ms; since: when it began to be paid and kept back, ms (None: it is not)."""

    seq: int
    verdict: str
    status: str
    at: int
    pack: str = ""
    since: int | None = None
    created_at: int | None = None


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of orders.released or orders.recalled. at: when Kafka had it, ms; total: minor units; ship_by: ms."""

    seq: int
    at: int
    released: bool
    pack: str = ""
    currency: str = ""
    total: int = 0
    units: tuple[Unit, ...] = ()
    ship_by: int | None = None


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a system said of its highest verdict_seq. since, at: its first and last word, ms, by Kafka's clock.

    total: minor units that the ERP has booked, None where it does not say; refunded: what it has paid back of it, in all. units: those
    picked, by number; whole: all of them.
    """

    seq: int
    effect: Effect
    since: int
    at: int
    currency: str | None = None
    total: int | None = None
    reason: str | None = None
    units: tuple[int, ...] = ()
    whole: bool = False
    refunded: int | None = None


class Parcel(msgspec.Struct, frozen=True, omit_defaults=True):
    """What left for one order under one shipment id. at: ms, the warehouse's clock. unit: its number in the release `seq`."""

    shipment_id: str
    seq: int
    at: int
    skus: dict[str, int]
    unit: int | None = None
    complete: bool = True


class Left(msgspec.Struct, frozen=True):
    """An outcome `shipped` or `returned`, ms."""

    what: Literal["shipped", "returned"]
    at: int


class Settled(msgspec.Struct, frozen=True):
    """A person has dealt with a wait of an order."""

    kind: WaitKind
    seq: int


class Flow(msgspec.Struct, omit_defaults=True):
    """One order's way. said: newest first; parcels: by shipment and unit; settled: kind -> up to which verdict_seq."""

    order: str
    judged: Judged | None = None
    said: list[Said] = []
    acks: dict[System, Ack] = {}
    parcels: dict[str, Parcel] = {}
    shipped_at: int | None = None
    returned_at: int | None = None
    settled: dict[str, int] = {}


class Acked(msgspec.Struct, frozen=True):
    """An acknowledgement, and whose."""

    system: System
    ack: Ack


Item = Judged | Said | Acked | Parcel | Left | Settled


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an order waits for since when, and until when that is in order (ms). seq: the verdict that it is about."""

    kind: WaitKind
    seq: int
    since: int
    due: int
    body: dict[str, Any] = {}


class Wrong(msgspec.Struct, frozen=True):
    """Shipments that are not what was released. id: the same for the same finding; at: when the last of them left, ms."""

    id: str
    seq: int
    at: int
    shipments: tuple[str, ...]
    differences: tuple[Difference, ...]


def take(flow: Flow, item: Item) -> None:
    """Adds what a record says."""
    if isinstance(item, Judged):
        if flow.judged is None or item.seq > flow.judged.seq:
            # kept back without a break since the verdict before: that is when it began
            before = flow.judged.since if flow.judged is not None else None
            since = before if before is not None and item.since is not None else item.since
            flow.judged = msgspec.structs.replace(item, since=since)
    elif isinstance(item, Said):
        _say(flow, item)
    elif isinstance(item, Acked):
        known = flow.acks.get(item.system)
        flow.acks[item.system] = item.ack if known is None else _both(known, item.ack)
    elif isinstance(item, Parcel):
        name = item.shipment_id if item.unit is None else f"{item.shipment_id}/{item.unit}"
        known_parcel = flow.parcels.get(name)
        # said again, a shipment is corrected: the later word counts
        if known_parcel is None or _key(known_parcel) < _key(item):
            flow.parcels[name] = item
    elif isinstance(item, Left):
        if item.what == "shipped":
            flow.shipped_at = item.at if flow.shipped_at is None else min(flow.shipped_at, item.at)
        else:
            flow.returned_at = item.at if flow.returned_at is None else max(flow.returned_at, item.at)
    else:
        flow.settled[item.kind] = max(flow.settled.get(item.kind, 0), item.seq)


def _key(parcel: Parcel) -> tuple[int, int, list[tuple[str, int]], bool]:
    return parcel.at, parcel.seq, sorted(parcel.skus.items()), parcel.complete


def _say(flow: Flow, said: Said) -> None:
    known = next((one for one in flow.said if one.seq == said.seq), None)
    if known is not None:
        # Kafka has a record twice after a crash: the first time counts
        if said.at < known.at:
            flow.said[flow.said.index(known)] = said
        return
    flow.said = sorted([*flow.said, said], key=lambda one: -one.seq)[:KEPT]


def _both(one: Ack, other: Ack) -> Ack:
    """Two words of one system: of the higher number, or together what they say of the same."""
    if one.seq != other.seq:
        return max(one, other, key=lambda ack: ack.seq)
    last = max(one, other, key=lambda ack: (ack.effect == "picked", ack.at, ack.effect, ack.total or 0, ack.reason or ""))
    return msgspec.structs.replace(
        last,
        since=min(one.since, other.since),
        at=max(one.at, other.at),
        units=tuple(sorted({*one.units, *other.units})),
        whole=one.whole or other.whole,
        refunded=max((ack.refunded for ack in (one, other) if ack.refunded is not None), default=None),
    )


def current(flow: Flow) -> Said | None:
    """The release or recall in force; None for an order that has never been out."""
    return flow.said[0] if flow.said else None


def waits(flow: Flow, limits_of: Callable[[str], Limits]) -> list[Wait]:
    """What the order waits for. limits_of: a pack's version -> its limits."""
    found = [*_kept_back(flow, limits_of), *_outside(flow, limits_of)]
    bad = wrong(flow)
    if bad is not None:
        body = {"shipments": list(bad.shipments), "differences": msgspec.to_builtins(bad.differences)}
        found.append(Wait("wrong-shipment", bad.seq, bad.at, bad.at, body))
    return [wait for wait in found if flow.settled.get(wait.kind, 0) < wait.seq]


def _kept_back(flow: Flow, limits_of: Callable[[str], Limits]) -> list[Wait]:
    judged, said = flow.judged, current(flow)
    if judged is None or judged.since is None or (said is not None and said.released and said.seq >= judged.seq):
        return []
    stuck = limits_of(judged.pack).stuck
    return [] if stuck is None else [Wait("stuck", judged.seq, judged.since, judged.since + stuck, {"where": judged.verdict})]


def _outside(flow: Flow, limits_of: Callable[[str], Limits]) -> list[Wait]:
    said = current(flow)
    if said is None:
        return []
    limits = limits_of(said.pack)
    gone = flow.shipped_at is not None or bool(flow.parcels)
    found: list[Wait] = []
    for system in SYSTEMS:
        ack = flow.acks.get(system)
        limit = limits.acknowledged.get(system)
        if limit is not None and (ack is None or ack.seq < said.seq) and not (said.released and gone):
            what = {"what": "released" if said.released else "recalled"}
            found.append(Wait(f"unacknowledged-{system}", said.seq, said.at, said.at + limit, what))  # type: ignore[arg-type]
        elif ack is not None and ack.seq == said.seq and ack.effect == "refused":
            body = {"reason": ack.reason} if ack.reason else {}
            found.append(Wait(f"refused-{system}", ack.seq, ack.at, ack.at, body))  # type: ignore[arg-type]
    erp = flow.acks.get("erp")
    if erp is not None and erp.effect == "intercept" and erp.seq == said.seq and flow.returned_at is None:
        found.append(Wait("intercept", erp.seq, erp.at, erp.at))
    if said.released and not gone:
        found += _unpicked(flow, said, limits)
        if said.ship_by is not None and limits.stuck is not None:
            found.append(Wait("stuck", said.seq, said.at, said.ship_by, {"where": "released"}))
    return found


def _unpicked(flow: Flow, said: Said, limits: Limits) -> list[Wait]:
    acks = [ack for ack in flow.acks.values() if ack.seq == said.seq and ack.effect != "refused"]
    if limits.picked is None or not acks or any(ack.whole for ack in acks):
        return []
    picked = {number for ack in acks for number in ack.units}
    left = [unit for number, unit in enumerate(said.units) if number not in picked]
    if said.units and not left:
        return []
    since = min(ack.since for ack in acks)
    # what is not there yet cannot be picked: a pre-sale's time begins when it ships
    start = max(since, min((unit.ships_at or 0 for unit in left), default=0))
    return [Wait("unpicked", said.seq, since, start + limits.picked)]


def wrong(flow: Flow) -> Wrong | None:
    """What left and is not what was released; None where all of it is, or where the release is not known yet."""
    groups: dict[tuple[int, int | None], list[Parcel]] = {}
    found: list[Difference] = []
    bad: list[Parcel] = []
    for parcel in flow.parcels.values():
        force = in_force(flow, parcel)
        if force is None:
            continue
        if not force.released:
            found.append(Difference("not-released"))
            bad.append(parcel)
        else:
            groups.setdefault((force.seq, parcel.unit), []).append(parcel)
    releases = {said.seq: said for said in flow.said}
    for (seq, unit), parcels in groups.items():
        differences = _differences(releases[seq], unit, parcels)
        found += differences
        bad += parcels if differences else []
    if not found:
        return None
    differences = tuple(sorted(set(found)))
    shipments = tuple(sorted({parcel.shipment_id for parcel in bad}))
    name = msgspec.json.encode((flow.order, shipments, differences))
    return Wrong(hashlib.sha256(name).hexdigest()[:32], max(p.seq for p in bad), max(p.at for p in bad), shipments, differences)


def in_force(flow: Flow, parcel: Parcel) -> Said | None:
    """The release or recall that held when a parcel left, at least the one that it was packed by; None: not known here yet."""
    heard = [said for said in flow.said if said.at <= parcel.at or said.seq <= parcel.seq]
    return heard[0] if heard and heard[0].seq >= parcel.seq else None


def _differences(release: Said, unit: int | None, parcels: Sequence[Parcel]) -> tuple[Difference, ...]:
    expected: Counter[str] = Counter()
    for number, one in enumerate(release.units):
        if unit is None or unit == number:
            expected.update(one.skus)
    sent: Counter[str] = Counter()
    for parcel in parcels:
        sent.update(parcel.skus)
    return compare(expected, sent, complete=any(parcel.complete for parcel in parcels))


def checked(flow: Flow, parcel: Parcel) -> tuple[Difference, ...]:
    """What would be wrong if this parcel left now, beside what has left already; () for one that may go."""
    said = current(flow)
    if said is None or not said.released or said.seq < parcel.seq:
        return (Difference("not-released"),)
    name = parcel.shipment_id if parcel.unit is None else f"{parcel.shipment_id}/{parcel.unit}"
    others = [p for key, p in flow.parcels.items() if key != name and p.unit == parcel.unit and in_force(flow, p) is said]
    return _differences(said, parcel.unit, [*others, parcel])
