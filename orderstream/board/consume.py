"""Stream → board: public topics to rows.

Law: a batch's rows and its offset are written in one transaction, so a batch is in whole or not at all, and read again from where the
rows stand. What was taken in before changes nothing. While PostgreSQL is away nothing is read on: it waits, says so, and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from psycopg.types.json import Jsonb

from orderstream import access, outcomes, times
from orderstream.board import cases, fold, retention, store
from orderstream.board.fold import Happened, Known, Turn
from orderstream.board.metrics import BoardMetrics
from orderstream.board.store import Db
from orderstream.errors import NoDatabase, UserError
from orderstream.normalise import Rejection
from orderstream.rejected import reject_id
from orderstream.rules.model import duration
from orderstream.settings import Settings

log = logging.getLogger("orderstream.board.consume")

READS = (
    "rules.packs",
    "orders.verdicts",
    "orders.review",
    "orders.frozen",
    "orders.released",
    "orders.recalled",
    "orders.outcomes",
    "orders.actions",
    "orders.rejected",
    "orders.forgotten",
)

_reject = msgspec.json.Decoder(Rejection).decode

_COLUMNS = tuple(name for name in Known.__struct_fields__ if name != "case_id")


class Record(NamedTuple):
    """A record as it was read. at: ms, when the broker had it; value None: a tombstone."""

    offset: int
    at: int
    key: str
    value: bytes | None


class Limits:
    """How long a person may take, by pack and level: what the pack says, else the installation's own."""

    def __init__(self, otherwise: int | None) -> None:
        self._otherwise = otherwise
        self._packs: dict[str, dict[str, int | None]] = {}

    def learn(self, version: str, body: Mapping[str, Any]) -> None:
        """Takes a published pack's times in."""
        levels = body["policy"].get("levels", {})
        self._packs[version] = {
            level: duration(said["decide_within"]) if said.get("decide_within") else self._otherwise
            for level, said in levels.items()
        }

    def of(self, pack: str) -> Mapping[str, int | None]:
        """Level -> ms, None for ever."""
        return self._packs.get(pack) or dict.fromkeys(("none", "low", "medium", "high"), self._otherwise)

    def load(self, db: Db) -> None:
        """What was read before."""
        for row in db.execute("SELECT version, body FROM board.packs ORDER BY read_at"):
            self.learn(row["version"], row["body"])


def position(db: Db, topic: str, partition: int) -> int:
    """The next offset to read of a topic (without the installation's prefix)."""
    row = db.execute("SELECT next FROM board.offsets WHERE topic = %s AND partition = %s", (topic, partition)).fetchone()
    return 0 if row is None else row["next"]


def take(db: Db, topic: str, partition: int, records: Sequence[Record], limits: Limits, now: int) -> int:
    """Takes records of one partition in, and its offset, in one transaction; how many were new. now: ms.

    Raises UserError for one that is not of its schema: skipping it would be losing an order.
    """
    if not records:
        return 0
    with store.writing(db):
        # a process that was thought dead may have been first
        following = position(db, topic, partition)
        new = [record for record in records if record.offset >= following]
        if new:
            try:
                _apply(db, topic, new, limits, now)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UserError(
                    f"{topic}[{partition}] {new[0].offset}–{new[-1].offset} 中有记录不合格式，看板停在这里，不会跳过"
                    f" · a record there is not of its schema, the board stops before it: {type(error).__name__}: {error}"
                ) from error
            db.execute(
                "INSERT INTO board.offsets VALUES (%s, %s, %s) ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next",
                (topic, partition, new[-1].offset + 1),
            )
    return len(new)


def _apply(db: Db, topic: str, records: Sequence[Record], limits: Limits, now: int) -> None:
    if topic == "rules.packs":
        _packs(db, records, limits, now)
    elif topic == "orders.rejected":
        _rejects(db, records)
    elif topic == "orders.forgotten":
        retention.forget(db, [json.loads(r.value)["order_id"] for r in records if r.value is not None])
    else:
        _orders(db, topic, records, limits, now)


# -- orders ---------------------------------------------------------------------------------------------------------------


def _orders(db: Db, topic: str, records: Sequence[Record], limits: Limits, now: int) -> None:
    ids = sorted({record.key for record in records})
    known = load(db, ids)
    fresh = {one: fold.fresh(one) for one in ids if one not in known and one.count(":") >= 2}
    everything = known | fresh
    gone = [r.key for r in records if r.value is None]
    said = [
        (r, orjson.loads(r.value))
        for r in records
        if r.value is not None and r.key in everything and (topic != "orders.outcomes" or _readable(r.key, r.value))
    ]
    ours = _decisions(db, topic, [value for _, value in said])
    decided = _decided(db, [value for _, value in said], everything.values()) if topic == "orders.verdicts" else {}
    turns: list[tuple[Known, Turn]] = []
    for record, value in said:
        one = everything[record.key]
        turns.append((one, _turn(topic, one, record, value, limits, ours, decided)))
    if topic == "orders.outcomes":
        _outside(db, [value for _, value in said if not _by_us(value, ours)], everything)
    long: dict[str, dict[str, Any]] = {}
    for one, turn in turns:
        long.setdefault(one.order_id, {}).update(turn.long)
    _save(db, fresh.values(), known.values(), long)
    tell(db, [event for _, turn in turns for event in turn.events])
    _went(db, [turn for _, turn in turns], now)
    if topic in fold.PLACES:
        _codes(db, {one.order_id: turn.long["document"] for one, turn in turns if "document" in turn.long})
        retention.forget(db, gone)
    edges = {one.order_id: turn.edges for one, turn in turns if turn.edges is not None}
    alone = [one.order_id for one in everything.values() if one.state == "waiting" and one.case_id is None]
    touched = cases.join(db, edges, alone, now)
    touched |= {one.case_id for one in everything.values() if one.case_id is not None}
    cases.refresh(db, touched)


def _turn(
    topic: str,
    one: Known,
    record: Record,
    value: dict[str, Any],
    limits: Limits,
    ours: Mapping[str, str],
    decided: Mapping[UUID, int],
) -> Turn:
    if topic == "orders.verdicts":
        return fold.on_verdict(one, value, limits.of(value["pack"] or ""), ours, decided)
    if topic in fold.PLACES:
        return fold.on_place(one, fold.PLACES[topic], value, record.at)
    if topic == "orders.recalled":
        return fold.on_recall(one, value, record.at)
    if topic == "orders.actions":
        return fold.on_action(one, value, record.at)
    if _by_us(value, ours):
        return Turn()  # the board said it: it stands in the time line already
    return fold.on_outcome(one, value, times.parse(value["at"]))


def load(db: Db, order_ids: Sequence[str]) -> dict[str, Known]:
    """What is known of these orders, kept from anybody else's hand until the transaction ends."""
    found = db.execute(
        f"SELECT case_id, {', '.join(_COLUMNS)} FROM board.orders WHERE order_id = ANY(%s) ORDER BY order_id FOR UPDATE",
        (sorted(order_ids),),
    )
    return {row["order_id"]: Known(**row) for row in found}


_INSERT = (
    f"INSERT INTO board.orders ({', '.join(_COLUMNS)}, {', '.join(fold.LONG)})"
    f" VALUES ({', '.join(['%s'] * (len(_COLUMNS) + len(fold.LONG)))})"
)
_UPDATE = (
    f"UPDATE board.orders SET {', '.join(f'{name} = %s' for name in _COLUMNS)},"
    f" {', '.join(f'{name} = coalesce(%s, {name})' for name in fold.LONG)} WHERE order_id = %s"
)


def _save(db: Db, fresh: Iterable[Known], known: Iterable[Known], long: Mapping[str, dict[str, Any]]) -> None:
    def row(one: Known, *, new: bool) -> list[Any]:
        parts = long.get(one.order_id, {})
        least: dict[str, Any] = {name: [] for name in fold.LONG if name != "document"} if new else {}
        values = [parts.get(name, least.get(name)) for name in fold.LONG]
        return [
            *(getattr(one, name) for name in _COLUMNS),
            *(None if v is None else Jsonb(v, dumps=orjson.dumps) for v in values),
        ]

    new = list(fresh)
    with db.cursor() as cursor:
        if new:
            cursor.executemany(_INSERT, [row(one, new=True) for one in new])
        cursor.executemany(_UPDATE, [[*row(one, new=False), one.order_id] for one in known])
    if new:
        # others' evidence may have named it before its own record came
        found = db.execute(
            "UPDATE board.orders o SET case_id = m.case_id FROM board.members m"
            " WHERE m.order_id = o.order_id AND o.order_id = ANY(%s) RETURNING o.order_id, o.case_id",
            ([one.order_id for one in new],),
        )
        cases_of = {row["order_id"]: row["case_id"] for row in found}
        for one in new:
            one.case_id = cases_of.get(one.order_id)


def tell(db: Db, events: Iterable[Happened]) -> None:
    """Adds to time lines; what is there already stays as it is."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO board.events (order_id, at, kind, by, body, same) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (order_id, same) DO NOTHING",
            [(e.order_id, e.at, e.kind, e.by, Jsonb(e.body, dumps=orjson.dumps), e.same) for e in events],
        )


# -- outcomes -------------------------------------------------------------------------------------------------------------


def _decisions(db: Db, topic: str, values: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of the outcomes that these records are, name or take back: the state of those that were decided here."""
    names: set[str] = set()
    for one in values:
        if topic == "orders.outcomes":
            names.update(str(one[key]) for key in ("id", "undoes") if one.get(key))
        elif topic == "orders.verdicts":
            names.update(said["id"] for said in (one.get("decision"), *(one.get("not_applied") or ())) if said)
    asked = {fold.outcome_uuid(name): name for name in names}
    found = db.execute("SELECT id, state, audit FROM board.decisions WHERE id = ANY(%s)", (list(asked),)) if asked else ()
    return {asked[row["id"]]: row["state"] for row in found if row["audit"] is not None or topic == "orders.verdicts"}


def _decided(db: Db, verdicts: Sequence[Mapping[str, Any]], orders: Iterable[Known]) -> dict[UUID, int]:
    """When what was decided here took effect (ms), by id: what stands on these orders, and what these verdicts name."""
    asked = {one.decision for one in orders if one.decision is not None}
    asked |= {fold.outcome_uuid(one["decision"]["id"]) for one in verdicts if one.get("decision")}
    found = db.execute("SELECT id, coalesce(effective_at, at) AS at FROM board.decisions WHERE id = ANY(%s)", (list(asked),))
    return {row["id"]: row["at"] for row in found} if asked else {}


def _readable(order_id: str, value: bytes) -> bool:
    """Whether the stream takes an outcome in, too: others write this topic, and what can't be read stands among the rejects."""
    try:
        return outcomes.read(orjson.loads(value)).order == order_id
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _by_us(outcome: Mapping[str, Any], ours: Mapping[str, str]) -> bool:
    """Whether the board's own rows say this already."""
    return str(outcome.get("id")) in ours or (outcome["outcome"] == "undone" and ours.get(str(outcome.get("undoes"))) == "undone")


def _went(db: Db, turns: Iterable[Turn], now: int) -> None:
    """What the stream made of decisions. now: ms."""
    with db.cursor() as cursor:
        cursor.executemany(
            "UPDATE board.decisions SET applied_at = %s WHERE id = %s AND applied_at IS NULL",
            [(now, fold.outcome_uuid(turn.applied)) for turn in turns if turn.applied is not None],
        )
        cursor.executemany(
            "UPDATE board.decisions SET state = 'overtaken' WHERE id = %s AND state = 'standing'",
            [(fold.outcome_uuid(name),) for turn in turns for name in turn.overtaken],
        )


def _outside(db: Db, said: Sequence[Mapping[str, Any]], orders: Mapping[str, Known]) -> None:
    """Decisions that people made elsewhere (a link in a message, another desk) stand beside ours, for history and figures."""
    decided = {"released": "release", "cancelled": "cancel", "correction": "correction", "after-sales": "after-sales"}
    for one in said:
        order = orders[one["order_id"]]
        if one["outcome"] in decided:
            # as the stream reads it: what nobody gave a name has one there
            heard = outcomes.read(one)
            name, at = fold.outcome_uuid(heard.id), heard.at
            row = (
                name, name, order.order_id, order.case_id, one.get("by") or "?", at, decided[one["outcome"]],
                one.get("reason") or "", one.get("seq") or max(order.seq, 1), order.state,
                order.signal_at or None, at,
            )  # fmt: skip
            db.execute(
                "INSERT INTO board.decisions (id, bulk, order_id, case_id, by, at, decision, reason, seq, state, state_before,"
                " signal_at, effective_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'standing', %s, %s, %s) ON CONFLICT DO NOTHING",
                row,
            )
            order.decision = name
        elif one["outcome"] == "undone" and one.get("undoes"):
            db.execute(
                "UPDATE board.decisions SET state = 'undone', undone_by = %s, undone_at = %s WHERE id = %s AND state = 'standing'",
                (one.get("by"), times.parse(one["at"]), fold.outcome_uuid(str(one["undoes"]))),
            )


# -- the rest -------------------------------------------------------------------------------------------------------------


def _codes(db: Db, documents: Mapping[str, dict[str, Any] | None]) -> None:
    """Which codes of these orders name no article."""
    db.execute("DELETE FROM board.unmapped WHERE order_id = ANY(%s)", (list(documents),))
    rows = [
        (order, document["channel"], document["shop"], line, code, title)
        for order, document in documents.items()
        if document is not None
        for line, code, title in fold.unmapped(document)
    ]
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO board.unmapped VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)


def _packs(db: Db, records: Sequence[Record], limits: Limits, now: int) -> None:
    for record in records:
        if record.value is None or not record.key.startswith("pack:"):
            continue
        version, body = record.key.removeprefix("pack:"), orjson.loads(record.value)
        db.execute(
            "INSERT INTO board.packs VALUES (%s, %s, %s) ON CONFLICT (version) DO UPDATE SET read_at = excluded.read_at",
            (version, Jsonb(body), now),
        )
        limits.learn(version, body)


def _rejects(db: Db, records: Sequence[Record]) -> None:
    rows = []
    for record in records:
        if record.value is not None:
            r = _reject(record.value)
            rows.append((reject_id(r), r.order_id, r.channel, r.shop, r.received_at, r.code, r.reason, r.field, r.pack))
    with db.cursor() as cursor:
        cursor.executemany(
            # put back and rejected again, it stands there anew
            "INSERT INTO board.rejects VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET replayed_at = NULL,"
            " code = excluded.code, reason = excluded.reason, field = excluded.field, pack = excluded.pack",
            rows,
        )


# -- the process's part ---------------------------------------------------------------------------------------------------


async def run(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics, limits: Limits) -> None:
    """Reads until `stop` is set. Waits for PostgreSQL and Kafka where they are away. place: PostgreSQL's URL."""
    while not stop.is_set():
        try:
            await _read(settings, place, stop, metrics, limits)
        except NoDatabase as error:
            metrics.database.set(0)
            log.warning("waiting for PostgreSQL, nothing is lost meanwhile: %s", error.sentence)
            await pause(stop, 1)
        except KafkaError as error:
            log.warning("waiting for Kafka: %s", type(error).__name__)
            await pause(stop, 1)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Waits, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _read(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics, limits: Limits) -> None:
    db = await asyncio.to_thread(store.connect, place)
    try:
        with store.answering():
            await asyncio.to_thread(limits.load, db)
            metrics.database.set(1)
            consumer = AIOKafkaConsumer(
                bootstrap_servers=settings.brokers,
                client_id=settings.topic_prefix + "board",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                **access.client(settings),
            )
            try:
                await consumer.start()
                await _follow(consumer, settings, db, stop, metrics, limits)
            finally:
                await consumer.stop()
    finally:
        db.close()


async def _follow(
    consumer: Any, settings: Settings, db: Db, stop: asyncio.Event, metrics: BoardMetrics, limits: Limits
) -> None:  # fmt: skip
    """All partitions of all topics, each from where the rows stand. There is no group: the offsets are in PostgreSQL."""
    prefix = settings.topic_prefix
    there = await consumer._client.fetch_all_metadata()  # noqa: SLF001  nothing public tells a topic's partitions unsubscribed
    parts = [TopicPartition(prefix + t, p) for t in READS for p in sorted(there.partitions_for_topic(prefix + t) or ())]
    missing = [t for t in READS if not there.partitions_for_topic(prefix + t)]
    if missing:
        raise UserError(
            f"缺少主题 {', '.join(missing)}，请执行 orderstream topics apply · topics are missing: orderstream topics apply"
        )
    consumer.assign(parts)
    ends = await consumer.end_offsets(parts)
    begins = await consumer.beginning_offsets(parts)
    left: dict[TopicPartition, int] = {}
    for tp in parts:
        at = await asyncio.to_thread(position, db, tp.topic.removeprefix(prefix), tp.partition)
        if at > ends[tp]:
            raise UserError(
                f"{tp.topic} 已被重建，看板进度 {at} 超过其末尾：请换一个数据库"
                f" · {tp.topic} was made anew, our position {at} is past its end: give the board another database"
            )
        consumer.seek(tp, max(at, begins[tp]))
        left[tp] = max(0, ends[tp] - max(at, begins[tp]))
    for topic in READS:
        _behind(metrics, topic, prefix, left)
    while not stop.is_set():
        batches = await consumer.getmany(timeout_ms=200, max_records=500)
        # packs first: they say how long a person may take
        for tp, fetched in sorted(
            batches.items(), key=lambda one: (READS.index(one[0].topic.removeprefix(prefix)), one[0].partition)
        ):
            topic = tp.topic.removeprefix(prefix)
            records = [Record(r.offset, r.timestamp, (r.key or b"").decode(), r.value) for r in fetched]
            new = await asyncio.to_thread(take, db, topic, tp.partition, records, limits, store.now())
            metrics.taken.labels(topic).inc(new)
            left[tp] = max(0, (consumer.highwater(tp) or 0) - fetched[-1].offset - 1)
            _behind(metrics, topic, prefix, left)
        metrics.polled.set(store.now() / 1000)


def _behind(metrics: BoardMetrics, topic: str, prefix: str, left: Mapping[TopicPartition, int]) -> None:
    """Shows what is left of a topic over all of its partitions."""
    metrics.lag.labels(topic).set(sum(count for tp, count in left.items() if tp.topic == prefix + topic))
