"""JD's API by the simulator: whole rows by the time of their change, and the refunds that were decided."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from orderstream.channels.jd import CHANNEL
from orderstream.orders import Order, Raw, Refund, Replaced, Skip
from orderstream.platforms import Listed, Transient, Unauthorised
from orderstream.platforms.client import Client
from orderstream.platforms.jd import PLATFORM, sign
from orderstream.simulators import jd
from orderstream.simulators.drafts import Draft
from orderstream.simulators.jd import Jos
from orderstream.simulators.trouble import Trouble
from tests.platforms import simulated
from tests.platforms.simulated import ARTICLES, START, event, listed, sales

draft = partial(simulated.draft, "jd")


def shop(jos: Jos, secret: str = "app-secret", access: str = "access") -> AbstractAsyncContextManager[Client]:
    return simulated.client_of(PLATFORM, jos.app, "12345", secret, token=SecretStr(access))


def parsed(body: bytes) -> Any:
    return CHANNEL.parse(Raw("jd", "main", START, body))


def test_a_vector_of_our_own() -> None:
    """As `printf '%s' 's3cretapp_key12345v2.0s3cret' | md5sum` prints it."""
    assert sign("s3cret", {"v": "2.0", "app_key": "12345"}) == "741AC07D7A005CAF2350045C12ABEFDC"


def test_rows_come_page_by_page_and_each_once() -> None:
    """Three pages, nothing outside the window, each row with the time and the bytes that its order has."""
    jos = Jos()
    drafts = [draft(number) for number in range(1, 251)]
    for one in drafts:
        jos.happened(jd.body(one, event(one), ARTICLES))

    async def run() -> list[Listed]:
        async with shop(jos) as client:
            return await listed(client, START + 10_000, START + 240_000)

    found = asyncio.run(run())
    assert sorted(one.number for one in found) == [one.name for one in drafts[9:239]]
    for one in found[::40]:
        order = parsed(one.body)
        assert isinstance(order, Order)
        assert (order.number, order.updated_at) == (one.number, one.changed_at)
        assert order.total == next(each for each in drafts if each.name == one.number).total


def test_a_row_that_changes_while_pages_are_read_hides_no_other() -> None:
    """It leaves the window, and those after it move up a place: read backwards, none of them is jumped over."""
    jos = Jos()
    drafts = [draft(number) for number in range(1, 301)]
    for one in drafts:
        jos.happened(jd.body(one, event(one), ARTICLES))

    async def run() -> set[str]:
        async with shop(jos) as client:
            seen: set[str] = set()
            async for one in PLATFORM.changed(client, START, START + 400_000):
                seen.add(one.number)
                if len(seen) in {50, 150}:
                    jos.happened(jd.body(drafts[len(seen)], event(drafts[len(seen)], after=500_000), ARTICLES))
            return seen

    seen = asyncio.run(run())
    assert {one.name for one in drafts} - seen <= {drafts[50].name, drafts[150].name}


def test_the_row_of_a_child_comes_once_more_for_its_parent() -> None:
    """Under the parent's number, with the same bytes."""
    parent, child = draft(77), draft(extra={"parentOrderId": draft(77).name})
    row, again = split(parent, child, "WAIT_SELLER_STOCK_OUT")
    assert (row.number, row.headers) == (child.name, {})
    assert (again.number, again.body) == (parent.name, row.body)
    gone = CHANNEL.parse(Raw("jd", "main", START, again.body, dict(again.headers)))
    assert gone == Replaced(parent.order_id, child.order_id)


@pytest.mark.parametrize("state", ["WAIT_GOODS_RECEIVE_CONFIRM", "FINISHED_L", "WAIT_SELLER_DELIVERY", "DELIVERY_RETURN"])
def test_the_children_of_what_has_left_wait_for_a_person(state: str) -> None:
    """Nobody is told that the parent is withdrawn, and no child is shipped as if nothing had been."""
    parent, child = draft(77), draft(extra={"parentOrderId": draft(77).name})
    (row,) = split(parent, child, state)
    order = CHANNEL.parse(Raw("jd", "main", START, row.body, dict(row.headers)))
    assert isinstance(order, Order)
    assert order.order_id == child.order_id
    assert order.hold is not None
    assert parent.name in order.hold
    assert parsed(row.body).hold is None


def test_a_parent_that_jd_does_not_know_stops_no_list() -> None:
    """What JD answers for an order that it has split is not known: the child comes, and says that nobody knows."""
    child = draft(extra={"parentOrderId": "290000000077"})
    row, again = split(None, child)
    order = CHANNEL.parse(Raw("jd", "main", START, row.body, dict(row.headers)))
    assert isinstance(order, Order)
    assert (order.hold, order.tags[:2]) == (None, ("split", "parent-unknown"))
    assert again.number == "290000000077"


def split(parent: Draft | None, child: Draft, state: str = "") -> list[Listed]:
    """What a list of the child's time has, with the parent at JD in a state."""
    jos = Jos()
    jos.happened(jd.body(child, event(child), ARTICLES))
    if parent is not None:
        jos.happened(orjson.dumps({**orjson.loads(jd.body(parent, event(parent), ARTICLES)), "orderState": state}))

    async def run() -> list[Listed]:
        async with shop(jos) as client:
            return await listed(client, START, START + 60_000)

    return asyncio.run(run())


def test_refunds_come_when_they_are_decided() -> None:
    """Asked for: nothing yet, and the order is locked; decided: the money that is back, of that order."""
    jos, one = Jos(), draft()
    jos.happened(jd.body(one, event(one, "refunding"), ARTICLES))
    jos.applied(jd.refund(one, event(one), 0))

    async def run() -> list[Listed]:
        async with shop(jos) as client:
            return await listed(client, START, START + 60_000)

    (order,) = asyncio.run(run())
    assert parsed(order.body).hold is not None
    assert isinstance(parsed(jd.refund(one, event(one), 0)), Skip)
    jos.applied(jd.refund(one, event(one), 3))
    back = parsed(asyncio.run(run())[1].body)
    assert isinstance(back, Refund)
    assert (back.order_id, back.amount) == (one.order_id, one.total)


@pytest.mark.parametrize(
    ("status", "found"),
    [("created", "created"), ("paid", "paid"), ("refunding", "paid"), ("refunded", "cancelled"), ("cancelled", "cancelled")],
)
def test_every_state_of_a_draft(status: str, found: str) -> None:
    """What the simulator says is what the parser hears, from the search and from the database."""
    one = draft(hold="存在风险")
    for row in (jd.body, jd.pushed):
        order = parsed(row(one, event(one, status), ARTICLES))
        assert (order.status, order.order_id) == (found, one.order_id)
        assert (order.hold is not None) == (status in {"paid", "refunding"})
    assert parsed(jd.pushed(one, event(one), ARTICLES)).updated_at == parsed(jd.body(one, event(one), ARTICLES)).updated_at


@settings(max_examples=100, deadline=None)
@given(sales())
def test_a_draft_s_money_survives(sold: dict[str, Any]) -> None:
    """Whatever is sold for whatever price: the total, and amounts that add up."""
    one = draft(**sold)
    found = parsed(jd.body(one, event(one), ARTICLES))
    assert isinstance(found, Order)
    assert found.total == one.total == sum(line.price * line.quantity - (line.discount or 0) for line in found.lines)
    assert "amounts-differ" not in found.tags
    assert found.buyer.id is not None
    assert one.buyer.detail not in str(found.ship_to)


def test_what_the_platform_s_errors_mean() -> None:
    """A dead token and a wrong secret are a person's business; a throttle, nonsense and an order that is not there are tried again."""

    async def ask(jos: Jos, **values: Any) -> Exception:
        async with shop(jos, **values) as client:
            with pytest.raises((Unauthorised, Transient)) as raised:
                await PLATFORM.detail(client, "290000000009")
            return raised.value

    for values in ({"access": "old"}, {"secret": "x"}):
        assert isinstance(asyncio.run(ask(Jos(), **values)), Unauthorised)
    for jos, code in (
        (Jos(), "10400001"),
        (Jos(trouble=Trouble(throttled=1.0)), "10100005"),
        (Jos(trouble=Trouble(failing=1.0)), "http-502"),
    ):
        error = asyncio.run(ask(jos))
        assert isinstance(error, Transient)
        assert error.code == code


def test_one_order_by_its_number() -> None:
    """The answer as it came, and the channel reads it."""
    jos, one = Jos(), draft()
    jos.happened(jd.body(one, event(one), ARTICLES))

    async def run() -> bytes:
        async with shop(jos) as client:
            return await PLATFORM.detail(client, one.name)

    found = parsed(asyncio.run(run()))
    assert (found.order_id, found.total, found.updated_at) == (one.order_id, one.total, START + one.created + 1)
