"""The samples that expressions are tried on have the shapes that orders have."""

from __future__ import annotations

from orderstream.catalogue import Catalogue
from orderstream.identity import Keys
from orderstream.orders import Buyer, Line, Order
from orderstream.reading import Reading
from orderstream.rules import samples
from orderstream.rules.pack import load
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
