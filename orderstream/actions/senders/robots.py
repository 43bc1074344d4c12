"""Robots of DingTalk, WeCom and Feishu groups, by their published protocols.

A robot answers 200 and says in the body whether it took the message. None has a place for an idempotency key: after a crash between
its answer and our note of it a group may read a message twice. Each shows the message's short number, so that people see it is one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

import httpx

from orderstream.actions.receivers import DingTalk, Feishu, WeCom
from orderstream.actions.senders import Message, Refused, Transient, fields, judge

_BUSY = {
    DingTalk: {"-1", "130101", "410100", "500001"},
    WeCom: {"-1", "45009", "45033", "6000"},
    Feishu: {"9499", "11232", "11233", "1000004", "1000005"},
}
"""What says: not now. DingTalk 130101/410100, WeCom 45009, Feishu 9499/11232 are their limits a minute."""
REST_SECONDS = 60.0


async def dingtalk(http: httpx.AsyncClient, gateway: DingTalk, message: Message) -> str:
    """An action card with a button a link, else markdown."""
    query: dict[str, str] = {"access_token": gateway.token}
    if gateway.secret:
        stamp = str(time.time_ns() // 1_000_000)
        query |= {"timestamp": stamp, "sign": dingtalk_sign(gateway.secret, stamp)}
    text = "\n\n".join([f"### {message.title}", *message.lines, _mark(message)])
    body: dict[str, Any]
    if message.links:
        buttons = [{"title": label, "actionURL": url} for label, url in message.links]
        card = {"title": message.title, "text": text, "btnOrientation": "0", "btns": buttons}
        body = {"msgtype": "actionCard", "actionCard": card}
    else:
        body = {"msgtype": "markdown", "markdown": {"title": message.title, "text": text}}
    return _told(await http.post(gateway.url, params=query, json=body), gateway, "errcode")


def dingtalk_sign(secret: str, stamp: str) -> str:
    """stamp: ms since 1970."""
    return base64.b64encode(hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()).decode()


async def wecom(http: httpx.AsyncClient, gateway: WeCom, message: Message) -> str:
    """Markdown with its links."""
    links = [f"[{label}]({url})" for label, url in message.links]
    text = "\n".join([f"**{message.title}**", *message.lines, *links, _mark(message)])
    body = {"msgtype": "markdown", "markdown": {"content": _cut(text, 4096)}}
    return _told(await http.post(gateway.url, params={"key": gateway.key}, json=body), gateway, "errcode")


async def feishu(http: httpx.AsyncClient, gateway: Feishu, message: Message) -> str:
    """A card with a button a link."""
    elements: list[dict[str, Any]] = [
        {"tag": "div", "text": {"tag": "plain_text", "content": "\n".join([*message.lines, _mark(message)])}}
    ]
    if message.links:
        buttons = [
            {"tag": "button", "text": {"tag": "plain_text", "content": label}, "url": url, "type": "default"}
            for label, url in message.links
        ]
        elements.append({"tag": "action", "actions": buttons})
    card = {"header": {"title": {"tag": "plain_text", "content": message.title}}, "elements": elements}
    body: dict[str, Any] = {"msg_type": "interactive", "card": card}
    if gateway.secret:
        stamp = str(int(time.time()))
        body |= {"timestamp": stamp, "sign": feishu_sign(gateway.secret, stamp)}
    return _told(await http.post(gateway.url.rstrip("/") + "/" + gateway.token, json=body), gateway, "code")


def feishu_sign(secret: str, stamp: str) -> str:
    """What Feishu wants: the time and the secret are the key, and nothing is signed. stamp: seconds since 1970."""
    return base64.b64encode(hmac.new(f"{stamp}\n{secret}".encode(), b"", hashlib.sha256).digest()).decode()


def _told(answer: httpx.Response, gateway: DingTalk | WeCom | Feishu, field: str) -> str:
    if not answer.is_success and answer.headers.get("content-type", "").startswith("application/json"):
        # Feishu says in the body of a 400 what is wrong, a limit among it
        code = str(fields(answer).get(field, ""))
        if code in _BUSY[type(gateway)]:
            raise Transient(f"busy-{code}", REST_SECONDS)
    judge(answer)
    said = fields(answer)
    code = str(said.get(field, said.get("StatusCode", "none")))
    if code == "0":
        return ""
    if code in _BUSY[type(gateway)]:
        raise Transient(f"busy-{code}", REST_SECONDS)
    raise Refused(f"{field}-{code[:20]}")


def _mark(message: Message) -> str:
    return f"#{message.key[:8]}"


def _cut(text: str, most: int) -> str:
    """At most so many bytes of it, whole characters."""
    return text.encode()[:most].decode(errors="ignore")
