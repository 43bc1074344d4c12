"""The customer's page in a real Chromium, at a phone's size: read, reachable by thumb, clean by axe."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from orderstream.board import store
from tests.actions.rig import Feed, link, oid, order, outcomes, people, signal, site

CHROMIUM = "/usr/bin/chromium"
SHOTS = Path(__file__).parents[2] / "docs" / "actions"
"""Kept beside the page that shows them; SHOTS=1 writes them anew."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is missing: apt-get install chromium")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def address(database: str, tmp_path: Path) -> Iterator[str]:
    """The pages on a loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    pool = store.pool(database, 2)
    server = uvicorn.Server(uvicorn.Config(site(pool, tmp_path, links_url=base), ws="none", log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield base
    server.should_exit = True
    thread.join(20)
    pool.close()


def clean(page: Any) -> None:
    """No finding of axe, and nothing to push sideways."""
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_customer_answers_by_thumb(browser: Browser, address: str, database: str, scheme: Any) -> None:
    """The link opened, the orders seen, the language changed and changed back, `only one` chosen; the link is then used up. The
    pages for people of the shop are clean too.
    """
    with store.connect(database) as db:
        people(db, wang=["supervisor"])
        feed = Feed(db)
        order(feed, "A0")
        order(feed, "A1", signal("duplicate-order", "A0"))
        token, theirs = link(db, oid("A1"), "confirm"), link(db, oid("A1"), "release", "wang")
        context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, locale="zh-CN", has_touch=True)
        page = context.new_page()
        page.goto(f"{address}/c/{token}")
        assert page.get_by_role("heading", level=1).inner_text() == "请确认您的订单"
        clean(page)
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            assert box["width"] >= 300
        if scheme == "light" and os.environ.get("SHOTS"):
            SHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SHOTS / "customer.png", full_page=True)
        page.get_by_role("link", name="English").tap()
        page.get_by_role("button", name="Yes, both").wait_for()
        clean(page)
        page.get_by_role("link", name="中文").tap()
        page.get_by_role("button", name="只要一单").tap()
        assert "留哪一单" in page.get_by_role("status").inner_text()
        clean(page)
        assert [o["outcome"] for o in outcomes(db)] == ["customer-single"]
        page.goto(f"{address}/c/{token}")
        assert "已经用过" in page.get_by_role("status").inner_text()
        page.goto(f"{address}/d/{theirs}")
        clean(page)
        page.get_by_label("已核实无误").check()
        page.get_by_role("button", name="放行").tap()
        assert "已放行" in page.get_by_role("status").inner_text()
        context.close()
