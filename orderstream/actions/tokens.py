"""Signed links: what stands in an address, and how it is known to be ours.

Law: an address names nothing and nobody. It is a number and a signature over what the number stands for in board.links (order,
verdict_seq, person, what, about, expiry): whoever can write to that table and lacks the key can change none of it unseen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Literal

import msgspec

What = Literal["release", "cancel", "approve", "refuse", "confirm", "meeting"]

BYTES = 12
"""Of number and signature each: 96 bits, not to be guessed, and short enough for an SMS."""
_TOKEN = re.compile(r"([A-Za-z0-9_-]{16})([A-Za-z0-9_-]{16})")


class Link(msgspec.Struct, frozen=True):
    """What an address stands for. seq: the verdict its bearer was told of; person: a login, None for whoever ordered; expires_at: ms."""

    id: str
    order_id: str
    seq: int
    person: str | None
    what: What
    about: str
    expires_at: int


class Signer:
    """Makes and checks tokens. key: the installation's, from which one of our own is derived."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.new(key, b"orderstream.actions.links.v1", hashlib.sha256).digest()

    def __repr__(self) -> str:
        return "<Signer>"

    def number(self, message: str, what: str) -> str:
        """A link's number: the same whenever the message is tried again."""
        return self._sign("number", message, what)

    def token(self, link: Link) -> str:
        """What stands in the address."""
        return link.id + self._signature(link)

    def fits(self, token: str, link: Link) -> bool:
        """Whether a token is the one of this link."""
        return hmac.compare_digest(token.encode(), self.token(link).encode())

    def _signature(self, link: Link) -> str:
        person = "customer" if link.person is None else "person:" + link.person
        return self._sign("link", link.id, link.order_id, str(link.seq), person, link.what, link.about, str(link.expires_at))

    def _sign(self, *parts: str) -> str:
        digest = hmac.new(self._key, msgspec.json.encode(parts), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:BYTES]).decode()


def number_of(token: str) -> str | None:
    """The number in a token; None where it cannot be one of ours."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else found[1]
