"""The board's PostgreSQL: how to come in, its schema, and what its pages ask.

Law: a query here changes nothing, and its cost does not grow with what is done and over: it reads what waits by an index.
What changes something is in `consume`, `decide`, `deadlines` and `outbox`. Whoever may see only some shops names them in `Wanted`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from orderstream.errors import BadSettings, NoDatabase
from orderstream.settings import PREFIX, Settings

Db: TypeAlias = "psycopg.Connection[DictRow]"
Pool: TypeAlias = "ConnectionPool[psycopg.Connection[DictRow]]"

State = Literal["waiting", "decided", "correction", "after-sales", "asking", "closed"]
Sort = Literal["urgent", "amount", "newest", "oldest"]

_MIGRATE, _WRITE = 7_011, 7_013
"""Advisory locks: the schema is made once, and orders and cases have one writer at a time."""


def now() -> int:
    """ms UTC."""
    return time.time_ns() // 1_000_000


# -- coming in ----------------------------------------------------------------------------------------------------------


def url(settings: Settings) -> str:
    """PostgreSQL's URL. Raises BadSettings where none is set."""
    if settings.database is None:
        raise BadSettings(
            f"看板需要 PostgreSQL，请设置 {PREFIX}DATABASE · the board needs PostgreSQL: set {PREFIX}DATABASE=postgresql://…"
        )
    return settings.database.get_secret_value()


@contextmanager
def answering() -> Iterator[None]:
    """Whatever says that PostgreSQL is not there becomes NoDatabase."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout) as error:
        said = (str(error).strip().splitlines() or ["?"])[-1]
        raise NoDatabase(
            f"PostgreSQL 无响应，请检查 {PREFIX}DATABASE 与服务（{said}）"
            f" · no PostgreSQL answers, check {PREFIX}DATABASE and the service: {said}"
        ) from None


def connect(place: str) -> Db:
    """One connection, autocommit: `with db.transaction():` where several statements belong together. Raises NoDatabase."""
    with answering():
        return psycopg.connect(place, autocommit=True, connect_timeout=10, row_factory=dict_row)


def pool(place: str, size: int = 8) -> Pool:
    """Connections for pages: taken by `with pool.connection() as db:` inside `answering()`. Opened late, checked when taken."""
    return ConnectionPool(
        place,
        min_size=1,
        max_size=size,
        timeout=3,
        open=True,
        check=ConnectionPool.check_connection,
        kwargs={"autocommit": True, "row_factory": dict_row, "connect_timeout": 3},
    )


@contextmanager
def writing(db: Db) -> Iterator[None]:
    """A transaction that changes orders or cases: one at a time, so none waits for another crosswise; all of it or nothing.

    A batch from Kafka takes some 50 ms, a decision a few.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITE,))
        yield


def migrate(place: str) -> list[str]:
    """Brings the schema to what this version needs; the names of the migrations that were run. Raises NoDatabase."""
    done: list[str] = []
    with answering(), connect(place) as db, db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATE,))
        db.execute("CREATE SCHEMA IF NOT EXISTS board")
        db.execute("CREATE TABLE IF NOT EXISTS board.migrations (name text PRIMARY KEY, at bigint NOT NULL)")
        there = {row["name"] for row in db.execute("SELECT name FROM board.migrations")}
        for file in sorted((Path(__file__).parent / "migrations").glob("[0-9]*.sql")):
            if file.stem not in there:
                db.execute(file.read_bytes())
                db.execute("INSERT INTO board.migrations VALUES (%s, %s)", (file.stem, now()))
                done.append(file.stem)
    return done


# -- the wall -----------------------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True):
    """Which waiting orders are meant; what is empty or None asks for nothing.

    shops: `channel:shop`; may: those that this person may see, () for all. least, most: minor units of a case's total.
    older: ms that its first order has waited at least. text: words of a search: number, code, article.
    """

    channels: tuple[str, ...] = ()
    shops: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    older: int | None = None
    text: str = ""
    asked: bool = False
    sort: Sort = "urgent"


class Card(msgspec.Struct, frozen=True):
    """A case on the wall: what waits of it. title: a rule's id; total in `currency`, or of the greatest one where it is None."""

    case_id: str
    title: str
    level: str
    opened_at: int
    newest_at: int
    orders: int
    waiting: int
    deadline: int | None
    currency: str | None
    total: int
    channels: list[str]
    shops: list[str]
    rules: list[str]
    asked: int


class Wall(NamedTuple):
    """Some cards, and of how many cases and orders they are."""

    cards: list[Card]
    cases: int
    orders: int


_CARD = ", ".join(Card.__struct_fields__)

_SORTS: dict[Sort, str] = {
    "urgent": "deadline NULLS LAST, rank DESC, total DESC, case_id",
    "amount": "total DESC, case_id",
    "newest": "newest_at DESC, case_id",
    "oldest": "opened_at, case_id",
}


def waiting(db: Db, wanted: Wanted, at: int, limit: int = 50, offset: int = 0) -> Wall:
    """The cases with orders that wait, the most urgent first: deadline, level, amount. at: ms, for `older`."""
    where, values = _where(wanted, at)
    counted = db.execute(f"SELECT count(*) AS n, coalesce(sum(waiting), 0) AS orders FROM board.cases WHERE {where}", values)
    row = counted.fetchone()
    assert row is not None
    cards = db.execute(
        f"SELECT {_CARD} FROM board.cases WHERE {where} ORDER BY {_SORTS[wanted.sort]} LIMIT %(limit)s OFFSET %(offset)s",
        {**values, "limit": limit, "offset": offset},
    )
    return Wall([Card(**card) for card in cards], int(row["n"]), int(row["orders"]))


def _where(wanted: Wanted, at: int) -> tuple[str, dict[str, Any]]:
    parts = ["waiting > 0"]
    values: dict[str, Any] = {}
    for column, asked in (("channels", wanted.channels), ("shops", wanted.shops), ("rules", wanted.rules)):
        if asked:
            parts.append(f"{column} && %({column})s")
            values[column] = list(asked)
    if wanted.may:
        parts.append("shops && %(may)s")
        values["may"] = list(wanted.may)
    if wanted.levels:
        parts.append("level = ANY(%(levels)s)")
        values["levels"] = list(wanted.levels)
    for name, sign in (("least", ">="), ("most", "<=")):
        if getattr(wanted, name) is not None:
            parts.append(f"total {sign} %({name})s")
            values[name] = getattr(wanted, name)
    if wanted.older is not None:
        parts.append("opened_at <= %(older)s")
        values["older"] = at - wanted.older
    if wanted.asked:
        parts.append("asked > 0")
    for number, word in enumerate(wanted.text.lower().split()):
        parts.append(f"case_id IN (SELECT case_id FROM board.orders WHERE state = 'waiting' AND words LIKE %(word{number})s)")
        values[f"word{number}"] = "%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    return " AND ".join(parts), values


class Facets(msgspec.Struct, frozen=True):
    """How many orders wait, by what one filters by: (value, orders) each, the most first."""

    channels: list[tuple[str, int]]
    shops: list[tuple[str, int]]
    rules: list[tuple[str, int]]
    levels: list[tuple[str, int]]
    asked: int
    overdue: int


def facets(db: Db, at: int, may: Sequence[str] = ()) -> Facets:
    """What the wall can be filtered by. at: ms, for what is overdue."""
    values = {"all": not may, "may": list(may), "at": at}
    found = db.execute(
        """
        WITH waits AS MATERIALIZED (
            SELECT channel, channel || ':' || shop AS shop, level, fired, asked IS NOT NULL AS asked, deadline < %(at)s AS overdue
            FROM board.orders WHERE state = 'waiting' AND (%(all)s OR channel || ':' || shop = ANY(%(may)s))
        )
        SELECT CASE GROUPING(channel, shop, level) WHEN 3 THEN 'channels' WHEN 5 THEN 'shops' WHEN 6 THEN 'levels' ELSE 'all' END AS what,
            coalesce(channel, shop, level) AS it, count(*) AS n,
            count(*) FILTER (WHERE asked) AS asked, count(*) FILTER (WHERE overdue) AS overdue
        FROM waits GROUP BY GROUPING SETS ((channel), (shop), (level), ())
        UNION ALL SELECT 'rules', rule, count(*), 0, 0 FROM waits CROSS JOIN unnest(fired) AS rule GROUP BY rule
        ORDER BY n DESC, it
        """,
        values,
    ).fetchall()
    total = next(row for row in found if row["what"] == "all")

    def of(what: str) -> list[tuple[str, int]]:
        return [(row["it"], row["n"]) for row in found if row["what"] == what]

    return Facets(of("channels"), of("shops"), of("rules"), of("levels"), total["asked"], total["overdue"])


# -- one case, one order ------------------------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True):
    """An order in a list: without the document, so nothing personal."""

    order_id: str
    channel: str
    shop: str
    verdict: str
    level: str
    score: int
    seq: int
    out: str
    held: bool
    recalled: bool
    currency: str
    total: int
    status: str
    fired: list[str]
    created_at: int
    received_at: int
    signal_at: int
    ship_by: int | None
    deadline: int | None
    escalated: int
    case_id: str | None
    state: str
    asked: UUID | None
    decision: UUID | None
    answer: str | None


_ROW = ", ".join(Row.__struct_fields__)


class Order(Row, frozen=True, kw_only=True):
    """Everything that is known of an order. document: as on orders.review, personal, None where it is forgotten or unknown."""

    changed_seq: int
    pack: str
    out_by: str | None
    document: dict[str, Any] | None
    signals: list[dict[str, Any]]
    not_available: list[str]
    rules: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    combinations: list[str]
    units: list[dict[str, Any]]
    merge_with: list[str]
    decided_at: int
    buyer: str | None
    shipped_at: int | None


_ORDER = ", ".join(Order.__struct_fields__)


class Case(msgspec.Struct, frozen=True):
    """A case: its card, and its orders, those that wait first. truncated: there are more orders than these."""

    card: Card
    orders: list[Row]
    truncated: bool


def case(db: Db, case_id: str, limit: int = 500) -> Case | None:
    """A case by its id, also by one that it had before it grew; None where there is none."""
    for _ in range(20):
        row = db.execute(f"SELECT {_CARD} FROM board.cases WHERE case_id = %s", (case_id,)).fetchone()
        if row is not None:
            found = db.execute(
                f"SELECT {_ROW} FROM board.orders WHERE case_id = %s"
                " ORDER BY state <> 'waiting', deadline NULLS LAST, created_at, order_id LIMIT %s",
                (case_id, limit + 1),
            ).fetchall()
            return Case(Card(**row), [Row(**one) for one in found[:limit]], len(found) > limit)
        led = db.execute("SELECT into_id FROM board.merged WHERE case_id = %s", (case_id,)).fetchone()
        if led is None:
            return None
        case_id = led["into_id"]
    return None


def order(db: Db, order_id: str) -> Order | None:
    """An order with all that is known of it."""
    row = db.execute(f"SELECT {_ORDER} FROM board.orders WHERE order_id = %s", (order_id,)).fetchone()
    return None if row is None else Order(**row)


def rows(db: Db, order_ids: Sequence[str]) -> dict[str, Row]:
    """Several orders by their ids, those that are known: what evidence names."""
    found = db.execute(f"SELECT {_ROW} FROM board.orders WHERE order_id = ANY(%s)", (list(order_ids),))
    return {row["order_id"]: Row(**row) for row in found}


def in_state(db: Db, state: State, may: Sequence[str] = (), limit: int = 50, offset: int = 0) -> list[Row]:
    """Orders in a state other than waiting too (correction, after-sales, asking), the earliest deadline first."""
    found = db.execute(
        f"SELECT {_ROW} FROM board.orders WHERE state = %s AND (%s OR channel || ':' || shop = ANY(%s))"
        " ORDER BY deadline NULLS LAST, created_at, order_id LIMIT %s OFFSET %s",
        (state, not may, list(may), limit, offset),
    )
    return [Row(**row) for row in found]


def history(db: Db, one: Order, limit: int = 20) -> list[Row]:
    """What else this buyer ordered on this channel, the newest first."""
    if one.buyer is None:
        return []
    found = db.execute(
        f"SELECT {_ROW} FROM board.orders WHERE buyer = %s AND order_id <> %s ORDER BY created_at DESC LIMIT %s",
        (one.buyer, one.order_id, limit),
    )
    return [Row(**row) for row in found]


class Event(msgspec.Struct, frozen=True):
    """Something that happened to an order. kind: verdict released review frozen recalled action decision undone approval
    verification outcome deadline unmask remapped … body: what belongs to it.
    """

    id: int
    order_id: str
    at: int
    kind: str
    by: str | None
    body: dict[str, Any]


def timeline(db: Db, order_id: str) -> list[Event]:
    """Everything that happened to an order, the oldest first."""
    found = db.execute(
        "SELECT id, order_id, at, kind, by, body FROM board.events WHERE order_id = %s ORDER BY at, id", (order_id,)
    )
    return [Event(**row) for row in found]


# -- decisions, approvals -----------------------------------------------------------------------------------------------


class Decision(msgspec.Struct, frozen=True):
    """A person's decision on one order. id: a UUID; state: asked standing refused undone overtaken."""

    id: UUID
    bulk: UUID
    order_id: str
    case_id: str | None
    by: str
    at: int
    decision: str
    reason: str
    note: str
    details: dict[str, Any]
    seq: int
    needs: int
    state: str
    effective_at: int | None
    applied_at: int | None
    undone_by: str | None
    undone_at: int | None


_DECISION = ", ".join(Decision.__struct_fields__)


class Asked(NamedTuple):
    """A decision that waits for approvers: the order it is about, and who has said yes."""

    decision: Decision
    order: Row
    yes: list[str]


def decisions(db: Db, order_id: str) -> list[Decision]:
    """What people decided of an order, the oldest first."""
    found = db.execute(f"SELECT {_DECISION} FROM board.decisions WHERE order_id = %s ORDER BY at, id", (order_id,))
    return [Decision(**row) for row in found]


def asked(db: Db, may: Sequence[str] = (), limit: int = 200) -> list[Asked]:
    """The decisions that wait for an approver, the oldest first."""
    found = db.execute(f"SELECT {_DECISION} FROM board.decisions WHERE state = 'asked' ORDER BY at, id LIMIT %s", (limit,))
    waits = [Decision(**row) for row in found]
    about = rows(db, [one.order_id for one in waits])
    said = db.execute(
        "SELECT decision_id, by FROM board.approvals WHERE yes AND decision_id = ANY(%s) ORDER BY at", ([d.id for d in waits],)
    ).fetchall()
    yes = {one.id: [row["by"] for row in said if row["decision_id"] == one.id] for one in waits}
    return [
        Asked(one, about[one.order_id], yes[one.id])
        for one in waits
        if one.order_id in about and (not may or shop_of(about[one.order_id]) in may)
    ]


def shop_of(row: Row) -> str:
    """`channel:shop`, as roles name it."""
    return f"{row.channel}:{row.shop}"


class Verification(msgspec.Struct, frozen=True):
    """A second look at who the buyer is. method: phone, papers, platform, video; result: confirmed, failed, unreachable."""

    id: UUID
    order_id: str
    by: str
    at: int
    method: str
    result: str
    note: str


def verifications(db: Db, order_id: str) -> list[Verification]:
    """An order's second identity checks, the oldest first."""
    found = db.execute(
        "SELECT id, order_id, by, at, method, result, note FROM board.verifications WHERE order_id = %s ORDER BY at", (order_id,)
    )
    return [Verification(**row) for row in found]


# -- rejects, packs, deputies -------------------------------------------------------------------------------------------


class Reject(msgspec.Struct, frozen=True):
    """What could not be one order, without its bytes: `orderstream.rejected.read` has those, by the same id."""

    id: str
    order_id: str
    channel: str
    shop: str
    received_at: int
    code: str
    reason: str
    field: str | None
    pack: str
    replayed_at: int | None


def rejects(
    db: Db, channel: str | None = None, code: str | None = None, limit: int = 50, offset: int = 0, may: Sequence[str] = ()
) -> list[Reject]:
    """The rejects, the newest first. may: shops, () for all."""
    found = db.execute(
        f"SELECT {', '.join(Reject.__struct_fields__)} FROM board.rejects"
        " WHERE (%(channel)s::text IS NULL OR channel = %(channel)s) AND (%(code)s::text IS NULL OR code = %(code)s)"
        " AND (%(all)s OR channel || ':' || shop = ANY(%(may)s)) ORDER BY received_at DESC, id LIMIT %(limit)s OFFSET %(offset)s",
        {"channel": channel, "code": code, "limit": limit, "offset": offset, "all": not may, "may": list(may)},
    )
    return [Reject(**row) for row in found]


def pack(db: Db, version: str | None = None) -> dict[str, Any] | None:
    """A published pack as YAML has it: {"policy": …, "rules": {id: {"title": {zh, en}, "explain": …}}}; None: the newest one."""
    row = db.execute(
        "SELECT body FROM board.packs WHERE %(version)s::text IS NULL OR version = %(version)s ORDER BY read_at DESC LIMIT 1",
        {"version": version},
    ).fetchone()
    return None if row is None else row["body"]


class Deputy(msgspec.Struct, frozen=True):
    """`deputy` stands in for `person`, with these of their roles, from `since` until `until` (ms, excluded). Names are login names."""

    id: int
    person: str
    deputy: str
    roles: list[str]
    since: int
    until: int
    by: str
    at: int


def deputies(db: Db, at: int | None = None) -> list[Deputy]:
    """Who stands in for whom: now and planned; at: in force at this time alone."""
    found = db.execute(
        "SELECT id, person, deputy, roles, since, until, by, at FROM board.deputies"
        " WHERE %(at)s::bigint IS NULL OR (since <= %(at)s AND until > %(at)s) ORDER BY since, id",
        {"at": at},
    )
    return [Deputy(**row) for row in found]
