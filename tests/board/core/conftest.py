"""A board of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orderstream.board import store
from orderstream.board.store import Db
from tests.board.core.records import Feed


@pytest.fixture
def db(database: str) -> Iterator[Db]:
    with store.connect(database) as one:
        yield one


@pytest.fixture
def feed(db: Db) -> Feed:
    return Feed(db)
