"""Personal: whether bytes say who somebody is, however they are wrapped.

Law: what a person is known by is looked for in every form that our own code, a channel or a log could give it: as text in the
encodings in use, escaped, inside base64 and hex, a number with or without its country code and its separators. Reason: a search
that only sees plain text finds nothing in a dead letter, and calls that clean.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

ENCODINGS = ("utf-8", "gb18030", "utf-16-le", "utf-16-be")
LEAST = 4
"""Bytes: a shorter mark is found in anything."""

_NUMBER = re.compile(r"[+]?[0-9][0-9 ()-]{5,}[0-9]")


class Marks:
    """What people are known by: names, numbers, addresses, ids."""

    def __init__(self, marks: Iterable[str]) -> None:
        self._forms = {mark: sorted(forms(mark)) for mark in sorted(set(marks))}

    def found(self, data: bytes) -> list[str]:
        """The marks that these bytes hold in any form."""
        return [mark for mark, wanted in self._forms.items() if any(form in data for form in wanted)]

    def within(self, data: bytes) -> bool:
        """Whether they hold any."""
        return any(form in data for wanted in self._forms.values() for form in wanted)


def forms(mark: str) -> set[bytes]:
    """The byte strings that a mark may stand as."""
    out: set[bytes] = set()
    for text in spellings(mark):
        escaped = json.dumps(text)[1:-1]
        for written in {text, escaped, escaped.replace("\\", "\\\\"), quote(text)}:
            for encoding in ENCODINGS:
                out |= wrapped(written.encode(encoding))
    return {form for form in out if len(form) >= LEAST}


def spellings(mark: str) -> set[str]:
    """A mark as it may be written: a phone number without its country code, grouped, or as it was given."""
    out = {mark, mark.casefold(), mark.upper()}
    if _NUMBER.fullmatch(mark):
        digits = re.sub(r"\D", "", mark)
        bare = re.sub(r"^(00)?86(?=1[0-9]{10}$)", "", digits)
        out |= {digits, bare}
        out |= {sep.join((bare[:3], bare[3:7], bare[7:])) for sep in (" ", "-") if len(bare) == 11}
    return out


def wrapped(data: bytes) -> set[bytes]:
    """Bytes as they are, in hex, and as they stand inside base64 of something longer, at each of its three offsets."""
    if len(data) < 6:
        # few characters of hex or base64 stand in anything
        return {data}
    out = {data, data.hex().encode()}
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + data)
        # what the neighbours decide is cut off: the characters that share bits with bytes before and after
        first = (shift * 8 + 5) // 6
        last = (shift + len(data)) * 8 // 6
        inner = whole[first:last]
        out |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return out
