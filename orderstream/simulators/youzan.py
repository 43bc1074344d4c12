"""Youzan: a draft as its push, whole and URL-encoded, its detail, and the cloud's API on a socket.

What is closed, noted or refunded only names its order, as there. Receivers are ciphertext in every second push.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from orderstream.channels.youzan import packed
from orderstream.channels.youzan import sign as signed
from orderstream.channels.youzan import sign_msg as signed_msg
from orderstream.money import major
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.trouble import Trouble
from orderstream.times import HOUR, SECOND, beijing

sign = signed
"""The headers of a push."""
sign_msg = signed_msg
"""The old form's `sign`."""

_TYPES = {"created": "trade_TradeCreate", "paid": "trade_TradeBuyerPay"}
_STATUS = {
    "created": "WAIT_BUYER_PAY",
    "paid": "WAIT_SELLER_SEND_GOODS",
    "refunding": "WAIT_SELLER_SEND_GOODS",
    "refunded": "TRADE_CLOSED",
    "cancelled": "TRADE_CLOSED",
}
_REFUND = {"refunding": ("youzan_trade_RefundCreated", 1), "refunded": ("youzan_trade_RefundSuccess", 12)}
"""The push's type, and the order's `refund_state`."""


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The push, as the platform sends it for what happened."""
    at = event.start + max(draft.created, event.updated)
    if event.status == "cancelled":
        kind = "trade_TradeClose"
        msg: dict[str, Any] = {"tid": draft.name, "close_type": 4, "close_reason": "买家取消", "update_time": beijing(at)}
    elif event.status in _REFUND:
        msg = {
            "tid": draft.name,
            "oids": str(_oid(draft, 1)),
            "refund_id": f"2026{draft.number:014d}",
            "refund_type": "REFUND_ONLY",
        }
        msg |= {"refunded_fee": major(draft.total, "CNY"), "update_time": beijing(at), "version": at}
        kind = _REFUND[event.status][0]
    else:
        kind, msg = _TYPES[event.status], order(draft, event, articles)
    push = {
        "client_id": "client",
        "id": draft.name,
        "kdt_id": 40_404,
        "kdt_name": "orderstream",
        "mode": 1,
        "msg": msg if kind.startswith("youzan_") else packed(compact(msg)),
        "msg_id": f"{draft.number:08d}-{event.revision:04d}-4000-8000-{at:012d}",
        "sendCount": 0,
        "status": "PAID" if kind == "trade_TradePaid" else _STATUS[event.status],
        "test": False,
        "type": kind,
        "version": at // SECOND,
    }
    return compact(push | draft.extra)


def detail(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The answer of `youzan.trade.get`."""
    return answer(order(draft, event, articles))


def answer(data: dict[str, Any] | None, code: int = 200, said: str = "successful") -> bytes:
    """An answer of the API. code: 200 where all is well."""
    return compact({"code": code, "success": code == 200, "message": said, "data": data, "trace_id": "yz7-0"})


def refused(code: int, said: str) -> bytes:
    """What the gateway answers."""
    return compact({"gw_err_resp": {"err_code": code, "err_msg": said, "trace_id": "yz7-0"}})


def order(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    """What stands in a push's `msg` and in an answer's `data`."""
    created, updated = event.start + draft.created, event.start + max(draft.created, event.updated)
    buyer, place = draft.buyer, draft.buyer.place
    gross = draft.total + draft.coupon
    rows, share = [], draft.coupon
    for i, line in enumerate(draft.lines, 1):
        worth = (line.price or 0) * line.quantity
        # the last line takes what rounding left
        part = share if i == len(draft.lines) else draft.coupon * worth // max(gross, 1)
        share -= part
        rows.append(_row(draft, line, articles[line.sku], i, part))
    sealed = draft.number % 2 == 0

    def personal(text: str) -> str:
        return _cipher(text) if sealed else text

    reduced = {
        "promotion_type": "coupon",
        "coupon_id": "88",
        "promotion_title": "LIVE",
        "discount_fee": major(draft.coupon, "CNY"),
    }
    return {
        "full_order_info": {
            "order_info": {
                "tid": draft.name,
                "status": _STATUS[event.status],
                "type": 0,
                "created": beijing(created),
                "pay_time": "" if event.status == "created" else beijing(created + 5 * SECOND),
                "update_time": beijing(updated),
                "expired_time": beijing(created + HOUR),
                "consign_time": "",
                "pay_type": 10,
                "pay_type_str": "WEIXIN",
                "refund_state": _REFUND.get(event.status, ("", 0))[1],
                "express_type": 0,
                "order_tags": {"is_preorder": None, "is_member": True},
            },
            "pay_info": {
                "total_fee": major(gross, "CNY"),
                "post_fee": "0.00",
                "payment": major(draft.total, "CNY"),
                "real_payment": major(draft.total, "CNY"),
                "deduction_pay": 0,
                "deduction_real_pay": 0,
                "transaction": [f"26{draft.number:016d}"],
                "outer_transactions": [f"42{draft.number:026d}"],
                "phase_payments": [],
            },
            "buyer_info": {
                "yz_open_id": f"yz{hashlib.sha256(buyer.user.encode()).hexdigest()[:24]}",
                "buyer_id": 0,
                "buyer_phone": personal(buyer.phone),
                "fans_nickname": personal(buyer.name),
            },
            "address_info": {
                "receiver_name": personal(buyer.name),
                "receiver_tel": personal(buyer.phone),
                "delivery_province": place.province,
                "delivery_city": place.city,
                "delivery_district": place.district,
                "delivery_address": personal(buyer.detail),
                "delivery_postal_code": place.postcode if draft.postcode else "",
                "address_extra": compact({"areaCode": "330106", "lat": buyer.lat, "lon": buyer.lon}).decode(),
                "self_fetch_info": "",
            },
            "remark_info": {"buyer_message": draft.remark or "", "trade_memo": None, "star": None},
            "orders": rows,
            "source_info": {"is_offline_order": False, "source": {"platform": "wx", "wx_entrance": "direct_buy"}},
            "child_info": None,
        },
        "order_promotion": {
            "item": None,
            "order": [reduced] if draft.coupon else [],
            "order_discount_fee": major(draft.coupon, "CNY"),
            "item_discount_fee": None,
            "adjust_fee": "0.00",
        },
        "refund_order": [],
        "delivery_order": [],
    }


def _oid(draft: Draft, at: int) -> int:
    return 2_893_000_000_000_000_000 + draft.number * 100 + at


def _row(draft: Draft, line: Line, article: Article, at: int, off: int) -> dict[str, Any]:
    price = line.price or 0
    spec = [{"k": "颜色", "v": line.colour or article.colour[0]}] if article.colour else []
    spec += [{"k": "尺寸", "v": article.size}] if article.size else []
    return {
        "oid": str(_oid(draft, at)),
        "item_id": 457_000_000 + int(article.sku.removeprefix("SKU")),
        "sku_id": 36_000_000 + int(article.sku.removeprefix("SKU")),
        "outer_item_id": "null",
        "outer_sku_id": line.code or article.code("youzan"),
        "title": article.name,
        "num": line.quantity,
        "price": major(article.base, "CNY"),
        "discount_price": major(price, "CNY"),
        "total_fee": major(price * line.quantity, "CNY"),
        "payment": major(price * line.quantity - off, "CNY"),
        "points_price": "0",
        "sku_properties_name": compact(spec).decode() if spec else "[]",
        "is_present": line.gift,
        "is_pre_sale": "null",
        "is_cross_border": "null",
        "customs_code": "null",
        "buyer_messages": "",
    }


def _cipher(text: str) -> str:
    return f"${base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}$1$"


class Platform:
    """The API of one shop: `put` what it knows, serve `app`."""

    def __init__(self, client_id: str, client_secret: str, kdt_id: str, trouble: Trouble | None = None) -> None:
        self.app = FastAPI()
        self.calls: list[str] = []
        self._client = {"client_id": client_id, "client_secret": client_secret}
        self._shop = kdt_id
        self._trouble = trouble or Trouble()
        self._orders: dict[str, dict[str, Any]] = {}
        self._token = 0
        self.app.post("/auth/token")(self._asked)
        self.app.post("/api/{name}/{version}")(self._called)

    def expire(self) -> None:
        """The token that is out is taken no more."""
        self._token += 1

    def put(self, draft: Draft, event: Event, articles: dict[str, Article]) -> None:
        """What the platform knows of an order from now on."""
        self._orders[draft.name] = order(draft, event, articles)

    async def _asked(self, request: Request) -> Response:
        given = orjson.loads(await request.body())
        self.calls.append("token")
        if {name: given.get(name) for name in self._client} != self._client or given.get("grant_id") != self._shop:
            return _json(answer(None, 1103, "Client 不存在"))
        self._token += 1
        return _json(answer({"access_token": f"token-{self._token}", "expires": 4_000_000_000_000, "authority_id": self._shop}))

    async def _called(self, name: str, version: str, request: Request) -> Response:
        self.calls.append(f"{name}/{version}")
        mishap = self._trouble.call()
        if mishap == "failed":
            return Response(status_code=502)
        if mishap == "throttled":
            return _json(refused(4101, "请求太频繁"))
        if request.query_params.get("access_token") != f"token-{self._token}":
            return _json(refused(4203, "Token 不存在"))
        params = orjson.loads(await request.body())
        return _json(self._detail(params) if name == "youzan.trade.get" else self._list(params))

    def _detail(self, params: dict[str, Any]) -> bytes:
        found = self._orders.get(params["tid"])
        return answer({"full_order_info": {"orders": []}}, 5000, "trade not found") if found is None else answer(found)

    def _list(self, params: dict[str, Any]) -> bytes:
        def updated(one: dict[str, Any]) -> str:
            found: str = one["full_order_info"]["order_info"]["update_time"]
            return found

        found = sorted(
            (one for one in [*self._orders.values()] if params["start_update"] <= updated(one) <= params["end_update"]),
            key=updated,
        )
        size, page = params["page_size"], params["page_no"]
        rows = [{"full_order_info": one["full_order_info"]} for one in found[(page - 1) * size : page * size]]
        return answer({"total_results": len(found), "full_order_info_list": rows})


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
