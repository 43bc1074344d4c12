"""Office: what is behind the wall: rejects, what is stuck downstream, audit, deputies, accounts.

Law: whoever puts back, settles, or changes who may do what is named in the audit in the same transaction. A secret is shown once, to
whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from orderstream.board import audit, decide, rejects, store
from orderstream.board.store import Db
from orderstream.board.web import accounts, masked, queries
from orderstream.board.web.accounts import AccountError
from orderstream.board.web.language import N_
from orderstream.board.web.roles import ROLES
from orderstream.board.web.site import COOKIE, PAGE, RefusedError, Visit, enter, fields, see_other
from orderstream.board.web.work import MISSING, NOT_ALLOWED, OFTEN, person_of
from orderstream.broker import require
from orderstream.downstream import store as waits
from orderstream.downstream.flow import WAITS
from orderstream.errors import UserError
from orderstream.orders import Rejected, Skip
from orderstream.rejected import masked as masked_bytes
from orderstream.rules.model import Downstream, Limits

router = APIRouter(include_in_schema=False)
Fields = Annotated[FormData, Depends(fields)]


# -- rejects, audit -----------------------------------------------------------------------------------------------------------


@router.get("/rejected")
def rejected(request: Request, channel: str = "", code: str = "", page: int = 0) -> Response:
    """What could not be one order, and why; and what was put back."""
    with enter(request, "rejected") as visit:
        page = max(0, min(page, 1000))
        rows = store.rejects(visit.db, channel or None, code or None, PAGE + 1, page * PAGE, visit.person.shops)
        values: dict[str, Any] = {"replays": rejects.asked(visit.db), "channel": channel, "code": code, "number": page}
        return visit.page("rejected.html", rows=rows[:PAGE], more=len(rows) > PAGE, **values)


@router.get("/rejected/{name}")
def reject(request: Request, name: str) -> Response:
    """One of them: its envelope and its bytes in their shape, nothing of anybody readable."""
    with enter(request, "rejected") as visit:
        return _reject(visit, name)


@router.post("/rejected/full")
def reject_in_full(request: Request, form: Fields) -> Response:
    """The same as it came: written down before it is shown."""
    with enter(request, "unmask", form) as visit:
        row = seen_reject(visit, str(form.get("id", "")))
        if not visit.site.unmasking.take(visit.person.login):
            raise RefusedError(OFTEN, 429)
        audit.append(visit.db, visit.now, visit.person.login, "unmask", {"reject": row.id})
        return _reject(visit, row.id, plain=True)


def _reject(visit: Visit, name: str, *, plain: bool = False) -> Response:
    row = seen_reject(visit, name)
    return visit.page("reject.html", row=row, found=reject_bytes(visit, row, plain=plain), plain=plain)


def seen_reject(visit: Visit, name: str) -> store.Reject:
    """A reject that this person may see. Raises RefusedError."""
    row = rejects.of(visit.db, name) if visit.person.may("rejected") else None
    if row is None:
        raise RefusedError(MISSING, 404)
    if not visit.sees(f"{row.channel}:{row.shop}"):
        raise RefusedError(NOT_ALLOWED["shop"])
    return row


def reject_bytes(visit: Visit, row: store.Reject, *, plain: bool) -> dict[str, object] | None:
    """What Kafka has of a reject; None: no more. plain: its bytes as they came. now: what a replay would do with it.

    Raises RefusedError where Kafka is away.
    """
    settings = visit.site.settings
    try:
        found = rejects.one(settings, require(settings).address, row)
    except UserError as error:
        raise RefusedError(error.sentence, 503) from None
    if found is None:
        return None
    parsed, record = found.now(), found.record
    now = "unreadable" if parsed is None else {Rejected: "still", Skip: "skip"}.get(type(parsed), "sent")
    return {
        "verified": record.verified,
        "headers": {name: masked_bytes.sentence(value) for name, value in sorted(record.headers.items())},
        "size": len(record.body),
        "body": masked_bytes.body(record.body, whole=plain),
        "now": now,
        "now_code": parsed.code if isinstance(parsed, Rejected) else None,
    }


@router.post("/rejected/replay")
def replay(request: Request, form: Fields) -> Response:
    """Has the ticked ones put back, or all that the filter shows and that were not yet."""
    with enter(request, "replay", form) as visit:
        channel, code = str(form.get("channel", "")), str(form.get("code", ""))
        ids = None if form.get("all") == "1" else [str(one) for one in form.getlist("rejects")]
        if ids == []:
            raise RefusedError(N_("Nothing is ticked. Tick those that you mean."), 400)
        chosen = {"channel": channel or None, "code": code or None} if ids is None else {}
        rejects.ask(visit.db, person_of(visit), ids=ids, at=visit.now, **chosen)
        return see_other(f"/rejected?channel={quote(channel)}&code={quote(code)}")


@router.get("/audit")
def audit_page(request: Request, by: str = "", what: str = "", before: int | None = None) -> Response:
    """Who did what."""
    with enter(request, "audit") as visit:
        rows = queries.audited(visit.db, by=by.strip(), what=what.strip(), before=before, limit=PAGE + 1)
        return visit.page("audit.html", rows=rows[:PAGE], more=len(rows) > PAGE, by=by, what=what)


# -- downstream -----------------------------------------------------------------------------------------------------------


@router.get("/downstream")
def downstream(request: Request, page: int = 0) -> Response:
    """What was released and is stuck behind us, and the days that were reconciled."""
    with enter(request, "see") as visit:
        page = max(0, min(page, 1000))
        rows = queries.standing(visit.db, visit.person.shops, PAGE + 1, page * PAGE)
        days = queries.reconciled(visit.db, visit.person.shops)
        return visit.page("downstream.html", rows=rows[:PAGE], more=len(rows) > PAGE, number=page, days=days)


@router.post("/downstream/settle")
def settle_wait(request: Request, form: Fields) -> Response:
    """Takes what somebody has dealt with off the wall, until another verdict."""
    with enter(request, "settle", form) as visit:
        settle(visit, str(form.get("order_id", "")), str(form.get("kind", "")), str(form.get("why", "")))
        return see_other("/downstream")


def settle(visit: Visit, order_id: str, kind: str, why: str) -> None:
    """The same for page and API, with its row in the audit. Raises RefusedError: it does not stand (any more), no reason."""
    why = masked.free(why.strip())[:200]
    if not why:
        raise RefusedError(NOT_ALLOWED["note"], 400)
    found = next((one for one in WAITS if one == kind), None)
    if found is None or not visit.sees(":".join(order_id.split(":")[:2])):
        raise RefusedError(NOT_ALLOWED["details"], 400)
    with visit.db.transaction():
        if not waits.settle(visit.db, order_id, found, visit.person.login, why, limits_of(visit.db)):
            raise RefusedError(N_("It does not stand here any more."), 409)
        audit.append(visit.db, visit.now, visit.person.login, "settle", {"order": order_id, "kind": kind, "why": why})


def limits_of(db: Db) -> Callable[[str], Limits]:
    """A pack's version -> how long what was released may take outside, by that pack."""

    def limits(version: str) -> Limits:
        body = store.pack(db, version) if version else None
        return msgspec.convert((body or {}).get("policy", {}).get("downstream", {}), Downstream).limits()

    return limits


# -- deputies -----------------------------------------------------------------------------------------------------------------


@router.get("/deputies")
def deputies(request: Request) -> Response:
    """Who stands in for whom."""
    with enter(request, "deputies") as visit:
        rows = [one for one in store.deputies(visit.db) if one.until > visit.now]
        everybody = [one for one in accounts.people(visit.db) if one["disabled_at"] is None]
        return visit.page("deputies.html", rows=rows, everybody=everybody)


@router.post("/deputies")
def absent(request: Request, form: Fields) -> Response:
    """Names a deputy from one day's beginning to another's end, on the shop's clock."""
    with enter(request, "deputies", form) as visit:
        everybody = {one["login"]: one for one in accounts.people(visit.db) if one["disabled_at"] is None}
        who, deputy = str(form.get("person", visit.person.login)), str(form.get("deputy", ""))
        since, until = _day(visit, form.get("since")), _day(visit, form.get("until"), end=True)
        if who not in everybody or deputy not in everybody or since is None or until is None:
            raise RefusedError(NOT_ALLOWED["details"], 400)
        one = everybody[who]
        away = decide.Person(who, frozenset(one["roles"]), tuple(one["shops"]))
        decide.absent(visit.db, person_of(visit), away, deputy, max(since, visit.now), until, at=visit.now)
        return see_other("/deputies")


@router.post("/deputies/end")
def back(request: Request, form: Fields) -> Response:
    """Ends an absence now."""
    with enter(request, "deputies", form) as visit:
        decide.back(visit.db, person_of(visit), _number(form.get("id")), at=visit.now)
        return see_other("/deputies")


def _day(visit: Visit, value: object, *, end: bool = False) -> int | None:
    try:
        day = datetime.strptime(str(value), "%Y-%m-%d").replace(tzinfo=ZoneInfo(visit.site.settings.timezone))
    except ValueError:
        return None
    return int((day + timedelta(days=1 if end else 0)).timestamp() * 1000)


def _number(value: object) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise RefusedError(N_("The request was not understood. Please go back and try again."), 400)
    return int(text)


# -- accounts -----------------------------------------------------------------------------------------------------------------


@router.get("/people")
def people(request: Request) -> Response:
    """Everybody who has an account."""
    with enter(request, "people") as visit:
        return _people(visit)


def _people(visit: Visit, link: str | None = None, login: str = "") -> Response:
    return visit.page("people.html", everybody=accounts.people(visit.db), roles=list(ROLES), link=link, login=login)


@router.post("/people")
def invite(request: Request, form: Fields) -> Response:
    """Makes an account or gives it other roles; the answer has its one-time link, which is shown only there."""
    with enter(request, "people", form) as visit:
        login = str(form.get("login", "")).strip().lower()[:200]
        roles = [str(role) for role in form.getlist("roles")]
        shops = str(form.get("shops", "")).replace(",", " ").split()
        with visit.db.transaction():
            token = accounts.invite(
                visit.db,
                login,
                visit.now,
                visit.person.login,
                name=str(form.get("name", "")).strip()[:80] or None,
                roles=roles,
                shops=shops,
            )
            audit.append(
                visit.db,
                visit.now,
                visit.person.login,
                "invite",
                {"login": login, "roles": sorted(roles), "shops": sorted(shops)},
            )
        public = (visit.site.settings.public_url or str(request.base_url)).rstrip("/")
        return _people(visit, f"{public}/welcome/{token}", login)


@router.post("/people/disable")
def disable(request: Request, form: Fields) -> Response:
    """Shuts somebody out at once, or lets them in again."""
    with enter(request, "people", form) as visit:
        login, on = str(form.get("login", "")), form.get("on") == "1"
        if login == visit.person.login:
            raise RefusedError(N_("You cannot shut yourself out; another administrator can."), 400)
        with visit.db.transaction():
            accounts.disable(visit.db, login, visit.now, on=on)
            audit.append(visit.db, visit.now, visit.person.login, "disable" if on else "enable", {"login": login})
        return see_other("/people")


@router.get("/me")
def me(request: Request) -> Response:
    """One's own account."""
    with enter(request) as visit:
        return _me(visit)


def _me(visit: Visit, *, token: str | None = None, wrong: str | None = None, done: bool = False, status: int = 200) -> Response:
    mine = accounts.tokens(visit.db, visit.person)
    return visit.page("me.html", status, tokens=mine, token=token, wrong=wrong, done=done, least=accounts.LEAST)


@router.post("/me/password")
def password(request: Request, form: Fields) -> Response:
    """Another password; every other session of theirs ends."""
    with enter(request, None, form) as visit:
        if not visit.site.gate.take(visit.person.login):
            raise RefusedError(N_("Too many requests. Please wait a moment."), 429)
        old, new = str(form.get("old", "")), str(form.get("password", ""))
        found = accounts.sign_in(visit.db, visit.person.login, old, visit.site.whence(request), visit.now)
        if not isinstance(found, accounts.Person):
            return _me(visit, wrong=visit.say(N_("The present password is wrong.")), status=403)
        if new != str(form.get("again", "")):
            return _me(visit, wrong=visit.say(N_("The two passwords are not the same.")), status=400)
        try:
            with visit.db.transaction():
                accounts.change(visit.db, visit.person, new, request.cookies[COOKIE])
                audit.append(visit.db, visit.now, visit.person.login, "password-changed", {})
        except AccountError as error:
            return _me(visit, wrong=error.sentence, status=400)
        return _me(visit, done=True)


@router.post("/me/tokens")
def make_token(request: Request, form: Fields) -> Response:
    """A token for the HTTP API, with one's own rights."""
    with enter(request, None, form) as visit:
        name, days = str(form.get("name", "")), _number(form.get("days", "90"))
        reads_only = form.get("reads_only") == "1"
        with visit.db.transaction():
            token = accounts.make_token(visit.db, visit.person, name, days, visit.now, reads_only=reads_only)
            audit.append(
                visit.db, visit.now, visit.person.login, "token", {"name": name[:80], "days": days, "reads_only": reads_only}
            )
        return _me(visit, token=token)


@router.post("/me/tokens/revoke")
def revoke(request: Request, form: Fields) -> Response:
    """Ends a token."""
    with enter(request, None, form) as visit:
        number = _number(form.get("id"))
        with visit.db.transaction():
            accounts.revoke(visit.db, visit.person, number, visit.now)
            audit.append(visit.db, visit.now, visit.person.login, "token-revoked", {"id": number})
        return see_other("/me")
