"""Deciding from a message: what a link's one use does, in one transaction with noting that it was used.

Law: a link gives nobody a right. It says who they are, and the board decides with the roles that they have now, as if they were
signed in. What is refused leaves the link as it was.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from orderstream import times
from orderstream.actions import known
from orderstream.actions.tokens import Link, Signer, number_of
from orderstream.board import decide
from orderstream.board.decide import NotAllowedError, Person, Terms
from orderstream.board.store import Db

Answer = Literal["customer-confirmed", "customer-single", "customer-address"]
ANSWERS: tuple[Answer, ...] = ("customer-confirmed", "customer-single", "customer-address")


class Bad(Exception):  # noqa: N818
    """The link does nothing. code: `unknown` `expired` `used`; more: what a page says beside it."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.more = more


class Said(NamedTuple):
    """What came of it. code: names the page's sentence; more: what stands in it."""

    code: str
    more: dict[str, Any]


def find(db: Db, signer: Signer, token: str, now: int, *, lock: bool = False) -> Link:
    """The link of a token that may be used now. lock: until the transaction's end. Raises Bad."""
    ask = "SELECT id, order_id, seq, person, what, about, expires_at, used_at, answer FROM board.links WHERE id = %s"
    row = db.execute(ask + " FOR UPDATE" if lock else ask, (number_of(token),)).fetchone()
    if row is None:
        raise Bad("unknown")
    used_at, answer = row.pop("used_at"), row.pop("answer")
    link = Link(**row)
    if not signer.fits(token, link):
        raise Bad("unknown")
    if used_at is not None:
        raise Bad("used", at=used_at, answer=answer, link=link)
    if link.expires_at <= now:
        raise Bad("expired", link=link)
    return link


def changed(db: Db, link: Link) -> bool:
    """Whether the order has got something to see since the message was written."""
    order = known.order(db, link.order_id)
    return order is not None and order.changed_seq > link.seq


def decided(db: Db, signer: Signer, token: str, reason: str, note: str, terms: Terms, now: int) -> Said:
    """Does what a person's link is for, once. Raises Bad."""
    with db.transaction():
        link = find(db, signer, token, now, lock=True)
        person = _person(db, link.person)
        if person is None:
            return Said("no-person", {})
        if link.what in ("approve", "refuse"):
            said = _approve(db, person, link, now)
        else:
            said = _decide(db, person, link, reason, note, terms, now)
        if said.code in ("done", "asked", "approved", "more", "refused-it"):
            _use(db, link, said.code, now)
        return said


def _decide(db: Db, person: Person, link: Link, reason: str, note: str, terms: Terms, now: int) -> Said:
    what: decide.What = "release" if link.what == "release" else "cancel"
    if changed(db, link):
        return Said("changed", {})
    try:
        done = decide.decide(
            db, person, {link.order_id: link.seq}, what, reason, note=note, details={"by_link": link.id[:6]}, at=now, terms=terms
        )
    except NotAllowedError as error:
        return Said("not-allowed", {"why": error.code})
    if link.order_id in done.refused:
        why = done.refused[link.order_id]
        return Said("asked-before" if why.code == "asked" else why.code, {})
    return Said("asked" if link.order_id in done.asked else "done", {})


def _approve(db: Db, person: Person, link: Link, now: int) -> Said:
    try:
        ended = decide.approve(db, person, UUID(link.about), yes=link.what == "approve", at=now)
    except NotAllowedError as error:
        return Said({"changed": "changed", "not-asked": "not-waiting"}.get(error.code, "not-allowed"), {"why": error.code})
    return Said({"effective": "approved", "more": "more", "refused": "refused-it"}[ended], {})


def answered(db: Db, signer: Signer, token: str, answer: Answer, partners: list[str], now: int) -> None:
    """Notes a customer's answer and says it to the stream, once. partners: their other orders that they were shown. Raises Bad."""
    with db.transaction():
        link = find(db, signer, token, now, lock=True)
        if link.what != "confirm":
            raise Bad("unknown")
        outcome: dict[str, Any] = {
            "id": link.id,
            "kind": "outcome",
            "at": times.text(now),
            "order_id": link.order_id,
            "outcome": answer,
            "by": "customer",
            "seq": link.seq,
        }
        if partners:
            outcome["details"] = {"orders": partners}
        db.execute(
            "INSERT INTO board.outbox (topic, key, value, made_at) VALUES ('orders.outcomes', %s, %s, %s)",
            (link.order_id, Jsonb(outcome), now),
        )
        db.execute("SELECT pg_notify('board_outbox', '')")
        _use(db, link, answer, now)


def _use(db: Db, link: Link, answer: str, now: int) -> None:
    db.execute("UPDATE board.links SET used_at = %s, answer = %s WHERE id = %s", (now, answer, link.id))


def _person(db: Db, login: str | None) -> Person | None:
    """Who a link is for, with the roles that they have now; None for one who has none or left."""
    row = db.execute("SELECT login, roles, shops FROM board.people WHERE login = %s AND disabled_at IS NULL", (login,)).fetchone()
    return None if row is None else Person(row["login"], frozenset(row["roles"]), tuple(row["shops"]))
