"""Shopify's Admin API (REST): `orders.json` by the time of change, whole orders in the form of its webhooks.

Shopify has no common address: the account's `url` is the shop's own, `https://<shop>.myshopify.com`, and `token` the Admin API's
access token of an app with `read_orders`. Pages hang together by the `Link` header, whose cursor stands for the whole question.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import msgspec

from orderstream import times
from orderstream.channels.reading import part, said
from orderstream.channels.shopify import CHANNEL, TOPIC
from orderstream.orders import Order, Raw
from orderstream.platforms import Answer, Ask, Gone, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Check, Client, Sign
from orderstream.platforms.shared import granted

VERSION = "2025-07"
"""Of the API; Shopify answers with the oldest that it still has when this one is no more."""
PAGE = 250
LISTED = "orders/updated"
"""What a listed order is read as."""
_NEXT = re.compile(r'<([^<>]+)>;\s*rel="?next"?')


class _Orders(msgspec.Struct):
    orders: list[msgspec.Raw]


_ORDERS = msgspec.json.Decoder(_Orders)


class Shopify:
    """The platform; `PLATFORM` is the one there is."""

    channel = "shopify"
    url = ""

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The access token that the app was given when it was installed."""
        return granted(client.account, worn, none="no-token", refused="token-refused")

    async def detail(self, client: Client, number: str) -> bytes:
        """The order as it is now. Webhooks say all, so that the line never asks."""
        return await client.call(_asks(client, f"orders/{number}.json", {}), _one)

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """By `updated_at`, oldest first: what changes while pages are read moves behind them, and into the next stretch."""
        asked = {
            "status": "any",
            "updated_at_min": times.text(since_ms),
            # Shopify's own times have whole seconds, and its bound is meant to be within
            "updated_at_max": times.text(until_ms - 1),
            "order": "updated_at asc",
            "limit": str(PAGE),
        }
        while asked:
            found: list[Answer] = []
            body = await client.call(_asks(client, "orders.json", asked), _kept(found))
            try:
                rows = _ORDERS.decode(body).orders
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise Transient("unreadable") from None
            for row in rows:
                yield _listed(bytes(row))
            cursor = _cursor(found[-1].headers.get("link", ""))
            asked = {} if cursor is None else {"limit": str(PAGE), "page_info": cursor}


PLATFORM = Shopify()


def _asks(client: Client, path: str, params: dict[str, str]) -> Sign:
    if not client.account.url:
        raise Unauthorised("no-url")

    def ask(token: str, now: int) -> Ask:
        del now  # nothing is signed
        headers = {"x-shopify-access-token": token, "accept": "application/json"}
        return Ask(f"/admin/api/{VERSION}/{path}", params, None, headers, "GET")

    return ask


def _kept(found: list[Answer]) -> Check:
    def check(answer: Answer) -> None:
        _judge(answer)
        found.append(answer)

    return check


def _one(answer: Answer) -> None:
    if answer.status == 404 and _errors(answer) == "Not Found":
        raise Gone("404")
    _judge(answer)


def _judge(answer: Answer) -> None:
    # 402: the shop is frozen; 403: without `read_orders`; 423: locked
    if answer.status in {402, 403, 423}:
        raise Unauthorised(f"http-{answer.status}")


def _errors(answer: Answer) -> str | None:
    try:
        return said(part(msgspec.json.decode(answer.body)).get("errors"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _cursor(link: str) -> str | None:
    """The `page_info` of the next page; None after the last."""
    named = _NEXT.search(link)
    values = parse_qs(urlsplit(named[1]).query).get("page_info") if named is not None else None
    return values[0] if values else None


def _listed(row: bytes) -> Listed:
    order = CHANNEL.parse(Raw("shopify", "", 0, row, {TOPIC: LISTED}))
    if isinstance(order, Order):
        return Listed(order.number, order.updated_at, row, {TOPIC: LISTED})
    return Listed("", None, row, {TOPIC: LISTED})
