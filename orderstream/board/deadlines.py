"""Time: who is told that an order has waited too long, and what is done with it in the end.

Law: each step is taken once an order and a deadline, and recorded where people see it. What is done at the end is a setting, done by
the same road as a person's decision and recorded as the setting's; an order that needs an approver is never released by it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from orderstream.board import audit, cases, decide
from orderstream.board.consume import load, tell
from orderstream.board.decide import Terms, What
from orderstream.board.fold import OPEN, Happened
from orderstream.board.metrics import BoardMetrics
from orderstream.board.store import Db, writing

Ends = Literal["stay", "release", "cancel"]
Step = Literal["reminded", "supervisor", "approver", "ended"]

STEPS: tuple[Step, ...] = ("reminded", "supervisor", "approver", "ended")
"""In this order; `orders.escalated` counts how many have been taken."""

AT_ONCE = 500


class Clock(msgspec.Struct, frozen=True):
    """When each step is due. remind, tell: shares of the time from the last signal to the deadline that have passed.

    The approver, or whoever stands in, is told at the deadline; ends: what is done `grace` ms after it.
    """

    ends: Ends = "stay"
    remind: float = 0.5
    tell: float = 0.8
    grace: int = 600_000

    def step(self, signal_at: int, deadline: int, now: int) -> int:
        """How many of STEPS are due (0 … 4)."""
        if now >= deadline:
            return 4 if now >= deadline + self.grace else 3
        passed = (now - signal_at) / max(1, deadline - signal_at)
        return 2 if passed >= self.tell else 1 if passed >= self.remind else 0


def due(db: Db, clock: Clock, now: int) -> list[dict[str, Any]]:
    """Open orders for which a step is due that has not been taken."""
    found = db.execute(
        "SELECT order_id, signal_at, deadline, escalated, seq, state, level, out, held, verdict, asked FROM board.orders"
        " WHERE state IN ('waiting', 'correction', 'after-sales', 'asking') AND escalated < 4 AND deadline IS NOT NULL"
        " AND (deadline - signal_at) * %(least)s <= %(now)s - signal_at ORDER BY deadline, order_id",
        {"now": now, "least": min(clock.remind, clock.tell, 1.0)},
    )
    return [row for row in found if clock.step(row["signal_at"], row["deadline"], now) > row["escalated"]]


def escalate(db: Db, clock: Clock, terms: Terms, now: int, metrics: BoardMetrics | None = None) -> dict[str, int]:
    """Takes the steps that are due; how many of each. now: ms.

    A step that was slept through is not made up for: only the last one that is due is taken. Who is to be told stands in
    board.escalations, for `orderstream actions` and the pages.
    """
    taken: dict[str, int] = {}
    for row in due(db, clock, now)[:AT_ONCE]:
        with writing(db):
            order = load(db, [row["order_id"]])[row["order_id"]]
            if order.state not in OPEN or order.deadline is None:
                continue
            number = clock.step(order.signal_at, order.deadline, now)
            if number <= order.escalated:
                continue
            step = STEPS[number - 1]
            db.execute("UPDATE board.orders SET escalated = %s WHERE order_id = %s", (number, order.order_id))
            done: str = step
            if step == "ended":
                # of a setting nobody takes the approver's place
                allowed = clock.ends != "release" or (terms.approvers(order) == 0 and order.state == "waiting")
                done = f"{clock.ends}" if allowed and order.asked is None else "stay"
            body = {"step": step, "deadline": order.deadline, "done": done}
            tell(db, [Happened(order.order_id, now, "deadline", None, body, f"deadline:{order.deadline}:{step}")])
            db.execute(
                "INSERT INTO board.escalations (order_id, seq, step, done, deadline, at, whom) VALUES (%s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (order.order_id, order.seq, step, done, order.deadline, now, Jsonb(_whom(db, step, now))),
            )
            if step == "ended":
                audit.append(db, now, decide.SYSTEM, "deadline", {"order_id": order.order_id, "done": done, "seq": order.seq})
                if done in ("release", "cancel"):
                    what: What = "release" if done == "release" else "cancel"
                    decide.by_setting(db, {order.order_id: order.seq}, what, now)
            cases.refresh(db, {order.case_id} if order.case_id is not None else ())
        taken[done if step == "ended" else step] = taken.get(done if step == "ended" else step, 0) + 1
    if metrics is not None:
        for step_name, count in taken.items():
            metrics.escalations.labels(step_name).inc(count)
    return taken


def _whom(db: Db, step: Step, now: int) -> dict[str, Any]:
    """The role that is told, and who stands in for whom of them now."""
    role = {"reminded": "reviewer", "supervisor": "supervisor", "approver": "approver", "ended": "supervisor"}[step]
    found = db.execute(
        "SELECT person, deputy FROM board.deputies WHERE %s = ANY(roles) AND since <= %s AND until > %s ORDER BY id",
        (role, now, now),
    )
    return {"role": role, "deputies": {row["person"]: row["deputy"] for row in found}}


def counts(db: Db, now: int, metrics: BoardMetrics) -> None:
    """Shows what waits: for people, and to be said to the stream."""
    oldest = db.execute("SELECT min(made_at) AS at FROM board.outbox WHERE sent_at IS NULL").fetchone()
    made_at = oldest["at"] if oldest is not None else None
    metrics.unsent_age.set(max(0, now - made_at) / 1000 if made_at is not None else 0)
    for level in ("low", "medium", "high", "none"):
        metrics.waiting.labels(level).set(0)
    for row in db.execute("SELECT level, count(*) AS n FROM board.orders WHERE state = 'waiting' GROUP BY level"):
        metrics.waiting.labels(row["level"]).set(row["n"])
    late = db.execute("SELECT count(*) AS n FROM board.orders WHERE state = 'waiting' AND deadline < %s", (now,)).fetchone()
    metrics.overdue.set(late["n"] if late is not None else 0)
