"""`orderstream downstream reconcile` on a real Kafka and PostgreSQL: from raw records and acknowledgements to the CSV."""

from __future__ import annotations

import csv

import pytest

from orderstream import times
from orderstream.board.store import connect
from tests.downstream.conftest import publish, publish_pack
from tests.downstream.test_process import SECRETS, acked, released, verdict
from tests.stream.line import send
from tests.waiting import wait_until

AT = "2026-11-11T12:00:00+08:00"


def raw(number: str, price: str) -> dict:
    body = {"order_id": number, "created_at": AT, "currency": "CNY", "lines": [{"code": "c1", "quantity": 1, "price": price}]}
    return {"channel": "api", "shop": "main", "received_at": AT, "body": body}


def judged(order: str, pack: str) -> tuple[str, dict]:
    topic, record = verdict(order, 1, pack, "released")
    return topic, {**record, "timings": {"created_at": times.parse(AT)}}


@pytest.mark.stream
def test_a_day_s_differences_are_a_csv_to_the_last_coin(fresh_topics, database, run, tmp_path):
    """One order that agrees, one booked a fen short, one that the ERP never acknowledged, one that nobody judged."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    pack = publish_pack(settings)
    a, b, c, d = (f"api:main:A{n}" for n in range(4))
    send(settings, [raw(f"A{n}", f"{100 + n}.00") for n in range(4)])
    publish(
        settings,
        judged(a, pack), released(a, 1, pack, total=10_000), acked("erp", a, 1, currency="CNY", total=10_000),
        judged(b, pack), released(b, 1, pack, total=10_100), acked("erp", b, 1, currency="CNY", total=10_099),
        judged(c, pack), released(c, 1, pack, total=10_200),
    )  # fmt: skip
    env = {"ORDERSTREAM_DATABASE": database}
    watch = run("downstream", env=env).up()

    def read() -> bool:
        with connect(database) as db:
            acks = db.execute("SELECT count(*) AS n FROM board.acks").fetchone()
            flows = db.execute("SELECT count(*) AS n FROM board.flows WHERE flow->'said' IS NOT NULL").fetchone()
        return (acks["n"], flows["n"]) == (2, 3)

    wait_until(read, watch.said)
    out = tmp_path / "diff.csv"
    done = run("downstream", "reconcile", "--day", "2026-11-11", "--out", str(out), env=env)
    assert done.child.wait(120) == 0, done.said()
    with out.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["order_id"]: row for row in csv.DictReader(file)}
    assert {order: (row["kind"], row["expected"], row["found"], row["difference"]) for order, row in rows.items()} == {
        b: ("booked-differs", "101.00", "100.99", "-0.01"),
        c: ("not-acknowledged", "102.00", "", ""),
        d: ("unjudged", "103.00", "", ""),
    }
    with connect(database) as db:
        [kept] = db.execute("SELECT day, channel, shop, currency, figures, differences FROM board.reconciliations").fetchall()
    assert (str(kept["day"]), kept["channel"], kept["shop"], kept["currency"]) == ("2026-11-11", "api", "main", "CNY")
    assert {name: (one["count"], one["amount"]) for name, one in kept["figures"].items()} == {
        "came": (4, 40_600), "unpaid": (0, 0), "withdrawn": (0, 0), "held": (0, 0), "released": (3, 30_300),
        "unjudged": (1, 10_300), "applied": (2, 20_099), "refunds": (0, 0),
    }  # fmt: skip
    assert len(kept["differences"]) == 3
    watch.stop()
