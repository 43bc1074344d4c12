"""An unknown article mapped from the board: into the catalogue, and then the orders that wait with this code are checked again.

Law: what was asked is a row before anything is done, each step may be done again, and the orders are put back under one time, the
row's own: so a process that was killed leaves a row that another one finishes, and no order is read twice for it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable
from typing import Any

from orderstream import access, kafka, times, topics, wire
from orderstream.board import audit
from orderstream.board.consume import tell
from orderstream.board.decide import NotAllowedError, Person
from orderstream.board.fold import Happened
from orderstream.board.store import Db, writing
from orderstream.catalogue import Code, cli, store
from orderstream.channels import registry
from orderstream.errors import BadFile
from orderstream.kafka import Message, Outgoing
from orderstream.orders import Order, Raw
from orderstream.settings import Settings

log = logging.getLogger("orderstream.board.articles")

MAY = ("reviewer", "supervisor", "approver", "admin")
_HOUR = 3_600_000


def ask(
    db: Db,
    person: Person,
    settings: Settings,
    brokers: str,
    code: Code,
    sku: str,
    *,
    at: int,
    move: bool = False,
) -> uuid.UUID:
    """Asks that a channel's code names an article of ours from now on; shop None in `code`: in all shops of the channel.

    It is carried out within seconds by the board's process. Raises NotAllowedError, BadFile with the reason where it cannot be:
    no such article, or the code names another one (move: take it from there).
    """
    if not person.may(MAY):
        raise NotAllowedError("role")
    if person.shops and (code.shop is None or f"{code.channel}:{code.shop}" not in person.shops):
        raise NotAllowedError("shop")
    store.accepted(cli.known(settings, cli.Source(None, brokers)), store.moment(), code, sku, move=move)
    name = uuid.uuid4()
    with writing(db):
        body = {"id": str(name), "channel": code.channel, "shop": code.shop, "code": code.code, "sku": sku, "move": move}
        audit.append(db, at, person.name, "map", body)
        db.execute(
            "INSERT INTO board.mappings (id, channel, shop, code, sku, move, by, asked_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (name, code.channel, code.shop, code.code, sku, move, person.name, at),
        )
        waits = list(_waiting(db, code.channel, code.shop, code.code))
        tell(db, [Happened(o, at, "mapping", person.name, {"code": code.code, "sku": sku}, f"mapping:{name}") for o in waits])
    return name


def outcome(db: Db, mapping: uuid.UUID) -> dict[str, Any] | None:
    """What became of it: done_at (ms, None while under way), orders put back, missing (whose record is gone), error."""
    return db.execute(
        "SELECT channel, shop, code, sku, by, asked_at, done_at, orders, missing, error FROM board.mappings WHERE id = %s",
        (mapping,),
    ).fetchone()


def carry_out(db: Db, settings: Settings, brokers: str, now: int) -> int:
    """Takes every mapping that was asked for one step on; how many are done with. Raises NoBroker. now: ms."""
    done = 0
    for row in db.execute("SELECT * FROM board.mappings WHERE done_at IS NULL ORDER BY asked_at, id").fetchall():
        code = Code(row["channel"], row["code"], row["shop"])
        if row["read_at"] is None:
            _accept(db, settings, brokers, row, code, now)
        elif row["read_at"] < now:
            done += _put_back(db, settings, brokers, row, now)
    return done


def _accept(db: Db, settings: Settings, brokers: str, row: dict[str, Any], code: Code, now: int) -> None:
    why = f"board: {row['by']}"
    try:
        lines = cli.accept(settings, cli.Source(None, brokers), None, code, row["sku"], move=row["move"], why=why)
    except BadFile as error:
        # it could be done when it was asked for: somebody else changed the catalogue in between
        log.warning("a mapping was not made: %s", error.sentence)
        db.execute("UPDATE board.mappings SET done_at = %s, error = %s WHERE id = %s", (now, error.sentence, row["id"]))
        return
    # the first of them is from a moment ahead on; others are of versions that are planned for later
    at = max(now, min((times.parse(line.at) for line in lines if line.at is not None), default=now)) + 1
    db.execute("UPDATE board.mappings SET read_at = %s WHERE id = %s", (at, row["id"]))


def _put_back(db: Db, settings: Settings, brokers: str, row: dict[str, Any], now: int) -> int:
    waits = _waiting(db, row["channel"], row["shop"], row["code"])
    found: dict[str, Raw] = {}
    if waits:
        topic = topics.raw(row["channel"], settings.topic_prefix)
        since = max(0, min(waits.values()) - _HOUR)
        found = latest(kafka.scan(brokers, [topic], since, access.client(settings)), waits.keys())
        records = [_again(topic, order, raw, row["read_at"]) for order, raw in sorted(found.items())]
        if records:
            kafka.send_all(brokers, records, access.client(settings))
    with writing(db):
        tell(
            db,
            [
                Happened(
                    order, now, "again" if order in found else "not-again", row["by"],
                    {"code": row["code"], "sku": row["sku"]}, f"again:{row['id']}",
                )
                for order in waits
            ],
        )  # fmt: skip
        db.execute(
            "UPDATE board.mappings SET done_at = %s, orders = %s, missing = %s WHERE id = %s",
            (now, len(found), len(waits) - len(found), row["id"]),
        )
    return 1


def _waiting(db: Db, channel: str, shop: str | None, code: str) -> dict[str, int]:
    """The orders that wait with a code that names nothing -> when they were received (ms)."""
    found = db.execute(
        "SELECT o.order_id, o.received_at FROM board.unmapped u JOIN board.orders o USING (order_id) WHERE u.channel = %(channel)s"
        " AND u.code = %(code)s AND (%(shop)s::text IS NULL OR u.shop = %(shop)s)"
        " AND o.state IN ('waiting', 'correction', 'asking', 'after-sales') ORDER BY o.order_id",
        {"channel": channel, "code": code, "shop": shop},
    )
    return {row["order_id"]: row["received_at"] for row in found}


def latest(messages: Iterable[Message], wanted: Collection[str]) -> dict[str, Raw]:
    """Of each of these orders the record in force among raw records: the greatest by (revision, updated_at, received_at)."""
    found: dict[str, tuple[tuple[int, int, int], Raw]] = {}
    for message in messages:
        order_id = (message.key or b"").decode()
        if order_id not in wanted or message.value is None:
            continue
        try:
            raw = wire.read_raw(message.topic, message.headers, message.value, message.timestamp)
        except wire.EnvelopeError:
            continue
        parsed = registry()[raw.channel].parse(raw)
        if isinstance(parsed, Order):
            place = (parsed.revision or -1, parsed.updated_at or -1, raw.received_at)
            if order_id not in found or found[order_id][0] <= place:
                found[order_id] = (place, raw)
    return {order_id: raw for order_id, (_, raw) in found.items()}


def _again(topic: str, order_id: str, raw: Raw, at: int) -> Outgoing:
    again = Raw(raw.channel, raw.shop, at, raw.body, raw.headers, raw.verified, raw.detail, again=True)
    return Outgoing(topic, order_id.encode(), raw.body, tuple(wire.raw_headers(again)))
