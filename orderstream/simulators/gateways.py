"""Messengers' and SMS gateways, simulated: they check what the real ones check, by their published protocols, and keep what they take.

`trouble` says what the next calls meet: an answer of their own instead of a success, or a wait. What a caller gave up waiting for has
been taken all the same, as it is in the world.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response


class Taken(msgspec.Struct):
    """A message that a gateway took. key: the idempotency key that came with it, where the protocol has a place for one; at: ms."""

    gateway: str
    key: str
    body: dict[str, Any]
    at: int


class Gateways:
    """All of them behind one address. secret: of the robots, the shop's programs and Aliyun's account alike."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.taken: list[Taken] = []
        self.trouble: list[tuple[str, Callable[[], Response]]] = []
        """(gateway, what it answers): each meets one call, in this order."""
        self.hold: asyncio.Event | None = None
        """While it is not set, answers wait; the message has been taken."""
        self.waiting = 0
        self._nonces: set[str] = set()
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        for path, act in (
            ("/robot/send", self._dingtalk),
            ("/cgi-bin/webhook/send", self._wecom),
            ("/open-apis/bot/v2/hook/{token}", self._feishu),
            ("/aliyun/", self._aliyun),
            ("/sms", self._signed),
            ("/hook", self._signed),
        ):
            self.app.add_api_route(path, act, methods=["POST"])

    def of(self, gateway: str) -> list[Taken]:
        """What one has taken."""
        return [one for one in self.taken if one.gateway == gateway]

    async def _take(self, gateway: str, key: str, body: dict[str, Any], answer: dict[str, Any]) -> Response:
        for number, (name, trouble) in enumerate(self.trouble):
            if name == gateway:
                del self.trouble[number]
                return trouble()
        self.taken.append(Taken(gateway, key, body, time.time_ns() // 1_000_000))
        if self.hold is not None:
            self.waiting += 1
            await self.hold.wait()
        return JSONResponse(answer)

    async def _dingtalk(self, request: Request) -> Response:
        """https://open.dingtalk.com: custom robots."""
        query, body = request.query_params, await request.json()
        stamp = query.get("timestamp", "0")
        digest = hmac.digest(self.secret.encode(), f"{stamp}\n{self.secret}".encode(), "sha256")
        if query.get("access_token") != "token":
            return JSONResponse({"errcode": 300005, "errmsg": "token is not exist"})
        if abs(time.time() * 1000 - int(stamp)) > 3_600_000 or query.get("sign") != base64.b64encode(digest).decode():
            return JSONResponse({"errcode": 310000, "errmsg": "sign not match"})
        card = body.get(body.get("msgtype"), {})
        if not card.get("title") or not card.get("text"):
            return JSONResponse({"errcode": 40035, "errmsg": "invalid message"})
        return await self._take("dingtalk", "", body, {"errcode": 0, "errmsg": "ok"})

    async def _wecom(self, request: Request) -> Response:
        """https://developer.work.weixin.qq.com: group robots."""
        body = await request.json()
        if request.query_params.get("key") != "key":
            return JSONResponse({"errcode": 93000, "errmsg": "invalid webhook url"})
        content = body.get("markdown", {}).get("content", "")
        if body.get("msgtype") != "markdown" or not 0 < len(content.encode()) <= 4096:
            return JSONResponse({"errcode": 40058, "errmsg": "invalid Request Parameter"})
        return await self._take("wecom", "", body, {"errcode": 0, "errmsg": "ok"})

    async def _feishu(self, token: str, request: Request) -> Response:
        """https://open.feishu.cn: custom bots. The key of the signature is time and secret, its message is empty."""
        body = await request.json()
        stamp = str(body.get("timestamp", "0"))
        sign = base64.b64encode(hmac.digest(f"{stamp}\n{self.secret}".encode(), b"", hashlib.sha256)).decode()
        if abs(time.time() - int(stamp)) > 3_600 or body.get("sign") != sign or token != "token":  # noqa: S105  a name
            return JSONResponse({"code": 19021, "msg": "sign match fail or timestamp is not within one hour"}, 400)
        if body.get("msg_type") != "interactive" or "elements" not in body.get("card", {}):
            return JSONResponse({"code": 9499, "msg": "Bad Request"}, 400)
        return await self._take("feishu", "", body, {"code": 0, "msg": "success", "data": {}})

    async def _aliyun(self, request: Request) -> Response:
        """https://help.aliyun.com: SendSms by RPC. A nonce is taken once."""
        said = {name: str(value) for name, value in (await request.form()).items()}
        signature = said.pop("Signature", "")
        canonical = "&".join(f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in sorted(said.items()))
        text = f"POST&%2F&{quote(canonical, safe='-_.~')}"
        right = base64.b64encode(hmac.digest(f"{self.secret}&".encode(), text.encode(), hashlib.sha1)).decode()
        if said.get("AccessKeyId") != "key-id":
            return JSONResponse({"Code": "InvalidAccessKeyId.NotFound", "Message": "…"}, 404)
        if signature != right:
            return JSONResponse({"Code": "SignatureDoesNotMatch", "Message": "…"}, 400)
        nonce = said["SignatureNonce"]
        if nonce in self._nonces:
            return JSONResponse({"Code": "SignatureNonceUsed", "Message": "…"}, 400)
        self._nonces.add(nonce)
        number = said["PhoneNumbers"]
        if not number.isdigit():
            return JSONResponse({"Code": "isv.MOBILE_NUMBER_ILLEGAL", "Message": "…"})
        body = {**said, "TemplateParam": json.loads(said["TemplateParam"])}
        return await self._take("aliyun", said.get("OutId", ""), body, {"Code": "OK", "BizId": f"biz-{len(self.taken)}"})

    async def _signed(self, request: Request) -> Response:
        """A program of the shop's own: our signature, and each key once."""
        raw = await request.body()
        stamp = request.headers.get("x-orderstream-timestamp", "0")
        right = "sha256=" + hmac.digest(self.secret.encode(), f"{stamp}.".encode() + raw, "sha256").hex()
        if request.headers.get("x-orderstream-signature") != right or abs(time.time() - int(stamp)) > 300:
            return JSONResponse({"error": "signature"}, 401)
        name = request.url.path.strip("/")
        return await self._take(name, request.headers["idempotency-key"], json.loads(raw), {"receipt": f"r-{len(self.taken)}"})


class MailServer:
    """A mail server of a few words: takes mail by SMTP without TLS, and keeps it. refuse: the answer to a receiver, by address."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.refuse: dict[str, str] = {}
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        say("220 mail ready")
        while line := (await reader.readline()).decode(errors="replace").strip():
            word = line.split(" ", 1)[0].upper()
            if word in ("EHLO", "HELO"):
                say("250 mail")
            elif word == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                say(self.refuse.get(address, "250 ok"))
            elif word == "DATA":
                say("354 go on")
                data = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(data.decode(errors="replace"))
                say("250 taken")
            elif word == "QUIT":
                say("221 bye")
                break
            else:
                say("250 ok")
        writer.close()
