"""The HTTP API: a person's token does what its person may, and says what it does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from psycopg.types.json import Jsonb

from orderstream.board import store
from orderstream.board.web import accounts
from tests.board.core.records import signal, verdict
from tests.board.web.conftest import Board
from tests.contracts.test_schemas import validator

BUYER = {"id": "u-000124", "phone": "13910000124"}


def caller(board: Board, login: str, *roles: str, reads_only: bool = False, shops: tuple[str, ...] = ()) -> httpx.Client:
    """A program with somebody's token."""
    cookie = board.person(login, *roles, shops=shops)
    person = accounts.of_session(board.db, cookie, store.now())
    assert person is not None
    token = accounts.make_token(board.db, person, "test", 1, store.now(), reads_only=reads_only)
    headers = {"authorization": f"Bearer {token}", "accept-language": "en"}
    return httpx.Client(base_url=board.url + "/api/v1", headers=headers, trust_env=False, timeout=30)


def test_decide_and_take_back(board: Board):
    """The wall, an order, a decision with its refusals, undo: the same words and numbers as on the pages."""
    board.feed.waiting("A1")
    board.feed.waiting("A2")
    api = caller(board, "erp", "supervisor")
    wall = api.get("/cases").json()
    assert (wall["count"], wall["orders"]) == (2, 2)
    case = api.get(f"/cases/{wall['cases'][0]['case_id']}").json()
    assert case["orders"][0]["order_id"] in {"api:main:A1", "api:main:A2"}

    board.feed(verdict("A2", 2, signal("duplicate-order"), signal("platform-hold")))
    orders = [{"order_id": "api:main:A1", "seq": 1}, {"order_id": "api:main:A2", "seq": 1}]
    answer = api.post("/decisions", json={"orders": orders, "decision": "release", "reason": "checked"})
    assert answer.status_code == 409
    done = answer.json()
    assert done["done"] == ["api:main:A1"]
    assert done["refused"]["api:main:A2"]["code"] == "changed"
    assert api.post(f"/decisions/{done['bulk']}/undo").json() == {"undone": ["api:main:A1"]}
    assert api.get("/orders/api:main:A1").json()["order"]["state"] == "waiting"


def test_an_approval_by_another(board: Board):
    """Asked by one, refused to the asker, given by another."""
    board.feed.waiting("F1", signal("platform-hold"))
    asks, boss = caller(board, "asks", "approver"), caller(board, "boss", "approver")
    body = {"orders": [{"order_id": "api:main:F1", "seq": 1}], "decision": "release", "reason": "checked"}
    assert asks.post("/decisions", json=body).json()["asked"] == ["api:main:F1"]
    waits = boss.get("/approvals").json()[0]["decision"]["id"]
    own = asks.post(f"/approvals/{waits}", json={"yes": True})
    assert (own.status_code, own.json()["error"]) == (403, "You asked for this release: another approver has to say yes.")
    assert boss.post(f"/approvals/{waits}", json={"yes": True}).json() == {"answer": "effective"}


def test_rights_are_the_person_s(board: Board):
    """No token, a wrong one, one that only reads, one of a role that may not, one that was ended, of a shop that is not theirs."""
    board.feed.waiting("A1", buyer=BUYER)
    body = {"orders": [{"order_id": "api:main:A1", "seq": 1}], "decision": "release", "reason": "checked"}
    nobody = httpx.Client(base_url=board.url + "/api/v1", trust_env=False)
    for headers in ({}, {"authorization": "Bearer osb_wrong"}, {"authorization": "Basic osb_x"}):
        answer = nobody.get("/cases", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    # a browser's session opens no API: a page elsewhere could use it
    assert board.client(board.person("web", "supervisor")).get("/api/v1/cases").status_code == 401
    reader = caller(board, "reader", "supervisor", reads_only=True)
    assert reader.get("/cases").status_code == 200
    assert reader.post("/decisions", json=body).status_code == 403
    assert reader.get("/orders/api:main:A1", params={"unmask": True}).status_code == 403
    assert caller(board, "desk", "desk").post("/decisions", json=body).status_code == 403
    assert caller(board, "analyst", "analyst").get("/audit").status_code == 403
    assert caller(board, "other", "supervisor", shops=("api:other",)).get("/orders/api:main:A1").status_code == 403

    ended = caller(board, "ended", "supervisor")
    person = accounts.of_session(board.db, board.person("ended", "supervisor"), store.now())
    assert person is not None
    for one in accounts.tokens(board.db, person):
        accounts.revoke(board.db, person, one["id"], store.now())
    assert ended.get("/cases").status_code == 401
    assert board.db.execute("SELECT count(*) AS n FROM board.decisions").fetchone() == {"n": 0}


def test_personal_data_is_masked_there_too(board: Board):
    """Unless asked for, which is written down."""
    board.feed.waiting("A1", buyer=BUYER)
    api = caller(board, "desk", "desk")
    assert "13910000124" not in api.get("/orders/api:main:A1").text
    assert "u-000124" not in api.get("/orders/api:main:A1").text
    assert "13910000124" in api.get("/orders/api:main:A1", params={"unmask": True}).text
    assert board.db.execute("SELECT count(*) AS n FROM board.audit WHERE what = 'unmask'").fetchone() == {"n": 1}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/decisions", {"orders": [], "decision": "release", "reason": "checked"}, 422),
        ("/decisions", {"orders": [{"order_id": "a:b:c", "seq": -1}], "decision": "release", "reason": "checked"}, 422),
        ("/decisions", {"orders": [{"order_id": "a:b:c", "seq": 1}], "decision": "burn", "reason": "checked"}, 422),
        ("/decisions", {"orders": [{"order_id": "a:b:c", "seq": 1}], "decision": "release", "reason": "because"}, 403),
        ("/decisions", {"orders": [{"order_id": "a:b:c", "seq": 1}], "decision": "release", "reason": "checked"}, 409),
        ("/decisions/none/undo", None, 400),
        ("/approvals/none", {"yes": True}, 400),
        ("/verifications", {"order_id": "a:b:c", "method": "phone", "result": "confirmed"}, 404),
        ("/nowhere", {}, 404),
    ],
)
def test_bad_requests_are_said_to_be(board: Board, path: str, body: Any, status: int):
    """Each with a status of its own, and a sentence."""
    answer = caller(board, "a", "supervisor").post(path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/json")


def test_it_describes_itself(board: Board):
    """OpenAPI names every path of it, with the token, and what it answers is of it; no page is in it."""
    said = httpx.get(board.url + "/api/openapi.json", trust_env=False, timeout=60).json()
    assert set(said["paths"]) == {
        "/api/v1/cases", "/api/v1/cases/{case_id}", "/api/v1/orders/{order_id}", "/api/v1/decisions",
        "/api/v1/decisions/{bulk}/undo", "/api/v1/approvals", "/api/v1/approvals/{decision}", "/api/v1/verifications", "/api/v1/audit",
        "/api/v1/outcomes", "/api/v1/trust", "/api/v1/trust/{name}/end", "/api/v1/downstream", "/api/v1/downstream/settle",
        "/api/v1/rejected", "/api/v1/rejected/{name}", "/api/v1/rejected/replay", "/api/v1/replays/{name}",
    }  # fmt: skip
    for path, methods in said["paths"].items():
        for method, one in methods.items():
            assert one["security"] == [{"HTTPBearer": []}], path
            assert one["description"], (path, method)
            assert {"401", "403", "429", "503"} <= set(one["responses"]), path
    for name in ("Decide", "Tell", "Heard", "Replay"):
        Draft202012Validator.check_schema(said["components"]["schemas"][name])


def row(number: str, outcome: str = "returned", **more: Any) -> dict[str, Any]:
    """What an ERP knows of an order."""
    return {"order_id": f"api:main:{number}", "at": "2026-11-12T10:00:00+08:00", "outcome": outcome, **more}


def said(board: Board) -> list[dict[str, Any]]:
    """What is to be said to the stream."""
    return [one["value"] for one in board.db.execute("SELECT value FROM board.outbox ORDER BY id")]


def test_an_erp_says_what_came_of_orders_and_twice_is_once(board: Board):
    """In the name of its account, by the published schema; another word under an id that is known is refused; it is in the audit."""
    board.feed.waiting("A1")
    api = caller(board, "erp", "system")
    rows = [row("A1", note="打 13910000124"), row("A2", "退货", id="R-1"), row("A3", "complaint", at="2026-11-12")]
    first = api.post("/outcomes", json={"outcomes": rows})
    assert first.status_code == 200, first.text
    assert (len(first.json()["taken"]), first.json()["refused"]) == (3, [])
    assert first.json()["unknown"] == ["api:main:A2", "api:main:A3"]
    again = api.post("/outcomes", json={"outcomes": [*rows, row("A4")]}).json()
    assert (len(again["taken"]), set(again["known"])) == (1, set(first.json()["taken"]))

    told = said(board)
    for one in told:
        assert validator("outcome.v1.schema.json").is_valid(one), one
    assert [(one["order_id"][-2:], one["outcome"], one["by"]) for one in told] == [
        ("A1", "returned", "erp"), ("A2", "returned", "erp"), ("A3", "complaint", "erp"), ("A4", "returned", "erp"),
    ]  # fmt: skip
    assert told[1]["id"] == "erp:R-1"
    assert (told[2]["at"], told[0]["note"]) == ("2026-11-12T15:59:59.999Z", "打 ***")
    # of another system the same number is another outcome
    assert caller(board, "other", "system").post("/outcomes", json={"outcomes": [row("A2", id="R-1")]}).json()["taken"] == [
        "other:R-1"
    ]
    otherwise = api.post("/outcomes", json={"outcomes": [row("A5"), row("A2", "complaint", id="R-1")]})
    assert (otherwise.status_code, otherwise.json()["taken"]) == (409, [])
    assert [one["row"] for one in otherwise.json()["refused"]] == [1]
    assert len(said(board)) == 5
    audited = board.db.execute("SELECT by, body FROM board.audit WHERE what = 'heard' ORDER BY n").fetchall()
    assert [(one["by"], len(one["body"]["said"])) for one in audited] == [("erp", 3), ("erp", 1), ("other", 1)]


def test_rows_that_are_wrong_are_named_and_nothing_is_said_unless_wanted(board: Board):
    """Each with its number and a sentence; with `partly` the others are said."""
    api = caller(board, "erp", "system", shops=("api:main",))
    rows = [
        row("A1"), row("A2", "burnt"), row("A3", at="yesterday"), {**row("A4"), "order_id": "A4"}, row("A5", "released"),
        {**row("A6"), "order_id": "api:elsewhere:A6"}, row("A7", "confirmed-fraud"),
    ]  # fmt: skip
    none = api.post("/outcomes", json={"outcomes": rows})
    assert (none.status_code, none.json()["taken"], said(board)) == (409, [], [])
    refused = {one["row"]: one["why"] for one in none.json()["refused"]}
    assert set(refused) == {1, 2, 3, 4, 5, 6}
    assert "2026-11-11 10:00" in refused[2]
    assert all(" · " in why for why in refused.values())
    some = api.post("/outcomes", json={"outcomes": rows, "partly": True})
    assert (some.status_code, len(some.json()["taken"]), len(some.json()["refused"])) == (409, 1, 6)
    assert [one["order_id"] for one in said(board)] == ["api:main:A1"]
    assert board.db.execute("SELECT count(*) AS n FROM board.heard").fetchone() == {"n": 1}


def test_who_may_say_what_came_of_orders(board: Board):
    """A system, the desk, a supervisor, who alone of them takes an order back by it; not who only reads, nor a reviewer."""
    body = {"outcomes": [row("A1")]}
    assert caller(board, "rev", "reviewer").post("/outcomes", json=body).status_code == 403
    assert caller(board, "reads", "system", reads_only=True).post("/outcomes", json=body).status_code == 403
    fraud = {"outcomes": [row("A2", "confirmed-fraud")]}
    assert caller(board, "desk", "desk").post("/outcomes", json=fraud).status_code == 409
    assert caller(board, "lin", "supervisor").post("/outcomes", json=fraud).status_code == 200
    api = caller(board, "erp", "system")
    for path in ("/cases", "/rejected", "/trust", "/audit", "/downstream"):
        assert api.get(path).status_code == 403, path
    for wrong in ({"outcomes": []}, {"outcomes": [{**row("A1"), "by": "lin"}]}, {"outcomes": [row("A1")] * 501}):
        assert api.post("/outcomes", json=wrong).status_code == 422


def test_a_release_by_api_says_what_it_leaves_with(board: Board):
    """Of its candidates alone, and of one order."""
    board.feed.waiting("A1")
    board.db.execute("UPDATE board.orders SET merge_with = %s", (Jsonb(["api:main:A0", "api:main:B0"]),))
    api = caller(board, "lin", "supervisor")
    body = {"orders": [{"order_id": "api:main:A1", "seq": 1}], "decision": "release", "reason": "checked"}
    assert api.post("/decisions", json={**body, "merge_with": ["api:main:C0"]}).status_code == 400
    assert api.post("/decisions", json={**body, "merge_with": ["api:main:A0"]}).status_code == 200
    assert said(board)[0]["details"] == {"merge_with": ["api:main:A0"]}
