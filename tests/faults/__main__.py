"""`python -m tests.faults`: the long run. Goes on where the last one ended, until every fault has had its rounds."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time

from rich.console import Console
from rich.table import Table

from orderstream.demo.processes import terminable
from orderstream.errors import INTERRUPTED
from tests.faults.campaign import play
from tests.faults.kinds import KINDS, can_mount
from tests.faults.ledger import STATE, Ledger, counted, plan, table

COLUMNS = ("故障 fault", "轮次 rounds", "订单 orders", "丢失 lost", "重复 twice", "矛盾 contradictions", "最长中断 outage s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="每种故障的轮次 · rounds of each fault")
    parser.add_argument("--seed", type=int, help="种子，不设则随机 · seed; a new one where none is given")
    parser.add_argument("--minutes", type=float, default=0.0, help="到此为止，0 不限 · stop after about so long; 0: at the end")
    parser.add_argument("--only", nargs="+", choices=sorted(KINDS), metavar="FAULT", help="只做这些 · only these")
    parser.add_argument(
        "--campaign", type=float, default=150.0, metavar="SECONDS", help="一次安装承受多久 · how long one installation"
    )
    parser.add_argument("--rate", type=float, default=40.0, help="每秒订单 · orders a second")
    parser.add_argument("--table", action="store_true", help="只显示结果 · show what there is and do nothing")
    parser.add_argument(
        "--markdown", action="store_true", help="同上，供 docs/reliability.md · the same, for docs/reliability.md"
    )
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    # the harness takes its own broker away: what its clients say of it is no news
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 160)
    ledger = Ledger(STATE / "ledger.jsonl")
    kinds = [kind for kind in (args.only or KINDS) if kind != "disk-full" or can_mount()]
    if not args.only and "disk-full" not in kinds:
        console.print("跳过 disk-full：不能挂载 tmpfs · left out: this user may not mount a small disk")
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 30)
    deadline = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")
    failed = False
    if args.markdown:
        rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *table(ledger.read(), kinds)]
        sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in rows)
        return 0
    while not args.table and not failed and time.monotonic() < deadline:
        done = counted(ledger.read())
        chosen = plan(seed, args.rounds, done, kinds, args.campaign)
        if not chosen:
            break
        got = sum(min(done[kind], args.rounds) for kind in kinds)
        console.print(
            f"种子 seed {seed}  {got}/{args.rounds * len(kinds)} 轮 rounds  {time.strftime('%H:%M:%S')}", highlight=False
        )
        campaign = play(STATE / f"c{seed}", seed, chosen, rate=args.rate, say=lambda line: console.print(line, highlight=False))
        ledger.add(campaign)
        failed = bool(campaign.error)
        if failed:
            console.print(f"失败 failed: {campaign.error}\n证据 evidence: {campaign.evidence}", highlight=False, markup=False)
        seed = (seed * 6364136223846793005 + 1442695040888963407) % (1 << 30)
    shown = Table(title="故障 · faults", title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    campaigns = ledger.read()
    for row in table(campaigns, kinds):
        shown.add_row(*row)
    console.print(shown, highlight=False)
    for campaign in campaigns:
        if campaign.error:
            console.print(
                f"{campaign.at} seed {campaign.seed} ({campaign.commit}): {campaign.error[:300]}", highlight=False, markup=False
            )
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        with terminable():
            sys.exit(main())
    except KeyboardInterrupt:
        # the rounds of a campaign that was not reconciled are forgotten; the next run begins with them
        sys.exit(INTERRUPTED)
