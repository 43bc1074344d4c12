"""Labels: of each order what the rules said, and what came of it.

Law: pure; what nobody has said anything of has no label. Learning from guesses would teach the rules what they already think.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from orderstream import outcomes
from orderstream.facts import Outcome

GOOD = frozenset(("released", "customer-confirmed", "false-alarm"))
BAD = outcomes.FRAUDS | {"cancelled", "customer-single", "customer-address"}


class Said(msgspec.Struct, frozen=True):
    """One outcome of an order."""

    outcome: str
    at: int
    by: str | None
    reason: str | None


class Label(msgspec.Struct, frozen=True):
    """An order, the rules that fired at any time, its last verdict by the machine, and its outcomes in their order.

    label: `bad` where somebody said that the alarm was right or should have been, `good` where they said that it was not, None
    where nobody said. A later word of a person counts before an earlier one; a fraud counts before all.
    """

    order_id: str
    channel: str
    shop: str
    verdict: str
    level: str
    score: int
    pack: str
    rules: list[str]
    decided_at: int
    outcomes: list[Said]
    label: str | None


def labels(verdicts: Iterable[Mapping[str, Any]], said: Iterable[Outcome]) -> Iterator[Label]:
    """The labels of all orders, by id. verdicts: records of orders.verdicts, repeats and any sequence allowed."""
    last: dict[str, Mapping[str, Any]] = {}
    fired: dict[str, set[str]] = {}
    for verdict in verdicts:
        order = verdict["order_id"]
        fired.setdefault(order, set()).update(signal["rule"] for signal in verdict["signals"])
        if order not in last or last[order]["verdict_seq"] <= verdict["verdict_seq"]:
            last[order] = verdict
    heard: dict[str, dict[str, Outcome]] = {}
    for one in said:
        heard.setdefault(one.order, {}).setdefault(one.id, one)
    for order in sorted(last):
        v = last[order]
        standing = standing_of(heard.get(order, {}).values())
        yield Label(
            order,
            v["channel"],
            v["shop"],
            v["verdict"],
            v["level"],
            v["score"],
            v["pack"],
            sorted(fired[order]),
            v["timings"]["decided_at"],
            [Said(one.outcome, one.at, one.by, one.reason) for one in standing],
            label(standing),
        )


def standing_of(heard: Iterable[Outcome]) -> list[Outcome]:
    """Outcomes in their order, without those that were taken back."""
    told = sorted(heard, key=lambda one: (one.at, one.id))
    back = {one.undoes for one in told if one.outcome == "undone"}
    return [one for one in told if one.outcome != "undone" and one.id not in back]


def label(standing: Iterable[Outcome]) -> str | None:
    """What somebody said of whether the alarm was right; None where nobody did."""
    said: str | None = None
    for one in standing:
        if one.outcome in outcomes.FRAUDS:
            return "bad"
        if one.outcome in GOOD | BAD:
            said = "good" if one.outcome in GOOD else "bad"
    return said
