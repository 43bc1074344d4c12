"""App: the board's pages, API and live stream as one ASGI application.

Law: every answer carries the same headers, which let a page load nothing from elsewhere, run no script but ours, be framed by nobody
and be kept by no cache. That PostgreSQL is away is a page that says so and comes back by itself; only a bug is a 500.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware

from orderstream.board import store
from orderstream.board.decide import NotAllowedError
from orderstream.board.store import Pool
from orderstream.board.web import accounts, api, api_office, figures, gate, office, whitelist, work
from orderstream.board.web.accounts import AccountError
from orderstream.board.web.language import N_, say
from orderstream.board.web.site import COOKIE, HERE, RefusedError, SignedOutError, Site, site_of, tongue
from orderstream.errors import NoDatabase
from orderstream.settings import Settings

MOST_BYTES = 1_000_000
"""Of a request."""
KINDS = {".css": "text/css", ".js": "text/javascript", ".txt": "text/plain", ".svg": "image/svg+xml"}
HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: https:; "
            b"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

logger = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def create_app(settings: Settings, pool: Pool) -> FastAPI:
    """The board's application. The pool stays the caller's, who closes it."""
    site = Site(settings, pool)
    live = site.live

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(live.watch())
        yield
        await live.end()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    app = FastAPI(
        title="orderstream board",
        version="1",
        description=api.DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.site = site
    # the state of a sign-in by OIDC, for the ten minutes that it may take
    app.add_middleware(
        SessionMiddleware,
        secret_key=accounts.whence(site.key, "oidc"),
        session_cookie="orderstream-oidc",
        max_age=600,
        https_only=(settings.public_url or "").startswith("https://"),
        path="/oidc",
    )
    app.add_middleware(_Guarded)
    for part in (gate, work, office, whitelist, figures, api, api_office):
        app.include_router(part.router)
    app.add_api_route("/static/{name}", _static, include_in_schema=False)
    app.add_api_route("/live", _live, include_in_schema=False)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.add_exception_handler(SignedOutError, _signed_out)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(NotAllowedError, _not_allowed)
    app.add_exception_handler(AccountError, _account)
    app.add_exception_handler(NoDatabase, _away)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _unclear)
    app.add_exception_handler(Exception, _bug)
    return app


class _Guarded:
    """Headers for every answer; no request that is too large."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        chunked = any(key == b"transfer-encoding" for key, _ in scope["headers"])
        if chunked or not length.isdigit() or int(length) > MOST_BYTES:
            await Response("413", 413)(scope, receive, send)
            return
        kept = scope["path"].startswith("/static/")

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {key.lower() for key, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in there)]
                if b"cache-control" not in there:
                    message["headers"].append((b"cache-control", b"public, max-age=31536000, immutable" if kept else b"no-store"))
            await send(message)

        await self._app(scope, receive, sent)


async def _static(name: str) -> Response:
    path = HERE / "static" / name
    # only a name that is there: no path leads out of the folder
    if name not in {file.name for file in (HERE / "static").iterdir()}:
        return Response("404", 404)
    return Response(path.read_bytes(), media_type=KINDS.get(path.suffix, "application/octet-stream"))


async def _live(request: Request) -> Response:
    cookie = request.cookies.get(COOKIE, "")

    def signed_in() -> bool:
        site = site_of(request)
        with store.answering(), site.pool.connection() as db:
            return bool(cookie) and accounts.of_session(db, cookie, store.now()) is not None

    live = site_of(request).live
    if not live.away and not await asyncio.to_thread(signed_in):
        return Response(status_code=204)
    return StreamingResponse(
        live.stream(signed_in), media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


def _healthz(request: Request) -> Response:
    """200 where pages can be served: PostgreSQL answers."""
    with store.answering(), site_of(request).pool.connection() as db:
        db.execute("SELECT 1")
    return Response("ok")


def _asks_for_data(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _sentence(request: Request, status: int, title: str, text: str, *, again: bool = False) -> Response:
    """A page, or JSON for the API, with one sentence that says what to do."""
    language = tongue(request)
    if _asks_for_data(request):
        return JSONResponse({"error": say(language, text)}, status)
    values = {"title": say(language, title), "text": say(language, text), "again": again}
    return site_of(request).page(language, "sentence.html", values, status)


async def _signed_out(request: Request, _: Exception) -> Response:
    if _asks_for_data(request):
        return JSONResponse(
            {"error": say(tongue(request), N_("Sign in with a token: Authorization: Bearer …"))},
            401,
            {"www-authenticate": "Bearer"},
        )
    if request.headers.get("hx-request"):
        return Response(status_code=401)
    to = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    way = "" if request.method != "GET" or to == "/" else f"?to={quote(to, safe='')}"
    return Response(status_code=303, headers={"location": f"/sign-in{way}"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _sentence(request, error.status, N_("This cannot be done"), error.text)


async def _not_allowed(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotAllowedError)
    return _sentence(request, 403, N_("This cannot be done"), work.NOT_ALLOWED.get(error.code, work.NOT_ALLOWED["role"]))


async def _account(request: Request, error: Exception) -> Response:
    assert isinstance(error, AccountError)
    return _sentence(request, 400, N_("This cannot be done"), error.sentence)


async def _away(request: Request, error: Exception) -> Response:
    logger.warning("%s", error)
    return _sentence(
        request,
        503,
        N_("The database does not answer"),
        N_(
            "Orders are being checked as ever, and nothing is lost. Decisions can be made again as soon as it is back; "
            "this page looks for it by itself."
        ),
        again=True,
    )


async def _unclear(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if not _asks_for_data(request):
        return _sentence(request, 400, N_("This cannot be done"), work.UNCLEAR)
    # where and what, never what was sent: it may be somebody's
    said = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"error": say(tongue(request), work.UNCLEAR), "detail": said}, 422)


async def _bug(request: Request, error: Exception) -> Response:
    # the server logs it with its traceback
    del error
    text = N_("That is a mistake of ours, and nothing was done. Please try again; if it stays so, tell an administrator.")
    return _sentence(request, 500, N_("Something went wrong"), text)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _sentence(request, 404, N_("Not found"), work.MISSING)
    return _sentence(request, error.status_code, N_("This cannot be done"), work.UNCLEAR)
