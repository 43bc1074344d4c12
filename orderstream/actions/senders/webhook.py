"""A signed webhook: the action as JSON to a program of the shop's own.

`X-Orderstream-Timestamp` (Unix seconds), `X-Orderstream-Signature: sha256=<hex of HMAC-SHA256(secret, "<timestamp>." + raw body)>`,
`Idempotency-Key`: the receiver does each key once and answers 2xx, for a repeat too. As the channel `api` signs, so one function of
the shop's checks both ways.
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec

from orderstream.actions.receivers import Webhook
from orderstream.actions.senders import Message, fields, judge
from orderstream.channels.api import sign


async def signed(client: httpx.AsyncClient, url: str, secret: str, key: str, body: dict[str, Any]) -> httpx.Response:
    """The answer to a signed request."""
    raw = msgspec.json.encode(body)
    headers = {**sign(raw, secret, int(time.time())), "Idempotency-Key": key, "Content-Type": "application/json"}
    return await client.post(url, content=raw, headers=headers)


async def post(client: httpx.AsyncClient, gateway: Webhook, message: Message) -> str:
    """Any 2xx is a success; a receipt may stand in `receipt`."""
    links = [{"label": label, "url": url} for label, url in message.links]
    body = {"id": message.key, **message.data, "title": message.title, "lines": message.lines, "links": links}
    answer = await signed(client, gateway.url, gateway.secret, message.key, body)
    judge(answer)
    return str(fields(answer).get("receipt", ""))[:80] if answer.content[:1] == b"{" else ""
