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
        last = self._activations[-1]
        if last.at <= ms:
            return self.pack(last.version)
        index = bisect.bisect_right(self._activations, ms, key=lambda a: a.at)
        return self.pack(self._activations[max(index - 1, 0)].version)

    @property
    def activations(self) -> list[Activation]:
        """In the order in which they count."""
        return list(self._activations)


class _Era(msgspec.Struct):
    """From one pack's publishing to the next: `base` was published, `version` is what disabling has made of it."""

    base: str
    version: str


LEAD_MS = 2_000
"""A pack that is published counts from so much later, so that every worker has it before an order needs it."""


def moment(book: PackBook, now: int) -> int:
    """When a switch thrown at `now` (ms UTC) takes force: at once, or right behind a pack that was published a moment ago.

    A switch before it would be undone by it: a rule disabled in the second after `publish` would be back in the next.
    """
    return max((a.at + 1 for a in book.activations if now <= a.at <= now + LEAD_MS), default=now)


def bypassed(book: PackBook, now: int) -> bool:
    """Whether a bypass is in force at `now` (ms UTC). A pack whose time has come since has ended it."""
    past = _past(book, now)
    return bool(past) and past[-1].cause == "bypass"


def resumed(book: PackBook, now: int) -> Pack:
    """The pack that was in force before the present bypass began. Raises NoPackError where none is in force at `now`."""
    eras = _eras(book, now)
    if not bypassed(book, now) or not eras:
        raise NoPackError("no bypass is in force")
    return book.pack(eras[-1].version)


def before(book: PackBook, now: int) -> Pack:
    """The pack to roll back to at `now` (ms UTC): the one in force before the present one was published, as it last was.

    With its disabled rules still disabled, never a bypass, and never what disabling has made of the present one: that would
    put back a rule that somebody took out. A rollback of a rollback goes further back; forward goes `publish`. A pack whose
    time has not come counts for nothing. Raises NoPackError where there is none.
    """
    eras = _eras(book, now)
    if len(eras) < 2:
        raise NoPackError("there is no earlier pack to go back to")
    return book.pack(eras[-2].version)


def _past(book: PackBook, now: int) -> list[Activation]:
    """The activations that have counted. The first pack counts before its time, so a switch may have come before it."""
    known = book.activations
    past = [a for a in known if a.at <= now]
    if not any(a.cause == "publish" for a in past):
        past[:0] = [a for a in known if a.cause == "publish"][:1]
    return past


def _eras(book: PackBook, now: int) -> list[_Era]:
    """What has been published and not rolled back, oldest first; the last is the present one, whatever bypasses it."""
    eras: list[_Era] = []
    for activation in _past(book, now):
        version = activation.version
        if activation.cause == "bypass":
            continue
        if activation.cause == "disable" and eras:
            eras[-1].version = version
        elif activation.cause == "rollback" and (found := [i for i, e in enumerate(eras[:-1]) if e.version == version]):
            del eras[found[-1] + 1 :]
        elif not eras or version not in (eras[-1].base, eras[-1].version):
            eras.append(_Era(version, version))
        elif activation.cause == "publish":
            # published again: all its rules are on, and it is no new pack to go back from
            eras[-1].version = version
    return eras


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
