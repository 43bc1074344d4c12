"""`orderstream downstream …`: the processes, what stands on the wall, dead letters, a day's reconciliation."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orderstream.tables import table

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})

Json = Annotated[bool, typer.Option("--json", help="输出 JSON · as JSON")]
Why = Annotated[str, typer.Option("--why", help="怎样处理的，会被记录 · what was done, which is recorded")]
MetricsPort = Annotated[int | None, typer.Option(help="指标端口，0 为任选 · metrics port; 0: a free one")]


def _settings(**overrides: Any) -> Any:
    from orderstream.settings import Settings  # noqa: PLC0415  late, as all that a command does

    return Settings.load(**{name: value for name, value in overrides.items() if value is not None})


def _age(ms: int) -> str:
    seconds = max(0, int(time.time() * 1000) - ms) // 1000
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


@app.callback(invoke_without_command=True)
def downstream(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="仓库核对包裹的端口，0 为任选 · port of /check; 0: a free one")] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """看放行之后：确认、拣货、包裹；回答仓库的核对 · Watches what follows a release; answers the warehouse's check."""
    if context.invoked_subcommand is not None:
        return
    from orderstream.downstream.process import run  # noqa: PLC0415

    run(_settings(downstream_port=port, metrics_port=metrics_port))


@app.command("deliver")
def deliver(metrics_port: MetricsPort = None) -> None:
    """向没有 Kafka 的 ERP 投递放行与召回 · Delivers releases and recalls to an ERP without Kafka, by signed HTTP."""
    from orderstream.downstream.deliver import run  # noqa: PLC0415

    run(_settings(metrics_port=metrics_port))


@app.command("stuck")
def stuck(
    shop: Annotated[list[str] | None, typer.Option(metavar="CHANNEL:SHOP", help="店铺，可多个 · shops")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="种类，可多个 · kinds")] = None,
    limit: Annotated[int, typer.Option(min=0, help="最多列出几条 · how many to list")] = 100,
    *,
    as_json: Json = False,
) -> None:
    """下游滞留的订单：没有确认、没有拣货、卡住、发错 · Orders that stand: not acknowledged, not picked, stuck, shipped wrong."""
    from orderstream.board.store import answering, connect, migrate, url  # noqa: PLC0415
    from orderstream.downstream import store  # noqa: PLC0415

    place = url(_settings())
    migrate(place)
    with answering(), connect(place) as db:
        found = store.standing(db, shops=shop or (), kinds=kind or (), limit=limit)
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], ensure_ascii=False))
        return
    columns = ["订单 order", "种类 kind", "判定 seq", "已等 waits", "逾期 overdue", "详情 details"]
    rows: list[tuple[str, ...]] = [
        (
            one.order_id,
            one.kind,
            str(one.seq),
            _age(one.since),
            _age(one.due),
            json.dumps(one.body, ensure_ascii=False) if one.body else "",
        )
        for one in found
    ]
    table("下游滞留 · what stands downstream", columns, rows)


@app.command("settle")
def settle(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="订单号 · order id")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="种类，见 stuck · its kind, as stuck lists it")],
    why: Why,
) -> None:
    """人已处理：从墙上拿下，除非有新的判定 · A person has dealt with it: off the wall until another verdict."""
    from orderstream.board.store import answering, connect, url  # noqa: PLC0415
    from orderstream.downstream import store  # noqa: PLC0415
    from orderstream.downstream.flow import WAITS  # noqa: PLC0415
    from orderstream.downstream.process import Packs  # noqa: PLC0415

    chosen = next((one for one in WAITS if one == kind), None)
    if chosen is None:
        raise typer.BadParameter(f"种类须是 {' '.join(WAITS)} 之一 · the kind is one of these")
    from orderstream.broker import require  # noqa: PLC0415

    settings = _settings()
    packs = Packs(settings.model_copy(update={"brokers": require(settings).address}))
    with answering(), connect(url(settings)) as db:
        done = store.settle(db, order, chosen, getpass.getuser(), why, packs)
    typer.echo("已处理 · settled" if done else "墙上没有 · it does not stand on the wall")


@app.command("dead")
def dead(
    limit: Annotated[int, typer.Option(min=0, help="最多列出几条 · how many to list")] = 100,
    *,
    as_json: Json = False,
) -> None:
    """投递不成、等人处理的放行与召回 · Releases and recalls that could not be delivered and wait for a person."""
    from orderstream.board.store import answering, connect, migrate, url  # noqa: PLC0415
    from orderstream.downstream import deliveries  # noqa: PLC0415

    place = url(_settings())
    migrate(place)
    with answering(), connect(place) as db:
        found = deliveries.dead(db, limit)
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], ensure_ascii=False))
        return
    columns = ["订单 order", "判定 seq", "主题 topic", "次数 attempts", "已等 waits", "原因 error"]
    rows: list[tuple[str, ...]] = [
        (one.order_id, str(one.seq), one.topic, str(one.attempts), _age(one.made_at), one.error) for one in found
    ]
    table("死信 · dead letters", columns, rows)


@app.command("retry")
def retry(
    orders: Annotated[list[str] | None, typer.Argument(metavar="[ORDER]…", help="订单号 · order ids")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="全部 · all there are")] = False,
) -> None:
    """重新投递死信 · Tries dead letters anew."""
    if bool(orders) == everything:
        raise typer.BadParameter("请给出订单号，或 --all · give order ids, or --all")
    from orderstream.board.store import answering, connect, url  # noqa: PLC0415
    from orderstream.downstream import deliveries  # noqa: PLC0415

    with answering(), connect(url(_settings())) as db:
        count = deliveries.retry(db, None if everything else orders)
    typer.echo(f"重新投递 {count} 条 · {count} are tried anew")


@app.command("reconcile")
def reconcile(
    day: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="哪一天，默认昨天 · the day, else yesterday")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="差异写成 CSV · write the differences as CSV")] = None,
) -> None:
    """按渠道与店铺对账：渠道、放行、ERP、退款，精确到分 · A day by shop: channel, released, ERP, refunds, to the last coin."""
    from datetime import date, datetime, timedelta  # noqa: PLC0415
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    from orderstream.board.store import answering, connect, migrate, now, url  # noqa: PLC0415
    from orderstream.broker import require  # noqa: PLC0415
    from orderstream.downstream import reconcile as books  # noqa: PLC0415
    from orderstream.downstream import store  # noqa: PLC0415

    settings = _settings()
    try:
        chosen = datetime.now(ZoneInfo(settings.timezone)).date() - timedelta(days=1) if day is None else date.fromisoformat(day)
    except ValueError:
        raise typer.BadParameter(f"{day} 不是 2026-11-11 这样的日期 · {day} is no date like 2026-11-11") from None
    place = url(settings)
    migrate(place)
    with answering(), connect(place) as db:
        if not store.fresh(db, now(), settings.partitions):
            typer.echo(
                "orderstream downstream 没有运行或没有读完：差异可能只是还没读到"
                " · orderstream downstream is not running, or behind: what differs may only not have been read yet",
                err=True,
            )
        found = books.reconcile(settings, require(settings).address, db, chosen)
    if out is not None:
        books.write(out, books.as_csv(chosen, found))
    columns = [
        "店铺 shop", "币种", "渠道 came", "未付 unpaid", "撤回 withdrawn", "未放行 held", "放行 released", "无判定 unjudged",
        "ERP 入账 booked", "退款 refunds", "差异 differences",
    ]  # fmt: skip
    table(f"对账 · reconciliation {chosen}", columns, books.summary(found))
    rows = [row[3:] for row in books.rows(chosen, found)]
    if rows and out is None:
        table(
            "差异 · differences", ["订单 order", "种类 kind", "币种", "应为 expected", "实为 found", "差 off", "说明 says"], rows
        )
