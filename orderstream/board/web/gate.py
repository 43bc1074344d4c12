"""Gate: coming in and going out.

Law: whoever is not signed in learns nothing, not even whether an account is there. Every form that works without a session must have
been sent by a page of ours (`own`). What succeeded and what failed is in the audit, by login, without addresses.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from orderstream.board import audit, store
from orderstream.board.store import Db, answering
from orderstream.board.web import accounts, oidc
from orderstream.board.web.accounts import AccountError, Person
from orderstream.board.web.language import LANGUAGES, N_, say
from orderstream.board.web.site import (
    COOKIE,
    LANGUAGE_COOKIE,
    RefusedError,
    Site,
    enter,
    fields,
    home,
    let_in,
    own,
    see_other,
    site_of,
    tongue,
)

router = APIRouter(include_in_schema=False)
Fields = Annotated[FormData, Depends(fields)]
SLOWLY = N_("Too many tries from here. Please wait a minute.")
STALE = N_("This link was used already or is older than a day. Ask whoever sent it for a new one.")


def slowly(site: Site, request: Request) -> None:
    """Raises RefusedError where an address tries too often."""
    if not site.gate.take(site.whence(request)):
        raise RefusedError(SLOWLY, 429)


@router.get("/sign-in")
def sign_in_page(request: Request, to: str = "/") -> Response:
    """The form."""
    site, language = site_of(request), tongue(request)
    values = {"to": home(to), "wrong": None, "login": "", "oidc": oidc.configured(site.settings)}
    return site.page(language, "sign_in.html", values)


@router.post("/sign-in")
def sign_in(request: Request, form: Fields) -> Response:
    """By login and password."""
    own(request)
    site, language = site_of(request), tongue(request)
    slowly(site, request)
    login, to = str(form.get("login", "")), home(str(form.get("to", "/")))
    with answering(), site.pool.connection() as db:
        found = accounts.sign_in(db, login, str(form.get("password", "")), site.whence(request), store.now())
        if isinstance(found, Person):
            return let_in(site, request, db, found, "password", to)
        if found == "locked":
            audit_refused(db, login)
    wrong = {
        "wrong": N_("Login or password is wrong."),
        "locked": N_("Too many wrong passwords. Wait 15 minutes, or ask an administrator for a new link."),
    }[found]
    values = {"to": to, "wrong": say(language, wrong), "login": login[:200], "oidc": oidc.configured(site.settings)}
    return site.page(language, "sign_in.html", values, 403 if found == "wrong" else 429)


def audit_refused(db: Db, login: str) -> None:
    """That a lock-out held is noted where the account is there, at most once in the time that it lasts."""
    now = store.now()
    login = login.strip().lower()
    known = db.execute("SELECT 1 FROM board.people WHERE login = %s", (login,)).fetchone()
    said = db.execute(
        "SELECT 1 FROM board.audit WHERE at > %s AND by = %s AND what = 'locked-out' LIMIT 1", (now - accounts.LOCK, login)
    ).fetchone()
    if known and not said:
        with db.transaction():
            audit.append(db, now, login, "locked-out", {})


@router.get("/welcome/{token}")
def welcome_page(request: Request, token: str) -> Response:
    """Where a one-time link leads: looking at it uses nothing up."""
    site, language = site_of(request), tongue(request)
    slowly(site, request)
    with answering(), site.pool.connection() as db:
        person = accounts.invited(db, token, store.now())
    if person is None:
        raise RefusedError(STALE, 410)
    return site.page(language, "welcome.html", {"person": person, "wrong": None, "least": accounts.LEAST})


@router.post("/welcome/{token}")
def welcome(request: Request, token: str, form: Fields) -> Response:
    """Chooses the password and goes in."""
    own(request)
    site, language = site_of(request), tongue(request)
    slowly(site, request)
    password, again = str(form.get("password", "")), str(form.get("again", ""))
    with answering(), site.pool.connection() as db:
        now = store.now()
        person = accounts.invited(db, token, now)
        if person is None:
            raise RefusedError(STALE, 410)
        wrong: str | None = None
        if password != again:
            wrong = say(language, N_("The two passwords are not the same."))
        else:
            try:
                with db.transaction():
                    chosen = accounts.accept(db, token, password, now)
                    if chosen is not None:
                        audit.append(db, now, chosen.login, "password-chosen", {})
            except AccountError as error:
                wrong = error.sentence
            else:
                if chosen is None:
                    raise RefusedError(STALE, 410)
                return let_in(site, request, db, chosen, "link", "/")
    return site.page(language, "welcome.html", {"person": person, "wrong": wrong, "least": accounts.LEAST}, 400)


@router.post("/sign-out")
def sign_out(request: Request, form: Fields) -> Response:
    """Ends the session."""
    with enter(request, None, form) as visit:
        accounts.close_session(visit.db, request.cookies[COOKIE])
    answer = see_other("/sign-in")
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/language")
def language(request: Request, form: Fields) -> Response:
    """Chooses a language, for this browser and, signed in, for oneself."""
    own(request)
    wanted = str(form.get("language", ""))
    if wanted not in LANGUAGES:
        raise RefusedError(N_("The request was not understood. Please go back and try again."), 400)
    if request.cookies.get(COOKIE):
        with enter(request, None, form) as visit:
            accounts.speak(visit.db, visit.person, wanted)
    answer = see_other(home(str(form.get("to", "/"))))
    answer.set_cookie(LANGUAGE_COOKIE, wanted, max_age=31_536_000, httponly=True, samesite="lax")
    return answer


@router.get("/oidc")
async def oidc_start(request: Request, to: str = "/") -> Response:
    """Goes to the provider."""
    slowly(site_of(request), request)
    return await oidc.start(request, home(to))


@router.get("/oidc/back")
async def oidc_back(request: Request) -> Response:
    """Comes back from it."""
    slowly(site_of(request), request)
    return await oidc.back(request)
