"""Outcomes: what people and the world say of an order after its verdict, and what of it is in force.

Law: what stands is a function of the *set* of outcomes, never of the sequence in which they came. The last thing that somebody
decided stands, by its own time; of two at the same millisecond the one with the greater id. What has been taken back counts
for nothing, and once a parcel has left, nobody takes it back. An id is taken in once, however often it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from orderstream import times
from orderstream.facts import Outcome

DECISIONS = frozenset(("released", "cancelled", "correction", "after-sales"))
"""What a person decides who has seen a verdict. correction: given back to be corrected; after-sales: handed over. Both wait."""

ANSWERS = frozenset(("customer-confirmed", "customer-single", "customer-address"))
"""What the customer answers: yes, both; only one of them; the address is wrong."""

WORLD = frozenset(
    ("shipped", "returned", "chargeback", "wrong-shipment", "complaint", "contact", "confirmed-fraud", "false-alarm")
)
"""What happened."""

OUTCOMES = DECISIONS | ANSWERS | WORLD | {"undone"}

ENDS = frozenset(("cancelled", "confirmed-fraud"))
"""The order stands on no public topic, and is recalled where it was out."""

WAITS = frozenset(("correction", "after-sales", "customer-single", "customer-address"))
"""The order waits for a person, and is recalled where it was out."""

SERVED = frozenset(("correction", "customer-single", "customer-address"))
"""Of these, what is over once the order has changed: that is what was asked for."""

FRAUDS = frozenset(("confirmed-fraud", "chargeback"))

TEACHES = FRAUDS | {"returned", "wrong-shipment", "complaint"}
"""What the entities of an order are told of it, for the orders that come after."""

MOVES = ENDS | WAITS | {"released", "undone"}
"""What changes where an order stands."""

_TEXTS = ("by", "id", "reason", "undoes")
_LONGEST = 200


def read(record: Mapping[str, Any]) -> Outcome:
    """The outcome of a record of orders.outcomes; without an id it is known by what it says. Raises KeyError, ValueError."""
    said = record["outcome"]
    if said not in OUTCOMES:
        raise ValueError(f"outcome {said!r} is none of {', '.join(sorted(OUTCOMES))}")
    by, name, reason, undoes = (_text(record, field) for field in _TEXTS)
    seq = record.get("seq")
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool) or seq < 1):
        raise ValueError(f"seq {seq!r} is no number of a verdict")
    if (said == "undone") != (undoes is not None):
        raise ValueError("`undone` names in `undoes` the id that it takes back, and nothing else does")
    order, at = str(record["order_id"]), times.parse(record["at"])
    return Outcome(order, at, said, by, name or derived(order, at, said, by), reason, seq, undoes, _merge(said, record))


def derived(order: str, at: int, said: str, by: str | None) -> str:
    """The id of an outcome that was sent without one: said again, it is the same."""
    return hashlib.sha256("\0".join((order, str(at), said, by or "")).encode()).hexdigest()[:32]


def _merge(said: str, record: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of a release: the orders that it is to leave with, none of them where the list is empty; None where it does not say."""
    details = record.get("details")
    wanted = details.get("merge_with") if said == "released" and isinstance(details, Mapping) else None
    if wanted is None:
        return None
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise ValueError("details.merge_with is no list of order ids")
    return tuple(sorted(set(wanted)))


def _text(record: Mapping[str, Any], field: str) -> str | None:
    value = record.get(field)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST):
        raise ValueError(f"{field} is no text of up to {_LONGEST} characters")
    return value or None


def too_late(outcome: Outcome, shipped_at: int | None) -> bool:
    """Whether it would take back what had left by then (shipped_at: ms, None: nothing has)."""
    return shipped_at is not None and outcome.at >= shipped_at and outcome.outcome in ENDS | WAITS | {"undone"}


def in_force(outcomes: Iterable[Outcome], shipped_at: int | None) -> Outcome | None:
    """What somebody decided and stands; `undone` where the last of it was taken back, None where there is nothing."""
    heard = [one for one in outcomes if one.outcome in MOVES and not too_late(one, shipped_at)]
    back = {one.undoes: one for one in sorted(heard, key=_turn) if one.outcome == "undone"}
    decided = [one for one in heard if one.outcome != "undone"]
    standing = [one for one in decided if one.id not in back]
    taken = [back[one.id] for one in decided if one.id in back]
    return max(standing, key=_turn, default=None) or max(taken, key=_turn, default=None)


def _turn(outcome: Outcome) -> tuple[int, str]:
    return (outcome.at, outcome.id)
