"""WeChat shop, simulated: its sealed events, and its API with tokens, masks and bad days.

Law: an event says only which order has changed; what the order is stands in its detail, as far as the order has come when it is
asked for. What people are known by is masked there, and `hash_code` and `openid` are equal for one of them and for nobody else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from orderstream.channels import wechat_seal
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.times import DAY, SECOND

_EVENTS = {"created": "new", "paid": "pay", "cancelled": "cancel"}
_STATUS = {"created": 10, "paid": 20, "refunding": 20, "cancelled": 250, "refunded": 200}
TOKEN_SECONDS = 7200
PAGE = 100


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


@dataclass
class Troubles:
    """How bad a day the platform has, each a share of its answers from 0 to 1, drawn from a seed.

    failing: HTTP 502; busy: errcode -1 with status 200; throttled: errcode 45009; twice: an order that a list has twice.
    """

    failing: float = 0.0
    busy: float = 0.0
    throttled: float = 0.0
    twice: float = 0.0
    seed: int = 1


@dataclass
class Shop:
    """What the platform knows of one shop: its orders as they are now, each with when it last changed (Unix seconds)."""

    appid: str
    secret: str
    clock: Callable[[], float]
    troubles: Troubles = field(default_factory=Troubles)
    orders: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    cases: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _token: tuple[str, float] = ("", 0.0)
    _made: int = 0

    def tell(self, draft: Draft, event: Event, articles: dict[str, Article], *, masked: bool = True) -> None:
        """An order has come as far as this event says."""
        at = (event.start + event.updated) // SECOND
        self.orders[draft.name] = (at, detail(draft, event, articles, masked=masked))
        if event.status in {"refunding", "refunded"}:
            self.cases[f"2{draft.name}"] = (at, aftersale(draft, event))

    def token(self, *, forced: bool = False) -> tuple[str, float]:
        """The token in force and when it ends; a forced one ends the other."""
        if forced or self._token[1] <= self.clock():
            self._made += 1
            name = hashlib.sha256(f"{self.appid}{self._made}".encode()).hexdigest()
            self._token = (name, self.clock() + TOKEN_SECONDS)
        return self._token

    def worn(self) -> None:
        """Ends the token before its time."""
        self._token = ("", 0.0)


def app(shop: Shop) -> FastAPI:
    """The API of one shop, with its troubles."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    chance = random.Random(shop.troubles.seed)  # noqa: S311  a simulation repeats itself
    bad = shop.troubles

    @api.post("/cgi-bin/stable_token")
    async def stable_token(request: Request) -> Any:
        asked = await request.json()
        _count(shop, "token")
        if asked.get("appid") != shop.appid:
            return _wrong(40013, "invalid appid")
        if asked.get("secret") != shop.secret:
            return _wrong(40125, "invalid appsecret")
        value, ends = shop.token(forced=asked.get("force_refresh") is True)
        return {"access_token": value, "expires_in": int(ends - shop.clock())}

    def trouble(request: Request) -> Any:
        """What is said instead of an answer, if anything."""
        given = request.query_params.get("access_token")
        if not given:
            return _wrong(41001, "access_token missing")
        value, ends = shop._token  # noqa: SLF001  the platform's own
        if given != value or ends <= shop.clock():
            return _wrong(40001, "invalid credential, access_token is invalid or not latest")
        drawn = chance.random()
        if drawn < bad.failing:
            return None
        if drawn < bad.failing + bad.busy:
            return _wrong(-1, "system error")
        if drawn < bad.failing + bad.busy + bad.throttled:
            return _wrong(45009, "reach max api daily quota limit")
        return {}

    async def answer(request: Request, name: str, found: Callable[[dict[str, Any]], bytes]) -> Any:
        _count(shop, name)
        said = trouble(request)
        if said is None:
            return Response(b"<html>502 Bad Gateway</html>", 502)
        return said or Response(found(await request.json()), media_type="application/json")

    def one(kept: dict[str, tuple[int, bytes]], key: str, code: int) -> Callable[[dict[str, Any]], bytes]:
        return lambda asked: kept[asked[key]][1] if asked.get(key) in kept else compact(_wrong(code, "not found"))

    def listed(kept: dict[str, tuple[int, bytes]], begin: int, end: int, asked: dict[str, Any], name: str) -> bytes:
        within = [number for number, (at, _) in sorted(kept.items()) if begin <= at <= end]
        start = int(asked.get("next_key") or 0)
        page = within[start : start + int(asked.get("page_size", PAGE))]
        following = start + len(page)
        again = [number for number in page if chance.random() < bad.twice]
        more = following < len(within)
        return compact({"errcode": 0, "errmsg": "ok", name: page + again, "has_more": more, "next_key": str(following)})

    @api.post("/channels/ec/order/get")
    async def order_get(request: Request) -> Any:
        return await answer(request, "order", one(shop.orders, "order_id", 10020002))

    @api.post("/channels/ec/aftersale/getaftersaleorder")
    async def case_get(request: Request) -> Any:
        return await answer(request, "aftersale", one(shop.cases, "after_sale_order_id", 10020002))

    @api.post("/channels/ec/order/list/get")
    async def order_list(request: Request) -> Any:
        def found(asked: dict[str, Any]) -> bytes:
            span = asked["update_time_range"]
            begin, end = span["start_time"], span["end_time"]
            if end - begin > 7 * DAY // SECOND:
                return compact(_wrong(10020002, "time range over 7 days"))
            return listed(shop.orders, begin, end, asked, "order_id_list")

        return await answer(request, "orders", found)

    @api.post("/channels/ec/aftersale/getaftersalelist")
    async def case_list(request: Request) -> Any:
        def found(asked: dict[str, Any]) -> bytes:
            begin, end = asked["begin_update_time"], asked["end_update_time"]
            if end - begin > DAY // SECOND:
                return compact(_wrong(10020002, "time range over a day"))
            return listed(shop.cases, begin, end, asked, "after_sale_order_id_list")

        return await answer(request, "aftersales", found)

    return api


def _app(secret: bytes | str) -> wechat_seal.App:
    found = wechat_seal.read(secret.encode() if isinstance(secret, str) else secret)
    if found is None:
        raise ValueError("not appid:token:EncodingAESKey")
    return found


def _wrong(code: int, message: str) -> dict[str, Any]:
    return {"errcode": code, "errmsg": message}


def _count(shop: Shop, name: str) -> None:
    shop.calls[name] = shop.calls.get(name, 0) + 1


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
