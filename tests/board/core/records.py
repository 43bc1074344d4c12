"""Records as the stream says them, in short."""

from __future__ import annotations

from typing import Any

import orjson

from orderstream import times
from orderstream.board import consume
from orderstream.board.consume import Limits, Record
from orderstream.board.store import Db

T = 1_794_400_000_000
RANKS = {"ip-pair": "low", "duplicate-order": "medium", "user-burst": "medium", "platform-hold": "high", "payment-shared": "high"}
LEVELS = {"none": "released", "low": "released", "medium": "review", "high": "frozen"}


def signal(rule: str, *others: str, by: str = "user") -> dict[str, Any]:
    """A finding that names these orders (their numbers in the shop api:main)."""
    evidence = {"by": by, "orders": [oid(o) for o in others], "value": 2, "limit": 2}
    return {"rule": rule, "level": RANKS.get(rule, "medium"), "evidence": evidence}


def oid(number: str) -> str:
    return number if ":" in number else f"api:main:{number}"


def verdict(number: str, seq: int = 1, *signals: dict[str, Any], at: int = T, **more: Any) -> tuple[str, dict[str, Any]]:
    level = max((s["level"] for s in signals), key=("none", "low", "medium", "high").index, default="none")
    order_id = oid(number)
    return "orders.verdicts", {
        "order_id": order_id, "verdict_seq": seq, "verdict": LEVELS[level], "level": level, "score": 10, "pack": "standard@1",
        "signals": list(signals), "not_available": [], "rejected": None, "tags": [], "held": False, "combinations": [],
        "rules": [{"id": s["rule"], "state": "fired", "evidence": s["evidence"]} for s in signals], "status": "paid",
        "currency": "CNY", "total": 35_800, "channel": order_id.split(":")[0], "shop": order_id.split(":")[1], "previous": None,
        "timings": {"created_at": at, "received_at": at, "normalised_at": at, "decided_at": at + seq}, **more,
    }  # fmt: skip


def place(where: str, number: str, seq: int = 1, *, by: str = "machine", **order: Any) -> tuple[str, dict[str, Any]]:
    order_id = oid(number)
    channel, shop, _ = order_id.split(":")
    document = {
        "order_id": order_id, "channel": channel, "shop": shop, "number": number, "revision": 1, "status": "paid",
        "created_at": T, "currency": "CNY", "total": 35_800, "buyer": {"id": "u-17"},
        "lines": [{"id": "1", "code": "tb-981", "quantity": 1, "price": 35_800, "title": "收纳架", "sku": "SKU1"}],
        "ship_to": {"name": "李雷", "phone": "13800000000"}, **order,
    }  # fmt: skip
    return f"orders.{where}", {
        "order_id": order_id, "verdict_seq": seq, "verdict": where, "level": "medium", "score": 10, "pack": "standard@1",
        "signals": [], "order": document, "units": [], "filled": [], "by": by,
    }  # fmt: skip


def recalled(number: str, seq: int, cause: str = "signals") -> tuple[str, dict[str, Any]]:
    return "orders.recalled", {
        "order_id": oid(number), "verdict_seq": seq, "verdict": "review", "level": "medium", "pack": "", "signals": [], "cause": cause,
    }  # fmt: skip


def outcome(number: str, said: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "orders.outcomes", {"order_id": oid(number), "at": times.text(T + 50), "outcome": said, **more}


class Feed:
    """Puts records in as the reader of the topics would, each topic with offsets of its own."""

    def __init__(self, db: Db, limit: int | None = 3_600_000) -> None:
        self.db = db
        self.limits = Limits(limit)
        self.offsets: dict[str, int] = {}

    def __call__(
        self, *records: tuple[str, dict[str, Any] | None] | tuple[str, dict[str, Any] | None, str], now: int = T + 100
    ) -> None:
        for topic, value, *key in records:
            offset = self.offsets.get(topic, 0)
            self.offsets[topic] = offset + 1
            name = key[0] if key else (value or {}).get("order_id", "")
            body = None if value is None else orjson.dumps(value)
            consume.take(self.db, topic, 0, [Record(offset, T + 60, name, body)], self.limits, now)

    def at_once(self, *records: tuple[str, dict[str, Any]], now: int = T + 100) -> None:
        """Records of one topic as one batch, as a board reads them that was away."""
        topic = records[0][0]
        first = self.offsets.get(topic, 0)
        self.offsets[topic] = first + len(records)
        batch = [Record(first + n, T + 60, value["order_id"], orjson.dumps(value)) for n, (_, value) in enumerate(records)]
        consume.take(self.db, topic, 0, batch, self.limits, now)

    def waiting(self, number: str, *signals: dict[str, Any], seq: int = 1, **order: Any) -> None:
        """An order that waits for a person."""
        said = verdict(
            number, seq, *(signals or (signal("duplicate-order"),)), **({"total": order["total"]} if "total" in order else {})
        )
        self(said, place(said[1]["verdict"], number, seq, **order))
