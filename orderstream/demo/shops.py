"""Simulated shops: they sign like the real ones, keep to a timetable, and send again what was not acknowledged.

Law: a delivery counts as sent when intake has answered 2xx, and only then; until that a shop retries, as platforms do. What a
platform pushes to nobody counts when it has happened there: to find it is our affair. So what was acknowledged and what the
demo expects to come out is the same set.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable

import httpx

from orderstream.simulators import Delivery, Scenario
from orderstream.simulators.market import Market, Posting

CONNECTIONS = 12
RETRY_SECONDS = 60.0
"""How long a shop keeps trying one delivery."""


class Shops:
    """Sends a scenario to intake. url: intake's; market: what signs, and knows; acknowledged: called for each delivery taken."""

    def __init__(self, url: str, market: Market, acknowledged: Callable[[Delivery], None]) -> None:
        self._url = url.rstrip("/")
        self._market = market
        self._acknowledged = acknowledged
        self._idle: asyncio.Queue[httpx.AsyncClient] = asyncio.Queue()
        self.refused: list[tuple[Delivery, int]] = []
        """Deliveries given up, with the last status (0: no answer)."""

    async def send(self, scenario: Scenario) -> None:
        """Every delivery at its time after the scenario's start; returns when all are acknowledged or given up."""
        async with contextlib.AsyncExitStack() as open_clients:
            # a client a connection: the library's pool walks through its connections and its queue at each request
            limits, context = httpx.Limits(max_connections=1, max_keepalive_connections=1), ssl.create_default_context()
            for _ in range(CONNECTIONS):
                # an intake that answers later than this would have lost a real platform's patience too
                client = httpx.AsyncClient(limits=limits, timeout=5.0, trust_env=False, verify=context)
                self._idle.put_nowait(await open_clients.enter_async_context(client))
            async with asyncio.TaskGroup() as sending:
                for delivery in scenario.deliveries:
                    wait = scenario.start + delivery.at - time.time() * 1000
                    if wait > 1:
                        await asyncio.sleep(wait / 1000)
                    self._market.happened(delivery)
                    sending.create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        deadline = time.monotonic() + RETRY_SECONDS
        pause = 0.2
        while True:
            posting = self._market.posting(delivery)
            status = 200 if posting is None else await self._post(delivery, posting)
            if 200 <= status < 300:
                self._acknowledged(delivery)
                return
            # 4xx will not change by asking again, except "slower" and "too late"
            again = status in (0, 408, 429) or status >= 500
            if not again or time.monotonic() + pause > deadline:
                self.refused.append((delivery, status))
                return
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    async def _post(self, delivery: Delivery, posting: Posting) -> int:
        """The answer's status; 0 where there was none."""
        url = f"{self._url}/hooks/{delivery.channel}/{delivery.shop}"
        client = await self._idle.get()
        try:
            return (
                await client.post(url, content=posting.body, headers=posting.headers, params=posting.query or None)
            ).status_code
        except httpx.TransportError:
            return 0
        finally:
            self._idle.put_nowait(client)
