"""The command line: what a person types, in front of the modules that do it.

Law: a command is thin and late. It declares its options and imports what does the work only when it is called, so that
`--help` and completion answer at once; and whatever is missing around it ends in one sentence on standard error and an
exit code of its own (orderstream/errors.py), never in a traceback. A bug keeps its traceback, in a file that it names.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from orderstream.downstream.cli import app as downstream_app
from orderstream.errors import BUG, CODES, INTERRUPTED, BadFile, RunFailed, UserError
from orderstream.tables import table

if TYPE_CHECKING:
    from orderstream.rejected import Wanted
    from orderstream.settings import Settings

_CODES = "退出码 · exit codes: 0 好 ok, 2 用法 usage, " + ", ".join(f"{one.exit_code} {one.__name__}" for one in CODES)


class _Root(typer.core.TyperGroup):
    """The command line's root: Ctrl-C is ours to word, before the library calls it an abort with code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise UserError("已中断 · interrupted", INTERRUPTED) from None


_STYLE: dict[str, Any] = {"no_args_is_help": True, "context_settings": {"help_option_names": ["-h", "--help"]}}
app = typer.Typer(
    name="orderstream",
    cls=_Root,
    help="订单入 ERP 之前的实时预检 · Real-time order pre-check in front of the ERP.",
    epilog=_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    **_STYLE,
)
broker_app = typer.Typer(help="寻找、启动、停止 Kafka · Find, start and stop the Kafka.", **_STYLE)
topics_app = typer.Typer(help="创建与查看主题 · Create and list the topics.", **_STYLE)
catalogue_app = typer.Typer(help="商品目录 · The catalogue of articles.", **_STYLE)
rules_app = typer.Typer(help="规则包与值班开关 · Rule packs and the on-call's switches.", **_STYLE)
rejected_app = typer.Typer(help="被拒收的记录：查看与重放 · What is no order: looked at and replayed.", **_STYLE)
outcomes_app = typer.Typer(help="后来的事实：导入、导出标注 · What came of orders: taken in, and given out as labels.", **_STYLE)
feedback_app = typer.Typer(help="由结果得出的建议 · What outcomes suggest.", **_STYLE)
intake_app = typer.Typer(context_settings=_STYLE["context_settings"])
app.add_typer(broker_app, name="broker")
app.add_typer(topics_app, name="topics")
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(rules_app, name="rules")
app.add_typer(rejected_app, name="rejected")
app.add_typer(outcomes_app, name="outcomes")
app.add_typer(feedback_app, name="feedback")
app.add_typer(intake_app, name="intake")
actions_app = typer.Typer(context_settings=_STYLE["context_settings"])
app.add_typer(actions_app, name="actions")
app.add_typer(downstream_app, name="downstream")
board_app = typer.Typer(context_settings=_STYLE["context_settings"])
audit_app = typer.Typer(help="看板的审计记录 · The board's audit.", **_STYLE)
app.add_typer(board_app, name="board")
app.add_typer(audit_app, name="audit")

Why = Annotated[str | None, typer.Option("--why", help="原因，会被记录 · the reason, which is recorded")]
Channel = Annotated[str | None, typer.Option("--channel", help="渠道 · channel")]
Shop = Annotated[str | None, typer.Option("--shop", help="店铺 · shop")]
Code = Annotated[str | None, typer.Option("--code", help="拒收代码 · the code of the reason")]
Since = Annotated[str | None, typer.Option("--since", help="自此接收：2h 或 ISO 时间 · received since: 2h, or an ISO 8601 time")]
Until = Annotated[str | None, typer.Option("--until", help="在此之前接收 · received before: 2h, or an ISO 8601 time")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="规则包目录 · folder of the rule pack")]


def _settings(**overrides: Any) -> Settings:
    from orderstream.settings import Settings  # noqa: PLC0415

    return Settings.load(**{name: value for name, value in overrides.items() if value is not None})


def _broker(settings: Settings) -> str:
    """The address of the Kafka that is there. Raises NoBroker."""
    from orderstream.broker import require  # noqa: PLC0415

    return require(settings).address


# broker


@broker_app.command("start")
def broker_start() -> None:
    """寻找正在运行的 Kafka，没有则启动一个并留它运行 · Finds a running Kafka, or starts one and leaves it running."""
    from orderstream.broker import find_or_start  # noqa: PLC0415

    typer.echo(find_or_start(_settings(), keep=True).describe())


@broker_app.command("stop")
def broker_stop() -> None:
    """停止 broker start 启动的 Kafka，绝不碰别人的 · Stops the Kafka that `broker start` started, and nobody else's."""
    from orderstream.broker import stop_running  # noqa: PLC0415

    stopped = stop_running(_settings())
    if stopped is None:
        typer.echo("没有由本程序启动的 Kafka · no Kafka of ours is running")
    else:
        typer.echo(f"已停止 Kafka {stopped.address} · stopped")


@broker_app.command("status")
def broker_status() -> None:
    """显示正在使用的 Kafka；没有则退出码 4 · Shows the Kafka in use; exit code 4 where there is none."""
    from orderstream.broker import require  # noqa: PLC0415

    typer.echo(require(_settings()).describe())


@broker_app.command("secure")
def broker_secure(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="密码目录，缺的自动生成 · folder of passwords; missing ones are made")
    ],
) -> None:
    """设置 Kafka 的用户、密码与权限，可重复执行 · Makes Kafka's users, sets passwords and rights; may be run again."""
    from orderstream import rights, topics  # noqa: PLC0415

    settings = _settings()
    for given in topics.now(rights.apply(_broker(settings), settings, folder)):
        typer.echo(f"{given.user}\t{given.rights} 项权限 · rights\t{given.file}")


# topics


@topics_app.command("apply")
def topics_apply() -> None:
    """创建缺少的主题并校准配置；分区数不符则拒绝 · Creates missing topics, aligns configurations, refuses wrong partition counts."""
    from orderstream import topics  # noqa: PLC0415

    settings = _settings()
    changes = topics.now(topics.apply(_broker(settings), settings))
    for change in changes:
        if change.done != "unchanged":
            typer.echo(f"{change.done}\t{change.topic}")
    typer.echo(f"主题就绪 · {len(changes)} topics are as declared")


@topics_app.command("list")
def topics_list() -> None:
    """列出全部主题及其读写方、键、保留期 · Lists every topic: who writes, who reads, key, retention."""
    from orderstream import topics  # noqa: PLC0415
    from orderstream.broker import running  # noqa: PLC0415

    settings = _settings()
    found = running(settings)
    there = topics.now(topics.present(found.address, settings)) if found is not None else {}
    rows: list[tuple[str, ...]] = []
    for topic in topics.declared():
        name, wanted, days = topic.on_broker(settings), topic.count(settings), topic.retention_days
        is_there = there.get(name)
        rows.append(
            (
                name,
                f"{topic.purpose.zh} · {topic.purpose.en}",
                ", ".join(topic.writers),
                ", ".join(topic.readers),
                topic.key,
                f"{wanted}" if is_there in {None, wanted} else f"{is_there}≠{wanted}",
                "—" if days is None else f"{days:g} d",
                "?" if found is None else "✓" if is_there else "✗",
            )
        )
    columns = ["主题 topic", "用途 purpose", "写 writers", "读 readers", "键 key", "分区 parts", "保留 kept", "在 there"]
    table(found.describe() if found else "没有 Kafka · no Kafka is running", columns, rows)


# catalogue


CatalogueFile = Annotated[
    Path | None, typer.Option("--catalogue", metavar="FILE", help="商品目录文件，不给则读 Kafka · a catalogue file, else Kafka's")
]
Orders = Annotated[
    list[Path] | None,
    typer.Option("--orders", metavar="FILE", help="回放文件，可多个；不给则读 Kafka · replay files, else Kafka's"),
]
Lists = Annotated[
    list[str] | None,
    typer.Option(
        "--list", metavar="CHANNEL:SHOP=FILE", help="渠道的商品清单，可多个 · a channel's product list; several may be given"
    ),
]
ImageFolder = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="主图目录 · folder of main images")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="写入文件而不是 Kafka · write a file, not to Kafka")]


@catalogue_app.command("load")
def catalogue_load(file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON 行文件 · a file of JSON lines")]) -> None:
    """校验每一行，全部正确才写入 catalog.skus · Checks every line; loads all of them or none."""
    from orderstream.catalogue import Catalogue, cli, store  # noqa: PLC0415

    settings = _settings()
    lines = store.of_file(file)
    store.grown(Catalogue(), lines)
    typer.echo(f"已载入 {cli.load(settings, lines, _broker(settings))} 条商品 · articles loaded")


@catalogue_app.command("import")
def catalogue_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV 或 .xlsx · CSV or .xlsx")],
    shop: Annotated[
        str | None, typer.Option("--shop", metavar="CHANNEL:SHOP", help="是该店铺的商品清单 · it is this shop's product list")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="FIELD=HEADING", help="字段=列名，可多个 · what a column means")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="工作表，默认第一张 · the sheet, else the first")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="自何时生效，默认现在，首次导入可写 always · in force from; else now")
    ] = None,
    catalogue: CatalogueFile = None,
    out: Out = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只说会怎样 · only say what would be")] = False,
) -> None:
    """从表格导入商品，或一家店铺的编码对应；全部正确才写入 · Articles, or a shop's codes, from a table; all rows or none."""
    from orderstream.catalogue import ALWAYS, cli, store  # noqa: PLC0415

    settings = _settings()
    given = dict(_pair(one) for one in column or ())
    where = None if shop is None else cli.shop_of(shop)
    source = _catalogue_source(settings, catalogue, out, dry_run=dry_run)
    when = store.moment() if at is None else ALWAYS if at == "always" else _ms(at)
    done = cli.read_table(settings, file, cli.known(settings, source), given, where, when, sheet)
    for sentence in cli.said(done):
        typer.echo(sentence)
    if done.faults:
        raise cli.refused(done)
    if dry_run:
        typer.echo("试运行，什么都没有写入 · a dry run: nothing was written")
    elif done.articles:
        typer.echo(f"已写入 {cli.keep(settings, done.articles, source, out)} 条 · lines written")


@catalogue_app.command("suggest")
def catalogue_suggest(
    catalogue: CatalogueFile = None,
    orders: Orders = None,
    lists: Lists = None,
    images: ImageFolder = None,
    most: Annotated[int, typer.Option(min=1, help="每个编码最多几条 · how many a code")] = 3,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON · as JSON")] = False,
) -> None:
    """给没有对应的编码找可能的商品，不会自己生效 · Which article an unmapped code might be; changes nothing."""
    if catalogue is not None and not orders and not lists:
        raise typer.BadParameter("须给出 --orders 或 --list 之一 · --orders or --list is needed beside --catalogue")
    from orderstream.catalogue import cli, store  # noqa: PLC0415
    from orderstream.catalogue.images import Images  # noqa: PLC0415

    settings = _settings()
    brokers = None if catalogue is not None else _broker(settings)
    known = cli.known(settings, cli.Source(catalogue, brokers))
    sold = cli.orders(settings, orders or [], None if orders else brokers)
    listed, unread = cli.lists_of(lists or [], known)
    for sentence in unread:
        typer.echo(sentence, err=True)
    found = cli.suggestions(known, store.moment(), sold, listed, Images(images), most)
    if as_json:
        typer.echo(cli.as_json(found).decode())
        return
    if not any(found):
        typer.echo(f"没有建议；未对应的编码 {len(found)} 个 · no suggestion; {len(found)} codes name no article")
        return
    columns = ["编码 code", "店铺 shop", "商品 article", "把握 confidence", "依据 grounds"]
    table("建议，不会自己生效 · suggestions: none is applied by itself", columns, cli.suggestion_rows(found))
    one = next(several[0] for several in found if several)
    typer.echo(f"采纳 · to accept one: orderstream catalogue accept {one.channel}:{one.shop} {one.code} {one.sku}")


@catalogue_app.command("accept")
def catalogue_accept(
    shop: Annotated[
        str, typer.Argument(metavar="CHANNEL:SHOP", help="渠道:店铺，店铺写 * 为全渠道 · `*`: every shop of the channel")
    ],
    code: Annotated[str, typer.Argument(metavar="CODE", help="渠道编码 · the channel's code")],
    sku: Annotated[str, typer.Argument(metavar="SKU", help="我方货号 · our article")],
    catalogue: CatalogueFile = None,
    out: Out = None,
    why: Why = None,
    *,
    move: Annotated[bool, typer.Option("--move", help="从现在的商品移走 · take it from the article that it names now")] = False,
) -> None:
    """把一个渠道编码对应到商品，自现在起 · Maps a channel's code to an article, from now on."""
    from orderstream.catalogue import Code, cli  # noqa: PLC0415

    settings = _settings()
    channel, name = cli.shop_of(shop)
    source = _catalogue_source(settings, catalogue, out)
    wanted = Code(channel, code, None if name == "*" else name)
    lines = cli.accept(settings, source, out, wanted, sku, move=move, why=why)
    if not lines:
        typer.echo(f"{code} 已经对应 {sku} · is mapped to it already")
    for line in lines:
        typer.echo(f"{line.sku}\t自 {line.at} 生效 · in force from {line.at}")


@catalogue_app.command("report")
def catalogue_report(
    catalogue: CatalogueFile = None,
    orders: Orders = None,
    lists: Lists = None,
    images: ImageFolder = None,
    stale: Annotated[str, typer.Option(metavar="90d", help="多久没卖出算陈旧 · how long not sold is stale")] = "30d",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="写成 .xlsx 或 JSON · as .xlsx or JSON")] = None,
) -> None:
    """目录体检：冲突的编码、颜色、陈旧、套装、主图 · What in the catalogue will send the wrong parcel, and what is stale."""
    from orderstream.catalogue import cli, store  # noqa: PLC0415
    from orderstream.catalogue.images import Images  # noqa: PLC0415
    from orderstream.catalogue.report import report  # noqa: PLC0415
    from orderstream.rules.model import duration  # noqa: PLC0415
    from orderstream.times import DAY  # noqa: PLC0415

    try:
        days = duration(stale) // DAY
    except ValueError:
        raise typer.BadParameter(f"{stale} 不是 90d 这样的时长 · {stale} is no length of time, as 90d") from None
    if days < 1:
        raise typer.BadParameter("至少一天 · a day at least")
    settings = _settings()
    brokers = None if catalogue is not None else _broker(settings)
    known = cli.known(settings, cli.Source(catalogue, brokers))
    sold = cli.orders(settings, orders or [], None if orders else brokers)
    listed, unread = cli.lists_of(lists or [], known)
    for sentence in unread:
        typer.echo(sentence)
    sections = report(known, store.moment(), sold, listed, Images(images), days)
    if out is not None:
        cli.write_report(sections, out)
    for section in sections:
        if section.not_available is not None:
            typer.echo(f"{section.title}：没有可看的 · not available: {section.not_available}")
        elif not section.rows:
            typer.echo(f"{section.title}：没有 · none")
        elif out is None:
            table(section.title, section.columns, [tuple(row) for row in section.rows])
        else:
            typer.echo(f"{section.title}：{len(section.rows)}")


def _catalogue_source(settings: Settings, file: Path | None, out: Path | None, *, dry_run: bool = False) -> Any:
    """Kafka, unless files are named: then what is written must have one too."""
    from orderstream.catalogue.cli import Source  # noqa: PLC0415

    if file is None and out is None:
        return Source(None, _broker(settings))
    if out is None and not dry_run:
        raise typer.BadParameter("给了 --catalogue 就要用 --out 说明写到哪里 · with --catalogue, --out says where to write")
    return Source(file, None)


def _ms(text: str) -> int:
    from orderstream import times  # noqa: PLC0415

    try:
        return times.parse(text)
    except times.TimeError:
        raise typer.BadParameter(f"{text} 不是带时区的 ISO 时间 · {text} is no ISO 8601 time with its offset") from None


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise typer.BadParameter(f"{text} 不是 字段=列名 · {text} is no field=heading")
    return name.strip(), value.strip()


# processes


@intake_app.callback(invoke_without_command=True)
def intake(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="监听地址 · address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="端口，0 为任选 · port; 0: a free one")] = None,
) -> None:
    """接收各渠道的推送，写入 Kafka 后才应答 · Receives the channels' webhooks; answers after Kafka has them."""
    if context.invoked_subcommand is not None:
        return
    from orderstream.intake.serve import run  # noqa: PLC0415

    run(_settings(intake_host=host, intake_port=port))


@intake_app.command("pending")
def intake_pending(
    channel: Channel = None,
    shop: Shop = None,
    limit: Annotated[int, typer.Option(min=0, help="最多列出几条 · how many to list")] = 20,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON · as JSON")] = False,
) -> None:
    """等待详情的订单：自何时、试了几次、最后的原因 · Orders that wait for their detail: since when, attempts, last error."""
    from orderstream.fetch import show  # noqa: PLC0415

    settings = _settings()
    found = show.pending(settings, _broker(settings), channel, shop)
    if as_json:
        typer.echo(show.as_json(found, limit))
        return
    table(show.title(found), show.COLUMNS, show.rows(found, limit))


@app.command()
def fetch(
    metrics_port: Annotated[int | None, typer.Option(help="指标端口，0 为任选 · metrics port; 0: a free one")] = None,
) -> None:
    """向平台取订单详情，并与平台对账 · Fetches orders' details from the platforms, and reconciles with them."""
    from orderstream.fetch.process import run  # noqa: PLC0415

    run(_settings(metrics_port=metrics_port))


@app.command()
def worker(
    metrics_port: Annotated[int | None, typer.Option(help="指标端口，0 为任选 · metrics port; 0: a free one")] = None,
) -> None:
    """运行一个工作进程：规范化、检测、裁决 · Runs a worker: normalise, detect, route."""
    from agents.app import run_worker  # noqa: PLC0415

    settings = _settings(metrics_port=metrics_port)
    raise typer.Exit(run_worker(settings, _broker(settings)))


@board_app.callback(invoke_without_command=True)
def board(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="监听地址 · address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="端口，0 为任选 · port; 0: a free one")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="指标端口，0 为任选 · metrics port; 0: a free one")] = None,
) -> None:
    """看板：待处理的订单、决定、审批 · The board: orders that wait for people, decisions, approvals."""
    if context.invoked_subcommand is not None:
        return
    from orderstream.board import cli  # noqa: PLC0415

    settings = _settings(board_host=host, board_port=port, metrics_port=metrics_port)
    cli.run(settings, _broker(settings))


@board_app.command("migrate")
def board_migrate() -> None:
    """建立或升级看板的表；看板启动时也会做 · Makes or upgrades the board's tables; starting the board does so too."""
    from orderstream.board import store  # noqa: PLC0415

    done = store.migrate(store.url(_settings()))
    typer.echo(f"表已就绪，执行了 {len(done)} 个迁移 · the tables are ready, {len(done)} migrations were run")


@board_app.command("invite")
def board_invite(
    login: Annotated[str, typer.Argument(help="登录名，如邮箱 · login, an e-mail address for one")],
    role: Annotated[
        list[str] | None,
        typer.Option(help="角色，可多个 · roles: reviewer desk supervisor approver analyst admin"),
    ] = None,
    shop: Annotated[list[str] | None, typer.Option(help="渠道:店铺，可多个，不给为全部 · channel:shop; none: all")] = None,
    name: Annotated[str | None, typer.Option(help="显示的名字 · the name that is shown")] = None,
) -> None:
    """一次性链接：新账号，或忘记密码 · A one-time link for a new account, or for who forgot their password."""
    from orderstream.board import cli  # noqa: PLC0415

    typer.echo(cli.invite(_settings(), login, role or [], shop or [], name))


@audit_app.command("verify")
def audit_verify(
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="与先前的导出比对 · compare with an earlier export")
    ] = None,
) -> None:
    """检查有没有被改动或缺失的行；有则退出码 13 · Finds a changed or missing row; exit code 13 where there is one."""
    from orderstream.board import cli  # noqa: PLC0415

    typer.echo(cli.verify_audit(_settings(), against))


@audit_app.command("export")
def audit_export(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="写入文件 · write a file")] = None,
) -> None:
    """导出审计，每行一条 JSON · The audit as JSON lines."""
    from orderstream.board import cli  # noqa: PLC0415

    lines = cli.export_audit(_settings())
    if out is None:
        for line in lines:
            typer.echo(line)
    else:
        try:
            out.write_text("".join(line + "\n" for line in lines), "utf-8")
        except OSError as error:
            raise BadFile(f"写不了 {out} · cannot write {out}: {error.strerror}") from None


@app.command()
def demo(
    orders: Annotated[
        int, typer.Option(min=1, help="订单数，平台店铺另加 · how many orders; the marketplaces' shops add theirs")
    ] = 6000,
    rate: Annotated[float, typer.Option(min=0.1, help="每秒订单数 · orders a second")] = 100.0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="把结果写成 JSON · write the summary as JSON")] = None,
    *,
    stay: Annotated[
        bool | None,
        typer.Option(
            "--stay/--no-stay", help="结束后保留看板；默认在终端里保留 · keep the board open at the end; in a terminal by default"
        ),
    ] = None,
) -> None:
    """一场直播高峰：模拟店铺、真实 Kafka、整条流水线 · A live-stream peak: simulated shops, a real Kafka, the whole line."""
    from orderstream import demo as show  # noqa: PLC0415

    stays = sys.stdin.isatty() and sys.stdout.isatty() if stay is None else stay
    raise typer.Exit(show.run(_settings(), orders=orders, rate=rate, report=report, stay=stays))


@app.command()
def backtest(
    orders: Annotated[
        list[Path] | None, typer.Option("--orders", metavar="FILE…", help="回放文件，可多个 · replay files")
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", help="更多回放文件 · more of them")] = None,
    catalogue: Annotated[Path | None, typer.Option(metavar="FILE", help="商品目录文件 · catalogue file")] = None,
    rules: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="规则包目录 · folder of a rule pack")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="每行一个判定 · one verdict a line")] = None,
    *,
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="改读 Kafka 中的历史 · read what Kafka holds instead")
    ] = False,
) -> None:
    """用同一内核重放历史订单 · Replays history through the same kernel as live."""
    files = [*(orders or []), *(more or [])]
    if out is None:
        raise typer.BadParameter("缺少 --out FILE · --out FILE is missing")
    if bool(files) == from_topics:
        raise typer.BadParameter("须给出 --orders FILE 或 --from-topics 之一 · give either --orders FILE… or --from-topics")
    if not from_topics and (catalogue is None or not rules):
        raise typer.BadParameter("须给出 --catalogue FILE 与 --rules DIR · --catalogue FILE and --rules DIR are needed")
    from orderstream import backtest as replay  # noqa: PLC0415

    settings = _settings()
    address = _broker(settings) if from_topics else None
    replay.run(settings, orders=files, catalogue=catalogue, rules=rules or [], out=out, brokers=address)


@app.command()
def verdicts(out: Annotated[Path, typer.Option(metavar="FILE", help="每行一个判定 · one verdict a line")]) -> None:
    """导出线上最终判定，格式与回测相同 · Writes the live system's final verdicts in a backtest's format."""
    from orderstream.backtest.live import write_verdicts  # noqa: PLC0415

    settings = _settings()
    write_verdicts(settings, _broker(settings), out)


# rejected


@rejected_app.command("list")
def rejected_list(
    channel: Channel = None,
    shop: Shop = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, help="最多列出几条 · how many to list")] = 20,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON · as JSON")] = False,
) -> None:
    """按原因统计，并列出最近的 · Counts by reason, and lists the latest."""
    from orderstream.rejected import show  # noqa: PLC0415

    settings = _settings()
    found = show.overview(settings, _broker(settings), _wanted((), channel, shop, code, since, until), limit)
    if as_json:
        typer.echo(show.as_json(found))
        return
    table("拒收 · rejected", show.COUNTS, show.count_rows(found))
    table("最近的 · the latest", show.ROWS, show.rows(found))


@rejected_app.command("show")
def rejected_show(
    one: Annotated[str, typer.Argument(metavar="ID", help="编号（可只写开头）或订单号 · its id, its beginning, or an order id")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="不遮盖个人信息 · with personal data")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="把原始字节写入文件 · write the bytes to a file")] = None,
) -> None:
    """原因、信封与原始字节（默认遮盖个人信息） · The reason, the envelope and the bytes, personal data masked."""
    from orderstream.rejected import show  # noqa: PLC0415

    settings = _settings()
    typer.echo(show.in_full(settings, _broker(settings), _wanted((one,)), raw=raw, out=out))


@rejected_app.command("replay")
def rejected_replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="编号或订单号 · ids of rejects or orders")] = None,
    channel: Channel = None,
    shop: Shop = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="等待判定的秒数 · wait for their verdicts")] = 0,
    *,
    everything: Annotated[bool, typer.Option("--all", help="全部 · all there are")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只说会怎样 · only say what would be")] = False,
) -> None:
    """修好之后放回原始主题，重复执行无害 · Puts them back on their raw topic after the fix; twice is once."""
    chosen = [*(ids or [])]
    if not everything and not chosen and not any((channel, shop, code, since, until)):
        raise typer.BadParameter("请指明哪些，或 --all · say which ones, or --all")
    from orderstream import rejected  # noqa: PLC0415
    from orderstream.rejected import show  # noqa: PLC0415

    settings = _settings()
    brokers = _broker(settings)
    plan = rejected.put_back(settings, brokers, _wanted(chosen, channel, shop, code, since, until), dry=dry_run)
    for sentence in show.plan(plan, dry=dry_run):
        typer.echo(sentence)
    if wait and plan.orders and not dry_run:
        for sentence in show.outcome(rejected.outcome(settings, brokers, plan.orders, wait)):
            typer.echo(sentence)


@app.command("forget")
def forget_person(
    buyer: Annotated[
        str | None,
        typer.Option(help="渠道给的买家编号或标识（oaid 等） · the buyer as the channel names them, or a key (an oaid)"),
    ] = None,
    phone: Annotated[str | None, typer.Option(help="电话（买家或收件人） · of the buyer or the receiver")] = None,
    email: Annotated[str | None, typer.Option(help="邮箱 · e-mail")] = None,
    order: Annotated[list[str] | None, typer.Option(help="订单号，可多个 · order ids")] = None,
    channel: Channel = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="等待工作进程的秒数 · wait for the workers")] = 60,
    *,
    open_too: Annotated[bool, typer.Option("--open-too", help="未了结的订单也抹去 · orders under way too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只说会怎样 · only say what would be")] = False,
) -> None:
    """抹去一个人的信息，并说明还剩什么、到何时；值写 - 则从标准输入读 · Erases a person; tells what remains, and until when."""
    if not any((buyer, phone, email, order)):
        raise typer.BadParameter(
            "须给出 --buyer、--phone、--email 或 --order · one of --buyer, --phone, --email, --order is needed"
        )
    from orderstream import forget, times  # noqa: PLC0415

    settings = _settings()
    brokers = _broker(settings)
    person = forget.Person(_typed(buyer), channel, _typed(phone), _typed(email), tuple(order or ()))
    found = forget.find(settings, brokers, person)
    if open_too:
        found = forget.Found(sorted({*found.closed, *found.open}), {}, found.marks)
    if not found.closed and not found.open:
        typer.echo("主题里没有此人的订单 · no topic holds an order of theirs")
    for one, verdict in found.open.items():
        typer.echo(f"未了结，保留 · under way, kept\t{one}\t{verdict}")
    for one in found.closed:
        typer.echo(f"{'将抹去 · would be forgotten' if dry_run else '抹去 · forgotten'}\t{one}")
    in_time = dry_run or not found.closed or forget.erase(settings, brokers, found.closed, wait)
    rows: list[tuple[str, ...]] = [
        (r.topic, str(r.records), times.text(r.gone_by)[:10]) for r in forget.remains(settings, brokers, found)
    ]
    if rows:
        table("还剩 · what remains", ["主题 topic", "记录 records", "最迟消失 gone by"], rows)
    typer.echo(
        "released、review、frozen 由墓碑清除，通常两天内；窗口里只有带密钥的哈希，190 天内到期"
        " · tombstones clear released, review and frozen, mostly within two days; windows hold keyed hashes alone, for 190 days at most"
    )
    if not in_time:
        raise RunFailed(
            "已登记，工作进程还没做完；启动它们即可 · it is on record, the workers are not through: have them running"
        )
    if found.open:
        raise RunFailed(
            f"{len(found.open)} 个订单未了结，已保留：了结后再来一次，或 --open-too"
            f" · {len(found.open)} orders are under way and kept: come again when they are done, or --open-too"
        )


def _typed(value: str | None) -> str | None:
    """An option's value; "-": a line of standard input, which no shell's history and no list of processes shows."""
    return sys.stdin.readline().strip() if value == "-" else value


def _wanted(
    ids: Iterable[str],
    channel: str | None = None,
    shop: str | None = None,
    code: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Wanted:
    from orderstream import times  # noqa: PLC0415
    from orderstream.rejected import Wanted  # noqa: PLC0415

    return Wanted(tuple(ids), channel, shop, code, _moment(since, 0), _moment(until, times.MAX_MS))


def _moment(text: str | None, default: int) -> int:
    """ms UTC of an ISO 8601 time, or of so long ago."""
    from orderstream import times  # noqa: PLC0415
    from orderstream.rules.model import duration  # noqa: PLC0415

    if text is None:
        return default
    try:
        return time.time_ns() // 1_000_000 - duration(text)
    except ValueError:
        try:
            return times.parse(text)
        except times.TimeError:
            raise typer.BadParameter(
                f"{text} 不是 2h 或带时区的 ISO 时间 · {text} is neither like 2h nor an ISO 8601 time with its offset"
            ) from None


# outcomes


@outcomes_app.command("import")
def outcomes_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV 或 .xlsx · CSV or .xlsx")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只说会怎样 · only say what would be")] = False,
) -> None:
    """从表格导入退货、拒付、投诉等；全部正确才写入，重复无害 · Returns, chargebacks, … from a table; all rows or none, twice is once."""
    from orderstream.feedback import cli  # noqa: PLC0415

    settings = _settings()
    read = cli.read_table(settings, file)
    if read.faults:
        raise cli.refused(read)
    if read.repeats:
        typer.echo(f"{read.repeats} 行与别的行相同 · rows say what another says")
    if dry_run:
        typer.echo(f"试运行：{len(read.records)} 条可以写入，什么都没有写 · a dry run: nothing was written")
        return
    typer.echo(f"已写入 {cli.send(settings, _broker(settings), read.records)} 条 · outcomes written")


@outcomes_app.command("export")
def outcomes_export(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="以 .csv 结尾为表格，否则每行一个 JSON · .csv, else JSON lines")
    ],
) -> None:
    """导出每个订单触发的规则与后来的结果，供学习 · Each order, the rules that fired, and what came of it: labels for learning."""
    from orderstream.feedback import cli  # noqa: PLC0415

    settings = _settings()
    typer.echo(f"已写入 {cli.export(settings, _broker(settings), out)} 个订单 · orders written")


# feedback


Ending = Annotated[str, typer.Option("--until", metavar="TIME", help="到何时：90d 或 ISO 时间 · until: 90d, or an ISO 8601 time")]
Because = Annotated[str, typer.Option("--why", help="原因，会被记录 · the reason, which is recorded")]
Least = Annotated[int, typer.Option("--least", min=1, help="至少放行过几单 · orders that people must have cleared")]


@feedback_app.command("suggest")
def feedback_suggest(
    least: Least = 3,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON，含未遮盖的值 · as JSON, with keys in full")] = False,
) -> None:
    """人总是放行的，建议加入白名单；不会自己生效 · Whom people keep clearing of a rule; changes nothing."""
    import msgspec  # noqa: PLC0415

    from orderstream.feedback import cli  # noqa: PLC0415

    settings = _settings()
    found = cli.suggestions(settings, _broker(settings), time.time_ns() // 1_000_000, least)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    if not found:
        typer.echo("没有建议 · no suggestion")
        return
    columns = ["编号 id", "规则 rule", "实体 entity", "值 key", "仅限账号 among", "放行 cleared", "由谁 by"]
    rows: list[tuple[str, ...]] = [
        (s.id, s.rule, s.entity, s.shown, str(len(s.among) or "—"), str(len(s.orders)), ", ".join(s.by)) for s in found
    ]
    table("白名单建议，不会自己生效 · suggestions: none is accepted by itself", columns, rows)
    typer.echo(f"采纳 · to accept one: orderstream feedback accept {found[0].id} --why …")


@feedback_app.command("accept")
def feedback_accept(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="建议的编号 · ids of suggestions")],
    why: Because,
    until: Ending = "90d",
    least: Least = 3,
) -> None:
    """采纳建议：自现在起到何时，该规则对它不再生效 · Accepts suggestions: from now until then, that rule is off for them."""
    from orderstream.feedback import cli, suggest  # noqa: PLC0415

    settings = _settings()
    brokers, now = _broker(settings), time.time_ns() // 1_000_000
    end = _ahead(until, now)
    found = {s.id: s for s in cli.suggestions(settings, brokers, now, least)}
    strange = [one for one in ids if one not in found]
    if strange:
        raise typer.BadParameter(f"没有这样的建议 {'、'.join(strange)} · no such suggestion: orderstream feedback suggest")
    for one in ids:
        cli.tell(settings, brokers, suggest.accepted(found[one], by=cli.who(), why=why, at=now, until=end))
        typer.echo(f"{one}\t{found[one].rule}\t{found[one].entity} {found[one].shown}")


@feedback_app.command("snooze")
def feedback_snooze(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="规则编号 · the rule's id")],
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="user device phone ip segment payment address sku")],
    named: Annotated[
        str, typer.Argument(metavar="KEY", help="按渠道给的写；- 从标准输入读 · as the channel gives it; -: standard input")
    ],
    until: Ending,
    why: Because,
) -> None:
    """让一条规则对一个实体暂停到某天：照常判断，只打标 · Lets a rule rest for an entity until a date: judged, told in tags, not counted."""
    from orderstream import times  # noqa: PLC0415
    from orderstream.feedback import cli, suggest  # noqa: PLC0415

    settings = _settings()
    now = time.time_ns() // 1_000_000
    end = _ahead(until, now)
    key = _typed(named) or ""
    cli.tell(settings, _broker(settings), suggest.snoozed(rule, entity, key, by=cli.who(), why=why, at=now, until=end))
    typer.echo(f"{rule} 暂停到 {times.text(end)} · rests until then")


def _ahead(text: str, now: int) -> int:
    """ms UTC of an ISO 8601 time, or of so long from now."""
    from orderstream.rules.model import duration  # noqa: PLC0415

    try:
        end = now + duration(text)
    except ValueError:
        end = _ms(text)
    if end <= now:
        raise typer.BadParameter(f"{text} 已经过去 · is over already")
    return end


# rules


@rules_app.command("check")
def rules_check(folder: Folder) -> None:
    """加载规则包并运行其全部示例 · Loads a pack and runs all its examples."""
    from orderstream.rules.cli import check  # noqa: PLC0415

    pack, claims = check(folder)
    typer.echo(f"{pack.version}：{len(claims)} 个示例全部成立 · {len(claims)} claims of its examples hold")


@rules_app.command("publish")
def rules_publish(folder: Folder, why: Why = None) -> None:
    """校验、发布并启用规则包 · Checks, publishes and activates a pack."""
    from orderstream.rules.cli import publish  # noqa: PLC0415

    settings = _settings()
    _activated(publish(settings, _broker(settings), folder, why))


@rules_app.command("rollback")
def rules_rollback(why: Why = None) -> None:
    """回到上一个规则包 · Goes back to the pack before this one."""
    from orderstream.rules.cli import rollback  # noqa: PLC0415

    settings = _settings()
    _activated(rollback(settings, _broker(settings), why))


@rules_app.command("disable")
def rules_disable(rule: Annotated[str, typer.Argument(metavar="ID", help="规则编号 · the rule's id")], why: Why = None) -> None:
    """让一条规则只打标 · Sets one rule to tag-only."""
    from orderstream.rules.cli import disable  # noqa: PLC0415

    settings = _settings()
    _activated(disable(settings, _broker(settings), rule, why))


@rules_app.command("bypass")
def rules_bypass(
    *,
    off: Annotated[bool, typer.Option("--off", help="恢复正常判定 · back to normal")] = False,
    why: Why = None,
) -> None:
    """紧急旁路：全部打标并放行 · Emergency bypass: everything is tagged and released."""
    from orderstream.rules.cli import bypass  # noqa: PLC0415

    settings = _settings()
    _activated(bypass(settings, _broker(settings), on=not off, why=why))


def _activated(activation: Any) -> None:
    from orderstream import times  # noqa: PLC0415

    since = times.text(max(activation.at, 0))
    typer.echo(f"{activation.cause} {activation.version}：自 {since} 生效 · in force from {since}, by {activation.by}")


# actions


@actions_app.callback(invoke_without_command=True)
def actions(ctx: typer.Context) -> None:
    """执行 orders.actions：通知、短信确认、锁库存、验证 · Does what orders.actions asks for; pages behind links."""
    if ctx.invoked_subcommand is not None:
        return
    from orderstream.actions.process import run  # noqa: PLC0415

    raise typer.Exit(run(_settings()))


@actions_app.command("list")
def actions_list(
    order: Annotated[str | None, typer.Option("--order", help="某个订单的全部 · all of one order")] = None,
    limit: Annotated[int, typer.Option(min=1, help="最多几条 · at most so many")] = 100,
    *,
    everything: Annotated[bool, typer.Option("--all", help="各种状态 · every state, not only dead letters")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON · as JSON")] = False,
) -> None:
    """死信：办不成的动作与消息，及其原因 · Dead letters: what could not be done, and why."""
    from orderstream.actions import show  # noqa: PLC0415

    found = show.rows(_settings(), everything=everything, order=order, most=limit)
    if as_json:
        typer.echo(show.as_json(found))
        return
    table("动作与消息 · actions and messages", show.COLUMNS, show.table(found))


@actions_app.command("show")
def actions_show(one: Annotated[str, typer.Argument(metavar="ID", help="编号（可只写开头） · its id, or its beginning")]) -> None:
    """一条的全部 · All of one."""
    from orderstream.actions import show  # noqa: PLC0415

    for field, value in show.in_full(_settings(), one):
        typer.echo(f"{field}\t{value}")


@actions_app.command("retry")
def actions_retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="编号或订单号 · ids, or order ids")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="全部死信 · all dead letters")] = False,
) -> None:
    """修好之后重办死信；办成过的绝不重办 · Puts dead letters back after the fix; what succeeded is never repeated."""
    if not ids and not everything:
        raise typer.BadParameter("请指明哪些，或 --all · say which ones, or --all")
    from orderstream.actions import show  # noqa: PLC0415

    back = show.again(_settings(), ids or [], everything=everything)
    for one in back:
        typer.echo(one)
    typer.echo(f"重办 {len(back)} 条 · put back")


@actions_app.command("meeting")
def actions_meeting(
    one: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="编号、案件或订单；不给则列出 · id, case or order; none: a list")
    ] = None,
    language: Annotated[str, typer.Option("--language", help="zh 或 en · zh or en")] = "zh",
) -> None:
    """高风险案件的会议记录（Markdown） · The record of a high-risk case's meeting, as Markdown."""
    from orderstream.actions import show  # noqa: PLC0415

    typer.echo(show.meetings(_settings(), one, language))


@app.command("settings")
def show_settings() -> None:
    """列出全部设置；密钥只显示有无 · Lists every setting; secrets are masked."""
    from orderstream.settings import rows  # noqa: PLC0415

    table("设置 · settings", ["环境变量 variable", "值 value", "含义 meaning"], list(rows(_settings())))


def main() -> NoReturn:
    """Entry point: runs the command and ends with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show Chinese shows a mark instead of failing
            stream.reconfigure(errors="replace")
    # what a command started is ended in its `finally`, which SIGTERM would otherwise jump over
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command line; its exit code. Every UserError, Ctrl-C and bug becomes one line on standard error."""
    command = typer.main.get_command(app)
    # a library's own line would stand beside the one sentence; a process that logs sets up its logging
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        # usage errors and --help are printed by the command line's own library
        command.main(arguments, prog_name="orderstream", standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else (0 if ended.code is None else 1)
    except UserError as error:
        return _say(error.sentence, error.code)
    except BrokenPipeError:
        # the reader of our output left; Python would complain once more while it closes it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  the last line of defence
        return _say(f"程序错误 {type(error).__name__}，详情见 · a bug, its traceback is in {_keep_traceback()}", BUG)
    return 0


def _say(sentence: str, code: int) -> int:
    typer.echo(" ".join(sentence.split()), err=True)
    return code


def _keep_traceback() -> Path:
    """Writes the traceback beside the state and returns where."""
    folder = Path(os.environ.get("ORDERSTREAM_STATE_DIR") or ".orderstream")
    file = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback.format_exc(), "utf-8")
    except OSError:
        traceback.print_exc()
    return file


if __name__ == "__main__":
    main()
