"""Behind the wall: what stands downstream is settled, what was rejected is looked at and put back, what was heard is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orderstream import kafka, times, topics
from orderstream.board import rejects, store
from orderstream.board.web import words
from orderstream.downstream import store as downstream
from orderstream.downstream.flow import WAITS
from orderstream.downstream.reconcile import SENTENCES
from orderstream.rejected import reject_id
from orderstream.settings import Settings
from tests.board.web.behind import rejected, rejection, stuck
from tests.board.web.conftest import KEY, Board, running
from tests.board.web.test_api import caller
from tests.board.web.test_line_browser import order as raw_order
from tests.stream.line import prepare


def test_what_somebody_has_dealt_with_leaves_the_wall(board: Board) -> None:
    """With who and how, in the audit and the order's time line; what is wrong in the parcel is said; once is enough."""
    name = stuck(board)
    board.feed.waiting("A1")
    client = board.client(board.person("lin", "desk"))
    assert "1 单放行后卡住" in client.get("/").text
    page = client.get("/downstream").text
    for wanted in ("ERP 拒收", "客户 *** 黑名单", "规格装错: BLUE × 1 (应为 RED)"):
        assert wanted in page, wanted
    form = {"order_id": name, "kind": "wrong-shipment", "why": "已拦截，电话 13910000124"}
    assert board.post(client, "/downstream/settle", **{**form, "why": " "}).status_code == 400
    assert board.post(client, "/downstream/settle", **{**form, "kind": "lost"}).status_code == 400
    assert board.post(board.client(board.person("boss", "approver")), "/downstream/settle", **form).status_code == 403
    elsewhere = board.client(board.person("other", "desk", shops=("api:other",)))
    assert board.post(elsewhere, "/downstream/settle", **form).status_code == 400
    assert board.post(client, "/downstream/settle", **form).status_code == 303
    assert board.post(client, "/downstream/settle", **form).status_code == 409
    assert [one.kind for one in downstream.standing(board.db)] == ["refused-erp"]
    page = client.get("/orders/api:main:A1").text
    assert "已处理" in page
    assert "已拦截，电话 ***" in page

    api = caller(board, "wang", "reviewer")
    waits = api.get("/downstream").json()["waits"]
    assert [(one["order_id"], one["kind"]) for one in waits] == [(name, "refused-erp")]
    settle = {"order_id": name, "kind": "refused-erp", "why": "改好了"}
    assert [api.post("/downstream/settle", json=settle).status_code for _ in range(2)] == [200, 409]
    assert downstream.standing(board.db) == []
    audited = board.db.execute("SELECT by, body FROM board.audit WHERE what = 'settle' ORDER BY n").fetchall()
    assert [(row["by"], row["body"]["kind"]) for row in audited] == [("lin", "wrong-shipment"), ("wang", "refused-erp")]


def test_a_complaint_that_somebody_hears_of_is_an_outcome(board: Board) -> None:
    """From the order's page, once however often the form is sent; what takes an order back is for who may cancel."""
    board.feed.waiting("A1")
    client = board.client(board.person("lin", "desk"))
    page = client.get("/orders/api:main:A1").text
    at = re.search(r'name="at" value="(\d+)"', page)
    assert at is not None
    form = {"order_id": "api:main:A1", "at": at[1], "outcome": "complaint", "note": "颜色不对"}
    assert [board.post(client, "/tell", **form).status_code for _ in range(2)] == [303, 303]
    assert "confirmed-fraud" not in page
    for wrong, status in (
        ({"outcome": "released"}, 400),
        ({"at": "x"}, 400),
        ({"at": "1"}, 400),
        ({"outcome": "confirmed-fraud"}, 403),
    ):
        assert board.post(client, "/tell", **{**form, **wrong}).status_code == status, wrong
    assert board.post(board.client(board.person("rev", "reviewer")), "/tell", **form).status_code == 403
    said = [row["value"] for row in board.db.execute("SELECT value FROM board.outbox")]
    assert [(one["outcome"], one["by"], one["at"], one["note"]) for one in said] == [
        ("complaint", "lin", times.text(int(at[1])), "颜色不对")
    ]


def test_what_is_ticked_leaves_together_and_what_is_not_leaves_alone(board: Board) -> None:
    """The order's page has the candidates ticked; a release says what was left of them; a decision on several says nothing."""
    for number in ("A1", "A2", "A3"):
        board.feed.waiting(number)
    board.db.execute("UPDATE board.orders SET merge_with = '[\"api:main:A0\"]'")
    client = board.client(board.person("lin", "supervisor"))
    assert re.search(r'name="merge_with" value="api:main:A0" checked', client.get("/orders/api:main:A1").text)
    form: dict[str, Any] = {"decision": "release", "reason-release": "checked", "merge_shown": "1"}
    for number, ticked in (("A1", ["api:main:A0"]), ("A2", [])):
        assert board.post(client, "/decide", orders=f"api:main:{number}|1", merge_with=ticked, **form).status_code == 303
    board.post(client, "/decide", orders="api:main:A3|1", **{"decision": "release", "reason-release": "checked"})
    said = {row["key"]: row["value"].get("details") for row in board.db.execute("SELECT key, value FROM board.outbox")}
    assert said == {
        "api:main:A1": {"merge_with": ["api:main:A0"]}, "api:main:A2": {"merge_with": []}, "api:main:A3": None,
    }  # fmt: skip
    assert "单独发货" in client.get("/orders/api:main:A2").text


def test_what_stands_and_what_differs_has_a_name() -> None:
    """Each kind of wait, of parcel and of difference, in time lines too."""
    assert set(WAITS) | {"settled"} <= set(words.TERMS["event"])
    assert set(WAITS) == set(words.TERMS["wait"])
    assert set(SENTENCES) == set(words.TERMS["difference"])


@pytest.mark.stream
def test_rejects_are_looked_at_and_put_back(fresh_topics: Callable[..., Settings], database: str) -> None:
    """Masked by role, in full only where it is written down; put back once with their bytes, by who may, and told what came of it."""
    settings = fresh_topics(partitions=1, database=database, key=KEY)
    prepare(settings, [])
    body = raw_order("A1", store.now() - 60_000, "known", "358.00", "收纳架", "胡桃木色")["body"]
    good, still = rejection("A1", body), rejection("A2", {**body, "total": "many"})
    other = rejection("A3", body, shop="other")
    brokers, prefix = str(settings.brokers), settings.topic_prefix
    name = topics.name("orders.rejected", prefix)
    kafka.send_all(brokers, [(name, r.order_id.encode(), msgspec.json.encode(r)) for r in (good, still, other)])
    with running(settings) as (url, app), store.connect(database) as db:
        board = Board(url, db, app)
        rejected(board, good, still, other)
        client = board.client(board.person("lin", "supervisor", shops=("api:main",)))
        page = client.get("/rejected").text
        assert page.count('name="rejects"') == 2
        assert "13910000124" not in page
        one = reject_id(good)
        shown = client.get(f"/rejected/{one}").text
        for wanted in ("bad-amount", "hmac", "按原接收时间放回", "&#34;order_id&#34;"):
            assert wanted in shown, wanted
        assert "13800000101" not in shown
        assert client.get(f"/rejected/{reject_id(other)}").status_code == 403
        assert "现在仍会被拒收" in client.get(f"/rejected/{reject_id(still)}").text
        assert "13800000101" in board.post(client, "/rejected/full", id=one).text
        assert db.execute("SELECT body FROM board.audit WHERE what = 'unmask'").fetchone() == {"body": {"reject": one}}
        analyst = board.client(board.person("an", "analyst"))
        assert "13800000101" not in analyst.get(f"/rejected/{one}").text
        for path in ("/rejected/full", "/rejected/replay"):
            assert board.post(analyst, path, id=one, rejects=one).status_code == 403

        assert board.post(client, "/rejected/replay").status_code == 400
        assert board.post(client, "/rejected/replay", rejects=reject_id(other)).status_code == 403
        assert board.post(client, "/rejected/replay", all="1", channel="api", code="bad-amount").status_code == 303
        assert "进行中" in client.get("/rejected").text
        for _ in range(2):
            rejects.carry_out(db, settings, brokers, store.now())
        raws = list(kafka.read_all(brokers, [topics.raw("api", prefix)]))
        assert [(m.key, m.value) for m in raws] == [(b"api:main:A1", good.body)]
        page = client.get("/rejected").text
        assert "按原接收时间放回: 1" in page
        assert "现在仍会被拒收: 1" in page
        back = {row["id"] for row in db.execute("SELECT id FROM board.rejects WHERE replayed_at IS NOT NULL")}
        assert back == {one}
        # rejected once more, it stands there anew
        rejected(board, good)
        assert db.execute("SELECT count(*) AS n FROM board.rejects WHERE replayed_at IS NOT NULL").fetchone() == {"n": 0}

        api = caller(board, "ops", "admin")
        assert len(api.get("/rejected", params={"code": "bad-amount"}).json()["rejects"]) == 3
        whole = api.get(f"/rejected/{one}").json()
        assert (whole["reject"]["code"], whole["raw"]["now"]) == ("bad-amount", "sent")
        assert "13800000101" not in json.dumps(whole)
        assert api.post("/rejected/replay", json={}).status_code == 400
        asked = api.post("/rejected/replay", json={"ids": [one]}).json()
        assert api.get(f"/replays/{asked['replay']}").json()["done_at"] is None
        rejects.carry_out(db, settings, brokers, store.now())
        assert api.get(f"/replays/{asked['replay']}").json()["counts"] == {"sent": 1}
        # put back twice it is the same record twice, which the line takes for one
        twice = [(m.key, m.value, m.headers) for m in kafka.read_all(brokers, [topics.raw("api", prefix)])]
        assert (len(twice), len(set(twice))) == (2, 1)
        audited = db.execute("SELECT by, body FROM board.audit WHERE what = 'replay' ORDER BY n").fetchall()
        assert [(row["by"], row["body"]["rejects"]) for row in audited] == [("lin", 2), ("ops", [one])]
