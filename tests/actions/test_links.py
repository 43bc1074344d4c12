"""The public pages on a real PostgreSQL: a GET shows, a POST acts once, and an address gives nothing away."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from orderstream.actions import meeting
from orderstream.actions.known import order as known
from orderstream.board import store
from orderstream.board.store import Db
from orderstream.board.web.limits import Limit
from orderstream.board.web.words import Words
from orderstream.settings import Settings
from tests.actions.rig import BUYER, PERSONAL, SHIP_TO, Feed, link, oid, order, outcomes, people, signal, site
from tests.contracts.test_schemas import validator


class Rig:
    """A board and its pages."""

    def __init__(self, db: Db, client: TestClient) -> None:
        self.db, self.feed, self.client = db, Feed(db), client

    def get(self, path: str) -> Any:
        return self.client.get(path)

    def post(self, path: str, **fields: str) -> Any:
        return self.client.post(path, data=fields)

    def decisions(self) -> list[tuple[str, str, str]]:
        rows = self.db.execute("SELECT by, decision, state FROM board.decisions ORDER BY at")
        return [(row["by"], row["decision"], row["state"]) for row in rows]


@pytest.fixture
def rig(database: str, tmp_path: Path) -> Iterator[Rig]:
    pool = store.pool(database, 4)
    with store.connect(database) as db, TestClient(site(pool, tmp_path)) as client:
        people(db, wang=["supervisor"], chen=["approver"], li=["analyst"])
        yield Rig(db, client)
    pool.close()


def test_a_get_acts_never_and_a_post_once(rig: Rig) -> None:
    """Whoever opens every link they see changes nothing; the second click is told so."""
    token = link(rig.db, order(rig.feed, "A1"), "release", "wang")
    for _ in range(3):
        shown = rig.get(f"/d/{token}")
        assert shown.status_code == 200
    assert "wang" in shown.text
    assert rig.decisions() == []
    done = rig.post(f"/d/{token}", reason="checked")
    assert (done.status_code, "已放行" in done.text) == (200, True)
    assert rig.decisions() == [("wang", "release", "standing")]
    assert [(o["outcome"], o["by"], o["seq"]) for o in outcomes(rig.db)] == [("released", "wang", 1)]
    for again in (rig.post(f"/d/{token}", reason="checked"), rig.get(f"/d/{token}")):
        assert (again.status_code, "已经用过" in again.text) == (410, True)
    assert len(outcomes(rig.db)) == 1


def test_two_clicks_in_one_moment_are_one(rig: Rig) -> None:
    """The link's row decides who is first."""
    token = link(rig.db, order(rig.feed, "A1"), "release", "wang")
    codes: list[int] = []

    def click() -> None:
        codes.append(rig.post(f"/d/{token}", reason="checked").status_code)

    clicks = [threading.Thread(target=click) for _ in range(4)]
    for one in clicks:
        one.start()
    for one in clicks:
        one.join()
    assert sorted(codes) == [200, 410, 410, 410]
    assert len(outcomes(rig.db)) == 1


def test_a_link_that_is_not_ours_is_none(rig: Rig) -> None:
    """Altered in one letter, of another order in the table, or bound to somebody else: 404, and nothing is said of why."""
    token = link(rig.db, order(rig.feed, "A1"), "release", "wang")
    swapped = token[:-1] + ("A" if token[-1] != "A" else "B")
    for bad in (swapped, "x", "A" * 32, token + "A"):
        assert rig.get(f"/d/{bad}").status_code == 404, bad
    assert rig.get(f"/c/{token}").status_code == 404
    rig.db.execute("UPDATE board.links SET person = 'chen'")
    assert rig.get(f"/d/{token}").status_code == 404
    rig.db.execute("UPDATE board.links SET person = 'wang', expires_at = expires_at + 1")
    assert rig.post(f"/d/{token}", reason="checked").status_code == 404
    assert rig.decisions() == []


def test_an_expired_link_says_so(rig: Rig) -> None:
    token = link(rig.db, order(rig.feed, "A1"), "release", "wang", valid=-1)
    for answer in (rig.get(f"/d/{token}"), rig.post(f"/d/{token}", reason="checked")):
        assert (answer.status_code, "已过期" in answer.text) == (410, True)
    assert rig.decisions() == []


def test_what_is_new_since_the_message_asks_again(rig: Rig) -> None:
    """Its reader has not seen it: neither page nor click passes over it, and the link is not used up by that."""
    token = link(rig.db, order(rig.feed, "A1"), "release", "wang")
    order(rig.feed, "A1", signal("duplicate-order"), signal("user-burst"), seq=2)
    for answer in (rig.get(f"/d/{token}"), rig.post(f"/d/{token}", reason="checked")):
        assert (answer.status_code, "有了新情况" in answer.text) == (409, True)
    assert rig.decisions() == []
    assert rig.db.execute("SELECT used_at FROM board.links").fetchone() == {"used_at": None}


def test_a_link_gives_nobody_a_right(rig: Rig) -> None:
    """The roles that they have now decide; an account that is gone does nothing."""
    number = order(rig.feed, "A1")
    analyst, gone = link(rig.db, number, "release", "li"), link(rig.db, number, "release", "wang")
    rig.db.execute("UPDATE board.people SET disabled_at = 1 WHERE login = 'wang'")
    refused = rig.post(f"/d/{analyst}", reason="checked")
    assert (refused.status_code, "没有这项权限" in refused.text) == (409, True)
    refused = rig.post(f"/d/{gone}", reason="checked")
    assert (refused.status_code, "停用" in refused.text) == (409, True)
    assert rig.decisions() == []


def test_a_frozen_order_is_asked_for_and_approved_by_another(rig: Rig) -> None:
    """Release from one message, approval from another; the asker's own approval is none."""
    number = order(rig.feed, "A1", signal("platform-hold"))
    asked = rig.post(f"/d/{link(rig.db, number, 'release', 'chen')}", reason="checked")
    assert "需要审批人同意" in asked.text
    assert outcomes(rig.db) == []
    row = rig.db.execute("SELECT id FROM board.decisions").fetchone()
    assert row is not None
    own = rig.post(f"/d/{link(rig.db, number, 'approve', 'chen', about=str(row['id']))}")
    assert own.status_code == 409
    people(rig.db, zhou=["approver"])
    approved = rig.post(f"/d/{link(rig.db, number, 'approve', 'zhou', about=str(row['id']))}")
    assert "已同意" in approved.text
    assert [(o["outcome"], o["by"]) for o in outcomes(rig.db)] == [("released", "chen")]
    late = rig.post(f"/d/{link(rig.db, number, 'refuse', 'zhou', about=str(row['id']))}")
    assert (late.status_code, "已经有人处理" in late.text) == (409, True)


def test_a_decision_needs_its_reason(rig: Rig) -> None:
    """One of the list, and a note where it is none of them."""
    token = link(rig.db, order(rig.feed, "A1"), "cancel", "wang")
    assert rig.post(f"/d/{token}").status_code == 422
    assert rig.post(f"/d/{token}", reason="because").status_code == 422
    assert rig.post(f"/d/{token}", reason="other").status_code == 422
    assert rig.post(f"/d/{token}", reason="other", note="同行测试单").status_code == 200
    assert rig.decisions() == [("wang", "cancel", "standing")]


def test_who_was_second_is_told(rig: Rig) -> None:
    """Decided on the board meanwhile: the link says so and changes nothing."""
    number = order(rig.feed, "A1")
    first, second = link(rig.db, number, "cancel", "wang"), link(rig.db, number, "release", "chen")
    rig.post(f"/d/{first}", reason="fraud")
    told = rig.post(f"/d/{second}", reason="checked")
    assert (told.status_code, "已经有人处理" in told.text) == (409, True)
    assert [o["outcome"] for o in outcomes(rig.db)] == ["cancelled"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("customer-confirmed", "照常发货"), ("customer-single", "留哪一单"), ("customer-address", "核对地址")],
)
def test_a_customer_s_answer_is_an_outcome_once(rig: Rig, answer: str, sentence: str) -> None:
    """Said to the stream by its schema, without a word of who they are; asked again, the page says what they said."""
    order(rig.feed, "A0")
    number = order(rig.feed, "A1", signal("duplicate-order", "A0"))
    token = link(rig.db, number, "confirm")
    assert rig.get(f"/c/{token}").status_code == 200
    assert outcomes(rig.db) == []
    done = rig.post(f"/c/{token}", answer=answer)
    assert (done.status_code, sentence in done.text) == (200, True)
    again = rig.post(f"/c/{token}", answer="customer-address")
    assert (again.status_code, sentence in again.text) == (410, True)
    (said,) = outcomes(rig.db)
    assert (said["order_id"], said["outcome"], said["by"], said["seq"]) == (number, answer, "customer", 1)
    assert said["details"] == {"orders": [oid("A0")]}
    assert [mark for mark in PERSONAL if mark in str(said) or mark in token] == []
    if "customer-confirmed" in str(SCHEMA):
        validator("outcome.v1.schema.json").validate(said)


SCHEMA = (Path(__file__).parents[2] / "schemas/messages/outcome.v1.schema.json").read_text("utf-8")


def test_a_customer_sees_that_it_is_theirs_and_a_stranger_little(rig: Rig) -> None:
    """Articles, amount, town; of name, number and street as much as tells its owner; nobody else's order."""
    order(rig.feed, "A0")
    order(rig.feed, "B0", buyer={"id": "u-99", "phone": "13700000000"}, ship_to={**SHIP_TO, "name": "别人"})
    number = order(rig.feed, "A1", signal("duplicate-order", "A0", "B0"))
    page = rig.get(f"/c/{link(rig.db, number, 'confirm')}").text
    for seen in ("示例店", "收纳架", "358.00 CNY", "青岛市", "赵**", "139****0124", "A0", "是的，都要", "只要一单", "地址不对"):
        assert seen in page, seen
    assert [mark for mark in (*PERSONAL, "B0", "别人", "137") if mark in page] == []
    english = rig.get(f"/c/{link(rig.db, number, 'confirm', seq=2)}?lang=en").text
    for seen in ("Example Shop", "Yes, both", "Only one", "The address is wrong", 'lang="en"'):
        assert seen in english, seen


def test_where_there_is_one_order_nobody_asks_for_both(rig: Rig) -> None:
    """Two orders from one office are two people's: `only one` is neither offered nor taken."""
    order(rig.feed, "B0", buyer={"id": "u-99", "phone": "13700000000"})
    token = link(rig.db, order(rig.feed, "A1", signal("duplicate-order", "B0"), buyer=BUYER), "confirm")
    page = rig.get(f"/c/{token}").text
    assert "是的，没错" in page
    assert "只要一单" not in page
    assert rig.post(f"/c/{token}", answer="customer-single").status_code == 422
    assert rig.post(f"/c/{token}", answer="released").status_code == 422
    assert outcomes(rig.db) == []


def test_pages_are_kept_by_nobody_and_found_by_nobody(rig: Rig) -> None:
    """No cache, no referrer, no index, no script, no frame; English for whoever asks for it."""
    token = link(rig.db, order(rig.feed, "A1"), "confirm")
    page = rig.client.get(f"/c/{token}", headers={"Accept-Language": "en-GB"})
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-robots-tag"] == "noindex"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "Yes, it is right" in page.text
    assert rig.get("/c/").status_code == 404
    assert rig.get("/docs").status_code == 404
    assert rig.client.post(f"/c/{token}", content=b"a=" + b"x" * 70_000).status_code == 413


def test_who_looks_for_links_is_slowed_down(rig: Rig, database: str, tmp_path: Path) -> None:
    """After a few numbers that are none, and after many pages."""
    token = link(rig.db, order(rig.feed, "A1"), "confirm")
    pool = store.pool(database, 1)
    with TestClient(site(pool, tmp_path, (Limit(0, 8), Limit(0, 2)))) as client:
        codes = [client.get(f"/c/{n:032d}").status_code for n in range(4)]
        assert codes == [404, 404, 429, 429]
        codes = [client.get(f"/c/{token}").status_code for _ in range(6)]
        assert codes == [200, 200, 200, 200, 429, 429]
    pool.close()


def test_without_postgresql_the_page_says_so(tmp_path: Path) -> None:
    """And that nothing was changed."""
    pool = store.pool(f"postgresql:///x?host={tmp_path}", 1)
    with TestClient(site(pool, tmp_path)) as client:
        answer = client.get("/c/" + "A" * 32)
    pool.close()
    assert answer.status_code == 503
    assert "什么都没有改变" in answer.text


def test_a_meeting_has_one_record_a_case(rig: Rig) -> None:
    """Made from case, signals and decisions; filled in by people; closed it stays. Nothing personal is in it."""
    for number in ("A1", "A2", "A3"):
        order(rig.feed, number, signal("platform-hold", "A1"))
    words = Words().of(rig.db, "zh")
    now = store.now()
    numbers = {meeting.called(rig.db, known(rig.db, oid(n)), words, now) for n in ("A1", "A2", "A3")}  # type: ignore[arg-type]
    assert len(numbers) == 1
    (number,) = numbers
    group, person = (
        link(rig.db, oid("A1"), "meeting", None, about=number),
        link(rig.db, oid("A1"), "meeting", "wang", about=number),
    )
    page = rig.get(f"/m/{person}").text
    for seen in ("平台要求暂不发货", oid("A2"), "参加人", "1074.00 CNY" if "1074.00" in page else "358.00 CNY"):
        assert seen in page, seen
    assert "<textarea" not in rig.get(f"/m/{group}").text
    assert rig.post(f"/m/{group}", present="x").status_code == 404
    rig.post(f"/d/{link(rig.db, oid('A2'), 'cancel', 'wang')}", reason="fraud")
    saved = rig.post(f"/m/{person}", present="王、陈", findings="<script>机器</script>")
    assert "已保存" in saved.text
    assert "<script>机器" not in saved.text
    rig.post(f"/m/{person}", present="王、陈", findings="机器", decision="全部取消", close="yes")
    after = rig.post(f"/m/{person}", decision="改了")
    assert "改了" not in after.text
    assert "全部取消" in after.text
    document = rig.get(f"/m/{person}?as=md&lang=zh").text
    for seen in ("# 风控会议记录", "wang: cancel (fraud) api:main:A2", "全部取消", "由 wang"):
        assert seen in document, seen
    assert [mark for mark in PERSONAL if mark in document or mark in page] == []


def test_addresses_name_nobody(rig: Rig) -> None:
    """Thirty-two letters that follow from a key; another key, other letters."""
    token = link(rig.db, order(rig.feed, "A1"), "confirm")
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", token)
    from orderstream.actions.tokens import Signer

    ours, other = Signer(Settings.load().hash_key()), Signer(b"another")
    assert ours.number("m", "release|1") != ours.number("m", "release|2")
    assert ours.number("m", "release|1") != other.number("m", "release|1")
