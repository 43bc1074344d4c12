"""What a record of a public topic makes of what the board knows of an order.

Law: a pure function of what was known and the record. Topics have no order between them, so each part of an order says by which
verdict_seq it is known, and an older record changes nothing. A repeat changes nothing. The machine never takes back what a person
decided: it can only make an order wait again that nobody has finished with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from orderstream.identity import OPEN_KINDS
from orderstream.rules.model import RANK

OPEN = frozenset(("waiting", "correction", "after-sales", "asking"))
"""States of an order that nobody has finished with."""

PLACES = {"orders.released": "released", "orders.review": "review", "orders.frozen": "frozen"}
"""The public topics that an order stands on."""

DECIDES = {
    "released": "decided",
    "cancelled": "decided",
    "confirmed-fraud": "decided",
    "correction": "correction",
    "after-sales": "after-sales",
}
"""Outcome -> the state that it brings an order to."""

ASIDE = frozenset(("correction", "after-sales"))
"""Of these, what also calls back what has been released."""

STOPS = frozenset(("customer-single", "customer-address"))
"""Answers of a customer by which the stream keeps an order back, whoever had let it go."""


class Known(msgspec.Struct):
    """What the board knows of an order, but for its long parts; as the columns of board.orders, see there."""

    order_id: str
    channel: str
    shop: str
    verdict: str = ""
    level: str = "none"
    score: int = 0
    pack: str = ""
    seq: int = 0
    changed_seq: int = 0
    out: str = ""
    out_seq: int = 0
    out_by: str | None = None
    document_seq: int = 0
    held: bool = False
    recalled: bool = False
    currency: str = ""
    total: int = 0
    status: str = ""
    fired: list[str] = []
    words: str = ""
    buyer: str | None = None
    created_at: int = 0
    received_at: int = 0
    decided_at: int = 0
    signal_at: int = 0
    ship_by: int | None = None
    deadline: int | None = None
    escalated: int = 0
    case_id: str | None = None
    state: str = "closed"
    asked: UUID | None = None
    decision: UUID | None = None
    answer: str | None = None
    shipped_at: int | None = None


LONG = ("document", "signals", "not_available", "rules", "tags", "combinations", "units", "merge_with")
"""The long parts of an order, written when a record has them and never read to be written."""


class Happened(msgspec.Struct):
    """A line of an order's time line; same: what tells a repeat from a new one."""

    order_id: str
    at: int
    kind: str
    by: str | None
    body: dict[str, Any]
    same: str


class Turn(msgspec.Struct):
    """What one record did. long: parts to be written; edges: the orders that its evidence names, None: as they were."""

    events: list[Happened] = []
    long: dict[str, Any] = {}
    edges: frozenset[str] | None = None
    applied: str | None = None
    """The outcome that the stream says it applied."""
    overtaken: list[str] = []
    """Outcomes that the stream did not apply: what their person had not seen came first, or the parcel had left."""


def fresh(order_id: str) -> Known:
    """An order of which nothing is known yet."""
    channel, shop, _ = order_id.split(":", 2)
    return Known(order_id, channel, shop)


def on_verdict(
    known: Known,
    record: Mapping[str, Any],
    limits: Mapping[str, int | None],
    ours: Mapping[str, str],
    decided: Mapping[UUID, int],
) -> Turn:
    """A record of orders.verdicts. limits: level -> how long (ms) a person may take, by the pack that judged it.

    ours: of the outcomes that it names, the state of the board's decision, where there is one. decided: when the board's decisions that
    stand, or that these records name, took effect (ms), by id.
    """
    seq = record["verdict_seq"]
    if seq <= known.seq or record["verdict"] == "rejected":
        return Turn()
    signals = sorted(record["signals"], key=lambda s: -RANK[s["level"]])
    fired = [signal["rule"] for signal in signals]
    timings = record["timings"]
    at = timings["decided_at"]
    news = sorted(set(fired) - set(known.fired))
    first = known.seq == 0
    changed = first or bool(news) or RANK[record["level"]] > RANK[known.level]
    changed = changed or (record["status"], record["total"], record["currency"]) != (known.status, known.total, known.currency)
    gone = record["verdict"] == "withdrawn"
    known.verdict, known.pack, known.seq, known.held = record["verdict"], record["pack"] or "", seq, record["held"]
    known.status, known.currency, known.total = record["status"], record["currency"], record["total"]
    if not gone:
        # of an order that is withdrawn the machine says no more why it was held: the board keeps it
        known.level, known.score, known.fired = record["level"], record["score"], fired
    known.created_at, known.received_at, known.decided_at = timings["created_at"], timings["received_at"], at
    if first or news:
        known.signal_at = at
    if changed:
        known.changed_seq = seq
    said = record.get("decision")
    if "out" in record and seq >= known.out_seq:
        known.out, known.out_seq, known.out_by = record["out"] or "", seq, None
        if known.out == "released":
            known.out_by = "machine" if said is None or said["outcome"] == "undone" else said["by"] or "person"
            known.recalled = False
    turn = Turn(edges=None if gone else named(signals, known.order_id))
    turn.events.append(
        Happened(
            known.order_id,
            at,
            "verdict",
            None,
            {"seq": seq, "verdict": known.verdict, "level": known.level, "rules": fired, "new": [] if first else news},
            f"verdict:{seq}",
        )
    )
    if not gone:
        turn.long = {"signals": signals, **{name: record[name] for name in ("not_available", "rules", "tags", "combinations")}}
    if said is not None and said["outcome"] in DECIDES and ours.get(said["id"], "standing") == "standing":
        turn.applied = said["id"]
        name = outcome_uuid(said["id"])
        if known.decision is None or decided.get(known.decision, 0) <= said["at"]:
            # the last word of all that were said, in whichever sequence they were read
            if (known.decision != name or DECIDES[said["outcome"]] == "decided") and known.state in (*OPEN, "decided"):
                known.state = DECIDES[said["outcome"]]
            known.decision = name
    if said is not None and said["undoes"] and known.decision == outcome_uuid(said["undoes"]):
        known.decision = None
    if (
        said is not None
        and said["outcome"] in STOPS
        and known.decision is not None
        and decided.get(known.decision, 0) <= said["at"]
    ):
        # the customer has answered after somebody had decided, and that stands above it; of one millisecond the stream knows the last
        known.decision = None
    for one in record.get("not_applied") or ():
        if ours.get(one["id"]) == "standing":
            turn.overtaken.append(one["id"])
            body = {"id": one["id"], "why": one["why"], "rules": one["rules"]}
            turn.events.append(Happened(known.order_id, at, "not-applied", one["by"], body, f"not-applied:{one['id']}"))
            if known.decision == outcome_uuid(one["id"]):
                known.decision = None
    if changed and not first and known.state in OPEN - {"waiting"} and needs_person(known):
        known.state = "waiting"  # whoever put it aside had not seen this
    settle(known)
    bound(known, limits)
    return turn


def on_place(known: Known, place: str, record: Mapping[str, Any], at: int) -> Turn:
    """A record of orders.released, .review or .frozen. at: ms, when the broker had it."""
    seq = record["verdict_seq"]
    event = Happened(known.order_id, at, place, record["by"], {"seq": seq}, f"{place}:{seq}")
    if seq >= known.out_seq:
        known.out, known.out_seq = place, seq
        known.out_by = record["by"] if place == "released" else None
        if place == "released":
            known.recalled = False
    if seq < known.document_seq:
        return Turn([event])
    # a later verdict may have been read before it that brought no record of its own: the order is in none but this one
    order = record["order"]
    known.document_seq = seq
    known.words = words(order)
    known.ship_by = order.get("ship_by")
    buyer = (order.get("buyer") or {}).get("id")
    known.buyer = f"{known.channel}:{buyer}" if buyer else None
    settle(known)
    if known.ship_by is not None and (known.deadline is None or known.ship_by < known.deadline):
        known.deadline, known.escalated = known.ship_by, 0
    long = {"document": order, "units": record["units"], "merge_with": record.get("merge_with", [])}
    return Turn([event], long)


def on_recall(known: Known, record: Mapping[str, Any], at: int) -> Turn:
    """A record of orders.recalled. at: ms, when the broker had it."""
    seq = record["verdict_seq"]
    event = Happened(known.order_id, at, "recalled", None, {"seq": seq, "cause": record["cause"]}, f"recalled:{seq}")
    if known.out == "released" and known.out_seq > seq:
        return Turn([event])  # it has been released anew since
    known.recalled = True
    if known.out_seq < seq:
        stands = record["verdict"]
        known.out, known.out_seq, known.out_by = "" if stands == "withdrawn" else stands, seq, None
    settle(known)
    return Turn([event])


def on_outcome(known: Known, outcome: Mapping[str, Any], at: int) -> Turn:
    """A record of orders.outcomes that the board did not say itself. at: ms."""
    said = outcome["outcome"]
    body = {key: outcome[key] for key in ("outcome", "reason", "id", "undoes", "seq") if outcome.get(key) is not None}
    event = Happened(known.order_id, at, "outcome", outcome.get("by"), body, f"outcome:{outcome.get('id') or f'{at}:{said}'}")
    if said == "shipped":
        known.shipped_at = at if known.shipped_at is None else min(known.shipped_at, at)
        if known.state in OPEN:
            known.state = "closed"
    elif said.startswith("customer-"):
        known.answer = said
        if known.state == "asking":
            known.state = "waiting"
    elif said in DECIDES and (known.state in OPEN or known.seq == 0 or (said in ASIDE and known.out == "released")):
        known.state = DECIDES[said]  # what was said elsewhere may be read before the verdict that it was said of
    elif said == "undone" and known.state in ("decided", "correction", "after-sales"):
        if known.decision not in (None, outcome_uuid(str(outcome["undoes"]))):
            return Turn([event])  # another decision stands
        known.decision = None
        known.state = "waiting" if needs_person(known) else "closed"
    return Turn([event])


def on_action(known: Known, action: Mapping[str, Any], at: int) -> Turn:
    """A record of orders.actions: what the stream asked others to do."""
    body = {key: action[key] for key in ("id", "action", "rule", "level", "until", "params")}
    return Turn([Happened(known.order_id, at, "action", None, body, f"action:{action['id']}")])


def outcome_uuid(name: str) -> UUID:
    """The decision's id of an outcome's: itself where it is one, else one made of it."""
    try:
        return UUID(name)
    except ValueError:
        return uuid5(NAMESPACE_URL, name)


def needs_person(known: Known) -> bool:
    """Whether it is left to people: the machine says review or frozen, a freeze was shown that nobody lifted, or it stands there
    by what a customer answered.
    """
    kept_back = known.held or known.verdict in ("review", "frozen") or known.out in ("review", "frozen")
    return known.seq > 0 and known.verdict not in ("withdrawn", "pending") and kept_back


def settle(known: Known) -> None:
    """The state that follows where no person has said otherwise."""
    by_person = known.decision is not None and known.out == "released" and known.out_by not in (None, "machine")
    if known.verdict in ("withdrawn", "pending"):
        known.state = "closed"
    elif known.state in ("decided", "correction", "after-sales", "asking"):
        if known.state == "decided" and known.decision is None and needs_person(known) and known.shipped_at is None:
            known.state = "waiting"  # what was decided has been taken back, or was not applied
        elif known.state != "decided" and known.out == "released" and known.out_by == "machine" and not needs_person(known):
            known.state = "closed"  # corrected: the machine has let it go
    elif by_person:
        known.state = "decided"
    elif needs_person(known):
        known.state = "waiting"
    else:
        known.state = "closed"


def bound(known: Known, limits: Mapping[str, int | None]) -> None:
    """Until when a person must have decided: the channel's ship-by, or what the pack allows from its receipt, whichever is first."""
    allowed = limits.get(known.level)
    deadline = earliest(known.ship_by, None if allowed is None else known.received_at + allowed)
    if deadline != known.deadline:
        known.deadline, known.escalated = deadline, 0


def earliest(*times: int | None) -> int | None:
    """The earliest of those that are given."""
    return min((time for time in times if time is not None), default=None)


def named(signals: Iterable[Mapping[str, Any]], order_id: str) -> frozenset[str]:
    """The orders that belong to one incident with this one, by its evidence. An article that many want makes no incident."""
    found: set[str] = set()
    for signal in signals:
        evidence = signal["evidence"] or {}
        if evidence.get("by") not in OPEN_KINDS:
            found.update(evidence.get("orders") or ())
    return frozenset(found - {order_id})


def words(order: Mapping[str, Any]) -> str:
    """What a search finds an order by, in small letters: nothing of whom it is for."""
    found = [order["order_id"]]
    for line in order.get("lines", ()):
        found += [line.get("code") or "", line.get("sku") or "", line.get("title") or "", *(line.get("spec") or {}).values()]
    return " ".join(dict.fromkeys(word for word in found if word)).lower()[:2000]


def unmapped(order: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    """(line, code, title) of the lines that name no article of ours."""
    return [(line["id"], line.get("code") or "", line.get("title")) for line in order.get("lines", ()) if not line.get("sku")]
