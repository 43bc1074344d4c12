"""Picture: small drawings in a page, as SVG text: where an address lies, and what a figure did over days.

Law: no tile, font or script is fetched: the land is the centres of China's cities, which `places` brings. A drawing never says what
the text beside it does not, so that nobody needs to see it; a screen reader gets its `title` alone. Colours come from the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from markupsafe import Markup, escape

from orderstream.places import divisions

WIDTH, HEIGHT = 400, 300
WEST, EAST, SOUTH, NORTH = 73.0, 136.0, 17.5, 54.0
"""Degrees of the map's edges."""


class Place(NamedTuple):
    """Degrees WGS84."""

    lat: float
    lon: float


def on_map(place: Place) -> bool:
    """Whether the map shows it."""
    return SOUTH <= place.lat <= NORTH and WEST <= place.lon <= EAST


def _xy(place: Place) -> tuple[float, float]:
    # conic enough for a glance: degrees of longitude shrink with the middle latitude
    x = (place.lon - WEST) / (EAST - WEST) * WIDTH
    y = (NORTH - place.lat) / (NORTH - SOUTH) * HEIGHT
    return round(x, 1), round(y, 1)


@cache
def _land() -> str:
    dots = []
    for division in divisions().values():
        if division.level == 2:
            x, y = _xy(Place(division.lat, division.lon))
            dots.append(f"M{x:g} {y:g}h0")
    return "".join(dots)


def land_map(here: Place, usual: Sequence[Place], title: str) -> Markup:
    """A map with where this order goes (a dot), and where the buyer's others went (rings), the nearest joined by a line."""
    if not on_map(here):
        return Markup("")
    x, y = _xy(here)
    rings = [_xy(place) for place in usual if on_map(place)]
    parts = [
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>',
        f'<path class="land" d="{_land()}" stroke="currentColor" stroke-opacity=".35" stroke-width="5" stroke-linecap="round" fill="none"/>',
    ]
    if rings:
        to = min(rings, key=lambda one: math.dist(one, (x, y)))
        parts.append(f'<line class="way" x1="{x}" y1="{y}" x2="{to[0]}" y2="{to[1]}"/>')
    parts += [f'<circle class="usual" cx="{a}" cy="{b}" r="6"/>' for a, b in dict.fromkeys(rings)]
    parts.append(f'<circle class="here" cx="{x}" cy="{y}" r="6"/></svg>')
    return Markup("".join(parts))  # noqa: S704  numbers, and a title that was escaped


def bars(values: Sequence[tuple[str, float | None]], title: str, *, most: float | None = None) -> Markup:
    """Bars a day: (label, value); None leaves a gap. most: the axis' end, by itself the greatest value."""
    width, height, low = 300, 90, 74
    top = most or max((value for _, value in values if value is not None), default=0) or 1
    step = width / max(1, len(values))
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>']
    for number, (label, value) in enumerate(values):
        if value is not None:
            tall = round(max(1.0, value / top * (low - 8)), 1)
            parts.append(
                f'<rect class="bar" x="{number * step + step * 0.15:.1f}" y="{low - tall:g}" width="{step * 0.7:.1f}" height="{tall:g}">'
                f"<title>{escape(label)}: {value:g}</title></rect>"
            )
    parts.append(f'<line class="axis" x1="0" y1="{low}" x2="{width}" y2="{low}"/>')
    if values:
        parts.append(f'<text x="0" y="{height - 3}">{escape(values[0][0])}</text>')
        if len(values) > 1:
            parts.append(f'<text x="{width}" y="{height - 3}" text-anchor="end">{escape(values[-1][0])}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  numbers, and texts that were escaped
