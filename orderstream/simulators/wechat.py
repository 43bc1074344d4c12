"""WeChat shop, simulated: its sealed events, and its API with tokens, masks and bad days.

Law: an event says only which order has changed; what the order is stands in its detail, as far as the order has come when it is
asked for. What people are known by is masked there, and `hash_code` and `openid` are equal for one of them and for nobody else.
"""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import FastAPI, Request, Response

from orderstream.channels import wechat_seal
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.trouble import Trouble
from orderstream.times import DAY, SECOND

_EVENTS = {"created": "new", "paid": "pay", "cancelled": "cancel"}
_STATUS = {"created": 10, "paid": 20, "refunding": 20, "cancelled": 250, "refunded": 200}
TOKEN_SECONDS = 7200
PAGE = 100

Kept = dict[str, tuple[int, bytes]]
"""Answers by number, each with when it last changed (Unix seconds)."""


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The message of an event; `sign` seals it."""
    del articles
    at = (event.start + event.updated) // SECOND
    if event.status in {"refunding", "refunded"}:
        case = {"status": _case_status(event), "after_sale_order_id": f"2{draft.name}", "order_id": draft.name}
        return compact(_head("aftersale_update", draft, at) | {"finder_shop_aftersale_status_update": case})
    name = _EVENTS.get(event.status, "ext_info_update")
    # the platform's own samples give the number as digits in one event and as text in the next
    about: dict[str, Any] = {"order_id": int(draft.name) if name == "new" else draft.name}
    if name == "pay":
        about["pay_time"] = str(at)
    return compact(_head(f"order_{name}", draft, at) | {"order_info": about} | draft.extra)


def sign(message: bytes, secret: bytes | str, timestamp: int, nonce: str = "1372623149") -> tuple[dict[str, str], bytes]:
    """(query, body) of a push. secret: `appid:token:EncodingAESKey`; timestamp: Unix seconds."""
    app = _app(secret)
    noise = hashlib.sha256(message + str(timestamp).encode()).digest()[:16]
    encrypted = wechat_seal.sealed(app, message, noise)
    query = {
        "signature": wechat_seal.signature(app.token, str(timestamp), nonce),
        "timestamp": str(timestamp),
        "nonce": nonce,
        "encrypt_type": "aes",
        "msg_signature": wechat_seal.signature(app.token, str(timestamp), nonce, encrypted),
    }
    return query, compact({"ToUserName": "gh_0123456789ab", "Encrypt": encrypted})


def check(secret: bytes | str, timestamp: int, echo: str, nonce: str = "1514711492") -> dict[str, str]:
    """The query of the GET with which the platform checks an address."""
    signed = wechat_seal.signature(_app(secret).token, str(timestamp), nonce)
    return {"signature": signed, "timestamp": str(timestamp), "nonce": nonce, "echostr": echo}


def detail(draft: Draft, event: Event, articles: dict[str, Article], *, masked: bool = True) -> bytes:
    """The answer of `channels/ec/order/get` about an order as an event left it."""
    return compact({"errcode": 0, "errmsg": "ok", "order": _order(draft, event, articles, masked=masked)})


def aftersale(draft: Draft, event: Event) -> bytes:
    """The answer of `channels/ec/aftersale/getaftersaleorder` about the order's one case: all of it goes back."""
    at = (event.start + event.updated) // SECOND
    case = {
        "after_sale_order_id": f"2{draft.name}",
        "status": _case_status(event),
        "openid": _openid(draft),
        "order_id": draft.name,
        "type": "REFUND",
        "refund_info": {"amount": draft.total, "refund_reason": 1},
        "create_time": at,
        "update_time": at,
        "complete_time": at if event.status == "refunded" else 0,
    }
    return compact({"errcode": 0, "errmsg": "ok", "after_sale_order": case})


class Platform:
    """The API of one shop, as `app`: one token at a time, orders and after-sale cases as far as they have come."""

    def __init__(self, appid: str, secret: str, trouble: Trouble | None = None) -> None:
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        self.calls: dict[str, int] = {}
        """How often each path was asked for."""
        self._appid, self._secret = appid, secret
        self._trouble = trouble or Trouble()
        self._orders: Kept = {}
        self._cases: Kept = {}
        self._token, self._revoked = "", ""
        self._tokens = 0
        self.app.post("/cgi-bin/stable_token")(self._asked)
        self.app.post("/channels/ec/{group}/{name:path}")(self._called)

    def put(self, draft: Draft, event: Event, articles: dict[str, Article], *, masked: bool = True) -> None:
        """An order has come as far as this event says."""
        at = (event.start + max(draft.created, event.updated)) // SECOND
        self._orders[draft.name] = (at, detail(draft, event, articles, masked=masked))
        if event.status in {"refunding", "refunded"}:
            self._cases[f"2{draft.name}"] = (at, aftersale(draft, event))

    def lose(self, number: str) -> None:
        """An order is still listed, and its detail is not to be had."""
        self._orders[number] = (self._orders[number][0], _wrong(10020002, "invalid parameter"))

    def expire(self) -> None:
        """Ends the token before its time."""
        self._token = ""

    def revoke(self) -> None:
        """The token is taken no more, and is still given to who does not force a new one."""
        self._revoked = self._token

    async def _asked(self, request: Request) -> Response:
        asked = await request.json()
        self._count("token")
        if asked.get("appid") != self._appid:
            return _json(_wrong(40013, "invalid appid"))
        if asked.get("secret") != self._secret:
            return _json(_wrong(40125, "invalid appsecret"))
        if not self._token or asked.get("force_refresh") is True:
            self._tokens += 1
            self._token = hashlib.sha256(f"{self._appid}{self._tokens}".encode()).hexdigest()
        return _json(compact({"access_token": self._token, "expires_in": TOKEN_SECONDS}))

    async def _called(self, group: str, name: str, request: Request) -> Response:
        path = f"{group}/{name}"
        self._count(path)
        given = request.query_params.get("access_token")
        if not given:
            return _json(_wrong(41001, "access_token missing"))
        if given == self._revoked or given != self._token:
            return _json(_wrong(40001, "invalid credential, access_token is invalid or not latest"))
        mishap = self._trouble.call()
        if mishap == "failed":
            # as often as not the platform's failures have status 200
            failures = self._trouble.met["failed"]
            return Response(b"<html>502 Bad Gateway</html>", 502) if failures % 2 else _json(_wrong(-1, "system error"))
        if mishap == "throttled":
            return _json(_wrong(45011, "api freq out of limit"))
        asked = await request.json()
        match path:
            case "order/get":
                return _json(_kept(self._orders, asked.get("order_id")))
            case "aftersale/getaftersaleorder":
                return _json(_kept(self._cases, asked.get("after_sale_order_id")))
            case "order/list/get":
                span = asked["update_time_range"]
                return _json(self._listed(self._orders, (span["start_time"], span["end_time"]), 7 * DAY, asked, "order_id_list"))
            case "aftersale/getaftersalelist":
                between = asked["begin_update_time"], asked["end_update_time"]
                return _json(self._listed(self._cases, between, DAY, asked, "after_sale_order_id_list"))
        return Response(status_code=404)

    def _listed(self, kept: Kept, between: tuple[int, int], longest: int, asked: dict[str, Any], name: str) -> bytes:
        """A page of those that changed in this time; it goes on behind the last number of the page before."""
        begin, end = between
        if not 0 <= end - begin <= longest // SECOND:
            return _wrong(10020002, "invalid time range")
        behind = asked.get("next_key") or ""
        left = sorted(number for number, (at, _) in kept.items() if begin <= at <= end and number > behind)
        page = left[: asked.get("page_size", PAGE)]
        shown = page + [number for number in page if self._trouble.again()]
        following = page[-1] if page else ""
        more = len(left) > len(page)
        return compact({"errcode": 0, "errmsg": "ok", name: shown, "has_more": more, "next_key": following})

    def _count(self, path: str) -> None:
        self.calls[path] = self.calls.get(path, 0) + 1


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _kept(kept: Kept, number: Any) -> bytes:
    return kept[number][1] if isinstance(number, str) and number in kept else _wrong(10020002, "invalid parameter")


def _wrong(code: int, message: str) -> bytes:
    return compact({"errcode": code, "errmsg": message})


def _app(secret: bytes | str) -> wechat_seal.App:
    found = wechat_seal.read(secret.encode() if isinstance(secret, str) else secret)
    if found is None:
        raise ValueError("not appid:token:EncodingAESKey")
    return found


def _head(name: str, draft: Draft, at: int) -> dict[str, Any]:
    return {
        "ToUserName": "gh_0123456789ab",
        "FromUserName": _openid(draft),
        "CreateTime": at,
        "MsgType": "event",
        "Event": f"channels_ec_{name}",
    }


def _case_status(event: Event) -> str:
    return "MERCHANT_REFUND_SUCCESS" if event.status == "refunded" else "MERCHANT_PROCESSING"


def _openid(draft: Draft) -> str:
    return "o" + hashlib.sha256(f"{draft.shop}{draft.buyer.user}".encode()).hexdigest()[:27]


def _order(draft: Draft, event: Event, articles: dict[str, Article], *, masked: bool) -> dict[str, Any]:
    created = (event.start + draft.created) // SECOND
    updated = max(created, (event.start + event.updated) // SECOND)
    goods = sum(line.quantity * (line.price or 0) for line in draft.lines)
    shares = _shares(draft, goods)
    busy = int(event.status == "refunding")
    order: dict[str, Any] = {
        "order_id": draft.name,
        "status": _STATUS[event.status],
        "create_time": created,
        "update_time": updated,
        "openid": _openid(draft),
        "unionid": "",
        "is_present": False,
        "order_detail": {
            "product_infos": [
                _product(at, line, share, articles[line.sku], event)
                for at, (line, share) in enumerate(zip(draft.lines, shares, strict=True), 1)
            ],
            "price_info": {
                "product_price": goods,
                "order_price": draft.total,
                "freight": 0,
                "discounted_price": draft.coupon,
                "is_discounted": draft.coupon > 0,
                "original_order_price": goods,
            },
            "delivery_info": {"address_info": _address(draft, masked=masked), "deliver_method": 0},
            "coupon_info": {"user_coupon_id": f"3{draft.name}"} if draft.coupon else {},
            "ext_info": {"customer_notes": draft.remark or "", "merchant_notes": "", "order_scene": 2},
        },
        "aftersale_detail": {"aftersale_order_list": [], "on_aftersale_order_cnt": busy},
    }
    if event.status not in {"created", "cancelled"}:
        order["order_detail"]["pay_info"] = {
            "prepay_id": f"wx{draft.name}",
            "transaction_id": f"42000{draft.name}",
            "prepay_time": created,
            "pay_time": updated,
            "payment_method": 1,
        }
    if draft.hold is not None:
        order["order_detail"]["delivery_info"]["address_under_review"] = {"user_name": "某**", "detail_info": "***"}
    return order


def _shares(draft: Draft, goods: int) -> list[int]:
    """The coupon, line by line; the last takes what rounding left."""
    found = [draft.coupon * (line.price or 0) * line.quantity // max(goods, 1) for line in draft.lines[:-1]]
    return [*found, draft.coupon - sum(found)]


def _product(at: int, line: Line, share: int, article: Article, event: Event) -> dict[str, Any]:
    number = 3_000_000_000 + int(line.sku.removeprefix("SKU"))
    price = line.price or 0
    stated: dict[str, Any] = {
        "product_id": str(10_000_000_000_000 + number),
        "sku_id": str(number),
        "product_unique_id": f"{number}-{at}",
        "sku_code": line.code or article.code("wechat"),
        "sku_cnt": line.quantity,
        "on_aftersale_sku_cnt": line.quantity if event.status == "refunding" else 0,
        "finish_aftersale_sku_cnt": line.quantity if event.status == "refunded" else 0,
        "title": article.name,
        "sale_price": price,
        "market_price": article.base,
        "real_price": price * line.quantity - share,
        "is_discounted": share > 0,
        "sku_attrs": _attributes(line, article),
        "sku_deliver_info": {"stock_type": 0},
        "delivery_deadline": event.start // SECOND + 2 * DAY // SECOND,
    }
    if line.gift:
        stated["is_free_gift"] = 1
    return stated


def _attributes(line: Line, article: Article) -> list[dict[str, str]]:
    found = []
    if article.colour is not None:
        found.append({"attr_key": "颜色", "attr_value": line.colour or article.colour[0]})
    if article.size is not None:
        found.append({"attr_key": "尺寸", "attr_value": article.size})
    return found


def _address(draft: Draft, *, masked: bool) -> dict[str, Any]:
    buyer, place = draft.buyer, draft.buyer.place
    whole = f"{place.province}{place.city}{place.district}{buyer.detail}"
    return {
        "user_name": buyer.name[0] + "**" if masked else buyer.name,
        "postal_code": place.postcode if draft.postcode else "",
        "province_name": place.province,
        "city_name": place.city,
        "county_name": place.district,
        "detail_info": "****" if masked else buyer.detail,
        "house_number": "",
        "tel_number": f"{buyer.phone[:3]}****{buyer.phone[-4:]}" if masked else buyer.phone,
        "use_tel_number": 0,
        # one address of one shop, whoever asks for it
        "hash_code": hashlib.sha256(f"{draft.shop}{whole}{buyer.phone}".encode()).hexdigest()[:32],
    }
