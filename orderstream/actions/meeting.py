"""The record of a high-risk case's meeting: what is known, who decided, and fields for what people find.

One case has one record, however many of its orders call for it. What is known is written anew whenever somebody looks, until the
record is closed; then it stays as it was. Nothing personal is in it: order ids, rules, amounts, people of the shop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from orderstream import times
from orderstream.actions.known import Known, orders_of
from orderstream.actions.plan import key
from orderstream.actions.receivers import Language
from orderstream.actions.texts import Words, of
from orderstream.board.store import Db
from orderstream.money import major

FIELDS: dict[str, tuple[str, str]] = {
    "present": ("参加人", "Present"),
    "findings": ("查明的情况", "What was found"),
    "decision": ("处理决定", "What was decided"),
    "measures": ("改进措施（规则、流程、名单）", "Measures (rules, process, lists)"),
    "follow_up": ("跟进人与日期", "Who follows up, until when"),
}
"""What people fill in."""
MOST = 4_000
"""Characters of a field."""


class Decided(msgspec.Struct, frozen=True):
    """A decision on one of the case's orders. at: ms."""

    order_id: str
    by: str
    at: int
    decision: str
    reason: str
    state: str


class Seen(msgspec.Struct, frozen=True):
    """A rule that fired for an order of the case, in words."""

    rule: str
    title: str
    orders: int
    sentence: str


class Listed(msgspec.Struct, frozen=True):
    order_id: str
    level: str
    state: str
    total: str
    created_at: int


class Facts(msgspec.Struct, frozen=True):
    """What is known of a case. at: ms, when it was written down; sums: amounts by currency."""

    case_id: str
    at: int
    orders: list[Listed]
    sums: dict[str, str]
    rules: list[Seen]
    decisions: list[Decided]


class Record(msgspec.Struct, frozen=True):
    """A meeting's record as it stands."""

    id: str
    case_id: str
    order_id: str
    made_at: int
    facts: Facts
    filled: dict[str, str]
    closed_at: int | None
    closed_by: str | None


def called(db: Db, order: Known, words: Words, now: int) -> str:
    """The id of the record of an order's case, which is made where it has none."""
    case = order.case_id or order.order_id
    found = db.execute(
        "SELECT m.id FROM board.meetings m LEFT JOIN board.orders o ON o.order_id = m.order_id"
        " WHERE m.closed_at IS NULL AND (m.case_id = %s OR o.case_id = %s) ORDER BY m.made_at LIMIT 1",
        (case, case),
    ).fetchone()
    if found is not None:
        return str(found["id"])
    number = key("meeting", case, order.order_id)
    facts = gather(db, case, [order], words, now)
    db.execute(
        "INSERT INTO board.meetings (id, case_id, order_id, made_at, changed_at, facts) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (number, case, order.order_id, now, now, Jsonb(msgspec.to_builtins(facts))),
    )
    row = db.execute("SELECT id FROM board.meetings WHERE case_id = %s", (case,)).fetchone()
    return str(row["id"]) if row is not None else number


def gather(db: Db, case: str, alone: Sequence[Known], words: Words, now: int) -> Facts:
    """What is known now. alone: the orders where the board knows no such case."""
    orders = orders_of(db, case) or [*alone]
    sums: dict[str, int] = {}
    rules: dict[str, list[tuple[Known, Mapping[str, Any]]]] = {}
    for order in orders:
        sums[order.currency] = sums.get(order.currency, 0) + order.total
        for signal in order.signals:
            rules.setdefault(signal["rule"], []).append((order, signal["evidence"]))
    decided = db.execute(
        "SELECT order_id, by, at, decision, reason, state FROM board.decisions WHERE order_id = ANY(%s) ORDER BY at, order_id",
        ([order.order_id for order in orders],),
    )
    created = {order.order_id: (order.document or {}).get("created_at") or 0 for order in orders}
    return Facts(
        case,
        now,
        [Listed(o.order_id, o.level, o.state, f"{major(o.total, o.currency)} {o.currency}", created[o.order_id]) for o in orders],
        {currency: major(total, currency) for currency, total in sorted(sums.items())},
        [
            Seen(rule, words.title(rule, by[0][0].pack), len(by), words.sentence(rule, by[0][1], by[0][0].pack))
            for rule, by in sorted(rules.items())
        ],
        [Decided(**row) for row in decided],
    )


def record(db: Db, number: str, words: Words | None, now: int) -> Record | None:
    """A record; with words, written anew where it is not closed."""
    row = db.execute("SELECT * FROM board.meetings WHERE id = %s", (number,)).fetchone()
    if row is None:
        return None
    facts = msgspec.convert(row["facts"], Facts)
    if words is not None and row["closed_at"] is None:
        moved = db.execute("SELECT case_id FROM board.orders WHERE order_id = %s", (row["order_id"],)).fetchone()
        case = (moved["case_id"] if moved else None) or row["case_id"]
        newer = gather(db, case, (), words, now)
        if newer.orders:
            facts = newer
            db.execute("UPDATE board.meetings SET facts = %s WHERE id = %s", (Jsonb(msgspec.to_builtins(facts)), number))
    return Record(
        row["id"], row["case_id"], row["order_id"], row["made_at"], facts, row["filled"], row["closed_at"], row["closed_by"]
    )


def fill(db: Db, number: str, said: Mapping[str, str], person: str, now: int, *, close: bool) -> bool:
    """Writes the fields down; False where the record is closed."""
    fields = {name: said.get(name, "").strip()[:MOST] for name in FIELDS}
    return bool(
        db.execute(
            "UPDATE board.meetings SET filled = %s, changed_at = %s, closed_at = %s, closed_by = %s"
            " WHERE id = %s AND closed_at IS NULL",
            (Jsonb(fields), now, now if close else None, person if close else None, number),
        ).rowcount
    )


def markdown(found: Record, language: Language) -> str:
    """The record as a document."""

    def say(zh: str, en: str) -> str:
        return of(language, (zh, en))

    facts = found.facts
    sums = say("，", ", ").join(f"{amount} {currency}" for currency, amount in facts.sums.items())
    out = [
        say("# 风控会议记录", "# Record of a risk meeting"),
        "",
        say(f"- 案件 {facts.case_id}", f"- Case {facts.case_id}"),
        say(f"- 召集时间 {times.text(found.made_at)}", f"- Called {times.text(found.made_at)}"),
        say(f"- 订单 {len(facts.orders)} 单，合计 {sums}", f"- {len(facts.orders)} orders, {sums} in all"),
        "",
        say("## 信号", "## Signals"),
        "",
        *(f"- **{_plain(seen.title)}** ({seen.orders}) {_plain(seen.sentence)}" for seen in facts.rules),
        "",
        say("## 订单", "## Orders"),
        "",
        say("| 订单 | 级别 | 状态 | 金额 |", "| order | level | state | total |"),
        "|---|---|---|---|",
        *(f"| {one.order_id} | {one.level} | {one.state} | {one.total} |" for one in facts.orders),
        "",
        say("## 已作的决定", "## Decisions so far"),
        "",
        *(
            f"- {times.text(one.at)} {one.by}: {one.decision} ({one.reason}) {one.order_id} [{one.state}]"
            for one in facts.decisions
        ),
        *([] if facts.decisions else [say("（还没有）", "(none yet)")]),
    ]
    for name, both in FIELDS.items():
        out += ["", f"## {of(language, both)}", "", found.filled.get(name) or "……"]
    if found.closed_at is not None:
        closed = times.text(found.closed_at)
        out += ["", say(f"由 {found.closed_by} 于 {closed} 定稿", f"Closed by {found.closed_by}, {closed}")]
    return "\n".join(out) + "\n"


def _plain(text: str) -> str:
    """What a rule or a channel wrote, without what Markdown would make something of."""
    return text.replace("|", "/").replace("\n", " ").replace("<", "&lt;")
