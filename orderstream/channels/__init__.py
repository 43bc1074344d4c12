"""Channels: one module each, behind one small interface.

Law: a channel proves who sent the bytes, then translates them once. `verify` sees the raw bytes and the headers, never the
parsed body; `parse` is pure and never raises for what a channel sent: what cannot be one order is a Rejected, what asks for
nothing is a Skip. Reason: the next channel must need nothing new outside its own module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

from orderstream.orders import Parsed, Raw


class Refused(Exception):  # noqa: N818  named for what is so
    """The sender is not proved. code goes to a metric; status is the HTTP answer (401, or 400 for what is no delivery)."""

    def __init__(self, code: str, status: int = 401) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


class Channel(Protocol):
    """What intake and the normaliser need of a channel."""

    id: str
    headers: tuple[str, ...]
    """Lower-case header names that `parse` needs; intake keeps these in the envelope."""

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[bytes], now_ms: int) -> str:
        """How the sender was proved ("hmac-sha256"). headers: lower-case names. Raises Refused. Constant time."""
        ...

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id (`channel:shop:number`) that a delivery is about, for partitioning; None where it names none.

        Cheap and forgiving: all revisions of an order must get the same key; it does not validate.
        """
        ...

    def ping(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """True for a platform's test delivery: verified and acknowledged, but not an order of anybody."""
        ...

    def parse(self, raw: Raw) -> Parsed:
        """The order, event, skip or reject that a raw record stands for."""
        ...


def channel(name: str) -> Channel:
    """The channel of this id. Raises KeyError for one that is not there."""
    return registry()[name]


@cache
def registry() -> dict[str, Channel]:
    """Every channel there is, by id."""
    from orderstream.channels import api, shopify  # noqa: PLC0415  the modules import this one

    return {module.CHANNEL.id: module.CHANNEL for module in (api, shopify)}
