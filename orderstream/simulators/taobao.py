"""Taobao as a shop's programs see it: thin messages, trades told when asked, masks, and a queue that repeats itself.

Law: what is sent is signed, masked and worded as the platform does it, and made by this module alone: `orderstream.channels.taobao`
is what reads it, so a mistake that both made would be the only one that a test cannot see.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import orjson
from fastapi import FastAPI, Request, Response

from orderstream import times
from orderstream.channels import Push
from orderstream.money import major
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.trouble import Trouble

STATUS = {
    "created": "WAIT_BUYER_PAY",
    "paid": "WAIT_SELLER_SEND_GOODS",
    "refunding": "WAIT_SELLER_SEND_GOODS",
    "refunded": "TRADE_CLOSED",
    "cancelled": "TRADE_CLOSED",
}
TOPIC = {
    "created": "taobao_trade_TradeCreate",
    "paid": "taobao_trade_TradeBuyerPay",
    "refunding": "taobao_refund_RefundCreated",
    "refunded": "taobao_trade_TradeClose",
    "cancelled": "taobao_trade_TradeClose",
}
_FIRST_MESSAGE = 7_104_300_000_000_000_000
"""Past 2^53, as the platform's are."""


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The message that something happened to a trade: which, and little more."""
    del articles
    tid = int(draft.name)
    content = {
        "tid": tid,
        "oid": tid,
        "buyer_nick": _hidden(draft.buyer.name),
        "buyer_open_uid": _uid(draft.buyer.user),
        "seller_nick": draft.shop,
        "payment": major(draft.total, "CNY"),
        "status": STATUS[event.status],
        "type": "guarantee_trade",
    }
    if event.status == "refunding":
        content |= {
            "refund_id": tid + 1,
            "refund_fee": content["payment"],
            "modified": times.beijing(event.start + event.updated),
        }
    message = {
        "id": _FIRST_MESSAGE + tid % 1_000_000_000_000 * 10 + event.revision,
        "topic": TOPIC[event.status],
        "user_id": 123456789,
        "user_nick": draft.shop,
        "content": orjson.dumps(content).decode(),
        "pub_time": times.beijing(event.start + event.updated),
        "pub_app_key": "12497914",
    }
    return compact(message | draft.extra)


def detail(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """What `taobao.trade.fullinfo.get` answers at that moment, masked as it is for everybody."""
    return compact({"trade_fullinfo_get_response": {"request_id": "simulated", "trade": trade(draft, event, articles)}})


def trade(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    """The trade itself."""
    buyer, place = draft.buyer, draft.buyer.place
    tid = int(draft.name)
    lines = [_order(draft, event, at, line, articles[line.sku]) for at, line in enumerate(draft.lines, 1)]
    promotions = [
        {"id": line["oid"], "promotion_name": "限时促销", "discount_fee": line["discount_fee"], "promotion_id": "Tmall$item-1_1"}
        for line, one in zip(lines, draft.lines, strict=True)
        if line["discount_fee"] != "0.00" and not one.gift
    ]
    promotions += [
        {"id": tid, "promotion_name": "满就送", "discount_fee": "", "promotion_id": "mjs-2_2", "gift_item_id": line["num_iid"],
         "gift_item_name": line["title"], "gift_item_num": line["num"]}
        for line, one in zip(lines, draft.lines, strict=True)
        if one.gift
    ]  # fmt: skip
    if draft.coupon:
        promotions.append(
            {
                "id": tid,
                "promotion_name": "店铺优惠券",
                "discount_fee": major(draft.coupon, "CNY"),
                "promotion_id": "shopbonus-3_3",
            }
        )
    receiver = f"{buyer.name}|{buyer.phone}|{place.city}|{buyer.detail}"
    return {
        "tid": tid,
        "tid_str": draft.name,
        "status": STATUS[event.status],
        "type": "fixed",
        "created": times.beijing(event.start + draft.created),
        "modified": times.beijing(max(event.start + draft.created, event.start + event.updated)),
        "payment": major(draft.total, "CNY"),
        "total_fee": major(sum(_cents(line["price"]) * int(line["num"]) for line in lines), "CNY"),
        "discount_fee": "0.00",
        "adjust_fee": "0.00",
        "post_fee": "0.00",
        "coupon_fee": 0,
        "alipay_no": f"2026{tid % 10**18:018d}",
        "buyer_alipay_no": f"{buyer.phone[:3]}****{buyer.phone[-4:]}",
        "buyer_nick": _hidden(buyer.name),
        "buyer_open_uid": _uid(buyer.user),
        "buyer_ip": base64.b64encode(hashlib.sha256(buyer.ip.encode()).digest()[:12]).decode() + ":",
        "oaid": hashlib.sha256(receiver.encode()).hexdigest()[:32],
        "buyer_message": draft.remark or "",
        "receiver_name": buyer.name if draft.open else _hidden(buyer.name),
        "receiver_mobile": buyer.phone if draft.open else buyer.phone[:3] + "*" * 8,
        "receiver_phone": "",
        "receiver_country": "",
        "receiver_state": place.province,
        "receiver_city": place.city,
        "receiver_district": place.district,
        "receiver_town": "",
        "receiver_address": buyer.detail if draft.open else re.sub(r"[0-9０-９一二三四五六七八九十百]+", "**", buyer.detail),
        "receiver_zip": place.postcode if draft.postcode else "000000",
        "top_hold": 1 if draft.hold else 0,
        "mark_desc": draft.hold or "",
        "orders": {"order": lines if len(lines) > 1 else lines[0]},
        "promotion_details": {"promotion_detail": promotions},
    }


def _order(draft: Draft, event: Event, at: int, line: Line, article: Article) -> dict[str, Any]:
    sold = line.price or 0
    price = max(article.base, sold)
    listed, paid = price * line.quantity, sold * line.quantity
    part = _part(draft, at)
    number = 610_000_000_000 + int(line.sku.removeprefix("SKU"))
    spec = [f"颜色分类:{line.colour or article.colour[0]}"] if article.colour else []
    spec += [f"尺寸:{article.size}"] if article.size else []
    alone = len(draft.lines) == 1
    return {
        "oid": int(draft.name) + (0 if alone else at),
        "oid_str": str(int(draft.name) + (0 if alone else at)),
        "num_iid": number,
        "sku_id": str(number * 10),
        "outer_iid": line.sku,
        "outer_sku_id": line.code or article.code("taobao"),
        "title": article.name,
        "sku_properties_name": ";".join(spec),
        "num": line.quantity,
        "price": major(price, "CNY"),
        "total_fee": major(paid, "CNY"),
        "payment": major(paid, "CNY"),
        "discount_fee": major(listed - paid, "CNY"),
        "adjust_fee": "0.00",
        "part_mjz_discount": major(part, "CNY"),
        "divide_order_fee": major(paid - part, "CNY"),
        "status": STATUS[event.status],
        "refund_status": "WAIT_SELLER_AGREE" if event.status == "refunding" and at == 1 else "NO_REFUND",
    }


def _part(draft: Draft, at: int) -> int:
    """The coupon's share of a line, fen; the last line with a price takes what rounding left."""
    gross = draft.total + draft.coupon
    upto = [sum(line.quantity * (line.price or 0) for line in draft.lines[:end]) for end in (at - 1, at)]
    return draft.coupon * upto[1] // max(gross, 1) - draft.coupon * upto[0] // max(gross, 1)


def _cents(yuan: str) -> int:
    return int(yuan.replace(".", ""))


def _hidden(name: str) -> str:
    return name[:1] + "**"


def _uid(user: str) -> str:
    return "AAE" + hashlib.sha256(user.encode()).hexdigest()[:29]


# -- signing -----------------------------------------------------------------------------------------------------------


def _digest(secret: str, params: Mapping[str, str], text: bytes) -> str:
    joined = "".join(f"{key}{value}" for key, value in sorted(params.items()))
    return hashlib.md5(secret.encode() + joined.encode() + text + secret.encode(), usedforsecurity=False).hexdigest().upper()


def spi(
    body: bytes,
    secret: str,
    now_ms: int,
    *,
    signed: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Push:
    """An SPI call as the platform makes it. secret: `app_key:app_secret`; signed: headers that are signed; form: the body's fields."""
    key, _, value = secret.partition(":")
    extra = dict(signed or {})
    query = {"app_key": key, "timestamp": times.beijing(now_ms), "sign_method": "md5"}
    kind = "application/json;charset=utf-8" if form is None else "application/x-www-form-urlencoded;charset=utf-8"
    sign = _digest(value, {**(form or {}), **extra, **query}, body if form is None else b"")
    headers = {"content-type": kind, **{name: quote_plus(text) for name, text in extra.items()}}
    if extra:
        headers["top-sign-list"] = ",".join(extra)
    return Push(body, headers, {**query, "sign": sign})


# -- the platform's side -----------------------------------------------------------------------------------------------


class Top:
    """One app at the platform: its trades, its queue of messages, and its API as `app`.

    pair: `app_key:app_secret`; redeliver: seconds after which a message that was taken and not confirmed comes again. clock: seconds, for tests.
    """

    def __init__(
        self,
        pair: str = "12345:app-secret",
        session: str = "session",
        *,
        trouble: Trouble | None = None,
        redeliver: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key, _, self.secret = pair.partition(":")
        self.session = session
        self.trouble = trouble or Trouble()
        self.redeliver = redeliver
        self.clock = clock
        self.trades: dict[str, bytes] = {}
        self.queue: deque[bytes] = deque()
        self.out: dict[str, tuple[float, bytes]] = {}
        """Taken and not confirmed: id -> when it comes again, message."""
        self.confirmed: list[str] = []
        self.calls: list[str] = []
        self.app = FastAPI()
        self.app.add_api_route("/router/rest", self._rest, methods=["POST"])

    def happened(self, message: bytes, answer: bytes, *, lost: bool = False) -> None:
        """Something happened to a trade. message, answer: of `body` and `detail`; lost: its message never comes."""
        found = orjson.loads(answer)["trade_fullinfo_get_response"]["trade"]
        self.trades[found["tid_str"]] = answer
        if not lost:
            self.queue.extend([message] * (2 if self.trouble.again() else 1))

    async def _rest(self, request: Request) -> Response:
        params = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        method = params.get("method", "")
        self.calls.append(method)
        mishap = self.trouble.call()
        if mishap == "failed":
            return Response("<html>502</html>", 502)
        if mishap == "throttled":
            return _error(
                7, "App Call Limited", "accesscontrol.limited-by-api-access-count", "This ban will last for 1 more seconds"
            )
        sign = params.pop("sign", "")
        if params.get("app_key") != self.key:
            return _error(29, "Invalid app Key")
        if sign != _digest(self.secret, params, b""):
            return _error(25, "Invalid signature")
        answers: dict[str, Callable[[Mapping[str, str]], Response]] = {
            "taobao.trade.fullinfo.get": self._fullinfo,
            "taobao.trades.sold.increment.get": self._increment,
            "taobao.tmc.messages.consume": self._consume,
            "taobao.tmc.messages.confirm": self._confirm,
        }
        if method not in answers:
            return _error(22, "Invalid method")
        if not method.startswith("taobao.tmc") and params.get("session") != self.session:
            return _error(27, "Invalid session", "sessionkey-not-generated-by-server")
        return answers[method](params)

    def _fullinfo(self, params: Mapping[str, str]) -> Response:
        answer = self.trades.get(params.get("tid", ""))
        if answer is None:
            return _error(15, "Remote service error", "isv.trade-not-exist", "交易订单不存在")
        return Response(answer, media_type="application/json")

    def _increment(self, params: Mapping[str, str]) -> Response:
        trades = [orjson.loads(answer)["trade_fullinfo_get_response"]["trade"] for answer in [*self.trades.values()]]
        found = sorted(
            (one for one in trades if params["start_modified"] <= one["modified"] <= params["end_modified"]),
            key=lambda one: (one["modified"], one["tid"]),
        )
        size = int(params["page_size"])
        at = (int(params["page_no"]) - 1) * size
        fields = params["fields"].split(",")
        page = [{name: one[name] for name in fields if name in one} for one in found[at : at + size]]
        return _answer("trades_sold_increment_get_response", {"total_results": len(found), "trades": {"trade": page}})

    def _consume(self, params: Mapping[str, str]) -> Response:
        now = self.clock()
        for name, (due, message) in [*self.out.items()]:
            if due <= now:
                del self.out[name]
                self.queue.append(message)
        taken: list[bytes] = []
        while self.queue and len(taken) < int(params.get("quantity", "100")):
            message = self.queue.popleft()
            self.out[str(orjson.loads(message)["id"])] = (now + self.redeliver, message)
            taken.append(message)
        whole = b'{"tmc_messages_consume_response":{"messages":{"tmc_message":[%s]},"request_id":"simulated"}}'
        none = b'{"tmc_messages_consume_response":{"request_id":"simulated"}}'
        return Response(whole % b",".join(taken) if taken else none, media_type="application/json")

    def _confirm(self, params: Mapping[str, str]) -> Response:
        for name in filter(None, params.get("s_message_ids", "").split(",")):
            if self.out.pop(name, None) is not None:
                self.confirmed.append(name)
        for name in filter(None, params.get("f_message_ids", "").split(",")):
            if name in self.out:
                self.out[name] = (self.clock(), self.out[name][1])
        return _answer("tmc_messages_confirm_response", {"is_success": True})


def _answer(name: str, value: dict[str, Any]) -> Response:
    return Response(orjson.dumps({name: {**value, "request_id": "simulated"}}), media_type="application/json")


def _error(code: int, message: str, sub_code: str | None = None, sub_message: str | None = None) -> Response:
    error: dict[str, Any] = {"code": code, "msg": message, "request_id": "simulated"}
    if sub_code is not None:
        error |= {"sub_code": sub_code, "sub_msg": sub_message or ""}
    return Response(orjson.dumps({"error_response": error}), media_type="application/json")
