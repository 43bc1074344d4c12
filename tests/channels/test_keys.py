"""The platforms' own keys: what parsers give and what the ladder knows are the same names, and a person can be found by them."""

from __future__ import annotations

import pytest

from orderstream.channels import registry
from orderstream.forget import Person
from orderstream.identity import LADDER
from orderstream.orders import Order
from tests.fuzz import law


def orders(channel: str) -> list[Order]:
    """What the channel's good deliveries say."""
    found = []
    for seed in law.seeds(channel):
        raw, _ = law.deliver(registry()[channel], *law.split(seed))
        parsed = registry()[channel].parse(raw)
        found += [parsed] if isinstance(parsed, Order) else []
    return found


@pytest.mark.parametrize("channel", sorted(registry()))
def test_every_key_that_a_parser_gives_stands_in_the_ladder_and_none_else(channel: str) -> None:
    """A name that only one of the two has is a key that never meets anything."""
    given = {name for order in orders(channel) for name in order.keys}

    assert given == {*LADDER.get(channel, {})}


@pytest.mark.parametrize("channel", sorted(LADDER))
def test_whoever_asks_is_found_by_a_key(channel: str) -> None:
    """As by the buyer's number; on the channel that is named alone, and nobody else by it."""
    (order, name) = next((order, name) for order in orders(channel) for name in order.keys)
    assert isinstance(order, Order)
    assert Person(buyer=order.keys[name]).is_of(order)
    assert Person(buyer=order.keys[name], channel=channel).is_of(order)
    assert not Person(buyer=order.keys[name], channel="api").is_of(order)
    assert not Person(buyer=order.keys[name] + "x").is_of(order)
