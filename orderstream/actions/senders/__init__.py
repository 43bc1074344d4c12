"""Senders: one message through one gateway, in bounded time.

Law: a sender answers with the gateway's receipt, or says whether trying again may help (`Transient`) or a person must act first
(`Refused`). Neither shows a secret, an address or a body: codes alone. Every gateway is handed the message's key, where it has a
place for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import httpx
import msgspec

from orderstream.actions.receivers import (
    AliyunSms,
    Apprise,
    DingTalk,
    Feishu,
    HttpSms,
    Kinds,
    Language,
    Smtp,
    Webhook,
    WeCom,
)

MAX_ANSWER = 65_536
"""Bytes of a gateway's answer that are read."""


class Message(msgspec.Struct, frozen=True):
    """What is to be said. key: names it for ever; unsure: attempts whose end nobody knows; answered: attempts that were refused.

    title, lines: for people; links: (label, address); to: phone (E.164) or e-mail, "" where the gateway is the place; fill: variables
    of an SMS template; confirm: it goes to a customer; data: the same for programs.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    language: Language
    links: tuple[tuple[str, str], ...] = ()
    to: str = ""
    fill: dict[str, str] = {}
    confirm: bool = False
    answered: int = 0
    data: dict[str, Any] = {}

    def text(self) -> str:
        """All of it as plain text."""
        return "\n".join([self.title, *self.lines, *(f"{label}: {url}" for label, url in self.links)])


class Transient(Exception):  # noqa: N818  named for what it means
    """It may work later. code: short, stable; after: seconds that the gateway asked us to wait."""

    def __init__(self, code: str, after: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.after = after


class Refused(Exception):  # noqa: N818
    """It will not work until a person mends something. code: short, stable."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Send = Callable[[httpx.AsyncClient, Any, Message], Coroutine[Any, Any, str]]


async def send(http: httpx.AsyncClient, gateway: Kinds, message: Message) -> str:
    """The gateway's receipt, "" where it gives none. Raises Transient or Refused."""
    try:
        async with asyncio.timeout(gateway.timeout):
            return await _sender(gateway)(http, gateway, message)
    except TimeoutError:
        raise Transient("timeout") from None
    except httpx.HTTPError as error:
        # its words may hold the address, and the address the token
        raise Transient(f"no-answer-{type(error).__name__}") from None
    except httpx.InvalidURL:
        raise Refused("bad-url") from None


def _sender(gateway: Kinds) -> Send:
    # late: mail and apprise are not loaded where nobody uses them
    from orderstream.actions.senders import mail, other, robots, sms, webhook  # noqa: PLC0415

    table: Mapping[type[Any], Send] = {
        DingTalk: robots.dingtalk,
        WeCom: robots.wecom,
        Feishu: robots.feishu,
        Smtp: mail.smtp,
        AliyunSms: sms.aliyun,
        HttpSms: sms.http,
        Webhook: webhook.post,
        Apprise: other.apprise,
    }
    return table[type(gateway)]


def connections() -> httpx.AsyncClient:
    """What all senders share. No redirects: a gateway that moved is mended by a person, not by whoever answers."""
    return httpx.AsyncClient(follow_redirects=False, limits=httpx.Limits(max_connections=32), timeout=60)


def judge(answer: httpx.Response) -> None:
    """Raises what a status that is not 2xx means."""
    if answer.is_success:
        return
    if answer.status_code in {408, 425, 429} or answer.status_code >= 500:
        told = answer.headers.get("retry-after", "")
        raise Transient(f"http-{answer.status_code}", float(told) if told.isascii() and told.isdigit() else None)
    raise Refused(f"http-{answer.status_code}")


def fields(answer: httpx.Response) -> dict[str, Any]:
    """A JSON object's fields. Raises Transient for what is none: a proxy's page, half an answer."""
    try:
        said = msgspec.json.decode(answer.content[:MAX_ANSWER])
    except msgspec.DecodeError:
        said = None
    if not isinstance(said, dict):
        raise Transient("strange-answer")
    return said
