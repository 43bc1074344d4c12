"""API, its other half: what is behind the wall: outcomes from other systems, whitelist, downstream, rejects.

Law: as of `api`: a token may what its person may, and what a page does is done by the same function.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from orderstream.board import heard, rejects, store
from orderstream.board.web import masked, office, queries, whitelist
from orderstream.board.web.api import ERRORS, Error, enter, json, paths
from orderstream.board.web.site import RefusedError
from orderstream.board.web.work import MISSING, NOT_ALLOWED, person_of, uuid_of

router = paths()
Page = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


class Told(BaseModel):
    """What came of an order. at: ISO 8601; without an offset in the shop's time zone, a day alone is its end."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={
        "examples": [{"order_id": "api:main:A1", "at": "2026-11-12T10:00:00+08:00", "outcome": "returned", "id": "R-981"}]
    })  # fmt: skip
    order_id: str = Field(max_length=300)
    at: str = Field(max_length=40)
    outcome: str = Field(
        max_length=40,
        description="shipped returned chargeback wrong-shipment complaint contact false-alarm, and confirmed-fraud for who may cancel",
    )
    id: str | None = Field(None, max_length=120, description="Yours. Without one it is known by order, time and outcome.")
    reason: str | None = Field(None, max_length=40)
    note: str | None = Field(None, max_length=4000)


class Tell(BaseModel):
    """Rows, and whether those that are right are taken where others are wrong."""

    model_config = ConfigDict(extra="forbid")
    outcomes: list[Told] = Field(min_length=1, max_length=heard.MOST)
    partly: bool = False


class Fault(BaseModel):
    """Why nothing was done with a row, counted from 0."""

    row: int
    why: str


class Heard(BaseModel):
    """What came of rows. taken: ids of what the line is told; known: of what it had been told before; unknown: orders not met here."""

    taken: list[str]
    known: list[str]
    unknown: list[str]
    refused: list[Fault]


class Why(BaseModel):
    """A reason, for the record."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=200)


class Settle(Why):
    """What somebody has dealt with. kind: as the list says it."""

    order_id: str = Field(max_length=300)
    kind: str = Field(max_length=40)


class Replay(BaseModel):
    """Which rejects are put back: these, or all of a channel and a code that were not yet."""

    model_config = ConfigDict(extra="forbid")
    ids: list[str] | None = Field(None, min_length=1, max_length=rejects.AT_ONCE)
    channel: str | None = Field(None, max_length=20)
    code: str | None = Field(None, max_length=60)


@router.post("/outcomes", response_model=Heard, responses={**ERRORS, 409: {"description": "Rows were refused", "model": Heard}})
def outcomes(request: Request, body: Tell) -> Response:
    """Says what came of orders: returns, chargebacks, complaints, … All rows or none, unless `partly`; sent twice it is once.

    409 names each row that is at fault with why. The line hears of it within a second, also of orders that are unknown here.
    """
    with enter(request, "tell", writes=True) as visit:
        rows = [one.model_dump(exclude_none=True) for one in body.outcomes]
        for row in rows:
            row |= {key: masked.free(row[key]) for key in ("note", "reason") if key in row}
        zone = visit.site.settings.timezone
        found = heard.hear(visit.db, person_of(visit), rows, zone, at=visit.now, partly=body.partly)
        refused = [{"row": fault.row, "why": fault.sentence} for fault in found.faults]
        answer = {"taken": found.taken, "known": found.known, "unknown": found.unknown, "refused": refused}
        return json(answer, 409 if refused else 200)


@router.get("/trust", responses=ERRORS)
def trust(request: Request) -> Response:
    """Who is trusted and which rules rest for whom: masked, as on the page. Empty until it has been read for the first time."""
    with enter(request, "trust"):
        entries = whitelist.lists_of(request).entries.get()
        return json({"read": entries is not None, "entries": [one._asdict() for one in entries or ()]})


@router.post("/trust/{name}/end", responses={**ERRORS, 404: {"description": "Not in force (any more)", "model": Error}})
def end_trust(request: Request, name: str, body: Why) -> Response:
    """Ends an entry now: orders from now on are judged with its rules again."""
    with enter(request, "trust", writes=True) as visit:
        why = masked.free(body.why.strip())
        if not why:
            raise RefusedError(NOT_ALLOWED["note"], 400)
        return json({"until": whitelist.end(visit, name, why)["until"]})


@router.get("/downstream", responses=ERRORS)
def downstream(request: Request, limit: Page = 50, offset: Offset = 0) -> Response:
    """What was released and waits too long for the ERP or the warehouse, the longest overdue first."""
    with enter(request, "see") as visit:
        return json({"waits": queries.standing(visit.db, visit.person.shops, limit, offset)})


@router.post(
    "/downstream/settle", responses={**ERRORS, 409: {"description": "It does not stand there (any more)", "model": Error}}
)
def settle(request: Request, body: Settle) -> Response:
    """Somebody has dealt with it: off the wall until another verdict."""
    with enter(request, "settle", writes=True) as visit:
        office.settle(visit, body.order_id, body.kind, body.why)
        return json({"settled": True})


@router.get("/rejected", responses=ERRORS)
def rejected(
    request: Request,
    channel: Annotated[str | None, Query(max_length=20)] = None,
    code: Annotated[str | None, Query(max_length=60)] = None,
    limit: Page = 50,
    offset: Offset = 0,
) -> Response:
    """What could not be one order and why, the newest first."""
    with enter(request, "rejected") as visit:
        found = store.rejects(visit.db, channel, code, limit, offset, visit.person.shops)
        return json({"rejects": [_shown(row) for row in found]})


@router.get("/rejected/{name}", responses={**ERRORS, 404: {"description": "No such reject", "model": Error}})
def reject(request: Request, name: str) -> Response:
    """One of them, its bytes in their shape alone, and what a replay would do with it; `raw` null: they are not kept any more."""
    with enter(request, "rejected") as visit:
        row = office.seen_reject(visit, name)
        return json({"reject": _shown(row), "raw": office.reject_bytes(visit, row, plain=False)})


@router.post("/rejected/replay", responses={**ERRORS, 403: {"description": "Not allowed, or there is none", "model": Error}})
def replay(request: Request, body: Replay) -> Response:
    """Has rejects put back into the line, within seconds: see `/replays/{name}`. Twice is once."""
    with enter(request, "replay", writes=True) as visit:
        if body.ids is None and body.channel is None and body.code is None:
            raise RefusedError(NOT_ALLOWED["details"], 400)
        chosen = {} if body.ids is not None else {"channel": body.channel, "code": body.code}
        name, count = rejects.ask(visit.db, person_of(visit), ids=body.ids, at=visit.now, **chosen)
        return json({"replay": str(name), "rejects": count})


@router.get("/replays/{name}", responses={**ERRORS, 404: {"description": "No such replay", "model": Error}})
def replayed(request: Request, name: str) -> Response:
    """What became of a replay: counts by what was done, null while it is under way."""
    with enter(request, "rejected") as visit:
        found = rejects.outcome(visit.db, uuid_of(name))
        if found is None:
            raise RefusedError(MISSING, 404)
        return json(found)


def _shown(row: store.Reject) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in row.__struct_fields__}, "reason": masked.free(row.reason)}
