"""What expressions read, once with everything and once with the least: each is run on both before a pack is used.

Law: a name that no order has is found when the pack is loaded, in its file, not at night in a worker. Shapes are those of
`reading.Reading.context` and `windows.Entity._context`; a test holds them together.
"""

from __future__ import annotations

from typing import Any

ORDER_FULL: dict[str, Any] = {
    "status": "paid",
    "channel": "api",
    "shop": "main",
    "currency": "CNY",
    "total": 35800,
    "presale": False,
    "hold": "manual",
    "coupon": True,
    "missing": ["remark"],
    "phone": "13800000000",
    "account_age_ms": 3_600_000,
    "lines": [{"id": "1", "sku": "SKU1", "code": "c1", "quantity": 2, "price": 18900, "list_price": 19900, "gift": False}],
    "unmapped": [{"line": "1", "code": "c9", "why": "unknown", "nearest": [["SKU1", "收纳架", 80]]}],
    "gifts_without_main": ["2"],
    "gifts_unknown": ["3"],
    "wrong_variants": [{"line": "1", "stated": "胡桃木色", "article": "原木色", "sku": "SKU1"}],
    "variants_unknown": ["1"],
    "papers_missing": [{"line": "1", "paper": "declaration"}],
    "wrong_hs_codes": [{"line": "1", "stated": "94036099", "article": "94036010"}],
    "hs_codes_unknown": ["1"],
    "deals_unknown": ["1"],
    "tags": ["late"],
}
ORDER_LEAST: dict[str, Any] = {
    k: [] if isinstance(v, list) else "" if k == "hold" else False if isinstance(v, bool) else v
    for k, v in ORDER_FULL.items()
    if k not in ("phone", "account_age_ms")
}

SKU_FULL: dict[str, Any] = {
    "fact": {"quantity": 2, "deals": [{"line": "1", "deal": 16915.5, "base": 19900}], "conversions": []},
    "stock": {"available": 2, "locked": False},
    "floor": {"price": 14900},
    "rate": {},
    "history": {},
}
SKU_LEAST: dict[str, Any] = {**SKU_FULL, "fact": {"quantity": 2, "deals": [], "conversions": []}, "floor": {}}
PAIR_FULL: dict[str, Any] = {
    "fact": {"quantity": 0, "deals": [], "conversions": [{"implied": 9.9}]},
    "stock": {},
    "floor": {},
    "rate": {"value": 7.11},
    "history": {},
}
OTHER: dict[str, Any] = {
    "fact": {"quantity": 0, "deals": [], "conversions": []},
    "stock": {},
    "floor": {},
    "rate": {},
    "history": {},
}
HISTORY: dict[str, Any] = {"history": {"orders": 6, "returned": 4, "complaints": 1, "frauds": 0}}


def contexts(name: str, kinds: tuple[str, ...], needs: tuple[str, ...]) -> list[dict[str, Any]]:
    """The samples that an expression must run on. value, limit and detail are asked only where the rule fired."""
    about_order = not kinds or name in ("members", "unavailable")
    if about_order:
        return (
            [{"order": ORDER_FULL}] if name in ("value", "limit", "detail") else [{"order": ORDER_FULL}, {"order": ORDER_LEAST}]
        )
    if "history" in needs:
        return [{**OTHER, **HISTORY}]
    if kinds == ("pair",):
        return [PAIR_FULL]
    if kinds != ("sku",):
        return [OTHER]
    if name in ("value", "limit", "detail"):
        return [SKU_FULL]
    least = SKU_LEAST if "stock" in needs else {**SKU_LEAST, "stock": {}}
    return [SKU_FULL, least]
