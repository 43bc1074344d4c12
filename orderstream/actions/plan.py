"""Plan: an action taken apart into what has to be done. Pure: the same record and the same file give the same rows, under the same keys."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from orderstream.actions.known import Known
from orderstream.actions.ledger import Kind, New, Row
from orderstream.actions.receivers import CUSTOMER, Receivers

GATHER = 3_000
"""ms that a message to people waits for others like it: a burst of 47 orders is one message and not 47."""
ROLES = {"notify": "supervisor", "second-check": "desk", "meeting": "risk", "approve": "approver"}
"""Who is told where the rule names nobody."""


class Asked(msgspec.Struct, frozen=True):
    """A record of orders.actions."""

    id: str
    order_id: str
    verdict_seq: int
    action: str
    level: str
    rule: str | None = None
    until: int | None = None
    params: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Asked)


def read(value: bytes) -> New:
    """The row that stands for a record. Raises ValueError for what is none of ours."""
    asked = _decoder.decode(value)
    body = {"do": asked.action, "until": asked.until, **asked.params}
    return New(asked.id, asked.id, asked.order_id, asked.verdict_seq, "action", asked.rule, asked.level, body)


def key(*parts: str) -> str:
    """An idempotency key: 32 hex digits."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def follows(row: Row, order: Known | None, file: Receivers, now: int) -> list[New]:
    """What has to be done for an action. order: may be None for what needs none of it; a dead row says what nobody can do."""
    do, until = row.body["do"], row.body.get("until")
    if do == "lock-stock":
        if until is not None and until <= now:
            return []
        lock = _new(row, "lock", "", {"until": until})
        return [lock] if until is None else [lock, _new(row, "unlock", "end", {"why": "over"}, at=until)]
    if do == "unlock-stock":
        return [_new(row, "unlock", "", {"why": "recalled"})]
    if do == "challenge":
        return [_new(row, "challenge", "", {"until": until or now + file.challenge_lasts})]
    if do == "confirm":
        return _confirm(row, order, file, now)
    if do in ROLES:
        return tell(row, row.body.get("to") or ROLES[do], do, file, now)
    return [_new(row, "notify", do, {"what": do}, dead="unknown-action")]


def tell(row: Row, role: str, what: str, file: Receivers, now: int, about: dict[str, Any] | None = None) -> list[New]:
    """A message to everybody who is `role`."""
    body: dict[str, Any] = {"what": what, **(about or {})}
    body |= {name: row.body[name] for name in ("why", "rules", "about") if name in row.body}
    if "about" not in body and what != "meeting":
        body["joins"] = "|".join([what, str(body.get("why", body.get("step", "")))])
    receivers = file.of(role)
    if not receivers:
        return [_new(row, "notify", role, body, receiver=role, dead="no-receiver")]
    return [
        _new(row, "notify", one.name, {**body, "role": role}, receiver=one.name, via=one.via, at=now + GATHER)
        for one in receivers
    ]


def _confirm(row: Row, order: Known | None, file: Receivers, now: int) -> list[New]:
    """To the customer by the first way that there is; where there is none, the desk is asked to call."""
    for way in row.body.get("by") or ("sms", "email"):
        via: str | None = None
        if way == "sms" and order is not None and order.phone is not None:
            via = file.sms if order.phone.startswith("+86") else file.sms_abroad
        elif way == "email" and order is not None and order.email is not None:
            via = file.email
        if via is not None:
            at = row.body.get("not_before", 0)
            body = {"what": "confirm", "way": way, **{n: row.body[n] for n in ("decision",) if n in row.body}}
            return [_new(row, "confirm", CUSTOMER, body, receiver=CUSTOMER, via=via, at=at)]
    return tell(row, "desk", "no-contact", file, now)


def _new(
    row: Row,
    kind: Kind,
    part: str,
    body: dict[str, Any],
    *,
    receiver: str = "",
    via: str = "",
    at: int = 0,
    dead: str | None = None,
) -> New:
    name = key(row.action, kind, part, body.get("what", ""))
    return New(name, row.action, row.order_id, row.seq, kind, row.rule, row.level, body, receiver, via, at, dead)
