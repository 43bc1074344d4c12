"""Catalogue lines: what `catalogue load` lets through, every worker reads; the rest is one sentence and no record."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderstream import cli
from orderstream.catalogue import CatalogueError, read_article
from orderstream.errors import BadFile

GOOD: dict[str, Any] = {"sku": "S", "name": "架"}


def line(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


BAD = [
    b'{"sku":"\xbc\xdc","name":"n"}',  # GBK, as a spreadsheet saves it
    b"[]",
    b'{"sku":"S"',
    line(sku=""),
    line(name=""),
    line(base_price="NaN"),
    line(base_price="1e-999999999"),
    line(currency="XXX"),
    line(at="yesterday"),
    line(codes=[{"channel": "api", "code": ""}]),
    line(components=[{"sku": "T", "quantity": 0}]),
    line(components=[{"sku": "T", "quantity": 10**30}]),
    line(components=[{"sku": "S", "quantity": 1}]),
    line(gift={"min_total": "-5"}),
    line(weight_g=-1),
    line(weight_g=10**40),
    line(strange=1),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_no_worker_could_read_is_refused_before_it_is_sent(bad: bytes, tmp_path: Any) -> None:
    """The file is refused with its line, before a broker is even looked for."""
    file = tmp_path / "c.jsonl"
    file.write_bytes(line() + b"\n" + bad + b"\n")

    with pytest.raises(BadFile, match="line 2"):
        cli.catalogue_load(file)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({**GOOD, "name": text}).encode()))
def test_no_bytes_make_the_reader_raise_anything_else(bytes_: bytes) -> None:
    """An article or a CatalogueError: anything else would stop every worker at one record."""
    with contextlib.suppress(CatalogueError):
        read_article(bytes_)
