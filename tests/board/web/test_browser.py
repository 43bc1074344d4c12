"""In a real Chromium, on a phone and at a desk: what a supervisor does all day, and what can go wrong meanwhile.

SHOTS=1 keeps the screenshots that docs/board.md shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from orderstream.board import store
from orderstream.settings import Settings
from tests.board.core.records import place, signal, verdict
from tests.board.web.behind import rejected, rejection, stuck
from tests.board.web.conftest import KEY, PASSWORD, Board, running
from tests.postgres import server

SHOTS = Path(__file__).parents[3] / "docs" / "board"
Browse = Callable[..., BrowserContext]
SHIP = {
    "name": "赵桂英", "phone": "13910000124", "country": "CN", "province": "山东省", "city": "青岛市", "district": "市南区",
    "detail": "和平街124号17幢", "postcode": "266001", "lat": 36.09, "lon": 120.39,
}  # fmt: skip
BUYER = {"id": "u-000124", "ip": "101.162.164.162", "phone": "13910000124", "registered_at": 1_775_790_964_828}
LINE = {
    "id": "1",
    "code": "mini-102",
    "quantity": 1,
    "price": 19_900,
    "title": "多功能收纳架",
    "spec": {"颜色": "胡桃木色"},
    "sku": "SKU2",
}


def shot(page: Page, name: str) -> None:
    """Keeps what the page looks like now, where asked for."""
    if os.environ.get("SHOTS"):
        path = SHOTS / f"{name}.png"
        page.screenshot(path=path)
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def burst(board: Board, size: int = 6) -> list[str]:
    """One incident: a script's orders from one IP segment, and two that have nothing to do with it."""
    names = [f"A{number:04}" for number in range(size)]
    now = store.now()
    for number, name in enumerate(names):
        others = [other for other in names if other != name]
        found = {**signal("ip-segment-burst", *others, by="segment"), "level": "medium"}
        found["evidence"] |= {"value": size, "limit": 3}
        said = verdict(name, 1, found, at=now - 90_000 + 1000 * number, total=19_900)
        said[1]["rules"] += [
            {"id": "hs-code", "state": "not_available", "evidence": None},
            {"id": "price-deviation", "state": "silent", "evidence": None},
        ]
        order = {"total": 19_900, "lines": [LINE], "buyer": BUYER, "ship_to": SHIP, "ship_by": now + (3 + number) * 3_600_000}
        board.feed(said, place(said[1]["verdict"], name, 1, created_at=now - 90_000, **order), now=now)
    for name, rule in (("B0001", "duplicate-order"), ("C0001", "platform-hold")):
        said = verdict(name, 1, signal(rule), at=now - 60_000)
        board.feed(said, place(said[1]["verdict"], name, 1, ship_by=now + 7_200_000, ship_to=SHIP, lines=[LINE]), now=now)
    return names


def tap(page: Page, size: str, where: Any) -> None:
    """As one does there: with a thumb, or with the mouse."""
    (where.tap if size == "phone" else where.click)()


def findings(page: Page) -> list[Any]:
    """What axe finds: the rule, and where first."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in found]


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_a_burst_is_decided_as_one_case_and_single_ones_out(board: Board, browse: Browse, size: str):
    """From the wall to the case, one order taken out, the rest cancelled at once, and taken back within the minute."""
    names = burst(board)
    page = browse(board, board.person("lin", "supervisor"), size).new_page()
    page.goto(board.url)
    card = page.locator(".card", has_text="IP 段集中抢购")
    expect(card).to_contain_text("6 单")
    expect(card).to_contain_text("¥1,194.00")
    shot(page, f"wall-{size}")
    tap(page, size, card.locator("h2 a"))
    expect(page.locator("#case tbody tr")).to_have_count(6)
    shot(page, f"case-{size}")
    page.get_by_label(f"订单 {names[2]}").uncheck()
    expect(page.locator("[data-chosen]")).to_have_text("5")
    tap(page, size, page.get_by_label("取消订单", exact=False).first)
    page.locator("#reason-cancel").select_option("fraud")
    expect(page.locator("#reason-release")).to_be_hidden()
    tap(page, size, page.get_by_role("button", name="确定"))

    bar = page.locator(".undo")
    expect(bar).to_contain_text("取消订单: 5 单")
    expect(page.locator(".card", has_text="IP 段集中抢购")).not_to_contain_text("6 单")
    shot(page, f"undo-{size}")
    states = {row["order_id"]: row["state"] for row in board.db.execute("SELECT order_id, state FROM board.orders")}
    assert [states[f"api:main:{name}"] for name in names] == ["decided"] * 2 + ["waiting"] + ["decided"] * 3
    assert board.db.execute("SELECT count(*) AS n FROM board.outbox WHERE value->>'outcome' = 'cancelled'").fetchone() == {"n": 5}

    tap(page, size, bar.get_by_role("button"))
    expect(page.locator(".card", has_text="IP 段集中抢购")).to_contain_text("6 单")
    expect(page.locator(".undo")).to_have_count(0)


def test_a_new_signal_comes_up_without_a_reload(board: Board, browse: Browse):
    """On the wall and on an order's page, while a half-made decision stays as it was."""
    burst(board, 2)
    cookie = board.person("lin", "supervisor")
    wall, order = (browse(board, cookie).new_page() for _ in range(2))
    wall.goto(board.url)
    order.goto(f"{board.url}/orders/api:main:B0001")
    order.get_by_label("放行", exact=False).first.check()
    order.locator("#note").fill("客户来电")
    expect(wall.locator(".card", has_text="多账号共用支付账户")).to_have_count(0)
    said = verdict("D0001", 1, signal("payment-shared"))
    board.feed(
        said,
        place("frozen", "D0001", 1),
        verdict("B0001", 2, signal("duplicate-order"), signal("platform-hold")),
        now=store.now(),
    )

    expect(wall.locator(".card", has_text="多账号共用支付账户")).to_have_count(1)
    expect(order.locator("#order .fired strong", has_text="平台要求暂不发货")).to_have_count(1)
    expect(order.locator("#note")).to_have_value("客户来电")
    # what was on the page when it was made is what is decided on: it asks again
    order.get_by_role("button", name="确定").click()
    expect(order.get_by_role("alert")).to_contain_text("又有新的信号")


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_two_at_once_one_wins_and_the_other_is_told(board: Board, browse: Browse, size: str):
    """Both have the order open; the second one reads who was first and what they did."""
    burst(board, 2)
    pages = [browse(board, board.person(login, "supervisor"), size).new_page() for login in ("lin", "wang")]
    for page in pages:
        page.goto(f"{board.url}/orders/api:main:B0001")
        page.get_by_label("放行", exact=False).first.check()
        page.locator("#reason-release").select_option("known-customer")
    for page in pages:
        tap(page, size, page.get_by_role("button", name="确定"))
    expect(pages[0].locator(".undo")).to_contain_text("放行: 1 单")
    expect(pages[1].get_by_role("alert")).to_contain_text("lin 已先处理：放行")
    shot(pages[1], f"second-{size}")
    assert board.db.execute("SELECT count(*) AS n FROM board.outbox").fetchone() == {"n": 1}


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_a_freeze_is_asked_by_one_and_approved_by_another(board: Board, browse: Browse, size: str):
    """The asker's page has no button; the approver's has; the decision goes out once."""
    burst(board, 2)
    asker = browse(board, board.person("lin", "reviewer"), size).new_page()
    asker.goto(f"{board.url}/orders/api:main:C0001")
    expect(asker.locator("#decide")).to_contain_text("放行须由申请人以外的审批人同意")
    asker.get_by_label("放行", exact=False).first.check()
    asker.locator("#reason-release").select_option("customer-confirmed")
    tap(asker, size, asker.get_by_role("button", name="确定"))
    expect(asker.locator(".undo")).to_contain_text("等待审批")
    asker.goto(f"{board.url}/approvals")
    expect(asker.get_by_role("button", name="同意", exact=True)).to_have_count(0)

    boss = browse(board, board.person("boss", "approver"), size).new_page()
    boss.goto(f"{board.url}/approvals")
    expect(boss.locator("article")).to_contain_text("lin 申请：放行")
    shot(boss, f"approvals-{size}")
    tap(boss, size, boss.get_by_role("button", name="同意", exact=True))
    expect(boss.locator("article")).to_have_count(0)
    said = board.db.execute("SELECT value->>'outcome' AS said FROM board.outbox").fetchall()
    assert said == [{"said": "released"}]
    # and whoever asked sees it go, without asking
    expect(asker.locator("article")).to_have_count(0)


def test_a_desk_is_worked_by_keyboard(board: Board, browse: Browse):
    """From signing in to a decision without touching the mouse."""
    burst(board, 3)
    board.person("lin", "supervisor")
    page = browse(board).new_page()
    page.goto(board.url)
    page.keyboard.type("lin")
    page.locator("#login").fill("lin")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator("body[data-ready]")).to_have_count(1)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("B0001")
    expect(page.locator(".card")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator(".card h2 a")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders/**")
    expect(page.locator("body[data-ready]")).to_have_count(1)
    page.keyboard.press("1")
    expect(page.get_by_label("放行", exact=False).first).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator(".undo")).to_contain_text("放行: 1 单")
    expect(page.locator("body[data-ready]")).to_have_count(1)
    page.keyboard.press("u")
    expect(page.locator(".undo")).to_have_count(0)
    assert board.db.execute("SELECT state FROM board.orders WHERE order_id = 'api:main:B0001'").fetchone() == {"state": "waiting"}


@pytest.mark.parametrize(("size", "scheme", "language"), [("phone", "dark", "zh"), ("desk", "light", "en")])
def test_every_page_is_accessible(board: Board, browse: Browse, size: str, scheme: str, language: str):
    """Axe finds nothing on any page, light and dark, in both languages; no page is wider than a phone."""
    burst(board)
    stuck(board, "A0001")
    rejected(board, rejection("R1", {"total": "many"}), rejection("R2", {"total": "more"}, "bad-time"))
    context = browse(board, board.person("all", "supervisor", "approver", "admin", language=language), size, color_scheme=scheme)
    page = context.new_page()
    case = board.db.execute("SELECT case_id FROM board.cases WHERE orders > 1").fetchone()["case_id"]
    board.post(
        board.client(context.cookies()[0]["value"]),
        "/decide",
        orders="api:main:C0001|1",
        decision="release",
        **{"reason-release": "checked"},
    )
    told: dict[str, Any] = {}
    for path in (
        "/", f"/cases/{case}", "/orders/api:main:A0001", "/approvals", "/rejected", "/audit", "/deputies", "/people", "/me",
        "/states/correction", "/downstream", "/figures", "/trust", "/profiles", "/nowhere",
    ):  # fmt: skip
        page.goto(board.url + path)
        for part in page.locator("details").all():
            part.evaluate("one => one.open = true")
        told[path] = findings(page)
        if path in ("/rejected", "/downstream"):
            shot(page, f"{path[1:]}-{size}")
        if not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"):
            told[path].append("wider than the window")
    outside = browse(board, None, size, color_scheme=scheme).new_page()
    outside.goto(board.url)
    told["sign-in"] = findings(outside)
    assert {path: found for path, found in told.items() if found} == {}
    page.goto(f"{board.url}/orders/api:main:A0001")
    shot(page, f"order-{size}")


def test_what_is_stuck_is_settled_with_a_thumb(board: Board, browse: Browse):
    """From the wall, which says that something is stuck, to what is wrong with the parcel, and off the page with how it was dealt with."""
    burst(board, 2)
    stuck(board, "A0001")
    page = browse(board, board.person("lin", "desk"), "phone").new_page()
    page.goto(board.url)
    page.get_by_role("link", name="1 单放行后卡住").tap()
    row = page.locator("tbody tr", has_text="规格装错")
    expect(row).to_contain_text("应为 RED")
    row.locator("summary").tap()
    row.get_by_label("方式").fill("承运商已拦截")
    row.get_by_role("button", name="已处理").tap()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.goto(f"{board.url}/orders/api:main:A0001")
    expect(page.locator("ol.line")).to_contain_text("承运商已拦截")


def test_without_scripts_it_still_works(board: Board, browse: Browse):
    """Links and forms alone: filter, open, decide, take back."""
    burst(board, 2)
    page = browse(board, board.person("lin", "supervisor"), java_script_enabled=False).new_page()
    page.goto(f"{board.url}/?level=high")
    expect(page.locator(".card")).to_have_count(1)
    page.goto(board.url + "/orders/api:main:B0001")
    page.locator('input[name="decision"][value="release"]').check()
    page.get_by_role("button", name="确定").click()
    page.locator(".undo button").click()
    expect(page.locator(".undo")).to_have_count(0)
    expect(page.locator(".card", has_text="B0001")).to_have_count(1)


def test_postgresql_stopped_and_back(browse: Browse):
    """The open page says so and keeps what was typed; another page says so too; when it is back both go on by themselves."""
    with server() as postgres:
        store.migrate(postgres.url)
        settings = Settings.load(database=postgres.url, key=KEY)
        with running(settings) as (url, app):
            with store.connect(postgres.url) as db:
                board = Board(url, db, app)
                burst(board, 2)
                window = browse(board, board.person("lin", "supervisor"))
            page, other = window.new_page(), window.new_page()
            page.goto(f"{url}/orders/api:main:B0001")
            page.locator("#note").fill("客户来电")
            expect(page.locator(".away")).to_be_hidden()
            postgres.stop()
            expect(page.locator(".away")).to_be_visible()
            other.goto(url)
            expect(other.locator("h1")).to_have_text("数据库没有响应")
            shot(page, "away-desk")

            postgres.start()
            expect(page.locator(".away")).to_be_hidden()
            expect(page.locator("#note")).to_have_value("客户来电")
            expect(other.locator(".card")).to_have_count(3)
            page.get_by_label("放行", exact=False).first.check()
            page.get_by_role("button", name="确定").click()
            expect(page.locator(".undo")).to_contain_text("放行: 1 单")


def test_a_link_from_the_console_is_all_that_a_newcomer_needs(board: Board, browse: Browse):
    """The one-time link, a password, the wall: on a phone."""
    from orderstream.board.web import accounts

    burst(board, 2)
    link = accounts.invite(board.db, "new", store.now(), "test", name="新主管", roles=["supervisor"])
    page = browse(board, None, "phone").new_page()
    page.goto(f"{board.url}/welcome/{link}")
    page.get_by_label("密码").fill(PASSWORD)
    page.get_by_label("再输一次").fill(PASSWORD)
    page.get_by_role("button", name="进入").tap()
    expect(page.locator(".card")).to_have_count(3)
    page.goto(f"{board.url}/welcome/{link}")
    expect(page.locator("main")).to_contain_text(re.compile("已用过"))
