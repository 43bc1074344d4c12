"""A parcel against what was to be in it.

Law: differences are the whole difference: what was expected, less what is missing, plus what is too much, is what was sent.
A parcel that is not complete yet lacks nothing; what should not be in it is wrong at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal["wrong-variant", "missing-pieces", "missing-part", "too-many", "not-ordered", "not-released"]
KINDS: tuple[Kind, ...] = ("wrong-variant", "missing-pieces", "missing-part", "too-many", "not-ordered", "not-released")


class Difference(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """Pieces of a SKU that should not be in the parcel, or should and are not.

    wrong-variant: `sku` is in it instead of `instead_of`. not-released: the order may not leave at all; no SKU, no pieces.
    """

    kind: Kind
    sku: str = ""
    pieces: int = 0
    instead_of: str = ""


def compare(expected: Mapping[str, int], sent: Mapping[str, int], *, complete: bool) -> tuple[Difference, ...]:
    """What differs; () for a parcel that is right. complete: nothing more comes of what was expected."""
    lacks = Counter(dict(expected)) - Counter(dict(sent)) if complete else Counter()
    extras = Counter(dict(sent)) - Counter(dict(expected))
    found: list[Difference] = []
    for sku in sorted(extras.keys() - expected.keys()):
        for missing in sorted(lacks):
            pieces = min(extras[sku], lacks[missing])
            if pieces:
                found.append(Difference("wrong-variant", sku, pieces, missing))
                extras[sku] -= pieces
                lacks[missing] -= pieces
    for sku, pieces in sorted((+extras).items()):
        found.append(Difference("too-many" if sku in expected else "not-ordered", sku, pieces))
    for sku, pieces in sorted((+lacks).items()):
        found.append(Difference("missing-part" if pieces == expected[sku] else "missing-pieces", sku, pieces))
    return tuple(found)


def sentence(difference: Difference) -> str:
    """For whoever stands in front of the parcel, Chinese first."""
    sku, pieces, instead = difference.sku, difference.pieces, difference.instead_of
    return {
        "wrong-variant": f"{sku} ×{pieces} 装错，应为 {instead} · {sku} ×{pieces} is in it instead of {instead}",
        "missing-pieces": f"{sku} 少 {pieces} 件 · {sku}: {pieces} missing",
        "missing-part": f"{sku} 漏装 {pieces} 件 · {sku} ×{pieces} is not in it",
        "too-many": f"{sku} 多 {pieces} 件 · {sku}: {pieces} too many",
        "not-ordered": f"{sku} ×{pieces} 不属于此单 · {sku} ×{pieces} was not ordered",
        "not-released": "此单没有放行或已召回，请勿发出 · this order is not released, or was recalled: do not ship it",
    }[difference.kind]
