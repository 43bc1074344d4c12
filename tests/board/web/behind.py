"""What stands behind the wall, made in short."""

from __future__ import annotations

from typing import Any

import msgspec

from orderstream.board import store
from orderstream.board.consume import Limits, Record, take
from orderstream.downstream import store as downstream
from orderstream.downstream.flow import Ack, Acked, Parcel, Said, Unit
from orderstream.downstream.process import NO_LIMITS
from orderstream.downstream.read import Told
from orderstream.normalise import Rejection
from tests.board.core.records import T
from tests.board.web.conftest import Board


def stuck(board: Board, number: str = "A1") -> str:
    """A released order that the ERP refuses, and whose parcel has the wrong thing in it."""
    name = f"api:main:{number}"
    items = [
        Said(1, T, True, "p@1", "CNY", 100, (Unit({"RED": 1}),)), Acked("erp", Ack(1, "refused", T, T, reason="客户 13910000124 黑名单")),
        Parcel("P1", 1, T + 1, {"BLUE": 1}),
    ]  # fmt: skip
    downstream.apply(board.db, [Told(name, item) for item in items], lambda _: NO_LIMITS)
    downstream.remind(board.db, T + 2)
    return name


def rejection(number: str, body: dict[str, Any], code: str = "bad-amount", shop: str = "main") -> Rejection:
    """As an older parser refused it."""
    raw = msgspec.json.encode(body)
    reason = "total of 13910000124 is no amount"
    received = store.now() - 60_000
    return Rejection(f"api:{shop}:{number}", "api", shop, received, code, reason, "total", "p@1", "hmac", {}, raw)


def rejected(board: Board, *records: Rejection) -> None:
    """As the reader of orders.rejected takes them."""
    offset = board.feed.offsets.get("orders.rejected", 0)
    made = [Record(offset + n, T, r.order_id, msgspec.json.encode(r)) for n, r in enumerate(records)]
    board.feed.offsets["orders.rejected"] = offset + len(made)
    take(board.db, "orders.rejected", 0, made, Limits(None), T)
