"""Simulated shops: they sign like the real ones, keep to a timetable, and send again what was not acknowledged.

Law: a delivery counts as sent when intake has answered 2xx, and only then; until that a shop retries, as platforms do. So what
intake acknowledged and what the demo expects to come out is the same set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import httpx

from orderstream.channels import api, shopify
from orderstream.simulators import Delivery, Scenario

CONNECTIONS = 16
RETRY_SECONDS = 60.0
"""How long a shop keeps trying one delivery."""


class Shops:
    """Sends a scenario to intake. url: intake's; secrets: by `channel:shop`; acknowledged: called for each delivery taken."""

    def __init__(self, url: str, secrets: Mapping[str, str], acknowledged: Callable[[Delivery], None]) -> None:
        self._url = url.rstrip("/")
        self._secrets = secrets
        self._acknowledged = acknowledged
        self.retries = 0
        """Answers that made a shop try again."""
        self.refused: list[tuple[Delivery, int]] = []
        """Deliveries given up, with the last status (0: no answer)."""

    async def send(self, scenario: Scenario) -> None:
        """Every delivery at its time after the scenario's start; returns when all are acknowledged or given up."""
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        # an intake that answers later than this would have lost a real platform's patience too
        async with (
            httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(5.0, pool=None), trust_env=False) as client,
            asyncio.TaskGroup() as sending,
        ):
            for delivery in scenario.deliveries:
                wait = scenario.start + delivery.at - time.time() * 1000
                if wait > 1:
                    await asyncio.sleep(wait / 1000)
                sending.create_task(self._deliver(client, delivery))

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        deadline = time.monotonic() + RETRY_SECONDS
        pause, status = 0.2, 0
        while True:
            try:
                answer = await client.post(
                    f"{self._url}/hooks/{delivery.channel}/{delivery.shop}",
                    content=delivery.body,
                    headers=self._headers(delivery),
                )
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            if 200 <= status < 300:
                self._acknowledged(delivery)
                return
            # 4xx will not change by asking again, except "slower" and "too late"
            again = status in (0, 408, 429) or status >= 500
            if not again or time.monotonic() + pause > deadline:
                self.refused.append((delivery, status))
                return
            self.retries += 1
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        secret = self._secrets[f"{delivery.channel}:{delivery.shop}"]
        if delivery.channel == "shopify":
            return shopify.sign(
                delivery.body,
                secret,
                topic=delivery.topic or "orders/create",
                domain=f"{delivery.shop}.myshopify.com",
                # a retry of the platform's has the same id
                delivery=f"{delivery.order_id}:{delivery.revision}",
            )
        return api.sign(delivery.body, secret, int(time.time()))
