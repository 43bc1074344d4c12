"""A record put back by us is read with the catalogue of then, and stands beside what the channel said, in whatever order they come."""

from __future__ import annotations

import json
from itertools import permutations

from histories import CATALOGUE, HOME, Record, T, line, raw, run, text

from orderstream import wire
from orderstream.catalogue import Catalogue, read_article
from orderstream.orders import Raw
from orderstream.pipeline import Pipeline
from orderstream.times import MINUTE, SECOND

MAPPED = T + 5 * MINUTE
CODE = {"channel": "api", "code": "new"}
LATER = {**CATALOGUE[0], "codes": [*CATALOGUE[0]["codes"], CODE], "at": text(MAPPED)}
GOODS = Catalogue(read_article(json.dumps(article)) for article in [*CATALOGUE, LATER])

ORDER = {
    "currency": "CNY", "total": "100.00", "buyer": {"id": "u1"}, "payment": {"id": "p1"}, "status": "paid",
    "ship_to": {**HOME, "name": "李雷", "phone": "13800000000"},
    "lines": [{"id": "1", "code": "new", "quantity": 1, "price": "100.00"}],
}  # fmt: skip
FIRST = raw("A", T, T + SECOND, ORDER, revision=1, updated_at=text(T))
REPEAT = {**FIRST, "received_at": text(MAPPED + MINUTE)}
AGAIN = {**FIRST, "received_at": text(MAPPED + 1), "again": True}
EDIT = raw("A", T, MAPPED - MINUTE, {**ORDER, "remark": "x"}, revision=2, updated_at=text(T + MINUTE))


def goods() -> Pipeline:
    return line(goods=GOODS)


def rules(records: list[Record]) -> list[str]:
    (one,) = run(records, goods)
    return [signal["rule"] for signal in json.loads(one)["signals"]]


def test_an_unmapped_code_is_checked_with_its_mapping() -> None:
    """The channel's own repeat changes nothing; ours has the order judged by the catalogue of then."""
    assert "unknown-article" in rules([FIRST])
    assert "unknown-article" in rules([FIRST, REPEAT])
    assert "unknown-article" not in rules([FIRST, AGAIN])


def test_it_is_said_once_however_often_and_whenever_it_comes() -> None:
    """In any order, and repeated: one result, and a later edit of the channel goes before it."""
    assert {tuple(run([*some], goods)) for some in permutations([FIRST, REPEAT, AGAIN, AGAIN])} == {
        tuple(run([FIRST, AGAIN], goods))
    }
    assert {tuple(run([*some], goods)) for some in permutations([FIRST, AGAIN, EDIT])} == {tuple(run([FIRST, EDIT], goods))}


def test_the_envelope_keeps_it() -> None:
    one = Raw("api", "main", 1, b"{}", again=True)
    assert wire.read_raw("orders.raw.api", wire.raw_headers(one), b"{}", 0) == Raw("api", "main", 1, b"{}", again=True)
    assert not wire.read_raw("orders.raw.api", wire.raw_headers(Raw("api", "main", 1, b"")), b"", 0).again
