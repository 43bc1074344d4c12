"""Toy hops, run as real worker processes: `python tests/engine/toy.py '{"app": …}'`.

`Book` numbers ids per key in the order in which it meets them. Two numberings of one id, or one number for two ids, are
exactly what a worker that publishes before it remembers would leave behind after a crash.
"""

import asyncio
import contextlib
import json
import logging
import random
import sys
import time
from collections.abc import Iterator, Sequence
from zlib import crc32

from orderstream.engine import Effects, Hop, Record, Reference, Send, Tuning, Watch, attach, make_app, run


class Book:
    def __init__(self, partition: int, config: dict) -> None:
        self.partition = partition
        self.config = config
        self.numbers: dict[str, int] = {}
        self.idled = 0

    def process(self, records: Sequence[Record]) -> Effects:
        if "slow_ms" in self.config:
            time.sleep(self.config["slow_ms"] / 1000)
        new = []
        sends = []
        for record in records:
            # what a state does with bytes that it cannot read is its own: here they are an id like any other
            name = (record.value or b"").decode(errors="backslashreplace")
            if name == "raise":
                raise ValueError("a bug in the toy")
            if name not in self.numbers:
                self.numbers[name] = len(self.numbers)
                new.append([name, self.numbers[name]])
            value = json.dumps({"id": name, "n": self.numbers[name], "p": self.partition}).encode()
            if name == "huge":
                value = random.randbytes(100_000)  # not to be compressed under the limit
            sends.append(Send(self.config["out"], value, key=name.encode(), public=True))
        self.idled = 0
        return Effects(sends, json.dumps(new).encode() if new else None)

    def restore(self, blob: bytes) -> None:
        for name, number in json.loads(blob):
            self.numbers[name] = number

    def dump(self) -> Iterator[bytes]:
        for one in list(self.numbers.items()):
            yield json.dumps([one]).encode()

    def idle(self) -> Effects | None:
        if self.idled or not self.config.get("idle"):
            return None
        self.idled += 1
        return Effects(
            [Send(self.config["idle"], json.dumps([self.partition, len(self.numbers)]).encode(), partition=self.partition)]
        )


class Relay:
    def __init__(self, partition: int, config: dict) -> None:
        self.partition = partition
        self.config = config

    def process(self, records: Sequence[Record]) -> Effects:
        mid, partitions = self.config["mid"], self.config["partitions"]
        return Effects([Send(mid, r.value, partition=crc32(r.value) % partitions) for r in records])

    def restore(self, blob: bytes) -> None:
        raise AssertionError("a relay remembers nothing")

    def dump(self) -> Iterator[bytes]:
        return iter(())

    def idle(self) -> Effects | None:
        return None


def main(config: dict) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    def tell(**what: object) -> None:
        print(json.dumps(what), flush=True)  # noqa: T201 - how the test hears of it

    watch = Watch(
        recovered=lambda hop, p, n, s: tell(event="recovered", hop=hop, partition=p, records=n, seconds=s),
        rebalanced=lambda n: tell(event="rebalanced", partitions=n),
        send_failed=lambda hop, error: tell(event="send_failed", hop=hop, error=repr(error)),
    )
    if config.get("batches"):
        watch.batch = lambda hop, topic, n, s: tell(event="batch", hop=hop, topic=topic, records=n)
    app = make_app(
        config["app"],
        config["brokers"],
        config["datadir"],
        config["partitions"],
        watch=watch,
        tuning=Tuning(
            idle_interval_s=0.2,
            session_timeout_s=config.get("session_s", 6.0),
            heartbeat_s=0.5,
            max_poll_records=config.get("poll", 500),
            request_timeout_s=config.get("request_s", 30.0),
            stop_s=config.get("stop_s", 20.0),
        ),
    )
    if config.get("raw"):
        attach(app, Hop("relay", [config["raw"]], lambda p: Relay(p, config), remembers=False))
    attach(app, Hop("book", config["book"], lambda p: Book(p, config)))
    if config.get("reference"):
        app.engine.references.append(
            Reference(config["reference"], lambda key, value, offset: tell(event="reference", value=value and value.decode()))
        )
    if config.get("hang"):

        async def hang() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

        app.stop = hang
    return run(app)


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
