"""Coming in: one-time links, passwords, lock-out, sessions, forms that are ours, and roles."""

from __future__ import annotations

import re

import pytest

from orderstream import times
from orderstream.board import store
from orderstream.board.web import accounts
from orderstream.board.web.accounts import LOCK, AccountError, Person
from orderstream.board.web.site import COOKIE
from tests.board.core.records import signal
from tests.board.web.conftest import PASSWORD, Board

NOW = 1_794_400_000_000


def test_a_link_works_once_and_for_a_day(board: Board):
    """It lets its holder choose a password, and neither a look at it nor a weak password uses it up."""
    link = accounts.invite(board.db, "Boss@Example.com", store.now(), "test", roles=["approver"])
    client = board.client()
    assert "boss@example.com" in client.get(f"/welcome/{link}").text
    weak = board.post(client, f"/welcome/{link}", password="short", again="short")
    differ = board.post(client, f"/welcome/{link}", password=PASSWORD, again=PASSWORD + "x")
    assert (weak.status_code, differ.status_code) == (400, 400)
    assert COOKIE not in client.cookies

    fine = board.post(client, f"/welcome/{link}", password=PASSWORD, again=PASSWORD)
    assert (fine.status_code, fine.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200
    assert board.post(board.client(), f"/welcome/{link}", password=PASSWORD, again=PASSWORD).status_code == 410
    assert board.client().get(f"/welcome/{link}").status_code == 410

    accounts.invite(board.db, "late", NOW, "test", roles=["desk"])
    old = accounts.invite(board.db, "late", NOW, "test")
    assert accounts.invited(board.db, old, NOW + times.DAY - 1) is not None
    assert accounts.invited(board.db, old, NOW + times.DAY) is None


def test_nothing_that_lets_somebody_in_is_kept(board: Board):
    """Neither password, link, session nor token stands anywhere in the database."""
    link = accounts.invite(board.db, "a", NOW, "test", roles=["desk"])
    person = accounts.accept(board.db, link, PASSWORD, NOW)
    assert person is not None
    cookie = accounts.open_session(board.db, person, "link", NOW)
    token = accounts.make_token(board.db, person, "erp", 30, NOW, reads_only=True)
    dumped = ""
    for name in ("people", "sessions", "invitations", "tokens", "failures", "audit"):
        dumped += str(board.db.execute(f"SELECT * FROM board.{name}").fetchall())
    assert "$argon2id$" in dumped
    for secret in (link, PASSWORD, cookie, token, token.removeprefix(accounts.TOKEN)):
        assert secret not in dumped


def test_wrong_passwords_lock_out_for_a_while_and_say_nothing(board: Board):
    """The sixth from one address is turned away even with the right one; others are not; time opens it again."""
    board.person("a", "desk")
    for _ in range(accounts.TRIES):
        assert accounts.sign_in(board.db, "a", "wrong", "here", NOW) == "wrong"
        assert accounts.sign_in(board.db, "nobody", "wrong", "here", NOW) == "wrong"
    assert accounts.sign_in(board.db, "a", PASSWORD, "here", NOW + 1) == "locked"
    assert accounts.sign_in(board.db, "nobody", PASSWORD, "here", NOW + 1) == "locked"
    assert isinstance(accounts.sign_in(board.db, "a", PASSWORD, "there", NOW + 1), Person)
    assert isinstance(accounts.sign_in(board.db, "a", PASSWORD, "here", NOW + LOCK), Person)

    for number in range(accounts.TRIES_ANYWHERE):
        accounts.sign_in(board.db, "a", "wrong", f"bot{number}", NOW + 2 * LOCK)
    assert accounts.sign_in(board.db, "a", PASSWORD, "there", NOW + 2 * LOCK + 1) == "locked"


def test_a_lock_out_is_told_and_audited_once(board: Board):
    """Over HTTP: the same words for whoever is there and who is not, 429 at the end, one audit row."""
    board.person("a", "desk")
    client = board.client()
    known = [board.post(client, "/sign-in", login="a", password="wrong") for _ in range(accounts.TRIES + 2)]
    unknown = board.post(client, "/sign-in", login="nobody", password="wrong")
    assert [answer.status_code for answer in known] == [403] * accounts.TRIES + [429] * 2
    assert unknown.text.replace("nobody", "a") == known[0].text
    rows = board.db.execute("SELECT by FROM board.audit WHERE what = 'locked-out'").fetchall()
    assert rows == [{"by": "a"}]


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaa", "desk-one-desk-one", "1234567890", "x" * 201])
def test_easy_passwords_are_refused(password: str):
    """Too short, of few characters, of the login, or everybody's."""
    with pytest.raises(AccountError):
        accounts.strong("desk-one", password)


def test_a_session_ends(board: Board):
    """By signing out, when idle, when it is long, when its person is shut out or chooses another password by a link."""
    cookie = board.person("a", "desk")
    client = board.client(cookie)
    person = accounts.of_session(board.db, cookie, store.now())
    assert person is not None
    assert accounts.of_session(board.db, cookie, store.now() + accounts.IDLE + 1000) is None
    assert accounts.of_session(board.db, cookie + "x", store.now()) is None
    assert board.post(client, "/sign-out").headers["location"] == "/sign-in"
    assert board.client(cookie).get("/").headers["location"] == "/sign-in"

    again = accounts.open_session(board.db, person, "password", store.now())
    accounts.disable(board.db, "a", store.now(), on=True)
    assert accounts.of_session(board.db, again, store.now()) is None
    assert accounts.sign_in(board.db, "a", PASSWORD, "there", store.now()) == "wrong"
    accounts.disable(board.db, "a", store.now(), on=False)

    third = accounts.open_session(board.db, person, "password", store.now())
    link = accounts.invite(board.db, "a", store.now(), "test")
    accounts.accept(board.db, link, PASSWORD + "2", store.now())
    assert accounts.of_session(board.db, third, store.now()) is None


def test_only_our_own_forms_do_anything(board: Board):
    """Without the session's guard, from another site, or too large: refused, and nothing is changed."""
    cookie = board.person("root", "admin")
    client = board.client(cookie)
    form = {"login": "x", "roles": "desk"}
    assert client.post("/people", data=form).status_code == 403
    assert client.post("/people", data={**form, "guard": accounts.guard(cookie + "x")}).status_code == 403
    assert board.post(client, "/people", **form).status_code == 200
    stranger = board.client()
    stranger.headers["origin"] = "https://elsewhere.example"
    assert board.post(stranger, "/sign-in", login="root", password=PASSWORD).status_code == 403
    assert client.post("/people", content=b"a=" + b"x" * 1_000_000).status_code == 413
    assert [row["login"] for row in accounts.people(board.db)] == ["root", "x"]


def test_after_signing_in_one_goes_on_within_the_board(board: Board):
    """To where one wanted to go, and never to another site."""
    board.person("a", "supervisor")
    client = board.client()
    assert client.get("/audit?by=a").headers["location"] == "/sign-in?to=%2Faudit%3Fby%3Da"
    for to, goes in (("/audit?by=a", "/audit?by=a"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil", "/")):
        answer = board.post(board.client(), "/sign-in", login="A", password=PASSWORD, to=to)
        assert (answer.status_code, answer.headers["location"]) == (303, goes)
        assert re.search(r"HttpOnly", answer.headers["set-cookie"])
        assert "samesite=lax" in answer.headers["set-cookie"].lower()


PAGES = {
    "/": {"reviewer", "desk", "supervisor", "approver", "analyst"},
    "/approvals": {"reviewer", "desk", "supervisor", "approver", "analyst"},
    "/rejected": {"reviewer", "supervisor", "analyst", "admin"},
    "/audit": {"supervisor", "approver", "admin"},
    "/deputies": {"supervisor", "approver", "admin"},
    "/people": {"admin"},
    "/me": {"reviewer", "desk", "supervisor", "approver", "analyst", "admin"},
}


@pytest.mark.parametrize("role", ["reviewer", "desk", "supervisor", "approver", "analyst", "admin"])
def test_each_role_sees_its_pages_and_no_other(board: Board, role: str):
    """And its navigation shows exactly those."""
    client = board.client(board.person("a", role))
    for path, roles in PAGES.items():
        answer = client.get(path)
        assert answer.status_code == (200 if role in roles else 403), path
    own = client.get("/me").text
    shown = set(re.findall(r'<a href="(/[a-z]*)"', own.partition("<nav")[2].partition("</nav>")[0]))
    assert {path for path in PAGES if path in shown} == {path for path, roles in PAGES.items() if role in roles and path != "/me"}


def test_a_shop_s_people_see_that_shop_alone(board: Board):
    """On the wall, by an order's address, and when deciding."""
    board.feed.waiting("A1", signal("platform-hold"))
    board.feed.waiting("api:other:A2", signal("duplicate-order"))
    client = board.client(board.person("a", "reviewer", shops=("api:other",)))
    wall = client.get("/").text
    assert "A2" in wall
    assert "A1" not in wall.partition('id="cards"')[2]
    assert client.get("/orders/api:other:A2").status_code == 200
    assert client.get("/orders/api:main:A1").status_code == 403
    taken = board.post(client, "/decide", orders="api:main:A1|1", decision="release", **{"reason-release": "checked"})
    assert taken.status_code == 403
    assert board.db.execute("SELECT count(*) AS n FROM board.decisions").fetchone() == {"n": 0}


def test_who_may_decide_what(board: Board):
    """A desk releases nothing, an analyst decides nothing."""
    board.feed.waiting("A1")
    for role, decision, status in (
        ("desk", "release", 403),
        ("analyst", "release", 403),
        ("reviewer", "cancel", 403),
        ("desk", "confirm", 303),
    ):
        client = board.client(board.person(f"{role}-{decision}", role))
        fields = {f"reason-{decision}": "duplicate" if decision in {"confirm", "cancel"} else "checked"}
        answer = board.post(client, "/decide", orders="api:main:A1|1", decision=decision, **fields)
        assert answer.status_code == status, role
