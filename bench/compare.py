"""Is commit B slower than commit A? Both in turn, pair by pair, on one machine and one broker, and a sign test of the pairs.

    python -m bench.compare A [B] [--pairs 8] [--orders 20000] [--only kernel,job] [--tolerance 3] [--json FILE]

A and B are commits (B: HEAD). Each is checked out into a worktree of its own, gone at the end; both run with this environment's
libraries, this module's input and the same Kafka, one after the other, and every second pair the other way round, so that what the
machine does else meets both. A pair is, by `--only`:

    kernel   processor time an order of the three hops alone (the commit's own `bench.kernel`)
    job      the reference job's backlog: processor time an order of all our processes, and orders a second

A figure is worse where most pairs say so (one-sided sign test, p <= 0.05: 7 of 8 pairs) and the median of the pairs' ratios is
beyond `--tolerance` per cent. Orders a second are shown and not judged: they are the machine's as much as ours.

Exit code: 0 not slower, 1 slower, 2 asked wrongly, others as the product's (a broker that does not start, a run that failed).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson
from rich.table import Table

from bench import engines, rig
from bench.__main__ import REPO, machine, versions
from bench.figures import sign_test
from bench.reference import orders as reference
from orderstream import kafka
from orderstream.demo.processes import terminable
from orderstream.errors import BadFile, RunFailed, UserError

P = 0.05
KERNEL_ORDERS = 6_000
PACKS = ("reference", "standard")
Pair = tuple[float, float]


class Verdict(NamedTuple):
    """Of one figure. ratio: the median of B by A; p: how likely so many pairs would say so by chance."""

    figure: str
    a: float
    b: float
    ratio: float
    p: float
    judged: bool
    slower: bool


def judge(figure: str, pairs: Sequence[Pair], tolerance: float) -> Verdict:
    """What the pairs (A, B) of a figure say. tolerance: per cent."""
    judged = not figure.endswith("/s")
    ratio = median(b / a for a, b in pairs)
    p = sign_test(pairs)
    slower = judged and p <= P and ratio > 1 + tolerance / 100
    return Verdict(figure, median(a for a, _ in pairs), median(b for _, b in pairs), ratio, p, judged, slower)


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """The commit's files in a worktree of their own. Raises BadFile where there is no such commit."""
    _git("worktree", "add", "--detach", "--quiet", str(folder), commit)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(REPO), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadFile(f"git {words[0]} 失败 · git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def kernel(tree: Path, out: Path) -> dict[str, float]:
    """µs an order of the commit's hops, by pack."""
    found = {}
    for pack in PACKS:
        command = [sys.executable, "-m", "bench.kernel", "--orders", str(KERNEL_ORDERS), "--pack", pack, "--json", str(out)]
        done = subprocess.run(command, cwd=tree, env=_env(tree), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunFailed(f"bench.kernel 失败 · failed in {tree.name}: {done.stderr[-500:]}")
        found[f"kernel {pack} µs"] = float(orjson.loads(out.read_bytes())["us"])
    return found


def job(line: rig.Rig, tree: Path, work: engines.Job) -> dict[str, float]:
    """The reference job by the commit, on the broker that is there. Raises RunFailed where a verdict is wrong: that is no speed."""
    try:
        row = engines.throughput(line, engines.ours(tree), work)
    finally:
        line.clear()
    if row["agreement"] < 1 or row["missing"]:
        raise RunFailed(f"{tree.name}: 判定有误 · {row['agreement']:.4%} of the verdicts are right, {row['missing']} are missing")
    return {
        "job µs": row["cpu_us"],
        "job µs once started": row["cpu_us_once_started"],
        "broker µs": row["broker_us"],
        "job orders/s": row["per_second"],
    }


def _env(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def run(asked: argparse.Namespace, folder: Path) -> tuple[list[Verdict], dict[str, list[Pair]]]:
    """All pairs, and what they say."""
    console = rig.console()
    wanted = asked.only.split(",")
    found: dict[str, list[Pair]] = {}
    with contextlib.ExitStack() as stack:
        trees = [stack.enter_context(checkout(commit, folder / name)) for name, commit in (("a", asked.a), ("b", asked.b))]
        line = stack.enter_context(rig.Rig(folder / "line", heap_mb=1024)) if "job" in wanted else None
        work = engines.job(reference.make(asked.orders), reference.catalogue()) if line else None
        for number in range(asked.pairs):
            rows: dict[int, dict[str, float]] = {0: {}, 1: {}}
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                if "kernel" in wanted:
                    rows[which] |= kernel(trees[which], folder / "kernel.json")
                if line is not None and work is not None:
                    rows[which] |= job(line, trees[which], work)
            for figure in rows[0]:
                found.setdefault(figure, []).append((rows[0][figure], rows[1][figure]))
            said = "  ".join(f"{figure} {pairs[-1][0]:,.0f} {pairs[-1][1]:,.0f}" for figure, pairs in found.items())
            console.print(f"{number + 1}/{asked.pairs}  {said}", highlight=False, soft_wrap=True)
    return [judge(figure, pairs, asked.tolerance) for figure, pairs in found.items()], found


def show(verdicts: Sequence[Verdict], a: str, b: str) -> None:
    table = Table("", a, b, "B/A", "p", "", title_justify="left")
    for one in verdicts:
        said = "更慢 · slower" if one.slower else "" if one.judged else "不评判 · not judged"
        table.add_row(one.figure, f"{one.a:,.1f}", f"{one.b:,.1f}", f"{one.ratio:.3f}", f"{one.p:.3f}", said)
    rig.console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="a commit, the one to compare with")
    parser.add_argument("b", metavar="B", nargs="?", default="HEAD")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--only", default="kernel,job", help="kernel, job")
    parser.add_argument("--tolerance", type=float, default=3.0, help="per cent that are no matter")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if not set(asked.only.split(",")) <= {"kernel", "job"}:
        parser.error("--only: kernel, job")
    if sign_test([(1.0, 2.0)] * asked.pairs) > P:
        parser.error(f"--pairs: {asked.pairs} 对不足以判断 · pairs can never be enough to say anything: at least 5")
    kafka.calm()
    rig.quiet()
    try:
        with terminable(), tempfile.TemporaryDirectory(prefix="orderstream-compare-") as folder:
            verdicts, pairs = run(asked, Path(folder))
    except UserError as error:
        rig.console().print(error.sentence, style="red", markup=False)
        return error.code
    except KeyboardInterrupt:
        return 130
    show(verdicts, asked.a, asked.b)
    if asked.json:
        told: dict[str, Any] = {"a": asked.a, "b": asked.b, "machine": machine(), "versions": versions(), "pairs": pairs}
        told["verdicts"] = [one._asdict() for one in verdicts]
        asked.json.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    return 1 if any(one.slower for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
