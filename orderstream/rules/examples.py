"""Runs what rule files claim: each example's records through the whole line, and what the rule then said of each order.

Law: an example is judged by the line that production runs, not by the rule alone, so that a claim that holds here holds
there. Short forms are expanded to replay and catalogue records; `docs/rules.md` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from orderstream import times
from orderstream.catalogue import Catalogue, CatalogueError, read_article
from orderstream.identity import Keys
from orderstream.pipeline import Pipeline
from orderstream.replay import ReplayError, read_item
from orderstream.rules.book import PackBook
from orderstream.rules.model import Example, duration
from orderstream.rules.pack import Pack, PackError

T = times.parse("2026-11-11T10:00:00+08:00")
"""The moment that an example's times count from."""

ZONE = "Asia/Shanghai"
ARTICLE: dict[str, Any] = {
    "sku": "SKU1",
    "name": "多功能收纳架",
    "base_price": "100.00",
    "currency": "CNY",
    "codes": [{"channel": "api", "code": "c1"}],
}
BODY: dict[str, Any] = {
    "currency": "CNY",
    "remark": "请尽快发货",
    "lines": [{"id": "1", "code": "c1", "quantity": 1, "price": "100.00"}],
}


class Claim(msgspec.Struct, frozen=True):
    """One claim of a rule and what came of it. got: `fired`, `silent`, `not_available`, or another verdict's word."""

    rule: str
    says: str
    order: str
    expected: str
    got: str

    @property
    def holds(self) -> bool:
        return self.expected == self.got


def run(pack: Pack) -> Iterator[Claim]:
    """Every claim of every rule in a pack. Raises PackError for an example that can't be read."""
    for rule in pack.rules.values():
        for example in rule.examples:
            try:
                yield from _run(pack, rule.id, example)
            except (CatalogueError, ReplayError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise PackError(f"{rule.id}.yaml: example {example.says!r}: {error}") from error


def _run(pack: Pack, rule: str, example: Example) -> Iterator[Claim]:
    keys = Keys(b"examples")
    articles = {a["sku"]: a for a in (ARTICLE, *map(_times, example.catalogue))}
    catalogue = Catalogue(read_article(json.dumps(a)) for a in articles.values())
    book = PackBook([pack])
    line = Pipeline(catalogue, book, keys, ZONE)
    records = [_times(r) for r in example.records]
    for record in records:
        line.feed(read_item(record, keys, pack.policy.currency))
    for record in sorted((r for order in example.orders for r in _orders(order)), key=lambda r: str(r["received_at"])):
        line.feed(read_item(record, keys, pack.policy.currency))
    final = {v.order_id.rsplit(":", 1)[1]: v for v in line.verdicts()}
    for order, expected in example.expect.items():
        verdict = final.get(order)
        if verdict is None:
            got = "no such order"
        elif verdict.rejected is not None:
            got = f"rejected: {verdict.rejected}"
        elif any(s.rule == rule for s in verdict.signals):
            got = "fired"
        else:
            got = "not_available" if rule in verdict.not_available else "silent"
        yield Claim(rule, example.says, order, expected, got)


def _orders(short: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The replay records of one item of `orders`, repeated `times` times `every` so often."""
    count = int(short.get("times", 1))
    every = duration(str(short["every"])) if "every" in short else 0
    for n in range(1, count + 1):
        item = _numbered({k: v for k, v in short.items() if k not in ("times", "every")}, n) if count > 1 else dict(short)
        at = T + _offset(item.pop("at", "0s")) + (n - 1) * every
        received = at + _offset(item.pop("received", "1s"))
        number = item.pop("id") + (str(n) if count > 1 else "")
        channel, shop = item.pop("channel", "api"), item.pop("shop", "main")
        body = _merged({"order_id": number, "created_at": times.text(at), **BODY}, _times(item))
        yield {"kind": "raw", "channel": channel, "shop": shop, "received_at": times.text(received), "body": body}


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in {**default, **given}.items() if v is not None}


def _offset(text: Any) -> int:
    text = str(text)
    return -duration(text[1:]) if text.startswith("-") else duration(text.removeprefix("+"))


def _times(value: Any) -> Any:
    """The value with every `T`, `T+5m`, `T-2h` made an ISO time."""
    if isinstance(value, dict):
        return {k: _times(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_times(v) for v in value]
    if isinstance(value, str) and (value == "T" or value[:2] in ("T+", "T-")):
        return times.text(T + (_offset(value[1:]) if len(value) > 1 else 0))
    return value


def _numbered(value: Any, n: int) -> Any:
    if isinstance(value, dict):
        return {k: _numbered(v, n) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbered(v, n) for v in value]
    return value.replace("{n}", str(n)) if isinstance(value, str) else value
