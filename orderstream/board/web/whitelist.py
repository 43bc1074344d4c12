"""Whitelist: who is trusted, which rules rest for whom, and who might be: pages over what `feedback` says on reference.updates.

Law: an entry is one record on reference.updates, which the line reads; there is no second list that could say otherwise. A key is
taken from an order that is at hand, so that nobody types it and no address has it, and is shown masked.
"""

from __future__ import annotations

import json
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
from orderstream.settings import Settings

router = APIRouter(include_in_schema=False)
Fields = Annotated[FormData, Depends(fields)]
LONGEST_DAYS = 730


class Entry(NamedTuple):
    """A trust or a snooze. key: masked; at, until: ms, None for ever."""

    kind: str
    entity: str
    key: str
    among: int
    rules: list[str]
    at: int
    until: int | None
    by: str
    why: str


class Lists:
    """What was last read of Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.entries: Behind[list[Entry]] = Behind("whitelist", lambda: _entries(settings), 60)
        self.suggestions: Behind[list[suggest.Suggestion]] = Behind("suggestions", lambda: _suggestions(settings), 600)


def _entries(settings: Settings) -> list[Entry]:
    topic = topics.name("reference.updates", settings.topic_prefix)
    found: dict[tuple[Any, ...], Entry] = {}
    for message in kafka.scan(require(settings).address, [topic], client=access.client(settings)):
        try:
            said = json.loads(message.value or b"null")
            if not isinstance(said, dict) or said.get("kind") not in {"trust", "snooze"}:
                continue
            at = times.parse(said["at"]) if said.get("at") else message.timestamp
            until = times.parse(said["until"]) if said.get("until") else None
            entry = Entry(
                said["kind"], said["entity"], shown(said["entity"], said["key"]), len(said.get("with", ())), list(said["rules"]),
                at, until, said.get("by", ""), masked.free(said.get("why", "")),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, times.TimeError):
            # the line has rejected it
            continue
        found[said["kind"], said["entity"], said["key"], *entry.rules] = entry
    now = store.now()
    return sorted((e for e in found.values() if e.until is None or e.until > now), key=lambda e: -e.at)


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


def _tell(visit: Visit, record: dict[str, Any], about: dict[str, Any]) -> None:
    """Says it to the line, with its row in the audit, which has no key in it."""
    body = {name: record[name] for name in ("kind", "entity", "rules", "until", "why")}
    settings = visit.site.settings
    try:
        with visit.db.transaction():
            audit.append(visit.db, visit.now, visit.person.login, "trust", {**about, **body})
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
