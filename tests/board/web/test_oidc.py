"""Signing in with the company's account, against a provider that keeps to the standard, and one that does not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from orderstream.board import store
from orderstream.board.web import accounts
from orderstream.board.web.site import COOKIE
from orderstream.settings import Settings
from tests.board.web.conftest import KEY, Board, running
from tests.board.web.provider import CLIENT, SECRET, Provider, provider


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    with provider() as one:
        yield one


@pytest.fixture
def linked(database: str, issuer: Provider) -> Iterator[tuple[Board, Provider]]:
    """A board that knows the provider."""
    issuer.wrong, issuer.claims = None, {"sub": "u-1", "email": "Boss@example.com", "email_verified": True}
    settings = Settings.load(database=database, key=KEY, oidc_issuer=issuer.url, oidc_client_id=CLIENT, oidc_client_secret=SECRET)
    with running(settings) as (url, app), store.connect(database) as db:
        yield Board(url, db, app), issuer


def go(board: Board, to: str = "/") -> tuple[httpx.Client, httpx.Response]:
    """The whole way through the provider and back."""
    client = board.client()
    return client, client.get("/oidc", params={"to": to}, follow_redirects=False)


def through(client: httpx.Client, answer: httpx.Response) -> httpx.Response:
    there = httpx.get(answer.headers["location"], trust_env=False)
    return client.get(there.headers["location"])


def test_whoever_has_an_account_here_comes_in(linked: tuple[Board, Provider]):
    """By a verified address the first time, which binds their subject; after that by it, whatever the address is."""
    board, issuer = linked
    accounts.invite(board.db, "boss@example.com", store.now(), "test", roles=["approver"])
    client, asked = go(board, "/approvals")
    assert {"code_challenge", "state", "nonce"} <= set(httpx.URL(asked.headers["location"]).params)
    back = through(client, asked)
    assert (back.status_code, back.headers["location"]) == (303, "/approvals")
    assert client.get("/approvals").status_code == 200

    issuer.claims = {"sub": "u-1", "email": "renamed@example.com", "email_verified": True}
    assert through(*go(board)).status_code == 303
    # another subject that has got the old address is somebody else
    issuer.claims = {"sub": "u-2", "email": "boss@example.com", "email_verified": True}
    assert through(*go(board)).status_code == 403
    signed_in = board.db.execute("SELECT by, body FROM board.audit WHERE what = 'signed-in'").fetchall()
    assert [(row["by"], row["body"]) for row in signed_in] == [("boss@example.com", {"how": "oidc"})] * 2


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "u-9", "email": "stranger@example.com", "email_verified": True},
        {"sub": "u-9", "email": "boss@example.com", "email_verified": False},
        {"sub": "u-9", "email": "boss@example.com"},
        {"sub": "u-9", "preferred_username": "boss@example.com"},
    ],
)
def test_whoever_has_none_does_not(linked: tuple[Board, Provider], claims: dict[str, object]):
    """An account that nobody made here, an address that the provider does not vouch for."""
    board, issuer = linked
    accounts.invite(board.db, "boss@example.com", store.now(), "test", roles=["approver"])
    issuer.claims = claims
    client, asked = go(board)
    answer = through(client, asked)
    assert answer.status_code == 403
    assert COOKIE not in client.cookies
    assert board.db.execute("SELECT count(*) AS n FROM board.sessions").fetchone() == {"n": 0}


@pytest.mark.parametrize("wrong", ["signature", "issuer", "audience", "expired", "nonce"])
def test_a_token_that_is_not_right_lets_nobody_in(linked: tuple[Board, Provider], wrong: str):
    """Signed by another key, for another client, of another issuer, too old, or of another sign-in."""
    board, issuer = linked
    accounts.invite(board.db, "boss@example.com", store.now(), "test", roles=["approver"])
    issuer.wrong = wrong
    client, asked = go(board)
    assert through(client, asked).status_code == 403
    assert COOKIE not in client.cookies


def test_an_answer_that_was_not_asked_for_lets_nobody_in(linked: tuple[Board, Provider]):
    """A state of another browser, a code used twice, a refusal by the provider."""
    board, _ = linked
    accounts.invite(board.db, "boss@example.com", store.now(), "test", roles=["approver"])
    _, asked = go(board)
    stolen = httpx.get(asked.headers["location"], trust_env=False).headers["location"]
    assert board.client().get(stolen).status_code == 403

    client, asked = go(board)
    back = httpx.get(asked.headers["location"], trust_env=False).headers["location"]
    assert client.get(back).status_code == 303
    assert client.get(back).status_code == 403
    assert board.client().get("/oidc/back?error=access_denied&state=x").status_code == 403
    assert board.client().get("/oidc/back").status_code == 403


def test_without_a_provider_there_is_no_such_door(board: Board):
    """Neither a button nor an address."""
    assert "/oidc" not in board.client().get("/sign-in").text
    assert board.client().get("/oidc").status_code == 404
