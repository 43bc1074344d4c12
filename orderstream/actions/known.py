"""Known: what the board knows of an order, as carrying out an action needs it."""

from __future__ import annotations

from typing import Any

import msgspec

from orderstream.board.store import Db
from orderstream.identity import phone, segment


class Known(msgspec.Struct, frozen=True):
    """A row of board.orders. seq: its last verdict; changed_seq: the last one that brought something to see; total: minor units;
    document_seq: the verdict that its document came with, 0 where none has come.
    """

    order_id: str
    channel: str
    shop: str
    verdict: str
    level: str
    pack: str
    seq: int
    changed_seq: int
    out: str
    state: str
    status: str
    currency: str
    total: int
    signals: list[dict[str, Any]]
    case_id: str | None
    document: dict[str, Any] | None
    document_seq: int = 0

    def signal(self, rule: str | None) -> dict[str, Any] | None:
        """What a rule says of it now."""
        return next((signal for signal in self.signals if signal["rule"] == rule), None)

    @property
    def phone(self) -> str | None:
        """The buyer's own number, else the receiver's, E.164; None where neither is anybody's plain one."""
        for part in ("buyer", "ship_to"):
            said = (self._part(part)).get("phone")
            told = None if said is None else phone(said, self._part("ship_to").get("country"))
            if told is not None:
                # a fixed line's extension takes no SMS
                return told if told.startswith("+") else f"+86{told}" if ";" not in told else None
        return None

    @property
    def email(self) -> str | None:
        """The buyer's, where it looks like one."""
        said = self._part("buyer").get("email")
        return said if isinstance(said, str) and said.count("@") == 1 and not set(said) & set(' <>,;"\r\n*') else None

    @property
    def segment(self) -> str | None:
        """The network of the buyer's address."""
        said = self._part("buyer").get("ip")
        return None if said is None else segment(said)

    @property
    def at_home(self) -> bool:
        """Whether its people read Chinese, as far as an address can tell."""
        country = self._part("ship_to").get("country")
        return country in ("CN", "HK", "MO", "TW") if country else self.channel != "shopify"

    def same_buyer(self, other: Known) -> bool:
        """Whether another order is of the same person: their account on one channel, or one plain number."""
        mine, theirs = self._part("buyer").get("id"), other._part("buyer").get("id")
        if mine is not None and mine == theirs and self.channel == other.channel:
            return True
        return self.phone is not None and self.phone == other.phone

    def _part(self, name: str) -> dict[str, Any]:
        return (self.document or {}).get(name) or {}


_COLUMNS = ", ".join(Known.__struct_fields__)


def order(db: Db, order_id: str) -> Known | None:
    """None where the board has not read of it."""
    row = db.execute(f"SELECT {_COLUMNS} FROM board.orders WHERE order_id = %s", (order_id,)).fetchone()  # noqa: S608  names of ours
    return None if row is None else Known(**row)


def orders_of(db: Db, case_id: str, most: int = 200) -> list[Known]:
    """A case's orders, the first ones first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM board.orders WHERE case_id = %s ORDER BY created_at, order_id LIMIT %s",  # noqa: S608  names of ours
        (case_id, most),
    )
    return [Known(**row) for row in rows]
