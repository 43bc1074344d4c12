"""The HTTP API: a person's token does what its person may, and says what it does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from orderstream.board import store
from orderstream.board.web import accounts
from tests.board.core.records import signal, verdict
from tests.board.web.conftest import Board

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
    }  # fmt: skip
    for path, methods in said["paths"].items():
        for method, one in methods.items():
            assert one["security"] == [{"HTTPBearer": []}], path
            assert one["description"], (path, method)
            assert {"401", "403", "429", "503"} <= set(one["responses"]), path
    Draft202012Validator.check_schema(said["components"]["schemas"]["Decide"])
