"""Nearly good deliveries and sheer noise, on every channel there is."""

from __future__ import annotations

import json
import time
import tracemalloc
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderstream.channels import registry
from orderstream.channels.reading import MAX_BODY
from orderstream.orders import CHANNELS
from tests.fuzz import law
from tests.fuzz.mutations import mutated, places

BOMBS = law.bombs()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
HEADERS = st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=80), max_size=4)


@pytest.mark.parametrize("channel", sorted(registry()))
def test_every_channel_is_fuzzed_from_good_deliveries(channel: str) -> None:
    """A channel of the registry has at least one seed that it reads as an order: the search starts inside the format."""
    found = {law.obey(registry()[channel], *law.split(seed)) for seed in law.seeds(channel)}
    assert "order" in found
    assert channel in CHANNELS


@pytest.mark.parametrize("channel", sorted(registry()))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(seed=st.integers(0, 2**32 - 1), headers=HEADERS)
def test_a_nearly_good_delivery_is_a_value(channel: str, seed: int, headers: list[str]) -> None:
    """Fields dropped, retyped, nested, renamed, four kinds of nothing, huge numbers, damaged bytes: an explained value."""
    random = Random(seed)  # evenly spread: hypothesis's own choices stay near the first of everything
    given_headers, body = law.split(random.choice(law.seeds(channel)))
    law.obey(registry()[channel], headers or given_headers, mutated(random, body))


@pytest.mark.parametrize("channel", sorted(registry()))
def test_a_number_that_one_reader_takes_and_another_does_not(channel: str) -> None:
    """Found by the search: with 1e9999 in some field nobody asks for, an order was read and had no key."""
    for seed in law.seeds(channel):
        headers, body = law.split(seed)
        law.obey(registry()[channel], headers, body.replace(b"{", b'{"beside": 1e9999, ', 1))


@pytest.mark.parametrize("channel", sorted(registry()))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_in_any_place_is_a_value(channel: str, data: st.DataObject) -> None:
    """Whatever JSON stands where the format has something else."""
    headers, body = law.split(data.draw(st.sampled_from(law.seeds(channel))))
    texts = [part for part in law.parted(registry()[channel], body) if part is not None]
    at = data.draw(st.integers(0, len(texts) - 1))
    value = json.loads(texts[at])
    box, key = data.draw(st.sampled_from(places(value)))
    box[key] = data.draw(JSON)
    texts[at] = json.dumps(value).encode()
    law.obey(registry()[channel], headers, b"\n\n".join(texts))


@pytest.mark.parametrize("channel", sorted(registry()))
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), headers=HEADERS)
def test_noise_is_a_value(channel: str, data: bytes, headers: list[str]) -> None:
    """Bytes that are nothing at all are a reject that says so."""
    assert law.obey(registry()[channel], headers, data) in {"rejected", "skip"}


@pytest.mark.parametrize("channel", sorted(registry()))
@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_bomb_is_a_value_in_bounded_memory(channel: str, bomb: str) -> None:
    """A megabyte made to be slow or fat is a value, within 50 MB, and no search runs away with it.

    Whether it takes 50 ms is measured by `make fuzz`; here only what no noisy machine can explain fails.
    """
    body = BOMBS[bomb]
    assert len(body) <= MAX_BODY
    law.line()
    began = time.process_time()
    law.obey(registry()[channel], [], body)
    assert time.process_time() - began < 2
    tracemalloc.start()
    law.obey(registry()[channel], [], body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < law.MAX_MB * 1e6
