"""JD as a shop's programs see it: orders that are asked for page by page, in JD's own words for nothing.

Law: rows are worded, masked and encrypted as JD does it, and made by this module alone; `orderstream.channels.jd` reads them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from fastapi import FastAPI, Request, Response

from orderstream import times
from orderstream.money import major
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.simulators.trouble import Trouble

STATE = {
    "created": "NOT_PAY",
    "paid": "WAIT_SELLER_STOCK_OUT",
    "refunding": "LOCKED",
    "refunded": "TRADE_CANCELED",
    "cancelled": "TRADE_CANCELED",
}
NEVER = "0001-01-01 00:00:00"


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """A row of the order search at that moment. Only `yd_pop_order` has `dataVersion`: see `pushed`."""
    return compact(row(draft, event, articles) | draft.extra)


def pushed(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The same as a row of the database `yd_pop_order`: the order is a text in it."""
    found = row(draft, event, articles)
    version = str((event.start + event.updated) // 1000 * 1000)
    text = orjson.dumps({**found, "dataVersion": version}).decode()
    return compact({"orderId": found["orderId"], "state": found["orderState"], "responseJson": text} | draft.extra)


def row(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    """The order itself."""
    buyer, place = draft.buyer, draft.buyer.place
    number = draft.name
    items = [_item(draft, at, line, articles[line.sku]) for at, line in enumerate(draft.lines, 1)]
    listed = sum(round(float(one["jdPrice"]) * 100) * int(one["itemTotal"]) for one in items)
    promotions = [
        {"orderId": number, "skuId": one["skuId"], "couponType": "30-单品促销优惠", "couponPrice": major(off, "CNY")}
        for one, line in zip(items, draft.lines, strict=True)
        if (off := (round(float(one["jdPrice"]) * 100) - (line.price or 0)) * line.quantity)
    ]
    if draft.coupon:
        promotions.append(
            {"orderId": number, "skuId": "", "couponType": "100-店铺优惠券", "couponPrice": major(draft.coupon, "CNY")}
        )
    paid = event.status != "created"
    state = "POP_ORDER_PAUSE" if draft.hold and event.status == "paid" else STATE[event.status]
    return {
        "orderId": number,
        "parentOrderId": "0",
        "directParentOrderId": "0",
        "venderId": "10600001",
        "orderType": "22",
        "orderState": state,
        "orderStateRemark": "",
        "orderStartTime": times.beijing(event.start + draft.created),
        "paymentConfirmTime": times.beijing(event.start + draft.created) if paid else NEVER,
        "modified": times.beijing(max(event.start + draft.created, event.start + event.updated)),
        "orderEndTime": NEVER,
        "payType": "4-在线支付",
        "orderTotalPrice": major(listed, "CNY"),
        "sellerDiscount": major(listed - draft.total, "CNY"),
        "orderSellerPrice": major(draft.total, "CNY"),
        "orderPayment": major(draft.total, "CNY"),
        "freightPrice": "0.00",
        "balanceUsed": "0.00",
        "couponDetailList": [promotions] if promotions else [],
        "pin": "jd_****",
        "open_id_buyer": "o" + _hash(buyer.user, 24),
        "orderRemark": draft.remark or "",
        "venderRemark": "",
        "orderSource": "移动端订单",
        "returnOrder": "0",
        "sendpayMap": '{"9":"2","34":"3"}',
        "vatInfo": [],
        "consigneeInfo": {
            "fullname": _sealed(buyer.name),
            "mobile": f"{buyer.phone[:3]}*******{buyer.phone[-1]}",
            "telephone": f"{buyer.phone[:3]}*******{buyer.phone[-1]}",
            "fullAddress": _sealed(place.city + buyer.detail),
            "province": place.province,
            "city": place.city,
            "county": place.district,
            "town": "",
            "desen_mobile": _hash(buyer.phone, 35),
            "oaid": _hash(f"{buyer.name}|{buyer.phone}|{place.city}|{buyer.detail}", 30),
        },
        "itemInfoList": items,
    }


def refund(draft: Draft, event: Event, status: int) -> bytes:
    """A row of the refund applications for the whole order. status: 0 asked for, 3 paid back."""
    at = times.beijing(event.start + event.updated)
    return compact(
        {
            "id": 9_800_000_000 + draft.number,
            "orderId": draft.name,
            "applyTime": at,
            "checkTime": at if status else "",
            "applyRefundSum": draft.total,
            "status": status,
        }
    )


def _item(draft: Draft, at: int, line: Line, article: Article) -> dict[str, Any]:
    number = 10_050_000_000_000 + int(line.sku.removeprefix("SKU"))
    price = 0 if line.gift else max(article.base, line.price or 0)
    return {
        "id": draft.number * 100 + at,
        "skuId": str(number),
        "wareId": str(number - 30_000_000_000),
        "outerSkuId": line.code or article.code("jd"),
        "productNo": "",
        "skuName": " ".join(part for part in (article.name, line.colour or (article.colour or ("",))[0], article.size) if part),
        "itemTotal": str(line.quantity),
        "jdPrice": major(price, "CNY"),
        "giftPoint": "0",
        "newStoreId": "0",
        "itemExt": orjson.dumps({"skuUuid": f"1012_{draft.name}_{at}", "isVMI": 0}).decode(),
    }


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _sealed(text: str) -> str:
    """Ciphertext as JD's looks: the same start for everybody, and nothing that two orders could be compared by."""
    return "AAS/" + base64.b64encode(hashlib.sha512(text.encode()).digest()).decode()


class Jos:
    """One shop at JD: its orders and refunds, and the API as `app`. pair: `app_key:app_secret`."""

    def __init__(self, pair: str = "12345:app-secret", access: str = "access", *, trouble: Trouble | None = None) -> None:
        self.key, _, self.secret = pair.partition(":")
        self.access = access
        self.trouble = trouble or Trouble()
        self.orders: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.app = FastAPI()
        self.app.add_api_route("/routerjson", self._router, methods=["POST"])

    def happened(self, order: bytes) -> None:
        """An order changed; order: of `body`."""
        found = orjson.loads(order)
        self.orders[found["orderId"]] = found

    def applied(self, row: bytes) -> None:
        """A refund was asked for or decided; row: of `refund`."""
        found = orjson.loads(row)
        self.refunds = [one for one in self.refunds if one["id"] != found["id"]] + [found]

    async def _router(self, request: Request) -> Response:
        params = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        method = params.get("method", "")
        self.calls.append(method)
        mishap = self.trouble.call()
        if mishap == "failed":
            return Response("<html>502</html>", 502)
        if mishap == "throttled":
            return _error("10100005", "服务调用超出频率限制", "too many calls")
        sign = params.pop("sign", "")
        joined = "".join(f"{key}{value}" for key, value in sorted(params.items()))
        whole = f"{self.secret}{joined}{self.secret}".encode()
        if sign != hashlib.md5(whole, usedforsecurity=False).hexdigest().upper() or params.get("app_key") != self.key:
            return _error("12", "无效签名", "Invalid signature")
        if params.get("access_token") != self.access:
            return _error("19", "token已过期或者不存在", "Invalid access_token")
        answers: dict[str, Callable[[Mapping[str, str]], Response]] = {
            "jingdong.pop.order.search": self._search,
            "jingdong.pop.order.get": self._get,
            "jingdong.pop.afs.soa.refundapply.queryPageList": self._applied,
        }
        if method not in answers:
            return _error("21", "无效method", "Invalid method")
        return answers[method](orjson.loads(params["360buy_param_json"]))

    def _search(self, ask: Mapping[str, str]) -> Response:
        states = ask["order_state"].split(",")
        found = sorted(
            (
                one
                for one in [*self.orders.values()]
                if one["orderState"] in states and ask["start_date"] <= one["modified"] <= ask["end_date"]
            ),
            key=lambda one: (one["modified"], one["orderId"]),
        )
        page = [_only(one, ask) for one in _page(found, ask["page"], ask["page_size"])]
        result = {"apiResult": _good(), "orderTotal": len(found), "orderInfoList": page}
        return _answer("jingdong_pop_order_search_responce", {"searchorderinfo_result": result})

    def _get(self, ask: Mapping[str, str]) -> Response:
        found = self.orders.get(ask["order_id"])
        if found is None:
            bad = {"success": False, "englishErrCode": "order not found", "chineseErrCode": "订单不存在", "numberCode": 10400001}
            return _answer("jingdong_pop_order_get_responce", {"orderDetailInfo": {"apiResult": bad}})
        detail = {"apiResult": _good(), "orderInfo": _only(found, ask)}
        return _answer("jingdong_pop_order_get_responce", {"orderDetailInfo": detail})

    def _applied(self, ask: Mapping[str, str]) -> Response:
        found = [one for one in self.refunds if ask["checkTimeStart"] <= one["checkTime"] <= ask["checkTimeEnd"]]
        page = _page(found, ask["pageIndex"], ask["pageSize"])
        result = {"success": True, "totalCount": len(found), "result": page}
        return _answer("jingdong_pop_afs_soa_refundapply_queryPageList_responce", {"queryResult": result})


def _page(found: list[dict[str, Any]], number: str, size: str) -> list[dict[str, Any]]:
    at = (int(number) - 1) * int(size)
    return found[at : at + int(size)]


def _only(order: Mapping[str, Any], ask: Mapping[str, str]) -> dict[str, Any]:
    return {name: order[name] for name in ask["optional_fields"].split(",") if name in order}


def _good() -> dict[str, Any]:
    return {"success": True, "englishErrCode": "success", "chineseErrCode": "成功", "numberCode": 0}


def _answer(name: str, value: dict[str, Any]) -> Response:
    return Response(orjson.dumps({name: {"code": "0", **value}}), media_type="application/json")


def _error(code: str, chinese: str, english: str) -> Response:
    error = {"error_response": {"code": code, "zh_desc": chinese, "en_desc": english}}
    return Response(orjson.dumps(error), media_type="application/json")
