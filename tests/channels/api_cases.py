"""Bodies of the api format, good and bad, that the parser and the published schema must both judge."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

FULL: dict[str, Any] = {
    "order_id": "A1001",
    "revision": 1,
    "status": "paid",
    "created_at": "2026-11-11T00:00:01.123+08:00",
    "updated_at": "2026-11-11T00:00:05+08:00",
    "currency": "CNY",
    "total": "358.00",
    "discounts": [{"kind": "coupon", "amount": "20.00"}],
    "ship_by": "2026-11-12T00:00:00+08:00",
    "hold": None,
    "presale": False,
    "buyer": {
        "id": "u-17",
        "registered_at": "2025-01-01T00:00:00Z",
        "device": "d-9",
        "ip": "203.0.113.7",
        "phone": "13800000000",
        "email": "a@example.com",
    },
    "payment": {"id": "p-5", "method": "alipay"},
    "ship_to": {
        "name": "李雷",
        "phone": "13800000001",
        "country": "CN",
        "province": "浙江省",
        "city": "杭州市",
        "district": "西湖区",
        "detail": "文三路1号",
        "postcode": "310012",
        "lat": 30.27,
        "lon": 120.13,
    },
    "lines": [
        {
            "id": "1",
            "code": "tb-981",
            "title": "多功能收纳架",
            "spec": {"颜色": "原木色"},
            "quantity": 2,
            "price": "189.00",
            "list_price": "199.00",
            "gift": False,
        }
    ],
    "customs": {"hs_codes": {"1": "94036099"}, "declaration": "D-1"},
    "remark": "请尽快",
}
LEAST: dict[str, Any] = {
    "order_id": "A1",
    "created_at": "2026-11-11T00:00:01+08:00",
    "currency": "CNY",
    "lines": [{"code": "c", "quantity": 2, "price": "1.50"}],
}


def change(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a path like `lines.0.price`; `...` removes it."""
    out = copy.deepcopy(base)
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    at: Any = out
    for part in way:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return out


class Bad(NamedTuple):
    """A change of FULL that must be refused. schema: the published schema can say so too."""

    path: str
    value: Any
    code: str
    field: str | None
    schema: bool = True


BAD: list[Bad] = [
    Bad("colour", "red", "unknown-field", "colour"),
    Bad("buyer.name", "x", "unknown-field", "buyer.name"),
    Bad("lines.0.sku", "x", "unknown-field", "lines[0].sku"),
    Bad("ship_to.street", "x", "unknown-field", "ship_to.street"),
    Bad("discounts.0.code", "x", "unknown-field", "discounts[0].code"),
    Bad("order_id", ..., "missing-field", "order_id"),
    Bad("created_at", ..., "missing-field", "created_at"),
    Bad("currency", ..., "missing-field", "currency"),
    Bad("lines", ..., "missing-field", "lines"),
    Bad("lines.0.code", ..., "missing-field", "lines[0].code"),
    Bad("lines.0.code", "", "missing-field", "lines[0].code"),
    Bad("lines.0.code", "  ", "missing-field", "lines[0].code"),
    Bad("lines.0.price", ..., "missing-field", "lines[0].price"),
    Bad("lines.0.quantity", ..., "missing-field", "lines[0].quantity"),
    Bad("lines", [], "no-lines", "lines"),
    Bad("lines", [{"code": "c", "quantity": 1, "price": 1}] * 501, "too-many-lines", "lines"),
    Bad("order_id", 1001, "wrong-type", "order_id"),
    Bad("order_id", "", "bad-order-id", "order_id"),
    Bad("order_id", "A 1", "bad-order-id", "order_id"),
    Bad("order_id", "A:1", "bad-order-id", "order_id"),
    Bad("order_id", "A\n1", "bad-order-id", "order_id"),
    Bad("order_id", "x" * 129, "bad-order-id", "order_id"),
    Bad("status", "done", "bad-status", "status"),
    Bad("status", 1, "wrong-type", "status"),
    Bad("currency", "cny", "bad-currency", "currency"),
    Bad("currency", "XYZ", "bad-currency", "currency", schema=False),
    Bad("currency", "", "bad-currency", "currency"),
    Bad("created_at", "2026-11-11T00:00:01", "bad-time", "created_at"),
    Bad("created_at", "2026-11-11", "bad-time", "created_at"),
    Bad("created_at", "", "bad-time", "created_at"),
    Bad("created_at", 1794326401, "wrong-type", "created_at"),
    Bad("created_at", "2026-02-30T00:00:01+08:00", "bad-time", "created_at", schema=False),
    Bad("created_at", "2226-11-11T00:00:01+08:00", "bad-time", "created_at", schema=False),
    Bad("updated_at", "soon", "bad-time", "updated_at"),
    Bad("ship_by", "2026-11-11T00:00:01", "bad-time", "ship_by"),
    Bad("buyer.registered_at", "yesterday", "bad-time", "buyer.registered_at"),
    Bad("lines.0.price", "NaN", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "Infinity", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "-1.00", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", -1, "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "1.001", "bad-amount", "lines[0].price", schema=False),
    Bad("lines.0.price", "1." + "0" * 30 + "1", "bad-amount", "lines[0].price", schema=False),
    Bad("lines.0.price", "9" * 30, "bad-amount", "lines[0].price", schema=False),
    Bad("lines.0.price", 10**30, "bad-amount", "lines[0].price", schema=False),
    Bad("lines.0.price", "", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", None, "bad-amount", "lines[0].price"),
    Bad("lines.0.price", True, "bad-amount", "lines[0].price"),
    Bad("lines.0.price", [1], "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "1e2", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "1_0", "bad-amount", "lines[0].price"),
    Bad("lines.0.price", "１", "bad-amount", "lines[0].price"),
    Bad("lines.0.list_price", "x", "bad-amount", "lines[0].list_price"),
    Bad("total", "-0.01", "bad-amount", "total"),
    Bad("total", {}, "bad-amount", "total"),
    Bad("discounts.0.amount", "-20", "bad-amount", "discounts[0].amount"),
    Bad("discounts.0.kind", ..., "missing-field", "discounts[0].kind"),
    Bad("discounts", {}, "wrong-type", "discounts"),
    Bad("lines.0.quantity", 0, "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", -1, "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", 1.5, "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", "2", "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", True, "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", None, "bad-quantity", "lines[0].quantity"),
    Bad("lines.0.quantity", 1_000_001, "bad-quantity", "lines[0].quantity"),
    Bad("revision", -1, "bad-value", "revision"),
    Bad("revision", 1.5, "wrong-type", "revision"),
    Bad("revision", "1", "too-long", "revision"),
    Bad("revision", True, "wrong-type", "revision"),
    Bad("presale", "yes", "too-long", "presale"),
    Bad("presale", 1, "wrong-type", "presale"),
    Bad("lines.0.gift", 0, "wrong-type", "lines[0].gift"),
    Bad("hold", 1, "wrong-type", "hold"),
    Bad("buyer", [], "wrong-type", "buyer"),
    Bad("buyer.id", 17, "wrong-type", "buyer.id"),
    Bad("buyer.id", "x" * 129, "too-long", "buyer.id"),
    Bad("lines.0.spec", ["x"], "wrong-type", "lines[0].spec"),
    Bad("lines.0.spec", {"颜色": 1}, "wrong-type", "lines[0].spec[...]"),
    Bad("ship_to.lat", "30.27", "wrong-type", "ship_to.lat"),
    Bad("ship_to.lon", True, "wrong-type", "ship_to.lon"),
    Bad("remark", "x" * 4001, "too-long", "remark"),
    Bad("customs.hs_codes", {"1": 94036099}, "wrong-type", "customs.hs_codes[...]"),
]
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("full", FULL),
    ("least", LEAST),
    ("numbers as amounts", change(change(FULL, "lines.0.price", 189.5), "total", 359)),
    ("everything optional is null", {**LEAST, **dict.fromkeys(FULL.keys() - LEAST.keys())}),
    ("everything optional is empty", {**LEAST, "revision": "", "status": "", "updated_at": "", "total": "", "ship_by": "",
                                      "hold": "", "presale": "", "remark": "", "buyer": {}, "ship_to": {"lat": "", "name": ""}}),
    ("invalid extras", change(change(FULL, "buyer.ip", "999.1.1.1"), "ship_to.lat", 91)),
    ("hold", change(FULL, "hold", True)),
    ("spec with an empty value", change(FULL, "lines.0.spec", {"颜色": "", "尺寸": None})),
]  # fmt: skip
