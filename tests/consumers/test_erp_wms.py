"""The example consumers: every verdict once, whatever is repeated, overtaken or killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from orderstream import topics
from orderstream.consumers.erp import Erp
from orderstream.consumers.inbox import Resume, Tombstone
from orderstream.consumers.wms import Wms
from orderstream.errors import BadFile, NoDatabase
from orderstream.simulators import make
from tests.waiting import wait_until


def released(order: str, seq: int, *, sku: str = "SKU1", quantity: int = 1, group: str | None = None) -> tuple[str, bytes]:
    record = {
        "order_id": order, "verdict_seq": seq, "verdict": "released", "level": "none", "signals": [],
        "order": {"order_id": order, "currency": "CNY", "total": 100 * quantity},
        "units": [{"kind": "own", "skus": {sku: quantity}, "place": "hangzhou", "with_lines": ["1"]}],
    }  # fmt: skip
    return "orders.released", orjson.dumps(record | ({"merge_group": group} if group else {}))


def recalled(order: str, seq: int, cause: str = "signals") -> tuple[str, bytes]:
    return "orders.recalled", orjson.dumps({"order_id": order, "verdict_seq": seq, "verdict": "review", "cause": cause})


def action(order: str, seq: int, what: str, until: int | None = None) -> tuple[str, bytes]:
    return "orders.actions", orjson.dumps(
        {"id": f"{order}:{seq}:{what}", "order_id": order, "verdict_seq": seq, "action": what, "until": until}
    )


def feed(store: Erp | Wms, *records: tuple[str, bytes]) -> list[str]:
    """Records one by one, each at the next offset of its topic's partition 0."""
    done: list[str] = []
    for topic, value in records:
        done += store.take(topic, 0, [(store.position(topic, 0), value)])
    return done


@pytest.fixture
def erp(tmp_path):
    store = Erp(tmp_path / "erp.sqlite")
    yield store
    store.close()


@pytest.fixture
def wms(tmp_path):
    store = Wms(tmp_path / "wms.sqlite")
    (tmp_path / "stock.jsonl").write_text('{"kind":"stock","at":"2026-11-10T00:00:00Z","sku":"SKU1","available":10,"locks":[]}\n')
    store.load(tmp_path / "stock.jsonl")
    yield store
    store.close()


# ERP


def test_a_record_delivered_again_is_applied_once(erp):
    """Neither the same offset nor the same verdict at a new offset has a second effect."""
    topic, value = released("o1", 1)
    assert erp.take(topic, 0, [(0, value)]) == ["released"]
    assert erp.take(topic, 0, [(0, value), (1, value)]) == ["repeat", "repeat"]
    assert erp.states() == {"accepted": 1}
    assert erp.position(topic, 0) == 2


def test_a_recall_read_before_its_release_wins(erp):
    """The verdict's number decides, not the sequence in which two topics are read."""
    assert feed(erp, recalled("o1", 2), released("o1", 1)) == ["recalled", "old"]
    assert erp.states() == {"stopped": 1}


def test_a_later_release_accepts_again(erp):
    """An order recalled and cleared is accepted a second time, by its higher number."""
    feed(erp, released("o1", 1), recalled("o1", 2), released("o1", 3))
    assert erp.states() == {"accepted": 1}


def test_a_recall_after_shipping_asks_for_an_intercept(erp):
    """What has left is not stopped in silence: the carrier is asked to turn it back."""
    feed(erp, released("o1", 1), released("o2", 1))
    assert erp.ship("o1", 1000)
    assert not erp.ship("o1", 2000)
    [told] = [json.loads(r.value) for r in erp.outgoing() if r.topic == "orders.outcomes"]
    assert (told["order_id"], told["outcome"], told["at"]) == ("o1", "shipped", "1970-01-01T00:00:01.000Z")
    assert feed(erp, recalled("o1", 2, "cancelled"), recalled("o2", 2)) == ["intercept", "recalled"]
    assert erp.db.execute("SELECT order_id, cause FROM intercepts").fetchall() == [("o1", "cancelled")]
    assert not erp.ship("o2", 3000)
    assert feed(erp, released("o1", 3)) == ["changed-after-shipping"]
    acks = {(r.key, r.what): json.loads(r.value)["effect"] for r in erp.outgoing() if r.topic == "erp.acks"}
    assert acks == {
        ("o1", "1"): "accepted", ("o1", "2"): "intercept", ("o1", "3"): "changed", ("o2", "1"): "accepted", ("o2", "2"): "stopped",
    }  # fmt: skip
    erp.gone(erp.outgoing())
    assert erp.outgoing() == []


def test_an_acknowledgement_says_what_is_booked(erp):
    """The money of the release, in minor units, beside what was done; a verdict that is repeated is acknowledged once."""
    feed(erp, released("o1", 1), released("o1", 1))
    [ack] = [json.loads(r.value) for r in erp.outgoing()]
    assert (ack["effect"], ack["currency"], ack["total"], ack["verdict_seq"]) == ("accepted", "CNY", 100, 1)


def test_an_unreadable_record_stops_and_changes_nothing(erp):
    """A record that is not of the schema is named by its place; the batch that held it leaves no trace."""
    topic, value = released("o1", 1)
    with pytest.raises(ValueError, match=r"orders\.released\[3\]@8"):
        erp.take(topic, 3, [(7, value), (8, b"{")])
    assert erp.states() == {}
    assert erp.position(topic, 3) == 0


HISTORY = [released("o1", 1), recalled("o1", 2), released("o2", 1), released("o1", 3), recalled("o3", 2), released("o3", 1)]


@given(st.lists(st.sampled_from(HISTORY), max_size=6).flatmap(lambda extra: st.permutations(HISTORY + extra)))
def test_no_sequence_or_repetition_changes_the_erp(history):
    """However verdicts interleave and repeat, each order ends as its highest number says."""
    store = Erp(Path(":memory:"))
    feed(store, *history)
    ends = dict(store.db.execute("SELECT order_id, state FROM orders").fetchall())
    store.close()
    assert ends == {"o1": "accepted", "o2": "accepted", "o3": "stopped"}


# WMS


def test_released_orders_hold_pieces_and_recalled_ones_give_them_back(wms):
    """Available is the level minus the pieces of released orders, whatever came before."""
    feed(wms, released("o1", 1, quantity=3), released("o2", 1, quantity=2))
    assert wms.stock("SKU1", 0) == (5, [])
    feed(wms, recalled("o1", 2))
    assert wms.stock("SKU1", 0) == (8, [])


def test_a_lock_is_listed_and_outlives_a_recall_until_it_ends(wms):
    """A locked order's pieces stay held for the lock's time even where the order is held back; then they return."""
    feed(wms, released("o1", 1, quantity=3), action("o1", 1, "lock-stock", until=500))
    assert wms.stock("SKU1", 100) == (7, ["o1"])
    feed(wms, recalled("o1", 2))
    assert wms.stock("SKU1", 100) == (7, ["o1"])
    [record] = wms.unsaid(600)
    assert (record["available"], record["locks"]) == (10, [])


def test_lock_and_unlock_may_come_in_either_sequence(wms):
    """The later verdict's word about a lock stands; of one verdict, the lock."""
    feed(wms, released("o1", 1), action("o1", 2, "unlock-stock"), action("o1", 1, "lock-stock"))
    assert wms.stock("SKU1", 0) == (9, [])
    feed(wms, action("o1", 3, "lock-stock"), action("o1", 3, "lock-stock"))
    assert wms.stock("SKU1", 0) == (9, ["o1"])


def test_a_command_and_the_action_that_it_comes_from_are_one_lock(wms):
    """What route asked for and `orderstream actions` commands is locked once; the command's end unlocks."""
    feed(wms, released("o1", 1, quantity=3), action("o1", 1, "lock-stock"))
    feed(wms, recalled("o1", 2))

    def command(what: str) -> tuple[str, bytes]:
        return "wms.commands", orjson.dumps(
            {"id": "0" * 32, "order_id": "o1", "verdict_seq": 1, "command": what, "until": None, "why": "rule"}
        )

    assert feed(wms, command("lock")) == ["repeat"]
    assert wms.stock("SKU1", 0) == (7, ["o1"])
    assert feed(wms, command("unlock"), command("lock"), action("o1", 1, "lock-stock")) == ["unlock", "repeat", "repeat"]
    assert wms.stock("SKU1", 0) == (10, [])


def test_stock_is_told_once_and_as_a_whole(wms):
    """After a change the SKU's whole state is told; once told, nothing is."""
    first = wms.unsaid(0)
    assert [(r["sku"], r["available"], r["at"]) for r in first] == [("SKU1", 10, "2026-11-10T00:00:00.000Z")]
    wms.said(["SKU1"])
    feed(wms, released("o1", 1), action("o1", 1, "notify"))
    assert [r["available"] for r in wms.unsaid(1)] == [9]
    wms.said(["SKU1"])
    assert wms.unsaid(2) == []


def test_a_sku_without_a_level_is_never_called_sold_out(wms):
    """An article that the warehouse does not count has no stock record."""
    wms.said(["SKU1"])
    feed(wms, released("o1", 1, sku="SKU99"))
    assert wms.unsaid(0) == []


def test_merge_groups_are_packed_together(wms):
    """Orders of one merge group are one parcel."""
    feed(
        wms, released("o1", 1), released("o2", 1, group="o1"), released("o3", 1), released("o4", 1, group="o1"), recalled("o4", 2)
    )
    assert wms.parcels() == {"o1": ["o1", "o2"], "o3": ["o3"]}
    # one that leaves with o2 is in the parcel that o2 is in
    feed(wms, released("o5", 1, group="o2"))
    assert wms.parcels() == {"o1": ["o1", "o2", "o5"], "o3": ["o3"]}


def test_what_is_picked_leaves_once_and_is_told(wms):
    """Taken, picked, left: each acknowledged once; what left is not packed again and stays out of the stock."""
    feed(wms, released("o1", 1, quantity=3), released("o2", 1, group="o1"))
    assert wms.to_pick(0) == []
    for order in wms.to_pick(2**60):
        assert wms.pick(order, 1000)
        assert not wms.pick(order, 1001)
    boxes = wms.boxes(2000)
    assert [(b.order_id, b.shipment_id, b.unit, b.skus) for b in boxes] == [
        ("o1", "o1.0", 0, {"SKU1": 3}), ("o2", "o1.0", 0, {"SKU1": 1}),
    ]  # fmt: skip
    assert wms.ship("o1", boxes[:1], 3000)
    assert not wms.ship("o1", boxes[:1], 3001)
    assert feed(wms, released("o1", 2, quantity=3)) == ["released"]
    assert wms.to_pick(2**60) == []  # an edit after it left: nothing to pack again
    assert feed(wms, recalled("o1", 3)) == ["recalled"]
    assert (wms.stock("SKU1", 0), wms.to_pick(2**60)) == ((6, []), [])
    told = [(r.topic, r.key, json.loads(r.value).get("effect")) for r in wms.outgoing()]
    assert told == [
        ("wms.acks", "o1", "accepted"), ("wms.acks", "o1", "picked"), ("wms.acks", "o1", "accepted"), ("wms.acks", "o1", "stopped"),
        ("wms.acks", "o2", "accepted"), ("wms.acks", "o2", "picked"), ("wms.shipments", "o1", None),
    ]  # fmt: skip


def test_what_was_recalled_or_stopped_does_not_leave(wms):
    """A recall between picking and shipping, and a box that a check has stopped; the next release begins anew."""
    feed(wms, released("o1", 1), released("o2", 1))
    for order in ("o1", "o2"):
        wms.pick(order, 1000)
    boxes = wms.boxes(2000)
    feed(wms, recalled("o1", 2))
    assert not wms.ship("o1", boxes[:1], 3000)
    wms.stop("o2", "wrong colour")
    assert wms.boxes(2000) == []
    feed(wms, released("o2", 2))
    assert wms.to_pick(2**60) == ["o2"]
    wms.pick("o2", 4000)
    assert [(b.order_id, b.verdict_seq) for b in wms.boxes(5000)] == [("o2", 2)]


def test_a_restart_keeps_what_was_sold(wms, tmp_path):
    """Loading the first levels again changes nothing; a broken line is named."""
    feed(wms, released("o1", 1, quantity=4))
    assert wms.load(tmp_path / "stock.jsonl") == 0
    assert wms.stock("SKU1", 0) == (6, [])
    (tmp_path / "bad.jsonl").write_text('{"sku":"SKU2","available":1,"at":"yesterday"}\n')
    with pytest.raises(BadFile, match="line 1"):
        wms.load(tmp_path / "bad.jsonl")


MOVES = [
    released("o1", 1, quantity=2), recalled("o1", 2), released("o1", 3, quantity=1), released("o2", 1, quantity=4),
    recalled("o3", 2), released("o3", 1, quantity=5), action("o2", 1, "lock-stock"), action("o1", 3, "lock-stock"),
    action("o1", 4, "unlock-stock"),
]  # fmt: skip


@given(st.lists(st.sampled_from(MOVES), max_size=5).flatmap(lambda extra: st.permutations(MOVES + extra)))
def test_no_sequence_or_repetition_changes_the_stock(moves):
    """What is available and who holds it depends on the set of records alone."""
    store = Wms(Path(":memory:"))
    store.db.execute("INSERT INTO levels VALUES ('SKU1', 20)")
    feed(store, *moves)
    assert store.stock("SKU1", 0) == (15, ["o2"])
    store.close()


def test_the_simulated_stock_is_a_file_that_the_wms_takes(tmp_path):
    """The scenario's own stock records load as they are."""
    lines = [r for r in make(50, rate=50, start=1_794_400_000_000).reference if r["kind"] == "stock"]
    path = tmp_path / "stock.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    store = Wms(tmp_path / "wms.sqlite")
    assert store.load(path) == len(lines)
    store.close()


async def test_a_database_that_is_away_when_partitions_come_is_not_read_past():
    """The consumer is told, and ends or begins anew: it never starts where Kafka remembers."""

    class Consumer:
        async def end_offsets(self, assigned):
            return dict.fromkeys(assigned, 10)

    def away(topic: str, partition: int) -> int:
        raise NoDatabase("away")

    resume = Resume(Consumer(), away, "")
    await resume.on_partitions_assigned({TopicPartition("orders.released", 0)})
    assert isinstance(resume.trouble, NoDatabase)


# on a real broker


CRASHING = """
import os, signal, sys, tests.brief
from orderstream.consumers import erp, inbox
real = inbox.Store.take
moment = sys.argv.pop()
count = 0
def take(self, *args):
    global count
    count += 1
    if count == 2 and moment == "before":
        # inside the transaction: effects written, nothing committed
        apply = type(self).apply
        def dying(self, *a):
            apply(self, *a)
            os.kill(os.getpid(), signal.SIGKILL)
        type(self).apply = dying
    done = real(self, *args)
    if count == 2 and moment == "after":
        # effects and position committed here, Kafka not told
        os.kill(os.getpid(), signal.SIGKILL)
    return done
real_gone = inbox.Store.gone
def gone(self, records):
    if moment == "posted":
        # Kafka has what waited in the outbox, and nothing of that is written here
        os.kill(os.getpid(), signal.SIGKILL)
    real_gone(self, records)
inbox.Store.take, inbox.Store.gone = take, gone
sys.exit(erp._main())
"""
SHIPPING = """
import os, signal, sys, tests.brief
from orderstream.consumers import inbox, wms
moment = sys.argv.pop()
real_say, real_ship, real_gone, count = wms.Wms.say, wms.Wms.ship, inbox.Store.gone, 0
def say(self, topic, *rest):
    global count
    real_say(self, topic, *rest)
    count += topic == "wms.shipments"
    if moment == "before" and count == 5:
        # inside the transaction: the order has left and says so, and nothing is committed
        os.kill(os.getpid(), signal.SIGKILL)
def ship(self, *rest):
    done = real_ship(self, *rest)
    if moment == "after" and count == 5:
        # it has left, and Kafka is not told
        os.kill(os.getpid(), signal.SIGKILL)
    return done
def gone(self, records):
    if moment == "posted" and any(one.topic == "wms.shipments" for one in records):
        # Kafka is told, and that is not noted
        os.kill(os.getpid(), signal.SIGKILL)
    real_gone(self, records)
wms.Wms.say, wms.Wms.ship, inbox.Store.gone = say, ship, gone
sys.exit(wms._main())
"""


@pytest.mark.stream
def test_killed_between_effect_and_commit_each_verdict_is_applied_once(fresh_topics, tmp_path):
    """SIGKILL inside and right after a transaction, then a clean run: every order is in its state once, none is missing."""
    settings = fresh_topics(state_dir=tmp_path, metrics_port=0)
    rng = random.Random(5)
    expected, records = {}, []
    for i in range(400):
        order = f"api:main:A{i}"
        records.append(released(order, 1))
        expected[order] = "accepted"
        if rng.random() < 0.2:
            records.append(recalled(order, 2))
            expected[order] = "stopped"
    publish(settings, records[:200])
    for moment in ("before", "after", "posted"):
        dead = subprocess.run([sys.executable, "-c", CRASHING, moment], timeout=90, capture_output=True, check=False)
        assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
        publish(settings, records[200:] + records[:20])

    def applied() -> dict:
        with closing(sqlite3.connect(tmp_path / "erp.sqlite")) as db:
            waiting = db.execute("SELECT count(*) FROM outgoing").fetchone()[0]
            return {} if waiting else dict(db.execute("SELECT order_id, state FROM orders").fetchall())

    run_until([sys.executable, "-m", "orderstream.consumers.erp"], lambda: applied() == expected, 90)
    with closing(sqlite3.connect(tmp_path / "erp.sqlite")) as db:
        repeated = db.execute("SELECT order_id, verdict_seq, count(*) FROM journal GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
        done = {(order, seq): effect for order, seq, effect in db.execute("SELECT order_id, verdict_seq, effect FROM journal")}
    assert repeated == []
    # each effect is acknowledged, as what it was, once or again
    acks = {(one["order_id"], one["verdict_seq"]): one["effect"] for one in read(settings, "erp.acks")}
    assert acks == {key: {"released": "accepted", "recalled": "stopped"}[effect] for key, effect in done.items()}


@pytest.mark.stream
def test_a_warehouse_that_is_killed_ships_each_order_once(fresh_topics, tmp_path):
    """SIGKILL amid shipping, right after it, and between Kafka and the outbox: one parcel an order, none of a recalled one."""
    settings = fresh_topics(state_dir=tmp_path, metrics_port=0)
    records = [released(f"api:main:A{i}", 1, quantity=1 + i % 3) for i in range(120)]
    back = [recalled(f"api:main:A{i}", 2) for i in range(0, 120, 5)]
    publish(settings, records + back)
    plain = [sys.executable, "-m", "orderstream.consumers.wms"]

    def taken() -> bool:
        with closing(sqlite3.connect(tmp_path / "wms.sqlite")) as db:
            try:
                return db.execute("SELECT count(*), sum(released) FROM orders").fetchone() == (120, 96)
            except sqlite3.OperationalError:
                return False  # it is still making its tables

    # all is read before anything is packed: a recall that comes while it packs may come too late, and is the ERP's to intercept
    run_until(plain, taken, 90)
    command = ["--pick-after", "0", "--ship-after", "0"]
    for moment in ("before", "after", "posted"):
        dead = subprocess.run([sys.executable, "-c", SHIPPING, *command, moment], timeout=90, capture_output=True, check=False)
        assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    wanted = {f"api:main:A{i}": 1 + i % 3 for i in range(120) if i % 5}

    def shipped() -> bool:
        with closing(sqlite3.connect(tmp_path / "wms.sqlite")) as db:
            left = {row[0] for row in db.execute("SELECT order_id FROM packing WHERE shipped_at IS NOT NULL")}
            return left == set(wanted) and not db.execute("SELECT count(*) FROM outgoing").fetchone()[0]

    run_until([*plain, *command], shipped, 90)
    parcels = {(one["order_id"], one["shipment_id"], one["unit"]): one["skus"] for one in read(settings, "wms.shipments")}
    assert parcels == {(order, f"{order}.0", 0): {"SKU1": pieces} for order, pieces in wanted.items()}
    picked = {one["order_id"] for one in read(settings, "wms.acks") if one["effect"] == "picked"}
    assert picked == set(wanted)


@pytest.mark.stream
def test_the_wms_tells_its_stock_and_ends_on_sigterm(fresh_topics, tmp_path):
    """Levels and what orders took of them arrive on wms.stock; SIGTERM ends the process with code 0."""
    settings = fresh_topics(state_dir=tmp_path, metrics_port=0)
    (tmp_path / "stock.jsonl").write_text('{"kind":"stock","at":"2026-11-10T00:00:00Z","sku":"SKU1","available":10,"locks":[]}\n')
    publish(settings, [released("o1", 1, quantity=3), action("o1", 1, "lock-stock")])
    seen: list[dict] = []

    def told() -> bool:
        seen[:] = read(settings, "wms.stock")
        return bool(seen) and (seen[-1]["available"], seen[-1]["locks"]) == (7, ["o1"])

    run_until([sys.executable, "-m", "orderstream.consumers.wms", "--stock", str(tmp_path / "stock.jsonl")], told)
    assert (seen[0]["available"], seen[0]["at"]) == (10, "2026-11-10T00:00:00.000Z")


@pytest.mark.stream
def test_a_topic_made_anew_is_refused_not_skipped(fresh_topics, tmp_path):
    """A position past the end of its partition means another topic of the same name: the ERP says so and ends."""
    settings = fresh_topics(state_dir=tmp_path, metrics_port=0)
    store = Erp(tmp_path / "erp.sqlite")
    store.db.execute("INSERT INTO position VALUES ('orders.released', 0, 99)")
    store.close()
    del settings
    ended = subprocess.run(
        [sys.executable, "-m", "orderstream.consumers.erp"], timeout=60, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "was made anew" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_broker_there_is_one_line(tmp_path):
    """No broker: one sentence, its own exit code, no traceback."""
    env = os.environ | {
        "ORDERSTREAM_BROKERS": "127.0.0.1:9",
        "ORDERSTREAM_METRICS_PORT": "0",
        "ORDERSTREAM_STATE_DIR": str(tmp_path),
    }
    for module in ("erp", "wms"):
        ended = subprocess.run(
            [sys.executable, "-m", f"orderstream.consumers.{module}"],
            env=env,
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 4, ended.stderr
        assert "Traceback" not in ended.stderr


def run_until(command: list[str], done, seconds: float = 40) -> None:
    """Run a process until `done()`, then SIGTERM it; it must end by itself with code 0."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:

        def so() -> bool:
            assert child.poll() is None, child.stderr.read().decode()
            return bool(done())

        wait_until(so, "what the process is to do", seconds)
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0, child.stderr.read().decode()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stderr.close()


def publish(settings, records: list[tuple[str, bytes]]) -> None:
    import asyncio

    from aiokafka import AIOKafkaProducer

    async def go() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, acks="all")
        await producer.start()
        for topic, value in records:
            await producer.send(topics.name(topic, settings.topic_prefix), value, json.loads(value)["order_id"].encode())
        await producer.stop()

    asyncio.run(go())


def read(settings, topic: str) -> list[dict]:
    import asyncio

    from aiokafka import AIOKafkaConsumer

    async def go() -> list[dict]:
        consumer = AIOKafkaConsumer(
            topics.name(topic, settings.topic_prefix), bootstrap_servers=settings.brokers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            got = []
            while batch := await consumer.getmany(timeout_ms=400):
                got += [json.loads(r.value) for records in batch.values() for r in records]
            return got
        finally:
            await consumer.stop()

    return asyncio.run(go())


def test_a_tombstone_takes_the_record_and_leaves_the_number(tmp_path):
    """What an order said of a person is overwritten in the ERP's file; a verdict from before it is still an old one."""
    erp = Erp(tmp_path / "erp.sqlite")
    topic, value = released("o1", 2, sku="欧阳问渠")
    feed(erp, (topic, value), released("o2", 1))
    assert erp.take(topic, 0, [(2, Tombstone("o1")), (3, Tombstone("nobody's"))]) == ["forgotten", "forgotten"]
    assert feed(erp, released("o1", 1), released("o1", 2), recalled("o1", 3)) == ["old", "repeat", "recalled"]
    assert erp.states() == {"accepted": 1, "stopped": 1}
    files = b"".join(path.read_bytes() for path in tmp_path.glob("erp.sqlite*"))
    assert b"SKU1" in files
    assert "欧阳问渠".encode() not in files
    erp.close()
