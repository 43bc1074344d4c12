"""JD's API (JOS): the orders that changed, whole, and the refunds that were decided.

Law: only the fields that `optional_fields` names come back: what the channel reads must stand there.

A request's `sign` is the upper-case hex MD5 of secret + every key and value, sorted by key + secret. The access token comes from the
seller, who grants it on a page of the platform. The order API answers from 云鼎 alone, JD's cloud: run `orderstream fetch` there, or
give a relay's address as `url`. The wrapper's name is JD's: "responce".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from urllib.parse import urlencode

import msgspec
import orjson

from orderstream import times
from orderstream.channels import jd, reading
from orderstream.channels.reading import Fault, part, said, true, unsaid
from orderstream.platforms import Answer, Ask, Listed, Token, Transient, Unauthorised
from orderstream.platforms.client import Check, Client, Resting, Sign
from orderstream.platforms.shared import backwards, granted

PAGE = 100
REFUND_PAGE = 50
WINDOW = 15 * times.DAY
"""The longest time that one question may span (ms): the platform allows a month."""
STATES = (
    "WAIT_SELLER_STOCK_OUT,WAIT_GOODS_RECEIVE_CONFIRM,WAIT_SELLER_DELIVERY,PAUSE,POP_ORDER_PAUSE,FINISHED_L,TRADE_CANCELED,LOCKED,"
    "DELIVERY_RETURN"
)
FIELDS = (
    "orderId,parentOrderId,directParentOrderId,orderType,orderState,orderStateRemark,orderStartTime,paymentConfirmTime,modified,payType,"
    "orderTotalPrice,orderSellerPrice,orderPayment,sellerDiscount,freightPrice,balanceUsed,shouldPay,couponDetailList,itemInfoList,pin,"
    "open_id_buyer,xid_buyer,consigneeInfo,orderRemark,venderRemark,orderSource,returnOrder,storeOrder,sendpayMap"
)

_SEARCH = "jingdong_pop_order_search_responce"
_GET = "jingdong_pop_order_get_responce"
_REFUNDS = "jingdong_pop_afs_soa_refundapply_queryPageList_responce"
_CODE = re.compile(r"[\w.:-]{1,64}")
_NO_RIGHT = frozenset({"18", "19"})
"""Codes of a missing and of a dead access token."""
_OURS = ("token", "签名", "signature", "app_key")
"""What the words of an error name that only a person can mend."""


class _Found(msgspec.Struct):
    orderTotal: int | str | None = 0  # noqa: N815  JD's name
    orderInfoList: msgspec.Raw = msgspec.Raw()  # noqa: N815  the same


class _Searched(msgspec.Struct):
    searchorderinfo_result: _Found


class _Search(msgspec.Struct):
    jingdong_pop_order_search_responce: _Searched


class _Applied(msgspec.Struct):
    totalCount: int | str | None = 0  # noqa: N815  JD's name
    result: msgspec.Raw = msgspec.Raw()


class _Queried(msgspec.Struct):
    queryResult: _Applied  # noqa: N815  JD's name


class _Refunds(msgspec.Struct):
    responce: _Queried = msgspec.field(name=_REFUNDS)


_SEARCHED = msgspec.json.Decoder(_Search)
_REFUNDED = msgspec.json.Decoder(_Refunds)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_NOTHING = frozenset({b"", b"null", b'""', b"{}"})


class Jd:
    """The platform; `PLATFORM` is the one there is."""

    channel = "jd"
    url = "https://api.jd.com"

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The access token that the seller granted."""
        return granted(client.account, worn, none="no-token", refused="token-refused")

    async def detail(self, client: Client, number: str) -> bytes:
        """`jingdong.pop.order.get`."""
        ask = {"order_id": number, "optional_fields": FIELDS}
        return await client.call(_sign(client, "jingdong.pop.order.get", ask), _check(_GET, "orderDetailInfo"))

    async def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """Orders by the time of their change, each row as it came, then the refunds that were decided in that time.

        A row of a split order's child comes once more for each order that it was split from, unless that one has been shipped:
        then the child's own row says so.
        """
        while since_ms < until_ms:
            end = min(since_ms + WINDOW, until_ms)
            async for one in self._orders(client, since_ms, end):
                yield one
            async for one in self._refunds(client, since_ms, end):
                yield one
            since_ms = end

    async def _orders(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        left: dict[str, str] = {}
        async for page in backwards(partial(self._search, client, since_ms, until_ms), lambda one: one.orderTotal, PAGE):
            for row in _rows(page.orderInfoList):
                parents = jd.parents(row)
                for parent in {*parents} - left.keys():
                    left[parent] = await self._left(client, parent)
                # a number before "?"
                told = min((left[one] for one in parents if left[one]), default="")
                yield _listed(row, {jd.LEFT: told} if told else {})
                for parent in parents:
                    if left[parent] != parent:
                        yield Listed(parent, None, row, {jd.PARENT: parent})

    async def _left(self, client: Client, parent: str) -> str:
        """What `jd.LEFT` says of a parent; "" for one that has not been shipped."""
        try:
            return parent if jd.shipped(await self.detail(client, parent)) else ""
        except Transient as error:
            # whether JD knows an order that it has split is not written anywhere: no list may wait for that
            if isinstance(error, Resting) or error.code.startswith(("http-", "timeout")):
                raise
            return "?"

    async def _search(self, client: Client, since_ms: int, until_ms: int, page: int) -> _Found:
        ask = {
            "start_date": times.beijing(since_ms),
            "end_date": times.beijing(until_ms - 1),
            "order_state": STATES,
            "optional_fields": FIELDS,
            "page": str(page),
            "page_size": str(PAGE),
            # not 1, which is by the time of creation, and descending
            "dateType": "0",
            "sortType": "0",
        }
        body = await client.call(_sign(client, "jingdong.pop.order.search", ask), _check(_SEARCH, "searchorderinfo_result"))
        try:
            return _SEARCHED.decode(body).jingdong_pop_order_search_responce.searchorderinfo_result
        except msgspec.DecodeError:
            raise Transient("unreadable") from None

    async def _refunds(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        async for page in backwards(partial(self._applied, client, since_ms, until_ms), lambda one: one.totalCount, REFUND_PAGE):
            for row in _rows(page.result):
                yield _listed(row)

    async def _applied(self, client: Client, since_ms: int, until_ms: int, page: int) -> _Applied:
        ask = {
            "checkTimeStart": times.beijing(since_ms),
            "checkTimeEnd": times.beijing(until_ms - 1),
            "pageIndex": str(page),
            "pageSize": str(REFUND_PAGE),
        }
        method = "jingdong.pop.afs.soa.refundapply.queryPageList"
        body = await client.call(_sign(client, method, ask), _check(_REFUNDS, "queryResult"))
        try:
            return _REFUNDED.decode(body).responce.queryResult
        except msgspec.DecodeError:
            raise Transient("unreadable") from None


PLATFORM = Jd()


def sign(secret: str, params: Mapping[str, str]) -> str:
    """JD's signature of a request's parameters."""
    joined = "".join(key + params[key] for key in sorted(params))
    return hashlib.md5(f"{secret}{joined}{secret}".encode(), usedforsecurity=False).hexdigest().upper()


def _sign(client: Client, method: str, ask: Mapping[str, str]) -> Sign:
    account = client.account

    def signed(token: str, now_ms: int) -> Ask:
        params = {
            "360buy_param_json": orjson.dumps(ask, option=orjson.OPT_SORT_KEYS).decode(),
            "access_token": token,
            "app_key": account.app_key,
            "method": method,
            "timestamp": times.beijing(now_ms),
            "v": "2.0",
        }
        params["sign"] = sign(account.app_secret.get_secret_value(), params)
        return Ask("/routerjson", body=urlencode(params).encode(), headers={"content-type": "application/x-www-form-urlencoded"})

    return signed


def _check(name: str, result: str) -> Check:
    """What an answer means. name: of the response that was asked for; result: of what says whether it went well."""

    def check(answer: Answer) -> None:
        try:
            body = part(orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            raise Transient("unreadable") from None
        error = part(body.get("error_response"))
        if error:
            code = said(error.get("code")) or ""
            named = code if _CODE.fullmatch(code) else "error"
            words = f"{said(error.get('zh_desc')) or ''} {said(error.get('en_desc')) or ''}".lower()
            raise Unauthorised(named) if code in _NO_RIGHT or any(word in words for word in _OURS) else Transient(named)
        found = part(part(body.get(name)).get(result))
        if not found:
            raise Transient("unreadable")
        verdict = part(found.get("apiResult")) or found
        stated = verdict.get("success")
        if not unsaid(stated) and not true(stated):
            code = said(verdict.get("numberCode"), verdict.get("englishErrCode"), verdict.get("errorCode")) or ""
            raise Transient(code if _CODE.fullmatch(code) else "error")

    return check


def _rows(given: msgspec.Raw) -> list[bytes]:
    """The rows of a list, each as it came; of what JD writes where there are none, none. Raises Transient."""
    text = bytes(given)
    if text in _NOTHING:
        return []
    try:
        return [bytes(row) for row in _ROWS.decode(text if text[:1] == b"[" else b"[" + text + b"]")]
    except msgspec.DecodeError:
        raise Transient("unreadable") from None


def _listed(row: bytes, headers: Mapping[str, str] | None = None) -> Listed:
    """A row of a list: an order with the time that its `updated_at` will have, or a refund, which always comes in."""
    try:
        value = part(orjson.loads(row))
        modified = reading.optional_beijing(value.get("modified"), "modified")
    except (orjson.JSONDecodeError, Fault):
        value, modified = {}, None
    status = jd.STATUS.get(said(value.get("orderState")) or "", "created")
    at = None if modified is None or "applyRefundSum" in value else reading.as_of(modified, status)
    return Listed(said(value.get("orderId")) or "", at, row, headers or {})
