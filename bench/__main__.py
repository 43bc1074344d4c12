"""One command for all figures: starts brokers, makes orders, runs, prints a table, writes JSON.

    python -m bench [--only reference,hot,pack,backlog,backtest,intake,recovery,growth] [--orders 50000] [--peers FOLDER]
                    [--compiled] [--rates 200,1000] [--seconds 30] [--times 1] [--out build/bench.json]

With --compiled the product runs a second time, its hops compiled (`make compiled`). With --peers other engines of the reference job
run in turn with ours, on the same orders: a folder with `<engine>/run.sh` in it (bench/engines.py says what it gets). Machines
differ from hour to hour: compare only rows of one run.
The exit code is 1 where one of our rows lacks an order, or judges one otherwise than the oracle.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from bench import engines, growth, rig, variants
from orderstream import broker, kafka
from orderstream.demo.processes import terminable
from orderstream.errors import UserError

ALL = {**variants.VARIANTS, "growth": growth.measure}
COLUMNS = {
    "per_second": "单/秒 · orders/s",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "cpu_us": "CPU µs",
    "broker_us": "broker µs",
    "memory_mb": "MB",
    "bytes_per_order": "B/order",
    "agreement": "一致 · agreement",
    "missing": "缺 · missing",
}
SHOWN = {"variant", "engine", "orders", "rate", *COLUMNS}
REPO = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """What this ran on."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6),
        "kernel": platform.release(),
        "load_before": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Of what was measured."""
    found = {name: version(name) for name in ("faust-streaming", "aiokafka", "msgspec", "orjson", "uvloop")}
    # builds of one version differ by a tenth: with profile-guided optimisation, as distributions and images have it, or without
    python = f"{platform.python_version()} ({', '.join(platform.python_build())}, {platform.python_compiler()})"
    return {"orderstream": commit(REPO), "python": python, "kafka": broker.kafka_version(), **found}


def commit(checkout: Path) -> str:
    """The commit of a checkout, with a + where something has been changed since."""
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or version("orderstream")


def sound(row: Mapping[str, Any]) -> bool:
    """Whether a row of ours lacks nothing and agrees."""
    return row["engine"] not in engines.OURS or (not row.get("missing") and row.get("agreement", 1.0) == 1.0)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table; what fits no column stands below it."""
    console = rig.console()
    table = Table(title_justify="left")
    for heading in ("", "engine", "orders", *COLUMNS.values()):
        table.add_column(heading, justify="left" if heading in {"", "engine"} else "right")
    for row in rows:
        what = row["variant"] + (f" {row['rate']:g}/s" if "rate" in row else "")
        table.add_row(what, row["engine"], f"{row['orders']:,}", *(_text(name, row.get(name)) for name in COLUMNS))
    console.print(table)
    for row in rows:
        rest = "  ".join(f"{name} {value}" for name, value in row.items() if name not in SHOWN and value not in (0, None))
        if rest:
            console.print(f"{row['variant']} {row['engine']}: {rest}", highlight=False, soft_wrap=True, style="dim")


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "agreement":
        # 99.99 % is not all, and must not look like it
        return "100 %" if value == 1.0 else f"{min(value * 100, 99.99):.2f} %"
    return f"{value:,.0f}" if isinstance(value, float) and value >= 100 else f"{value:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ALL), help=", ".join(ALL))
    parser.add_argument("--orders", type=int, default=50_000)
    parser.add_argument("--rates", default="200,1000", help="orders a second of the paced parts")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm", type=float, default=10, help="seconds at the rate before they are counted")
    parser.add_argument("--times", type=int, default=1, help="runs of each, in turn with the peers'")
    parser.add_argument("--compiled", action="store_true", help="ours with compiled hops too (make compiled)")
    parser.add_argument("--peers", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    given = parser.parse_args(arguments)
    unknown = set(given.only.split(",")) - ALL.keys()
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} 不存在 · there is no such variant; there are {', '.join(ALL)}")
    kafka.calm()
    rig.quiet()
    console = rig.console()
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {line}", highlight=False, soft_wrap=True)

    told: dict[str, Any] = {"at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "machine": machine()}
    rows: list[dict[str, Any]] = []
    try:
        told["versions"] = versions()
        known = [
            engines.ours(),
            *([engines.compiled()] if given.compiled else []),
            *(engines.peers(given.peers) if given.peers else []),
        ]
        rates = [float(rate) for rate in given.rates.split(",") if rate]
        asked = variants.Asked(given.orders, rates, given.seconds, given.warm, given.times, known, say)
        with terminable():
            for name in given.only.split(","):
                for row in ALL[name](asked):
                    rows.append({"variant": name, **row})
                    # what a long run has found is kept, whatever comes next
                    given.out.parent.mkdir(parents=True, exist_ok=True)
                    given.out.write_bytes(orjson.dumps({**told, "rows": rows}, option=orjson.OPT_INDENT_2))
    except UserError as error:
        console.print(error.sentence, style="red", markup=False)
        return error.code
    except KeyboardInterrupt:
        return 130
    finally:
        if rows:
            show(rows)
    console.print(f"{given.out}", highlight=False)
    return 0 if all(map(sound, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
