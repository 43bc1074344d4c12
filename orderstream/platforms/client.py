"""Calling a platform: one client for each shop's account.

Law: a call either gives the platform's whole answer or says why not, in bounded time, and never shows a secret or a body.
"""

from __future__ import annotations

from collections.abc import Callable

from orderstream.platforms import Account, Answer, Ask

Sign = Callable[[str, int], Ask]
"""(token, now in ms UTC) -> the request. Called anew for each attempt: most platforms sign the time."""
Check = Callable[[Answer], None]
"""Raises what the answer means (Transient, Gone, Unauthorised); nothing where it is the answer that was asked for."""


class Client:
    """What calls one account's platform: its rate, its token, its retries."""

    account: Account

    async def call(self, sign: Sign, check: Check, *, anonymous: bool = False) -> bytes:
        """The answer's body. anonymous: without a token, for asking for one. Raises Transient, Gone or Unauthorised.

        429 and 5xx, no connection, and any other status that `check` lets pass and that is not 2xx, are Transient; 401 is
        Unauthorised.
        """
        raise NotImplementedError
