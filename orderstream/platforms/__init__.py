"""Platforms: the marketplaces' own APIs, one module each, behind one small interface: what `orderstream fetch` asks of them.

Law: a platform module says how to ask and how to read the answer, and nothing else. It signs a request, tells the platform's
words for "later", "never" and "who are you" apart, and gives back bytes exactly as they came; waiting, trying again, tokens and
limits are the `client`'s, translating an order is the channel's (`orderstream.channels`). Reason: what costs an outage is the
same for all of them and must be right once.

A platform answers a mistake with status 200 as often as not, and a wrong address with 404: only its own word for "there is no
such order" is a `Gone`, which is final. All else is tried again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from pydantic import SecretStr

if TYPE_CHECKING:
    from orderstream.platforms.client import Client


class PlatformError(Exception):
    """Why a platform gave no answer. code: short and stable, the platform's own where it has one; never a part of a body."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Transient(PlatformError):  # noqa: N818  named for what is so, as are the next two
    """Not now: throttled, busy, broken, unreadable. retry_after: seconds that the platform asks us to wait, if it does."""

    def __init__(self, code: str, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.retry_after = retry_after


class Gone(PlatformError):  # noqa: N818
    """Never: the platform says in its own words that this shop has no such order."""


class Unauthorised(PlatformError):  # noqa: N818
    """Our token, key or right is not what it takes. The client renews the token once; then only a person can help."""


class Account(msgspec.Struct, frozen=True):
    """How we come to one shop's platform. url: where its API is, without a slash at the end; "" for the platform's own address.

    token, refresh_token: as the platform gave them, where it does not give them for app key and secret alone. extra: what else
    it takes, by the platform module's own names (a shop's number there, a region). rate: calls a second, of all processes that
    fetch together; burst: so many at once. poll_seconds: how often to ask what has changed; 0: never.
    """

    channel: str
    shop: str
    app_key: str
    app_secret: SecretStr
    url: str = ""
    token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    extra: Mapping[str, str] = {}
    rate: float = 10.0
    burst: int = 10
    poll_seconds: float = 300.0

    @property
    def name(self) -> str:
        """`channel:shop`, as in the settings."""
        return f"{self.channel}:{self.shop}"


class Token(msgspec.Struct, frozen=True):
    """What a call is made with. expires_at: ms UTC, None where the platform does not say. refresh: the next refresh token."""

    value: SecretStr
    expires_at: int | None = None
    refresh: SecretStr | None = None


class Ask(msgspec.Struct, frozen=True):
    """One request, signed and as it goes out. url: a path under the account's url, or a whole address."""

    url: str
    params: Mapping[str, str] = {}
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    method: str = "POST"


class Answer(msgspec.Struct, frozen=True):
    """What came back, whole. headers: lower-case names."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Listed(msgspec.Struct, frozen=True):
    """One order that a platform lists as changed.

    body: what becomes `Raw.body`: the row itself where the list says all (JD), else a message of the kind that the channel's
    webhooks carry, made by the platform module so that the channel's `key`, `thin` and `parse` read it like one of these.
    changed_at: ms UTC, by the clock that also writes the order's `updated_at`; None where the list does not say: then it always
    comes in, seen or not. headers: those that `parse` needs. detail: where the list gives it with the row.
    """

    number: str
    changed_at: int | None
    body: bytes
    headers: Mapping[str, str] = {}
    detail: bytes | None = None


class Platform(Protocol):
    """What fetching and polling need of a platform. Every method may raise Transient, Gone or Unauthorised."""

    channel: str
    url: str
    """Where its API is, without a slash at the end; an account's own goes first."""

    async def token(self, client: Client, worn: Token | None) -> Token:
        """The token to call with. worn: the one that the platform takes no more (None: the first of this process).

        As a rule `client.call(..., anonymous=True)`; where tokens come from people, the account's own first, and
        Unauthorised("token-expired") for `worn`. A platform without tokens returns an empty one.
        """
        ...

    async def detail(self, client: Client, number: str) -> bytes:
        """The order of this number, the answer's bytes as they came: `Raw.detail`."""
        ...

    def changed(self, client: Client, since_ms: int, until_ms: int) -> AsyncIterator[Listed]:
        """Every order of the account that changed in [since, until), ms UTC, over all pages; one may come more than once.

        A platform that cannot list changes yields nothing.
        """
        ...


class Pulled(msgspec.Struct, frozen=True):
    """A message of a platform's queue. id: to confirm it with; seller: the platform's number of the shop that it is about."""

    id: str
    seller: str | None
    body: bytes


@runtime_checkable
class Queue(Protocol):
    """What a platform has besides where it does not push: a queue that is pulled from, and told what is kept (Taobao's TMC)."""

    async def pull(self, client: Client) -> list[Pulled]:
        """The next messages; what is not confirmed comes again. An account with `extra["user_id"]` says which shop it is."""
        ...

    async def confirm(self, client: Client, kept: Sequence[str]) -> None:
        """These are kept and never come again. ids: of `Pulled`."""
        ...


@cache
def registry() -> dict[str, Platform]:
    """Every platform there is, by channel."""
    from orderstream.platforms import douyin, jd, shopify, taobao, wechat, youzan  # noqa: PLC0415  the modules import this one

    return {module.PLATFORM.channel: module.PLATFORM for module in (douyin, jd, shopify, taobao, wechat, youzan)}
