"""Channels: one module each, behind one small interface.

Law: a channel proves who sent the bytes, then translates them once. `verify` sees the push as it came, never the parsed body;
`parse` is pure and never raises for what a channel sent: what cannot be one order is a Rejected, what asks for nothing is a
Skip. Reason: the next channel must need nothing new outside its own module.

A **thin** push only names an order. It is proved and acknowledged like any other, waits on `orders.pending` until its detail
has been fetched from the platform, and comes to `parse` with the detail in its envelope; never without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

import msgspec

from orderstream.orders import Parsed, Raw


class Refused(Exception):  # noqa: N818  named for what is so
    """The sender is not proved. code goes to a metric; status is the HTTP answer (401, or 400 for what is no delivery)."""

    def __init__(self, code: str, status: int = 401) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


class Push(msgspec.Struct, frozen=True):
    """What a platform sent over HTTP. headers: lower-case names; query: decoded; method: GET for a check of the address."""

    body: bytes
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    method: str = "POST"


class Proved(msgspec.Struct, frozen=True):
    """A push whose sender is proved. how: by what ("hmac-sha256"), for the envelope.

    bodies: what is kept, a raw record each: as a rule the body as it came; the messages that it carries where a platform sends
    several at once or encrypts them; none for a test or an echo check. reply: the answer's body where it depends on the push.
    """

    how: str
    bodies: tuple[bytes, ...]
    reply: bytes | None = None


class Reply(msgspec.Struct, frozen=True):
    """What a platform wants to hear when its push has been taken, with status 200."""

    body: bytes = b""
    media_type: str = "text/plain"


class Channel(Protocol):
    """What intake and the normaliser need of a channel."""

    id: str
    headers: tuple[str, ...]
    """Lower-case header names that `parse` needs; intake keeps these in the envelope."""
    accepted: Reply
    """The platform's own form of "taken"."""

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it, and what it carries. secrets: the shop's, any of which may prove it. Raises Refused. Constant time."""
        ...

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id (`channel:shop:number`) that a kept body is about, for partitioning; None where it names none.

        Cheap and forgiving: all revisions of an order must get the same key; it does not validate.
        """
        ...

    def thin(self, raw: Raw) -> bool:
        """True where the record says too little to be an order, and its detail must be fetched before `parse`."""
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
    from orderstream.channels import api, douyin, jd, shopify, taobao, wechat, youzan  # noqa: PLC0415  they import this one

    found: tuple[Channel, ...] = (
        api.CHANNEL, shopify.CHANNEL, youzan.CHANNEL, douyin.CHANNEL, wechat.CHANNEL, taobao.CHANNEL, jd.CHANNEL,
    )  # fmt: skip
    return {one.id: one for one in found}
