"""One order's records through the first hop, in any sequence."""

from __future__ import annotations

from msgspec import structs

from orderstream.orders import Raw
from tests.fuzz import law


def last(records: list[Raw], turn: tuple[int, ...], order_id: str) -> tuple[str, int]:
    """The status in force after the records came in this sequence, one a millisecond, and how many revisions are known."""
    line, now = law.line(), records[0].received_at
    for position, at in enumerate(turn):
        line.process(structs.replace(records[at], received_at=now + position), position, now)
    state = line.orders.get(order_id)
    assert state is not None
    assert state.current is not None
    return state.current.order.status, len(state.revisions)
