"""Phone numbers: one spelling for each (E.164), in whatever form a channel or a country writes it.

Law: a number is a key only where it is somebody's own. A masked one, a ciphertext, a short one that means another line in
every town, and a mobile number with an extension (a platform's privacy number, lent for one order) are none.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

HOME = "CN"
CODE = "+86"
LONGEST = 60
"""Characters: more is no number, and not worth looking for one in."""

_MOBILE = re.compile(r"(?:\+86|0086|86)?(1[3-9][0-9]{9})")
_WRITTEN = re.compile(r"[0-9+()./ -]+")
_SEPARATORS = str.maketrans("", "", " -()./\u00a0")
_EXTENSION = re.compile(r"\s*(?:转|分机号?|轉|分機)\s*(?=[0-9])")
_TAIL = re.compile(r"(.*[0-9].*?)[-#,;x_ ]+([0-9]{1,6})")
_AREA = re.compile(r"[A-Z]{2}")


def number(text: str, region: str | None = HOME) -> str | None:
    """E.164 (`+8613800000000`, a fixed line's extension behind a semicolon), or None where it is no number to know somebody by.

    region: ISO 3166 letters of the country whose numbers are written without its code; None: only numbers with one are read.
    """
    if region == HOME and len(text) == 11 and text.isascii() and _MOBILE.fullmatch(text):
        return CODE + text
    return _number(text, region)


@lru_cache(maxsize=16384)
def _number(text: str, region: str | None) -> str | None:
    said = unicodedata.normalize("NFKC", text).strip()
    if "*" in said:
        return None
    if region == HOME and _WRITTEN.fullmatch(said):
        mobile = _MOBILE.fullmatch(said.translate(_SEPARATORS))
        if mobile is not None:
            return CODE + mobile[1]
    told = _foreign(_EXTENSION.sub(" ext. ", said), region)
    # who sends abroad writes the own number as at home
    return told if told is not None or region == HOME else _number(text, HOME)


def _foreign(said: str, region: str | None) -> str | None:
    """By the tables of all countries, which most shops never need: they are read when the first such number comes."""
    import phonenumbers  # noqa: PLC0415  a third of a second

    if len(said) > LONGEST or any(c.isalpha() for c in _words(said)):
        return None
    for head, extension in _split(said):
        try:
            parsed = phonenumbers.parse(head, region)
        except phonenumbers.NumberParseException:
            continue
        if not phonenumbers.is_valid_number(parsed):
            continue
        told = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
        own = parsed.extension or extension
        if not own:
            return str(told)
        kind = phonenumbers.number_type(parsed)
        return f"{told};{own}" if kind == phonenumbers.PhoneNumberType.FIXED_LINE else None
    return None


def _words(said: str) -> str:
    return re.sub(r"(?i)\b(?:ext|extn|tel)\b\.?|x(?=[0-9])", "", said)


def _split(said: str) -> list[tuple[str, str]]:
    """The number whole, and without what may be its extension (`0571-88888888-801`)."""
    tail = _TAIL.fullmatch(said)
    return [(said, "")] if tail is None else [(said, ""), (tail[1], tail[2])]


def region(country: str | None) -> str | None:
    """The region whose numbers an address's country writes without a code: China's where it names none, None where we can't say."""
    if country is None:
        return HOME
    return country if _AREA.fullmatch(country) else _REGIONS.get(country.strip().casefold())


_REGIONS = {
    "中国": HOME, "中国大陆": HOME, "中华人民共和国": HOME, "china": HOME, "chn": HOME, "cn": HOME, "香港": "HK", "中国香港": "HK",
    "hong kong": "HK", "澳门": "MO", "中国澳门": "MO", "macao": "MO", "macau": "MO", "台湾": "TW", "中国台湾": "TW", "taiwan": "TW",
    "united states": "US", "usa": "US", "us": "US", "united kingdom": "GB", "uk": "GB", "great britain": "GB", "germany": "DE",
    "deutschland": "DE", "france": "FR", "japan": "JP", "日本": "JP", "singapore": "SG", "新加坡": "SG", "australia": "AU",
    "canada": "CA", "美国": "US", "英国": "GB",
}  # fmt: skip


def home(told: str) -> str:
    """An E.164 number as keys and rules have it: China's without the code, others as they are."""
    return told.removeprefix(CODE)
