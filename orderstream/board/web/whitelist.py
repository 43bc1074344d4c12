"""Whitelist: who is trusted, which rules rest for whom, and who might be: pages over what `feedback` says on reference.updates.

Law: an entry is one record on reference.updates, which the line reads; there is no second list that could say otherwise. It is ended
early by the same record with its end. A key is taken from an order that is at hand, so that nobody types it and no address has it,
and is shown masked.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from orderstream import access, kafka, times, topics
from orderstream.board import audit, store
from orderstream.board.web import masked, queries
from orderstream.board.web.behind import Behind
from orderstream.board.web.language import N_
from orderstream.board.web.site import RefusedError, Visit, enter, fields, see_other, site_of
from orderstream.board.web.work import NOT_ALLOWED, path_of, seen_order
from orderstream.broker import require
from orderstream.errors import UserError
from orderstream.feedback import cli as feedback
from orderstream.feedback import suggest
from orderstream.identity import Keys
from orderstream.settings import Settings

router = APIRouter(include_in_schema=False)
Fields = Annotated[FormData, Depends(fields)]
LONGEST_DAYS = 730


class Entry(NamedTuple):
    """A trust or a snooze. id: says nothing of whose; key: masked; at, until: ms, None for ever."""

    id: str
    kind: str
    entity: str
    key: str
    among: int
    rules: list[str]
    at: int | None
    until: int | None
    by: str
    why: str


class Lists:
    """What was last read of Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.entries: Behind[list[Entry]] = Behind("whitelist", lambda: _entries(settings), 60)
        self.suggestions: Behind[list[suggest.Suggestion]] = Behind("suggestions", lambda: _suggestions(settings), 600)


def _records(settings: Settings) -> dict[str, dict[str, Any]]:
    """What is in force or will be, by its id, the newest first. Raises NoBroker, TopicsUnfit."""
    topic = topics.name("reference.updates", settings.topic_prefix)
    said = []
    for message in kafka.scan(require(settings).address, [topic], client=access.client(settings)):
        with suppress(ValueError):  # the line has rejected it
            said.append(json.loads(message.value or b"null"))
    keys, now = Keys(settings.hash_key()), store.now()
    found = {keys.key("entry", suggest.entry_name(r)).partition(":")[2][:16]: r for r in suggest.entries(said)}
    standing = [(name, r) for name, r in found.items() if _ms(r, "until") is None or (_ms(r, "until") or 0) > now]
    return dict(sorted(standing, key=lambda one: -(_ms(one[1], "at") or 0)))


def _entries(settings: Settings) -> list[Entry]:
    return [
        Entry(
            name, r["kind"], r["entity"], shown(r["entity"], r["key"]), len(r.get("with") or ()), list(r["rules"]),
            _ms(r, "at"), _ms(r, "until"), r.get("by", ""), masked.free(r.get("why", "")),
        )
        for name, r in _records(settings).items()
    ]  # fmt: skip


def _ms(record: dict[str, Any], field: str) -> int | None:
    return times.parse(record[field]) if record.get(field) is not None else None


def _suggestions(settings: Settings) -> list[suggest.Suggestion]:
    return feedback.suggestions(settings, require(settings).address, store.now(), suggest.LEAST)


def shown(entity: str, key: str) -> str:
    """A key as it may be seen: enough to tell two apart."""
    if entity == "sku":
        return key
    if entity in {"ip", "segment"}:
        return masked.network(key)
    if entity == "phone":
        return masked.phone(key)
    return masked.place(key) if entity == "address" else masked.tail(key)


def lists_of(request: Request) -> Lists:
    """Those of this board."""
    site = site_of(request)
    found: Lists = site.__dict__.setdefault("lists", Lists(site.settings))
    return found


@router.get("/trust")
def page(request: Request) -> Response:
    """Who is trusted, why, by whom, until when; and whom people keep clearing."""
    with enter(request, "trust") as visit:
        lists = lists_of(request)
        values: dict[str, Any] = {"entries": lists.entries.get(), "suggestions": lists.suggestions.get(), "shown": shown}
        return visit.page("trust.html", **values)


@router.post("/trust")
def add(request: Request, form: Fields) -> Response:
    """Trusts, or lets a rule rest for, an entity of an order that is at hand."""
    with enter(request, "trust", form) as visit:
        order = seen_order(visit, str(form.get("order_id", "")))
        kind, entity, rule = str(form.get("kind", "")), str(form.get("entity", "")), str(form.get("rule", ""))
        key = None
        if order.document is not None and rule in order.fired and kind in {"trust", "snooze"}:
            try:
                key = suggest.key_of(entity, order.document)
            except KeyError:
                key = None
        if not key:
            raise RefusedError(NOT_ALLOWED["details"], 400)
        why, until = _why(form), _until(visit, form)
        record = {
            "kind": kind, "entity": entity, "key": key, "rules": [rule], "at": times.text(visit.now), "until": times.text(until),
            "by": visit.person.login, "why": why,
        }  # fmt: skip
        _tell(visit, record, {"order": order.order_id})
        lists_of(request).entries.stale()
        return see_other(f"/orders/{path_of(order.order_id)}")


@router.post("/trust/accept")
def accept(request: Request, form: Fields) -> Response:
    """Accepts a suggestion, by its id."""
    with enter(request, "trust", form) as visit:
        lists = lists_of(request)
        wanted = next((one for one in lists.suggestions.get() or () if one.id == form.get("id")), None)
        if wanted is None:
            raise RefusedError(N_("This suggestion is not there any more."), 404)
        record = suggest.accepted(wanted, by=visit.person.login, why=_why(form), at=visit.now, until=_until(visit, form))
        _tell(visit, record, {"suggestion": wanted.id})
        lists.entries.stale()
        lists.suggestions.stale()
        return see_other("/trust")


@router.post("/trust/end")
def end_entry(request: Request, form: Fields) -> Response:
    """Ends an entry before its time, by its id."""
    with enter(request, "trust", form) as visit:
        end(visit, str(form.get("id", "")), _why(form))
        return see_other("/trust")


def end(visit: Visit, name: str, why: str) -> dict[str, Any]:
    """Ends an entry now: what the line is told. Whom it held for it goes on holding for; orders from now on are judged again.

    Raises RefusedError: there is no such entry (somebody else ended it), Kafka is away.
    """
    settings, lists = visit.site.settings, lists_of(visit.request)
    try:
        entry = _records(settings).get(name)
    except UserError as error:
        raise RefusedError(error.sentence, 503) from None
    if entry is None:
        lists.entries.stale()
        raise RefusedError(N_("This entry is not in force any more."), 404)
    record = suggest.ended(entry, by=visit.person.login, why=why, at=visit.now)
    _tell(visit, record, {"ended": name}, "trust-ended")
    lists.entries.put([one for one in lists.entries.get() or () if one.id != name])
    return record


def _tell(visit: Visit, record: dict[str, Any], about: dict[str, Any], what: str = "trust") -> None:
    """Says it to the line, with its row in the audit, which has no key in it."""
    body = {name: record[name] for name in ("kind", "entity", "rules", "until", "why")}
    settings = visit.site.settings
    try:
        with visit.db.transaction():
            audit.append(visit.db, visit.now, visit.person.login, what, {**about, **body})
            feedback.tell(settings, require(settings).address, record)
    except UserError as error:
        raise RefusedError(error.sentence, 503) from None


def _why(form: FormData) -> str:
    why = masked.free(str(form.get("why", "")).strip())[:200]
    if not why:
        raise RefusedError(NOT_ALLOWED["note"], 400)
    return why


def _until(visit: Visit, form: FormData) -> int:
    text = str(form.get("days", ""))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= LONGEST_DAYS:
        raise RefusedError(NOT_ALLOWED["details"], 400)
    return visit.now + int(text) * times.DAY


# -- risk profiles ------------------------------------------------------------------------------------------------------------


@router.get("/profiles")
def profiles(request: Request, order: str = "") -> Response:
    """The buyers with the most findings, or, by one of its orders, one of them."""
    with enter(request, "trust") as visit:
        if not order:
            return visit.page("profiles.html", buyers=queries.buyers(visit.db, visit.person.shops, visit.now), one=None)
        found = seen_order(visit, order)
        history = store.history(visit.db, found, 200)
        profile = queries.profile(visit.db, found.buyer) if found.buyer is not None else None
        entries = lists_of(request).entries.get() or []
        mine = []
        for entity in ("user", "phone", "device", "payment", "address"):
            key = suggest.key_of(entity, found.document) if found.document is not None else None
            if key:
                mine += [entry for entry in entries if (entry.entity, entry.key) == (entity, shown(entity, key))]
        return visit.page("profiles.html", buyers=[], one=profile, order=found, history=history, entries=mine)
