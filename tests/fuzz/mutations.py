"""Deliveries that are nearly good: a valid body with a few of the faults that programs and people make, then its bytes damaged."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, "", "null", [], {}, " ", True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**19, 10**20, 10**28,
    10**400, 0.1, 1e300, -0.0, 1e-300, "0", "-0", "1e5", "NaN", "Infinity", "١٢٣", "１２", "0x10", "1_0", "9" * 25, "9" * 300, "0." + "0" * 60 + "1",
    "2026-13-45T99:99:99Z", "2026-11-11", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-11T00:00:00",
    "a:b", "a b", "\x00", "\x7f", "\u202e", "\ufeff", "\ud800", "😀" * 40, "x" * 5000, "é", "é", "../..", "%00", "::ffff:1.2.3.4", "fe80::1%eth0",
    "CNY", "JPY", "paid", "refunded", {"": None}, [[]], [None], {"a": {"a": {"a": {}}}},
)  # fmt: skip
KEYS = (
    "order_id",
    "id",
    "lines",
    "line_items",
    "price",
    "quantity",
    "currency",
    "order",
    "refund",
    "amount",
    "",
    "\x00",
    "ключ",
    "x" * 300,
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1", "utf-8-sig", "utf-7")

LARGEST = 100_000
"""Characters of a body that is still changed: copies of copies grow without an end."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, inner in items:
            found.append((one, key))
            todo.append(inner)
    return found


def nested(value: Any, depth: int) -> Any:
    for at in range(depth):
        value = [value] if at % 2 else {"a": value}
    return value


def change(random: Random, value: Any) -> Any:
    """The value with one change somewhere."""
    spots = places(value)
    if not spots:
        return random.choice(ODD)
    box, key = random.choice(spots)
    match random.randrange(9):
        case 0:
            del box[key]
        case 1 | 2 | 3:
            box[key] = copy.deepcopy(random.choice(ODD))
        case 4:
            box[key] = nested(box[key], random.choice((1, 2, 31, 33, 200)))
        case 5:
            other, name = random.choice(spots)
            if name in other if isinstance(other, dict) else name < len(other):
                box[key] = copy.deepcopy(other[name])
        case 6:
            if isinstance(box, dict):
                box[random.choice(KEYS)] = box.pop(key)
            else:
                box.extend([box[key]] * random.choice((1, 2, 600)))
        case 7:
            text = box[key]
            if isinstance(text, str):
                at = random.randrange(len(text) + 1)
                box[key] = (
                    text[:at] + random.choice(("\x00", " ", ":", "'", "\ud83d", "٣", "e", "-", ".", "😀", "0" * 40)) + text[at:]
                )
            elif isinstance(text, int | float) and not isinstance(text, bool):
                box[key] = random.choice((-text, text + 1, f"{text:.3f}" if abs(text) < 10**9 else 0, text * 10**6, 0.1 + 0.2))
        case _:
            return [value] if random.randrange(2) else {"order": value}
    return value


def _twice(random: Random, body: bytes) -> bytes:
    key = json.dumps(random.choice(KEYS)).encode()
    return body.replace(b"{", b"{" + key + b":1,", random.choice((1, 2)))


DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    lambda random, body: body[: random.randrange(len(body) + 1)],
    _twice,
    lambda random, body: body.replace(b"1", random.choice((b"NaN", b"-Infinity", b"01", b"1.", b"1e9999", b"+1", b"0" * 5000)), 1),
    lambda random, body: body.decode("utf-8", "ignore").encode(random.choice(ENCODINGS), "ignore"),
    lambda random, body: body + random.choice((b"{}", b"\x00", b" ", b"]", body)),
    lambda random, body: body.replace(b'"', random.choice((b"'", b'"\\', b'\\u0000"', b'"\\ud800')), random.choice((1, 2, 9))),
    lambda random, body: body.replace(b'":', random.choice((b'" :', b'":\t', b'":/**/', b'"::')), 3),
    lambda random, body: bytes(one if random.randrange(50) else random.randrange(256) for one in body),
)  # fmt: skip


def mutated(random: Random, body: bytes) -> bytes:
    """A body, or the detail behind it, with one to four changes of its structure, and every third time its bytes damaged as well."""
    first, blank, detail = body.partition(b"\n\n")
    if detail:
        return first + blank + mutated(random, detail) if random.randrange(3) else mutated(random, first) + blank + detail
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        for _ in range(random.choice((1, 1, 2, 3, 4))):
            # through text each time: what was put in several places is several values then, and nothing contains itself
            changed = json.dumps(change(random, json.loads(text)))
            if len(changed) > LARGEST:
                break
            text = changed
        if random.randrange(2):
            text = json.dumps(json.loads(text), ensure_ascii=False)
    found = text.encode("utf-8", "surrogatepass")
    return found if found != body and random.randrange(3) else random.choice(DAMAGES)(random, found)
