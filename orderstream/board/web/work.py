"""Work: the wall, a case, an order, and what is decided there.

Law: what a person decides they decide of what they saw: each order goes with the number of the verdict that was on their page. What
was not done is said, order by order, with what to do next; what was done can be taken back from every page for a minute.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, cast, get_args
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import FormData, QueryParams

from orderstream import money, times
from orderstream.board import articles, decide, heard, store
from orderstream.board.decide import Decided, NotAllowedError, What
from orderstream.board.store import Db, Order, Wanted
from orderstream.board.web import masked, picture, queries
from orderstream.board.web.language import N_
from orderstream.board.web.picture import Place
from orderstream.board.web.site import PAGE, RefusedError, Visit, enter, fields, home, see_other
from orderstream.broker import require
from orderstream.catalogue import Code
from orderstream.errors import BadFile
from orderstream.windows import distance

router = APIRouter(include_in_schema=False)
Fields = Annotated[FormData, Depends(fields)]
WHATS: tuple[What, ...] = get_args(What)
MISSING = N_("There is nothing at this address. It may have been merged or was mistyped.")
OFTEN = N_("You have looked at very many customers in a short time. Please wait, or ask a supervisor.")
UNCLEAR = N_("The request was not understood. Please go back and try again.")
HOUR = 3_600_000

NOT_ALLOWED: dict[str, str] = {
    "role": N_("Your role does not allow this. Ask an administrator if it should."),
    "shop": N_("This order belongs to a shop that is not yours."),
    "reason": N_("Choose a reason from the list, so that the rules can learn from it."),
    "note": N_("Say in the note what the reason is."),
    "details": N_("Something in the form does not fit together. Please go back and look at it again."),
    "too-late": N_("A decision can be taken back for one minute, and only while it is the last one. Decide anew."),
    "own": N_("You asked for this release: another approver has to say yes."),
    "said": N_("You have said your word on this already."),
    "not-asked": N_("This does not wait for an approver any more."),
    "changed": N_("The order has got new signals since this was asked. Look at it again; it has to be asked anew."),
    "whose": N_("Only whoever did this, or a supervisor, can change it."),
    "gone": N_("There is nothing at this address. It may have been merged or was mistyped."),
}


# -- the wall -------------------------------------------------------------------------------------------------------------


def wanted(query: QueryParams, may: tuple[str, ...], currency: str) -> Wanted:
    """What a wall's address asks for; what cannot be read asks for nothing."""
    return Wanted(
        channels=tuple(filter(None, query.getlist("channel"))),
        shops=tuple(filter(None, query.getlist("shop"))),
        may=may,
        rules=tuple(filter(None, query.getlist("rule"))),
        levels=tuple(filter(None, query.getlist("level"))),
        least=_amount(query.get("least"), currency),
        most=_amount(query.get("most"), currency),
        older=_hours(query.get("older")),
        text=(query.get("q") or "").strip()[:100],
        asked=query.get("asked") == "1",
        sort=cast("store.Sort", query["sort"] if query.get("sort") in get_args(store.Sort) else "urgent"),
    )


def _amount(text: str | None, currency: str) -> int | None:
    try:
        return money.minor(Decimal(text.strip()), currency) if text and text.strip() else None
    except (InvalidOperation, money.AmountError):
        return None


def _hours(text: str | None) -> int | None:
    return int(text) * HOUR if text and text.isascii() and text.isdigit() and len(text) < 5 else None


@router.get("/")
def wall(request: Request) -> Response:
    """The wall: whole, or its cards alone for who has it open."""
    with enter(request, "see") as visit:
        query = request.query_params
        page = max(0, int(query["page"]) if query.get("page", "").isdigit() and len(query["page"]) < 5 else 0)
        asks = wanted(query, visit.person.shops, visit.site.settings.currency)
        kept = (visit.language, visit.person.shops, str(sorted(query.multi_items())))
        if request.headers.get("hx-request"):
            number = visit.site.live.number
            return HTMLResponse(visit.site.cards.get(kept, number, lambda: visit.text("cards.html", **_cards(visit, asks, page))))
        undo = queries.undoable(visit.db, visit.person.login, visit.now)
        stands = queries.stands(visit.db, visit.person.shops)
        return visit.page("wall.html", facets=_facets(visit), stands=stands, undo=undo, **_cards(visit, asks, page))


def _cards(visit: Visit, asks: Wanted, page: int) -> dict[str, Any]:
    """Nothing here may be of this reader alone: what is made of it others read too."""
    found = store.waiting(visit.db, asks, visit.now, PAGE, page * PAGE)
    return {
        "wall": found,
        "asks": asks,
        "page": page,
        "size": PAGE,
        "link": _link(visit.request),
        "keys": queries.keys(visit.db, found.cards),
    }


def _link(request: Request) -> Callable[..., str]:
    def link(**changed: Any) -> str:
        return "?" + request.url.include_query_params(**changed).query

    return link


def _facets(visit: Visit) -> store.Facets:
    """Counted every other second at most, whatever changes: they say how much there is, not what."""
    may = visit.person.shops
    return visit.site.facets.get(may, 0, lambda: store.facets(visit.db, visit.now, may))


@router.get("/states/{state}")
def in_state(request: Request, state: str, page: int = 0) -> Response:
    """Orders that wait elsewhere: returned for correction, with after-sales, customer asked."""
    if state not in {"correction", "after-sales", "asking"}:
        raise RefusedError(MISSING, 404)
    with enter(request, "see") as visit:
        offset = max(0, min(page, 1000)) * PAGE
        rows = store.in_state(visit.db, cast("store.State", state), visit.person.shops, PAGE + 1, offset)
        return visit.page("state.html", state=state, rows=rows[:PAGE], more=len(rows) > PAGE, page=page)


# -- one case, one order ----------------------------------------------------------------------------------------------------


@router.get("/cases/{case_id:path}")
def case(request: Request, case_id: str) -> Response:
    """A case; one that has gone into another leads on, one of a single order is that order."""
    with enter(request, "see") as visit:
        found = store.case(visit.db, case_id)
        if found is None:
            raise RefusedError(MISSING, 404)
        orders = [row for row in found.orders if visit.sees(store.shop_of(row))]
        if not orders:
            raise RefusedError(NOT_ALLOWED["shop"])
        if len(orders) == 1 and not found.truncated:
            return see_other(f"/orders/{path_of(orders[0].order_id)}")
        if found.card.case_id != case_id:
            return see_other(f"/cases/{path_of(found.card.case_id)}")
        values: dict[str, Any] = {
            "case": found,
            "orders": orders,
            "waiting": [row for row in orders if row.state == "waiting"],
            "signals": queries.signals_of(visit.db, found.card.case_id),
            "reasons": may_decide(visit),
        }
        if request.headers.get("hx-request"):
            return visit.page("case_body.html", **values)
        return visit.page("case.html", undo=queries.undoable(visit.db, visit.person.login, visit.now), **values)


@router.get("/orders/{order_id:path}")
def order(request: Request, order_id: str) -> Response:
    """An order with all that is known of it."""
    with enter(request, "see") as visit:
        return order_page(visit, order_id, fragment=bool(request.headers.get("hx-request")))


@router.post("/unmask")
def unmask(request: Request, form: Fields) -> Response:
    """The same with the customer's data in full: written down before it is shown."""
    with enter(request, "unmask", form) as visit:
        order_id = str(form.get("order_id", ""))
        found = seen_order(visit, order_id)
        if not visit.site.unmasking.take(visit.person.login):
            raise RefusedError(OFTEN, 429)
        queries.unmasked(visit.db, visit.person.login, found.order_id, visit.now)
        return order_page(visit, order_id, plain=True)


def seen_order(visit: Visit, order_id: str) -> Order:
    """An order that this person may see. Raises RefusedError."""
    found = store.order(visit.db, order_id)
    if found is None:
        raise RefusedError(MISSING, 404)
    if not visit.sees(store.shop_of(found)):
        raise RefusedError(NOT_ALLOWED["shop"])
    return found


def order_page(visit: Visit, order_id: str, *, plain: bool = False, fragment: bool = False) -> Response:
    """The order's page. plain: personal data in full. fragment: what is live of it alone."""
    one = seen_order(visit, order_id)
    whole = one.document or {}
    document = whole if plain else masked.document(whole, visit.person.sight)
    named = sorted({other for signal in one.signals for other in (signal.get("evidence") or {}).get("orders") or ()})
    history = store.history(visit.db, one)
    values: dict[str, Any] = {
        "order": one,
        "document": document,
        "plain": plain,
        "beside": visit.site.articles.beside(whole, one.received_at) if whole else [],
        "known": store.rows(visit.db, [*named, *one.merge_with]),
        "history": history,
        "timeline": store.timeline(visit.db, one.order_id),
        "decisions": store.decisions(visit.db, one.order_id),
        "verifications": store.verifications(visit.db, one.order_id),
        "where": _where(visit, one, [row.order_id for row in history]),
        "together": _together(visit, one),
        "reasons": may_decide(visit),
        "methods": decide.METHODS,
        "results": decide.RESULTS,
        "sayable": [what for what in SAID_HERE if what in heard.sayable(person_of(visit))],
    }
    if fragment:
        return visit.page("order_body.html", **values)
    return visit.page("order.html", undo=queries.undoable(visit.db, visit.person.login, visit.now), **values)


def _together(visit: Visit, one: Order) -> store.Card | None:
    """The card of the case that it belongs to, where that has other orders too."""
    found = None if one.case_id is None else store.case(visit.db, one.case_id, 0)
    return found.card if found is not None and found.card.orders > 1 else None


class Where(msgspec.Struct):
    """Where an order goes, beside the buyer's others. km: to the nearest of them, None where there is none."""

    map: str
    km: int | None
    others: int


def _where(visit: Visit, one: Order, others: list[str]) -> Where | None:
    to = (one.document or {}).get("ship_to") or {}
    if to.get("lat") is None or to.get("lon") is None:
        return None
    # a tenth of a degree says which city, not whose door
    here = Place(round(to["lat"], 1), round(to["lon"], 1))
    usual = [Place(lat, lon) for lat, lon in queries.places(visit.db, others)]
    away = min((distance(here, place) for place in usual), default=None)
    title = visit.say(N_("Where it is to go, and the buyer's other addresses"))
    return Where(picture.land_map(here, usual, title), None if away is None else round(away), len(usual))


def may_decide(visit: Visit) -> dict[str, tuple[str, ...]]:
    """What this person may decide, with the reasons to choose from."""
    roles = visit.person.roles
    return {what: reasons for what, reasons in decide.REASONS.items() if not decide.MAY[what].isdisjoint(roles)}


# -- deciding ---------------------------------------------------------------------------------------------------------------


def person_of(visit: Visit) -> decide.Person:
    """Whoever decides, as `decide` knows them."""
    return decide.Person(visit.person.login, frozenset(visit.person.roles), visit.person.shops)


def chosen(values: list[str]) -> dict[str, int]:
    """Order ids with the verdict number that was seen of each, from `id|seq`. Raises RefusedError."""
    out: dict[str, int] = {}
    for value in values:
        order_id, _, seq = value.rpartition("|")
        if not order_id or not (seq.isascii() and seq.isdigit()) or len(seq) > 9:
            raise RefusedError(N_("The request was not understood. Please go back and try again."), 400)
        out[order_id] = int(seq)
    return out


@router.post("/decide")
def decide_orders(request: Request, form: Fields) -> Response:
    """Decides one order, or those of a case that are ticked."""
    with enter(request, "decide", form) as visit:
        seen = chosen([str(value) for value in form.getlist("orders")])
        what = str(form.get("decision", ""))
        if not seen:
            raise RefusedError(N_("No order is ticked. Tick those that you mean."), 400)
        if what not in WHATS:
            raise RefusedError(N_("Choose what is to be done."), 400)
        if len(seen) > 1 and not visit.person.may("bulk"):
            raise RefusedError(NOT_ALLOWED["role"])
        details: dict[str, Any] = {}
        if what == "correction" and form.get("correct"):
            details["correct"] = masked.free(str(form["correct"]))[:500]
        if what == "release" and form.get("merge_shown") == "1":
            details |= merged(visit.db, what, seen, [str(value) for value in form.getlist("merge_with")])
        done = decide.decide(
            visit.db,
            person_of(visit),
            seen,
            what,
            str(form.get(f"reason-{what}", "")),
            note=masked.free(str(form.get("note", "")))[:500],
            details=details or None,
            at=visit.now,
            terms=visit.site.terms,
        )
        back = home(str(form.get("back", "/")))
        if not done.refused:
            return see_other(back)
        return _result(visit, done, what, back)


def merged(db: Db, what: What, seen: Mapping[str, int], wanted: Iterable[str]) -> dict[str, Any]:
    """The part of a release's details that says which orders it leaves with: those of its candidates that are wanted, maybe none.

    Raises RefusedError where it is no release of one order, or one is named that is no candidate.
    """
    known = store.order(db, next(iter(seen))) if what == "release" and len(seen) == 1 else None
    chosen = set(wanted)
    if known is None or not chosen <= set(known.merge_with):
        raise RefusedError(NOT_ALLOWED["details"], 400)
    return {"merge_with": [other for other in known.merge_with if other in chosen]}


def _result(visit: Visit, done: Decided, what: What, back: str) -> Response:
    return visit.page(
        "decided.html",
        409,
        done=done,
        what=what,
        back=back,
        known=store.rows(visit.db, list(done.refused)),
        undo=queries.undoable(visit.db, visit.person.login, visit.now),
    )


@router.post("/undo")
def undo(request: Request, form: Fields) -> Response:
    """Takes back what was decided in one go."""
    with enter(request, "decide", form) as visit:
        decide.undo(visit.db, person_of(visit), uuid_of(form.get("bulk")), at=visit.now)
        return see_other(home(str(form.get("back", "/"))))


@router.post("/map")
def name_article(request: Request, form: Fields) -> Response:
    """Says which article a channel's code names; the orders that wait with it are checked again within seconds."""
    with enter(request, "map", form) as visit:
        order = seen_order(visit, str(form.get("order_id", "")))
        code, sku = str(form.get("code", "")), str(form.get("sku", "")).strip()
        lines = (order.document or {}).get("lines", ())
        if not sku or code not in {line.get("code") for line in lines}:
            raise RefusedError(NOT_ALLOWED["details"], 400)
        settings = visit.site.settings
        named = Code(order.channel, code, order.shop)
        try:
            articles.ask(visit.db, person_of(visit), settings, require(settings).address, named, sku, at=visit.now)
        except BadFile as error:
            raise RefusedError(error.sentence, 409) from None
        visit.site.articles.stale()
        return see_other(f"/orders/{path_of(order.order_id)}")


SAID_HERE = ("complaint", "returned", "wrong-shipment", "chargeback", "contact", "false-alarm", "confirmed-fraud")
"""Outcomes that a person at a desk hears of."""


@router.post("/tell")
def tell(request: Request, form: Fields) -> Response:
    """Says what came of an order: a complaint, a return, … The form has its own time, so that sent twice it is one."""
    with enter(request, "tell", form) as visit:
        order = seen_order(visit, str(form.get("order_id", "")))
        at = str(form.get("at", ""))
        what = str(form.get("outcome", ""))
        if what not in SAID_HERE or not (at.isascii() and at.isdigit()) or not 0 <= visit.now - int(at[:15]) <= times.DAY:
            raise RefusedError(NOT_ALLOWED["details"], 400)
        row = {"order_id": order.order_id, "at": times.text(int(at)), "outcome": what}
        note = masked.free(str(form.get("note", "")).strip())[:500]
        zone = visit.site.settings.timezone
        found = heard.hear(visit.db, person_of(visit), [{**row, **({"note": note} if note else {})}], zone, at=visit.now)
        if found.faults:
            # the list has nothing else that could be wrong with it
            raise RefusedError(NOT_ALLOWED["role"])
        return see_other(f"/orders/{path_of(order.order_id)}")


@router.post("/verify")
def verify(request: Request, form: Fields) -> Response:
    """Records a second look at who somebody is."""
    with enter(request, "verify", form) as visit:
        order_id = str(form.get("order_id", ""))
        seen_order(visit, order_id)
        method, result = str(form.get("method", "")), str(form.get("result", ""))
        if method not in decide.METHODS or result not in decide.RESULTS:
            raise NotAllowedError("details")
        note = masked.free(str(form.get("note", "")))[:500]
        decide.verify(visit.db, person_of(visit), order_id, method, result, note=note, at=visit.now)
        return see_other(f"/orders/{path_of(order_id)}")


@router.get("/approvals")
def approvals(request: Request) -> Response:
    """What waits for an approver."""
    with enter(request, "see") as visit:
        asked = store.asked(visit.db, visit.person.shops)
        approves = visit.person.may("approve") or "approver" in decide.lent(visit.db, visit.person.login, visit.now)
        values: dict[str, Any] = {
            "approves": approves,
            "asked": asked,
            "mine": {one.decision.id for one in asked if one.decision.by == visit.person.login},
        }
        return visit.page("asked.html" if request.headers.get("hx-request") else "approvals.html", **values)


@router.post("/approve")
def approve(request: Request, form: Fields) -> Response:
    """An approver's word."""
    with enter(request, "see", form) as visit:
        note = masked.free(str(form.get("note", "")))[:500]
        decision = uuid_of(form.get("decision"))
        decide.approve(visit.db, person_of(visit), decision, yes=form.get("yes") == "1", note=note, at=visit.now)
        return see_other("/approvals")


def uuid_of(value: object) -> uuid.UUID:
    """An id from outside. Raises RefusedError."""
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise RefusedError(N_("The request was not understood. Please go back and try again."), 400) from None


def path_of(text: str) -> str:
    """An id as a part of an address."""
    return quote(text, safe=":")
