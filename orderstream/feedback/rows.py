"""Outcomes from rows of a table or a request: all of them, or what is wrong with each.

Law: pure, and one reading for the command line, the HTTP API and the board. A row says what happened, as an ERP knows it; what
people decide is said by them, on the board, in their own name. A row said twice is one outcome: its id is what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from orderstream import outcomes, times
from orderstream.orders import CHANNELS

FROM_OUTSIDE = outcomes.WORLD
"""What may come from a table or a request of another system, unless the caller may say more."""

HEADINGS: dict[str, tuple[str, ...]] = {
    "order_id": ("order_id", "订单号", "订单编号"),
    "at": ("at", "时间", "发生时间"),
    "outcome": ("outcome", "结果", "类型"),
    "by": ("by", "来源", "操作人"),
    "id": ("id", "编号"),
    "reason": ("reason", "原因"),
    "note": ("note", "备注"),
}
"""Field -> how its column may be headed."""

WORDS: dict[str, str] = {
    "发货": "shipped", "退货": "returned", "拒付": "chargeback", "发错货": "wrong-shipment", "错发": "wrong-shipment",
    "投诉": "complaint", "咨询": "contact", "确认欺诈": "confirmed-fraud", "误报": "false-alarm",
}  # fmt: skip

_ORDER = re.compile(rf"(?:{'|'.join(CHANNELS)}):[^:\s]{{1,64}}:[^:\s]{{1,128}}")
_DAY = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})")
_LOCAL = re.compile(r"(\d{4}[-/]\d{1,2}[-/]\d{1,2})[ T](\d{1,2}:\d{2}(?::\d{2})?)")
_NOTE = 4000


class Fault(NamedTuple):
    """What is wrong with a row, for people. row: as the caller counts."""

    row: int
    sentence: str


class Read(NamedTuple):
    """records: of orders.outcomes, by the published schema, each with its id; faults: where there is one, nothing is to be sent.

    repeats: rows that say what another says; rows: a record's id -> the first row that says it.
    """

    records: list[dict[str, Any]]
    faults: list[Fault]
    repeats: int = 0
    rows: Mapping[str, int] = {}


def read_outcomes(
    rows: Iterable[tuple[int, Mapping[str, Any]]], zone: str, *, by: str, allowed: frozenset[str] = FROM_OUTSIDE
) -> Read:
    """The outcomes of numbered rows (field -> text).

    zone: IANA name, of times without an offset; a day alone means its end, since by then it was known. by: who says so where a row
    does not. allowed: the outcomes that this sender may say.
    """
    found: dict[str, dict[str, Any]] = {}
    rows_of: dict[str, int] = {}
    faults: list[Fault] = []
    repeats = 0
    for number, row in rows:
        try:
            record = _record({k: v for k, v in row.items() if v not in (None, "")}, zone, by, allowed)
        except ValueError as error:
            faults.append(Fault(number, str(error)))
            continue
        known = found.setdefault(record["id"], record)
        rows_of.setdefault(record["id"], number)
        if known is not record:
            repeats += 1
            if known != record:
                faults.append(
                    Fault(number, f"编号 {record['id']} 在别的行说的是另一件事 · another row says otherwise under this id")
                )
    return Read(list(found.values()), faults, repeats, rows_of)


def _record(row: Mapping[str, Any], zone: str, by: str, allowed: frozenset[str]) -> dict[str, Any]:
    missing = [field for field in ("order_id", "at", "outcome") if field not in row]
    if missing:
        raise ValueError(f"缺少 {'、'.join(missing)} · {', '.join(missing)} is missing")
    order, said = str(row["order_id"]).strip(), str(row["outcome"]).strip()
    said = WORDS.get(said, said)
    if not _ORDER.fullmatch(order):
        raise ValueError("订单号应为 渠道:店铺:单号 · the order id is channel:shop:number")
    if said not in allowed:
        raise ValueError(f"结果只能是 {' '.join(sorted(allowed))} · the outcome is one of these")
    at = _moment(str(row["at"]).strip(), zone)
    who = str(row.get("by", by))
    record = {
        "kind": "outcome",
        "id": str(row.get("id") or outcomes.derived(order, at, said, who)),
        "at": times.text(at),
        "order_id": order,
        "outcome": said,
        "by": who,
    }
    record.update({field: str(row[field]) for field in ("reason", "note") if field in row})
    if len(record.get("note", "")) > _NOTE:
        raise ValueError(f"备注超过 {_NOTE} 字 · the note is over {_NOTE} characters")
    try:
        outcomes.read(record)
    except ValueError as error:
        raise ValueError(f"不合格式 · {error}") from None
    return record


def _moment(text: str, zone: str) -> int:
    """ms UTC."""
    try:
        day, local = _DAY.fullmatch(text), _LOCAL.fullmatch(text)
        if day is not None:
            end = datetime(int(day[1]), int(day[2]), int(day[3]), tzinfo=ZoneInfo(zone)) + timedelta(days=1)
            return int(end.timestamp() * 1000) - 1
        if local is not None:
            date = [int(part) for part in re.split("[-/]", local[1])]
            clock = [int(part) for part in local[2].split(":")]
            return int(datetime(*date, *clock, tzinfo=ZoneInfo(zone)).timestamp() * 1000)  # type: ignore[misc,arg-type]
        return times.parse(text)
    except (ValueError, OverflowError):
        raise ValueError("时间应像 2026-11-11 10:00、2026-11-11 或带时区的 ISO · a time is like one of these") from None
