"""What several platforms have in common in how they are asked: tokens that a person grants, lists that move while they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from orderstream.channels.reading import whole
from orderstream.platforms import Account, Token, Unauthorised

Page = TypeVar("Page")


def granted(account: Account, worn: Token | None, *, none: str, refused: str) -> Token:
    """The token that the seller granted on a page of the platform: no call renews it.

    Raises Unauthorised, a person's business: `none` where the account has none, `refused` where the platform takes it no more.
    """
    if worn is not None or account.token is None:
        raise Unauthorised(none if worn is None else refused)
    return Token(account.token)


async def backwards(read: Callable[[int], Awaitable[Page]], total: Callable[[Page], Any], size: int) -> AsyncIterator[Page]:
    """A list's pages, from the last to the first. read: a page by its number, from 1; total: what a page says of all rows.

    What changes meanwhile leaves the list and those after it move up: only a walk backwards meets each.
    """
    first = await read(1)
    pages = -(-(whole(total(first)) or 0) // size)
    for page in range(pages, 0, -1):
        yield first if page == pages == 1 else await read(page)
