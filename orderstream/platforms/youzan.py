"""Youzan's cloud: `youzan.trade.get`, `youzan.trades.sold.get`, and its tokens.

The token stands in the address and nowhere else. An app of the shop's own gets its tokens for the shop's number, `kdt_id` (the
account's `extra`); another has them from the shop's consent, once. Its gateway answers everything with status 200.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from pydantic import SecretStr

from orderstream.channels import youzan
from orderstream.channels.reading import Fault, optional_beijing, part, said, true, whole
from orderstream.platforms import Answer, Ask, Gone, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Client, Sign
from orderstream.times import SECOND, beijing

PAGE, MAX_PAGES = 100, 100
DETAIL, LIST = "youzan.trade.get/4.0.2", "youzan.trades.sold.get/4.0.4"
_SUCCESS = 200
_LIMITED = frozenset({4101, 500_100_004, 123_000_042, 141_500_203})
_LIMITED_SECONDS = 3.0
_WHO = frozenset({4007, 4201, 4202, 4203, 4204, 1000, 1004, 1005, 1103, 1105})
"""Token, right, address or app not what it takes."""
_NONE = frozenset({106_000_004, 106_100_110})
_NOT_FOUND = 5000, "trade not found"


class _List(msgspec.Struct):
    total_results: Any = None
    full_order_info_list: list[msgspec.Raw] | None = None


class _Page(msgspec.Struct):
    data: _List | None = None


_PAGE = msgspec.json.Decoder(_Page)


class Youzan:
    """The platform; `PLATFORM` is the one there is."""

    channel = "youzan"
    url = "https://open.youzanyun.com"

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The account's own token first; then one for the refresh token; then, for an app of the shop's own, a new one."""
        account = client.account
        if worn is None and account.token is not None:
            return Token(account.token, refresh=account.refresh_token)
        if worn is not None and worn.refresh is not None:
            return await _token(client, {"authorize_type": "refresh_token", "refresh_token": worn.refresh.get_secret_value()})
        shop = account.extra.get("kdt_id")
        if not shop:
            raise Unauthorised("token-expired")
        return await _token(client, {"authorize_type": "silent", "grant_id": shop, "refresh": worn is not None})

    async def detail(self, client: Client, number: str) -> bytes:
        """The answer of `youzan.trade.get`. It may come from a replica some seconds behind; `parse` knows."""

        def check(answer: Answer) -> None:
            info = part(part(_data(answer).get("full_order_info")).get("order_info"))
            if said(info.get("tid")) != number:
                raise Transient("no-detail")

        return await client.call(_asks(DETAIL, {"tid": number}), check)

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """By `update_time`; a stretch with more orders than the platform has pages for is asked for by halves."""
        stretches = [(since_ms, until_ms)]
        while stretches:
            since, until = stretches.pop()
            for page in range(1, MAX_PAGES + 1):
                listed = await _listed(client, since, until, page)
                total = whole(listed.total_results) or 0
                if total > PAGE * MAX_PAGES and until - since > SECOND:
                    middle = since + max((until - since) // 2 // SECOND * SECOND, SECOND)
                    stretches += [(middle, until), (since, middle)]
                    break
                for row in listed.full_order_info_list or ():
                    one = _row(bytes(row), until)
                    if one is not None:
                        yield one
                if page * PAGE >= total or not listed.full_order_info_list:
                    break


PLATFORM = Youzan()


async def _listed(client: Client, since: int, until: int, page: int) -> _List:
    span = {"start_update": beijing(since), "end_update": beijing(until + SECOND - 1)}
    body = await client.call(_asks(LIST, span | {"page_no": page, "page_size": PAGE}), _checked)
    try:
        return _PAGE.decode(body).data or _List()
    except msgspec.ValidationError:
        raise Transient("unreadable") from None


def _row(row: bytes, until: int) -> Listed | None:
    info = part(part(part(msgspec.json.decode(row)).get("full_order_info")).get("order_info"))
    number = said(info.get("tid"))
    if number is None:
        return None
    try:
        changed_at = optional_beijing(info.get("update_time"), "update_time")
    except Fault:
        changed_at = None
    return Listed(number, changed_at, youzan.changed(number, changed_at or until), detail=row)


def _asks(name: str, params: Mapping[str, Any]) -> Sign:
    body = msgspec.json.encode(params)

    def ask(token: str, now: int) -> Ask:
        del now  # nothing is signed
        return Ask(f"/api/{name}", {"access_token": token}, body, {"content-type": "application/json"})

    return ask


async def _token(client: Client, params: Mapping[str, Any]) -> Token:
    account = client.account
    given = {"client_id": account.app_key, "client_secret": account.app_secret.get_secret_value(), **params}
    body = msgspec.json.encode(given)

    def ask(token: str, now: int) -> Ask:
        del token, now
        return Ask("/auth/token", {}, body, {"content-type": "application/json"})

    data = part(part(msgspec.json.decode(await client.call(ask, _checked, anonymous=True))).get("data"))
    value, refresh = said(data.get("access_token")), said(data.get("refresh_token"))
    if value is None:
        raise Transient("no-token")
    # `expires` is a time in ms, not how long it lasts
    return Token(SecretStr(value), whole(data.get("expires")) or None, None if refresh is None else SecretStr(refresh))


def _checked(answer: Answer) -> None:
    _data(answer)


def _data(answer: Answer) -> dict[str, Any]:
    """The data of an answer. Raises what the answer means where it has none."""
    try:
        found = part(msgspec.json.decode(answer.body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Transient("unreadable") from None
    gateway = part(found.get("gw_err_resp"))
    code = whole(gateway.get("err_code") if gateway else found.get("code"))
    if not gateway and code == _SUCCESS and true(found.get("success")) is not False:
        return part(found.get("data"))
    named = "unreadable" if code is None else str(code)
    if code in _LIMITED:
        raise Transient(named, retry_after=_LIMITED_SECONDS)
    if code in _WHO:
        raise Unauthorised(named)
    if code in _NONE or (code, said(found.get("message"))) == _NOT_FOUND:
        raise Gone(named)
    raise Transient(named)
