"""The own shop's front end: challenges whom `channel.challenges` names. Copy it; `Challenged` wraps any ASGI application.

Law: who is challenged can still buy, after one captcha, and nobody else notices. A pass is a signed cookie for the network that it was
won in, until the challenge ends: a script that wins one and spreads it over other networks has nothing. Without Kafka the shop sells
on: the last known challenges end by their own times.

In the page that sends the order:

    let answer = await fetch("/orders", {method: "POST", body});
    if (answer.status === 428) {                      // {"challenge": "captcha", "until": 1794400201254}
      const won = await slider();                     // your captcha's widget; gives a token
      await fetch("/challenge", {method: "POST", body: new URLSearchParams({won})});
      answer = await fetch("/orders", {method: "POST", body});
    }
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from orderstream import access, topics
from orderstream.identity import segment
from orderstream.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Verify = Callable[[str, str], Awaitable[bool]]
"""(what the widget gave, the client's IP) -> whether the captcha's maker says that it was solved."""

COOKIE = "challenge"
LARGEST = 8_192
"""Bytes of what the widget gives."""


class Challenge(msgspec.Struct):
    """A record of channel.challenges, as far as a front end needs it. until: ms."""

    channel: str
    shop: str
    segment: str
    until: int


_decoder = msgspec.json.Decoder(Challenge)


class Challenges:
    """Which networks of one shop are challenged, and until when (ms)."""

    def __init__(self, channel: str, shop: str) -> None:
        self._mine = (channel, shop)
        self._until: dict[str, int] = {}

    def take(self, value: bytes) -> None:
        """Takes a record in; a repeat changes nothing, and of two the longer one counts."""
        said = _decoder.decode(value)
        if (said.channel, said.shop) == self._mine:
            self._until[said.segment] = max(said.until, self._until.get(said.segment, 0))

    def until(self, ip: str, now: int) -> int | None:
        """When (ms) the challenge of an address ends; None where it has none."""
        network = segment(ip)
        end = self._until.get(network or "", 0)
        return end if end > now else None

    async def follow(self, settings: Settings) -> None:
        """Reads the topic from its beginning, for ever: a task beside the application."""
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers, enable_auto_commit=False, **access.client(settings))
        await consumer.start()
        try:
            name = topics.name("channel.challenges", settings.topic_prefix)
            consumer.assign([TopicPartition(name, number) for number in range(settings.partitions)])
            await consumer.seek_to_beginning()
            async for record in consumer:
                if record.value is not None:
                    self.take(record.value)
        finally:
            await consumer.stop()


class Challenged:
    """An application behind challenges. paths: what they guard (a POST to it); secret: signs passes; verify: asks the captcha's maker.

    The client's address is the connection's: behind a proxy have the server take it from there (uvicorn's `proxy_headers`).
    """

    def __init__(
        self, app: Asgi, challenges: Challenges, secret: bytes, verify: Verify, paths: tuple[str, ...] = ("/orders",)
    ) -> None:
        self._app, self._challenges, self._secret, self._verify, self._paths = app, challenges, secret, verify, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in (*self._paths, "/challenge"):
            await self._app(scope, receive, send)
            return
        ip = (scope.get("client") or ("",))[0]
        until = self._challenges.until(ip, time.time_ns() // 1_000_000)
        if scope["path"] == "/challenge":
            await self._solve(ip, until, await _body(receive), send)
        elif until is None or self._passed(scope, ip, until):
            await self._app(scope, receive, send)
        else:
            # 428: come again with a condition met; no shop uses it for anything else
            await _answer(send, 428, {"challenge": "captcha", "until": until})

    async def _solve(self, ip: str, until: int | None, body: bytes, send: Send) -> None:
        won = parse_qs(body.decode(errors="replace")).get("won", [""])[0]
        if until is None:
            await _answer(send, 200, {"challenge": None})
        elif won and await self._verify(won, ip):
            value = f"{COOKIE}={until}.{self._sign(ip, until)}; Path=/; HttpOnly; Secure; SameSite=Lax"
            await _answer(send, 200, {"challenge": None}, [(b"set-cookie", value.encode())])
        else:
            await _answer(send, 403, {"challenge": "captcha", "until": until})

    def _passed(self, scope: Scope, ip: str, until: int) -> bool:
        cookies = SimpleCookie()
        for name, value in scope["headers"]:
            if name == b"cookie":
                try:
                    cookies.load(value.decode("latin-1"))
                except CookieError:
                    return False
        said = cookies.get(COOKIE)
        return said is not None and hmac.compare_digest(said.value.encode(), f"{until}.{self._sign(ip, until)}".encode())

    def _sign(self, ip: str, until: int) -> str:
        return hmac.new(self._secret, f"{segment(ip)}|{until}".encode(), hashlib.sha256).hexdigest()


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more and len(body) <= LARGEST:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Send, status: int, said: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None) -> None:
    kind = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *(headers or [])]})
    await send({"type": "http.response.body", "body": msgspec.json.encode(said)})
