"""What captured payloads have that documents do not: fields of tomorrow, numbers as text and text as numbers, six kinds of nothing.

Each law is tried everywhere at once, in the channels' good deliveries.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orderstream.channels import registry
from orderstream.orders import Order, Parsed, Raw
from tests.fuzz import law

OTHERS = sorted(registry().keys() - {"api"})
"""`api` is our own format, which is read to the letter."""
CHINESE = sorted({*OTHERS} - {"shopify"})
EACH = pytest.mark.parametrize("channel", OTHERS)
GONE = object()
NOTHING: tuple[Any, ...] = (None, "", "null", [], {})


def deliveries(channel: str) -> Iterator[tuple[Any, Any]]:
    """(body, detail) of the channel's fixtures; None where it needs no detail."""
    for file in sorted(law.FIXTURES.glob(f"{channel}-*.json")):
        if not file.name.endswith(".detail.json"):
            detail = file.with_suffix(".detail.json")
            yield json.loads(file.read_bytes()), json.loads(detail.read_bytes()) if detail.exists() else None


def parse(channel: str, body: Any, detail: Any) -> Parsed:
    fetched = None if detail is None else json.dumps(detail).encode()
    return registry()[channel].parse(Raw(channel, "main", law.NOW, json.dumps(body).encode(), detail=fetched))


def everywhere(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with a change made to each part of it, the innermost first."""
    if isinstance(value, dict):
        value = {name: everywhere(one, change) for name, one in value.items()}
    elif isinstance(value, list):
        value = [everywhere(one, change) for one in value]
    return change(value)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field's path; of a list the first two members'."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield (*at, name)
            yield from places(one, (*at, name))
    elif isinstance(value, list):
        for index, one in enumerate(value[:2]):
            yield from places(one, (*at, index))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a path."""
    value = copy.deepcopy(value)
    inner = value
    for name in at[:-1]:
        inner = inner[name]
    if new is GONE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def more(value: Any) -> Any:
    return {**value, "field_of_tomorrow": {"a": [1, None]}} if isinstance(value, dict) else value


def as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_number(value: Any) -> Any:
    # a leading zero is no number's, and JSON's readers differ past 2^63
    digits = isinstance(value, str) and value.isdecimal() and len(value) < 19 and str(int(value)) == value
    return int(value) if digits else value


@EACH
@pytest.mark.parametrize("change", [more, as_text, as_number])
def test_what_changes_nothing_changes_nothing(channel: str, change: Callable[[Any], Any]) -> None:
    """A new field in every object, every number as text, every number's text as a number: the same order, refund or skip."""
    for body, detail in deliveries(channel):
        changed = everywhere(body, change), None if detail is None else everywhere(detail, change)
        assert parse(channel, *changed) == parse(channel, body, detail)


@pytest.mark.parametrize("channel", CHINESE)
def test_all_kinds_of_nothing_are_one(channel: str) -> None:
    """null, "", "null", [], {} in any place are what a field is that is not there: no buyer is called "null"."""
    tried = 0
    for body, detail in deliveries(channel):
        for part, value in enumerate((body, detail)):
            for at in places(value):
                found = [said(channel, (body, detail), part, put(value, at, nothing)) for nothing in (GONE, *NOTHING)]
                assert all(one == found[0] for one in found), at
                tried += 1
    assert tried > 30


def said(channel: str, whole: tuple[Any, Any], part: int, changed: Any) -> Any:
    """The order with one of its parts changed; of what is none only which kind of value it is."""
    body, detail = (changed, whole[1]) if part == 0 else (whole[0], changed)
    parsed = parse(channel, body, detail)
    return parsed if isinstance(parsed, Order) else type(parsed).__name__
