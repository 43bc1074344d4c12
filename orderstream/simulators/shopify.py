"""Shopify: a draft as one of its webhooks, with the hundred fields that we do not use; and its Admin API's list of orders."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from orderstream import times
from orderstream.money import major
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, compact
from orderstream.simulators.trouble import Trouble
from orderstream.times import DAY


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The order as an orders/… webhook has it."""
    return compact(_order(draft, event, articles) | draft.extra)


def _order(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    buyer, place = draft.buyer, draft.buyer.place
    number = int(draft.name)
    created = event.start + draft.created
    updated = event.start + event.updated
    charged = 1.0 if draft.dollars is None else draft.dollars
    shown = "CNY" if draft.dollars is None else "USD"

    def both(fen: int) -> dict[str, Any]:
        return {
            "shop_money": {"amount": major(fen, "CNY"), "currency_code": "CNY"},
            "presentment_money": {"amount": major(round(fen / charged), shown), "currency_code": shown},
        }

    gross = draft.total + draft.coupon
    lines = []
    share = draft.coupon
    for i, line in enumerate(draft.lines, 1):
        article = articles[line.sku]
        price = line.price or 0
        # the last line takes what rounding left: Shopify's allocations add up to the discount
        part = share if i == len(draft.lines) else draft.coupon * price * line.quantity // max(gross, 1)
        share -= part
        lines.append(
            {
                "id": number * 10 + i,
                "product_id": 7_000_000_000_000 + int(line.sku.removeprefix("SKU")),
                "variant_id": 8_000_000_000_000 + int(line.sku.removeprefix("SKU")),
                "sku": line.code or article.code("shopify"),
                "title": article.english,
                "variant_title": article.colour[0] if article.colour else None,
                "name": article.english,
                "quantity": line.quantity,
                "current_quantity": line.quantity,
                "fulfillable_quantity": line.quantity,
                "price": major(price, "CNY"),
                "price_set": both(price),
                "total_discount": "0.00",
                "discount_allocations": [{"amount": major(part, "CNY"), "discount_application_index": 0}] if part else [],
                "tax_lines": [],
                "properties": [],
                "gift_card": False,
                "requires_shipping": True,
            }
        )
    address: dict[str, Any] = {
        "name": buyer.name,
        "address1": buyer.detail,
        "address2": None,
        "city": place.city,
        "province": place.province or None,
        "country": place.country,
        "country_code": place.country,
        "zip": place.postcode,
        "phone": buyer.phone,
        "latitude": buyer.lat,
        "longitude": buyer.lon,
    }
    customer = 5_000_000_000_000 + int(buyer.user.removeprefix("u-"))
    return {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/Order/{number}",
        "name": f"#{1000 + draft.number}",
        "order_number": 1000 + draft.number,
        "created_at": times.text(created),
        "processed_at": times.text(created),
        "updated_at": times.text(max(created, updated)),
        "cancelled_at": times.text(updated) if event.status == "cancelled" else None,
        "cancel_reason": "customer" if event.status == "cancelled" else None,
        "closed_at": None,
        "test": False,
        "currency": "CNY",
        "presentment_currency": shown,
        "financial_status": "pending" if event.status == "created" else "paid",
        "fulfillment_status": None,
        "total_line_items_price": major(gross, "CNY"),
        "total_discounts": major(draft.coupon, "CNY"),
        "subtotal_price": major(draft.total, "CNY"),
        "total_tax": "0.00",
        "total_price": major(draft.total, "CNY"),
        "total_price_set": both(draft.total),
        "discount_codes": [{"code": "LIVE", "amount": major(draft.coupon, "CNY"), "type": "fixed_amount"}]
        if draft.coupon
        else [],
        "payment_gateway_names": ["shopify_payments"],
        "customer": {"id": customer, "email": f"{buyer.user}@example.com", "created_at": times.text(created - 90 * DAY)},
        "email": f"{buyer.user}@example.com",
        "browser_ip": buyer.ip,
        "client_details": {"browser_ip": buyer.ip, "user_agent": "Mozilla/5.0", "session_hash": None},
        "device_id": None,
        "line_items": lines,
        "shipping_address": address,
        "note": draft.remark,
        "note_attributes": [],
        "tags": "",
        "source_name": "web",
    }


class Admin:
    """One shop's Admin API, as `app`: its orders as they are now, listed by the time of their change. token: the app's."""

    def __init__(self, token: str, trouble: Trouble | None = None) -> None:
        self.token = token
        self.trouble = trouble or Trouble()
        self.orders: dict[int, dict[str, Any]] = {}
        self.app = FastAPI()
        self.app.add_api_route("/admin/api/{version}/orders.json", self._list, methods=["GET"])
        self.app.add_api_route("/admin/api/{version}/orders/{number}.json", self._one, methods=["GET"])

    def put(self, draft: Draft, event: Event, articles: dict[str, Article]) -> None:
        """The order is so now."""
        found = orjson.loads(body(draft, event, articles))
        self.orders[found["id"]] = found

    def _refused(self, request: Request) -> Response | None:
        mishap = self.trouble.call()
        if mishap == "failed":
            return Response("<html>502 Bad Gateway</html>", 502)
        if mishap == "throttled":
            return Response(orjson.dumps({"errors": "Exceeded 2 calls per second"}), 429, {"Retry-After": "1.0"})
        if request.headers.get("x-shopify-access-token") != self.token:
            return Response(orjson.dumps({"errors": "[API] Invalid API key or access token"}), 401)
        return None

    async def _list(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        asked = dict(request.query_params)
        # a cursor stands for the whole question, and for where it had come to
        if "page_info" in asked:
            if asked.keys() - {"page_info", "limit", "fields"}:
                return Response(orjson.dumps({"errors": "page_info goes with limit and fields alone"}), 400)
            asked |= orjson.loads(base64.urlsafe_b64decode(asked["page_info"]))
        after = [asked.get("after_time", ""), int(asked.get("after_id", 0))]
        rows = sorted(
            (
                one
                for one in [*self.orders.values()]
                if asked["updated_at_min"] <= one["updated_at"] <= asked["updated_at_max"]
                and (asked.get("status") == "any" or one["cancelled_at"] is None)
            ),
            key=lambda one: (one["updated_at"], one["id"]),
        )
        left = [one for one in rows if [one["updated_at"], one["id"]] > after]
        page = left[: int(asked["limit"])]
        headers = {}
        if len(page) < len(left):
            kept = {name: asked[name] for name in ("status", "updated_at_min", "updated_at_max")}
            kept |= {"after_time": page[-1]["updated_at"], "after_id": page[-1]["id"]}
            cursor = base64.urlsafe_b64encode(orjson.dumps(kept)).decode()
            address = request.url.replace(query=f"limit={asked['limit']}&page_info={cursor}")
            headers["Link"] = f'<{address}>; rel="next"'
        return Response(orjson.dumps({"orders": page}), headers=headers, media_type="application/json")

    async def _one(self, request: Request, number: int) -> Response:
        found = self._refused(request)
        if found is not None:
            return found
        if number not in self.orders:
            return Response(orjson.dumps({"errors": "Not Found"}), 404)
        return Response(orjson.dumps({"order": self.orders[number]}), media_type="application/json")
