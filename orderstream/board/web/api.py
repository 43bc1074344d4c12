"""API: the board for programs, with the same rights as its pages.

Law: a token is a person's and may what they may, or only read. Whatever a page does is done here by the same function with the same
refusals; personal data is masked by the same role. Errors are `{"error": sentence}`; OpenAPI describes all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from orderstream.board import decide, store
from orderstream.board.store import answering
from orderstream.board.web import accounts, masked, queries
from orderstream.board.web.language import N_
from orderstream.board.web.roles import Right
from orderstream.board.web.site import RefusedError, SignedOutError, Visit, site_of
from orderstream.board.web.work import MISSING, NOT_ALLOWED, OFTEN, merged, person_of, uuid_of

DESCRIPTION = """The board's HTTP API. `Authorization: Bearer osb_…`: a token made on one's own page, with one's own rights.

Times are ms UTC, money is integer minor units with its currency. An order id is `channel:shop:number`. Errors are `{"error": …}`:
400 not understood, 401 no token, 403 not allowed, 404 not there, 409 partly refused, 422 not of the form, 429 too many, 503 PostgreSQL is away.
"""

_bearer = HTTPBearer(auto_error=False, description="A token made on one's own page.")


def paths() -> APIRouter:
    """A part of the API."""
    return APIRouter(prefix="/api/v1", dependencies=[Depends(_bearer)], tags=["board"])


router = paths()


class Error(BaseModel):
    """A sentence in the language of Accept-Language."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "No token, or none that is good", "model": Error},
    403: {"description": "Not allowed", "model": Error},
    429: {"description": "Too many requests", "model": Error},
    503: {"description": "PostgreSQL is away", "model": Error},
}


class Seen(BaseModel):
    """An order, and the number of its verdict that the decision is about."""

    model_config = ConfigDict(extra="forbid")
    order_id: str = Field(min_length=3, max_length=300)
    seq: int = Field(ge=0, le=2**31 - 1)


class Decide(BaseModel):
    """What is to be done with which orders."""

    model_config = ConfigDict(extra="forbid")
    orders: list[Seen] = Field(min_length=1, max_length=1000)
    decision: Literal["release", "correction", "after-sales", "confirm", "cancel"]
    reason: str = Field(max_length=40)
    note: str = Field("", max_length=500)
    merge_with: list[str] | None = Field(
        None,
        max_length=20,
        description="Of a release of one order: which of its `merge_with` it leaves with. Absent: as the machine says.",
    )


class Verify(BaseModel):
    """A second identity check."""

    model_config = ConfigDict(extra="forbid")
    order_id: str = Field(max_length=300)
    method: Literal["phone", "papers", "platform", "video"]
    result: Literal["confirmed", "failed", "unreachable"]
    note: str = Field("", max_length=500)


class Word(BaseModel):
    """An approver's word."""

    model_config = ConfigDict(extra="forbid")
    yes: bool
    note: str = Field("", max_length=500)


@contextmanager
def enter(request: Request, right: Right, *, writes: bool = False) -> Iterator[Visit]:
    """A visit by whose token it is. Raises SignedOutError, RefusedError, NoDatabase."""
    site = site_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.startswith(accounts.TOKEN):
        raise SignedOutError
    with answering(), site.pool.connection() as db:
        person = accounts.of_token(db, token.strip(), store.now())
        if person is None:
            raise SignedOutError
        if not site.pages.take(f"{person.login} token"):
            raise RefusedError(N_("Too many requests. Please wait a moment."), 429)
        if not person.may(right) or (writes and person.reads_only):
            raise RefusedError(NOT_ALLOWED["role"])
        yield Visit(site, request, db, person, "")


def json(value: Any, status: int = 200) -> Response:
    """An answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _shown(visit: Visit, found: store.Order) -> dict[str, Any]:
    out: dict[str, Any] = msgspec.to_builtins(found)
    out["document"] = None if found.document is None else masked.document(found.document, visit.person.sight)
    out.pop("buyer", None)
    return out


def _one(visit: Visit, order_id: str) -> store.Order:
    found = store.order(visit.db, order_id)
    if found is None:
        raise RefusedError(MISSING, 404)
    if not visit.sees(store.shop_of(found)):
        raise RefusedError(NOT_ALLOWED["shop"])
    return found


Texts = Annotated[list[str], Query(max_length=50)]


@router.get("/cases", responses=ERRORS)
def cases(
    request: Request,
    channel: Texts = [],  # noqa: B006  FastAPI copies it
    shop: Texts = [],  # noqa: B006
    rule: Texts = [],  # noqa: B006
    level: Texts = [],  # noqa: B006
    q: Annotated[str, Query(max_length=100)] = "",
    sort: Literal["urgent", "amount", "newest", "oldest"] = "urgent",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """The wall: cases with orders that wait, the most urgent first, and how many there are."""
    with enter(request, "see") as visit:
        asks = store.Wanted(tuple(channel), tuple(shop), visit.person.shops, tuple(rule), tuple(level), text=q, sort=sort)
        found = store.waiting(visit.db, asks, visit.now, limit, offset)
        return json({"cases": found.cards, "count": found.cases, "orders": found.orders})


@router.get("/cases/{case_id:path}", responses={**ERRORS, 404: {"description": "No such case", "model": Error}})
def case(request: Request, case_id: str) -> Response:
    """A case and its orders."""
    with enter(request, "see") as visit:
        found = store.case(visit.db, case_id)
        orders = [] if found is None else [row for row in found.orders if visit.sees(store.shop_of(row))]
        if found is None or not orders:
            raise RefusedError(MISSING, 404)
        return json({"case": found.card, "orders": orders, "truncated": found.truncated})


@router.get("/orders/{order_id:path}", responses={**ERRORS, 404: {"description": "No such order", "model": Error}})
def order(request: Request, order_id: str, unmask: bool = False) -> Response:
    """An order with its signals, decisions and time line. `unmask=true` shows the customer in full, and is written down."""
    with enter(request, "unmask" if unmask else "see", writes=unmask) as visit:
        found = _one(visit, order_id)
        shown = _shown(visit, found)
        if unmask:
            if not visit.site.unmasking.take(visit.person.login):
                raise RefusedError(OFTEN, 429)
            queries.unmasked(visit.db, visit.person.login, found.order_id, visit.now)
            shown["document"] = found.document
        return json(
            {
                "order": shown,
                "decisions": store.decisions(visit.db, found.order_id),
                "verifications": store.verifications(visit.db, found.order_id),
                "timeline": store.timeline(visit.db, found.order_id),
            }
        )


@router.post("/decisions", responses={**ERRORS, 409: {"description": "Some were refused; the others are done"}})
def make_decision(request: Request, body: Decide) -> Response:
    """Decides orders, all of them with one reason. Each that is refused is named with why; the others are done."""
    with enter(request, "decide", writes=True) as visit:
        if len(body.orders) > 1 and not visit.person.may("bulk"):
            raise RefusedError(NOT_ALLOWED["role"])
        seen = {one.order_id: one.seq for one in body.orders}
        details = {}
        if body.merge_with is not None:
            details = merged(visit.db, body.decision, seen, body.merge_with)
        done = decide.decide(
            visit.db,
            person_of(visit),
            seen,
            body.decision,
            body.reason,
            note=masked.free(body.note),
            details=details,
            at=visit.now,
            terms=visit.site.terms,
        )
        refused = {order_id: refusal._asdict() for order_id, refusal in done.refused.items()}
        answer = {"bulk": str(done.bulk), "done": done.done, "asked": done.asked, "refused": refused}
        return json(answer, 409 if refused else 200)


@router.post("/decisions/{bulk}/undo", responses=ERRORS)
def undo(request: Request, bulk: str) -> Response:
    """Takes back what was decided in one go, within a minute."""
    with enter(request, "decide", writes=True) as visit:
        return json({"undone": decide.undo(visit.db, person_of(visit), uuid_of(bulk), at=visit.now)})


@router.get("/approvals", responses=ERRORS)
def approvals(request: Request) -> Response:
    """What waits for an approver."""
    with enter(request, "see") as visit:
        found = store.asked(visit.db, visit.person.shops)
        return json([{"decision": one.decision, "order": one.order, "yes": one.yes} for one in found])


@router.post("/approvals/{decision}", responses=ERRORS)
def approve(request: Request, decision: str, body: Word) -> Response:
    """An approver's word: effective, more (approvers are needed) or refused."""
    with enter(request, "see", writes=True) as visit:
        note = masked.free(body.note)
        answer = decide.approve(visit.db, person_of(visit), uuid_of(decision), yes=body.yes, note=note, at=visit.now)
        return json({"answer": answer})


@router.post("/verifications", responses=ERRORS)
def verify(request: Request, body: Verify) -> Response:
    """Records a second identity check."""
    with enter(request, "verify", writes=True) as visit:
        _one(visit, body.order_id)
        note = masked.free(body.note)
        made = decide.verify(visit.db, person_of(visit), body.order_id, body.method, body.result, note=note, at=visit.now)
        return json({"id": str(made)})


@router.get("/audit", responses=ERRORS)
def audited(
    request: Request,
    by: str = "",
    what: str = "",
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Rows of the audit, the newest first."""
    with enter(request, "audit") as visit:
        return json(queries.audited(visit.db, by=by, what=what, before=before, limit=limit))
