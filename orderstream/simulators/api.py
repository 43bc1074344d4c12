"""`api`: a draft in our own format, as the shop's mini-program or site sends it."""

from __future__ import annotations

from typing import Any

from orderstream import times
from orderstream.money import major
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event, Line, compact
from orderstream.times import DAY


def body(draft: Draft, event: Event, articles: dict[str, Article]) -> bytes:
    """The order as the shop's own site sends it."""
    return compact(_order(draft, event, articles) | draft.extra)


def _order(draft: Draft, event: Event, articles: dict[str, Article]) -> dict[str, Any]:
    buyer, place = draft.buyer, draft.buyer.place
    created = event.start + draft.created
    address: dict[str, Any] = {
        "name": buyer.name,
        "phone": buyer.phone,
        "country": place.country,
        "province": place.province,
        "city": place.city,
        "detail": buyer.detail,
        "lat": buyer.lat,
        "lon": buyer.lon,
    }
    if place.district:
        address["district"] = place.district
    if draft.postcode:
        address["postcode"] = place.postcode
    found: dict[str, Any] = {
        "order_id": draft.name,
        "revision": event.revision,
        "status": event.status,
        "created_at": times.text(created),
        "updated_at": times.text(max(created, event.start + event.updated)),
        "currency": "CNY",
        "total": major(draft.total, "CNY"),
        "ship_by": times.text(created + 2 * DAY),
        "buyer": {
            "id": buyer.user,
            "registered_at": times.text(created - int(buyer.registered_days * DAY)),
            "device": buyer.device,
            "ip": buyer.ip,
            "phone": buyer.phone,
        },
        "payment": {"id": buyer.payment, "method": "alipay"},
        "ship_to": address,
        "lines": [_line(i, line, articles[line.sku]) for i, line in enumerate(draft.lines, 1)],
    }
    if draft.coupon:
        found["discounts"] = [{"kind": "coupon", "amount": major(draft.coupon, "CNY")}]
    optional = {"remark": draft.remark, "hold": draft.hold, "customs": draft.customs}
    return found | {name: value for name, value in optional.items() if value is not None}


def _line(number: int, line: Line, article: Article) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": str(number),
        "code": line.code or article.code("api"),
        "title": article.name,
        "quantity": line.quantity,
        "price": major(line.price or 0, "CNY"),
        "list_price": major(article.base, "CNY"),
        "gift": line.gift,
    }
    spec = {}
    if article.colour is not None:
        spec["颜色"] = line.colour or article.colour[0]
    if article.size is not None:
        spec["尺寸"] = article.size
    if spec:
        value["spec"] = spec
    return value
