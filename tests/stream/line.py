"""The real line for tests: topics, reference data, worker processes on a real broker, fed from replay items."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orderstream import catalogue, kafka, topics, wire
from orderstream.backtest.live import final_lines
from orderstream.orders import Raw
from orderstream.replay import body_bytes
from orderstream.rules import cli as rules
from orderstream.settings import Settings
from orderstream.times import parse

STANDARD = Path(__file__).parents[2] / "rules" / "standard"


class Workers:
    """Worker processes, each with a state folder of its own; `kill` is SIGKILL."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.live: dict[int, subprocess.Popen[bytes]] = {}
        self.env: dict[str, str] = {}
        """Settings of the workers started next."""
        self.prelude = ""
        """Code that they run first: a release that is broken in some way."""

    def start(self, number: int) -> None:
        env = {
            **os.environ,
            "ORDERSTREAM_BROKERS": str(self.settings.brokers),
            "ORDERSTREAM_TOPIC_PREFIX": self.settings.topic_prefix,
            "ORDERSTREAM_METRICS_PORT": "0",
            "ORDERSTREAM_STATE_DIR": str(self.folder / f"w{number}"),
            "ORDERSTREAM_LOG_LEVEL": "WARNING",
            **self.env,
        }
        code = self.prelude + (
            "\nfrom agents.app import run_worker; from orderstream.settings import Settings; s = Settings.load();"
            " raise SystemExit(run_worker(s, s.brokers))"
        )
        log = (self.folder / f"w{number}.log").open("ab")
        self.live[number] = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        self.live[number].send_signal(signal.SIGKILL)
        self.live.pop(number).wait()

    def stop(self) -> None:
        for process in self.live.values():
            process.terminate()
        for process in self.live.values():
            process.wait(30)
        self.live.clear()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.folder.glob("w*.log")))


def prepare(settings: Settings, articles: Iterable[dict[str, Any]], pack: Path = STANDARD) -> None:
    """Loads a catalogue and publishes a pack that has always been active."""
    topic = topics.name("catalog.skus", settings.topic_prefix)
    lines = []
    for article in articles:
        at, _ = catalogue.read_article(json.dumps(article))
        lines.append((topic, f"{article['sku']}|{at}".encode(), json.dumps(article).encode()))
    kafka.send_all(str(settings.brokers), lines)
    rules.publish(settings, str(settings.brokers), pack)


def send(settings: Settings, records: Iterable[dict[str, Any]]) -> int:
    """Puts replay records where adapters and the WMS would. Returns how many."""
    import asyncio

    return asyncio.run(_send(settings, list(records)))


async def _send(settings: Settings, records: list[dict[str, Any]]) -> int:
    from aiokafka import AIOKafkaProducer

    from orderstream.channels import channel
    from orderstream.engine.partitioner import Partitioner

    prefix = settings.topic_prefix
    producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, acks="all", partitioner=Partitioner(), linger_ms=5)
    await producer.start()
    futures = []
    for record in records:
        kind = record.get("kind", "raw")
        if kind == "raw":
            headers = {k.lower(): v for k, v in record.get("headers", {}).items()}
            body = body_bytes(record["body"]) if "body" in record else __import__("base64").b64decode(record["body_base64"])
            raw = Raw(record["channel"], record["shop"], parse(record["received_at"]), body, headers)
            key = channel(raw.channel).key(raw.shop, body, headers) or "raw"
            futures.append(
                await producer.send(topics.raw(raw.channel, prefix), body, key=key.encode(), headers=wire.raw_headers(raw))
            )
        else:
            name, key = {
                "stock": ("wms.stock", record.get("sku")),
                "outcome": ("orders.outcomes", record.get("order_id")),
            }.get(kind, ("reference.updates", record.get("key") or record.get("pair") or record.get("sku")))
            value = json.dumps(record).encode()
            futures.append(await producer.send(topics.name(name, prefix), value, key=str(key).encode()))
    for future in futures:
        await future
    await producer.stop()
    return len(futures)


def await_lines(settings: Settings, wanted: dict[str, bytes], workers: Workers, seconds: float) -> dict[str, bytes]:
    """The live final lines, once they are the wanted ones, or have not changed for a while, or the time is over."""
    deadline = time.monotonic() + seconds
    got: dict[str, bytes] = {}
    seen, since = -1, time.monotonic()
    while time.monotonic() < deadline:
        dead = [n for n, p in workers.live.items() if p.poll() is not None]
        assert not dead, f"worker {dead} ended: {workers.logs()}"
        # reading every verdict takes from the workers what they need: only when the topic stands still
        count = kafka.count(str(settings.brokers), topics.name("orders.verdicts", settings.topic_prefix))
        if count != seen:
            seen, since = count, time.monotonic()
        elif count >= len(wanted) * 0.9 and time.monotonic() - since > 1:
            got = {order: line.encode() for order, line in final_lines(settings, str(settings.brokers)).items()}
            if got == wanted or time.monotonic() - since > 30:
                return got
        time.sleep(0.3)
    return got
