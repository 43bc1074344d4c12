"""Douyin: a draft as its push and its detail, and the platform's API on a socket.

The push only names the order, in the two spellings that the platform has had; the detail has every scalar now as text, now as number,
the receiver encrypted with a masked twin, and `open_address_id` the same for the same address.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from orderstream.channels.douyin import sign as signed
from orderstream.platforms.douyin import sign as request_sign
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.trouble import Trouble
from orderstream.times import DAY, SECOND

sign = signed
"""The headers of a push."""

TAGS = {"created": 100, "paid": 110, "cancelled": 106, "refunding": 200, "refunded": 206}
CHANGED = 113
"""The tag of what is said of an order that was paid before."""
_STATUS = {"created": 1, "paid": 2, "cancelled": 4, "refunding": 2, "refunded": 2}
_MAIN_STATUS = _STATUS | {"refunded": 21}
_AFTERSALE = {"refunding": (6, 0), "refunded": (12, 3)}
"""after_sale_status and refund_status."""


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The push: a list of one message."""
    del articles
    at = (event.start + max(draft.created, event.updated)) // SECOND
    tag = CHANGED if event.status == "paid" and event.revision > 2 else TAGS[event.status]
    data: dict[str, Any] = {
        "p_id": int(draft.name),
        "s_ids": [_line_number(draft, i) for i in range(1, len(draft.lines) + 1)],
        "shop_id": 77_977,
        "order_status": _STATUS[event.status],
        "order_type": 0,
        "biz": 2,
    }
    if tag >= 200:
        data |= {"aftersale_id": f"7{draft.number:018d}", "aftersale_type": 2}
        data |= {"aftersale_status": _AFTERSALE[event.status][0], "success_time" if tag == 206 else "apply_time": at}
        data |= {"refund_amount": draft.total, "refund_post_amount": 0, "s_id": data.pop("s_ids")[0]}
    else:
        data[{100: "create_time", 110: "pay_time", 106: "cancel_time"}.get(tag, "update_time")] = at
    message_id = f"{draft.number:017d}::{tag}:{at}:{draft.number}"
    if draft.number % 2:
        return compact([{"tag": str(tag), "msg_id": message_id, "data": compact(data | {"p_id": draft.name}).decode()}])
    return compact([{"tag": tag, "msgId": message_id, "data": data}])


def detail(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The answer of `order.orderDetail`."""
    return answer({"shop_order_detail": order(draft, event, articles)})


def answer(data: dict[str, Any], code: int = 10_000, sub_code: str = "", said: str = "success") -> bytes:
    """An answer of the API. code: 10000 where all is well."""
    return compact({"code": code, "err_no": 0 if code == 10_000 else code, "msg": said, "sub_code": sub_code, "data": data})


def order(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    """A `shop_order_detail`."""
    created = (event.start + draft.created) // SECOND
    updated = (event.start + max(draft.created, event.updated)) // SECOND
    buyer, place = draft.buyer, draft.buyer.place
    rows, share = [], draft.coupon
    gross = draft.total + draft.coupon
    for i, line in enumerate(draft.lines, 1):
        worth = (line.price or 0) * line.quantity
        # the last line takes what rounding left
        part = share if i == len(draft.lines) else draft.coupon * worth // max(gross, 1)
        share -= part
        rows.append(_row(draft, event, line, articles[line.sku], i, part))
    paid = event.status != "created"
    found: dict[str, Any] = {
        "order_id": draft.name,
        "shop_id": 77_977,
        "order_status": _STATUS[event.status],
        "main_status": _MAIN_STATUS[event.status],
        "order_type": 0,
        "biz": 2,
        "create_time": created,
        "pay_time": created + 5 if paid else 0,
        "update_time": updated,
        "finish_time": 0,
        "exp_ship_time": created + 2 * DAY // SECOND,
        "order_expire_time": 1800,
        "order_amount": gross,
        "pay_amount": draft.total,
        "pay_type": 2,
        "channel_payment_no": f"PAY{draft.number}",
        "post_amount": 0,
        "modify_amount": 0,
        "promotion_amount": draft.coupon,
        "promotion_shop_amount": draft.coupon,
        "promotion_platform_amount": 0,
        "promotion_talent_amount": 0,
        "promotion_pay_amount": 0,
        "doudian_open_id": f"1@#{_cipher(buyer.user)}",
        "open_address_id": _cipher(f"{place}{buyer.detail}{buyer.phone}"),
        "encrypt_post_receiver": buyer.name if draft.open else f"#{_cipher(buyer.name + draft.name)}",
        "encrypt_post_tel": buyer.phone if draft.open else f"$${_cipher(buyer.phone + draft.name)}$",
        "mask_post_receiver": buyer.name[0] + "**",
        "mask_post_tel": buyer.phone[0] + "********" + buyer.phone[-2:],
        "post_addr": _place(draft) | {"encrypt_detail": buyer.detail if draft.open else f"#{_cipher(buyer.detail + draft.name)}"},
        "mask_post_addr": _place(draft) | {"detail": "****"},
        "buyer_words": draft.remark or "",
        "seller_words": "",
        "cancel_reason": "",
        "order_phase_list": [],
        "sku_order_list": rows,
    }
    if draft.coupon:
        coupon = {"coupon_id": "4781320682406", "coupon_name": "LIVE", "coupon_amount": draft.coupon}
        found["promotion_detail"] = {"shop_discount_detail": {"coupon_info": [coupon], "total_amount": draft.coupon}}
    if draft.number % 3 == 0:
        found = _as_text(found)
    return found | draft.extra


def _line_number(draft: Draft, at: int) -> int:
    return 4_800_000_000_000_000_000 + draft.number * 1_000 + at


def _row(draft: Draft, event: Event, line: Line, article: Article, at: int, off: int) -> dict[str, Any]:
    worth = (line.price or 0) * line.quantity
    aftersale, refund = _AFTERSALE.get(event.status, (0, 0))
    spec = [{"name": "颜色", "value": line.colour or article.colour[0]}] if article.colour else []
    spec += [{"name": "尺寸", "value": article.size}] if article.size else []
    return {
        "order_id": str(_line_number(draft, at)),
        "parent_order_id": draft.name,
        "product_id": 3_400_000_000_000_000_000 + int(article.sku.removeprefix("SKU")),
        "sku_id": 1_700_000_000_000_000 + int(article.sku.removeprefix("SKU")),
        "code": line.code or article.code("douyin"),
        "out_sku_id": 0,
        "product_name": article.name,
        "spec": spec,
        "item_num": line.quantity,
        "origin_amount": line.price or 0,
        "goods_price": article.base,
        "sum_amount": worth,
        "order_amount": worth,
        "promotion_amount": off,
        "modify_amount": 0,
        "pay_amount": worth - off,
        "given_product_type": "FREE" if line.gift else "",
        "order_status": _STATUS[event.status],
        "after_sale_info": {"after_sale_status": aftersale, "after_sale_type": 2, "refund_status": refund},
        "pre_sale_type": 0,
    }


def _place(draft: Draft) -> dict[str, Any]:
    place = draft.buyer.place
    levels = {"province": place.province, "city": place.city, "town": place.district, "street": ""}
    return {level: {"id": "0", "name": name} for level, name in levels.items()}


def _cipher(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _as_text(value: Any) -> Any:
    """Every number as the text that half of the platform's answers have in its place."""
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return str(value) if isinstance(value, int) else value


class Platform:
    """The API of one shop: `put` what it knows, serve `app`."""

    def __init__(self, app_key: str, app_secret: str, trouble: Trouble | None = None) -> None:
        self.app = FastAPI()
        self.calls: list[str] = []
        self._key, self._secret = app_key, app_secret
        self._trouble = trouble or Trouble()
        self._orders: dict[str, dict[str, Any]] = {}
        self._token = 0
        self.app.post("/{group}/{name}")(self._called)

    def expire(self) -> None:
        """The token that is out is taken no more."""
        self._token += 1

    def put(self, draft: Draft, event: Event, articles: dict[str, Article]) -> None:
        """What the platform knows of an order from now on."""
        one = order(draft, event, articles)
        self._orders[str(one["order_id"])] = one

    async def _called(self, request: Request) -> Response:
        query, given = request.query_params, await request.body()
        method = query.get("method", "")
        self.calls.append(method)
        mishap = self._trouble.call()
        if mishap == "failed":
            return Response(status_code=502)
        if mishap == "throttled":
            return _json(answer({}, 60_000, said="触发限流，请稍后重试"))
        expected = request_sign(self._secret, self._key, method, given.decode(), query.get("timestamp", ""))
        if query.get("sign") != expected or query.get("app_key") != self._key:
            return _json(answer({}, 40_003, "isv.signature-invalid", "非法的参数"))
        params = orjson.loads(given)
        if method.startswith("token."):
            self._token += 1
            return _json(answer({"access_token": f"token-{self._token}", "expires_in": 604_800, "refresh_token": "refresh"}))
        if query.get("access_token") != f"token-{self._token}":
            return _json(answer({}, 40_003, "isv.access-token-expired", "非法的参数"))
        return _json(self._detail(params) if method == "order.orderDetail" else self._list(params))

    def _detail(self, params: dict[str, str]) -> bytes:
        found = self._orders.get(params["shop_order_id"])
        return (
            answer({}, 50_002, "isv.business-failed:1", "订单不存在") if found is None else answer({"shop_order_detail": found})
        )

    def _list(self, params: dict[str, str]) -> bytes:
        since, until = int(params["update_time_start"]), int(params["update_time_end"])
        found = sorted(
            (one for one in [*self._orders.values()] if since <= int(one["update_time"]) <= until),
            key=lambda one: (int(one["update_time"]), one["order_id"]),
        )
        size, page = int(params["size"]), int(params["page"])
        rows = found[page * size : (page + 1) * size]
        return answer({"shop_order_list": rows, "total": len(found), "page": page, "size": size})


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
