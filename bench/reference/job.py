"""The reference job as the product runs it: the shipped hops, kernel, engine, explanation and metrics; only the edges differ.

An engine command of bench/engines.py: reads `ref.raw`, writes `ref.released`, `ref.review`, `ref.frozen`
in the job's format. What is special here: a channel that reads the job's orders, a pack with its rules (`pack/`), and public
records in its format, beside the product's own orders.verdicts.

Environment: BENCH_BROKER, BENCH_CATALOGUE, BENCH_APP, BENCH_STATE, BENCH_PROCS, as bench/engines.py sets them, and BENCH_PARTITIONS
(8). With BENCH_METRICS a worker serves its metrics at ORDERSTREAM_METRICS_PORT.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import orjson

from agents import detect
from agents.app import COLLECT, TUNING, Knowledge, watch
from agents.normalise import Names, NormaliseState
from agents.route import RouteState, encode
from orderstream import channels, topics
from orderstream.catalogue import Catalogue, read_article
from orderstream.engine import Hop, Record, Send, attach, make_app, run
from orderstream.identity import Keys
from orderstream.metrics import Metrics, serve
from orderstream.normalise import Books
from orderstream.orders import Address, Buyer, Line, Order, Parsed, Payment, Raw, Rejected
from orderstream.route import Public
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import Settings

HERE = Path(__file__).parent
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "8"))
RAW = "ref.raw"
IDS = "ref:ref:"
"""How the product's ids of the job's orders begin."""
HEAD = b'{"order_id":"'
TOPICS = {f"orders.{where}": f"ref.{where}" for where in ("released", "review", "frozen")}


class Reference:
    """The job's orders: integer cents, event time in seconds; whole and valid, as the generator makes them."""

    id = "ref"
    headers: tuple[str, ...] = ()
    accepted = channels.Reply()

    def verify(self, push: channels.Push, secrets: Sequence[bytes], now_ms: int) -> channels.Proved:
        raise channels.Refused("not-a-webhook")

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        return None

    def thin(self, raw: Raw) -> bool:
        return False

    def parse(self, raw: Raw) -> Parsed:
        try:
            o = orjson.loads(raw.body)
            lines = tuple(
                Line(
                    str(n),
                    line["code"],
                    line["qty"],
                    line["price"],
                    # the job compares main lines only, and lets gifts share a sku: both as its oracle has it
                    list_price=None if line["gift"] else line["list_price"],
                )
                for n, line in enumerate(o["lines"], 1)
            )
            created = round(o["created_at"] * 1000)
            only_gifts = all(line["gift"] for line in o["lines"])
            return Order(
                f"ref:ref:{o['order_id']}",
                "ref",
                "ref",
                o["order_id"],
                1,
                "paid",
                created,
                created,
                "CNY",
                sum(line.quantity * line.price for line in lines),
                lines,
                buyer=Buyer(o["user"], device=o["device"], ip=o["ip"]),
                payment=Payment(o["payment"]),
                ship_to=Address(detail=o["address"]),
                remark=o["remark"],
                tags=("only-gifts",) if only_gifts else (),
            )
        except (ValueError, KeyError, TypeError) as error:
            return Rejected("raw:?", "bad-order", str(error))


class Intake(NormaliseState):
    """Reads records that have no envelope: an order was received when it was created."""

    def _raw(self, record: Record) -> Raw:
        body = record.value or b""
        at = body.index(b'"created_at"')
        seconds = float(body[body.index(b":", at) + 1 : body.index(b",", at)])
        return Raw("ref", "ref", round(seconds * 1000), body)


class Output(RouteState):
    """Says what the product says, and the order with its skus and rules where the job wants it."""

    def _say(self, public: list[Public], sends: list[Send]) -> None:
        super()._say([one for one in public if one.topic == "orders.verdicts"], sends)
        for one in public:
            topic = TOPICS.get(one.topic)
            if topic is None or one.value is None:
                continue
            rules = sorted([s["rule"] for s in one.value["signals"]])
            document = one.value["order"]
            if "unknown-sku" in rules:
                order = msgspec.json.decode(document)
                for line in order["lines"]:
                    line.setdefault("sku", None)
                document = msgspec.json.encode(order)
            # what is whole is not read to be written again: the job's own id instead of the product's, and its rules behind
            number = one.order[len(IDS) :].encode()
            rest = memoryview(document)[len(HEAD) + len(one.order) : -1]
            value = b"".join((HEAD, number, rest, b',"rules":', encode(rules) if rules else b"[]", b"}"))
            sends.append(Send(topic, value, number, public=True))


def worker() -> int:
    env = os.environ
    channels.registry()["ref"] = Reference()
    settings = Settings.load(brokers=env["BENCH_BROKER"], topic_prefix=env["BENCH_APP"] + ".", partitions=PARTITIONS, key="bench")
    codes: dict[str, str] = orjson.loads(Path(env["BENCH_CATALOGUE"]).read_bytes())
    articles: dict[str, list[str]] = {}
    for code, sku in codes.items():
        articles.setdefault(sku, []).append(code)
    catalogue = Catalogue(
        read_article(orjson.dumps({"sku": sku, "name": sku, "codes": [{"channel": "ref", "code": c} for c in found]}))
        for sku, found in articles.items()
    )
    book = PackBook([load(HERE / "pack")])
    metrics = Metrics()
    names = Names(settings.topic_prefix)
    keys = Keys(settings.hash_key())
    books = Books(catalogue, book.at)
    hops = [
        Hop("normalise", [RAW], lambda p: Intake(p, PARTITIONS, names, books, keys, "CNY", metrics)),
        Hop("detect", [names.facts], detect.factory(PARTITIONS, names, book.pack, settings.timezone, metrics)),
        Hop("route", [names.dossiers], lambda p: Output(p, PARTITIONS, names, book.pack, metrics)),
    ]
    watching = watch(metrics, Knowledge(metrics), {hop.name: hop.topics for hop in hops})
    app = make_app(settings.group, settings.brokers or "", env["BENCH_STATE_OWN"], PARTITIONS, watch=watching, tuning=TUNING)
    for hop in hops:
        attach(app, hop)
    gc.set_threshold(*COLLECT)
    if "BENCH_METRICS" in env:
        serve(metrics, settings.metrics_port)
    code = run(app)
    batches = {hop.name: _count(metrics, hop.name) for hop in hops}
    (Path(env["BENCH_STATE_OWN"]) / "batches.json").write_bytes(orjson.dumps(batches))
    return code


def _count(metrics: Metrics, hop: str) -> int:
    """How many batches a hop has taken."""
    samples = next(iter(metrics.batch_size.labels(hop).collect())).samples
    return int(next(sample.value for sample in samples if sample.name.endswith("_count")))


def main() -> int:
    """Makes the inner topics, then runs BENCH_PROCS workers until told to stop."""
    env = os.environ
    settings = Settings.load(brokers=env["BENCH_BROKER"], topic_prefix=env["BENCH_APP"] + ".", partitions=PARTITIONS)
    topics.now(topics.apply(env["BENCH_BROKER"], settings))
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "worker"], env={**env, "BENCH_STATE_OWN": str(Path(env["BENCH_STATE"]) / f"w{n}")}
        )
        for n in range(int(env.get("BENCH_PROCS", "2")))
    ]
    signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in processes])
    return max(p.wait() for p in processes)


if __name__ == "__main__":
    sys.exit(worker() if sys.argv[1:] == ["worker"] else main())
