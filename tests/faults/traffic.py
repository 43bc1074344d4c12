"""The shops: signed webhooks at a rate, with every incident of the simulators, sent again until intake has said 200.

Law: what was acknowledged is a fact and is kept with its bytes; what was not is nobody's promise. As platforms do, a shop
that got no answer sends the same bytes again, so an order may well be in the line before anybody was told so.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import ssl
import time
from collections.abc import Iterable, Sequence

import httpx

from orderstream.simulators import Delivery, Scenario, make
from orderstream.simulators.market import POLLED, Market
from orderstream.simulators.scenario import MARKETPLACES

CONNECTIONS = 24
PEAK = 600
"""Orders of one peak of the simulators; the next follows it with new orders of other people."""


class Traffic:
    """Deliveries on their way to intake. url: intake's; market: what signs, and knows; rate: orders a second, the marketplaces' aside."""

    def __init__(self, url: str, market: Market, rate: float, seed: int) -> None:
        self._url = url.rstrip("/")
        self._market = market
        self._rate = rate
        self._seed = seed
        self._numbers = itertools.count(1)
        self._free: asyncio.Queue[httpx.AsyncClient] = asyncio.Queue()
        self._clients: list[httpx.AsyncClient] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self.copies = 1
        """How often each delivery is sent, all at once."""
        self.acknowledged: dict[str, set[str]] = {}
        """Order id -> sha256 of each message of it that intake acknowledged."""
        self.since: dict[str, float] = {}
        """Order id -> when (monotonic seconds) its first delivery was acknowledged."""
        self.told_nobody = 0
        """When a platform that is polled last learned something (ms UTC)."""
        self.refused: list[str] = []
        self.last = time.monotonic()
        """When something was acknowledged last."""
        self.pause = 0.0
        """The longest time without an acknowledgement since this was last set to 0."""

    async def open(self) -> None:
        context = ssl.create_default_context()
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        for _ in range(CONNECTIONS):
            client = httpx.AsyncClient(limits=limits, timeout=5.0, trust_env=False, verify=context)
            self._clients.append(client)
            self._free.put_nowait(client)

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for client in self._clients:
            await client.aclose()

    def peak(self, orders: int, *, rate: float | None = None, behind_ms: int = 0, buyers: int = 0) -> Scenario:
        """New orders, dated `behind_ms` before now (negative: ahead); the same `buyers` and seed bring the same people."""
        number = next(self._numbers)
        return make(
            orders,
            rate=rate or self._rate,
            seed=self._seed + number,
            start=time.time_ns() // 1_000_000 - behind_ms,
            first_order=number * 10_000,
            first_buyer=buyers,
            # a platform that is asked goes by its own clock: what it dates hours away is not listed now
            marketplaces=[channel for channel in MARKETPLACES if not behind_ms or channel not in POLLED],
            payments=True,
        )

    async def run(self) -> None:
        """One peak after another, at the rate, until cancelled; never more than 200 deliveries under way."""
        for number in itertools.count(1):
            scenario = self.peak(PEAK, buyers=number * 10_000)
            slip = 0.0
            for delivery in scenario.deliveries:
                due = (scenario.start + delivery.at) / 1000 + slip
                await asyncio.sleep(max(0.0, due - time.time()))
                if len(self._under_way) >= 200:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                # what was held back is not made up for: a peak after every outage would be another test
                slip += max(0.0, time.time() - due - 0.5)
                self.send([delivery])

    def send(self, deliveries: Iterable[Delivery], copies: int | None = None) -> list[asyncio.Task[None]]:
        """Set deliveries on their way, each `copies` times (None: as `copies` says) at once."""
        deliveries = list(deliveries)
        for delivery in deliveries:
            self._market.happened(delivery)
        tasks = [
            asyncio.ensure_future(self._deliver(delivery))
            for delivery in deliveries
            for _ in range(self.copies if copies is None else copies)
        ]
        for task in tasks:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return tasks

    async def send_in_turn(self, deliveries: Sequence[Delivery], per_second: float) -> None:
        """Each after the one before it has been sent, not slower than needed."""
        for delivery in deliveries:
            self.send([delivery], 1)
            await asyncio.sleep(1 / per_second)

    async def settled(self, seconds: float = 60.0) -> None:
        """Until nothing is under way."""
        if self._under_way:
            _, left = await asyncio.wait(self._under_way, timeout=seconds)
            if left:
                raise TimeoutError(f"{len(left)} deliveries are still not acknowledged after {seconds:.0f} s")

    async def _deliver(self, delivery: Delivery) -> None:
        url = f"{self._url}/hooks/{delivery.channel}/{delivery.shop}"
        pause = 0.2
        while True:
            posting = self._market.posting(delivery)
            if posting is None:
                # what its platform pushes to nobody is ours to find: that it comes out is asked, that these bytes do is not
                if delivery.channel in POLLED:
                    self.told_nobody = time.time_ns() // 1_000_000
                self._note(delivery, set())
                return
            client = await self._free.get()
            try:
                answer = await client.post(url, content=posting.body, headers=posting.headers, params=posting.query or None)
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            finally:
                self._free.put_nowait(client)
            if status == 200:
                self._note(delivery, {hashlib.sha256(posting.message).hexdigest()})
                return
            if not (status in (0, 408, 429) or status >= 500):
                self.refused.append(f"{delivery.order_id} -> {status}")
                return
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(2.0, pause * 2)

    def _note(self, delivery: Delivery, bodies: set[str]) -> None:
        now = time.monotonic()
        self.pause = max(self.pause, now - self.last)
        self.last = now
        self.acknowledged.setdefault(delivery.order_id, set()).update(bodies)
        self.since.setdefault(delivery.order_id, now)
