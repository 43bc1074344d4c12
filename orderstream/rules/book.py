"""The packs that an installation has had, and which was in force when.

Law: a pack counts from its activation by an order's received_at, and an activation is never taken back, only followed by
another: `disable`, `rollback` and `bypass` are activations too, so history can be replayed with the rules of its day.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Literal

import msgspec

from orderstream.rules.pack import Pack, PackError

Cause = Literal["publish", "rollback", "disable", "bypass", "resume"]


class Activation(msgspec.Struct, frozen=True, omit_defaults=True):
    """From `at` (ms UTC) on, orders are judged by `version`. by, why: who did it and the reason, for the record."""

    at: int
    version: str
    cause: Cause
    by: str | None = None
    why: str | None = None


class NoPackError(LookupError):
    """No pack of this version, or none at all, is known here."""


class PackBook:
    """Packs by version, and their activations in time."""

    def __init__(self, packs: Iterable[Pack] = ()) -> None:
        self._packs: dict[str, Pack] = {}
        self._activations: list[Activation] = []
        for pack in packs:
            self.add(pack)
            self.activate(Activation(pack.active_from, pack.version, "publish"))

    def add(self, pack: Pack) -> None:
        self._packs[pack.version] = pack

    def activate(self, activation: Activation) -> None:
        """Takes an activation in; the same one again changes nothing."""
        if activation not in self._activations:
            bisect.insort(self._activations, activation, key=lambda a: (a.at, a.version))

    def pack(self, version: str) -> Pack:
        """The pack of a version. Raises NoPackError."""
        try:
            return self._packs[version]
        except KeyError:
            raise NoPackError(f"no rule pack {version} is known here") from None

    def at(self, ms: int) -> Pack:
        """The pack in force at a time; before the first activation, the first one's. Raises NoPackError where there is none."""
        if not self._activations:
            raise NoPackError("no rule pack is active: orderstream rules publish DIR")
        index = bisect.bisect_right(self._activations, ms, key=lambda a: a.at)
        return self.pack(self._activations[max(index - 1, 0)].version)

    @property
    def activations(self) -> list[Activation]:
        """In the order in which they count."""
        return list(self._activations)


def pack_record(pack: Pack) -> tuple[bytes, bytes]:
    """(key, value) of a pack on rules.packs."""
    return f"pack:{pack.version}".encode(), pack.encode()


def activation_record(activation: Activation) -> tuple[bytes, bytes]:
    """(key, value) of an activation on rules.packs. Each has a key of its own: compaction takes none away."""
    return f"activation:{activation.at}:{activation.version}".encode(), msgspec.json.encode(activation)


def read_record(book: PackBook, key: bytes, value: bytes) -> None:
    """Puts a record of rules.packs into a book. Raises PackError for one that this version does not understand."""
    kind = key.partition(b":")[0]
    if kind == b"pack":
        book.add(Pack.decode(value))
    elif kind == b"activation":
        try:
            book.activate(msgspec.json.decode(value, type=Activation))
        except msgspec.DecodeError as error:
            raise PackError(f"an activation can't be read: {error}") from error
