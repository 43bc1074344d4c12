"""What every platform's tests start from: drafts of one shop, and a client of its simulated platform on a socket."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from hypothesis import strategies as st
from pydantic import SecretStr

from orderstream.platforms import Account, Listed, Platform
from orderstream.platforms.client import Client, Patience, connections
from orderstream.simulators import assortment
from orderstream.simulators.drafts import Draft, Event, Line
from orderstream.simulators.people import People
from orderstream.simulators.served import served

ARTICLES = assortment.by_sku()
PEOPLE = People(random.Random(7))
START = 1_794_326_400_000
"""ms UTC at which drafts begin; the n-th is made n seconds later."""
QUICK = Patience(tries=3, base=0.001, longest=0.01, seconds=5)


def draft(channel: str, number: int = 1, **values: Any) -> Draft:
    """Two pieces and a gift, where the values do not say otherwise."""
    lines = values.pop("lines", [Line("SKU1", 2, 19_900), Line("SKU33", 1, 0, gift=True)])
    return Draft(number, channel, "main", PEOPLE.buyer(), lines, number * 1_000, **values)


def event(one: Draft, status: str = "paid", after: int = 0) -> Event:
    """What happened to a draft that many ms after it was made."""
    return Event(START, status, 1, one.created + after)


@st.composite
def sales(drawn: st.DrawFn) -> dict[str, Any]:
    """A draft's lines of any articles at any price, gifts among them, and a coupon of up to half of it."""
    line = st.builds(
        lambda sku, count, price, gift: Line(sku, count, 0 if gift else price, gift=gift),
        st.sampled_from(sorted(ARTICLES)), st.integers(1, 5), st.integers(0, 60_000), st.booleans(),
    )  # fmt: skip
    lines = drawn(st.lists(line, min_size=1, max_size=5))
    gross = sum(one.quantity * (one.price or 0) for one in lines)
    return {"lines": lines, "coupon": gross * drawn(st.integers(0, 100)) // 200}


@asynccontextmanager
async def client_of(
    platform: Platform, app: FastAPI, key: str, secret: str, *, shop: str = "main", patience: Patience = QUICK, **account: Any
) -> AsyncIterator[Client]:
    """A client of the platform as the app simulates it, on a socket. account: what else the account has."""
    async with served(app) as url, connections() as http:
        known = Account(platform.channel, shop, key, SecretStr(secret), url, rate=10_000, burst=10_000, **account)
        yield Client(http, platform, known, patience)


async def listed(client: Client, since: int, until: int) -> list[Listed]:
    """What the client's platform says has changed in [since, until), ms UTC."""
    return [one async for one in client.platform.changed(client, since, until)]
