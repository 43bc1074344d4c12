"""What a rule file and a policy file may say.

Law: a word that is not in this module is an error in the pack, at load, with the file's name; a rule that is read has been
understood whole. Reason: a misspelled key that is ignored is a rule that never fires, found by the customer.

Durations are `10s`, `5m`, `24h`, `30d`; money is integer minor units (fen); distances are km.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from orderstream import times
from orderstream.identity import Confidence

Level = Literal["none", "low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("none", "low", "medium", "high")
RANK: dict[str, int] = {level: rank for rank, level in enumerate(LEVELS)}

_DURATION = re.compile(r"(\d+)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 1, "s": times.SECOND, "m": times.MINUTE, "h": times.HOUR, "d": times.DAY}


def duration(text: str) -> int:
    """Milliseconds of `10s`, `5m`, `24h`, `30d`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration like 10s, 5m, 24h, 30d")
    return int(match[1]) * _UNITS[match[2]]


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text for people, in both languages."""

    zh: str
    en: str


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is measured over a window's members, and from where on it fires.

    count: `orders`. sum: `total` (minor units, only orders in `currency`) or `units` (pieces of the SKU).
    distinct: `user`. nearest: `place` (km from the nearest of at least `members` other places).
    at_least: fires at this value or more; above: fires at more than this.
    """

    count: Literal["orders"] | None = None
    sum: Literal["total", "units"] | None = None
    distinct: Literal["user"] | None = None
    nearest: Literal["place"] | None = None
    at_least: int | None = None
    above: int | float | None = None
    members: int = 0
    currency: str | None = None


Kind = Literal["user", "person", "device", "phone", "ip", "segment", "payment", "address", "sku", "pair"]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something to ask for on orders.actions. lasts: a duration, for locks. to: who is told (`supervisor`, `risk`, …)."""

    do: Literal["confirm", "lock-stock", "challenge", "second-check", "notify", "meeting"]
    by: tuple[str, ...] = ()
    lasts: str | None = None
    to: str | None = None


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A claim of the rule about itself: these records, these outcomes. See `examples` for the short forms."""

    says: str
    expect: dict[str, Literal["fired", "silent", "not_available"]]
    orders: list[dict[str, object]]
    catalogue: list[dict[str, object]] = []
    records: list[dict[str, object]] = []


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule file. `on: order` reads the order alone (`when`); `on: [kinds]` reads an entity's window or profile.

    when, unavailable, members, profile, value, limit, detail are CEL expressions; `docs/rules.md` lists what they may read.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
    title: Text
    explain: Text
    why: Text
    blind: Text
    level: Literal["low", "medium", "high"]
    owner: str
    runbook: str
    on: Literal["order"] | tuple[Kind, ...]
    examples: list[Example]
    weight: int | None = None
    actions: tuple[Action, ...] | None = None
    absent: Literal["skip", "review"] = "skip"
    marks: Literal["newest", "all"] = "newest"
    when: str | None = None
    unavailable: str | None = None
    value: str | None = None
    limit: str | None = None
    detail: str | None = None
    within: str | None = None
    measure: Measure | None = None
    sharing: Literal["sku"] | None = None
    members: str | None = None
    profile: str | None = None
    needs: tuple[Literal["stock", "rate", "history"], ...] = ()
    confidence: Confidence = "likely"
    """How sure a key must be at least for the rule to count what meets there; `identity` says how sure each is."""
    tag_only: bool = False
    """Switched off by the on-call: it is judged and told in tags, and counts for nothing."""


class Combination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Signals that together mean more than the highest of them: every one of `all` and, if given, one of `any`."""

    id: str
    title: Text
    all: tuple[str, ...]
    level: Literal["low", "medium", "high"]
    any: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a level means: the verdict, and the actions where a rule names none of its own.

    decide_within: a duration from its receipt in which a person decides an order of this level.
    """

    verdict: Literal["released", "review", "frozen"]
    weight: int = 0
    actions: tuple[Action, ...] = ()
    decide_within: str | None = None


class Limits(NamedTuple):
    """How long, in ms, what was released may take outside; None, or no entry: nothing is waited for."""

    acknowledged: Mapping[str, int]
    picked: int | None
    stuck: int | None


class Downstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How long the systems behind the release may take; past it an order stands on the wall (docs/downstream.md).

    acknowledged: from the release to each system's acknowledgement. picked: from the first acknowledgement until all is picked.
    stuck: how long a paid order may be kept back.
    """

    acknowledged: dict[Literal["erp", "wms"], str] = {}
    picked: str | None = None
    stuck: str | None = None

    def limits(self) -> Limits:
        """The same in ms. Raises ValueError."""
        return Limits(
            {system: duration(text) for system, text in self.acknowledged.items()},
            None if self.picked is None else duration(self.picked),
            None if self.stuck is None else duration(self.stuck),
        )


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """policy.yaml: how signals become a level, a level a verdict, and the pack's times and data.

    lateness: how long after its event time an order is still first received in time. horizon: until when a released order is
    recalled, and an edit moves windows. clock_ahead: how far created_at may be after received_at. data: what CEL reads as `data`.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
    title: Text
    levels: dict[Level, Outcome]
    currency: str = "CNY"
    lateness: str = "1h"
    horizon: str = "24h"
    clock_ahead: str = "5m"
    merge_within: str = "10m"
    active_from: str | None = None
    combinations: tuple[Combination, ...] = ()
    fill: dict[Literal["remark", "postcode"], str] = {}
    data: dict[str, object] = {}
    downstream: Downstream = Downstream()
