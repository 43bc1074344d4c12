"""The rule commands: check, publish, and the on-call's switches. Each switch is an activation, recorded with who and why."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

from orderstream import access, kafka, topics
from orderstream.errors import BadPack
from orderstream.rules import book as books
from orderstream.rules import examples
from orderstream.rules.book import Activation, Cause, NoPackError, PackBook, activation_record, pack_record
from orderstream.rules.pack import Pack, PackError, load_all
from orderstream.settings import Settings


def check(folder: Path) -> tuple[Pack, list[examples.Claim]]:
    """Loads a pack and runs its examples. Raises BadPack, naming the file or the first claims that do not hold."""
    try:
        packs = load_all([folder])
        claims = [claim for pack in packs for claim in examples.run(pack)]
    except PackError as error:
        raise BadPack(f"规则包有误 · bad pack: {error}") from error
    failed = [c for c in claims if not c.holds]
    if failed:
        first = failed[0]
        raise BadPack(
            f"{len(failed)} 个示例不成立 · {len(failed)} examples do not hold, the first: "
            f"{first.rule}: {first.says!r}: {first.order} expected {first.expected}, got {first.got}"
        )
    return packs[-1], claims


def publish(settings: Settings, brokers: str, folder: Path, why: str | None = None) -> Activation:
    """Checks a pack, publishes it, and activates it (at its active_from, otherwise in books.LEAD_MS). Raises BadPack, NoBroker."""
    pack, _ = check(folder)
    now = _now()
    activation = Activation(max(pack.active_from, now + books.LEAD_MS), pack.version, "publish", getpass.getuser(), why)
    first = not kafka.read_packs(settings, brokers).activations
    if first and pack.active_from < 0:
        # the first pack judges what has come already, too
        activation = Activation(0, pack.version, "publish", getpass.getuser(), why)
    _send(settings, brokers, pack, activation)
    return activation


def rollback(settings: Settings, brokers: str, why: str | None = None) -> Activation:
    """Activates the pack before the present one (`books.before`), from now on. Raises BadPack where there is none."""
    book, at = _now_of(settings, brokers)
    try:
        pack = books.before(book, at)
    except NoPackError:
        raise BadPack("没有更早的规则包可回退 · there is no earlier pack to go back to") from None
    return _switch(settings, brokers, pack, at, "rollback", why)


def disable(settings: Settings, brokers: str, rule: str, why: str | None = None) -> Activation:
    """One rule to tag-only, from now on. Raises BadPack for a rule that is not there, and while a bypass is in force."""
    book, at = _now_of(settings, brokers)
    if books.bypassed(book, at):
        # it would disable it in the bypass, and be forgotten at the bypass's end
        raise BadPack(
            "旁路中所有规则都只打标，请先 bypass --off · in a bypass every rule is tag-only: end it first (bypass --off)"
        )
    return _switch(settings, brokers, _without(_current(book, at), rule), at, "disable", why)


def bypass(settings: Settings, brokers: str, *, on: bool, why: str | None = None) -> Activation:
    """Every rule to tag-only (on), or back to what was in force before that (off). Raises BadPack where no bypass is."""
    book, at = _now_of(settings, brokers)
    if on:
        pack = _current(book, at)
        return _switch(settings, brokers, _without(pack, *pack.rules), at, "bypass", why)
    try:
        pack = books.resumed(book, at)
    except NoPackError:
        raise BadPack("没有开启旁路 · no bypass is in force") from None
    return _switch(settings, brokers, pack, at, "resume", why)


def _now_of(settings: Settings, brokers: str) -> tuple[PackBook, int]:
    """The packs as they are published, and when a switch thrown now takes force."""
    book = kafka.read_packs(settings, brokers)
    return book, books.moment(book, _now())


def _current(book: PackBook, at: int) -> Pack:
    if not book.activations:
        raise BadPack("没有生效的规则包 · no rule pack is active")
    return book.at(at)


def _without(pack: Pack, *rules: str) -> Pack:
    try:
        return pack.without(*rules)
    except PackError as error:
        raise BadPack(f"没有这条规则 · {error}") from error


def _switch(settings: Settings, brokers: str, pack: Pack, at: int, cause: Cause, why: str | None) -> Activation:
    activation = Activation(at, pack.version, cause, getpass.getuser(), why)
    _send(settings, brokers, pack, activation)
    return activation


def _send(settings: Settings, brokers: str, pack: Pack, activation: Activation) -> None:
    topic = topics.name("rules.packs", settings.topic_prefix)
    records = [(topic, *pack_record(pack)), (topic, *activation_record(activation))]
    kafka.send_all(brokers, records, access.client(settings))


def _now() -> int:
    return time.time_ns() // 1_000_000
