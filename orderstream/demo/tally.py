"""What was sent, what came of it, and what should have: the demo's book-keeping.

Law: every order that intake acknowledged is in exactly one column at the end, by its last verdict. `lost` is counted, not
inferred: it is the orders that have no verdict on their last acknowledged state. Pure: records go in, numbers come out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from orderstream.simulators import Delivery, Expected, Scenario

STOPPED = frozenset({"review", "frozen"})
WITHDRAWN_STATUS = frozenset({"cancelled", "refunded"})


class Share(msgspec.Struct, frozen=True):
    """One channel's part of a `Summary`, by the same words."""

    sent: int
    released: int
    review: int
    frozen: int
    withdrawn: int
    rejected: int
    lost: int
    caught: int
    missed: int
    false_alarms: int


class Summary(msgspec.Struct, frozen=True):
    """A run's result; its fields are the report's keys.

    sent: distinct orders that intake acknowledged, those included that turned out to be none.
    released, review, frozen, withdrawn, rejected, lost: the same orders by their final verdict; they add up to sent, because every
        order of the scenario ends paid or cancelled (one still unpaid would be `pending`, and the run counts it as lost).
    recalled: orders that were released first and taken back later, whatever their final verdict is.
    lost: acknowledged orders without a verdict on the last state of them that was acknowledged.
    caught, missed: orders injected with a medium or high rule to fire, whose final verdict has all of these rules, or has not.
    false_alarms: orders meant to be released that are in review or frozen.
    p50_ms, p99_ms: from intake's received_at to the first verdict's being on orders.verdicts (the broker's time of it).
    channels: each channel's share.
    """

    sent: int
    released: int
    review: int
    frozen: int
    withdrawn: int
    recalled: int
    rejected: int
    lost: int
    caught: int
    missed: int
    false_alarms: int
    p50_ms: float
    p99_ms: float
    channels: dict[str, Share]


class Reason(msgspec.Struct, frozen=True):
    """Why an order was held, for the live view: the rule that weighs most."""

    order_id: str
    verdict: str
    rule: str
    level: str


class Tally:
    """Counts one run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._expected = scenario.expected
        self._asked: dict[str, Delivery] = {}
        self._verdicts: dict[str, Mapping[str, Any]] = {}
        self._rejected: set[str] = set()
        self._recalled: set[str] = set()
        self._latencies: list[int] = []
        self.now: Counter[str] = Counter()
        """Orders by their verdict at this moment."""
        self.reasons: deque[Reason] = deque(maxlen=12)
        self.revision = 0
        """Grows with every record that changed something."""
        self.repeats = 0
        """Deliveries beyond the first of the same bytes that were acknowledged."""

    @property
    def sent(self) -> int:
        return len(self._asked)

    @property
    def recalled(self) -> int:
        return len(self._recalled)

    def acknowledged(self, delivery: Delivery) -> None:
        """Intake said that it has this delivery."""
        self.repeats += delivery.repeat
        known = self._asked.get(delivery.order_id)
        # a retry may be acknowledged after the next revision was
        if known is None or delivery.revision > known.revision:
            self._asked[delivery.order_id] = delivery

    def verdict(self, record: Mapping[str, Any], appended_at: int) -> None:
        """A record of orders.verdicts, and when the broker appended it (ms UTC)."""
        order = str(record["order_id"])
        before = self._verdicts.get(order)
        if before is not None and record["verdict_seq"] <= before["verdict_seq"]:
            return
        if before is None:
            received = (record.get("timings") or {}).get("received_at")
            if received is not None:
                self._latencies.append(max(0, appended_at - int(received)))
        else:
            self.now[before["verdict"]] -= 1
            if before["verdict"] == "released" and record["verdict"] in (*STOPPED, "withdrawn"):
                self._recalled.add(order)
        self.revision += 1
        self.now[record["verdict"]] += 1
        self._verdicts[order] = record
        if record["verdict"] in STOPPED and record["signals"]:
            worst = max(record["signals"], key=lambda s: ("low", "medium", "high").index(s["level"]))
            self.reasons.append(Reason(order, str(record["verdict"]), worst["rule"], worst["level"]))

    def reject(self, record: Mapping[str, Any]) -> None:
        """A record of orders.rejected."""
        self.revision += 1
        self._rejected.add(str(record["order_id"]))
        self.now["rejected"] = len(self._rejected)

    def waiting(self) -> list[str]:
        """Acknowledged orders whose last state has no verdict yet."""
        return [order for order, delivery in self._asked.items() if not self._settled(order, delivery)]

    def _settled(self, order: str, delivery: Delivery) -> bool:
        record = self._verdicts.get(order)
        if record is None or record["verdict"] == "rejected":
            return order in self._rejected or record is not None
        if delivery.status in WITHDRAWN_STATUS:
            return bool(record["verdict"] == "withdrawn")
        return bool(record["verdict"] != "pending" and record.get("status", delivery.status) == delivery.status)

    def final(self, order: str) -> str:
        """The verdict that stands for an order now; "lost" where there is none."""
        record = self._verdicts.get(order)
        if not self._settled(order, self._asked[order]):
            return "lost"
        return "rejected" if record is None else str(record["verdict"])

    def rules(self, order: str) -> set[str]:
        """The rules among an order's standing signals."""
        record = self._verdicts.get(order)
        return set() if record is None else {signal["rule"] for signal in record["signals"]}

    def as_expected(self, expected: Expected) -> bool:
        """Whether an order stands as its label says."""
        order = expected.order_id
        if order not in self._asked:
            return False
        final = self.final(order)
        if expected.outcome != ("stopped" if final in STOPPED else final):
            return False
        tags = {tag["tag"] for tag in (self._verdicts.get(order) or {}).get("tags") or ()}
        return {*expected.rules, *expected.low} <= self.rules(order) and (expected.tag is None or expected.tag in tags)

    def incidents(self) -> dict[str, tuple[int, int]]:
        """Incident to (orders that stand as their label says, orders of it acknowledged so far)."""
        found: dict[str, list[int]] = {}
        for order in self._asked:
            expected = self._expected[order]
            marked = expected.rules or expected.low or expected.tag or expected.outcome != "released"
            if expected.incident is not None and marked:
                pair = found.setdefault(expected.incident, [0, 0])
                pair[0] += self.as_expected(expected)
                pair[1] += 1
        return {incident: (good, of) for incident, (good, of) in found.items()}

    def percentile(self, share: float) -> float:
        """The latency in ms below which `share` (0 to 1) of the first verdicts are; 0 where there are none."""
        if not self._latencies:
            return 0.0
        ordered = sorted(self._latencies)
        return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])

    def odd(self) -> list[tuple[Expected, str]]:
        """Acknowledged orders that do not stand as labelled, with what they stand as."""
        return [
            (self._expected[order], self.final(order)) for order in self._asked if not self.as_expected(self._expected[order])
        ]

    def released(self) -> set[str]:
        """The orders that are out as released: by the machine, or by somebody who decided meanwhile."""
        return {order for order in self._asked if (self._verdicts.get(order) or {}).get("out") == "released"}

    def clean(self) -> set[str]:
        """Those of them that are in no incident."""
        return {order for order in self.released() if self._expected[order].incident is None}

    def summary(self) -> Summary:
        """The result, as of now."""
        channels: dict[str, list[str]] = {}
        for order, delivery in self._asked.items():
            channels.setdefault(delivery.channel, []).append(order)
        whole = self._share(self._asked)
        return Summary(
            **msgspec.structs.asdict(whole),
            recalled=self.recalled,
            p50_ms=self.percentile(0.5),
            p99_ms=self.percentile(0.99),
            channels={channel: self._share(orders) for channel, orders in sorted(channels.items())},
        )

    def _share(self, orders: Iterable[str]) -> Share:
        finals = {order: self.final(order) for order in orders}
        count = Counter(finals.values())
        marked = [order for order in finals if self._expected[order].rules]
        caught = sum(set(self._expected[order].rules) <= self.rules(order) and finals[order] in STOPPED for order in marked)
        return Share(
            sent=len(finals),
            released=count["released"],
            review=count["review"],
            frozen=count["frozen"],
            withdrawn=count["withdrawn"],
            rejected=count["rejected"],
            lost=count["lost"],
            caught=caught,
            missed=len(marked) - caught,
            false_alarms=sum(finals[order] in STOPPED and self._expected[order].outcome == "released" for order in finals),
        )
