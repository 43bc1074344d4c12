"""One value, as the programs of a platform and those between spell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def everywhere(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with a change made to each part of it, the innermost first."""
    if isinstance(value, dict):
        value = {name: everywhere(one, change) for name, one in value.items()}
    elif isinstance(value, list):
        value = [everywhere(one, change) for one in value]
    return change(value)


def as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_number(value: Any) -> Any:
    # a leading zero is no number's, and JSON's readers differ past 2^63
    digits = isinstance(value, str) and value.isdecimal() and len(value) < 19 and str(int(value)) == value
    return int(value) if digits else value
