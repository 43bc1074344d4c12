"""The example front end: who is challenged solves one captcha, and nobody else notices."""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from orderstream.consumers.shopfront import Challenged, Challenges

NOW = time.time_ns() // 1_000_000


def record(segment: str = "203.0.113.0/24", until: int = NOW + 600_000, shop: str = "live") -> bytes:
    return msgspec.json.encode(
        {"id": "0" * 32, "channel": "api", "shop": shop, "segment": segment, "kind": "captcha", "until": until, "rule": None}
    )


@pytest.fixture
def shop() -> Any:
    """(challenges, client of an address): a shop that takes orders."""
    inner = FastAPI()
    inner.add_api_route("/orders", lambda: {"order": "taken"}, methods=["POST"])
    inner.add_api_route("/", lambda: {"page": "shown"}, methods=["GET"])
    challenges = Challenges("api", "live")

    async def verify(won: str, ip: str) -> bool:
        return won == "solved" and bool(ip)

    app = Challenged(inner, challenges, b"secret", verify)

    def client(ip: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, client=(ip, 1))
        return httpx.AsyncClient(transport=transport, base_url="https://shop.example")

    return challenges, client


async def test_only_the_named_network_is_challenged_and_one_captcha_is_enough(shop: Any) -> None:
    """A pass counts in the network that won it, until the challenge ends, and in no other."""
    challenges, client = shop
    challenges.take(record())
    challenges.take(record("198.51.100.0/24"))
    challenges.take(record(until=NOW + 1000))
    async with client("203.0.113.77") as bot, client("203.0.114.77") as neighbour, client("198.51.100.1") as elsewhere:
        assert (await neighbour.post("/orders")).status_code == 200
        assert (await bot.get("/")).status_code == 200
        told = await bot.post("/orders")
        assert (told.status_code, told.json()) == (428, {"challenge": "captcha", "until": NOW + 600_000})
        assert (await bot.post("/challenge", data={"won": "guessed"})).status_code == 403
        assert (await bot.post("/orders")).status_code == 428
        assert (await bot.post("/challenge", data={"won": "solved"})).status_code == 200
        assert (await bot.post("/orders")).status_code == 200
        stolen = {"Cookie": f"challenge={bot.cookies['challenge']}"}
        assert (await elsewhere.post("/orders", headers=stolen)).status_code == 428
        forged = {"Cookie": f"challenge={NOW + 600_000}.{'0' * 64}"}
        assert (await elsewhere.post("/orders", headers=forged)).status_code == 428


async def test_a_challenge_ends_by_itself_and_another_shop_s_is_not_ours(shop: Any) -> None:
    challenges, client = shop
    challenges.take(record(until=NOW - 1))
    challenges.take(record("198.51.100.0/24", shop="main"))
    challenges.take(record("2001:db8:0:1::/64"))
    for ip, status in (("203.0.113.77", 200), ("198.51.100.1", 200), ("2001:db8:0:1::9", 428), ("2001:db8:0:2::9", 200)):
        async with client(ip) as buyer:
            assert (await buyer.post("/orders")).status_code == status, ip
