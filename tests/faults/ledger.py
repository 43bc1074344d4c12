"""The rounds of all runs, one JSON line each, and the table that they make.

Law: a round counts when its campaign reconciled, and is never edited. A campaign that was interrupted leaves no line; one that
failed leaves its line, its seed and the place of its evidence.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tests.faults.kinds import KINDS

STATE = Path(__file__).parents[2] / ".cache" / "faults"
"""Where the ledger and the evidence of failed campaigns are kept."""


class Round(msgspec.Struct, frozen=True):
    """One fault. orders: acknowledged while it lasted; outage: the longest that an order, or a shop, waited (s); seconds: all of it.

    lost, twice, contradictions: orders acknowledged in this round that are in a difference. stops: processes that ended by
    themselves, in doubt, and were started again.
    """

    kind: str
    orders: int
    outage: float
    seconds: float
    lost: int = 0
    twice: int = 0
    contradictions: int = 0
    stops: int = 0


class Campaign(msgspec.Struct, frozen=True):
    """One line of the ledger. at: ISO 8601; commit: of the code; error: why it failed, "" where it reconciled.

    overtaken: numbers that a displaced worker said behind its heir's greater ones. decisions: of people, each checked to count once.
    """

    at: str
    commit: str
    seed: int
    rounds: list[Round]
    orders: int
    error: str = ""
    evidence: str = ""
    overtaken: int = 0
    decisions: int = 0


class Ledger:
    """A file of campaigns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, campaign: Campaign) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(campaign) + b"\n")

    def read(self) -> list[Campaign]:
        if not self._path.exists():
            return []
        return [msgspec.json.decode(line, type=Campaign) for line in self._path.read_bytes().splitlines()]


def counted(campaigns: Iterable[Campaign]) -> Counter[str]:
    """Rounds of each kind that count."""
    return Counter(done.kind for campaign in campaigns if not campaign.error for done in campaign.rounds)


def plan(seed: int, wanted: int, done: Mapping[str, int], kinds: Iterable[str], seconds: float) -> list[str]:
    """The rounds of the next campaign: the kinds that lack most, in a sequence that the seed gives, of about so many seconds."""
    dice = random.Random(seed)
    left = {kind: wanted - done.get(kind, 0) for kind in kinds}
    chosen: list[str] = []
    while sum(KINDS[kind].seconds for kind in chosen) < seconds:
        open_kinds = [kind for kind, lacking in left.items() if lacking > 0]
        if not open_kinds:
            break
        most = max(left[kind] for kind in open_kinds)
        kind = dice.choice([kind for kind in open_kinds if left[kind] == most])
        left[kind] -= 1
        chosen.append(kind)
    dice.shuffle(chosen)
    return chosen


def table(campaigns: list[Campaign], kinds: Iterable[str]) -> list[tuple[str, ...]]:
    """Rows: fault, rounds, orders, lost, twice, contradictions, longest outage (s); the rounds of failed campaigns are in
    the last three counts and not among the rounds.
    """
    rounds: dict[str, list[tuple[Round, bool]]] = defaultdict(list)
    for campaign in campaigns:
        for done in campaign.rounds:
            rounds[done.kind].append((done, not campaign.error))
    rows = []
    for kind in kinds:
        good = [done for done, counts in rounds[kind] if counts]
        every = [done for done, _ in rounds[kind]]
        rows.append(
            (
                f"{KINDS[kind].zh} · {KINDS[kind].en}",
                str(len(good)),
                str(sum(done.orders for done in good)),
                str(sum(done.lost for done in every)),
                str(sum(done.twice for done in every)),
                str(sum(done.contradictions for done in every)),
                f"{max((done.outage for done in good), default=0.0):.1f}",
            )
        )
    return rows
