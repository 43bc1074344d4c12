"""The catalogue commands: load, import, suggest, accept, report.

Law: a table goes in whole or not at all, a suggestion goes in only by name, and a report changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from orderstream import topics
from orderstream.catalogue import imports, store, suggest, tables
from orderstream.catalogue.article import Article, Code, read_article, write_article
from orderstream.catalogue.images import Images
from orderstream.catalogue.imports import Imported
from orderstream.catalogue.index import Catalogue
from orderstream.catalogue.listing import Key, Listing, Sold, joined, of_orders
from orderstream.catalogue.report import Section
from orderstream.catalogue.suggest import Suggestion
from orderstream.errors import BadFile
from orderstream.orders import CHANNELS
from orderstream.settings import Settings

FAULTS_SHOWN = 50


class Source(NamedTuple):
    """Where the catalogue is: a file, else a Kafka."""

    file: Path | None
    brokers: str | None


def load(settings: Settings, lines: list[tuple[int, Article]], brokers: str) -> int:
    """Writes the lines of a catalogue file (`store.of_file`) to Kafka. Raises BadFile where bundles hold each other with what is there."""
    topics.now(topics.check(brokers, settings))
    store.grown(store.of_topic(settings, brokers), lines)
    return store.send(settings, brokers, lines)


def known(settings: Settings, source: Source) -> Catalogue:
    """The catalogue of a source; an empty one where there is none. Raises BadFile, NoBroker, NotAdmitted, TopicsUnfit."""
    if source.file is not None:
        return store.grown(Catalogue(), store.of_file(source.file))
    return store.of_topic(settings, source.brokers) if source.brokers is not None else Catalogue()


def read_list(path: Path, where: tuple[str, str], catalogue: Catalogue) -> Imported:
    """A channel's product list. where: channel, shop. Raises BadFile."""
    return imports.product_list(tables.read(path, imports.recognised(where[0], {})), {}, catalogue, store.moment(), *where)


def read_table(
    settings: Settings,
    path: Path,
    catalogue: Catalogue,
    given: Mapping[str, str],
    where: tuple[str, str] | None,
    at: int,
    sheet: str | None,
) -> Imported:
    """A table of articles, or, with (channel, shop), that shop's product list. Raises BadFile, NotInstalled."""
    channel = where[0] if where is not None else None
    table = tables.read(path, imports.recognised(channel, given), sheet)
    if where is None:
        done = imports.articles(table, given, catalogue, at, settings.timezone)
    else:
        done = imports.product_list(table, given, catalogue, at, *where)
    if not done.faults:
        store.grown(catalogue, [read_article(write_article(article)) for article in done.articles])
    return done


def keep(settings: Settings, done: Sequence[Article], source: Source, out: Path | None, why: str | None = None) -> int:
    """Writes new lines to a file (`out`: the catalogue file's lines, then these), or else to Kafka; how many. Raises BadFile, NoBroker."""
    if out is not None:
        before = [article for _, article in store.of_file(source.file)] if source.file is not None else []
        mine = {(article.sku, article.at) for article in done}
        store.write(out, [*(a for a in before if (a.sku, a.at) not in mine), *done])
        return len(done)
    assert source.brokers is not None
    topics.now(topics.check(source.brokers, settings))
    return store.send(settings, source.brokers, [read_article(write_article(article)) for article in done], why)


def said(done: Imported) -> list[str]:
    """What an import found, line by line."""
    columns = "，".join(f"{field}={heading}" for field, heading in done.columns.items())
    lines = [f"读了 {done.rows} 行 · rows read; 列 columns: {columns}"]
    if done.unread:
        lines.append(f"没有用到的列 · columns that were not read: {'、'.join(done.unread)}")
    shown = done.faults[:FAULTS_SHOWN]
    lines += [f"第 {fault.row} 行 row {fault.row}\t{fault.column}\t{fault.value}\t{fault.why}" for fault in shown]
    if len(done.faults) > FAULTS_SHOWN:
        lines.append(f"还有 {len(done.faults) - FAULTS_SHOWN} 处 · more of them")
    lines.append(
        f"新增 {len(done.new)}，变更 {len(done.changed)}，不变 {done.unchanged}"
        f" · {len(done.new)} new, {len(done.changed)} changed, {done.unchanged} as they were"
    )
    if done.unmapped:
        lines.append(
            f"未对应的编码 {len(done.unmapped)} 个，见 orderstream catalogue suggest"
            f" · {len(done.unmapped)} codes name no article: orderstream catalogue suggest"
        )
    return lines


def refused(done: Imported) -> BadFile:
    """What an import with faults ends with."""
    rows = len({fault.row for fault in done.faults})
    return BadFile(f"{rows} 行有误，什么都没有写入 · {rows} rows have faults, nothing was written")


def shop_of(text: str) -> tuple[str, str]:
    """(Channel, shop) of `douyin:main`. Raises BadFile."""
    channel, _, shop = text.partition(":")
    if channel not in CHANNELS or not shop:
        raise BadFile(
            f"{text} 不是 渠道:店铺，渠道有 {'、'.join(CHANNELS)} · {text} is no channel:shop; channels: {', '.join(CHANNELS)}"
        )
    return channel, shop


def lists_of(given: Sequence[str], catalogue: Catalogue) -> tuple[dict[Key, Listing], list[str]]:
    """Product lists as the option has them, `douyin:main=products.xlsx` each; and a sentence for each that was not read whole.

    Raises BadFile.
    """
    found: dict[Key, Listing] = {}
    unread: list[str] = []
    for one in given:
        where, _, path = one.partition("=")
        if not path:
            raise BadFile(f"{one} 不是 渠道:店铺=文件 · {one} is no channel:shop=FILE")
        done = read_list(Path(path), shop_of(where), catalogue)
        # a clash with our mapping is what the report is for; why a row can't be read is told where it is imported
        found.update({listing.key: listing for listing in done.listings})
        left = done.rows - len(done.listings)
        if left:
            unread.append(
                f"{path}：{left} 行没有读懂，catalogue import --dry-run 说明原因"
                f" · {left} rows were not read: catalogue import --dry-run says why"
            )
    return found, unread


def suggestions(
    catalogue: Catalogue, at: int, sold: Sold | None, lists: Mapping[Key, Listing], pictures: Images, most: int
) -> list[list[Suggestion]]:
    """Of each code that names no article, those sold most first."""
    seen = joined(lists.values(), sold.listings.values() if sold is not None else ())
    open_codes = [one for one in seen.values() if not catalogue.skus(one.channel, one.shop, one.code, at)]
    return suggest.suggestions(suggest.Suggester(catalogue, at, pictures), open_codes, most)


def suggestion_rows(found: Sequence[Sequence[Suggestion]]) -> list[tuple[str, ...]]:
    """Rows of the table: a code, an article, the confidence, and on what it rests."""
    return [
        (one.code if not index else "", f"{one.channel}:{one.shop}" if not index else "", f"{one.sku} {one.name}",
         f"{one.confidence}%", "；".join(_ground(g.what, g.likeness, g.says) for g in one.grounds))
        for several in found for index, one in enumerate(several)
    ]  # fmt: skip


_WHAT = {"title": "标题 title", "colour": "颜色 colour", "spec": "规格 spec", "price": "价格 price", "image": "图片 image"}


def _ground(what: str, likeness: int | None, says: str) -> str:
    kind, _, name = what.partition(" ")
    told = "未写 not said" if likeness is None else f"{likeness}%"
    return f"{_WHAT[kind]}{f' {name}' if name else ''} {told}（{says}）"


def accept(
    settings: Settings, source: Source, out: Path | None, code: Code, sku: str, *, move: bool, why: str | None
) -> list[Article]:
    """Maps a code to an article from now on; the lines that were written, none where it is so already. Raises BadFile, NoBroker."""
    catalogue = known(settings, source)
    lines = store.accepted(catalogue, store.moment(), code, sku, move=move)
    if lines:
        keep(settings, lines, source, out, why)
    return lines


def orders(settings: Settings, files: Sequence[Path], brokers: str | None) -> Sold | None:
    """What orders say of codes; None where nowhere is looked."""
    return of_orders(store.raws(settings, files, brokers)) if files or brokers is not None else None


def write_report(sections: Sequence[Section], out: Path) -> None:
    """As a workbook (.xlsx: a sheet a section) or JSON (any other name). Raises BadFile, NotInstalled."""
    try:
        if out.suffix.lower() == ".xlsx":
            _workbook(sections, out)
        else:
            out.write_bytes(as_json(sections))
    except OSError as error:
        raise BadFile(f"写不了 {out} · cannot write {out}: {error.strerror}") from None


def as_json(value: Any) -> bytes:
    """Indented JSON of structs."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2).encode() + b"\n"


def _workbook(sections: Sequence[Section], out: Path) -> None:
    from openpyxl import Workbook  # noqa: PLC0415  late
    from openpyxl.styles import Font  # noqa: PLC0415

    book = Workbook()
    book.remove(book.worksheets[0])
    for section in sections:
        sheet = book.create_sheet(section.id)
        sheet.append([section.title])
        sheet.append([f"没有可看的 · not available: {section.not_available}"] if section.not_available else section.columns)
        for row in section.rows:
            sheet.append(row)
        for cell in (*sheet[1], *sheet[2]):
            cell.font = Font(bold=True)
        for cells in sheet.iter_rows():
            for cell in cells:
                # a title that begins with = is text, whatever a buyer's channel let somebody type
                cell.data_type = "s" if cell.value is not None else cell.data_type
    book.save(out)
