"""A WMS behind orderstream: `python -m orderstream.consumers.wms --stock FILE`.

Law: what is available is counted, never adjusted: level minus the pieces of every order that is released or locked. A record
applied twice or in another sequence then gives the same number. Each change goes to `wms.stock` as the whole truth about one SKU
(available, and who holds), because the rules read the last record before an order, not a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import msgspec
import orjson
from aiokafka import AIOKafkaProducer

from orderstream import access, times, topics
from orderstream.consumers.inbox import Store, begin, consume, main, post
from orderstream.consumers.signature import sign
from orderstream.errors import BadFile
from orderstream.metrics import Metrics
from orderstream.orders import Unit
from orderstream.settings import Settings

READS = ("orders.released", "orders.recalled", "orders.actions", "wms.commands")
SAY_SECONDS = 0.5
"""A hot article changes with every order; twice a second is as often as a rule could care."""


class Released(msgspec.Struct):
    """What a warehouse needs of a released order."""

    order_id: str
    verdict_seq: int
    units: list[Unit] = []
    merge_group: str | None = None


class Recalled(msgspec.Struct):
    order_id: str
    verdict_seq: int


class Action(msgspec.Struct):
    id: str
    order_id: str
    verdict_seq: int
    action: str
    until: int | None = None


class Command(msgspec.Struct):
    order_id: str
    verdict_seq: int
    command: Literal["lock", "unlock"]
    until: int | None = None


class Stock(msgspec.Struct):
    """A `stock` line of a replay file. at: ISO 8601."""

    sku: str
    available: int
    at: str
    kind: str = "stock"
    locks: list[str] = []


_released = msgspec.json.Decoder(Released)
_recalled = msgspec.json.Decoder(Recalled)
_action = msgspec.json.Decoder(Action)
_command = msgspec.json.Decoder(Command)
_stock = msgspec.json.Decoder(Stock)


class Box(NamedTuple):
    """A fulfilment unit on its way out. unit: its place in the release's `units`; skus: SKU -> pieces in it."""

    order_id: str
    verdict_seq: int
    shipment_id: str
    unit: int
    skus: dict[str, int]

    def record(self, at: int) -> dict[str, Any]:
        """A record of wms.shipments, and the question of `POST /check`. at: ms UTC."""
        return {**self._asdict(), "at": at, "complete": True}


class Wms(Store):
    """The warehouse's own store: levels, the orders to pack with their units, locks, and which SKUs to tell of."""

    tables = """
        CREATE TABLE IF NOT EXISTS levels (sku TEXT PRIMARY KEY, level INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS orders (
            order_id TEXT PRIMARY KEY, verdict_seq INTEGER NOT NULL, released INTEGER NOT NULL, merge_group TEXT
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS units (
            order_id TEXT, number INTEGER, kind TEXT, place TEXT, skus TEXT, PRIMARY KEY (order_id, number)
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS pieces (
            order_id TEXT, sku TEXT, quantity INTEGER, PRIMARY KEY (order_id, sku)
        ) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS pieces_by_sku ON pieces (sku);
        CREATE TABLE IF NOT EXISTS locks (order_id TEXT PRIMARY KEY, verdict_seq INTEGER, until INTEGER, held INTEGER) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS packing (
            order_id TEXT PRIMARY KEY, verdict_seq INTEGER NOT NULL, taken_at INTEGER NOT NULL, picked_at INTEGER, shipped_at INTEGER,
            stopped TEXT
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS unsaid (sku TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID;
    """

    def apply(self, topic: str, value: bytes) -> str:
        """Pack a released order, give back a recalled one's pieces, lock and unlock.

        Locks are commanded by `orderstream actions`. Where that does not run, what route asks of it is done all the same: the two
        say one thing of an order and a verdict, and saying it twice changes nothing.
        """
        if topic == "orders.released":
            return self._release(_released.decode(value))
        if topic == "orders.recalled":
            return self._recall(_recalled.decode(value))
        if topic == "wms.commands":
            command = _command.decode(value)
            return self._lock(command, held=command.command == "lock")
        action = _action.decode(value)
        if action.action == "lock-stock":
            return self._lock(action, held=True)
        if action.action == "unlock-stock":
            return self._lock(action, held=False)
        return "ignored"

    def _release(self, order: Released) -> str:
        seq = self._seq("orders", order.order_id)
        if order.verdict_seq <= seq:
            return "repeat" if order.verdict_seq == seq else "old"
        self._mark(order.order_id)
        self.db.execute(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, 1, ?)", (order.order_id, order.verdict_seq, order.merge_group)
        )
        self.db.execute("DELETE FROM units WHERE order_id = ?", (order.order_id,))
        self.db.execute("DELETE FROM pieces WHERE order_id = ?", (order.order_id,))
        for number, unit in enumerate(order.units):
            self.db.execute(
                "INSERT INTO units VALUES (?, ?, ?, ?, ?)",
                (order.order_id, number, unit.kind, unit.place, orjson.dumps(unit.skus).decode()),
            )
            for sku, quantity in unit.skus.items():
                self.db.execute(
                    "INSERT INTO pieces VALUES (?, ?, ?)"
                    " ON CONFLICT (order_id, sku) DO UPDATE SET quantity = quantity + excluded.quantity",
                    (order.order_id, sku, quantity),
                )
        self._mark(order.order_id)
        # what has left is not packed again
        self.db.execute(
            "INSERT INTO packing (order_id, verdict_seq, taken_at) VALUES (?, ?, ?) ON CONFLICT (order_id) DO UPDATE SET"
            " verdict_seq = excluded.verdict_seq, taken_at = excluded.taken_at, picked_at = NULL, stopped = NULL"
            " WHERE shipped_at IS NULL",
            (order.order_id, order.verdict_seq, _now()),
        )
        self._acknowledge(order.order_id, order.verdict_seq, "accepted")
        return "released"

    def _recall(self, order: Recalled) -> str:
        seq = self._seq("orders", order.order_id)
        if order.verdict_seq <= seq:
            return "repeat" if order.verdict_seq == seq else "old"
        self.db.execute(
            "INSERT INTO orders VALUES (?, ?, 0, NULL)"
            " ON CONFLICT (order_id) DO UPDATE SET verdict_seq = excluded.verdict_seq, released = 0",
            (order.order_id, order.verdict_seq),
        )
        self._mark(order.order_id)
        self._acknowledge(order.order_id, order.verdict_seq, "stopped")
        return "recalled"

    def _acknowledge(self, order_id: str, seq: int, effect: str, at: int | None = None) -> None:
        ack = {"order_id": order_id, "verdict_seq": seq, "at": _now() if at is None else at, "effect": effect}
        self.say("wms.acks", order_id, f"{seq}:{effect}", ack)

    def _lock(self, action: Action | Command, *, held: bool) -> str:
        # a lock and its unlock may be read in either sequence: the later verdict's word stands, an unlock before a lock
        row = self.db.execute("SELECT verdict_seq, held FROM locks WHERE order_id = ?", (action.order_id,)).fetchone()
        if row is not None and (action.verdict_seq, not held) <= (row[0], not row[1]):
            return "repeat"
        self.db.execute(
            "INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?)", (action.order_id, action.verdict_seq, action.until, int(held))
        )
        self._mark(action.order_id)
        return "lock" if held else "unlock"

    def _seq(self, table: str, order_id: str) -> int:
        row = self.db.execute(f"SELECT verdict_seq FROM {table} WHERE order_id = ?", (order_id,)).fetchone()  # noqa: S608  a table of ours
        return int(row[0]) if row else 0

    def _mark(self, order_id: str) -> None:
        """The SKUs of an order are to be told of."""
        self.db.execute("INSERT OR IGNORE INTO unsaid SELECT sku, NULL FROM pieces WHERE order_id = ?", (order_id,))

    def load(self, path: Path) -> int:
        """Take the levels of a file of `stock` lines for SKUs that this store does not know; how many were new.

        A restart must not undo what was sold since, so a known SKU keeps its level.
        """
        new = 0
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise BadFile(f"库存文件 {path} 不可读 · stock file {path}: {error.strerror}") from None
        with self.transaction():
            for number, line in enumerate(lines, 1):
                try:
                    stock = _stock.decode(line)
                    at = times.parse(stock.at)
                except (msgspec.DecodeError, times.TimeError) as error:
                    raise BadFile(f"库存文件 {path} 第 {number} 行 · stock file {path}, line {number}: {error}") from None
                if self.db.execute("INSERT OR IGNORE INTO levels VALUES (?, ?)", (stock.sku, stock.available)).rowcount:
                    self.db.execute("INSERT OR REPLACE INTO unsaid VALUES (?, ?)", (stock.sku, at))
                    new += 1
        return new

    def stock(self, sku: str, now: int) -> tuple[int, list[str]]:
        """(available, orders that hold a lock on it) of a SKU with a level, at `now`, ms UTC."""
        level = self.db.execute("SELECT level FROM levels WHERE sku = ?", (sku,)).fetchone()[0]
        held = self.db.execute(
            "SELECT coalesce(sum(p.quantity), 0) FROM pieces p JOIN orders o USING (order_id) LEFT JOIN locks l USING (order_id)"
            " LEFT JOIN packing k USING (order_id)"
            " WHERE p.sku = ? AND (o.released OR k.shipped_at IS NOT NULL OR (l.held AND (l.until IS NULL OR l.until > ?)))",
            (sku, now),
        ).fetchone()[0]
        locks = self.db.execute(
            "SELECT order_id FROM locks l JOIN pieces p USING (order_id)"
            " WHERE p.sku = ? AND l.held AND (l.until IS NULL OR l.until > ?) ORDER BY order_id",
            (sku, now),
        ).fetchall()
        return max(0, int(level) - int(held)), [lock[0] for lock in locks]

    def unsaid(self, now: int) -> list[dict[str, Any]]:
        """`stock` records that `wms.stock` has not had yet, locks that ended by `now` (ms UTC) among their causes."""
        with self.transaction():
            self.db.execute(
                "INSERT OR IGNORE INTO unsaid SELECT p.sku, NULL FROM pieces p JOIN locks l USING (order_id) WHERE l.held AND l.until <= ?",
                (now,),
            )
            self.db.execute("UPDATE locks SET held = 0 WHERE held AND until <= ?", (now,))
        records = []
        # an article without a level is not counted here: to call it sold out would stop every order of it
        for sku, at in self.db.execute("SELECT sku, at FROM unsaid JOIN levels USING (sku) ORDER BY sku").fetchall():
            available, locks = self.stock(sku, now)
            records.append(
                {"kind": "stock", "at": times.text(now if at is None else at), "sku": sku, "available": available, "locks": locks}
            )
        return records

    def said(self, skus: list[str]) -> None:
        """`wms.stock` has these. To be called with no `take` between it and `unsaid`: both run in one thread's turn."""
        with self.transaction():
            self.db.executemany("DELETE FROM unsaid WHERE sku = ?", [(sku,) for sku in skus])

    def to_pick(self, before: int) -> list[str]:
        """Released orders taken before a time (ms UTC) and not picked."""
        rows = self.db.execute(
            "SELECT order_id FROM packing JOIN orders USING (order_id) WHERE released AND picked_at IS NULL AND taken_at < ?",
            (before,),
        )
        return [row[0] for row in rows]

    def pick(self, order_id: str, at: int) -> bool:
        """All pieces of an order are in its boxes; False for one that is not to be packed. at: ms UTC."""
        with self.transaction():
            row = self.db.execute(
                "SELECT verdict_seq FROM packing JOIN orders USING (order_id, verdict_seq)"
                " WHERE order_id = ? AND released AND picked_at IS NULL",
                (order_id,),
            ).fetchone()
            if row is not None:
                self.db.execute("UPDATE packing SET picked_at = ? WHERE order_id = ?", (at, order_id))
                self._acknowledge(order_id, row[0], "picked", at)
        return row is not None

    def boxes(self, before: int) -> list[Box]:
        """What was picked before a time (ms UTC) and has neither left nor been stopped, one box a fulfilment unit."""
        rows = self.db.execute(
            "SELECT order_id, verdict_seq, number, skus FROM packing JOIN orders USING (order_id, verdict_seq) JOIN units USING (order_id)"
            " WHERE released AND picked_at < ? AND shipped_at IS NULL AND stopped IS NULL ORDER BY order_id, number",
            (before,),
        )
        # orders that are packed together are one parcel, and one record each
        return [Box(row[0], row[1], f"{self._group(row[0])}.{row[2]}", row[2], orjson.loads(row[3])) for row in rows.fetchall()]

    def ship(self, order_id: str, scanned: Sequence[Box], at: int) -> bool:
        """An order's boxes leave, with what the scanner saw in them; False for one that is not released any more. at: ms UTC."""
        with self.transaction():
            changed = self.db.execute(
                "UPDATE packing SET shipped_at = ? WHERE order_id = ? AND shipped_at IS NULL AND picked_at IS NOT NULL"
                " AND verdict_seq = (SELECT verdict_seq FROM orders o WHERE o.order_id = packing.order_id AND released)",
                (at, order_id),
            ).rowcount
            if changed:
                for box in scanned:
                    self.say("wms.shipments", order_id, f"{box.shipment_id}/{box.unit}", box.record(at))
        return bool(changed)

    def stop(self, order_id: str, why: str) -> None:
        """An order's boxes stay: a person looks. The next release of the order begins anew."""
        with self.transaction():
            self.db.execute("UPDATE packing SET stopped = ? WHERE order_id = ?", (why, order_id))

    def parcels(self) -> dict[str, list[str]]:
        """What to pack together: a group's name (its earliest order) to its released orders."""
        groups: dict[str, list[str]] = {}
        for (order_id,) in self.db.execute("SELECT order_id FROM orders WHERE released ORDER BY order_id").fetchall():
            groups.setdefault(self._group(order_id), []).append(order_id)
        return groups

    def _group(self, order_id: str) -> str:
        """The name of an order's parcel: an order leaves with an earlier one, which may itself leave with one before it."""
        row = self.db.execute("SELECT merge_group FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        return self._group(row[0]) if row is not None and row[0] is not None else order_id


def _now() -> int:
    return int(time.time() * 1000)


async def ask(http: httpx.AsyncClient, url: str, secrets: Sequence[bytes], box: Box) -> tuple[bool | None, str]:
    """(whether a box may leave, why not). None where nobody knows now: it is asked again later."""
    body = orjson.dumps(box.record(_now()))
    try:
        answer = await http.post(
            url, content=body, headers=sign(secrets, f"{box.order_id}/{box.verdict_seq}", body, int(time.time()))
        )
    except httpx.TransportError as error:
        return None, str(error)
    if answer.status_code != 200:
        return None, f"HTTP {answer.status_code}"
    said = answer.json()
    return bool(said["go"]), "; ".join(said["why"])


class Floor(NamedTuple):
    """How this warehouse works. pick_after, ship_after: seconds, None: nobody does it; check: where a box is asked about first."""

    pick_after: float | None = None
    ship_after: float | None = None
    check: str | None = None


IDLE = Floor()


async def _work(store: Wms, floor: Floor, http: httpx.AsyncClient, secrets: Sequence[bytes]) -> None:
    """What is due on the floor: pick, ask, ship."""
    if floor.pick_after is not None:
        for order_id in store.to_pick(_now() - int(floor.pick_after * 1000)):
            store.pick(order_id, _now())
    if floor.ship_after is None:
        return
    by_order: dict[str, list[Box]] = {}
    for box in store.boxes(_now() - int(floor.ship_after * 1000)):
        by_order.setdefault(box.order_id, []).append(box)
    for order_id, boxes in by_order.items():
        said = [await ask(http, floor.check, secrets, box) for box in boxes] if floor.check is not None else []
        wrong = [why for go, why in said if go is False]
        if wrong:
            print(f"{order_id} 不发 · stays: {'; '.join(wrong)}", flush=True)  # noqa: T201  for whoever stands at the packing table
            store.stop(order_id, "; ".join(wrong))
        elif all(go for go, _ in said):
            store.ship(order_id, boxes, _now())


async def run(
    settings: Settings, metrics: Metrics, stop: asyncio.Event, *, levels: Path | None = None, floor: Floor = IDLE
) -> None:
    """Keep the warehouse until stopped. levels: a file of `stock` lines for the first start."""
    store = Wms(settings.state_dir / "wms.sqlite")
    options = access.client(settings)
    producer: Any = AIOKafkaProducer(bootstrap_servers=settings.brokers, acks="all", client_id="wms", linger_ms=5, **options)
    last = 0.0
    try:
        if levels is not None:
            store.load(levels)
        await begin(producer, settings)
        async with httpx.AsyncClient(timeout=5) as http:

            async def work() -> None:
                nonlocal last
                await _work(store, floor, http, settings.shop_secrets("wms", "check"))
                await post(store, producer, settings.topic_prefix)
                if time.monotonic() - last < SAY_SECONDS:
                    return
                last = time.monotonic()
                records = store.unsaid(_now())
                sends = [
                    await producer.send(topics.name("wms.stock", settings.topic_prefix), orjson.dumps(r), r["sku"].encode())
                    for r in records
                ]
                await asyncio.gather(*sends)
                if records:
                    metrics.applied.labels("wms", "stock").inc(len(records))
                    store.said([r["sku"] for r in records])

            await work()
            await consume(settings, "wms", store, READS, stop, metrics=metrics, between=work)
    finally:
        await producer.stop()
        store.close()


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orderstream.consumers.wms", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument(
        "--stock", type=Path, metavar="FILE", help="初始库存（回放文件的 stock 行） · levels to begin with, `stock` lines"
    )
    parser.add_argument(
        "--pick-after", type=float, metavar="SECONDS", help="接单多少秒后拣货 · pick an order this long after taking it"
    )
    parser.add_argument("--ship-after", type=float, metavar="SECONDS", help="拣货多少秒后发出 · ship it this long after picking")
    parser.add_argument("--check", metavar="URL", help="发出前先问 · ask there first: http://127.0.0.1:8082/check")
    args = parser.parse_args()
    floor = Floor(args.pick_after, args.ship_after, args.check)
    return main(lambda settings, metrics, stop: run(settings, metrics, stop, levels=args.stock, floor=floor))


if __name__ == "__main__":
    sys.exit(_main())
