"""The samples that expressions are tried on have the shapes that orders have."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from orderstream.catalogue import Article, Catalogue
from orderstream.identity import Keys
from orderstream.orders import Buyer, Line, Order
from orderstream.reading import Reading
from orderstream.rules import pack as pack_module
from orderstream.rules import samples
from orderstream.rules.pack import Pack, load
from orderstream.settings import data_file


def order(**given: object) -> Order:
    line = Line("1", "c1", 1, 100, list_price=100 if given else None)
    return Order("api:main:1", "api", "main", "1", 1, "paid", 0, 0, "CNY", 100, (line,), **given)  # type: ignore[arg-type]


def read(one: Order) -> dict[str, object]:
    return Reading(one, load(data_file("rules/standard")), 0, 0, Catalogue(), Keys(b"k")).fields()


def test_a_full_order_has_every_field_of_the_full_sample() -> None:
    """A field that an expression may name stands in the sample, and one that no order has does not."""
    full = read(order(buyer=Buyer(id="u", registered_at=0, phone="13800000000"), hold="x"))

    assert full.keys() == samples.ORDER_FULL.keys()
    assert full["lines"][0].keys() == samples.ORDER_FULL["lines"][0].keys()  # type: ignore[index]
    assert full["unmapped"][0].keys() == samples.ORDER_FULL["unmapped"][0].keys()  # type: ignore[index]


def test_the_least_order_has_no_more_than_the_least_sample() -> None:
    """What an order may lack is lacking in the least sample, so that has() is asked for it."""
    assert read(order()).keys() == samples.ORDER_LEAST.keys()


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("size(order.unmapped) > 0", False),
        ("order.total > 0", False),
        ("size(order.unmapped) > 0 && order.unmapped[0].nearest != []", True),
        ("order.unmapped.exists(u, size(u.nearest) > 0)", True),
        ("order != {}", True),
    ],
)
def test_what_an_article_may_be_is_looked_for_where_a_rule_may_ask(said: str, asked: bool) -> None:
    """It takes milliseconds, and a rule that counts unmapped lines has no use for it."""
    standard = load(data_file("rules/standard"))
    rule = msgspec.structs.replace(standard.rules["unknown-article"], id="r", when=said, detail=None)
    pack = Pack(msgspec.structs.replace(standard.policy, combinations=()), {"r": rule})
    goods = Catalogue([(-1, Article("S1", "c1"))])

    assert pack.asks_nearest is asked
    assert Reading(order(), pack, 0, 0, goods, Keys(b"k")).unmapped[0]["nearest"] == ([["S1", "c1", 100]] if asked else [])


def test_a_map_in_evidence_lies_in_one_order() -> None:
    """The library gives a map in another order each time it is asked; the same verdict is the same bytes."""
    standard = load(data_file("rules/standard"))
    said = "[{'c': 1, 'a': {'z': 1, 'y': 2, 'x': 3}, 'b': 2, 'd': 4}]"
    rule = msgspec.structs.replace(standard.rules["unknown-article"], id="r", when="true", detail=said)
    pack = Pack(msgspec.structs.replace(standard.policy, combinations=()), {"r": rule})

    for _ in range(20):
        findings, _absent = Reading(order(), pack, 0, 0, Catalogue(), Keys(b"k")).judge()
        told = findings["r"].evidence["detail"]
        assert msgspec.json.encode(told) == b'[{"a":{"x":3,"y":2,"z":1},"b":2,"c":1,"d":4}]'


def test_what_a_pack_remembers_is_what_it_would_say() -> None:
    """Rules without input, and those that ask a kind: whatever was asked before, and however much of it."""
    folder = data_file("rules/standard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "MAX_CASES", 7)
        old = load(folder)
        kinds = sorted(old.kinds)
        yes_no = (False, True)
        for asked in [frozenset(kinds[:n]) for n in range(len(kinds) + 1)] * 2:
            for unseen in (frozenset[str](), frozenset({"user-burst"})):
                for c, u, late in itertools.product(yes_no, yes_no, yes_no):
                    expected = {j.id for j in old.asking if asked.isdisjoint(j.kinds)} | unseen
                    expected -= set() if c else {j.id for j in old.by_kind["pair"]}
                    expected |= {j.id for j in old.by_kind["sku"]} if u else set()
                    expected |= {j.id for j in old.asking if j.windowed} if late else set()
                    assert old.absent(asked, unseen, converted=c, unmapped=u, late=late) == tuple(sorted(expected))
        for kind in kinds * 2:
            for out in (frozenset[str](), frozenset({"virtual-phone-batch"}), frozenset(old.rules)):
                assert set(old.among(kind, out)) == {j.id for j in old.by_kind[kind]} & out
        assert len(old._absent) <= 7
        assert len(old._among) <= 7
