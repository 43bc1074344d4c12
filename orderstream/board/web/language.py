"""Language: the board's two languages.

Law: a text in a template or in code is the English one and is its own key; `locale/zh/board.po` has the Chinese for each of them,
and a test holds it to be whole. Reason: one catalogue to keep, and what is missing is seen before a customer sees it. Rule
titles, reasons and whatever else is data bring both languages themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency
from babel.support import NullTranslations, Translations

from orderstream import money

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
NAMES: dict[str, str] = {"zh": "中文", "en": "English"}
HERE = Path(__file__).parent / "locale"
_LOCALES = {"zh": "zh_Hans_CN", "en": "en"}
Say = Callable[[str], str]


def N_(text: str) -> str:  # noqa: N802  the name that the extraction of texts looks for
    """Marks a text for the catalogue."""
    return text


@cache
def translations(language: str) -> NullTranslations:
    """The catalogue of a language; English needs none."""
    if language != "zh":
        return NullTranslations()
    with (HERE / "zh" / "board.po").open("rb") as file:
        catalogue = read_po(file, locale="zh_Hans_CN", domain="board")
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled, domain="board")


def say(language: str, text: str, **values: object) -> str:
    """A text of ours in this language, with its values."""
    found = translations(language).gettext(text)
    return found % values if values else found


def chosen(accepted: str | None, kept: str | None = None) -> Language:
    """The language to speak: the one that was kept, else what a browser asks for, else Chinese."""
    for wanted in (kept, *((accepted or "").split(","))):
        base = (wanted or "").strip()[:2].lower()
        if base in LANGUAGES:
            return base
    return "zh"


def amount(total: int | None, currency: str | None, language: str) -> str:
    """Minor units as money: ¥358.00."""
    if total is None or currency is None or currency not in money.EXPONENT:
        return "—"
    return format_currency(float(money.major(total, currency)), currency, locale=_LOCALES[language])


def moment(ms: int | None, zone: str, *, seconds: bool = False) -> str:
    """A time on the shop's clock: 2026-11-22 13:05."""
    if ms is None:
        return "—"
    return datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def span(ms: int, language: str) -> str:
    """How long: 2 h 5 min. The pages' script says it in the same way."""
    minutes = abs(ms) // 60_000
    days, hours, left = minutes // 1440, minutes // 60 % 24, minutes % 60
    d, h, m = say(language, N_("d")), say(language, N_("h")), say(language, N_("min"))
    if days:
        return f"{days} {d} {hours} {h}"
    return f"{hours} {h} {left} {m}" if hours else f"{left} {m}"
