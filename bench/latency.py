"""Webhook to verdict, paced, everything on this machine: the demo's own line, its latencies after a warm-up.

    python bench/latency.py [--rate 100] [--seconds 60] [--warm 15]

Latency is from intake's received_at to the broker's append time of an order's first verdict (ms).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from orderstream.demo import runner
from orderstream.demo.tally import Tally
from orderstream.settings import Settings


class Timed(Tally):
    """Remembers when each order was received, so that the warm-up can be left out."""

    seen: list[tuple[int, int]] = []  # noqa: RUF012  one run a process

    def verdict(self, record: Mapping[str, Any], appended_at: int) -> None:
        if record["verdict_seq"] == 1:
            received = int(record["timings"]["received_at"])
            self.seen.append((received, max(0, appended_at - received)))
        super().verdict(record, appended_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=15, help="seconds at the rate that are not counted")
    asked = parser.parse_args()
    runner.Tally = Timed  # type: ignore[misc]
    runner.run(Settings.load(), orders=int(asked.rate * (asked.seconds + asked.warm)), rate=asked.rate)
    start = min(at for at, _ in Timed.seen) + int(asked.warm * 1000)
    part = sorted(ms for at, ms in Timed.seen if start <= at < start + asked.seconds * 1000)

    def share(q: float) -> int:
        return part[min(len(part) - 1, int(len(part) * q))]

    figures = {"p50_ms": share(0.5), "p90_ms": share(0.9), "p99_ms": share(0.99), "max_ms": part[-1]}
    print(json.dumps({"rate": asked.rate, "seconds": asked.seconds, "measured": len(part), **figures}))


if __name__ == "__main__":
    main()
