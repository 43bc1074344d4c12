"""Calling a platform: one client for each shop's account, over connections that all of them share.

Law: a call gives the platform's whole answer or says why not, in bounded time, and shows no secret and no body: not in a log,
not in an error. Nothing is called faster than the account allows, nothing that rests is called at all, and a token that is worn
out is renewed once however many calls wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable

import httpx
import msgspec

from orderstream.platforms import Account, Answer, Ask, Gone, Platform, Token, Transient, Unauthorised
from orderstream.platforms.limits import Breaker, Bucket, backoff

Sign = Callable[[str, int], Ask]
"""(token, now in ms UTC) -> the request. Called anew for each attempt: most platforms sign the time."""
Check = Callable[[Answer], None]
"""Raises what the answer means (Transient, Gone, Unauthorised); nothing where it is the answer that was asked for."""

MAX_ANSWER = 8 * 1_048_576
"""Bytes of an answer: a page of a hundred whole orders has one."""
RENEW_AHEAD_MS = 60_000
"""How long before its end a token is renewed: it must not end on its way."""


class Patience(msgspec.Struct, frozen=True):
    """How long one call may try. tries: attempts; base, longest: seconds of back-off; seconds: for one attempt."""

    tries: int = 3
    base: float = 0.5
    longest: float = 5.0
    seconds: float = 15.0


class Resting(Transient):
    """The call was not made: the platform failed too often just now."""


class Client:
    """What calls one account's platform: its rate, its token, its retries, its rest."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        platform: Platform,
        account: Account,
        patience: Patience | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.account = account
        self.platform = platform
        self.breaker = breaker or Breaker()
        self._http = http
        self._patience = patience or Patience()
        self._bucket = Bucket(account.rate, account.burst)
        self._token: Token | None = None
        self._renewing: asyncio.Task[Token] | None = None
        self._chance = random.Random()  # noqa: S311  spreads calls, hides nothing

    def share(self, part: float) -> None:
        """How much of the account's rate is for this process: the part of all partitions that it owns."""
        self._bucket.share(part)

    async def call(self, sign: Sign, check: Check, *, anonymous: bool = False) -> bytes:
        """The answer's body. anonymous: without a token, for asking for one. Raises Transient, Gone or Unauthorised.

        429 and 5xx, no connection, and any other status that `check` lets pass and that is not 2xx, are Transient; 401 is
        Unauthorised.
        """
        attempt, renewed, worn = 0, False, None
        failed: Transient | None = None
        while True:
            token = None if anonymous else await self._current(worn)
            try:
                return await self._once(sign, check, token)
            except Unauthorised:
                if token is None:
                    raise
                if renewed:
                    self.breaker.failed(time.monotonic())
                    raise
                renewed, worn = True, token
            except Resting:
                # a call that was made and failed is told as such, though it was the one that made the platform rest
                raise failed or Resting("resting") from None
            except Transient as error:
                failed, attempt = error, attempt + 1
                wait = backoff(attempt, self._patience.base, self._patience.longest, self._chance)
                if attempt >= self._patience.tries or (error.retry_after or 0) > self._patience.longest:
                    raise
                await asyncio.sleep(max(wait, error.retry_after or 0))

    async def _once(self, sign: Sign, check: Check, token: Token | None) -> bytes:
        """One attempt, in its place and where the platform does not rest."""
        if not self.breaker.enter(time.monotonic()):
            raise Resting("resting")
        try:
            await asyncio.sleep(self._bucket.reserve(time.monotonic()))
            answer = await self._ask(sign("" if token is None else token.value.get_secret_value(), time.time_ns() // 1_000_000))
            _judge(answer, check)
        except Gone:
            self._answered(token)
            raise
        except Transient as error:
            if error.retry_after is not None:
                self._bucket.hold(time.monotonic() + error.retry_after)
            self.breaker.failed(time.monotonic())
            raise
        except Unauthorised:
            # what that means for the platform is known when the token has been renewed
            self.breaker.left()
            raise
        except BaseException:
            self.breaker.left()
            raise
        self._answered(token)
        return answer.body

    def _answered(self, token: Token | None) -> None:
        # that we get tokens does not say that anybody takes them
        self.breaker.succeeded() if token is not None else self.breaker.left()

    async def _ask(self, ask: Ask) -> Answer:
        url = ask.url if "://" in ask.url else (self.account.url or self.platform.url) + ask.url
        try:
            async with (
                asyncio.timeout(self._patience.seconds),
                self._http.stream(
                    ask.method, url, params=dict(ask.params) or None, content=ask.body, headers=dict(ask.headers)
                ) as got,
            ):
                parts, size = [], 0
                async for part in got.aiter_bytes():
                    size += len(part)
                    if size > MAX_ANSWER:
                        raise Transient("answer-too-large")
                    parts.append(part)
                return Answer(got.status_code, b"".join(parts), {k.lower(): v for k, v in got.headers.items()})
        except TimeoutError:
            raise Transient("timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # the library's own sentence may hold the address, and the address the token
            raise Transient(f"http-{type(error).__name__.lower()}") from None

    async def _current(self, worn: Token | None) -> Token:
        token = self._token
        if token is None or token is worn or (token.expires_at or _FOREVER) - RENEW_AHEAD_MS < time.time_ns() // 1_000_000:
            return await self._renew(token)
        return token

    async def _renew(self, worn: Token | None) -> Token:
        """The token after `worn`: asked for once, by whoever comes first."""
        if self._token is not None and self._token is not worn:
            return self._token
        if self._renewing is None:
            self._renewing = asyncio.create_task(self.platform.token(self, worn))
            self._renewing.add_done_callback(self._renewed)
        try:
            # shielded: who gives up waiting does not take it from the others
            return await asyncio.shield(self._renewing)
        except Unauthorised:
            self.breaker.failed(time.monotonic())
            raise

    def _renewed(self, task: asyncio.Task[Token]) -> None:
        self._renewing = None
        if not task.cancelled() and task.exception() is None:
            self._token = task.result()


_FOREVER = 1 << 62
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


def _judge(answer: Answer, check: Check) -> None:
    """Raises what an answer means."""
    if answer.status == 429 or answer.status >= 500:
        raise Transient(f"http-{answer.status}", _retry_after(answer.headers.get("retry-after")))
    if answer.status == 401:
        raise Unauthorised("http-401")
    check(answer)
    if not 200 <= answer.status < 300:
        raise Transient(f"http-{answer.status}")


def _retry_after(said: str | None) -> float | None:
    """Seconds, with a fraction where the platform is Shopify; None for what is no number of them (a date is nobody's habit here)."""
    return float(said) if said is not None and _SECONDS.fullmatch(said.strip()) else None


def connections() -> httpx.AsyncClient:
    """What all clients of a process call with. Silences the library's log, whose lines hold addresses, and these hold tokens."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(10.0, pool=None),
        limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
        follow_redirects=False,
    )
