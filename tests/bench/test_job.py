"""The reference job's edge: what it writes of an order is the normalised order with the job's id and its rules."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.normalise import Names
from bench.reference import job
from orderstream.engine import Send
from orderstream.metrics import Metrics
from orderstream.route import Public
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load


@pytest.mark.parametrize("rules", [(), ("sku-rush", "gift"), ("unknown-sku", "gift")])
def test_an_order_as_it_was_normalised(rules: tuple[str, ...]) -> None:
    """Nothing of it is lost where it is passed on unread; a line that no article is known for says so."""
    lines: list[dict[str, Any]] = [{"id": "1", "code": "a", "sku": "s"}, {"id": "2", "code": "b"}]
    order = {"order_id": "ref:ref:o-7", "number": "o-7", "lines": lines if "unknown-sku" in rules else lines[:1], "remark": '"}'}
    value = {"order": msgspec.Raw(msgspec.json.encode(order)), "signals": [{"rule": rule} for rule in rules]}
    sends: list[Send] = []
    state = job.Output(0, 1, Names(""), PackBook([load(job.HERE / "pack")]).pack, Metrics())

    state._say([Public("orders.review", "ref:ref:o-7", value)], sends)

    wanted = {**order, "order_id": "o-7", "rules": sorted(rules)}
    for line in wanted["lines"]:
        line.setdefault("sku", None)
    (sent,) = sends
    assert (sent.topic, sent.key) == ("ref.review", b"o-7")
    assert msgspec.json.decode(sent.value or b"") == wanted
