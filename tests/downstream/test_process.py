"""The process on a real Kafka and a real PostgreSQL: what stands on the wall, what a warehouse is answered, what a crash changes."""

from __future__ import annotations

import time
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson
import psycopg
import pytest

from orderstream.board.store import connect
from orderstream.consumers.signature import sign
from orderstream.downstream import store
from tests.downstream.conftest import publish, publish_pack, values
from tests.waiting import wait_until

SECRETS = '{"wms:check": ["new", "old"], "erp:deliver": ["new", "old"]}'


def released(order: str, seq: int, pack: str, *units: dict[str, int], total: int = 100) -> tuple[str, dict]:
    return "orders.released", {
        "order_id": order, "verdict_seq": seq, "verdict": "released", "level": "none", "score": 0, "pack": pack, "signals": [],
        "order": {"order_id": order, "currency": "CNY", "total": total},
        "units": [{"kind": "own", "skus": unit, "place": "hz", "with_lines": ["1"], "amount": total} for unit in units or ({"A": 1},)],
        "filled": [], "by": "machine",
    }  # fmt: skip


def recalled(order: str, seq: int, pack: str) -> tuple[str, dict]:
    return "orders.recalled", {"order_id": order, "verdict_seq": seq, "verdict": "review", "pack": pack, "cause": "signals"}


def verdict(order: str, seq: int, pack: str, what: str, status: str = "paid", *, held: bool = False) -> tuple[str, dict]:
    return "orders.verdicts", {
        "order_id": order, "verdict_seq": seq, "verdict": what, "status": status, "held": held, "pack": pack, "timings": {"created_at": 1},
    }  # fmt: skip


def acked(system: str, order: str, seq: int, effect: str = "accepted", **fields) -> tuple[str, dict]:
    return f"{system}.acks", {"order_id": order, "verdict_seq": seq, "at": 1, "effect": effect, **fields}


def shipped(order: str, seq: int, shipment: str, skus: dict[str, int], **fields) -> tuple[str, dict]:
    return "wms.shipments", {
        "shipment_id": shipment, "order_id": order, "verdict_seq": seq, "at": int(time.time() * 1000), "skus": skus, **fields
    }  # fmt: skip


def on_the_wall(database: str) -> dict[str, str]:
    """Order -> kind; two kinds of one order are joined."""
    found: dict[str, str] = {}
    with connect(database) as db:
        for one in store.standing(db):
            found[one.order_id] = "+".join(sorted(filter(None, [found.get(one.order_id), one.kind])))
    return found


def asked(port: int, record: dict, secret: bytes = b"new", *, now: int | None = None, tamper: bytes = b"") -> httpx.Response:
    body = orjson.dumps(record)
    key = f"{record['order_id']}/{record['verdict_seq']}"
    headers = sign([secret], key, body, int(time.time()) if now is None else now)
    return httpx.post(f"http://127.0.0.1:{port}/check", content=body + tamper, headers=headers, trust_env=False)


@pytest.mark.stream
def test_what_is_overdue_stands_on_the_wall_and_leaves_it(fresh_topics, database, run):
    """Not acknowledged, acknowledged and not picked, paid and kept back, refused; and gone again when it is done."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    pack = publish_pack(settings, acknowledged={"erp": "300ms", "wms": "300ms"}, picked="400ms", stuck="300ms")
    o = [f"api:main:A{n}" for n in range(7)]
    publish(
        settings,
        released(o[0], 1, pack), acked("erp", o[0], 1), acked("wms", o[0], 1, "picked"),
        released(o[1], 1, pack), acked("wms", o[1], 1, "picked"),
        released(o[2], 1, pack), acked("erp", o[2], 1), acked("wms", o[2], 1),
        verdict(o[3], 1, pack, "review"),
        verdict(o[4], 1, pack, "review", "created"),
        released(o[5], 1, pack), acked("erp", o[5], 1, "refused", reason="no such article"), acked("wms", o[5], 1, "picked"),
        released(o[6], 1, pack), acked("erp", o[6], 1), acked("wms", o[6], 1, "picked"), recalled(o[6], 2, pack),
    )  # fmt: skip
    process = run("downstream", env={"ORDERSTREAM_DATABASE": database}).up()
    wanted = {
        o[1]: "unacknowledged-erp", o[2]: "unpicked", o[3]: "stuck", o[5]: "refused-erp",
        o[6]: "unacknowledged-erp+unacknowledged-wms",
    }  # fmt: skip
    wait_until(lambda: on_the_wall(database) == wanted, lambda: f"{on_the_wall(database)} {process.said()}")
    with connect(database) as db:
        lines = {(row["order_id"], row["kind"]) for row in db.execute("SELECT order_id, kind FROM board.events").fetchall()}
    assert {(o[1], "unacknowledged-erp"), (o[3], "stuck")} <= lines
    publish(
        settings,
        acked("erp", o[1], 1), acked("wms", o[2], 1, "picked"), verdict(o[3], 2, pack, "released"), acked("erp", o[6], 2, "stopped"),
        acked("erp", o[5], 1), ("wms.acks", {"order_id": "nobody's", "verdict_seq": "x"}), acked("wms", o[6], 2, "stopped"),
    )  # fmt: skip
    wait_until(lambda: on_the_wall(database) in ({}, {o[5]: "unpicked"}), lambda: f"{on_the_wall(database)} {process.said()}")
    process.stop()
    assert "wms.acks" in process.said()  # what could not be read was said


@pytest.mark.stream
def test_a_wrong_parcel_is_stopped_before_it_leaves_and_told_once_after_it(fresh_topics, database, run):
    """The warehouse is answered within 100 ms; what left wrong is one outcome, whatever is killed and read again."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    pack = publish_pack(settings)
    good, bad, gone = "api:main:A1", "api:main:A2", "api:main:A3"
    publish(
        settings,
        released(good, 1, pack, {"RED": 2}),
        released(bad, 1, pack, {"RED": 2}),
        released(gone, 1, pack),
        recalled(gone, 2, pack),
    )
    process = run("downstream", env={"ORDERSTREAM_DATABASE": database})
    port = process.port()
    right = shipped(good, 1, "P1", {"RED": 2})[1]
    wait_until(lambda: asked(port, right).status_code == 200 and asked(port, right).json()["go"], process.said)
    answer = asked(port, {**right, "skus": {"RED": 1, "BLUE": 1}}, b"old").json()
    assert (answer["go"], answer["verdict_seq"]) == (False, 1)
    assert answer["differences"] == [{"kind": "wrong-variant", "sku": "BLUE", "pieces": 1, "instead_of": "RED"}]
    assert answer["why"] == ["BLUE ×1 装错，应为 RED · BLUE ×1 is in it instead of RED"]
    assert asked(port, {**right, "order_id": gone}).json()["differences"] == [{"kind": "not-released"}]
    assert asked(port, {**right, "order_id": "api:main:A9"}).json()["go"] is False
    assert asked(port, right, b"guessed").status_code == 401
    assert asked(port, right, tamper=b" ").status_code == 401
    assert asked(port, right, now=int(time.time()) - 400).status_code == 401
    assert asked(port, {**right, "skus": {"RED": "two"}}).status_code == 400
    times = []
    with httpx.Client(trust_env=False) as http:
        for _ in range(60):
            body = orjson.dumps(right)
            headers = sign([b"new"], f"{good}/1", body, int(time.time()))
            began = time.perf_counter()
            assert http.post(f"http://127.0.0.1:{port}/check", content=body, headers=headers).json()["go"]
            times.append(time.perf_counter() - began)
    assert sorted(times)[30] < 0.1, times

    publish(settings, shipped(good, 1, "P1", {"RED": 2}), shipped(bad, 1, "P2", {"RED": 1}))
    wait_until(lambda: values(settings, "orders.outcomes"), process.said)
    process.kill()
    publish(settings, shipped(bad, 1, "P2", {"RED": 1}))
    with connect(database) as db:
        # Kafka had them and we had not noted it: a crash between the two
        db.execute("UPDATE board.downstream_outbox SET sent_at = NULL")
    again = run("downstream", env={"ORDERSTREAM_DATABASE": database}).up()
    wait_until(lambda: len(values(settings, "orders.outcomes")) >= 2, again.said)
    again.stop()
    told = values(settings, "orders.outcomes")
    assert {one["id"] for one in told} == {told[0]["id"]}
    assert (told[0]["order_id"], told[0]["outcome"]) == (bad, "wrong-shipment")
    assert told[0]["details"]["differences"] == [{"kind": "missing-pieces", "sku": "RED", "pieces": 1}]
    assert on_the_wall(database) == {bad: "wrong-shipment"}


KILLED = """
import os, signal
from orderstream.downstream import store
real, count = store.advance, 0
def dying(db, reader, topic, partition, following):
    global count
    real(db, reader, topic, partition, following)
    count += 1
    if count == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
store.advance = dying
"""


@pytest.mark.stream
def test_killed_amid_its_transactions_it_loses_and_doubles_nothing(fresh_topics, database, run):
    """SIGKILL with everything written and nothing committed, again and again: the flows end as if nothing had happened."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    pack = publish_pack(settings, acknowledged={"erp": "24h"})
    records = []
    for n in range(60):
        order = f"api:main:A{n}"
        records += [released(order, 1, pack), acked("erp", order, 1), shipped(order, 1, f"P{n}", {"A": 1 + n % 2})]
    publish(settings, *records)
    for count in (1, 3):
        run("downstream", env={"ORDERSTREAM_DATABASE": database}, prelude=KILLED.format(count=count)).dies()
    process = run("downstream", env={"ORDERSTREAM_DATABASE": database})
    wrong = {f"api:main:A{n}" for n in range(1, 60, 2)}
    wait_until(lambda: {v["order_id"] for v in values(settings, "orders.outcomes")} == wrong, process.said)
    wait_until(lambda: on_the_wall(database) == dict.fromkeys(wrong, "wrong-shipment"), process.said)
    process.stop()
    assert len(values(settings, "orders.outcomes")) == len(wrong)


@pytest.mark.stream
def test_postgres_away_is_a_pause_and_nobody_is_told_go(fresh_topics, database, run):
    """Its connections are cut and refused: the process waits, /check is 503, and afterwards everything is read."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    pack = publish_pack(settings)
    publish(settings, released("api:main:A1", 1, pack))
    process = run("downstream", env={"ORDERSTREAM_DATABASE": database})
    port = process.port()
    right = shipped("api:main:A1", 1, "P1", {"A": 1})[1]
    wait_until(lambda: asked(port, right).status_code == 200 and asked(port, right).json()["go"], process.said)
    parts = urlsplit(database)
    name = parts.path.removeprefix("/")
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        assert asked(port, right).status_code == 503
        publish(settings, recalled("api:main:A1", 2, pack))
        wait_until(lambda: "PostgreSQL" in process.said(), process.said)
        assert process.child.poll() is None
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    wait_until(lambda: asked(port, right).status_code == 200 and not asked(port, right).json()["go"], process.said)
    process.stop()


def test_nobody_is_told_go_by_who_has_not_read_to_the_end(database):
    """Without a word on each partition of released and recalled within ten seconds nothing is fresh."""
    topics = ("orders.released", "orders.recalled")
    with connect(database) as db:
        store.seen(db, store.READER, [(topic, 0) for topic in topics], 95_000)
        assert store.fresh(db, 100_000, 1)
        assert not store.fresh(db, 105_000, 1)
        # a partition that nobody has read yet
        assert not store.fresh(db, 100_000, 2)
        store.advance(db, store.READER, topics[0], 1, 5)
        store.advance(db, store.READER, topics[1], 1, 5)
        assert not store.fresh(db, 100_000, 2)
        store.seen(db, store.READER, [(topic, 1) for topic in topics], 95_001)
        assert store.fresh(db, 100_000, 2)
