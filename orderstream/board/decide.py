"""Deciding: what a person may do with a waiting order, and what follows from it.

Law: a decision, its audit row and what is said to the stream are written together or not at all. It takes effect at once, and may
be taken back for a minute. Whoever was second, or had not seen what has come since, is told, and nothing is done for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from psycopg.types.json import Jsonb

from orderstream import times
from orderstream.board import audit, cases
from orderstream.board.consume import load, tell
from orderstream.board.fold import Happened, Known, needs_person
from orderstream.board.store import Db, writing

Role = Literal["reviewer", "desk", "supervisor", "approver", "analyst", "admin", "system"]
What = Literal["release", "correction", "after-sales", "confirm", "cancel"]
Answer = Literal["effective", "more", "refused"]

UNDO = 60_000
"""How long a decision may be taken back (ms)."""

MAY: dict[What, frozenset[str]] = {
    "release": frozenset(("reviewer", "supervisor", "approver")),
    "correction": frozenset(("reviewer", "desk", "supervisor", "approver")),
    "after-sales": frozenset(("reviewer", "desk", "supervisor", "approver")),
    "confirm": frozenset(("reviewer", "desk", "supervisor", "approver")),
    "cancel": frozenset(("supervisor", "approver")),
}
"""Who may decide what. A frozen order is released by whoever may release, and an approver who is somebody else."""

STATES: dict[What, str] = {
    "release": "decided",
    "correction": "correction",
    "after-sales": "after-sales",
    "confirm": "asking",
    "cancel": "decided",
}
"""What an order is in after a decision."""

OUTCOMES: dict[str, str] = {
    "release": "released",
    "correction": "correction",
    "after-sales": "after-sales",
    "cancel": "cancelled",
}
"""What is said on orders.outcomes for a decision; `confirm` asks the customer, and says nothing of the order yet."""

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

SYSTEM = "orderstream"
"""Who decided where a setting did."""


class Person(msgspec.Struct, frozen=True):
    """Who is deciding. name: the login name, on every record; shops: `channel:shop` that they may touch, () for all."""

    name: str
    roles: frozenset[str]
    shops: tuple[str, ...] = ()

    def may(self, roles: Iterable[str]) -> bool:
        """Whether they have one of these roles."""
        return not self.roles.isdisjoint(roles)

    def sees(self, channel: str, shop: str) -> bool:
        """Whether they may touch this shop's orders."""
        return not self.shops or f"{channel}:{shop}" in self.shops


class Terms(msgspec.Struct, frozen=True):
    """What an installation asks for. Amounts in minor units of the order's own currency; 0: never.

    approval_from: a release of so much needs an approver, frozen or not; two_from: it needs two. verify: whether a frozen order
    is released only after a second identity check that ended `confirmed`.
    """

    approval_from: int = 0
    two_from: int = 0
    verify: bool = False

    def approvers(self, order: Known) -> int:
        """How many must approve that this order is released."""
        frozen = order.out == "frozen" or order.held or order.verdict == "frozen"
        if self.two_from and order.total >= self.two_from and (frozen or self._much(order)):
            return 2
        return 1 if frozen or self._much(order) else 0

    def _much(self, order: Known) -> bool:
        return 0 < self.approval_from <= order.total


class NotAllowedError(Exception):
    """Something that this person may not do. code: short and stable, for the page's sentence.

    `role` `shop` `reason` `note` `details` `too-late` `not-asked` `own` (the asker approves) `said` (twice) `changed` `gone` `whose`
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Refusal(NamedTuple):
    """Why nothing was done with an order.

    code: `gone` (no such order) · `not-waiting` (somebody decided: by, decision, at) · `changed` (new since seen: rules, seq)
    · `asked` (waits for an approver already: by, at) · `unverified` (a second identity check is needed first).
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

    details: what belongs to it, `{"lines": …}` of a correction, `{"merge_with": […]}` of a release; nothing personal. Raises
    NotAllowedError for a role, a shop, a reason that is not in the list, a note that is missing.
    """
    if not person.may(MAY[what]):
        raise NotAllowedError("role")
    if reason not in REASONS[what]:
        raise NotAllowedError("reason")
    if reason == "other" and not note.strip():
        raise NotAllowedError("note")
    return _decide(db, person.name, person, seen, what, reason, note.strip(), dict(details or {}), at, terms)


def by_setting(db: Db, seen: Mapping[str, int], what: What, at: int) -> Decided:
    """What is done with orders at their deadline where nobody decided and the setting says so; recorded as such."""
    return _decide(db, SYSTEM, None, seen, what, "deadline", "", {}, at, Terms())


def _decide(
    db: Db,
    by: str,
    person: Person | None,
    seen: Mapping[str, int],
    what: What,
    reason: str,
    note: str,
    details: dict[str, Any],
    at: int,
    terms: Terms,
) -> Decided:
    bulk = uuid.uuid4()
    refused: dict[str, Refusal] = {}
    done: list[Known] = []
    asked: list[Known] = []
    with writing(db):
        known = load(db, list(seen))
        for order_id in sorted(seen):
            order = known.get(order_id)
            if order is None:
                refused[order_id] = Refusal("gone")
                continue
            if person is not None and not person.sees(order.channel, order.shop):
                raise NotAllowedError("shop")
            refusal = _refusal(db, order, seen[order_id], what, terms if person is not None else Terms())
            if refusal is not None:
                refused[order_id] = refusal
            elif person is not None and what == "release" and terms.approvers(order):
                asked.append(order)
            else:
                done.append(order)
        if done or asked:
            row = audit.append(
                db, at, by, "decide",
                {
                    "bulk": str(bulk), "decision": what, "reason": reason, "note": note, "details": details,
                    "done": {o.order_id: o.seq for o in done}, "asked": {o.order_id: o.seq for o in asked},
                },
            )  # fmt: skip
            _write(db, bulk, by, what, reason, note, details, at, done, {}, row)
            needs = {order.order_id: terms.approvers(order) for order in asked}
            _write(db, bulk, by, what, reason, note, details, at, asked, needs, row)
            cases.refresh(db, {o.case_id for o in (*done, *asked) if o.case_id is not None})
    return Decided(bulk, [o.order_id for o in done], [o.order_id for o in asked], refused)


def _refusal(db: Db, order: Known, seen: int, what: What, terms: Terms) -> Refusal | None:
    if order.asked is not None:
        last = db.execute("SELECT by, decision, at FROM board.decisions WHERE id = %s", (order.asked,)).fetchone()
        assert last is not None
        return Refusal("asked", last["by"], last["decision"], last["at"])
    # what was put aside may still be released or cancelled
    if order.state != "waiting" and not (order.state in ("correction", "after-sales", "asking") and STATES[what] != order.state):
        last = db.execute(
            "SELECT by, decision, at FROM board.decisions WHERE order_id = %s ORDER BY at DESC LIMIT 1", (order.order_id,)
        ).fetchone() or {"by": None, "decision": None, "at": None}
        return Refusal("not-waiting", last["by"], last["decision"], last["at"])
    if seen < order.changed_seq:
        return Refusal("changed", rules=tuple(order.fired), seq=order.seq)
    if what == "release" and terms.verify and order.out == "frozen":
        checked = db.execute(
            "SELECT result FROM board.verifications WHERE order_id = %s ORDER BY at DESC LIMIT 1", (order.order_id,)
        ).fetchone()
        if checked is None or checked["result"] != "confirmed":
            return Refusal("unverified")
    return None


def _write(
    db: Db,
    bulk: uuid.UUID,
    by: str,
    what: What,
    reason: str,
    note: str,
    details: dict[str, Any],
    at: int,
    orders: Sequence[Known],
    needs: Mapping[str, int],
    row: int,
) -> None:
    """The decisions' rows, the orders' new states, their time lines, and what the stream is told."""
    named = {order.order_id: uuid.uuid4() for order in orders}
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.decisions (id, bulk, order_id, case_id, by, at, decision, reason, note, details, seq, needs, state,"
            " state_before, signal_at, effective_at, audit) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    named[o.order_id], bulk, o.order_id, o.case_id, by, at, what, reason, note, Jsonb(details), o.seq,
                    needs.get(o.order_id, 0), "asked" if o.order_id in needs else "standing", o.state, o.signal_at,
                    None if o.order_id in needs else at, row,
                )
                for o in orders
            ],
        )  # fmt: skip
        if needs:
            cursor.executemany(
                "UPDATE board.orders SET asked = %s WHERE order_id = %s", [(named[o.order_id], o.order_id) for o in orders]
            )
    body = {"decision": what, "reason": reason, "bulk": str(bulk), "needs": max(needs.values(), default=0)}
    tell(
        db,
        [
            Happened(o.order_id, at, "decision", by, {**body, "id": str(named[o.order_id])}, f"decision:{named[o.order_id]}")
            for o in orders
        ],
    )
    if not needs:
        _effect(db, [(named[o.order_id], o, by) for o in orders], what, reason, details, at)


def _effect(
    db: Db, decided: Sequence[tuple[uuid.UUID, Known, str]], what: What, reason: str, details: dict[str, Any], at: int
) -> None:
    """Lets decisions take effect: the orders' states, and the outbox."""
    with db.cursor() as cursor:
        cursor.executemany(
            "UPDATE board.orders SET state = %s, decision = %s, asked = NULL WHERE order_id = %s",
            [(STATES[what], name, order.order_id) for name, order, _ in decided],
        )
    if what in OUTCOMES:
        said = [
            {
                "order_id": order.order_id, "at": times.text(at), "outcome": OUTCOMES[what], "by": by, "id": str(name), "reason": reason,
                "seq": order.seq, **({"details": details} if details else {}),
            }
            for name, order, by in decided
        ]  # fmt: skip
        say(db, said, at)


def say(db: Db, outcomes: Sequence[Mapping[str, Any]], at: int) -> None:
    """Puts outcomes in the outbox, in the open transaction."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.outbox (topic, key, value, made_at) VALUES ('orders.outcomes', %s, %s, %s)",
            [(one["order_id"], Jsonb(one), at) for one in outcomes],
        )
    db.execute("SELECT pg_notify('board_outbox', '')")


# -- approvals ------------------------------------------------------------------------------------------------------------


def approve(db: Db, person: Person, decision: uuid.UUID, *, yes: bool, note: str = "", at: int) -> Answer:
    """An approver's word on a decision that waits for it: `effective`, `more` approvers are needed, or `refused`.

    Raises NotAllowedError: not an approver, the asker themselves, said before, no more asked, or `changed` where the order has got
    new signals since it was asked (it must be asked anew).
    """
    with writing(db):
        row = db.execute("SELECT order_id FROM board.decisions WHERE id = %s", (decision,)).fetchone()
        if row is None:
            raise NotAllowedError("gone")
        order = load(db, [row["order_id"]])[row["order_id"]]
        one = db.execute("SELECT * FROM board.decisions WHERE id = %s FOR UPDATE", (decision,)).fetchone()
        assert one is not None
        if not person.may(("approver",)) and "approver" not in lent(db, person.name, at, but=one["by"]):
            raise NotAllowedError("role")
        if not person.sees(order.channel, order.shop):
            raise NotAllowedError("shop")
        if one["by"] == person.name:
            raise NotAllowedError("own")
        if one["state"] != "asked":
            raise NotAllowedError("not-asked")
        if yes and (order.changed_seq > one["seq"] or not needs_person(order)):
            raise NotAllowedError("changed")
        said = db.execute(
            "INSERT INTO board.approvals VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING by",
            (decision, person.name, at, yes, note),
        ).fetchone()
        if said is None:
            raise NotAllowedError("said")
        audit.append(
            db, at, person.name, "approve", {"decision": str(decision), "order_id": order.order_id, "yes": yes, "note": note}
        )
        tell(
            db,
            [
                Happened(
                    order.order_id,
                    at,
                    "approval",
                    person.name,
                    {"decision": str(decision), "yes": yes},
                    f"approval:{decision}:{person.name}",
                )
            ],
        )
        answer = _answer(db, decision, one, order, at, yes=yes)
        cases.refresh(db, {order.case_id} if order.case_id is not None else ())
        return answer


def _answer(db: Db, decision: uuid.UUID, one: Mapping[str, Any], order: Known, at: int, *, yes: bool) -> Answer:
    if not yes:
        db.execute("UPDATE board.decisions SET state = 'refused' WHERE id = %s", (decision,))
        db.execute("UPDATE board.orders SET asked = NULL WHERE order_id = %s", (order.order_id,))
        return "refused"
    count = db.execute("SELECT count(*) AS n FROM board.approvals WHERE decision_id = %s AND yes", (decision,)).fetchone()
    assert count is not None
    if count["n"] < one["needs"]:
        return "more"
    db.execute("UPDATE board.decisions SET state = 'standing', effective_at = %s WHERE id = %s", (at, decision))
    _effect(db, [(decision, order, one["by"])], one["decision"], one["reason"], one["details"], at)
    return "effective"


# -- taking back ----------------------------------------------------------------------------------------------------------


def undo(db: Db, person: Person, bulk: uuid.UUID, *, at: int, only: Sequence[str] | None = None) -> list[str]:
    """Takes back what was decided in one go within the last minute; the orders that wait again. only: some of its orders.

    By whoever decided, or a supervisor or approver. What waits for an approver may be taken back as long as it waits. Raises
    NotAllowedError: `gone`, `whose`, `too-late`.
    """
    with writing(db):
        mine = db.execute("SELECT order_id FROM board.decisions WHERE bulk = %s", (bulk,)).fetchall()
        wanted = sorted(row["order_id"] for row in mine if only is None or row["order_id"] in only)
        if not wanted:
            raise NotAllowedError("gone")
        orders = load(db, wanted)
        rows = db.execute(
            "SELECT * FROM board.decisions WHERE bulk = %s AND order_id = ANY(%s) ORDER BY order_id FOR UPDATE", (bulk, wanted)
        ).fetchall()
        if rows[0]["by"] != person.name and not person.may(("supervisor", "approver")):
            raise NotAllowedError("whose")
        back = [row for row in rows if _may_go_back(row, orders[row["order_id"]], at)]
        if not back:
            raise NotAllowedError("too-late")
        _take_back(db, person.name, back, orders, at)
        audit.append(db, at, person.name, "undo", {"bulk": str(bulk), "orders": [row["order_id"] for row in back]})
        cases.refresh(db, {o.case_id for o in orders.values() if o.case_id is not None})
    return [row["order_id"] for row in back]


def _may_go_back(row: Mapping[str, Any], order: Known, at: int) -> bool:
    if row["state"] == "asked":
        return True
    # a later decision on it stands on this one; what has left, nobody takes back
    in_force = row["state"] == "standing" and order.decision == row["id"] and order.shipped_at is None
    return in_force and at - row["effective_at"] <= UNDO


def _take_back(db: Db, by: str, rows: Sequence[Mapping[str, Any]], orders: Mapping[str, Known], at: int) -> None:
    said = []
    for row in rows:
        db.execute(
            "UPDATE board.decisions SET state = 'undone', undone_by = %s, undone_at = %s WHERE id = %s", (by, at, row["id"])
        )
        order = orders[row["order_id"]]
        state = order.state if row["state"] == "asked" else "waiting" if needs_person(order) else "closed"
        db.execute(
            "UPDATE board.orders SET state = %s, asked = NULL, decision = CASE WHEN decision = %s THEN NULL ELSE decision END"
            " WHERE order_id = %s",
            (state, row["id"], row["order_id"]),
        )
        if row["state"] == "standing" and row["decision"] in OUTCOMES:
            name = uuid.uuid5(row["id"], "undone")
            # what stands is the last by its own time: a clock that was set back must not make it the first
            later = max(at, row["effective_at"] + 1)
            said.append(
                {
                    "order_id": row["order_id"],
                    "at": times.text(later),
                    "outcome": "undone",
                    "by": by,
                    "id": str(name),
                    "undoes": str(row["id"]),
                }
            )
    tell(
        db,
        [
            Happened(r["order_id"], at, "undone", by, {"decision": r["decision"], "id": str(r["id"])}, f"undone:{r['id']}")
            for r in rows
        ],
    )
    say(db, said, at)


# -- a second look, and standing in ---------------------------------------------------------------------------------------


def verify(db: Db, person: Person, order_id: str, method: str, result: str, *, note: str = "", at: int) -> uuid.UUID:
    """Records a second identity check of an order's buyer, as a step of its own. Raises NotAllowedError."""
    if not person.may(("reviewer", "desk", "supervisor", "approver")):
        raise NotAllowedError("role")
    if method not in METHODS or result not in RESULTS:
        raise NotAllowedError("details")
    with writing(db):
        order = load(db, [order_id]).get(order_id)
        if order is None:
            raise NotAllowedError("gone")
        if not person.sees(order.channel, order.shop):
            raise NotAllowedError("shop")
        name = uuid.uuid4()
        body = {"order_id": order_id, "method": method, "result": result, "note": note}
        row = audit.append(db, at, person.name, "verify", {"id": str(name), **body})
        db.execute(
            "INSERT INTO board.verifications VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (name, order_id, person.name, at, method, result, note, row),
        )
        tell(
            db,
            [Happened(order_id, at, "verification", person.name, {"method": method, "result": result}, f"verification:{name}")],
        )
        cases.refresh(db, {order.case_id} if order.case_id is not None else ())
    return name


def absent(db: Db, person: Person, who: Person, deputy: str, since: int, until: int, *, at: int) -> int:
    """Names a deputy for somebody's absence (ms, until excluded), who has their roles meanwhile; its id.

    By themselves, or an admin. Raises NotAllowedError.
    """
    if person.name != who.name and not person.may(("admin",)):
        raise NotAllowedError("whose")
    if until <= since or deputy == who.name:
        raise NotAllowedError("details")
    with writing(db):
        row = db.execute(
            "INSERT INTO board.deputies (person, deputy, roles, since, until, by, at) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (who.name, deputy, sorted(who.roles - {"admin"}), since, until, person.name, at),
        ).fetchone()
        assert row is not None
        audit.append(db, at, person.name, "absent", {"who": who.name, "deputy": deputy, "since": since, "until": until})
    return int(row["id"])


def back(db: Db, person: Person, absence: int, *, at: int) -> None:
    """Ends an absence now. By whoever was absent, or an admin. Raises NotAllowedError."""
    with writing(db):
        row = db.execute("SELECT person FROM board.deputies WHERE id = %s FOR UPDATE", (absence,)).fetchone()
        if row is None:
            raise NotAllowedError("gone")
        if row["person"] != person.name and not person.may(("admin",)):
            raise NotAllowedError("whose")
        db.execute("UPDATE board.deputies SET until = least(until, %s) WHERE id = %s", (at, absence))
        audit.append(db, at, person.name, "back", {"who": row["person"], "absence": absence})


def lent(db: Db, name: str, at: int, but: str | None = None) -> frozenset[str]:
    """The roles that somebody has because they stand in for others at this time (ms). but: whose do not count."""
    found = db.execute(
        "SELECT DISTINCT unnest(roles) AS role FROM board.deputies"
        " WHERE deputy = %s AND since <= %s AND until > %s AND person IS DISTINCT FROM %s",
        (name, at, at, but),
    )
    return frozenset(row["role"] for row in found)
