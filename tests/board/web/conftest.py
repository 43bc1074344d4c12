"""A board of one's own: a real PostgreSQL, the real application on a port, people who are signed in, a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from orderstream.board import store
from orderstream.board.store import Db
from orderstream.board.web import accounts
from orderstream.board.web.app import create_app
from orderstream.board.web.site import COOKIE
from orderstream.settings import Settings
from tests.board.core.records import Feed
from tests.conftest import KEY

PASSWORD = "correct horse battery"
SIZES = {"phone": (390, 844), "desk": (1280, 900)}


class Board:
    """One running board. url: where; db: straight into its database; feed: what the stream says."""

    def __init__(self, url: str, db: Db, app: Any) -> None:
        self.url, self.db, self.app = url, db, app
        self.feed = Feed(db)
        self._hash = accounts.digest(PASSWORD)

    def person(self, login: str, *roles: str, shops: tuple[str, ...] = (), language: str = "zh") -> str:
        """Makes somebody with PASSWORD, and signs them in; their cookie."""
        now = store.now()
        accounts.invite(self.db, login, now, "test", roles=roles, shops=shops)
        self.db.execute("UPDATE board.people SET hash = %s, language = %s WHERE login = %s", (self._hash, language, login))
        person = accounts.sign_in(self.db, login, PASSWORD, "test", now)
        assert isinstance(person, accounts.Person)
        return accounts.open_session(self.db, person, "password", now)

    def client(self, cookie: str | None = None) -> httpx.Client:
        """A browser without a screen."""
        cookies = {} if cookie is None else {COOKIE: cookie}
        return httpx.Client(base_url=self.url, cookies=cookies, trust_env=False, headers={"origin": self.url}, timeout=30)

    def post(self, client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
        """A form of ours, with the guard of whoever is signed in."""
        cookie = client.cookies.get(COOKIE)
        return client.post(path, data={"guard": accounts.guard(cookie) if cookie else "", **fields})


@contextmanager
def running(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The application on a free port, in a thread: its address."""
    pool = store.pool(store.url(settings), 8)
    app = create_app(settings, pool)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the board ended by itself"
        assert time.monotonic() < deadline, "the board did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        thread.join(15)
        pool.close()


@pytest.fixture
def board(database: str) -> Iterator[Board]:
    """A board with nothing on it and nobody in it."""
    settings = Settings.load(database=database, key=KEY)
    with running(settings) as (url, app), store.connect(database) as db:
        yield Board(url, db, app)


@contextmanager
def chrome() -> Iterator[Browser]:
    """Debian's Chromium. While it is open its driver's loop runs in this thread: nothing else may run one."""
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser a module."""
    with chrome() as browser:
        yield browser


@pytest.fixture
def browse(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """`browse(board, cookie, size)`: a window of somebody's; what its pages log as an error fails the test."""
    opened: list[BrowserContext] = []
    errors: list[str] = []

    def window(board: Board, cookie: str | None = None, size: str = "desk", **more: Any) -> BrowserContext:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            has_touch=size == "phone",
            is_mobile=size == "phone",
            locale="zh-CN",
            **more,
        )
        if cookie is not None:
            context.add_cookies([{"name": COOKIE, "value": cookie, "url": board.url}])
        context.set_default_timeout(60_000)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        opened.append(context)
        return context

    yield window
    for context in opened:
        context.close()
    assert errors == []
