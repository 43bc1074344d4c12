"""Site: what every page stands on: the pool, the languages' templates, the packs' words, and who is asking.

Law: a page begins with `enter`, which proves who asks, that they may, and, where something is to be done, that our own page asked for
it. There is no other way to a connection, so none can be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2.utils import missing
from starlette.datastructures import FormData

from orderstream.board import audit, store
from orderstream.board.agreed import terms
from orderstream.board.store import Db, Pool, answering
from orderstream.board.web import accounts, language, masked
from orderstream.board.web.accounts import Person
from orderstream.board.web.articles import Articles
from orderstream.board.web.kept import Kept
from orderstream.board.web.language import N_
from orderstream.board.web.limits import Limit
from orderstream.board.web.live import Live
from orderstream.board.web.roles import Right
from orderstream.board.web.words import Words
from orderstream.settings import Settings

HERE = Path(__file__).parent
COOKIE = "orderstream"
LANGUAGE_COOKIE = "language"
PAGE = 40
"""Cards or rows of a page."""


class Absent(jinja2.StrictUndefined):
    """A name that a template has not been given is a mistake; a key that a record lacks is only absent."""

    def __new__(cls, hint: str | None = None, obj: Any = missing, *more: Any, **named: Any) -> Any:
        """The one or the other."""
        if isinstance(obj, dict):
            return jinja2.ChainableUndefined(hint, obj, *more, **named)
        return super().__new__(cls)


class SignedOutError(Exception):
    """Nobody is signed in, where somebody must be."""


class RefusedError(Exception):
    """Not by this person, or not like this. text: one of ours, in English, for `say`."""

    def __init__(self, text: str, status: int = 403) -> None:
        super().__init__(text)
        self.text, self.status = text, status


class Site:
    """One board: made by `app.create_app`, and handed to every page in `request.app.state.site`."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self.settings = settings
        self.pool = pool
        self.key = settings.hash_key()
        self.words = Words()
        self.articles = Articles(settings)
        self.gate = Limit(rate=0.5, burst=20)
        """Sign-ins, links and passwords, by the client's address."""
        self.pages = Limit(rate=20, burst=120)
        self.unmasking = Limit(rate=1 / 60, burst=60)
        self.terms = terms(settings)
        self.live = Live(pool)
        self.cards: Kept[str] = Kept()
        self.facets: Kept[store.Facets] = Kept(2.0)
        self.assets = {path.name: _short(path.read_bytes()) for path in (HERE / "static").iterdir()}
        self._environments: dict[str, jinja2.Environment] = {name: self._environment(name) for name in language.LANGUAGES}

    def _environment(self, lang: str) -> jinja2.Environment:
        env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            extensions=["jinja2.ext.i18n"],
            undefined=Absent,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        env.install_gettext_translations(language.translations(lang), newstyle=True)  # type: ignore[attr-defined]
        env.filters |= {
            "money": partial(_money, lang),
            "when": partial(language.moment, zone=self.settings.timezone),
            "exactly": partial(language.moment, zone=self.settings.timezone, seconds=True),
            "span": partial(_span, lang),
            "path": lambda text: quote(str(text), safe=":"),
            "asset": lambda name: f"/static/{name}?{self.assets[name]}",
        }
        env.globals |= {
            "lang": lang,
            "html_lang": {"zh": "zh-CN", "en": "en"}[lang],
            "languages": language.NAMES,
            "term": partial(self.words.term, lang),
            "masked": masked,
        }
        return env

    def text(self, lang: str, name: str, values: Mapping[str, Any]) -> str:
        """A template in a language."""
        return self._environments[lang].get_template(name).render(values)

    def page(self, lang: str, name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """The same as an answer."""
        return HTMLResponse(self.text(lang, name, values), status)

    def secure(self, request: Request) -> bool:
        """Whether the browser speaks TLS with us, or with what stands in front of us."""
        public = self.settings.public_url
        return urlsplit(public).scheme == "https" if public else request.url.scheme == "https"

    def whence(self, request: Request) -> str:
        """The client's address as a keyed hash."""
        return accounts.whence(self.key, request.client.host if request.client else "?")


class Visit:
    """One request of one person: who, what they may, and the connection."""

    def __init__(self, site: Site, request: Request, db: Db, person: Person, cookie: str) -> None:
        self.site, self.request, self.db, self.person = site, request, db, person
        self.language: str = person.language
        self.guard = accounts.guard(cookie) if cookie else ""
        self.now = store.now()
        self.words = site.words.of(db, self.language)

    def say(self, text: str, **values: object) -> str:
        """A text of ours in their language."""
        return language.say(self.language, text, **values)

    def text(self, name: str, **values: Any) -> str:
        """A template, with what every page shows."""
        common = {
            "visit": self,
            "me": self.person,
            "may": self.person.rights,
            "guard": self.guard,
            "now": self.now,
            "words": self.words,
            "here": self.request.url.path,
            "query": self.request.url.query,
        }
        return self.site.text(self.language, name, {**common, **values})

    def page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The same as an answer."""
        return HTMLResponse(self.text(name, **values), status)

    def sees(self, shop: str) -> bool:
        """Whether a shop (`channel:shop`) is theirs."""
        return not self.person.shops or shop in self.person.shops


def site_of(request: Request) -> Site:
    """The board that a request came to."""
    found: Site = request.app.state.site
    return found


def tongue(request: Request) -> str:
    """The language of somebody who is not signed in."""
    return language.chosen(request.headers.get("accept-language"), request.cookies.get(LANGUAGE_COOKIE))


@contextmanager
def enter(request: Request, right: Right | None = None, fields: FormData | None = None) -> Iterator[Visit]:
    """A visit by whoever is signed in. fields: of a form that is to do something: its guard is checked.

    Raises SignedOutError, RefusedError, NoDatabase.
    """
    site = site_of(request)
    cookie = request.cookies.get(COOKIE, "")
    if not cookie:
        raise SignedOutError
    if fields is not None and not hmac.compare_digest(str(fields.get("guard", "")), accounts.guard(cookie)):
        raise RefusedError(N_("This form is too old. Please go back, reload the page and try again."))
    with answering(), site.pool.connection() as db:
        person = accounts.of_session(db, cookie, store.now())
        if person is None:
            raise SignedOutError
        if not site.pages.take(person.login):
            raise RefusedError(N_("Too many requests. Please wait a moment."), 429)
        if right is not None and not person.may(right):
            raise RefusedError(N_("Your role does not allow this. Ask an administrator if it should."))
        yield Visit(site, request, db, person, cookie)


def own(request: Request) -> None:
    """Raises RefusedError where a form without a session was not sent by a page of ours."""
    origin = request.headers.get("origin")
    if origin in (None, "null"):
        fine = request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    else:
        public = site_of(request).settings.public_url
        fine = urlsplit(origin).netloc in {request.headers.get("host", ""), urlsplit(public or "").netloc or None}
    if not fine:
        raise RefusedError(N_("This form is too old. Please go back, reload the page and try again."))


async def fields(request: Request) -> FormData:
    """A form's fields; files are refused."""
    return await request.form(max_files=0, max_fields=3000)


def home(path: str | None) -> str:
    """Where to go after signing in: only a path of ours."""
    fine = path is not None and path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path
    return path if fine and path else "/"


def see_other(path: str) -> Response:
    """After a form: go and look."""
    return Response(status_code=303, headers={"location": path})


def let_in(site: Site, request: Request, db: Db, person: Person, how: str, to: str) -> Response:
    """Opens a session, notes it, and goes on."""
    now = store.now()
    with db.transaction():
        cookie = accounts.open_session(db, person, how, now)
        audit.append(db, now, person.login, "signed-in", {"how": how})
    answer = see_other(home(to))
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=accounts.LONGEST // 1000,
        httponly=True,
        secure=site.secure(request),
        samesite="lax",
        path="/",
    )
    return answer


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _money(lang: str, total: int | None, currency: str | None) -> str:
    return language.amount(total, currency, lang)


def _span(lang: str, ms: int) -> str:
    return language.span(ms, lang)
