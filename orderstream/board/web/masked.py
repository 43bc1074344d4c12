"""Masked: an order's document as a role may see it.

Law: what is not known to be harmless is hidden. A field of a customer is listed here with how it is shown; free text (remark) is
searched for numbers and mail addresses. Masking makes a new document, so that a template cannot reach behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orderstream.board.web.roles import Sight

_DIGITS = re.compile(r"[0-9][0-9 ()-]{5,}[0-9]")
_MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")
HIDDEN = "***"


def name(text: str) -> str:
    """张伟 → 张*, 欧阳小明 → 欧***, John Smith → J*** S***."""
    if text.isascii():
        return " ".join(word[:1] + "***" for word in text.split())
    return text[:1] + "*" * max(1, len(text) - 1)


def phone(text: str) -> str:
    """13910000124 → 139****0124; a short one loses all but its last two."""
    digits = re.sub(r"\D", "", text)
    return f"{digits[:3]}****{digits[-4:]}" if len(digits) >= 10 else f"****{digits[-2:]}"


def email(text: str) -> str:
    """someone@example.com → s***@example.com."""
    user, at, host = text.partition("@")
    return f"{user[:1]}***{at}{host}"


def place(text: str) -> str:
    """A street and door: its first three characters, no numbers."""
    return re.sub(r"[0-9０-９]+", "*", text[:3]) + HIDDEN


def network(text: str) -> str:
    """101.162.164.162 → 101.162.*.*; of IPv6 the first two groups."""
    if ":" in text:
        return ":".join(text.split(":")[:2]) + ":***"
    return ".".join([*text.split(".")[:2], "*", "*"])


def tail(text: str) -> str:
    """An id: its last four characters."""
    return f"…{text[-4:]}" if len(text) > 4 else HIDDEN


def free(text: str) -> str:
    """What a customer wrote, without numbers and mail addresses."""
    return _MAIL.sub(HIDDEN, _DIGITS.sub(HIDDEN, text))


def _all(_: str) -> str:
    return HIDDEN


_PART: dict[tuple[str, str], Callable[[str], str]] = {
    ("buyer", "id"): tail,
    ("buyer", "device"): tail,
    ("buyer", "ip"): network,
    ("buyer", "phone"): phone,
    ("buyer", "email"): email,
    ("payment", "id"): tail,
    ("ship_to", "name"): name,
    ("ship_to", "phone"): phone,
    ("ship_to", "detail"): place,
}
_OPEN: dict[str, frozenset[str]] = {
    "buyer": frozenset({"registered_at"}),
    "payment": frozenset({"method"}),
    "ship_to": frozenset({"country", "province", "city", "district"}),
}


def document(order: Mapping[str, Any], sight: Sight) -> dict[str, Any]:
    """The order for this much sight. Coordinates are rounded to a tenth of a degree (about 10 km)."""
    out = dict(order)
    for part, shown in _OPEN.items():
        if isinstance(order.get(part), Mapping):
            out[part] = {key: _field(part, key, value, shown, sight) for key, value in order[part].items()}
    out.pop("keys", None)
    for key in ("remark", "hold"):
        if isinstance(out.get(key), str):
            out[key] = free(out[key]) if sight == "part" else HIDDEN
    return out


def _field(part: str, key: str, value: Any, shown: frozenset[str], sight: Sight) -> Any:
    if key in shown:
        return value if not (sight == "none" and key == "district") else HIDDEN
    if key in {"lat", "lon"} and isinstance(value, int | float):
        return round(value, 1)
    if not isinstance(value, str):
        return HIDDEN
    return (_PART.get((part, key), _all) if sight == "part" else _all)(value)
