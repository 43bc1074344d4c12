"""Tables from spreadsheets: CSV and Excel, as rows of text under their headings.

Law: a cell is what a person saw in it, or it is a fault; nothing is guessed. A number that Excel has cut to fifteen digits is lost,
though the cell still looks like an id.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from orderstream.errors import BadFile, NotInstalled
from orderstream.identity import plain

HEAD_ROWS = 20
"""How far down the headings may stand: exports begin with a title and with notes."""

MAX_ROWS = 1_048_576
_LOST = re.compile(r"[+-]?\d(\.\d+)?[eE]\+\d+")
_EXACT_DIGITS = 10**15


class Row(NamedTuple):
    """number: as the spreadsheet counts. cells: heading -> text, "" where empty. lost: headings of numbers that were cut."""

    number: int
    cells: dict[str, str]
    lost: frozenset[str]


class Table(NamedTuple):
    """headings: in their order. rows: below them, without empty ones."""

    headings: tuple[str, ...]
    rows: list[Row]


def read(path: Path, known: Callable[[Sequence[str]], int], sheet: str | None = None) -> Table:
    """A .csv, .tsv, .txt, .xlsx or .xlsm. known: how many cells of a row are headings that we know; sheet: Excel's, else the first.

    Raises BadFile, and NotInstalled where Excel cannot be read here.
    """
    kind = path.suffix.lower()
    if kind in {".xlsx", ".xlsm"}:
        lines = _excel(path, sheet)
    elif kind in {".csv", ".tsv", ".txt"}:
        lines = _text(path)
    else:
        raise BadFile(
            f"{path.name} 不是 CSV 或 .xlsx，请另存为其中一种 · {path.name} is neither CSV nor .xlsx: save it as one of them"
        )
    found = [(number, cells) for number, cells in lines if any(text for text, _ in cells)]
    if not found:
        raise BadFile(f"{path.name} 是空的 · {path.name} is empty")
    head = max(range(min(HEAD_ROWS, len(found))), key=lambda i: (known([text for text, _ in found[i][1]]), -i))
    headings = [text for text, _ in found[head][1]]
    twice = {h for h in headings if h and [plain(o) for o in headings].count(plain(h)) > 1}
    if twice:
        raise BadFile(
            f"{path.name} 第 {found[head][0]} 行有重名的列 {'、'.join(sorted(twice))}"
            f" · {path.name} row {found[head][0]}: two columns are named {', '.join(sorted(twice))}"
        )
    rows = [_row(number, headings, cells) for number, cells in found[head + 1 :]]
    return Table(tuple(h for h in headings if h), rows)


Cell = tuple[str, bool]
"""Text, and whether it is a number that has lost digits."""


def _row(number: int, headings: Sequence[str], cells: Sequence[Cell]) -> Row:
    named = [(h, *cell) for h, cell in zip(headings, cells, strict=False) if h]
    return Row(number, {h: text for h, text, _ in named}, frozenset(h for h, _, lost in named if lost))


def _text(path: Path) -> Iterator[tuple[int, list[Cell]]]:
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise BadFile(f"读不了 {path} · cannot read {path}: {error.strerror}") from None
    said = _decoded(blob)
    if said is None:
        raise BadFile(
            f"{path.name} 的编码不是 UTF-8 或 GB18030，请另存为 UTF-8 · {path.name} is neither UTF-8 nor GB18030: save it as UTF-8"
        )
    first = max(said.splitlines()[:HEAD_ROWS] or [""], key=len)
    delimiter = max(",\t;", key=first.count)
    reader = csv.reader(io.StringIO(said, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for cells in reader:
            yield begins, [_cut(text.strip().removeprefix("'")) for text in cells]
            begins = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"{path.name} 第 {begins} 行不是 CSV（{error}） · {path.name} row {begins} is no CSV: {error}") from None


def _decoded(blob: bytes) -> str | None:
    encodings = ["utf-16"] if blob[:2] in {b"\xff\xfe", b"\xfe\xff"} else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return blob.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _cut(text: str) -> Cell:
    return text, _LOST.fullmatch(text) is not None


def _excel(path: Path, sheet: str | None) -> Iterator[tuple[int, list[Cell]]]:
    try:
        from openpyxl import load_workbook  # noqa: PLC0415  late: the line does without
    except ModuleNotFoundError:
        raise NotInstalled("读 Excel 需要 openpyxl：pip install openpyxl · Excel needs openpyxl: pip install openpyxl") from None
    if not path.is_file():
        raise BadFile(f"读不了 {path} · cannot read {path}: no such file")
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # noqa: BLE001  whatever its zip and XML readers raise, the file is none
        raise BadFile(f"{path.name} 不是 Excel 文件 · {path.name} is no Excel file: {type(error).__name__}") from None
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise BadFile(f"{path.name} 没有工作表 {sheet}，有 · it has: {', '.join(book.sheetnames)}")
        page = book[sheet] if sheet is not None else book[book.sheetnames[0]]
        for number, cells in enumerate(page.iter_rows(values_only=True, max_row=MAX_ROWS), 1):
            yield number, [_cell(value) for value in cells]
    finally:
        book.close()


def _cell(value: Any) -> Cell:
    """A cell as Excel shows it: numbers to fifteen digits, times as ISO 8601 without an offset."""
    if value is None:
        return "", False
    if isinstance(value, bool):
        return ("TRUE" if value else "FALSE"), False
    if isinstance(value, int | float):
        if isinstance(value, float) and not value.is_integer():
            return f"{value:.15g}", False
        return str(int(value)), abs(value) >= _EXACT_DIGITS
    if isinstance(value, datetime | date):
        return value.isoformat(), False
    return _cut(str(value).strip())
