"""WeChat shop's API: a token for app id and app secret, an order by its number, which orders and after-sales have changed.

Law: an answer is what its `errcode` says, whatever the HTTP status. No code is known to say "there is no such order", so nothing
is ever `Gone` here: what cannot be fetched stays pending, where it is seen. An account's `app_key` is the app's id.

A new token is asked for without force first: another process may have renewed it, and a forced one takes the token from all
others and is given twenty times a day.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from pydantic import SecretStr

from orderstream.channels.reading import said, true, unsaid, whole
from orderstream.channels.wechat import CHANNEL, REFUND_DONE, aftersale_done, polled
from orderstream.orders import Order, Raw
from orderstream.platforms import Answer, Ask, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Client, Resting
from orderstream.times import DAY, SECOND

PAGE = 100
WIDTH = 8
"""Details that are asked for at a time."""
MAX_PAGES = 1_000
"""Of one list: more is a list that never ends."""
ORDER_WINDOW, AFTERSALE_WINDOW = 7 * DAY, DAY
"""The longest time (ms) that one list may be asked for."""
WORN = frozenset({40001, 40014, 41001, 42001})
"""The token is none, or no longer one."""
BARRED = frozenset({40013, 40125, 40164, 41002, 41004, 48001})
"""App id, secret, address or right are not what it takes: only a person can help."""
_CODE = re.compile(r"-?[0-9]{1,9}")
WAITS = {45009: 60.0, 45011: 1.0}
"""A day's quota is used up, or a minute's: seconds to call nothing."""


class WeChat:
    """The platform; `PLATFORM` is the one there is."""

    channel = "wechat"
    url = "https://api.weixin.qq.com"

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The app's token: the one in force, or a forced new one where that is the worn one itself."""
        found = await self._token(client, force=False)
        if worn is not None and found.value == worn.value:
            found = await self._token(client, force=True)
        return found

    async def detail(self, client: Client, number: str) -> bytes:
        """The order of this number."""
        return await client.call(_ask("/channels/ec/order/get", {"order_id": number}), _holds("order"))

    async def aftersale(self, client: Client, number: str) -> bytes:
        """The after-sale case of this number (not an order's)."""
        path = "/channels/ec/aftersale/getaftersaleorder"
        return await client.call(_ask(path, {"after_sale_order_id": number}), _holds("after_sale_order"))

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """Orders by the time of their last change, then refunds that went through, each with its answer as the detail.

        A list holds numbers alone: what has been seen can only be told from the details, so they are asked for here.
        """
        for begin, end in _windows(since_ms, until_ms, ORDER_WINDOW):
            asked: dict[str, Any] = {"update_time_range": {"start_time": begin, "end_time": end}, "page_size": PAGE}
            async for numbers in _pages(client, "/channels/ec/order/list/get", asked, "order_id_list"):
                found = await asyncio.gather(*(self._listed(client, one) for one in numbers), return_exceptions=True)
                for one in found:
                    if isinstance(one, BaseException):
                        raise one
                    yield one
        for begin, end in _windows(since_ms, until_ms, AFTERSALE_WINDOW):
            asked = {"begin_update_time": begin, "end_update_time": end}
            async for cases in _pages(client, "/channels/ec/aftersale/getaftersalelist", asked, "after_sale_order_id_list"):
                for case in cases:
                    answer = await self.aftersale(client, case)
                    stated = _object(answer)["after_sale_order"]
                    order = said(stated.get("order_id"))
                    if order is not None and said(stated.get("status")) in REFUND_DONE:
                        yield Listed(order, None, aftersale_done(order, case), detail=answer)

    async def _listed(self, client: Client, number: str) -> Listed:
        """A listed order with its detail, or without where the platform has none now: then it waits like any event's."""
        try:
            answer = await self.detail(client, number)
        except Resting:
            raise
        except Transient:
            return Listed(number, None, polled(number))
        order = CHANNEL.parse(Raw(self.channel, client.account.shop, 0, polled(number), detail=answer))
        return Listed(number, order.updated_at if isinstance(order, Order) else None, polled(number), detail=answer)

    async def _token(self, client: Client, *, force: bool) -> Token:
        account = client.account
        asked = {
            "grant_type": "client_credential",
            "appid": account.app_key,
            "secret": account.app_secret.get_secret_value(),
            "force_refresh": force,
        }
        answer = await client.call(_ask("/cgi-bin/stable_token", asked), _check, anonymous=True)
        given = _object(answer)
        value, seconds = said(given.get("access_token")), whole(given.get("expires_in"))
        if value is None:
            raise Transient("no-token")
        ends = time.time_ns() // 1_000_000 + seconds * SECOND if seconds else None
        return Token(SecretStr(value), ends)


PLATFORM = WeChat()


def _ask(path: str, asked: Mapping[str, Any]) -> Callable[[str, int], Ask]:
    body = msgspec.json.encode(asked)

    def sign(token: str, now_ms: int) -> Ask:
        del now_ms  # nothing but the token proves a call
        return Ask(path, {"access_token": token} if token else {}, body, {"content-type": "application/json"})

    return sign


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Transient("unreadable") from None
    if not isinstance(found, dict):
        raise Transient("unreadable")
    return found


def _check(answer: Answer) -> None:
    given = _object(answer.body).get("errcode")
    stated = "0" if unsaid(given) else said(given)
    if stated is None or not _CODE.fullmatch(stated):
        raise Transient("unreadable")
    code = int(stated)
    if code == 0:
        return
    if code in WORN or code in BARRED:
        raise Unauthorised(f"errcode-{code}")
    # everything else is tried again, also what the platform thinks up tomorrow
    raise Transient(f"errcode-{code}", WAITS.get(code))


def _holds(name: str) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        _check(answer)
        if not isinstance(_object(answer.body).get(name), dict):
            raise Transient("no-detail")

    return check


def _windows(since_ms: int, until_ms: int, longest: int) -> list[tuple[int, int]]:
    """Unix seconds that cover [since, until), in stretches that the platform takes."""
    return [
        (begin // SECOND, -(-min(begin + longest, until_ms) // SECOND))
        for begin in range(since_ms // SECOND * SECOND, until_ms, longest)
    ]


async def _pages(client: Client, path: str, asked: Mapping[str, Any], name: str) -> AsyncIterator[list[str]]:
    """Every number that a list has, some at a time."""
    key = ""
    for _ in range(MAX_PAGES):
        page = _object(await client.call(_ask(path, {**asked, "next_key": key} if key else asked), _check))
        given = page.get(name)
        numbers = list(dict.fromkeys(filter(None, map(said, given if isinstance(given, list) else ()))))
        for start in range(0, len(numbers), WIDTH):
            yield numbers[start : start + WIDTH]
        following = said(page.get("next_key")) or ""
        if not true(page.get("has_more")):
            return
        if not following or following == key:
            break
        key = following
    raise Transient("endless-list")
