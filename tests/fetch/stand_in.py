"""A platform that exists in no shop: thin pushes, a detail API, a list of changes, with failures by a setting.

It stands in for whichever platform a test does not care about, under Douyin's name: a push is `{"order_id": …}`, the detail the
order in the `api` format. `python -m tests.fetch.stand_in` runs `orderstream fetch` with it. `Market` is its server.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from orderstream import channels, platforms, times
from orderstream.channels.api import Api
from orderstream.orders import Parsed, Raw, Rejected
from orderstream.platforms import Answer, Ask, Gone, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Client

NAME = "douyin"


class ThinApi(Api):
    """Pushes signed as the `api` channel's; the order is in the detail."""

    id = NAME

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        found = super().key(shop, body, headers)
        return None if found is None else NAME + found.removeprefix("api")

    def thin(self, raw: Raw) -> bool:
        return True

    def parse(self, raw: Raw) -> Parsed:
        if raw.detail is None:
            return Rejected("raw:0", "no-detail", "缺少详情 · no detail")
        return super().parse(Raw(raw.channel, raw.shop, raw.received_at, raw.detail))


class Platform:
    channel = NAME
    url = ""

    async def token(self, client: Client, worn: Token | None) -> Token:
        said = await client.call(lambda token, now: Ask("/token"), _check, anonymous=True)
        return Token(client.account.app_secret.__class__(said.decode()))

    async def detail(self, client: Client, number: str) -> bytes:
        def ask(token: str, now: int) -> Ask:
            return Ask(f"/{client.account.shop}/order", {"number": number, "token": token}, method="GET")

        return await client.call(ask, _check)

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        def ask(token: str, now: int) -> Ask:
            span = {"since": str(since_ms), "until": str(until_ms), "token": token}
            return Ask(f"/{client.account.shop}/changed", span, method="GET")

        for number, at in json.loads(await client.call(ask, _check)):
            yield Listed(number, at, push(number, at))


def _check(answer: Answer) -> None:
    said = {b"gone": Gone, b"busy": Transient, b"who": Unauthorised}.get(answer.body)
    if said is not None:
        raise said(answer.body.decode())


def push(number: str, at: int) -> bytes:
    """The body of a push."""
    return json.dumps({"order_id": number, "changed": at}).encode()


class Market:
    """The platform's side: its orders, its API, and how badly it works."""

    def __init__(self, chance: int = 0) -> None:
        self.orders: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.broken: set[str] = set()
        """Shops whose every call fails."""
        self.failing = 0.0
        """How many of the other calls fail."""
        self.hold: asyncio.Event | None = None
        """Where set, an order's detail waits for it."""
        self._chance = random.Random(chance)
        app = self.app = FastAPI()

        @app.post("/token")
        async def token() -> Response:
            return Response("good")

        @app.get("/{shop}/order")
        async def order(shop: str, number: str, token: str) -> Response:
            self.asked[number] += 1
            if self.hold is not None:
                await self.hold.wait()
            return self._answer(shop, lambda: self.orders.get((shop, number)))

        @app.get("/{shop}/changed")
        async def changed(shop: str, since: int, until: int, token: str) -> Response:
            found = [(number, o["_at"]) for (of, number), o in self.orders.items() if of == shop and since <= o["_at"] < until]
            return self._answer(shop, lambda: sorted(found, key=lambda one: one[1]))

        @app.middleware("http")
        async def counted(request: Request, call_next: Any) -> Any:
            self.asked[request.url.path] += 1
            return await call_next(request)

    def change(self, shop: str, number: str, **fields: Any) -> bytes:
        """An order is there, or changes; the push that says so."""
        at = time.time_ns() // 1_000_000
        order = self.orders.setdefault((shop, number), {"order_id": number, "created_at": times.text(at), "revision": 0})
        order.update({"updated_at": times.text(at), "_at": at, "revision": order["revision"] + 1, **fields})
        return push(number, at)

    def _answer(self, shop: str, found: Any) -> Response:
        if shop in self.broken or self._chance.random() < self.failing:
            return Response("busy") if self._chance.random() < 0.5 else Response("oh", 502)
        said = found()
        if said is None:
            return Response("gone")
        if isinstance(said, dict):
            line = {"code": "SKU-1", "quantity": 1, "price": "9.90"}
            said = {"currency": "CNY", "lines": [line], **{k: v for k, v in said.items() if k != "_at"}}
        return Response(json.dumps(said))


def install() -> None:
    """Puts it in Douyin's place, in this process."""
    channels.registry()[NAME] = ThinApi()
    platforms.registry()[NAME] = Platform()


if __name__ == "__main__":
    install()
    from orderstream.fetch import process
    from orderstream.settings import Settings

    process.AGAIN_BASE = 0.5  # a test has no minutes
    process.run(Settings.load(metrics_port=0))
