"""An ERP behind orderstream: `python -m orderstream.consumers.erp`.

Law: each verdict (`order_id`, `verdict_seq`) is applied once, and never after a newer one of the same order. Releases and recalls
come on two topics, which have no order between them: a recall may be read before the release that it takes back. The number
decides, not the sequence of reading.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from orderstream import access, times
from orderstream.consumers.inbox import Store, begin, consume, main, post
from orderstream.metrics import Metrics
from orderstream.settings import Settings

READS = ("orders.released", "orders.recalled")


class Money(msgspec.Struct):
    """What the order costs: minor units of its currency."""

    currency: str
    total: int


class Verdict(msgspec.Struct):
    """What an ERP needs of a record of either topic; see docs/records.md for the rest of it."""

    order_id: str
    verdict_seq: int
    cause: str | None = None
    order: Money | None = None


SAID = {"released": "accepted", "changed-after-shipping": "changed", "recalled": "stopped", "intercept": "intercept"}
"""Effects as `erp.acks` calls them."""


_decoder = msgspec.json.Decoder(Verdict)


class Erp(Store):
    """The ERP's own store: PostgreSQL where ORDERSTREAM_DATABASE names one, else a file in state_dir.

    An order is accepted, stopped (recalled in time), shipped, or to be intercepted on its way.
    """

    tables = """
        CREATE TABLE IF NOT EXISTS orders (
            order_id TEXT PRIMARY KEY, verdict_seq INTEGER NOT NULL, state TEXT NOT NULL, record TEXT, accepted_at BIGINT
        );
        CREATE TABLE IF NOT EXISTS journal (
            order_id TEXT, verdict_seq INTEGER, effect TEXT NOT NULL, PRIMARY KEY (order_id, verdict_seq, effect)
        );
        CREATE TABLE IF NOT EXISTS intercepts (order_id TEXT PRIMARY KEY, verdict_seq INTEGER, cause TEXT);
    """

    def apply(self, topic: str, value: bytes) -> str:
        """Accept a released order, stop a recalled one, ask for one that has left to be intercepted."""
        verdict = _decoder.decode(value)
        row = self.db.execute("SELECT verdict_seq, state FROM orders WHERE order_id = ?", (verdict.order_id,)).fetchone()
        known, state = (int(row[0]), str(row[1])) if row else (0, "")
        if verdict.verdict_seq <= known:
            return "repeat" if verdict.verdict_seq == known else "old"
        effect = self._release(verdict, value, state) if topic == "orders.released" else self._recall(verdict, state)
        self.db.execute("INSERT INTO journal VALUES (?, ?, ?)", (verdict.order_id, verdict.verdict_seq, effect))
        self._acknowledge(verdict, SAID[effect])
        return effect

    def _acknowledge(self, verdict: Verdict, effect: str) -> None:
        """What was done, and what is booked: whoever waits for it is told when this transaction has happened."""
        ack: dict[str, Any] = {
            "order_id": verdict.order_id,
            "verdict_seq": verdict.verdict_seq,
            "at": int(time.time() * 1000),
            "effect": effect,
        }
        # what has left stays booked as it was, until somebody books it back
        booked = verdict.order if effect == "accepted" else self._booked(verdict.order_id) if effect != "stopped" else None
        if booked is not None:
            ack |= {"currency": booked.currency, "total": booked.total}
        self.say("erp.acks", verdict.order_id, str(verdict.verdict_seq), ack)

    def _booked(self, order_id: str) -> Money | None:
        row = self.db.execute("SELECT record FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        return _decoder.decode(row[0]).order if row is not None and row[0] is not None else None

    def _release(self, verdict: Verdict, value: bytes, state: str) -> str:
        if state in ("shipped", "intercept"):
            # an edit after the parcel left: nothing to pack again, and the number must still grow
            self.db.execute("UPDATE orders SET verdict_seq = ? WHERE order_id = ?", (verdict.verdict_seq, verdict.order_id))
            return "changed-after-shipping"
        self.db.execute(
            "INSERT INTO orders VALUES (?, ?, 'accepted', ?, ?) ON CONFLICT (order_id) DO UPDATE SET"
            " verdict_seq = excluded.verdict_seq, state = 'accepted', record = excluded.record, accepted_at = excluded.accepted_at",
            (verdict.order_id, verdict.verdict_seq, value.decode(), int(time.time() * 1000)),
        )
        return "released"

    def _recall(self, verdict: Verdict, state: str) -> str:
        if state in ("shipped", "intercept"):
            self.db.execute(
                "UPDATE orders SET verdict_seq = ?, state = 'intercept' WHERE order_id = ?",
                (verdict.verdict_seq, verdict.order_id),
            )
            self.db.execute(
                "INSERT INTO intercepts VALUES (?, ?, ?) ON CONFLICT (order_id) DO UPDATE SET"
                " verdict_seq = excluded.verdict_seq, cause = excluded.cause",
                (verdict.order_id, verdict.verdict_seq, verdict.cause),
            )
            return "intercept"
        self.db.execute(
            "INSERT INTO orders VALUES (?, ?, 'stopped', NULL, NULL)"
            " ON CONFLICT (order_id) DO UPDATE SET verdict_seq = excluded.verdict_seq, state = 'stopped'",
            (verdict.order_id, verdict.verdict_seq),
        )
        return "recalled"

    def forget(self, order_id: str) -> str:
        """The record goes; the number stays, so that an old verdict is still known to be old."""
        self.db.execute("UPDATE orders SET record = NULL WHERE order_id = ?", (order_id,))
        return "forgotten"

    def ship(self, order_id: str, at: int) -> bool:
        """Hand an accepted order to the carrier; False for one that is not (or no longer) accepted. at: ms UTC."""
        with self.transaction():
            changed = self.db.execute(
                "UPDATE orders SET state = 'shipped' WHERE order_id = ? AND state = 'accepted'", (order_id,)
            ).rowcount
            if changed:
                shipped = {"kind": "outcome", "at": times.text(at), "order_id": order_id, "outcome": "shipped", "by": "erp"}
                self.say("orders.outcomes", order_id, "shipped", shipped)
        return bool(changed)

    def due(self, before: int) -> list[str]:
        """Orders accepted before a time (ms UTC) and not shipped yet."""
        rows = self.db.execute("SELECT order_id FROM orders WHERE state = 'accepted' AND accepted_at < ?", (before,))
        return [row[0] for row in rows]

    def states(self) -> dict[str, int]:
        """How many orders are in each state."""
        return dict(self.db.execute("SELECT state, count(*) FROM orders GROUP BY state").fetchall())


async def run(settings: Settings, metrics: Metrics, stop: asyncio.Event, *, ship_after: float | None = None) -> None:
    """Apply verdicts until stopped. ship_after: seconds from acceptance to shipping; None: this ERP ships nothing by itself.

    Each verdict is acknowledged on erp.acks, and a shipment told by an outcome `shipped`, after which orderstream no longer
    recalls; both from an outbox, so that a crash cannot lose them.
    """
    store = Erp(settings.database.get_secret_value() if settings.database else settings.state_dir / "erp.sqlite")
    producer: Any = AIOKafkaProducer(bootstrap_servers=settings.brokers, acks="all", client_id="erp", **access.client(settings))
    try:
        await begin(producer, settings)

        async def ship_and_tell() -> None:
            now = int(time.time() * 1000)
            for order_id in store.due(now - int(ship_after * 1000)) if ship_after is not None else ():
                store.ship(order_id, now)
            await post(store, producer, settings.topic_prefix)

        await consume(settings, "erp", store, READS, stop, metrics=metrics, between=ship_and_tell)
    finally:
        await producer.stop()
        store.close()


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orderstream.consumers.erp", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument(
        "--ship-after", type=float, metavar="SECONDS", help="接单多少秒后发货 · ship an order this long after accepting it"
    )
    args = parser.parse_args()
    return main(lambda settings, metrics, stop: run(settings, metrics, stop, ship_after=args.ship_after))


if __name__ == "__main__":
    sys.exit(_main())
