"""What is made of samples: whether a line is flat, a percentile, a picture. Pure functions; no clock, no broker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import NamedTuple

Line = Sequence[tuple[float, float]]
"""(minutes, value), in order of time."""

SLICES = 6
"""A window is judged by the medians of so many equal parts of it: one odd sample is no leak, and a slow climb cannot hide in an average."""

_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#b8860b", "#6a3d9a", "#555555", "#d2691e", "#008b8b")
_WIDTH, _HEIGHT, _LEFT, _GAP = 900, 150, 70, 46


def flatness(line: Line, since: float) -> float | None:
    """How far apart (%, of the least) the medians of the six parts of a line after `since` (minutes) lie; None with under 12 samples."""
    part = [(at, value) for at, value in line if at >= since]
    if len(part) < 2 * SLICES:
        return None
    first, last = part[0][0], part[-1][0]
    width = (last - first) / SLICES or 1.0
    groups: list[list[float]] = [[] for _ in range(SLICES)]
    for at, value in part:
        groups[min(SLICES - 1, int((at - first) / width))].append(value)
    middles = [median(group) for group in groups if group]
    least = min(middles)
    return (max(middles) - least) / least * 100 if least > 0 else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values are; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def sign_test(pairs: Sequence[tuple[float, float]]) -> float:
    """How likely at least so many pairs (a, b) would have the greater second one by chance; equal ones say nothing."""
    more = sum(b > a for a, b in pairs)
    told = more + sum(b < a for a, b in pairs)
    return sum(math.comb(told, n) for n in range(more, told + 1)) / 2**told


class Panel(NamedTuple):
    """One chart of a picture. unit: of what goes to the right; those of one unit share their axis."""

    title: str
    lines: Mapping[str, Line]
    unit: str = "min"


def picture(title: str, panels: Sequence[Panel], since: float | None = None) -> str:
    """The panels below each other as an SVG, mostly time in minutes to the right. since: where the judged part begins, shaded."""
    height = 40 + len(panels) * (_HEIGHT + _GAP)

    def end(unit: str) -> float:
        lines = [line for panel in panels if panel.unit == unit for line in panel.lines.values()]
        return max((line[-1][0] for line in lines if line), default=1.0) or 1.0

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        out += _panel(panel, 40 + number * (_HEIGHT + _GAP), end(panel.unit), since)
    return "\n".join([*out, "</svg>", ""])


def _panel(panel: Panel, top: int, end: float, since: float | None) -> list[str]:
    highest = max((value for line in panel.lines.values() for _, value in line if value == value), default=0.0)  # noqa: PLR0124  NaN
    highest = highest * 1.1 or 1.0
    wide, bottom = _WIDTH - _LEFT - 20, top + 20 + _HEIGHT - 24

    def place(at: float, value: float) -> str:
        return f"{_LEFT + at / end * wide:.1f},{bottom - value / highest * (_HEIGHT - 24):.1f}"

    out = [f'<text x="10" y="{top + 12}">{escape(panel.title)}</text>']
    if since is not None and since < end:
        left = _LEFT + since / end * wide
        out.append(
            f'<rect x="{left:.1f}" y="{top + 20}" width="{_LEFT + wide - left:.1f}" height="{_HEIGHT - 24}" fill="#f2f6fa"/>'
        )
    for share in (0.0, 0.5, 1.0):
        y = bottom - share / 1.1 * (_HEIGHT - 24)
        out.append(f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{_short(highest / 1.1 * share)}</text>')
    out += [
        f'<text x="{_LEFT + share * wide:.0f}" y="{bottom + 15}" text-anchor="middle" fill="#666">{end * share:.4g} {escape(panel.unit)}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    legend = _LEFT + wide
    for index, (name, line) in reversed(list(enumerate(panel.lines.items()))):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(place(at, value) for at, value in line if value == value)  # noqa: PLR0124  NaN
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        out.append(f'<text x="{legend}" y="{top + 12}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
        legend -= 8 * len(name) + 16
    return out


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
