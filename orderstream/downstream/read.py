"""What records of the topics say of an order's flow.

Law: a record of route's that is not of its schema is a bug, and stops us: passing over it would be losing an order. What others
write (`OTHERS`) may be wrong: it is counted and left where it is, and its order goes on waiting, on the wall if need be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from orderstream import times
from orderstream.downstream.flow import Ack, Acked, Effect, Item, Judged, Left, Parcel, Said, Unit

READS = (
    "orders.verdicts", "orders.released", "orders.recalled", "orders.outcomes", "erp.acks", "wms.acks", "wms.shipments",
)  # fmt: skip

OTHERS = frozenset(("orders.outcomes", "erp.acks", "wms.acks", "wms.shipments"))


class Told(NamedTuple):
    """What a record says of which order."""

    order_id: str
    item: Item


class _Timings(msgspec.Struct):
    created_at: int


class _Verdict(msgspec.Struct):
    order_id: str
    verdict_seq: int
    verdict: str
    status: str
    held: bool
    pack: str
    timings: _Timings
    out: str | msgspec.UnsetType | None = msgspec.UNSET


class _Order(msgspec.Struct):
    currency: str
    total: int
    ship_by: int | None = None


class _Released(msgspec.Struct):
    order_id: str
    verdict_seq: int
    pack: str
    order: _Order
    units: list[Unit]


class _Recalled(msgspec.Struct):
    order_id: str
    verdict_seq: int
    pack: str


class _Ack(msgspec.Struct):
    order_id: str
    verdict_seq: int
    effect: Effect
    currency: str | None = None
    total: int | None = None
    reason: str | None = None
    units: tuple[int, ...] = ()
    refunded: int | None = None


class Shipment(msgspec.Struct):
    """A record of wms.shipments, and what a warehouse asks about before the parcel leaves. at: ms, absent: now."""

    shipment_id: str
    order_id: str
    verdict_seq: int
    skus: dict[str, int]
    at: int = 0
    unit: int | None = None
    complete: bool = True

    def parcel(self, at: int) -> Parcel:
        """It as the flow knows it."""
        return Parcel(self.shipment_id, self.verdict_seq, at, self.skus, self.unit, self.complete)


class _Outcome(msgspec.Struct):
    order_id: str
    outcome: str
    at: Any


def _verdict(value: _Verdict, at: int) -> Told:
    # one that a person has released stands on released, whatever the machine thinks; one that a person has cancelled stands nowhere
    stands = value.out if isinstance(value.out, str | None) else "frozen" if value.held else value.verdict
    back = value.status == "paid" and stands in ("review", "frozen")
    judged = Judged(
        value.verdict_seq, value.verdict, value.status, at, value.pack, at if back else None, value.timings.created_at
    )
    return Told(value.order_id, judged)


def _released(value: _Released, at: int) -> Told:
    order = value.order
    said = Said(value.verdict_seq, at, True, value.pack, order.currency, order.total, tuple(value.units), order.ship_by)
    return Told(value.order_id, said)


def _recalled(value: _Recalled, at: int) -> Told:
    return Told(value.order_id, Said(value.verdict_seq, at, False, value.pack))


def _ack(system: Any, value: _Ack, at: int) -> Told:
    whole = value.effect == "picked" and not value.units
    ack = Ack(
        value.verdict_seq, value.effect, at, at, value.currency, value.total, value.reason, tuple(sorted({*value.units})), whole,
        value.refunded,
    )  # fmt: skip
    return Told(value.order_id, Acked(system, ack))


def _outcome(value: _Outcome, at: int) -> Told | None:
    if value.outcome not in ("shipped", "returned"):
        return None
    when = times.parse(value.at) if isinstance(value.at, str) else int(value.at)
    del at
    return Told(value.order_id, Left(value.outcome, when))  # type: ignore[arg-type]  # one of the two


_READ: dict[str, tuple[Any, Callable[[Any, int], Told | None]]] = {
    "orders.verdicts": (msgspec.json.Decoder(_Verdict), _verdict),
    "orders.released": (msgspec.json.Decoder(_Released), _released),
    "orders.recalled": (msgspec.json.Decoder(_Recalled), _recalled),
    "orders.outcomes": (msgspec.json.Decoder(_Outcome), _outcome),
    "erp.acks": (msgspec.json.Decoder(_Ack), lambda value, at: _ack("erp", value, at)),
    "wms.acks": (msgspec.json.Decoder(_Ack), lambda value, at: _ack("wms", value, at)),
    "wms.shipments": (msgspec.json.Decoder(Shipment), lambda value, at: Told(value.order_id, value.parcel(value.at or at))),
}


def told(topic: str, value: bytes, at: int) -> Told | None:
    """What a record of a topic (without the installation's prefix) says; None where that changes no flow. at: when Kafka had it, ms.

    Raises ValueError.
    """
    decoder, read = _READ[topic]
    said = decoder.decode(value)
    if said.order_id.count(":") != 2:
        raise ValueError("order_id is no channel:shop:number")
    return read(said, at)
