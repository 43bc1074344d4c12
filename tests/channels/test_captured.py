"""What captured payloads have that documents do not: fields of tomorrow, numbers as text and text as numbers, six kinds of nothing.

Each law is tried everywhere at once, in the channels' good deliveries.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orderstream import times
from orderstream.channels import registry
from orderstream.orders import Order, Parsed, Raw, Rejected
from tests.fuzz import law
from tests.fuzz.spellings import as_number, as_text, everywhere

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


LOCAL = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
SPELLINGS: tuple[Callable[[int], Any], ...] = (
    lambda ms: ms,
    str,
    lambda ms: ms // 1000,
    times.beijing,
    lambda ms: times.beijing(ms).replace(" ", "T") + ".000",
    times.text,
    lambda ms: times.beijing(ms).replace(" ", "T") + "+0800",
)
"""A time in milliseconds, as number and text, in seconds, as text of Beijing, of UTC, with its zone."""


def at(name: str, value: Any) -> int | None:
    """The ms of a field that is a time of 2026; None for what is none."""
    if isinstance(value, str) and LOCAL.fullmatch(value):
        return times.parse(value.replace(" ", "T") + "+08:00")
    counted = name.endswith(("_time", "_deadline")) and re.fullmatch("17[0-9]{8}", str(value))
    return int(value) * 1000 if counted else None


def respelled(value: Any, spell: Callable[[int], Any], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: respelled(one, spell, key) for key, one in value.items()}
    if isinstance(value, list):
        return [respelled(one, spell) for one in value]
    ms = at(name, value)
    return value if ms is None else spell(ms)


@pytest.mark.parametrize("channel", CHINESE)
@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_time_is_one_however_it_is_written(channel: str, spell: Callable[[int], Any]) -> None:
    """Programs between a platform and us write times their own way: the same order at the same time."""
    changed = 0
    for body, detail in deliveries(channel):
        new = respelled(body, spell), respelled(detail, spell)
        changed += new != (body, detail)
        assert parse(channel, *new) == parse(channel, body, detail)
    assert changed > 0 or spell in SPELLINGS[2:4]


def reshaped(value: Any) -> Iterator[Any]:
    """The shapes that a part's other programs give it: the one of a list alone, JSON within a text."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        yield value[0]
    if isinstance(value, dict | list) and value:
        yield json.dumps(value)


@EACH
def test_a_shape_loses_nothing_quietly(channel: str) -> None:
    """What is read in another shape is read as the same; what is not is a reject that says so, and never half an order."""
    tried = 0
    for body, detail in deliveries(channel):
        whole = (body, detail)
        for part, value in enumerate(whole):
            for where in places(value):
                inner = value
                for name in where:
                    inner = inner[name]
                for shape in reshaped(inner):
                    changed = put(value, where, shape)
                    found = parse(channel, *((changed, detail) if part == 0 else (body, changed)))
                    assert isinstance(found, Rejected) or found == parse(channel, body, detail), where
                    tried += 1
    assert tried > 3


def said(channel: str, whole: tuple[Any, Any], part: int, changed: Any) -> Any:
    """The order with one of its parts changed; of what is none only which kind of value it is."""
    body, detail = (changed, whole[1]) if part == 0 else (whole[0], changed)
    parsed = parse(channel, body, detail)
    return parsed if isinstance(parsed, Order) else type(parsed).__name__
