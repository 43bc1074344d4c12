"""A record of a channel that nothing reads is an explained reject, not a crash."""

from __future__ import annotations

from histories import GOODS, KEYS, STANDARD, T

from orderstream.normalise import Books, Normaliser
from orderstream.orders import Raw
from orderstream.rules.book import PackBook


def test_unknown_channel_is_rejected() -> None:
    """A channel without a module: the bytes and the reason go to orders.rejected, and the line goes on."""
    normaliser = Normaliser(Books(GOODS, PackBook([STANDARD]).at), KEYS)

    done = normaliser.process(Raw("elsewhere", "main", T, b"{}"), 0, T)

    assert done.rejected is not None
    assert done.rejected.code == "unknown-channel"
    assert done.rejected.body == b"{}"
    assert done.rejected.order_id.startswith("raw:")
