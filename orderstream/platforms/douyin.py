"""Douyin's open platform: `order.orderDetail`, `order.searchList`, and its tokens.

A request's sign is HMAC-SHA256 over app key, method, parameters, time and version, with the app secret around them and as the key.
An app of the shop's own gets its tokens for `shop_id` (the account's `extra`); another has them from the shop's consent, once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from pydantic import SecretStr

from orderstream import times
from orderstream.channels import douyin
from orderstream.channels.reading import part, parts, said, whole
from orderstream.platforms import Answer, Ask, Gone, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Client, Sign

PAGE = 100
MAX_PAGES = 500
"""The platform lists no further than 50,000 orders; who has more in one stretch is asked for a part of it at a time."""
_SUCCESS = 10_000
_LIMITED = 60_000
_NO_RIGHT = frozenset({30_001, 30_002})
"""No right to the interface, or not from this address."""
_WHO = (
    "isv.access-token",
    "isv.app-id",
    "isv.signature",
    "isv.authorization",
    "dop.authorization",
    "dop.token-generate",
    "dop.app",
)
_NONE = ("订单不存在", "order not exist")
_CODE = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Douyin:
    """The platform; `PLATFORM` is the one there is."""

    channel = "douyin"
    url = "https://openapi-fxg.jinritemai.com"

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The account's own token first; then one for the refresh token; then, for an app of the shop's own, a new one."""
        account = client.account
        if worn is None and account.token is not None:
            return Token(account.token, refresh=account.refresh_token)
        shop = account.extra.get("shop_id")
        if worn is not None and worn.refresh is not None:
            try:
                return await _token(
                    client, "token.refresh", {"grant_type": "refresh_token", "refresh_token": worn.refresh.get_secret_value()}
                )
            except Unauthorised:
                if not shop:
                    raise
        if not shop:
            raise Unauthorised("token-expired")
        return await _token(client, "token.create", {"code": "", "grant_type": "authorization_self", "shop_id": shop})

    async def detail(self, client: Client, number: str) -> bytes:
        """The answer of `order.orderDetail`."""

        def check(answer: Answer) -> None:
            order = part(_data(answer).get("shop_order_detail"))
            if said(order.get("order_id")) != number:
                raise Transient("no-detail")

        return await client.call(_asks(client, "order.orderDetail", {"shop_order_id": number}), check)

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """By `update_time`, oldest first: what changes while the pages are read moves behind them, and is not skipped."""
        span = {"update_time_start": str(since_ms // 1000), "update_time_end": str(-(-until_ms // 1000))}
        order = {"order_by": "update_time", "order_asc": "true", "size": str(PAGE)}
        for page in range(MAX_PAGES):
            asks = _asks(client, "order.searchList", span | order | {"page": str(page)})
            data = _page(await client.call(asks, _checked))
            rows = parts(data.get("shop_order_list"))
            for row in rows:
                number, changed_at = said(row.get("order_id")), whole(row.get("update_time"))
                if number is not None:
                    at = None if not changed_at else changed_at * times.SECOND
                    yield Listed(number, at, douyin.changed(number, at or until_ms))
            if not rows or (page + 1) * PAGE >= (whole(data.get("total")) or 0):
                return


PLATFORM = Douyin()


def sign(secret: str, app_key: str, method: str, param_json: str, timestamp: str) -> str:
    """The `sign` of a request, hex."""
    said_ = f"app_key{app_key}method{method}param_json{param_json}timestamp{timestamp}v2"
    return hmac.new(secret.encode(), f"{secret}{said_}{secret}".encode(), hashlib.sha256).hexdigest()


def _asks(client: Client, method: str, params: Mapping[str, str]) -> Sign:
    account = client.account
    body = msgspec.json.encode(dict(sorted(params.items())))

    def ask(token: str, now: int) -> Ask:
        stamp = times.beijing(now)
        query = {"app_key": account.app_key, "method": method, "timestamp": stamp, "v": "2", "sign_method": "hmac-sha256"}
        query["sign"] = sign(account.app_secret.get_secret_value(), account.app_key, method, body.decode(), stamp)
        if token:
            query["access_token"] = token
        return Ask("/" + method.replace(".", "/"), query, body, {"content-type": "application/json"})

    return ask


async def _token(client: Client, method: str, params: Mapping[str, str]) -> Token:
    now = 0

    def asks(token: str, at: int) -> Ask:
        nonlocal now
        now = at
        return _asks(client, method, params)(token, at)

    data = _page(await client.call(asks, _checked, anonymous=True))
    value, lasts, refresh = said(data.get("access_token")), whole(data.get("expires_in")), said(data.get("refresh_token"))
    if value is None:
        raise Transient("no-token")
    return Token(
        SecretStr(value),
        None if not lasts else now + lasts * times.SECOND,
        None if refresh is None else SecretStr(refresh),
    )


def _page(body: bytes) -> dict[str, Any]:
    return part(part(msgspec.json.decode(body)).get("data"))


def _checked(answer: Answer) -> None:
    _data(answer)


def _data(answer: Answer) -> dict[str, Any]:
    """The data of an answer. Raises what the answer means where it has none."""
    try:
        found = part(msgspec.json.decode(answer.body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Transient("unreadable") from None
    code = whole(found.get("code"))
    if code == _SUCCESS or (code is None and whole(found.get("err_no")) == 0):
        return part(found.get("data"))
    sub = said(found.get("sub_code")) or ""
    named = sub if _CODE.fullmatch(sub) else str(code if code is not None else "unreadable")
    if code == _LIMITED:
        raise Transient(named, retry_after=1.0)
    if code in _NO_RIGHT or sub.startswith(_WHO):
        raise Unauthorised(named)
    if any(word in (said(found.get(name)) or "") for name in ("msg", "sub_msg", "message") for word in _NONE):
        raise Gone(named)
    raise Transient(named)
