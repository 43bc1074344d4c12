"""Pages without a screen: what they show, what they refuse, what they write down."""

from __future__ import annotations

import re

import pytest

from orderstream.board import store
from orderstream.board.web.site import COOKIE
from tests.board.core.records import T, outcome, signal, verdict
from tests.board.web.conftest import Board

SHIP = {
    "name": "赵桂英",
    "phone": "13910000124",
    "province": "山东省",
    "city": "青岛市",
    "detail": "和平街124号",
    "lat": 36.09,
    "lon": 120.39,
}
BUYER = {"id": "u-000124", "ip": "101.162.164.162", "phone": "13910000124"}


def test_the_wall_is_sorted_filtered_and_searched(board: Board):
    """By urgency first; each filter and the search keep what they say; one that cannot be read asks for nothing."""
    board.feed.waiting("A1", signal("duplicate-order"), total=10_000, ship_by=T + 9_000_000)
    board.feed.waiting("B2", signal("platform-hold"), total=90_000, ship_by=T + 1_000_000)
    board.feed.waiting(
        "C3", signal("unknown-article"), total=50_000, lines=[{"id": "1", "code": "tb-777", "quantity": 1, "price": 50_000}]
    )
    client = board.client(board.person("a", "supervisor"))

    def cards(**query: str) -> list[str]:
        text = client.get("/", params=query).text.partition('id="cards"')[2]
        return re.findall(r"<span>([ABC]\d)</span>", text)

    assert cards() == ["B2", "C3", "A1"] or cards()[0] == "B2"
    assert cards(level="high") == ["B2"]
    assert cards(rule="duplicate-order") == ["A1"]
    assert set(cards(least="500")) == {"B2", "C3"}
    assert set(cards(channel="api")) == {"A1", "B2", "C3"}
    assert cards(channel="jd") == []
    assert cards(q="tb-777") == ["C3"]
    assert cards(q="A1") == ["A1"]
    assert cards(q="13800000000") == []
    assert cards(older="9999") == []
    assert len(cards(least="many", older="x", sort="?", page="-1")) == 3


def test_an_order_s_page_tells_what_each_rule_saw(board: Board):
    """In the reader's language, with the other orders linked, and what could not judge named as such."""
    board.feed.waiting("A0", signal("duplicate-order"), buyer=BUYER, ship_to=SHIP)
    board.feed.waiting("A1", signal("duplicate-order", "A0"), buyer=BUYER, ship_to=SHIP)
    board.feed(
        verdict("A1", 2, signal("duplicate-order", "A0"), rules=[
            {"id": "duplicate-order", "state": "fired", "evidence": signal("duplicate-order", "A0")["evidence"]},
            {"id": "hs-code", "state": "not_available", "evidence": None},
            {"id": "oversold", "state": "silent", "evidence": None},
        ])
    )  # fmt: skip
    client = board.client(board.person("a", "reviewer"))
    page = client.get("/orders/api:main:A1").text
    for wanted in (
        "疑似重复下单",
        "同一用户、同一设备或同一人 5 分钟内下了 2 单相同商品",
        'href="/orders/api:main:A0"',
        "无法判断",
        "既不算通过",
        'svg class="map"',
    ):
        assert wanted in page, wanted
    english = board.client(board.person("b", "reviewer", language="en")).get("/orders/api:main:A1").text
    assert "could not judge" in english
    assert "Suspected double order" in english
    # the customer's own words may be Chinese; ours are not
    ours = re.sub(r"(?s)<dd>.*?</dd>|<p>收纳架.*?</p>|lang=\"zh-CN\">中文", "", english)
    assert re.findall(r"[一-龥]+", ours) == []


def test_personal_data_is_masked_and_looking_is_written_down(board: Board):
    """Nowhere on wall or page until asked for; asking is an audit row and a line in the order's time line, before it is shown."""
    board.feed.waiting("A1", buyer=BUYER, ship_to=SHIP, remark="打 13910000124")
    client = board.client(board.person("a", "desk"))
    personal = ("赵桂英", "13910000124", "124号", "101.162.164.162", "u-000124")
    for path in (
        "/",
        "/orders/api:main:A1",
        "/cases/" + board.db.execute("SELECT case_id FROM board.cases").fetchone()["case_id"],
    ):
        text = client.get(path, follow_redirects=True).text
        assert [mark for mark in personal if mark in text] == [], path
    assert "139****0124" in client.get("/orders/api:main:A1").text

    shown = board.post(client, "/unmask", order_id="api:main:A1").text
    assert [mark for mark in personal if mark not in shown] == []
    row = board.db.execute("SELECT by, what, body FROM board.audit WHERE what = 'unmask'").fetchone()
    assert row == {"by": "a", "what": "unmask", "body": {"order": "api:main:A1"}}
    assert [event.kind for event in store.timeline(board.db, "api:main:A1")][-1] == "unmask"
    assert "13910000124" not in client.get("/orders/api:main:A1").text

    analyst = board.client(board.person("b", "analyst"))
    assert board.post(analyst, "/unmask", order_id="api:main:A1").status_code == 403
    assert "139****" not in analyst.get("/orders/api:main:A1").text
    audited = str(board.db.execute("SELECT * FROM board.audit").fetchall()) + str(
        board.db.execute("SELECT * FROM board.events").fetchall()
    )
    assert [mark for mark in personal if mark in audited] == []


def test_deciding_needs_a_reason_and_can_be_taken_back(board: Board):
    """Without one nothing happens; what was decided has an undo bar with its number of orders, for a minute."""
    board.feed.waiting("A1")
    client = board.client(board.person("a", "supervisor"))
    none = board.post(client, "/decide", orders="api:main:A1|1", decision="release", **{"reason-release": ""})
    other = board.post(client, "/decide", orders="api:main:A1|1", decision="release", **{"reason-release": "other"})
    assert (none.status_code, other.status_code) == (403, 403)
    assert "备注" in other.text

    done = board.post(client, "/decide", orders="api:main:A1|1", decision="release", **{"reason-release": "false-alarm"})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    wall = client.get("/").text
    bulk = re.search(r'name="bulk" value="([0-9a-f-]+)"', wall)
    assert bulk is not None
    assert "A1" not in wall.partition('id="cards"')[2]
    assert board.post(client, "/undo", bulk=bulk[1]).status_code == 303
    wall = client.get("/").text
    assert "A1" in wall.partition('id="cards"')[2]
    assert 'name="bulk"' not in wall
    said = board.db.execute("SELECT value->>'outcome' AS said FROM board.outbox ORDER BY id").fetchall()
    assert [row["said"] for row in said] == ["released", "undone"]


def test_whoever_is_second_or_has_not_seen_the_newest_is_told(board: Board):
    """Two people at once: one wins, the other reads who and what. A new signal since: asked again, nothing done."""
    board.feed.waiting("A1")
    board.feed.waiting("A2")
    one, two = (board.client(board.person(login, "supervisor")) for login in ("first", "second"))
    both = {"orders": ["api:main:A1|1", "api:main:A2|1"], "decision": "release", "reason-release": "checked"}
    assert board.post(one, "/decide", **{**both, "orders": "api:main:A1|1"}).status_code == 303
    told = board.post(two, "/decide", **{**both, "decision": "cancel", "reason-cancel": "fraud"})
    assert told.status_code == 409
    assert "first 已先处理：放行" in told.text
    states = {row["order_id"]: row["state"] for row in board.db.execute("SELECT order_id, state FROM board.orders")}
    assert states == {"api:main:A1": "decided", "api:main:A2": "decided"}

    board.feed.waiting("A3")
    board.feed(verdict("A3", 2, signal("duplicate-order"), signal("platform-hold")))
    again = board.post(two, "/decide", orders="api:main:A3|1", decision="release", **{"reason-release": "checked"})
    assert again.status_code == 409
    assert "又有新的信号" in again.text
    assert "平台要求暂不发货" in again.text


def test_frozen_is_released_by_another(board: Board):
    """Who asks cannot approve; an approver can; then it is on its way."""
    board.feed.waiting("F1", signal("platform-hold"))
    asker, boss = (
        board.client(board.person(login, *roles)) for login, roles in (("asks", ("approver",)), ("boss", ("approver",)))
    )
    assert (
        board.post(
            asker, "/decide", orders="api:main:F1|1", decision="release", **{"reason-release": "known-customer"}
        ).status_code
        == 303
    )
    number = re.search(r'id="asked-([0-9a-f-]+)"', boss.get("/approvals").text)
    assert number is not None
    assert "须由另一位审批人同意" in asker.get("/approvals").text
    assert board.post(asker, "/approve", decision=number[1], yes="1").status_code == 403
    assert board.db.execute("SELECT count(*) AS n FROM board.outbox").fetchone() == {"n": 0}
    assert board.post(boss, "/approve", decision=number[1], yes="1").status_code == 303
    row = board.db.execute("SELECT value FROM board.outbox").fetchone()
    assert (row["value"]["outcome"], row["value"]["by"]) == ("released", "asks")


def test_a_case_leads_on_and_a_missing_one_says_so(board: Board):
    """A case of one order is that order; an address of nothing is a page with a sentence, as is one of another's order number."""
    board.feed.waiting("A1", signal("user-burst", "A2"))
    board.feed.waiting("A2", signal("user-burst", "A1"))
    board.feed.waiting("#1001/x y")
    client = board.client(board.person("a", "supervisor"))
    ids = {row["key"]: row["case_id"] for row in board.db.execute("SELECT case_id, key FROM board.cases")}
    page = client.get(f"/cases/{ids['api:main:A1']}").text
    assert page.count('name="orders"') == 2
    single = client.get(f"/cases/{ids['api:main:#1001/x y']}")
    assert single.headers["location"] == "/orders/api:main:%231001%2Fx%20y"
    assert client.get(single.headers["location"]).status_code == 200
    assert client.get("/cases/c-none").status_code == 404
    assert client.get("/orders/api:main:none").status_code == 404
    assert client.get("/nowhere").status_code == 404


def test_headers_keep_pages_to_themselves(board: Board):
    """On every answer; pages are kept nowhere, assets for ever under the name of their bytes."""
    client = board.client(board.person("a", "desk"))
    page = client.get("/")
    for path in ("/", "/sign-in", "/nowhere", "/api/v1/cases"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        answer = client.get(asset)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert client.get("/static/..%2Fapp.py").status_code == 404
    assert board.client("x" * 40).get("/").headers["location"] == "/sign-in"
    assert COOKIE not in board.client().get("/sign-in").headers.get("set-cookie", "")


@pytest.mark.parametrize("path", ["/states/correction", "/states/after-sales", "/states/asking"])
def test_what_was_put_aside_is_found_again(board: Board, path: str):
    """Each state has its list, with what the customer answered."""
    decision = {"/states/correction": "correction", "/states/after-sales": "after-sales", "/states/asking": "confirm"}[path]
    reason = {"correction": "address", "after-sales": "exchange", "confirm": "duplicate"}[decision]
    board.feed.waiting("A1")
    client = board.client(board.person("a", "supervisor"))
    assert "A1" not in client.get(path).text
    board.post(client, "/decide", orders="api:main:A1|1", decision=decision, **{f"reason-{decision}": reason})
    assert "A1" in client.get(path).text


def test_what_happened_outside_stands_in_the_time_line(board: Board):
    """A complaint that came from outside is told on the order's page."""
    board.feed.waiting("A1")
    board.feed(outcome("A1", "complaint", by="erp"))
    assert "投诉" in board.client(board.person("a", "desk")).get("/orders/api:main:A1").text
