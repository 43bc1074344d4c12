"""Colours: what a name or a hex looks like, and how far two of them lie apart for the eye.

Law: two names are one colour where they look alike, not where they are spelled alike: 米白 and 奶白 are, 原木色 and 胡桃木色
are not. What cannot be read as a colour has no distance (None), never a small one.
Distance is CIEDE2000 (CIE 142-2001) under D65: 1 is just visible side by side, ALIKE is where a customer would not complain.
"""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from orderstream.identity import plain

ALIKE = 5.0
"""CIEDE2000 up to which two names may stand for one colour on two channels' pages."""

LONGEST = 80
"""Characters of a text that may name a colour."""

_HEX = re.compile(r"#?([0-9A-Fa-f]{6})")
_SHADES = "深浅亮暗淡中偏"
_ENGLISH_SHADES = re.compile(r"\b(?:light|dark|deep|pale|bright|medium)$")


class Lab(NamedTuple):
    """CIE L*a*b* under D65, 2°."""

    light: float
    a: float
    b: float


class Names(NamedTuple):
    """The data file: spelling -> colour; spellings that name none; and how to find names inside of a text."""

    colours: dict[str, Lab]
    nothing: frozenset[str]
    chinese: re.Pattern[str]
    english: re.Pattern[str]


def lab(text: str) -> Lab | None:
    """The colour of an sRGB hex (#C8A26B); None where it is none."""
    found = _HEX.fullmatch(text.strip())
    if found is None:
        return None
    red, green, blue = (_linear(int(found[1][at : at + 2], 16) / 255) for at in (0, 2, 4))
    x = _cube((0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047)
    y = _cube(0.2126729 * red + 0.7151522 * green + 0.0721750 * blue)
    z = _cube((0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883)
    return Lab(116 * y - 16, 500 * (x - y), 200 * (y - z))


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _cube(value: float) -> float:
    return math.cbrt(value) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116


def difference(one: Lab, other: Lab) -> float:
    """CIEDE2000 of two colours."""
    mean = (math.hypot(one.a, one.b) + math.hypot(other.a, other.b)) / 2
    grey = 1.5 - 0.5 * math.sqrt(mean**7 / (mean**7 + 25**7))
    a1, a2 = one.a * grey, other.a * grey
    c1, c2 = math.hypot(a1, one.b), math.hypot(a2, other.b)
    h1, h2 = _angle(a1, one.b), _angle(a2, other.b)
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    if turn == -180:
        turn = 180.0 if h2 > h1 else turn
    light, chroma = other.light - one.light, c2 - c1
    hue = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    middle, saturation = (one.light + other.light) / 2, (c1 + c2) / 2
    if c1 * c2 == 0:
        toward = h1 + h2
    elif abs(h1 - h2) <= 180:
        toward = (h1 + h2) / 2
    else:
        toward = (h1 + h2 + 360) / 2 if h1 + h2 < 360 else (h1 + h2 - 360) / 2
    cos = math.cos
    t = (
        1
        - 0.17 * cos(math.radians(toward - 30))
        + 0.24 * cos(math.radians(2 * toward))
        + 0.32 * cos(math.radians(3 * toward + 6))
        - 0.20 * cos(math.radians(4 * toward - 63))
    )
    by_light = 1 + 0.015 * (middle - 50) ** 2 / math.sqrt(20 + (middle - 50) ** 2)
    by_chroma, by_hue = 1 + 0.045 * saturation, 1 + 0.015 * saturation * t
    blue = 60 * math.exp(-(((toward - 275) / 25) ** 2))
    rotation = -2 * math.sqrt(saturation**7 / (saturation**7 + 25**7)) * math.sin(math.radians(blue))
    l, c, h = light / by_light, chroma / by_chroma, hue / by_hue  # noqa: E741  as the formula has them
    return math.sqrt(max(0.0, l * l + c * c + h * h + rotation * c * h))


def _angle(a: float, b: float) -> float:
    return 0.0 if a == b == 0 else math.degrees(math.atan2(b, a)) % 360


@lru_cache(maxsize=1)
def names() -> Names:
    """The colours that have names; read once."""
    colours: dict[str, Lab] = {}
    nothing: set[str] = set()
    latin: dict[str, str] = {}
    with (Path(__file__).parent / "colours.csv").open(encoding="utf-8", newline="") as file:
        for code, *said in csv.reader(line for line in file if not line.startswith("# ")):
            shade = lab(code)
            for name in said:
                for spelling in {name, name.replace("grey", "gray")}:
                    if shade is None:
                        nothing.add(_bare(spelling))
                    else:
                        colours[_bare(spelling)] = shade
                        if spelling.isascii():
                            latin[spelling] = _bare(spelling)
    # inside of a text one sign alone is no colour unless 色 follows: 金属 is not gold
    inside = [(n if len(n) > 1 else f"{n}色") for n in sorted(colours, key=len, reverse=True) if not n.isascii()]
    words = "|".join(re.escape(n).replace(r"\ ", r"[\s-]?") for n in sorted(latin, key=len, reverse=True))
    return Names(colours, frozenset(nothing), re.compile("|".join(inside)), re.compile(rf"(?<![a-z])(?:{words})(?![a-z])"))


def _bare(text: str) -> str:
    """A name as it is compared: 米白色, 米白 and "米 白" are one."""
    spelled = plain(text)
    return spelled.removesuffix("色") if len(spelled) > 1 else spelled


def read(text: str) -> tuple[Lab, ...] | None:
    """The colours that a text names, in its order: (原木色) has one, 黑白拼色 two; () where it says that it names none.

    None where it cannot be told: an unknown name, a known one made lighter or darker by a word that is not known with it,
    two languages that disagree.
    """
    # a channel's value may be a page long: that is no colour, and not worth remembering
    return None if len(text) > LONGEST else _read(text)


@lru_cache(maxsize=8192)
def _read(text: str) -> tuple[Lab, ...] | None:
    known = names()
    bare = _bare(text)
    if not bare or bare in known.nothing:
        return ()
    if bare in known.colours:
        return (known.colours[bare],)
    code = _HEX.fullmatch(text.strip())
    if code is not None and text.strip().startswith("#"):
        found = lab(text)
        return None if found is None else (found,)
    chinese = _chinese(plain(text), known)
    english = _english(unicodedata.normalize("NFKC", text).casefold(), known)
    if chinese is None or english is None:
        return None
    if chinese and english:
        return chinese if _together(chinese, english) else None
    return chinese or english or None


def _chinese(text: str, known: Names) -> tuple[Lab, ...] | None:
    whole = re.fullmatch(r"(.)(.)(?:拼|双拼|撞|相间)?色?", text)
    if whole is not None and whole[1] in known.colours and whole[2] in known.colours:
        return (known.colours[whole[1]], known.colours[whole[2]])
    found: list[Lab] = []
    for match in known.chinese.finditer(text):
        if match.start() and text[match.start() - 1] in _SHADES:
            return None
        found.append(known.colours[_bare(match.group())])
    return tuple(found)


def _english(text: str, known: Names) -> tuple[Lab, ...] | None:
    found: list[Lab] = []
    for match in known.english.finditer(text):
        if _ENGLISH_SHADES.search(text[: match.start()].rstrip(" -")):
            return None
        found.append(known.colours[_bare(match.group())])
    return tuple(found)


def _together(some: tuple[Lab, ...], others: tuple[Lab, ...]) -> bool:
    return len(some) == len(others) and all(difference(a, b) <= ALIKE for a, b in zip(some, others, strict=True))


def apart(stated: str, name: str, code: str | None = None) -> float | None:
    """How far a stated colour lies from a colour of ours (its name, and its hex where it has one); None: cannot be told.

    Two texts that name several colours are as far apart as their farthest pair.
    """
    return None if len(stated) > LONGEST else _apart(stated, name, code)


@lru_cache(maxsize=8192)
def _apart(stated: str, name: str, code: str | None) -> float | None:
    theirs, ours = read(stated), read(name)
    measured = lab(code) if code is not None else None
    if measured is not None and (ours is None or len(ours) <= 1):
        ours = (measured,)
    if not theirs or not ours or len(theirs) != len(ours):
        return None
    return max(difference(a, b) for a, b in zip(theirs, ours, strict=True))


def states_none(text: str) -> bool:
    """Whether a text in a colour's place says no colour: 如图, 默认, as shown."""
    return read(text) == ()


def is_name(text: str) -> bool:
    """Whether the whole of a text is the name of a colour that is known."""
    return _bare(text) in names().colours
