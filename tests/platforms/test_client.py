"""A client against a platform that misbehaves, on a real socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from orderstream.platforms import Account, Answer, Ask, Gone, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Client, Patience, Resting, connections
from orderstream.platforms.limits import Breaker
from orderstream.simulators.served import served

QUICK = Patience(tries=3, base=0.001, longest=0.01, seconds=1)
SECRETS = ("very-secret", "token-1", "token-2", "refresh-me")


class Toy:
    """A platform of one page: GET /order, POST /token."""

    channel = "toy"
    url = ""

    async def token(self, client: Client, worn: Token | None) -> Token:
        def ask(token: str, now: int) -> Ask:
            return Ask("/token", headers={"secret": client.account.app_secret.get_secret_value()})

        said = await client.call(ask, understood, anonymous=True)
        return Token(SecretStr(said.decode()))

    async def detail(self, client: Client, number: str) -> bytes:
        return await client.call(
            lambda token, now: Ask("/order", {"id": number, "access_token": token}, method="GET"), understood
        )

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        for one in ():
            yield one


def understood(answer: Answer) -> None:
    if answer.body == b"gone":
        raise Gone("no-such-order")
    if answer.body == b"busy":
        raise Transient("busy")
    if answer.body == b"who":
        raise Unauthorised("token-expired")


class Stage:
    """What the platform answers, in turn (the last for ever), and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens = 0
        self.slow = 0.0
        self.script: list[Callable[[str], Response]] = []
        app = self.app = FastAPI()

        @app.get("/order")
        async def order(request: Request) -> Response:
            token = request.query_params["access_token"]
            self.asked.append(token)
            await asyncio.sleep(self.slow)
            answer = self.script[0] if len(self.script) == 1 else self.script.pop(0)
            return answer(token)

        @app.post("/token")
        async def token() -> Response:
            await asyncio.sleep(0.02)
            self.tokens += 1
            return Response(f"token-{self.tokens}")


def says(body: str, status: int = 200, **headers: str) -> Callable[[str], Response]:
    return lambda _: Response(body, status, headers)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


class Rig:
    def __init__(self, stage: Stage, url: str, **more: object) -> None:
        account = Account("toy", "main", "key", SecretStr("very-secret"), url, rate=1000, burst=1000)
        self.http = connections()
        self.client = Client(self.http, Toy(), account, QUICK, **more)  # type: ignore[arg-type]

    async def detail(self) -> bytes:
        return await self.client.platform.detail(self.client, "A1")


async def test_trouble_that_passes_is_waited_out(stage: Stage) -> None:
    """A 500 and a busy in 200 are tried again, and the third answer counts, byte for byte."""
    stage.script = [says("x", 500), says("busy"), says("\ufeff{ }")]
    async with served(stage.app) as url:
        assert await Rig(stage, url).detail() == "\ufeff{ }".encode()
    assert len(stage.asked) == 3


async def test_trouble_that_stays_ends_in_bounded_time(stage: Stage) -> None:
    """After its tries a call says which trouble it was."""
    stage.script = [says("busy")]
    async with served(stage.app) as url:
        with pytest.raises(Transient) as said:
            await Rig(stage, url).detail()
    assert (said.value.code, len(stage.asked)) == ("busy", 3)


async def test_what_is_gone_is_not_asked_for_twice(stage: Stage) -> None:
    """The platform's own word for it is final, and no failure of the platform."""
    stage.script = [says("gone")]
    async with served(stage.app) as url:
        rig = Rig(stage, url, breaker=Breaker(after=1))
        with pytest.raises(Gone):
            await rig.detail()
        assert rig.client.breaker.state(time.monotonic()) == "closed"
    assert len(stage.asked) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 302])
async def test_a_wrong_address_is_not_gone(stage: Stage, status: int) -> None:
    """A status alone makes nothing final: a mistyped address would reject every order."""
    stage.script = [says("not found", status)]
    async with served(stage.app) as url:
        with pytest.raises(Transient) as said:
            await Rig(stage, url).detail()
    assert said.value.code == f"http-{status}"


async def test_a_worn_token_is_renewed_once_for_all_who_wait(stage: Stage) -> None:
    """Twenty calls at once: one token to begin with, one when it is worn, and every call has its answer."""
    stage.slow = 0.01
    stage.script = [lambda token: Response("who" if token == "token-1" else "fine")]
    async with served(stage.app) as url:
        rig = Rig(stage, url)
        assert set(await asyncio.gather(*(rig.detail() for _ in range(20)))) == {b"fine"}
    assert stage.tokens == 2
    assert stage.asked.count("token-2") == 20


async def test_who_is_not_let_in_with_a_new_token_either_stops_asking(stage: Stage) -> None:
    """One renewal a call; and after some such calls the breaker opens."""
    stage.script = [says("who")]
    async with served(stage.app) as url:
        rig = Rig(stage, url, breaker=Breaker(after=2))
        for _ in range(2):
            with pytest.raises(Unauthorised):
                await rig.detail()
        asked = len(stage.asked)
        with pytest.raises(Resting):
            await rig.detail()
    assert (asked, len(stage.asked)) == (4, 4)


async def test_what_rests_is_not_called_and_comes_back(stage: Stage) -> None:
    """After its failures in a row no call reaches the platform; after the rest one does, and all is well again."""
    stage.script = [says("x", 502)]
    async with served(stage.app) as url:
        rig = Rig(stage, url, breaker=Breaker(after=2, rest=0.5))
        with pytest.raises(Transient, match="http-502"):
            await rig.detail()
        for _ in range(50):
            with pytest.raises(Resting):
                await rig.detail()
        assert len(stage.asked) == 2
        stage.script = [says("fine")]
        until = rig.client.breaker.until
        assert until is not None
        await asyncio.sleep(until - time.monotonic() + 0.01)
        assert await asyncio.gather(*(rig.detail() for _ in range(1))) == [b"fine"]
        assert await rig.detail() == b"fine"


async def test_retry_after_holds_all_calls_of_the_account(stage: Stage) -> None:
    """A long one is not waited for by the call that hears it, and the next one goes after it."""
    stage.script = [says("slow down", 429, **{"Retry-After": "1"}), says("fine")]
    async with served(stage.app) as url:
        rig = Rig(stage, url)
        with pytest.raises(Transient) as said:
            await rig.detail()
        assert said.value.retry_after == 1
        began = time.monotonic()
        assert await rig.detail() == b"fine"
        assert time.monotonic() - began > 0.9


async def test_nobody_there_is_a_transient_and_says_no_address(stage: Stage) -> None:
    """A refused connection names its kind and nothing else."""
    async with served(stage.app) as url:
        pass
    with pytest.raises(Transient) as said:
        await Rig(stage, url).detail()
    assert said.value.code == "http-connecterror"


async def test_a_silent_platform_is_given_up(stage: Stage) -> None:
    """An attempt has its seconds; a platform that takes the connection and says nothing does not hold us."""
    stage.slow, stage.script = 30, [says("late")]
    async with served(stage.app) as url:
        rig = Rig(stage, url)
        rig.client._patience = Patience(tries=1, seconds=0.1)
        with pytest.raises(Transient, match="timeout"):
            await rig.detail()


async def test_nothing_secret_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at DEBUG: no secret, no token, no body, in no log line and no error."""
    caplog.set_level(logging.DEBUG)
    stage.script = [says("who"), says("body-of-an-order"), says("body-of-an-order", 503)]
    async with served(stage.app) as url:
        rig = Rig(stage, url)
        await rig.detail()
        with pytest.raises(Transient) as said:
            await rig.detail()
    shown = caplog.text + repr(said.value) + repr(rig.client.account) + repr(rig.client._token)
    assert [word for word in (*SECRETS, "body-of-an-order") if word in shown] == []
