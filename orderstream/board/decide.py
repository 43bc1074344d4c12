"""Deciding: what a person may do with a waiting order, and what follows from it.

Law: a decision, its audit row and what is said to the stream are written together or not at all. It takes effect at once, and may
be taken back for a minute. Whoever was second, or had not seen what has come since, is told, and nothing is done for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from orderstream.board.store import Db

Role = Literal["reviewer", "desk", "supervisor", "approver", "analyst", "admin"]
What = Literal["release", "correction", "after-sales", "confirm", "cancel"]

UNDO = 60_000
"""How long a decision may be taken back (ms)."""

OUTCOMES: dict[str, str] = {
    "release": "released",
    "correction": "correction",
    "after-sales": "after-sales",
    "cancel": "cancelled",
}
"""What is said on orders.outcomes for a decision; `confirm` asks the customer instead."""

REASONS: dict[What, tuple[str, ...]] = {
    "release": ("false-alarm", "known-customer", "customer-confirmed", "checked", "price-approved", "other"),
    "correction": ("article", "address", "price", "customs", "contact", "other"),
    "after-sales": ("customer-asked", "exchange", "complaint", "refund", "other"),
    "confirm": ("duplicate", "quantity", "address", "payment", "other"),
    "cancel": ("fraud", "duplicate", "customer-asked", "no-stock", "unreachable", "other"),
}
"""The short lists that a decision's reason is from; `other` needs a note."""

METHODS = ("phone", "papers", "platform", "video")
RESULTS = ("confirmed", "failed", "unreachable")


class Person(msgspec.Struct, frozen=True):
    """Who is deciding. name: the login name, on every record; shops: `channel:shop` that they may touch, () for all."""

    name: str
    roles: frozenset[str]
    shops: tuple[str, ...] = ()


class Terms(msgspec.Struct, frozen=True):
    """What an installation asks for. Amounts in minor units of the order's own currency; 0: never.

    approval_from: a release of so much needs an approver, frozen or not; two_from: it needs two. verify: whether a frozen order
    is released only after a second identity check that ended `confirmed`.
    """

    approval_from: int = 0
    two_from: int = 0
    verify: bool = False


class NotAllowedError(Exception):
    """Something that this person may not do. code: short and stable, for the page's sentence."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Refusal(NamedTuple):
    """Why nothing was done with an order.

    code: `gone` (no such order) · `not-waiting` (somebody decided: by, decision) · `changed` (new since seen: rules, level, seq)
    · `asked` (waits for an approver already: by) · `unverified` (a second identity check is needed first).
    """

    code: Literal["gone", "not-waiting", "changed", "asked", "unverified"]
    by: str | None = None
    decision: str | None = None
    at: int | None = None
    rules: tuple[str, ...] = ()
    seq: int | None = None


class Decided(NamedTuple):
    """What came of it. bulk: what `undo` takes; done: took effect; asked: waits for approvers; refused: nothing was done."""

    bulk: uuid.UUID
    done: list[str]
    asked: list[str]
    refused: dict[str, Refusal]


def decide(
    db: Db,
    person: Person,
    seen: Mapping[str, int],
    what: What,
    reason: str,
    *,
    note: str = "",
    details: Mapping[str, Any] | None = None,
    at: int,
    terms: Terms,
) -> Decided:
    """Decides orders, each with the `seq` that the person saw of it. at: ms. One that is refused keeps no other from being decided.

    details: what belongs to it, `{"lines": …}` of a correction, `{"merge_with": […]}` of a release. Raises NotAllowedError for a
    role, a shop, a reason that is not in the list, a note that is missing.
    """
    raise NotImplementedError


def approve(
    db: Db, person: Person, decision: uuid.UUID, *, yes: bool, note: str = "", at: int
) -> Literal["effective", "more", "refused"]:
    """An approver's word on a decision that waits for it. Raises NotAllowedError: not an approver, the asker themselves, said
    before, or `changed` where the order has got new signals since it was asked.
    """
    raise NotImplementedError


def undo(db: Db, person: Person, bulk: uuid.UUID, *, at: int, only: Sequence[str] | None = None) -> list[str]:
    """Takes back what was decided in one go within the last minute; the orders that wait again. only: some of its orders.

    By whoever decided, or a supervisor. Raises NotAllowedError(`too-late`).
    """
    raise NotImplementedError


def verify(db: Db, person: Person, order_id: str, method: str, result: str, *, note: str = "", at: int) -> uuid.UUID:
    """Records a second identity check. Raises NotAllowedError."""
    raise NotImplementedError


def absent(db: Db, person: Person, who: str, deputy: str, since: int, until: int, *, at: int) -> int:
    """Names a deputy for somebody's absence (ms, until excluded); its id. Raises NotAllowedError."""
    raise NotImplementedError
