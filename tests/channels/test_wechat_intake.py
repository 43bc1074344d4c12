"""WeChat at intake's door: the echo, the word that ends the retries, and one answer for whoever is not proved."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest

from orderstream.intake.app import create_app
from orderstream.settings import Settings
from orderstream.simulators import wechat as simulator
from tests.sink import MemorySink

SECRET = "wx0123456789abcdef:token:0123456789abcdefghijABCDEFGHIJ0123456789abc"
MESSAGE = b'{"Event":"channels_ec_order_pay","order_info":{"order_id":3712345678901234567}}'
URL = "/hooks/wechat/main"


@pytest.fixture
def shelf() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def client(shelf: MemorySink) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings.load(secrets=f'{{"wechat:main": ["{SECRET}"]}}'), shelf)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as opened:
        yield opened


async def test_the_address_is_checked_and_an_event_is_kept(client: httpx.AsyncClient, shelf: MemorySink) -> None:
    """The echo as plain text and nothing kept; then the message, opened, and `success`."""
    answer = await client.get(URL, params=simulator.check(SECRET, int(time.time()), "<4375120948345356249>"))
    assert (answer.status_code, answer.content, shelf.kept) == (200, b"<4375120948345356249>", [])
    assert answer.headers["content-type"].startswith("text/plain")
    query, body = simulator.sign(MESSAGE, SECRET, int(time.time()))
    answer = await client.post(URL, params=query, content=body)
    assert (answer.status_code, answer.content) == (200, b"success")
    (raw,) = shelf.kept
    assert (raw.channel, raw.shop, raw.body, raw.verified) == ("wechat", "main", MESSAGE, "aes-256-cbc")


async def test_who_is_not_proved_learns_one_thing(client: httpx.AsyncClient, shelf: MemorySink) -> None:
    """A wrong signature, an old one, another app's message, no message: the same status and the same words."""
    now = int(time.time())
    query, body = simulator.sign(MESSAGE, SECRET, now)
    other = simulator.sign(MESSAGE, SECRET.replace("wx0", "wx1"), now)
    answers = [
        await client.post(URL, params={**query, "nonce": "1"}, content=body),
        await client.post(URL, params=query, content=b"{}"),
        await client.post(URL, content=body),
        await client.post(URL, params=other[0], content=other[1]),
        await client.post(URL, params=(old := simulator.sign(MESSAGE, SECRET, now - 400))[0], content=old[1]),
        await client.get(URL, params={**simulator.check(SECRET, now, "1"), "nonce": "1"}),
        await client.get(URL),
    ]
    assert {(one.status_code, one.content) for one in answers} == {(401, b"unauthorized\n")}
    assert shelf.kept == []
