"""Times: ISO 8601 text with an offset to UTC milliseconds, and back. A time without an offset is refused, not guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

SECOND, MINUTE, QUARTER, HOUR, DAY = 1_000, 60_000, 900_000, 3_600_000, 86_400_000
"""Milliseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
MAX_MS = 4_102_444_800_000
"""2100-01-01: a later time is a mistake of unit."""


class TimeError(ValueError):
    """The text is no time that a shop could mean."""


def parse(text: str) -> int:
    """ms UTC of an ISO 8601 time with an offset (`2026-11-11T00:00:01.123+08:00`, `…Z`). Raises TimeError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise TimeError("is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        raise TimeError("has no offset from UTC")
    ms = (moment - _EPOCH) // _MS
    if not 0 <= ms <= MAX_MS:
        raise TimeError("is outside 1970 to 2100")
    return ms


def text(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-11-10T16:00:01.123Z`."""
    return (_EPOCH + ms * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def beijing(ms: int) -> str:
    """`yyyy-MM-dd HH:mm:ss` in Beijing time (UTC+8), as Chinese platforms write times; what is less than a second is left out."""
    return text(ms + 8 * HOUR)[:19].replace("T", " ")


def day_start(ms: int, zone: str) -> int:
    """ms UTC at which the calendar day of `ms` began in `zone` (an IANA name)."""
    # one cache row a quarter of an hour: zones are offset from UTC by multiples of it
    return _day_start(ms // QUARTER, zone)


@lru_cache(maxsize=4096)
def _day_start(quarter: int, zone: str) -> int:
    local = (_EPOCH + timedelta(minutes=15 * quarter)).astimezone(ZoneInfo(zone))
    start = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return (start.astimezone(UTC) - _EPOCH) // _MS
