"""Work: one row carried out.

Law: what is sent is composed when it is sent, from what the board knows then; a row holds who and why, never a text or an address. A
bug in one row ends that row with its place in the code, and no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from typing import Any, Protocol

import httpx
import msgspec
import orjson
from aiokafka.errors import KafkaError

from orderstream import times, topics
from orderstream.actions import known, ledger, meeting, plan, senders, texts
from orderstream.actions.known import Known
from orderstream.actions.ledger import Pace, Row
from orderstream.actions.receivers import CUSTOMER, Language, Receiver, Receivers
from orderstream.actions.tokens import Link, Signer, What
from orderstream.board import store
from orderstream.board.decide import UNDO
from orderstream.board.store import Db, Pool, answering
from orderstream.board.web.words import Words
from orderstream.errors import NoDatabase
from orderstream.metrics import Metrics
from orderstream.settings import Settings

log = logging.getLogger("orderstream.actions")

PATIENCE = 60_000
"""ms that a message to people waits for the board to know the order; then it goes without its amount and reasons."""
UNKNOWN = 3_600_000
"""ms that what cannot be done without the order waits for it."""
AGAIN = 2_000
"""ms until the next look at something that is not there yet."""


class Producer(Protocol):
    """Kafka, with acks=all."""

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> Any:
        """Returns when the broker has it."""


class Shop:
    """What all rows share. base: where our pages are found; language of a customer's message follows from the order."""

    def __init__(self, settings: Settings, base: str, file: Receivers, pool: Pool, producer: Producer, metrics: Metrics) -> None:
        self.settings, self.base, self.file, self.pool = settings, base, file, pool
        self.producer, self.metrics = producer, metrics
        self.signer = Signer(settings.hash_key())
        self.words = Words()
        self.http: httpx.AsyncClient = senders.connections()
        self.chance = random.Random()  # noqa: S311  spreads attempts, hides nothing

    def pace(self, now: int) -> Any:
        """How each row's receiver may be told now, for `ledger.take`."""
        file, zone = self.file, self.settings.timezone

        def of(row: Row) -> Pace | None:
            if row.receiver == CUSTOMER:
                gateway = file.gateways.get(row.via)
                quiet = file.quiet
                per_minute = gateway.per_minute if gateway is not None else 60
                return Pace(per_minute, lambda _: None if quiet is None else quiet.ends(now, zone))
            receiver = file.named.get(row.receiver)
            return None if receiver is None else Pace(receiver.per_minute, lambda level: receiver.wait_until(level, now, zone))

        return of


class _Later(Exception):  # noqa: N818
    """Something that it needs is not there yet."""


class _Dropped(Exception):  # noqa: N818
    """Nobody wants it any more. Its first argument says why, in short."""


async def carry_out(shop: Shop, row: Row) -> None:
    """Does one row and notes how it ended. Raises NoDatabase: then it is anybody's after its lease."""
    try:
        receipt, follow = await _do(shop, row)
    except _Later as why:
        code = str(why)
        if store.now() - row.made_at > UNKNOWN:
            await _failed(shop, row, code, final=True, answered=False)
        else:
            await _with_db(shop, lambda db: ledger.postpone(db, row, code, store.now() + AGAIN))
    except _Dropped as why:
        code = str(why)
        await _with_db(shop, lambda db: ledger.drop(db, row, code, store.now()))
        shop.metrics.deeds.labels(row.kind, "dropped").inc()
    except senders.Transient as error:
        # of a time-out and a broken connection nobody knows whether the gateway has done it
        unsure = error.code == "timeout" or error.code.startswith(("no-answer", "smtp-", "apprise"))
        await _failed(shop, row, error.code, final=False, answered=not unsure, after=error.after)
    except senders.Refused as error:
        await _failed(shop, row, error.code, final=True, answered=True)
    except KafkaError as error:
        code = f"kafka-{type(error).__name__}"
        await _with_db(shop, lambda db: ledger.postpone(db, row, code, store.now() + AGAIN))
    except NoDatabase:
        raise
    except Exception as bug:  # noqa: BLE001  one row's bug is not another's
        where = traceback.extract_tb(bug.__traceback__)[-1]
        log.error("%s %s: %s in %s:%d is a bug", row.kind, row.id[:8], type(bug).__name__, where.name, where.lineno or 0)  # noqa: TRY400
        await _failed(shop, row, f"bug-{type(bug).__name__}", final=False, answered=False)
    else:
        await _done(shop, row, receipt, follow)
        shop.metrics.deeds.labels(row.kind, "done").inc()


async def _done(shop: Shop, row: Row, receipt: str, follow: list[ledger.New]) -> None:
    """Notes that it is done, however long PostgreSQL is away: forgotten, it would be done again."""
    while True:
        try:
            await _with_db(shop, lambda db: ledger.done(db, row, receipt, store.now(), follow))
        except NoDatabase:
            await asyncio.sleep(1)
        else:
            return


async def _failed(shop: Shop, row: Row, code: str, *, final: bool, answered: bool, after: float | None = None) -> None:
    dead = await _with_db(
        shop,
        lambda db: ledger.failed(db, row, code, store.now(), shop.chance, final=final, answered=answered, after=after),
    )
    shop.metrics.deeds.labels(row.kind, "dead" if dead else "failed").inc()
    if dead:
        log.warning("%s %s for %s is a dead letter: %s", row.kind, row.id[:8], row.receiver or row.order_id, code)


async def _with_db(shop: Shop, work: Any) -> Any:
    """Runs a function of a connection in a thread of its own."""

    def run() -> Any:
        with answering(), shop.pool.connection() as db:
            return work(db)

    return await asyncio.to_thread(run)


async def _do(shop: Shop, row: Row) -> tuple[str, list[ledger.New]]:
    """(receipt, what follows)."""
    if row.kind == "action":
        return "", await _with_db(shop, lambda db: _take_apart(db, shop, row))
    if row.kind in ("lock", "unlock"):
        await _command(shop, row)
        if row.kind == "unlock" and row.body.get("why") == "recalled":
            # the end of its time has nothing left to give back
            await _with_db(shop, lambda db: ledger.unwanted(db, row.order_id, "unlock", "unlocked-before", store.now()))
        return "", []
    order = await _with_db(shop, lambda db: known.order(db, row.order_id))
    if row.kind == "challenge":
        await _challenge(shop, row, order)
        return "", []
    if row.kind == "confirm":
        return await _ask_customer(shop, row, order), []
    role = shop.file.of(row.receiver)
    if row.receiver not in shop.file.named and role:
        # a dead letter of a role that has somebody now
        return "", _tell_all(shop, row, [one.name for one in role], row.receiver, row.body["what"], store.now())
    return await _tell(shop, row, order), []


def _take_apart(db: Db, shop: Shop, row: Row) -> list[ledger.New]:
    now = store.now()
    do = row.body["do"]
    order = known.order(db, row.order_id) if do in ("confirm", "meeting") else None
    if do == "confirm":
        _with_document(order)
    if do == "approve":
        return _ask_approvers(db, shop, row, now)
    if do == "deadline":
        role, deputies = row.body["role"], row.body["deputies"]
        names = [one.name for one in shop.file.of(role)] + _named(shop, set(deputies.values()))
        if not names and row.body["step"] == "reminded":
            # the wall shows it too; who is to be reminded by message is named in the file, or nobody is
            return []
        return _tell_all(shop, row, list(dict.fromkeys(names)), role, "deadline", now)
    if do == "confirm":
        return [_whose(shop, order, new) for new in plan.follows(row, order, shop.file, now)]
    if do != "meeting":
        return plan.follows(row, order, shop.file, now)
    if order is None or now < row.made_at + plan.GATHER:
        # the orders of a burst become one case as the board reads them
        if now - row.made_at > PATIENCE:
            return plan.follows(row, None, shop.file, now)
        raise _Later("case-unknown")
    number = meeting.called(db, order, shop.words.of(db, shop.file.language), now)
    # one call a case and person, whichever of its orders was first
    return [
        msgspec.structs.replace(new, id=plan.key("meeting", number, new.receiver))
        for new in plan.follows(msgspec.structs.replace(row, body={**row.body, "about": number}), order, shop.file, now)
    ]


def _with_document(order: Known | None) -> Known:
    """An order with all that is in it. Raises _Later where the board has not read it, _Dropped where it is no more."""
    if order is not None and order.document is None and (order.document_seq or order.verdict == "withdrawn"):
        raise _Dropped("forgotten" if order.document_seq else "withdrawn")
    if order is None or order.document is None:
        raise _Later("order-unknown")
    return order


def _whose(shop: Shop, order: Known | None, new: ledger.New) -> ledger.New:
    """A message to a customer, with whose it is as a keyed hash: each has a pace of their own."""
    to = None if order is None or new.kind != "confirm" else order.phone if new.body["way"] == "sms" else order.email
    return new if to is None else msgspec.structs.replace(new, body={**new.body, "who": shop.signer.number(to, "customer")})


def _ask_approvers(db: Db, shop: Shop, row: Row, now: int) -> list[ledger.New]:
    """Whoever approves, and who stands in for them now; never who asked."""
    names = [one.name for one in shop.file.of(plan.ROLES["approve"])]
    persons = [one.person for one in shop.file.of(plan.ROLES["approve"]) if one.person is not None]
    standing = db.execute(
        "SELECT deputy FROM board.deputies WHERE person = ANY(%s) AND since <= %s AND until > %s", (persons, now, now)
    )
    names += _named(shop, {one["deputy"] for one in standing})
    asker = row.body.get("asker")
    wanted = [name for name in dict.fromkeys(names) if asker is None or shop.file.named[name].person != asker]
    return _tell_all(shop, row, wanted, plan.ROLES["approve"], "approve", now)


def _tell_all(shop: Shop, row: Row, names: list[str], role: str, what: str, now: int) -> list[ledger.New]:
    """A message to each of these; where they are none, the dead letter of their role."""
    found = [new for name in names for new in plan.tell(row, name, what, shop.file, now, _about(row))]
    return found or plan.tell(row, "nobody-but-the-asker" if shop.file.of(role) else role, what, shop.file, now, _about(row))


def _named(shop: Shop, logins: set[str]) -> list[str]:
    """The receivers who are these people."""
    return [name for name, one in shop.file.named.items() if one.person in logins]


def _about(row: Row) -> dict[str, Any]:
    return {name: row.body[name] for name in ("about", "asker", "step", "deadline") if name in row.body}


async def _command(shop: Shop, row: Row) -> None:
    record = {
        "id": row.id,
        "order_id": row.order_id,
        "verdict_seq": row.seq,
        "command": row.kind,
        "until": row.body.get("until"),
        "why": row.body.get("why", "rule"),
    }
    await _say(shop, "wms.commands", row.order_id, record)


async def _challenge(shop: Shop, row: Row, order: Known | None) -> None:
    order = _with_document(order)
    segment = order.segment
    if segment is None:
        raise _Dropped("no-ip")
    until = row.body["until"]
    if until <= store.now():
        raise _Dropped("over")
    record = {
        "id": row.id,
        "channel": order.channel,
        "shop": order.shop,
        "segment": segment,
        "kind": "captcha",
        "until": until,
        "rule": row.rule,
    }
    await _say(shop, "channel.challenges", f"{order.channel}:{order.shop}|{segment}", record)


async def _say(shop: Shop, topic: str, key: str, record: dict[str, Any]) -> None:
    await shop.producer.send_and_wait(topics.name(topic, shop.settings.topic_prefix), orjson.dumps(record), key.encode())


async def _ask_customer(shop: Shop, row: Row, order: Known | None) -> str:
    order = _with_document(order)
    if order.verdict == "withdrawn":
        raise _Dropped("withdrawn")
    gateway = shop.file.gateways.get(row.via)
    to = order.phone if row.body["way"] == "sms" else order.email
    if gateway is None or to is None:
        raise senders.Refused("no-gateway" if gateway is None else "no-address")
    language: Language = "zh" if order.at_home else "en"

    def linked(db: Db) -> str | None:
        if _taken_back(db, row):
            return None
        return _link(db, shop, row, order, None, "confirm", shop.file.valid)

    token = await _with_db(shop, linked)
    if token is None:
        raise _Dropped("taken-back")
    name = shop.file.shop(order.channel, order.shop, language)
    title, line = texts.customer(name, language)
    message = senders.Message(
        row.id,
        title,
        (line,),
        language,
        ((texts.offer(language, "confirm"), f"{shop.base}/c/{token}"),),
        to=to,
        fill={"shop": name, "code": token},
        confirm=True,
        answered=row.answered,
    )
    return await senders.send(shop.http, gateway, message)


def _taken_back(db: Db, row: Row) -> bool:
    """Whether the decision that asked for it no longer stands."""
    decision = row.body.get("decision")
    if decision is None:
        return False
    found = db.execute("SELECT state FROM board.decisions WHERE id = %s", (decision,)).fetchone()
    return found is None or found["state"] != "standing"


async def _tell(shop: Shop, row: Row, order: Known | None) -> str:
    receiver = shop.file.named.get(row.receiver)
    gateway = None if receiver is None else shop.file.gateways.get(receiver.via)
    if receiver is None or gateway is None:
        raise senders.Refused("no-receiver")
    if order is None and store.now() - row.made_at < PATIENCE:
        raise _Later("order-unknown")
    message = await _with_db(shop, lambda db: _compose(db, shop, row, order, receiver))
    return await senders.send(shop.http, gateway, message)


def _compose(db: Db, shop: Shop, row: Row, order: Known | None, receiver: Receiver) -> senders.Message:
    """Raises _Dropped where it is over."""
    what, why = row.body["what"], row.body.get("why")
    if what == "approve":
        found = db.execute("SELECT state FROM board.decisions WHERE id = %s", (row.body["about"],)).fetchone()
        if found is None or found["state"] != "asked":
            raise _Dropped("decided")
    elif order is not None and why is None and not row.joined and what != "meeting" and row.body.get("step") != "ended":
        if order.verdict == "withdrawn":
            raise _Dropped("withdrawn")
        if order.state == "decided":
            raise _Dropped("decided")
    language = receiver.language
    words = shop.words.of(db, language)
    links: list[tuple[str, str]] = []
    for one in _offers(row, order, receiver):
        token = _link(db, shop, row, order, receiver.person, one, shop.file.links_valid)
        links.append((texts.offer(language, one), f"{shop.base}/{'m' if one == 'meeting' else 'd'}/{token}"))
    if shop.file.board is not None:
        links.append((texts.offer(language, "board"), shop.file.board.replace("{order_id}", row.order_id)))
    data = {
        "at": times.text(row.made_at),
        "action": what,
        "why": why,
        "order_id": row.order_id,
        "orders": row.joined,
        "verdict_seq": row.seq,
        "rule": row.rule,
        "level": row.level,
        "role": row.body.get("role"),
    }
    return senders.Message(
        row.id,
        texts.title(row, order, words, language),
        texts.lines(row, order, words, language),
        language,
        tuple(links),
        to=receiver.to,
        fill={"order": row.order_id.rpartition(":")[2][:30], "count": str(1 + len(row.joined)), "id": row.id[:8]},
        answered=row.answered,
        data=data,
    )


def _offers(row: Row, order: Known | None, receiver: Receiver) -> list[What]:
    """What a message's links let its reader do. Only somebody in person decides; a group looks, and decides on the board."""
    what = row.body["what"]
    if what == "meeting":
        return ["meeting"] if row.body.get("about") else []
    if receiver.person is None or row.joined:
        return []
    if what == "approve":
        return ["approve", "refuse"]
    if (
        what in ("notify", "second-check", "deadline")
        and row.body.get("why") is None
        and order is not None
        and order.state == "waiting"
    ):
        return [*receiver.offers]
    return []


def _link(db: Db, shop: Shop, row: Row, order: Known | None, person: str | None, what: What, valid: int) -> str:
    """The token of a link, which is the same one whenever a message is tried again, as long as nothing new is known of the order."""
    seq = row.seq if order is None else max(order.changed_seq, 1)
    number = shop.signer.number(row.id, f"{what}|{seq}")
    now = store.now()
    about = str(row.body.get("about", ""))
    db.execute(
        "INSERT INTO board.links (id, order_id, seq, person, what, about, expires_at, made_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        (number, row.order_id, seq, person, what, about, now + valid, now),
    )
    made = db.execute(
        "SELECT id, order_id, seq, person, what, about, expires_at FROM board.links WHERE id = %s", (number,)
    ).fetchone()
    assert made is not None
    return shop.signer.token(Link(**made))


def adopt(db: Db, now: int) -> int:
    """Rows for what people decided on the board and others are to be told of; how many were new.

    A customer is asked when the decision can no longer be taken back. Decisions of the last day are looked at: what an outage of a
    day has left behind, a person sees on the board.
    """
    day = now - times.DAY
    new = [
        ledger.New(
            plan.key("decision", str(d["id"])),
            plan.key("decision", str(d["id"])),
            d["order_id"],
            d["seq"],
            "action",
            None,
            d["level"],
            {"do": "confirm", "decision": str(d["id"]), "not_before": (d["effective_at"] or d["at"]) + UNDO},
        )
        for d in db.execute(
            "SELECT d.id, d.order_id, d.seq, d.at, d.effective_at, o.level FROM board.decisions d JOIN board.orders o USING (order_id)"
            " WHERE d.decision = 'confirm' AND d.state = 'standing' AND d.at > %s",
            (day,),
        )
    ]
    new += [
        ledger.New(
            plan.key("approve", str(d["id"])),
            plan.key("approve", str(d["id"])),
            d["order_id"],
            d["seq"],
            "action",
            None,
            d["level"],
            {"do": "approve", "about": str(d["id"]), "asker": d["by"]},
        )
        for d in db.execute(
            "SELECT d.id, d.order_id, d.seq, d.by, o.level FROM board.decisions d JOIN board.orders o USING (order_id)"
            " WHERE d.state = 'asked' AND d.at > %s",
            (day,),
        )
    ]
    new += [
        ledger.New(
            plan.key("deadline", e["order_id"], e["step"], str(e["deadline"])),
            plan.key("deadline", e["order_id"], e["step"], str(e["deadline"])),
            e["order_id"],
            e["seq"],
            "action",
            None,
            e["level"],
            {"do": "deadline", "step": e["step"], "deadline": e["deadline"], "done": e["done"], **e["whom"]},
        )
        for e in db.execute(
            "SELECT e.order_id, e.seq, e.step, e.done, e.deadline, e.whom, o.level FROM board.escalations e"
            " JOIN board.orders o USING (order_id) WHERE e.at > %s",
            (day,),
        )
    ]
    return ledger.add(db, new, now)
