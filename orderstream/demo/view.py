"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere.

Law: it reads the tally and changes nothing. Chinese first, English beside it; no buyer's data, only order ids and rules.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orderstream.demo.behind import Behind
from orderstream.demo.tally import Summary, Tally
from orderstream.simulators import Scenario

PLAIN_SECONDS = 5.0
VERDICTS = {
    "released": ("放行", "released", "green"),
    "review": ("复核", "review", "yellow"),
    "frozen": ("冻结", "frozen", "red"),
    "pending": ("待付款", "pending", "blue"),
    "withdrawn": ("撤回", "withdrawn", "magenta"),
    "rejected": ("拒收", "rejected", "bright_black"),
}


class View:
    """Shows a run. titles: rule id to (Chinese, English)."""

    def __init__(self, console: Console, scenario: Scenario, tally: Tally, titles: Mapping[str, tuple[str, str]]) -> None:
        self._console = console
        self._scenario = scenario
        self._tally = tally
        self._titles = titles
        self._live: Live | None = None
        self._marks: list[tuple[float, int]] = []
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Show how things stand; cheap enough for four times a second."""
        now = time.monotonic()
        self._marks = [(at, sent) for at, sent in self._marks if now - at < 5] + [(now, self._tally.sent)]
        if self._live is not None:
            self._live.update(self._picture())
        elif now - self._said >= PLAIN_SECONDS:
            self._said = now
            self._console.print(self._line(), soft_wrap=True, highlight=False)

    def _rate(self) -> float:
        (first, before), (last, now) = self._marks[0], self._marks[-1]
        return (now - before) / (last - first) if last > first else 0.0

    def _line(self) -> str:
        tally = self._tally
        now = "  ".join(f"{zh} {tally.now[verdict]}" for verdict, (zh, _, _) in VERDICTS.items() if verdict != "rejected")
        reason = tally.reasons[-1] if tally.reasons else None
        zh, en = self._titles.get(reason.rule, (reason.rule, reason.rule)) if reason else ("—", "—")
        return (
            f"{tally.sent}/{len(self._scenario.expected)} 单 orders  {self._rate():.0f}/s  {now}  召回 recalled {tally.recalled}  "
            f"p50 {tally.percentile(0.5):.0f} ms  p99 {tally.percentile(0.99):.0f} ms  最近 latest: {zh} · {en}"
        )

    def _picture(self) -> Group:
        tally = self._tally
        head = Text.assemble(
            (f" {self._rate():.0f} 单/秒 orders/s ", "bold reverse"),
            f"  {tally.sent}/{len(self._scenario.expected)}   p50 ",
            (f"{tally.percentile(0.5):.0f} ms", "bold"),
            "   p99 ",
            (f"{tally.percentile(0.99):.0f} ms", "bold"),
            f"   召回 recalled {tally.recalled}   重复推送 repeats {tally.repeats}",
        )
        verdicts = Table.grid(padding=(0, 3))
        verdicts.add_row(*(Text(f"{zh} {en} {tally.now[v]}", style=colour) for v, (zh, en, colour) in VERDICTS.items()))
        reasons = Table(expand=True, title="最近的理由 · latest reasons", title_justify="left")
        for heading in ("订单 order", "判定 verdict", "原因", "reason"):
            reasons.add_column(heading, no_wrap=True)
        for reason in list(tally.reasons)[::-1][:8]:
            zh, en = self._titles.get(reason.rule, (reason.rule, reason.rule))
            label, _, colour = VERDICTS.get(reason.verdict, (reason.verdict, "", ""))
            reasons.add_row(reason.order_id, Text(label, style=colour), zh, en)
        return Group(
            head, verdicts, reasons, Panel(self._incidents(), title="注入的异常 · incidents injected", title_align="left")
        )

    def _incidents(self) -> Table:
        standing = self._tally.incidents()
        table = Table.grid(padding=(0, 2), expand=True)
        cells = []
        for incident in self._scenario.incidents:
            good, of = standing.get(incident.id, (0, 0))
            style = "green" if good == incident.orders else "yellow" if of else "bright_black"
            cells.append(Text(f"{good}/{incident.orders}  {incident.zh}", style=style, no_wrap=True, overflow="ellipsis"))
        for i in range(0, len(cells), 2):
            table.add_row(*cells[i : i + 2])
        return table


def conclude(console: Console, scenario: Scenario, tally: Tally, result: Summary) -> None:
    """The summary at the end."""
    standing = tally.incidents()
    table = Table(title="注入的异常 · incidents injected", title_justify="left")
    for heading in ("异常", "incident"):
        table.add_column(heading)
    table.add_column("识别 as meant", justify="right")
    for incident in scenario.incidents:
        good, _ = standing.get(incident.id, (0, 0))
        table.add_row(
            incident.zh, incident.en, Text(f"{good}/{incident.orders}", style="green" if good == incident.orders else "red")
        )
    console.print(table)
    console.print(_channels(result))
    rows = (
        ("发送并确认 · sent and acknowledged", result.sent, ""),
        ("放行 · released", result.released, "green"),
        ("复核 · review", result.review, "yellow"),
        ("冻结 · frozen", result.frozen, "red"),
        ("撤回 · withdrawn", result.withdrawn, "magenta"),
        ("召回 · recalled (released first)", result.recalled, ""),
        ("拒收 · rejected", result.rejected, ""),
        ("丢失 · lost", result.lost, "green" if result.lost == 0 else "bold red"),
        ("识别 · caught", result.caught, "green"),
        ("漏判 · missed", result.missed, "green" if result.missed == 0 else "bold red"),
        ("误报 · false alarms", result.false_alarms, "green" if result.false_alarms == 0 else "bold red"),
        ("延迟 p50 · latency p50", f"{result.p50_ms:.0f} ms", ""),
        ("延迟 p99 · latency p99", f"{result.p99_ms:.0f} ms", ""),
    )
    summary = Table(title="汇总 · summary", title_justify="left", show_header=False)
    summary.add_column()
    summary.add_column(justify="right")
    for name, value, style in rows:
        summary.add_row(name, Text(str(value), style=style))
    console.print(summary)


def follow(console: Console, found: Behind, parcels: int) -> None:
    """What came behind the verdicts. parcels: orders that left."""
    rows = (
        ("通知 · messages to people (orders)", f"{found.told} ({found.orders})", ""),
        ("请客户确认，已答 · customers asked, answered", f"{found.asked}, {found.answered}", ""),
        ("只要一单、地址不对，等人处理 · of them not yes, on the wall", found.otherwise, ""),
        ("锁库存 · stock locked", found.locks, ""),
        ("验证网段 · networks challenged", found.challenges, ""),
        ("会议记录 · meetings called", found.meetings, ""),
        ("没送到 · dead letters", found.dead, "green" if found.dead == 0 else "bold red"),
        ("ERP 确认 · acknowledged by the ERP", found.acknowledged, "green"),
        ("发出，发错 · parcels, wrong ones on the wall", f"{parcels}, {found.wrong}", ""),
    )
    table = Table(title="判定之后 · after the verdicts", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value, style in rows:
        table.add_row(name, Text(str(value), style=style))
    console.print(table)


def _channels(result: Summary) -> Table:
    table = Table(title="各渠道 · by channel", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("渠道\nchannel", "发送\nsent", "放行\nreleased", "复核\nreview", "冻结\nfrozen", "撤回\nwithdrawn",
                    "拒收\nrejected", "丢失\nlost", "识别\ncaught", "误报\nfalse"):  # fmt: skip
        table.add_column(heading, justify="left" if heading.startswith("渠道") else "right", no_wrap=True)
    for channel, share in result.channels.items():
        counts = (share.sent, share.released, share.review, share.frozen, share.withdrawn, share.rejected)
        table.add_row(
            channel,
            *map(str, counts),
            Text(str(share.lost), style="green" if share.lost == 0 else "bold red"),
            Text(f"{share.caught}/{share.caught + share.missed}", style="green" if share.missed == 0 else "bold red"),
            Text(str(share.false_alarms), style="green" if share.false_alarms == 0 else "bold red"),
        )
    return table
