"""Taobao and Tmall's API (TOP): a trade whole, the trades that changed, and the queue of messages (TMC).

Law: a message is confirmed when it is kept, and not before: what is pulled and not confirmed comes again. Whoever pulls says
which messages are kept; this module only asks.

A request is a form; its `sign` is made as that of an SPI call (`channels.taobao.digest`). The session comes from the seller, who
grants it on a page of the platform: no call renews it here. Errors come with status 200 as `error_response`.

Account: `url` "" (https://eco.taobao.com), `token` the session, `extra`: `group`, the group of the message queue ("default");
`user_id`, the seller's number. The queue is the app's, not the shop's: with several shops of one app, `user_id` tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

import msgspec
import orjson

from orderstream import times
from orderstream.channels import reading, taobao_trade
from orderstream.channels.reading import Fault, part, parts, said
from orderstream.channels.taobao import digest, messages
from orderstream.platforms import Answer, Ask, Gone, Listed, Pulled, Token, Transient, Unauthorised
from orderstream.platforms.client import Check, Client, Sign
from orderstream.platforms.shared import backwards, granted

PAGE = 100
"""Trades of a page: the most that the platform gives."""
MAX_PULL = 200
"""Messages of a pull, and ids of a confirmation: the most that the platform takes."""
WINDOW = times.DAY
"""The longest time that one question for changes may span (ms)."""
FIELDS = (
    "tid,tid_str,status,type,created,modified,pay_time,payment,total_fee,discount_fee,adjust_fee,post_fee,coupon_fee,received_payment,"
    "step_trade_status,step_paid_fee,alipay_no,pay_channel,buyer_alipay_no,buyer_nick,buyer_open_uid,buyer_email,buyer_ip,buyer_message,"
    "receiver_name,receiver_state,receiver_city,receiver_district,receiver_town,receiver_address,receiver_zip,receiver_mobile,"
    "receiver_phone,receiver_country,send_time,mark_desc,top_hold,team_buy_hold,share_group_hold,ofp_hold,forbid_consign,is_gift,"
    "donee_nick,donee_open_uid,trade_from,promotion_details,orders"
)
"""What `taobao_trade` reads. name, mobile, address and created are among them, or the platform gives no oaid."""

_GONE = frozenset({"isv.trade-not-exist"})
_NO_RIGHT = frozenset({"11", "12", "13", "24", "25", "26", "27", "28", "29", "30"})
"""Codes of missing rights, wrong signs, dead sessions and unknown keys."""
_LIMITED = "7"
_BAN = re.compile(r"last for ([0-9]{1,5}) more seconds")
_CODE = re.compile(r"[\w.:-]{1,64}")


class _About(msgspec.Struct):
    id: int | str
    user_id: int | str | None = None


_ABOUT = msgspec.json.Decoder(_About)


class Taobao:
    """The platform; `PLATFORM` is the one there is."""

    channel = "taobao"
    url = "https://eco.taobao.com"

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The session that the seller granted."""
        return granted(client.account, worn, none="no-session", refused="session-refused")

    async def detail(self, client: Client, number: str) -> bytes:
        """`taobao.trade.fullinfo.get`, with the key that addresses are compared by."""
        ask = {"tid": number, "fields": FIELDS, "include_oaid": "true"}
        return await client.call(_sign(client, "taobao.trade.fullinfo.get", ask), _check("trade_fullinfo_get_response"))

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """`taobao.trades.sold.increment.get`, day by day."""
        while since_ms < until_ms:
            end = min(since_ms + WINDOW, until_ms)
            async for page in backwards(partial(self._page, client, since_ms, end), _total, PAGE):
                for trade in parts(_listed(page.get("trades"))):
                    number = taobao_trade.number(trade)
                    if number is not None:
                        yield Listed(number, _changed_at(trade), _message(number, trade))
            since_ms = end

    async def _page(self, client: Client, since_ms: int, until_ms: int, page: int) -> dict[str, Any]:
        ask = {
            "fields": "tid,tid_str,status,modified",
            "start_modified": times.beijing(since_ms),
            "end_modified": times.beijing(until_ms - 1),
            "page_no": str(page),
            "page_size": str(PAGE),
            "use_has_next": "false",
        }
        name = "trades_sold_increment_get_response"
        body = await client.call(_sign(client, "taobao.trades.sold.increment.get", ask), _check(name))
        return part(part(orjson.loads(body)).get(name))

    async def pull(self, client: Client, most: int = MAX_PULL) -> list[Pulled]:
        """`taobao.tmc.messages.consume`: up to `most` messages, which come again unless they are confirmed."""
        ask = {"quantity": str(min(most, MAX_PULL)), "group_name": _group(client)}
        name = "tmc_messages_consume_response"
        body = await client.call(_sign(client, "taobao.tmc.messages.consume", ask), _check(name))
        found = []
        for one in messages(body):
            try:
                about = _ABOUT.decode(one)
            except msgspec.DecodeError:
                raise Transient("unreadable") from None
            found.append(Pulled(str(about.id), said(about.user_id), one))
        return found

    async def confirm(self, client: Client, kept: Sequence[str], failed: Sequence[str] = ()) -> None:
        """`taobao.tmc.messages.confirm`: these are kept; these were not, and may come again at once."""
        for at in range(0, max(len(kept), len(failed)), MAX_PULL):
            named = {"s_message_ids": kept[at : at + MAX_PULL], "f_message_ids": failed[at : at + MAX_PULL]}
            ask = {"group_name": _group(client)} | {name: ",".join(ids) for name, ids in named.items() if ids}
            await client.call(_sign(client, "taobao.tmc.messages.confirm", ask), _check("tmc_messages_confirm_response"))


PLATFORM = Taobao()


def _group(client: Client) -> str:
    return client.account.extra.get("group", "default")


def _sign(client: Client, method: str, ask: Mapping[str, str]) -> Sign:
    account = client.account

    def sign(token: str, now_ms: int) -> Ask:
        params = {
            **ask,
            "method": method,
            "app_key": account.app_key,
            "session": token,
            "timestamp": times.beijing(now_ms),
            "format": "json",
            "v": "2.0",
            "sign_method": "md5",
        }
        params["sign"] = digest(account.app_secret.get_secret_value().encode(), params)
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        return Ask("/router/rest", body=urlencode(params).encode(), headers=headers)

    return sign


def _check(name: str) -> Check:
    """What an answer means. name: of the response that was asked for."""

    def check(answer: Answer) -> None:
        try:
            body = part(orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            raise Transient("unreadable") from None
        error = part(body.get("error_response"))
        if error:
            _raise(error)
        if name not in body:
            raise Transient("unreadable")

    return check


def _raise(error: Mapping[str, Any]) -> None:
    code, sub = said(error.get("code")) or "", said(error.get("sub_code")) or ""
    named = sub if _CODE.fullmatch(sub) else code if _CODE.fullmatch(code) else "error"
    if sub in _GONE:
        raise Gone(named)
    if code == _LIMITED or "call-limited" in sub or "access-count" in sub:
        ban = _BAN.search(said(error.get("sub_msg")) or "")
        raise Transient(named, float(ban[1]) if ban else 1.0)
    if code in _NO_RIGHT:
        raise Unauthorised(named)
    raise Transient(named)


def _total(page: Mapping[str, Any]) -> Any:
    return page.get("total_results")


def _listed(given: Any) -> Any:
    inner = given.get("trade", given) if isinstance(given, dict) else given
    return [inner] if isinstance(inner, dict) and inner else inner


def _changed_at(trade: Mapping[str, Any]) -> int | None:
    """As the order's `updated_at` says it, so far as the list knows its status."""
    try:
        modified = reading.optional_beijing(trade.get("modified"), "modified")
    except Fault:
        return None
    status = taobao_trade.STATUS.get(said(trade.get("status")) or "", "created")
    return None if modified is None else reading.as_of(modified, status)


def _message(number: str, trade: Mapping[str, Any]) -> bytes:
    """What TMC would have said of a trade that changed."""
    content = {"tid": int(number), "status": said(trade.get("status")), "modified": said(trade.get("modified"))}
    return orjson.dumps({"topic": "taobao_trade_TradeChanged", "content": orjson.dumps(content).decode()})
