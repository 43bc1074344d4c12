"""Replay: what reference records and replay files say, as the kernel's values.

Law: a replay file holds what the live system receives, in arrival order, and is read into the same values, so that a
backtest sees nothing that production does not. Keys of entities stand there as the channel gives them and are hashed here.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from orderstream import money, outcomes, times
from orderstream.facts import Floor, Outcome, Rate, Snooze, Stock, Trust, Update
from orderstream.identity import KINDS, Keys
from orderstream.orders import Raw

Item = Raw | Outcome | list[Update]


class ReplayError(ValueError):
    """A record that is none of the known kinds, or lacks what its kind needs; the sentence says which."""


def body_bytes(body: Any) -> bytes:
    """The bytes that a JSON body stands for in a replay file: compact UTF-8 JSON with sorted keys."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def read_item(record: Mapping[str, Any], keys: Keys, currency: str) -> Item:
    """A replay record as the kernel's value: a raw record, updates about entities, or an outcome. Raises ReplayError."""
    if not isinstance(record, dict):
        raise ReplayError("is no JSON object")
    kind = record.get("kind", "raw")
    try:
        if kind == "raw":
            return _raw(record)
        if kind == "outcome":
            return outcomes.read(record)
        return updates(record, keys, currency)
    except KeyError as error:
        raise ReplayError(f"a record of kind {kind!r} lacks {error.args[0]!r}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ReplayError(f"a record of kind {kind!r}: {error}") from error


def _raw(record: Mapping[str, Any]) -> Raw:
    encoded = record.get("body_base64")
    body = body_bytes(record["body"]) if encoded is None else base64.b64decode(encoded, validate=True)
    headers = {str(k).lower(): str(v) for k, v in record.get("headers", {}).items()}
    detail = body_bytes(record["detail"]) if "detail" in record else None
    return Raw(
        record["channel"],
        record["shop"],
        times.parse(record["received_at"]),
        body,
        headers,
        "replay",
        detail,
        bool(record.get("again")),
    )


def updates(record: Mapping[str, Any], keys: Keys, currency: str) -> list[Update]:
    """What a reference record says of which entities; a user's trust counts on every channel. Raises KeyError, ValueError."""
    kind = record["kind"]
    if kind == "stock":
        available = record["available"]
        if not isinstance(available, int) or isinstance(available, bool):
            raise ValueError("available is no integer")
        locks = tuple(sorted(map(str, record.get("locks") or ())))
        return [Stock(f"sku:{_text(record, 'sku')}", times.parse(record["at"]), available, locks)]
    if kind == "rate":
        rate = float(Decimal(str(record["rate"])))
        if not math.isfinite(rate) or rate <= 0:
            raise ValueError("rate is not above zero")
        first, _, second = _text(record, "pair").partition("/")
        if first not in money.EXPONENT or second not in money.EXPONENT:
            raise ValueError("pair is no USD/CNY")
        at = times.parse(record["at"])
        return [Rate(f"pair:{first}/{second}", at, rate), Rate(f"pair:{second}/{first}", at, 1 / rate)]
    if kind == "floor":
        price = money.minor(str(record["price"]), _currency(record, currency))
        return [Floor(f"sku:{_text(record, 'sku')}", times.parse(record["from"]), times.parse(record["until"]), price)]
    if kind in ("trust", "snooze"):
        entity = _text(record, "entity")
        if entity not in KINDS:
            raise ValueError(f"entity {entity!r} is none of {', '.join(KINDS)}")
        users = tuple(sorted(key for user in record.get("with") or () for key in keys.given("user", str(user))))
        rules = tuple(sorted(map(str, record["rules"])))
        at = times.parse(record["at"]) if "at" in record else 0
        if kind == "snooze":
            # a snooze without an end would be a rule that is off, and nobody remembers
            end = times.parse(record["until"])
            return [Snooze(key, at, end, rules) for key in keys.given(entity, _text(record, "key"))]
        until = times.parse(record["until"]) if record.get("until") is not None else times.MAX_MS
        return [Trust(key, at, until, rules, users) for key in keys.given(entity, _text(record, "key"))]
    raise ValueError(f"kind {kind!r} is none of raw, stock, trust, snooze, rate, floor, outcome")


def _currency(record: Mapping[str, Any], default: str) -> str:
    given = record.get("currency", default)
    if given not in money.EXPONENT:
        raise ValueError(f"currency {given!r} is not an ISO 4217 code")
    return str(given)


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field} is no text")
    return value


def read_file(path: Path, keys: Keys, currency: str) -> Iterator[Item]:
    """The items of a replay file (JSON lines). Raises ReplayError naming the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield read_item(json.loads(line), keys, currency)
            except (ReplayError, ValueError, RecursionError) as error:
                raise ReplayError(f"{path.name}:{number}: {error}") from error
