"""Imports: catalogue lines from a table of articles, mappings from a channel's product list.

Law: all rows or none. Every fault is told with its row, its column and what was there; a column that nobody named is told too.
An article keeps what the table has no column for, and counts in its new form only from the time of the import: orders that came
before are read as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import yaml

from orderstream import money, times
from orderstream.catalogue import colours
from orderstream.catalogue.article import Article, CatalogueError, Code, Colour, Component, read_article, since, write_article
from orderstream.catalogue.index import Catalogue
from orderstream.catalogue.listing import Listing, spec_of
from orderstream.catalogue.tables import Row, Table
from orderstream.errors import BadFile
from orderstream.identity import plain
from orderstream.orders import CHANNELS

_MONEY = re.compile(r"^(?:¥|￥|\$|€|£|CNY|RMB|USD)?\s*(\d{1,3}(?:[,，]\d{3})+|\d+)((?:\.\d+)?)\s*元?$", re.IGNORECASE)
_PART = re.compile(r"^(.+?)(?:(?:\s*[*×]\s*|\s+[xX]\s*)(\d+))?$")
_SPLIT = re.compile(r"[;；、\n]+")
_YES = frozenset({"true", "yes", "y", "1", "是", "有", "预售"})
_NO = frozenset({"", "false", "no", "n", "0", "否", "无"})
_CODE_COLUMN = re.compile(r"(?:编码|code)\s*[:：]\s*([^:：]+)(?:[:：](.+))?", re.IGNORECASE)
_SPEC_COLUMN = re.compile(r"(?:规格|spec)\s*[:：]\s*(.+)", re.IGNORECASE)


class Fault(NamedTuple):
    """What is wrong in one cell. row: as the spreadsheet counts; why: `中文 · English`."""

    row: int
    column: str
    value: str
    why: str


class Imported(msgspec.Struct):
    """What a table leads to. articles: whole, as they are to be from `at` on; listings: of a product list, by its rows.

    columns: field -> heading that was read; unread: headings that mean nothing here. unmapped: codes of the list that name no
    article of ours.
    """

    columns: dict[str, str]
    unread: list[str]
    rows: int = 0
    articles: list[Article] = []
    new: list[str] = []
    changed: list[str] = []
    unchanged: int = 0
    faults: list[Fault] = []
    listings: list[Listing] = []
    unmapped: list[str] = []


class _BadCellError(ValueError):
    """Its sentence says what is wrong with a cell."""


@cache
def known_columns() -> dict[str, Any]:
    """The data file of headings."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "columns.yaml").read_text("utf-8"))
    return found


def headings(channel: str | None) -> dict[str, list[str]]:
    """Field -> headings that it goes by, the surest first; of a channel's list, or of a table of articles."""
    if channel is None:
        return dict(known_columns()["articles"])
    own = known_columns()["channels"].get(channel, {})
    return {field: [*own.get(field, []), *usual] for field, usual in known_columns()["lists"].items()}


def recognised(channel: str | None, given: Mapping[str, str]) -> Callable[[Sequence[str]], int]:
    """How many cells of a row are headings that we know."""
    names = {plain(h) for known in headings(channel).values() for h in known} | {plain(h) for h in given.values()}
    return lambda cells: sum(plain(c) in names or bool(_CODE_COLUMN.fullmatch(c)) for c in cells if c)


def columns(table: Table, channel: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Field -> the table's heading. Raises BadFile where what was named is not there, or what is needed is not found."""
    wanted = headings(channel)
    there = {plain(h): h for h in table.headings}
    has = "、".join(table.headings)
    found: dict[str, str] = {}
    for field, heading in given.items():
        if field not in wanted:
            raise BadFile(f"没有字段 {field}，有 · no such field; there are: {', '.join(wanted)}")
        if plain(heading) not in there:
            raise BadFile(f"表里没有列 {heading}，有 {has} · no column {heading}; there are: {', '.join(table.headings)}")
        found[field] = there[plain(heading)]
    for field, usual in wanted.items():
        if field in found:
            continue
        hit = next((there[plain(h)] for h in usual if plain(h) in there and there[plain(h)] not in found.values()), None)
        if hit is not None:
            found[field] = hit
    needed = ("sku",) if channel is None else ("own", "number")
    if not any(field in found for field in needed):
        raise BadFile(
            f"找不到字段 {'/'.join(needed)} 的列，请用 --column {needed[0]}=列名；表里有 {has}"
            f" · no column for {' or '.join(needed)}: name it with --column {needed[0]}=heading;"
            f" there are: {', '.join(table.headings)}"
        )
    return found


# -- articles -------------------------------------------------------------------------------------------------------------


def articles(table: Table, given: Mapping[str, str], known: Catalogue, at: int, zone: str) -> Imported:
    """A table of articles. at: ms UTC from which they count; zone: of times without an offset (an IANA name)."""
    cols = columns(table, None, given)
    coded = {h: m for h in table.headings if (m := _CODE_COLUMN.fullmatch(h))}
    for heading, match in coded.items():
        if match[1].strip() not in CHANNELS:
            raise BadFile(
                f"列 {heading}：没有渠道 {match[1]}，有 {'、'.join(CHANNELS)}"
                f" · column {heading}: no channel {match[1]}; there are: {', '.join(CHANNELS)}"
            )
    specs = {h: m[1].strip() for h in table.headings if (m := _SPEC_COLUMN.fullmatch(h))}
    out = Imported(cols, [h for h in table.headings if h not in {*cols.values(), *coded, *specs}], len(table.rows))
    first: dict[str, int] = {}
    for row in table.rows:
        faults: list[Fault] = []
        fields = _fields(row, cols, faults, zone)
        codes = _codes(row, coded, faults)
        sku = fields.get("sku")
        if sku is None:
            if not any(f.column == cols["sku"] for f in faults):
                faults.append(Fault(row.number, cols["sku"], "", "货号是空的 · the sku is empty"))
        elif sku in first:
            why = f"与第 {first[sku]} 行重复 · is in row {first[sku]} already"
            faults.append(Fault(row.number, cols["sku"], sku, why))
        out.faults += faults
        if sku is None or faults:
            continue
        first[sku] = row.number
        spec = {name: row.cells[h] for h, name in specs.items() if row.cells.get(h)}
        try:
            _put(out, _article(known.article(sku, at), fields, codes, spec), known, at)
        except CatalogueError as error:
            out.faults.append(Fault(row.number, "", sku, f"不成商品 · is no article: {error}"))
    return out


def _fields(row: Row, cols: Mapping[str, str], faults: list[Fault], zone: str) -> dict[str, Any]:
    """Field -> value, of the cells that are not empty."""
    out: dict[str, Any] = {}
    for field, heading in cols.items():
        text = row.cells.get(heading, "")
        if not text:
            continue
        try:
            read = _lost if heading in row.lost and field in {"sku", "hs_code"} else _READ.get(field)
            out[field] = text if read is None else read(text, zone)
        except _BadCellError as error:
            faults.append(Fault(row.number, heading, text, str(error)))
    return out


def _codes(row: Row, coded: Mapping[str, re.Match[str]], faults: list[Fault]) -> list[Code]:
    codes: list[Code] = []
    for heading, match in coded.items():
        text = row.cells.get(heading, "")
        channel, shop = match[1].strip(), (match[2] or "").strip() or None
        if heading in row.lost:
            faults.append(Fault(row.number, heading, text, LOST))
        else:
            codes += [Code(channel, one.strip(), shop) for one in _SPLIT.split(text) if one.strip()]
    return codes


def _article(before: Article | None, fields: Mapping[str, Any], codes: list[Code], spec: dict[str, str]) -> Article:
    """The article as the row has it, over what it was. Raises CatalogueError."""
    said = {k: v for k, v in fields.items() if k not in {"colour", "hex"}}
    if "colour" in fields or "hex" in fields:
        known = before.colour if before is not None else None
        name = fields.get("colour", known.name if known else None)
        if name is None:
            raise CatalogueError("有色值没有颜色名 · a hex without a colour's name")
        same = known is not None and known.name == name
        said["colour"] = Colour(name, fields.get("hex", known.hex if known and same else None))
    if before is None and "name" not in said:
        raise CatalogueError("新商品没有名称 · a new article without a name")
    if spec:
        said["spec"] = {**(before.spec if before is not None else {}), **spec}
    if codes:
        said["codes"] = _with(before.codes if before is not None else (), codes)
    made = Article(**said) if before is None else msgspec.structs.replace(before, **said)
    # through the reader that every worker has: what it refuses is refused here
    return read_article(write_article(msgspec.structs.replace(made, at=None)))[1]


def _with(codes: Sequence[Code], more: Sequence[Code]) -> tuple[Code, ...]:
    return tuple(dict.fromkeys((*codes, *more)))


def _put(out: Imported, made: Article, known: Catalogue, at: int) -> None:
    before = known.article(made.sku, at)
    if before is not None and msgspec.structs.replace(before, at=None) == made:
        out.unchanged += 1
        return
    (out.new if before is None else out.changed).append(made.sku)
    out.articles.append(since(made, at))


# -- product lists --------------------------------------------------------------------------------------------------------


def product_list(table: Table, given: Mapping[str, str], known: Catalogue, at: int, channel: str, shop: str) -> Imported:
    """A channel's product list: a code whose row names our SKU is mapped to it, the others are unmapped until somebody says.

    Our SKU stands in a column of its own, or the shop's own code is one. A code that names another article already is a fault,
    and so is, in a column of its own, what is no SKU.
    """
    cols = columns(table, channel, given)
    out = Imported(cols, [h for h in table.headings if h not in cols.values()], len(table.rows))
    added: dict[str, list[Code]] = {}
    first: dict[str, int] = {}
    for row in table.rows:
        one = _listing(row, cols, channel, shop, out.faults)
        if one is None:
            continue
        heading = cols.get("own") or cols["number"]
        if one.code in first:
            why = f"与第 {first[one.code]} 行重复 · is in row {first[one.code]} already"
            out.faults.append(Fault(row.number, heading, one.code, why))
            continue
        first[one.code] = row.number
        out.listings.append(one)
        stated = row.cells.get(cols["sku"], "") if "sku" in cols else ""
        if stated and known.article(stated, at) is None:
            why = "商品目录里没有这个货号 · is no article of ours"
            out.faults.append(Fault(row.number, cols["sku"], stated, why))
            continue
        sku = stated or (one.code if known.article(one.code, at) is not None else "")
        named = known.skus(channel, shop, one.code, at)
        if not sku:
            if not named:
                out.unmapped.append(one.code)
        elif named and named != [sku]:
            why = (
                f"编码 {one.code} 已对应 {', '.join(named)}，确要改用 orderstream catalogue accept --move"
                f" · the code names {', '.join(named)} already: orderstream catalogue accept --move changes it"
            )
            out.faults.append(Fault(row.number, cols.get("sku", heading), sku, why))
        elif not named:
            added.setdefault(sku, []).append(Code(channel, one.code, shop))
    for sku, codes in sorted(added.items()):
        before = known.article(sku, at)
        assert before is not None
        _put(out, msgspec.structs.replace(before, codes=_with(before.codes, codes), at=None), known, at)
    return out


def _listing(row: Row, cols: Mapping[str, str], channel: str, shop: str, faults: list[Fault]) -> Listing | None:
    said = {field: row.cells.get(heading, "") for field, heading in cols.items()}
    field = "own" if said.get("own") else "number"
    if not said.get(field):
        faults.append(Fault(row.number, cols.get("own") or cols["number"], "", "编码是空的 · the code is empty"))
        return None
    if cols[field] in row.lost:
        faults.append(Fault(row.number, cols[field], said[field], LOST))
        return None
    code = said[field] if field == "own" or ":" in said[field] else f"{NUMBERED.get(channel, 'sku')}:{said[field]}"
    one = Listing(channel, shop, code, said.get("title") or None, image=said.get("image") or None)
    one.spec, colour = spec_of(said.get("spec", ""))
    stated = said.get("colour") or colour or (said["spec"] if colours.is_name(said.get("spec", "")) else None)
    if stated:
        one.colours[stated] += 1
    try:
        one.currency = _currency(said.get("currency") or "CNY", "")
        if said.get("price"):
            one.price = money.minor(_amount(said["price"], ""), one.currency)
    except (_BadCellError, money.AmountError) as error:
        heading = cols["price"] if said.get("price") else cols.get("currency", "")
        faults.append(Fault(row.number, heading, said.get("price", ""), f"读不了价格 · cannot read the price: {error}"))
        return None
    return one


NUMBERED = {"shopify": "variant"}
"""What stands before a platform's number of a variant where the shop gave it no code of its own; `sku` on the other channels."""


# -- cells ----------------------------------------------------------------------------------------------------------------

LOST = (
    "Excel 只保留 15 位数字，这个编码已经丢位：请把该列设为文本后重新导出"
    " · Excel keeps 15 digits and this one has lost some: make the column text and export it again"
)


def _lost(text: str, zone: str) -> str:
    del text, zone
    raise _BadCellError(LOST)


def _amount(text: str, zone: str) -> str:
    del zone
    found = _MONEY.match(text)
    if found is None:
        raise _BadCellError(f"不是金额 · is no amount: {text}")
    return re.sub("[,，]", "", found[1]) + found[2]


def _price(text: str, zone: str) -> Decimal:
    return Decimal(_amount(text, zone))


def _currency(text: str, zone: str) -> str:
    del zone
    code = {"人民币": "CNY", "RMB": "CNY", "元": "CNY", "美元": "USD"}.get(text.upper(), text.upper())
    if code not in money.EXPONENT:
        raise _BadCellError(f"不是 ISO 4217 货币 · is no ISO 4217 currency: {text}")
    return code


def _hex(text: str, zone: str) -> str:
    del zone
    if colours.lab(text) is None:
        raise _BadCellError("不是 #RRGGBB · is no #RRGGBB")
    return "#" + text.strip().removeprefix("#").upper()


def _grams(text: str, zone: str) -> int:
    del zone
    if not text.isascii() or not text.isdigit():
        raise _BadCellError("不是整数克 · is no whole number of grams")
    return int(text)


def _flag(text: str, zone: str) -> bool:
    del zone
    said = text.casefold()
    if said not in _YES | _NO:
        raise _BadCellError("不是 是/否 · is neither yes nor no")
    return said in _YES


def _time(text: str, zone: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace("/", "-"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        return times.text(times.parse(moment.astimezone(UTC).isoformat()))
    except (ValueError, OverflowError):
        raise _BadCellError("不是日期（如 2026-11-20） · is no date, as 2026-11-20") from None


def _components(text: str, zone: str) -> tuple[Component, ...]:
    del zone
    parts: dict[str, int] = {}
    for one in _SPLIT.split(text):
        if not one.strip():
            continue
        found = _PART.match(one.strip())
        if found is None:
            raise _BadCellError(f"不是 货号*数量 · is no sku*quantity: {one}")
        sku = found[1].strip()
        parts[sku] = parts.get(sku, 0) + int(found[2] or 1)
    return tuple(Component(sku, quantity) for sku, quantity in parts.items())


_READ: dict[str, Callable[[str, str], Any]] = {
    "base_price": _price,
    "currency": _currency,
    "hex": _hex,
    "weight_g": _grams,
    "presale": _flag,
    "ships_at": _time,
    "components": _components,
}
