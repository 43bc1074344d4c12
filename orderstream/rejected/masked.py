"""Masked: bytes that a channel sent, as people may see them.

Law: what is shown keeps the shape of what was sent (where a quote is missing, where an amount has two points) and loses what it
said of anybody, whether or not it can be parsed; and no byte of it reaches a terminal as a control character. Reason: a reject
is read by whoever mends a parser, on a screen, often with others looking, and it is broken in ways nobody foresaw.
"""

from __future__ import annotations

import hashlib
import re

PLAIN = frozenset(
    {
        "amount",
        "code",
        "compare_at_price",
        "currency",
        "created_at",
        "discount",
        "financial_status",
        "gift",
        "kind",
        "list_price",
        "method",
        "order_id",
        "pair",
        "presale",
        "price",
        "processed_at",
        "quantity",
        "revision",
        "ship_by",
        "sku",
        "status",
        "total",
        "total_price",
        "until",
        "updated_at",
    }
)
"""Keys whose values concern the order alone; and only where the value looks like one."""

_TOKEN = re.compile(
    r'"(?P<key>[A-Za-z_][\w.$-]{0,60})"(?P<colon>\s*:\s*)(?P<value>"[A-Za-z0-9+:._/-]{0,40}"|-?[0-9.eE+]{1,20}(?![0-9]))?'
)
_WORDS = frozenset({"true", "false", "null"})
_DIGITS = re.compile(r"[0-9][0-9 ()-]{5,}[0-9]")
_MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")


def body(data: bytes, *, whole: bool = False) -> str:
    """A body for the screen: its text where it is text, else its hex. whole: as it is, with personal data."""
    text = _text(data)
    if text is not None:
        return printable(text if whole else shape(text))
    if whole:
        return _hex(data)
    head = data[:8].hex(" ")
    return f"({len(data)} 字节，不是 UTF-8 · bytes, not UTF-8; {head} …; sha256 {hashlib.sha256(data).hexdigest()})"


def shape(text: str) -> str:
    """Text with its letters and digits hidden, but for the names of fields and for values that PLAIN fields show."""
    out: list[str] = []
    at = 0
    for match in _TOKEN.finditer(text):
        out += [_hide(text[at : match.start()]), '"', match["key"], '"', match["colon"]]
        value = match["value"]
        if value is not None:
            # eleven digits are a phone number, whatever the field is called
            shown = match["key"] in PLAIN and not re.search(r"[0-9]{7}", value)
            out.append(value if shown or len(value) < 2 else _hide(value))
        at = match.end()
    return "".join([*out, _hide(text[at:])])


def sentence(text: str) -> str:
    """A reason, which may name a field as a stranger spelled it: without numbers of people and e-mail addresses."""
    return printable(_MAIL.sub("***", _DIGITS.sub("***", text)))


def printable(text: str) -> str:
    """Text that moves no cursor and rings no bell: control and invisible characters by their number."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text.replace("\r\n", "\n"))


def _hide(text: str) -> str:
    return re.sub(r"\w+", lambda word: word[0] if word[0] in _WORDS else "".join(map(_hidden, word[0])), text)


def _hidden(char: str) -> str:
    if char.isdecimal():
        return "9"
    return "x" if char.isascii() else "某"


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _hex(data: bytes) -> str:
    return "\n".join(
        f"{at:08x}  {data[at : at + 16].hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in data[at : at + 16])}"
        for at in range(0, len(data), 16)
    )
