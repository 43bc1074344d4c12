"""Links: the public pages behind signed addresses. `orderstream actions` serves them; ORDERSTREAM_LINKS_URL is where they are found.

Law: a GET shows and never acts, since mail servers and messengers open every link they see. A POST acts once, in one transaction
with noting that it did. An address names nobody, no page is kept by a browser or a proxy, and none is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from orderstream import times
from orderstream.actions import deciding, known, meeting, pages
from orderstream.actions.deciding import ANSWERS, Answer, Bad
from orderstream.actions.known import Known
from orderstream.actions.receivers import Language, Receivers, public_url
from orderstream.actions.tokens import Link, Signer
from orderstream.board import store
from orderstream.board.decide import REASONS, Terms
from orderstream.board.store import Db, Pool, answering
from orderstream.board.web.limits import Limit
from orderstream.board.web.words import Words
from orderstream.errors import NoDatabase
from orderstream.metrics import Metrics
from orderstream.money import major
from orderstream.settings import Settings

log = logging.getLogger("orderstream.actions.links")

LARGEST = 65_536
"""Bytes of a form."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
}
_ENDS = {"done", "asked", "approved", "more", "refused-it"}


def create_app(
    settings: Settings,
    pool: Pool,
    file: Callable[[], Receivers],
    metrics: Metrics,
    terms: Terms | None = None,
    limits: tuple[Limit, Limit] | None = None,
) -> FastAPI:
    """The pages. file: the receivers' file as it stands now; terms: what a decision needs, as the board has it.

    limits: of one client's pages, and of those that were no link of ours.
    """
    app = FastAPI(title="orderstream links", docs_url=None, redoc_url=None, openapi_url=None)
    # a person opens a few pages; who asks for hundreds is looking for numbers that are right
    pages_ = _Pages(settings, pool, file, metrics, terms or Terms(), *(limits or (Limit(1.0, 30), Limit(0.1, 10))))
    app.add_api_route("/healthz", pages_.health, methods=["GET"])
    app.add_api_route("/style.css", pages_.style, methods=["GET"])
    for letter, page, act in (
        ("c", pages_.customer, pages_.answer),
        ("d", pages_.decision, pages_.decide),
        ("m", pages_.record, pages_.fill),
    ):
        app.add_api_route(f"/{letter}/{{token}}", pages_.shows(page), methods=["GET"])
        app.add_api_route(f"/{letter}/{{token}}", pages_.acts(act), methods=["POST"])

    @app.middleware("http")
    async def sealed(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = await call_next(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    return app


class _Pages:
    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        file: Callable[[], Receivers],
        metrics: Metrics,
        terms: Terms,
        asked: Limit,
        missed: Limit,
    ) -> None:
        self._settings, self._pool, self._file, self._metrics, self._terms = settings, pool, file, metrics, terms
        self._signer = Signer(settings.hash_key())
        self._words = Words()
        self._env = pages.environment()
        self._base = public_url(settings)
        self._asked, self._missed = asked, missed
        self._css = (pages.HERE / "static" / "style.css").read_text("utf-8")

    def health(self) -> PlainTextResponse:
        return PlainTextResponse("ok")

    def style(self) -> Response:
        return Response(self._css, media_type="text/css", headers={"Cache-Control": "public, max-age=3600"})

    # -- what all pages share --------------------------------------------------------------------------------------------

    def shows(self, page: Callable[[Request, str, Language], Response]) -> Callable[..., Awaitable[Response]]:
        async def get(request: Request, token: str) -> Response:
            return await run_in_threadpool(self._guarded, request, _language(request, None), token, page)

        return get

    def acts(self, act: Callable[[Request, str, Language, FormData], Response]) -> Callable[..., Awaitable[Response]]:
        async def post(request: Request, token: str) -> Response:
            if int(request.headers.get("content-length") or LARGEST + 1) > LARGEST:
                return PlainTextResponse("too large", 413)
            form = await request.form(max_files=0, max_fields=20)
            language = _language(request, form)
            return await run_in_threadpool(
                self._guarded, request, language, token, lambda asked, given, spoken: act(asked, given, spoken, form)
            )

        return post

    def _guarded(
        self, request: Request, language: Language, token: str, page: Callable[[Request, str, Language], Response]
    ) -> Response:
        """A page, or the sentence that says why there is none."""
        who = request.client.host if request.client else "-"
        if not self._asked.take(who):
            self._count("busy")
            return self._said(language, "busy", 429)
        try:
            return page(request, token, language)
        except Bad as bad:
            self._count(bad.code)
            if bad.code == "unknown" and not self._missed.take(who):
                return self._said(language, "busy", 429)
            return self._said(language, bad.code, {"unknown": 404, "expired": 410, "used": 410}[bad.code], bad.more.get("answer"))
        except NoDatabase as error:
            log.warning("%s", error.sentence)
            self._count("away")
            return self._said(language, "away", 503)

    def _count(self, outcome: str) -> None:
        self._metrics.links.labels(outcome).inc()

    @contextmanager
    def _db(self) -> Iterator[Db]:
        with answering(), self._pool.connection() as db:
            yield db

    def _page(self, name: str, language: Language, status: int = 200, **values: object) -> Response:
        values = {"base": self._base, "heading": "orderstream", "error": "", **values}
        return HTMLResponse(pages.render(self._env, name, language, **values), status)

    def _said(self, language: Language, code: str, status: int = 200, answer: str | None = None, heading: str = "") -> Response:
        beside = ""
        if code == "used" and answer in ANSWERS:
            beside = pages.say(language, "answered-before") + " " + pages.say(language, answer)
        title = pages.say(language, "sorry" if status >= 400 else "done-title")
        headers: dict[str, object] = {"heading": heading or "orderstream"}
        answered = self._page("said", language, status, title=title, text=pages.say(language, code), beside=beside, **headers)
        if status in (429, 503):
            answered.headers["Retry-After"] = "60"
        return answered

    # -- customers ---------------------------------------------------------------------------------------------------------

    def customer(self, request: Request, token: str, language: Language) -> Response:
        """Shows a customer their order and what they can say."""
        del request
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            order, others = self._theirs(db, link)
        self._count("shown")
        return self._asking(language, order, others)

    def answer(self, request: Request, token: str, language: Language, form: FormData) -> Response:
        """Takes a customer's answer."""
        del request
        said = form.get("answer")
        chosen: Answer | None = next((one for one in ANSWERS if one == said), None)
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            order, others = self._theirs(db, link)
            if chosen is None or (chosen == "customer-single" and not others):
                return self._asking(language, order, others, pages.say(language, "missing"), 422)
            deciding.answered(db, self._signer, token, chosen, [one.order_id for one in others], store.now())
        self._count(chosen)
        return self._said(language, chosen, heading=self._file().shop(order.channel, order.shop, language))

    def _asking(self, language: Language, order: Known, others: list[Known], error: str = "", status: int = 200) -> Response:
        shop = self._file().shop(order.channel, order.shop, language)
        orders = [pages.shown(one) for one in (order, *others)]
        return self._page("customer", language, status, heading=shop, orders=orders, error=error)

    @staticmethod
    def _theirs(db: Db, link: Link) -> tuple[Known, list[Known]]:
        """The order of a link, and those beside it that are the same person's."""
        order = known.order(db, link.order_id)
        if link.what != "confirm" or order is None or order.document is None:
            raise Bad("unknown")
        names = {name for signal in order.signals for name in signal["evidence"].get("orders") or ()} - {order.order_id}
        others = [one for name in sorted(names)[:5] if (one := known.order(db, name)) is not None]
        return order, pages.partners(order, others)

    # -- people of the shop ------------------------------------------------------------------------------------------------

    def decision(self, request: Request, token: str, language: Language, error: str = "") -> Response:
        """Shows what is about to be decided."""
        del request
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            if link.what not in ("release", "cancel", "approve", "refuse"):
                raise Bad("unknown")
            order = known.order(db, link.order_id)
            if order is None:
                return self._said(language, "gone", 409)
            if deciding.changed(db, link):
                self._count("changed")
                return self._said(language, "changed", 409)
            words = self._words.of(db, language)
            signals = [
                {"title": words.title(s["rule"], order.pack), "sentence": words.sentence(s["rule"], s["evidence"], order.pack)}
                for s in order.signals
            ]
        self._count("shown")
        reasons = REASONS["release" if link.what == "release" else "cancel"] if link.what in ("release", "cancel") else ()
        return self._page(
            "decide",
            language,
            422 if error else 200,
            what=link.what,
            order=order,
            total=f"{major(order.total, order.currency)} {order.currency}",
            person=link.person,
            signals=signals,
            reasons=reasons,
            error=error,
        )

    def decide(self, request: Request, token: str, language: Language, form: FormData) -> Response:
        """Decides."""
        reason, note = str(form.get("reason") or ""), str(form.get("note") or "")[:500]
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            if link.what not in ("release", "cancel", "approve", "refuse"):
                raise Bad("unknown")
        if link.what in ("release", "cancel"):
            wanted = REASONS["release" if link.what == "release" else "cancel"]
            if reason not in wanted:
                return self.decision(request, token, language, pages.say(language, "missing"))
            if reason == "other" and not note.strip():
                return self.decision(request, token, language, pages.say(language, "note-missing"))
        with self._db() as db:
            said = deciding.decided(db, self._signer, token, reason, note, self._terms, store.now())
        self._count(said.code)
        code = f"done-{link.what}" if said.code == "done" else said.code
        return self._said(language, code, 200 if said.code in _ENDS else 409)

    # -- the meeting -------------------------------------------------------------------------------------------------------

    def record(self, request: Request, token: str, language: Language, notice: str = "") -> Response:
        """Shows the record of a meeting."""
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            found = None
            if link.what == "meeting":
                found = meeting.record(db, link.about, self._words.of(db, language), store.now())
        if found is None:
            raise Bad("unknown")
        self._count("shown")
        if request.query_params.get("as") == "md":
            name = f"meeting-{found.id[:8]}.md"
            return Response(
                meeting.markdown(found, language),
                media_type="text/markdown; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        return self._page(
            "meeting",
            language,
            record=found,
            person=link.person,
            fields=meeting.FIELDS,
            made=times.text(found.made_at),
            notice=notice,
        )

    def fill(self, request: Request, token: str, language: Language, form: FormData) -> Response:
        """Writes the record's fields down. Only somebody in person; its link may be used again until it expires."""
        with self._db() as db:
            link = deciding.find(db, self._signer, token, store.now())
            if link.what != "meeting" or link.person is None:
                raise Bad("unknown")
            said = {name: str(form.get(name) or "") for name in meeting.FIELDS}
            kept = meeting.fill(db, link.about, said, link.person, store.now(), close=form.get("close") == "yes")
        return self.record(request, token, language, pages.say(language, "saved" if kept else "closed"))


def _language(request: Request, form: FormData | None) -> Language:
    """What was chosen, else what the browser asks for first."""
    chosen = (form.get("lang") if form is not None else None) or request.query_params.get("lang")
    if chosen in ("zh", "en"):
        return "en" if chosen == "en" else "zh"
    wanted = request.headers.get("accept-language", "").strip().lower()
    return "zh" if not wanted or wanted.startswith(("zh", "*")) else "en"
