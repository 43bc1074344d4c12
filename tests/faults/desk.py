"""People at the board who decide what is held, over its HTTP API, approve what others asked, and take some of it back.

Law: what the board has said yes to is a fact and is kept. What it did not answer is none: the order still waits, or somebody looks
again. What came of all of it is read from the board's tables and the public topics, at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx

WAYS = (("release", "checked"),) * 8 + (("cancel", "fraud"),) * 3 + (
    ("correction", "address"), ("after-sales", "exchange"), ("after-sales", "refund"),
)  # fmt: skip
SHARE = 0.5
"""Of the held orders those that somebody decides, and of what they decided in one go what they take back."""
YES = 0.8
"""Of what waits for an approver."""
LOOK_SECONDS = 0.5
AT_ONCE = 20
"""Cases that are opened in one look: the API lets a person ask twenty times a second."""


class Yes(NamedTuple):
    """What the board said yes to: `bulk` names it in its tables. what: a decision, `approve`, `refuse` or `undone`."""

    bulk: str
    order: str
    what: str


class Desk:
    """said: all that the board has said yes to. tokens: of `reviewer` and `approver`."""

    def __init__(self, url: str, tokens: Mapping[str, str], seed: int) -> None:
        self._url, self._tokens = url, tokens
        self._dice = random.Random(seed)
        self._seen: dict[str, tuple[int, int]] = {}
        self.met: set[tuple[str, int]] = set()
        """Orders by the number of the verdict that somebody here has looked at."""
        self.rests = False
        """While it is set, nobody decides."""
        self._bulks: list[str] = []
        self._closed = asyncio.Event()
        self._home = asyncio.Event()
        self.said: list[Yes] = []
        self.refused = 0
        """Orders that the board did nothing with, and said why: somebody was first, or there was something new."""
        self.away = 0
        """Requests that nobody answered, or with 503."""
        self.strange: list[str] = []
        """Answers that an API must not give."""

    async def run(self) -> None:
        """Decides until closed, whatever is away meanwhile."""
        async with httpx.AsyncClient(base_url=self._url, timeout=10, trust_env=False) as http:
            while not self._closed.is_set():
                try:
                    if not self.rests:
                        await self._look(http)
                        await self._approve(http)
                        await self._undo(http)
                except httpx.TransportError:
                    self.away += 1
                await asyncio.sleep(LOOK_SECONDS)
        self._home.set()

    async def close(self) -> None:
        """Nothing more is decided from now on."""
        self._closed.set()
        await asyncio.wait_for(self._home.wait(), 60)

    async def cards(self) -> dict[str, int]:
        """The wall as the API shows it: case -> orders of it that wait."""
        found: dict[str, int] = {}
        async with httpx.AsyncClient(base_url=self._url, timeout=30, trust_env=False) as http:
            while True:
                said = await self._ask(http, "reviewer", f"/api/v1/cases?limit=200&offset={len(found)}")
                found |= {card["case_id"]: card["waiting"] for card in said["cases"]}
                if len(said["cases"]) < 200:
                    return found

    async def _ask(self, http: httpx.AsyncClient, who: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; None where there was none that says something: away, too many, gone."""
        headers = {"Authorization": f"Bearer {self._tokens[who]}"}
        answer = await (http.get(path, headers=headers) if body is None else http.post(path, headers=headers, json=body))
        if answer.status_code in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            return answer.json()
        self.away += answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        allowed = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
        if answer.status_code not in allowed:
            self.strange.append(f"{path}: {answer.status_code} {answer.text[:300]}")
        return None

    async def _look(self, http: httpx.AsyncClient) -> None:
        found = await self._ask(http, "reviewer", "/api/v1/cases?sort=newest&limit=200")
        cards = [] if found is None else found["cases"]
        new = [card for card in cards if self._seen.get(card["case_id"]) != (card["newest_at"], card["waiting"])]
        for card in new[:AT_ONCE]:
            case = await self._ask(http, "reviewer", f"/api/v1/cases/{card['case_id']}")
            if case is not None:
                self._seen[card["case_id"]] = card["newest_at"], card["waiting"]
                await self._decide(http, case["orders"])

    async def _decide(self, http: httpx.AsyncClient, rows: list[dict[str, Any]]) -> None:
        """One decision on those of a case that nobody has looked at as they are now."""
        new = [
            row
            for row in rows
            if row["state"] == "waiting" and row["asked"] is None and (row["order_id"], row["seq"]) not in self.met
        ]
        self.met.update((row["order_id"], row["seq"]) for row in new)
        chosen = [row for row in new if self._dice.random() < SHARE]
        if not chosen:
            return
        what, reason = self._dice.choice(WAYS)
        orders = [{"order_id": row["order_id"], "seq": row["seq"]} for row in chosen]
        said = await self._ask(http, "reviewer", "/api/v1/decisions", {"orders": orders, "decision": what, "reason": reason})
        if said is not None:
            self.said += [Yes(said["bulk"], order, what) for order in (*said["done"], *said["asked"])]
            self.refused += len(said["refused"])
            if said["done"] or said["asked"]:
                self._bulks.append(said["bulk"])

    async def _approve(self, http: httpx.AsyncClient) -> None:
        for one in (await self._ask(http, "approver", "/api/v1/approvals") or ())[:AT_ONCE]:
            decision, yes = one["decision"], self._dice.random() < YES
            said = await self._ask(http, "approver", f"/api/v1/approvals/{decision['id']}", {"yes": yes})
            if said is None and yes:
                # there is something new about it: it has to be asked for anew
                yes = False
                said = await self._ask(http, "approver", f"/api/v1/approvals/{decision['id']}", {"yes": yes})
            if said is not None:
                self.said.append(Yes(decision["bulk"], decision["order_id"], "approve" if yes else "refuse"))

    async def _undo(self, http: httpx.AsyncClient) -> None:
        """Some of what was decided before the last look."""
        for bulk in self._bulks:
            if self._dice.random() < SHARE / 2:
                said = await self._ask(http, "reviewer", f"/api/v1/decisions/{bulk}/undo", {})
                self.said += [Yes(bulk, order, "undone") for order in (said or {}).get("undone", ())]
        self._bulks.clear()
