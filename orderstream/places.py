"""Chinese administrative divisions: from an address's text to a division, its rest, and its centre.

Law: a division is named only where the text leaves one choice; 西湖区 alone (Hangzhou or Nanchang) is no division.
The 3,511 divisions with coordinates are the data file of the `cpca` package (GB/T 2260 codes, centres in degrees), read
without importing it: it would bring pandas into every worker.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

_SUFFIX = re.compile(
    r"(维吾尔自治区|壮族自治区|回族自治区|自治区|特别行政区|(?:[一-龥]{1,3}族)+自治[州县旗]|自治[州县旗]|地区|新区|林区|省|市|区|县|盟|旗)$"
)
_MUNICIPALITIES = frozenset({"11", "12", "31", "50"})


@dataclass(slots=True)
class Division:
    """code: 6 digits; level 1 province, 2 city, 3 district; lat, lon: degrees of its centre."""

    code: str
    name: str
    level: int
    lat: float
    lon: float
    names: tuple[str, ...] = ()
    children: list[Division] = field(default_factory=list)
    heads: Heads = field(default_factory=dict)
    """The children's names by their first two characters."""


Heads = dict[str, list[tuple[str, Division]]]


def _names(name: str) -> tuple[str, ...]:
    short = _SUFFIX.sub("", name)
    return (name, short) if len(short) >= 2 and short != name else (name,)


@lru_cache(maxsize=1)
def divisions() -> dict[str, Division]:
    """Every division by its 6-digit code; 500 KB, read once."""
    spec = importlib.util.find_spec("cpca")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package cpca is missing: its division table is needed")
    path = Path(spec.submodule_search_locations[0]) / "resources" / "adcodes.csv"
    table: dict[str, Division] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            code = row["adcode"][:6]
            level = 1 if code.endswith("0000") else 2 if code.endswith("00") else 3
            if row["longitude"] and row["latitude"]:
                lat, lon = float(row["latitude"]), float(row["longitude"])
                table[code] = Division(code, row["name"], level, lat, lon, _names(row["name"]))
    for code in sorted(table):
        parent = _parent(code, table)
        if parent is not None:
            parent.children.append(table[code])
            _put(parent.heads, table[code])
    return table


def _put(heads: Heads, division: Division) -> None:
    for name in division.names:
        heads.setdefault(name[:2], []).append((name, division))


def _parent(code: str, table: dict[str, Division]) -> Division | None:
    if code.endswith("0000"):
        return None
    if not code.endswith("00") and code[:4] + "00" in table:
        return table[code[:4] + "00"]
    return table.get(code[:2] + "0000")


@lru_cache(maxsize=1)
def _tops() -> Heads:
    heads: Heads = {}
    for division in divisions().values():
        if division.level == 1:
            _put(heads, division)
    return heads


@lru_cache(maxsize=1)
def _unique() -> dict[str, Division]:
    """Full names of cities and districts that only one division bears."""
    seen: dict[str, list[Division]] = {}
    for division in divisions().values():
        if division.level > 1:
            seen.setdefault(division.name, []).append(division)
    return {name: found[0] for name, found in seen.items() if len(found) == 1 and len(name) >= 3}


@lru_cache(maxsize=1)
def _cities() -> Heads:
    """Cities by their short names (杭州), which say enough before the name of a district of theirs."""
    heads: Heads = {}
    for division in divisions().values():
        if division.level == 2:
            _put(heads, division)
    return heads


def _longest(text: str, heads: Heads) -> tuple[Division, str] | None:
    """The division whose name the text begins with; the longest name first."""
    best: tuple[Division, str] | None = None
    # one division is called 县, and nothing else
    for name, division in (*heads.get(text[:2], ()), *heads.get(text[:1], ())):
        if text.startswith(name) and (best is None or len(name) > len(best[1])):
            best = (division, name)
    return best


def _descend(text: str, under: Division, depth: int = 2) -> tuple[Division, str] | None:
    """The division directly under one, or below those where only one fits, that the text begins with."""
    if not under.heads:
        return None
    best = _longest(text, under.heads)
    if best is not None or depth == 0:
        return best
    found = [hit for division in under.children if (hit := _descend(text, division, depth - 1))]
    return found[0] if len({hit[0].code for hit in found}) == 1 else None


def locate(text: str) -> tuple[str | None, str]:
    """(code of the deepest division that the text begins with, or None, and the rest of the text).

    text: no spaces or punctuation. Names that repeat ("北京市北京市海淀区") are taken off once each time they stand there.
    """
    hit = _longest(text, _tops())
    if hit is None:
        for size in range(min(len(text), 12), 2, -1):
            division = _unique().get(text[:size])
            if division is not None:
                hit = (division, text[:size])
                break
    if hit is None:
        city = _longest(text, _cities())
        if city is None or _longest(text[len(city[1]) :], city[0].heads) is None:
            return None, text
        hit = city
    here, name = hit
    rest = text[len(name) :]
    path = [here]
    told = here.names
    while True:
        repeated = None
        if rest.startswith(told):
            repeated = next((n for d in reversed(path) for n in d.names if rest.startswith(n) and _whole(d, n, rest)), None)
        if repeated is not None:
            rest = rest[len(repeated) :]
            continue
        if here.code[:2] in _MUNICIPALITIES and rest.startswith(("市辖区", "直辖市")):
            rest = rest[3:]
            continue
        deeper = _descend(rest, here)
        if deeper is None:
            return here.code, rest
        here, name = deeper
        path.append(here)
        told += here.names
        rest = rest[len(name) :]


def _whole(division: Division, name: str, rest: str) -> bool:
    """A short name counts as a repetition only before another division: 北京路 is a road, not Beijing again."""
    return name == division.name or _descend(rest[len(name) :], division) is not None


def centre(code: str) -> tuple[float, float] | None:
    """(lat, lon) in degrees of a city's or district's centre; None for a province: that is no place to measure from."""
    division = divisions().get(code)
    return (division.lat, division.lon) if division is not None and division.level > 1 else None
