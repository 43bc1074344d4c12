"""The long run: every channel's verify, key, ping and parse and the hop behind them, searched by coverage (atheris, libFuzzer).

    python -m tests.fuzz.run --seconds 600 [--channel api] [--folder .cache/fuzz]

A channel is searched by a process of its own that starts from its seeds and from what earlier runs found. Mutations keep half of
the bodies JSON. Time and memory are judged afterwards in a process without instrumentation: each input that was the slowest so
far, and every bomb of `law`, is measured five times on CPU time, and the best of the five counts, so that a noisy machine raises
no alarm. A broken law leaves its input in the folder, says where, and ends the run with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

SLOWEST = 40
"""Inputs of a search that are measured again."""
MAX_BYTES = 65_536
"""Of a searched input; the bombs are larger."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="a channel")
    parser.add_argument("--channel", action="append", help="only these")
    parser.add_argument("--folder", type=Path, default=Path(".cache/fuzz"), help="corpora, findings, figures")
    parser.add_argument("--search", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.search:
        return search(asked.search, asked.seconds, asked.folder / asked.search)
    if asked.measure:
        return measure(asked.measure, asked.folder / asked.measure)

    from orderstream.channels import registry

    known = sorted(registry())
    if strange := sorted(set(asked.channel or ()) - set(known)):
        parser.error(f"没有渠道 · no such channel: {', '.join(strange)}")
    return report([one_channel(name, asked.seconds, asked.folder) for name in asked.channel or known], asked.folder)


def one_channel(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Searches, then measures; each in a process of its own, so that a crash of one is a finding and not our end."""
    mine = folder / name
    (mine / "corpus").mkdir(parents=True, exist_ok=True)
    before = set(mine.glob("*-*"))
    base = [sys.executable, "-m", "tests.fuzz.run", "--folder", str(folder), "--seconds", str(seconds)]
    with (mine / "search.log").open("wb") as log:
        code = subprocess.run([*base, "--search", name], stdout=log, stderr=log, check=False).returncode
    measured = subprocess.run([*base, "--measure", name], check=False).returncode
    figures: dict[str, Any] = json.loads((mine / "figures.json").read_text()) if (mine / "figures.json").exists() else {}
    found = sorted(str(file) for file in set(mine.glob("*-*")) - before)
    return {"channel": name, "seconds": seconds, **figures, "search": code, "measure": measured, "findings": found}


def report(rows: list[dict[str, Any]], folder: Path) -> int:
    (folder / "report.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    print(f"{'channel':10} {'inputs':>9} {'corpus':>7} {'edges':>6} {'slowest ms':>10} {'MB':>6} {'findings':>8}  values")
    bad = 0
    for row in rows:
        values = " ".join(f"{kind} {count}" for kind, count in sorted(row.get("values", {}).items()))
        worst, fat = row.get("worst_ms", 0.0), row.get("worst_mb", 0.0)
        print(f"{row['channel']:10} {row.get('inputs', 0):>9} {row.get('corpus', 0):>7} {row.get('edges', 0):>6} "
              f"{worst:>10.1f} {fat:>6.1f} {len(row['findings']):>8}  {values}")  # fmt: skip
        if row["search"] or row["measure"] or row["findings"]:
            bad = 1
            places = ", ".join(row["findings"]) or f"{folder / row['channel'] / 'search.log'}"
            print(f"  违反 · law broken: {places}", file=sys.stderr)
    return bad


def search(name: str, seconds: int, folder: Path) -> int:
    """Searches one channel for the seconds given; libFuzzer ends the process, with another code than 0 where a law broke."""
    import atheris

    with atheris.instrument_imports(
        include=["orderstream.channels", "orderstream.money", "orderstream.times", "orderstream.normalise"]
    ):
        from orderstream.channels import registry
        from tests.fuzz import law

    from tests.fuzz.mutations import mutated

    channel = registry()[name]
    law.line()  # reading the rules takes seconds on a busy machine: no input's fault
    counts: Counter[str] = Counter()
    slow: dict[str, float] = {}
    slow_dir = folder / "slow"
    slow_dir.mkdir(exist_ok=True)
    for at, seed in enumerate(law.seeds(name)):
        (folder / "corpus" / f"seed{at}").write_bytes(seed)
    saved = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal saved
        values, body = law.split(data)
        began = time.process_time()
        kind = law.obey(channel, values, body)
        took = time.process_time() - began
        counts[kind] += 1
        if len(slow) < SLOWEST or took > min(slow.values()):
            digest = hashlib.sha256(data).hexdigest()[:16]
            (slow_dir / digest).write_bytes(data)
            slow[digest] = max(took, slow.get(digest, 0))
            if len(slow) > SLOWEST:
                least = min(slow, key=lambda key: slow[key])
                del slow[least]
                (slow_dir / least).unlink(missing_ok=True)
        if time.monotonic() - saved > 1:
            saved = time.monotonic()
            _save(folder, {"inputs": counts.total(), "values": dict(counts)})

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            found: bytes = atheris.Mutate(data, limit)
            return found
        head, blank, body = data.partition(b"\n\n")
        return (head + b"\n\n" + mutated(random, body if blank else data))[:limit]

    options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(folder / "corpus")], one, custom_mutator=mutator)
    atheris.Fuzz()
    return 0


def measure(name: str, folder: Path) -> int:
    """The slowest inputs and the bombs, five times each; what breaks a limit in its best run is kept as `slow-…` or `fat-…`."""
    from orderstream.channels import registry
    from tests.fuzz import law

    channel = registry()[name]
    inputs = {file.name: file.read_bytes() for file in sorted((folder / "slow").glob("*"))}
    inputs |= {bomb.replace(" ", "_"): b"\n\n" + body for bomb, body in law.bombs().items()}
    law.line()
    worst_ms = worst_mb = 0.0
    bad = 0
    for label, data in inputs.items():
        values, body = law.split(data)
        times = []
        for _ in range(5):
            began = time.process_time()
            law.deliver(channel, values, body)
            times.append(time.process_time() - began)
        tracemalloc.start()
        law.deliver(channel, values, body)
        fat = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        ms = min(times) * 1000
        worst_ms, worst_mb = max(worst_ms, ms), max(worst_mb, fat)
        for broken, kind in ((ms > law.MAX_CPU_MS, "slow"), (fat > law.MAX_MB, "fat")):
            if broken:
                bad = 1
                (folder / f"{kind}-{label}").write_bytes(data)
                print(f"{name}: {kind}-{label}: {ms:.0f} ms, {fat:.0f} MB", file=sys.stderr)
    log = (folder / "search.log").read_text("utf-8", "replace")
    edges = [int(line.split("cov: ")[1].split()[0]) for line in log.splitlines() if "cov: " in line]
    _save(
        folder,
        {
            "worst_ms": worst_ms,
            "worst_mb": worst_mb,
            "corpus": len(list((folder / "corpus").iterdir())),
            "edges": max(edges, default=0),
        },
    )
    return bad


def _save(folder: Path, figures: dict[str, Any]) -> None:
    file = folder / "figures.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.with_suffix(".new").write_text(json.dumps({**before, **figures}))
    file.with_suffix(".new").replace(file)


if __name__ == "__main__":
    raise SystemExit(main())
