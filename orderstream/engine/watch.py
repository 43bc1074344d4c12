"""What can be seen of the engine from outside: callbacks, so that it needs no metrics library.

Each is called on the event loop, at most once a batch, a recovery or a second; none may block or raise.
"""

from collections.abc import Callable
from dataclasses import dataclass


def _unwatched(*_: object) -> None:
    return None


@dataclass(slots=True)
class Watch:
    """Callbacks that a metrics module binds; each does nothing until it is bound."""

    batch: Callable[[str, str, int, float], None] = _unwatched
    """(hop, topic, records in the batch, seconds in `process`)"""
    in_flight: Callable[[str, int, int], None] = _unwatched
    """(hop, partition, batches processed and not yet acknowledged)"""
    settled: Callable[[str, float], None] = _unwatched
    """(hop, seconds from `process` to the input's acknowledgement)"""
    lag: Callable[[str, int, int], None] = _unwatched
    """(topic, partition, records in the log that were not yet handed to `process`)"""
    recovered: Callable[[str, int, int, float], None] = _unwatched
    """(hop, partition, changelog records folded, seconds)"""
    send_failed: Callable[[str, BaseException], None] = _unwatched
    """(hop, why): the worker stops"""
    rebalanced: Callable[[int], None] = _unwatched
    """(partitions held now); every reference has been read to its end by then"""
    lost: Callable[[str, int], None] = _unwatched
    """(hop, partition): its state is dropped here; whatever was shown of it is stale"""
    tick: Callable[[], None] = _unwatched
    """Once a second, whether or not anything is read"""
