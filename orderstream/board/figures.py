"""Figures: how well the line and its people do, counted from what happened.

Law: every number is counted from rows, per shop's day or campaign, and what cannot be known yet is None and never 0. What each one
means stands beside its query. A share's numerator and denominator are given with it, so that a page can say of how many.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from orderstream import times
from orderstream.board.store import Db


class Share(msgspec.Struct, frozen=True):
    """`of` that could have been, `n` that were."""

    n: int
    of: int

    @property
    def share(self) -> float | None:
        """0 … 1; None where there was nothing."""
        return self.n / self.of if self.of else None


class Day(msgspec.Struct, frozen=True):
    """What happened to the orders received in a period. from, until: ms; minor units in the shop's own currency.

    recognised: of the orders that turned out wrong (a person stopped them, confirmed fraud, returned, charged back, shipped wrong,
    complained of), those that the line had held before they were out. wrong_shipments: of those shipped. first_contact: of the orders
    whose customer was asked, those settled by the first answer without a complaint or another contact. complaints: of all orders.
    by_hand: of all orders, those that a person decided. needless: of the orders that people released from hold, those that the
    customer then cancelled: sales missed through a lock that proved needless, lost_total what they came to. decide_ms: median and
    ninth decile from signal to decision. held_total: what waits now of this period's orders.
    """

    day: str
    since: int
    until: int
    orders: int
    total: int
    recognised: Share
    wrong_shipments: Share
    first_contact: Share
    complaints: Share
    by_hand: Share
    needless: Share
    lost_total: int
    held: int
    held_total: int
    decide_ms: int | None
    decide_ms_p90: int | None


class Precision(msgspec.Struct, frozen=True):
    """Of the orders in which a rule fired and whose truth is known, those where it was right."""

    rule: str
    fired: int
    right: int
    wrong: int

    @property
    def precision(self) -> float | None:
        """0 … 1; None where nothing is known yet."""
        known = self.right + self.wrong
        return self.right / known if known else None


# an order turned out wrong, or right, by what people and the world said of it afterwards
_TRUTH = """
truth AS (
    SELECT o.order_id,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' IN
            ('confirmed-fraud', 'chargeback', 'returned', 'wrong-shipment', 'complaint')) AS bad_later,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' = 'wrong-shipment') AS wrong_shipment,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' = 'complaint') AS complaint,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' IN ('customer-single', 'customer-address')) AS customer_corrects,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' = 'false-alarm') AS false_alarm,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' LIKE 'customer-%%') AS answered,
        bool_or(e.kind = 'outcome' AND e.body->>'outcome' = 'contact') AS contact,
        bool_or(e.kind = 'verdict' AND e.body->>'verdict' IN ('review', 'frozen')) AS was_held
    FROM mine o LEFT JOIN board.events e USING (order_id) GROUP BY o.order_id
), decided AS (
    SELECT DISTINCT ON (d.order_id) d.order_id, d.decision, d.reason, d.by, d.at - d.signal_at AS took
    FROM board.decisions d JOIN mine USING (order_id) WHERE d.state = 'standing' ORDER BY d.order_id, d.at DESC
), asked AS (
    SELECT DISTINCT d.order_id FROM board.decisions d JOIN mine USING (order_id) WHERE d.decision = 'confirm' AND d.state <> 'undone'
    UNION SELECT DISTINCT e.order_id FROM board.events e JOIN mine USING (order_id)
    WHERE e.kind = 'action' AND e.body->>'action' = 'confirm'
), told AS (
    SELECT m.*, t.bad_later, t.wrong_shipment, t.complaint, t.customer_corrects, t.false_alarm, t.answered, t.contact, t.was_held,
        d.decision, d.by AS decided_by, d.took, a.order_id IS NOT NULL AS was_asked,
        coalesce(t.bad_later, false) OR d.decision IN ('cancel', 'correction') OR coalesce(t.customer_corrects, false) AS bad
    FROM mine m LEFT JOIN truth t USING (order_id) LEFT JOIN decided d USING (order_id) LEFT JOIN asked a USING (order_id)
)
"""

_MINE = """
WITH mine AS (
    SELECT order_id, currency, total, state, verdict, fired, shipped_at, out, received_at, {bucket} AS bucket
    FROM board.orders WHERE received_at >= %(since)s AND received_at < %(until)s AND seq > 0
    AND (%(all)s OR channel || ':' || shop = ANY(%(may)s))
),
"""

_DAY = """
SELECT bucket, count(*) AS orders,
    coalesce(sum(total) FILTER (WHERE currency = %(currency)s), 0)::bigint AS total,
    count(*) FILTER (WHERE bad) AS bad, count(*) FILTER (WHERE bad AND was_held) AS caught,
    count(*) FILTER (WHERE shipped_at IS NOT NULL) AS shipped,
    count(*) FILTER (WHERE shipped_at IS NOT NULL AND wrong_shipment) AS wrong_shipments,
    count(*) FILTER (WHERE was_asked) AS asked,
    count(*) FILTER (WHERE was_asked AND answered AND NOT coalesce(complaint, false) AND NOT coalesce(contact, false)) AS settled,
    count(*) FILTER (WHERE complaint) AS complaints,
    count(*) FILTER (WHERE decided_by IS NOT NULL AND decided_by <> 'orderstream') AS by_hand,
    count(*) FILTER (WHERE was_held AND decision = 'release') AS released,
    count(*) FILTER (WHERE was_held AND decision = 'release' AND verdict = 'withdrawn') AS needless,
    coalesce(sum(total) FILTER (WHERE was_held AND decision = 'release' AND verdict = 'withdrawn' AND currency = %(currency)s), 0)::bigint
        AS lost_total,
    count(*) FILTER (WHERE state = 'waiting') AS held,
    coalesce(sum(total) FILTER (WHERE state = 'waiting' AND currency = %(currency)s), 0)::bigint AS held_total,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY took) FILTER (WHERE took IS NOT NULL) AS p50,
    percentile_disc(0.9) WITHIN GROUP (ORDER BY took) FILTER (WHERE took IS NOT NULL) AS p90
FROM told GROUP BY bucket
"""

_RULES = """
SELECT rule, count(*) AS fired,
    count(*) FILTER (WHERE bad) AS is_right,
    count(*) FILTER (WHERE NOT bad AND (decision = 'release' OR false_alarm)) AS is_wrong
FROM told CROSS JOIN unnest(fired) AS rule GROUP BY rule ORDER BY fired DESC, rule
"""


def days(db: Db, zone: str, currency: str, now: int, count: int = 30, may: Sequence[str] = ()) -> list[Day]:
    """The last so many days, by the shop's own midnight, the oldest first. zone: IANA name; now: ms; may: shops, () for all."""
    begins = [times.day_start(now, zone)]
    while len(begins) < count:
        begins.append(times.day_start(begins[-1] - 1, zone))
    begins.reverse()
    periods = [
        (datetime.fromtimestamp(b / 1000, ZoneInfo(zone)).date().isoformat(), b, e)
        for b, e in zip(begins, [*begins[1:], now + 1], strict=True)
    ]
    return campaigns(db, currency, periods, may)


def campaigns(db: Db, currency: str, periods: Sequence[tuple[str, int, int]], may: Sequence[str] = ()) -> list[Day]:
    """The same of named periods that do not overlap: (name, since, until) in ms, until excluded."""
    if not periods:
        return []
    ordered = sorted(periods, key=lambda p: p[1])
    query = _MINE.format(bucket="width_bucket(received_at, %(begins)s::bigint[])") + _TRUTH + _DAY
    found = db.execute(
        query,
        {
            "since": ordered[0][1], "until": max(p[2] for p in ordered), "currency": currency, "all": not may, "may": list(may),
            "begins": [p[1] for p in ordered],
        },
    )  # fmt: skip
    by_bucket = {row["bucket"]: row for row in found}
    return [_day(name, since, until, by_bucket.get(number)) for number, (name, since, until) in enumerate(ordered, 1)]


def _day(name: str, since: int, until: int, row: dict[str, Any] | None) -> Day:
    r: dict[str, Any] = row or {}

    def n(key: str) -> int:
        return int(r.get(key) or 0)

    return Day(
        name, since, until, n("orders"), n("total"),
        Share(n("caught"), n("bad")), Share(n("wrong_shipments"), n("shipped")), Share(n("settled"), n("asked")),
        Share(n("complaints"), n("orders")), Share(n("by_hand"), n("orders")), Share(n("needless"), n("released")),
        n("lost_total"), n("held"), n("held_total"), r.get("p50"), r.get("p90"),
    )  # fmt: skip


def precision(db: Db, since: int, until: int, may: Sequence[str] = ()) -> list[Precision]:
    """How often each rule was right, over orders received from `since` to `until` (ms, excluded).

    Right: the order turned out wrong. Wrong: a person let it go or called it a false alarm, and nothing bad was heard of it since.
    """
    found = db.execute(
        _MINE.format(bucket="1") + _TRUTH + _RULES,
        {"since": since, "until": until, "all": not may, "may": list(may)},
    )
    return [Precision(row["rule"], row["fired"], row["is_right"], row["is_wrong"]) for row in found]


SHARES = ("recognised", "wrong_shipments", "first_contact", "complaints", "by_hand", "needless")
PLAIN = ("orders", "total", "lost_total", "held", "held_total", "decide_ms", "decide_ms_p90")


def days_csv(found: Iterable[Day]) -> str:
    """Days or campaigns as CSV: of a share how many of how many, amounts in minor units, times in ms; empty: not known."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n")
    write.writerow(["day", *PLAIN, *(f"{name}{end}" for name in SHARES for end in ("", "_of"))])
    for day in found:
        shares = [value for name in SHARES for value in (getattr(day, name).n, getattr(day, name).of)]
        write.writerow([day.day, *("" if getattr(day, n) is None else getattr(day, n) for n in PLAIN), *shares])
    return out.getvalue()


def rules_csv(found: Iterable[Precision]) -> str:
    """Precision of rules as CSV."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n")
    write.writerow(["rule", "fired", "right", "wrong", "precision"])
    for one in found:
        write.writerow([one.rule, one.fired, one.right, one.wrong, "" if one.precision is None else f"{one.precision:.4f}"])
    return out.getvalue()
