"""The rule commands: check, publish, and the on-call's switches. Each switch is an activation, recorded with who and why."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

from orderstream import kafka, topics
from orderstream.errors import BadPack
from orderstream.rules import book as books
from orderstream.rules import examples
from orderstream.rules.book import Activation, Cause, NoPackError, PackBook, activation_record, pack_record
from orderstream.rules.pack import Pack, PackError, load_all
from orderstream.settings import Settings

LEAD_MS = 2_000
"""A pack that is published counts from so much later, so that every worker has it before an order needs it."""


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
    """Checks a pack, publishes it, and activates it (at its active_from, otherwise in LEAD_MS). Raises BadPack, NoBroker."""
    pack, _ = check(folder)
    now = _now()
    activation = Activation(max(pack.active_from, now + LEAD_MS), pack.version, "publish", getpass.getuser(), why)
    first = not kafka.read_packs(settings, brokers).activations
    if first and pack.active_from < 0:
        # the first pack judges what has come already, too
        activation = Activation(0, pack.version, "publish", getpass.getuser(), why)
    _send(settings, brokers, pack, activation)
    return activation


def rollback(settings: Settings, brokers: str, why: str | None = None) -> Activation:
    """Activates the pack before the present one (`books.before`), from now on. Raises BadPack where there is none."""
    book = kafka.read_packs(settings, brokers)
    try:
        pack = books.before(book, _now())
    except NoPackError:
        raise BadPack("没有更早的规则包可回退 · there is no earlier pack to go back to") from None
    return _switch(settings, brokers, pack, "rollback", why)


def disable(settings: Settings, brokers: str, rule: str, why: str | None = None) -> Activation:
    """One rule to tag-only, from now on. Raises BadPack for a rule that is not there, and while a bypass is in force."""
    book = kafka.read_packs(settings, brokers)
    if books.bypassed(book, _now()):
        # it would disable it in the bypass, and be forgotten at the bypass's end
        raise BadPack(
            "旁路中所有规则都只打标，请先 bypass --off · in a bypass every rule is tag-only: end it first (bypass --off)"
        )
    return _switch(settings, brokers, _without(_current(book), rule), "disable", why)


def bypass(settings: Settings, brokers: str, *, on: bool, why: str | None = None) -> Activation:
    """Every rule to tag-only (on), or back to what was in force before that (off). Raises BadPack where no bypass is."""
    book = kafka.read_packs(settings, brokers)
    if on:
        pack = _current(book)
        return _switch(settings, brokers, _without(pack, *pack.rules), "bypass", why)
    try:
        pack = books.resumed(book, _now())
    except NoPackError:
        raise BadPack("没有开启旁路 · no bypass is in force") from None
    return _switch(settings, brokers, pack, "resume", why)


def _current(book: PackBook) -> Pack:
    if not book.activations:
        raise BadPack("没有生效的规则包 · no rule pack is active")
    return book.at(_now())


def _without(pack: Pack, *rules: str) -> Pack:
    try:
        return pack.without(*rules)
    except PackError as error:
        raise BadPack(f"没有这条规则 · {error}") from error


def _switch(settings: Settings, brokers: str, pack: Pack, cause: Cause, why: str | None) -> Activation:
    activation = Activation(_now(), pack.version, cause, getpass.getuser(), why)
    _send(settings, brokers, pack, activation)
    return activation


def _send(settings: Settings, brokers: str, pack: Pack, activation: Activation) -> None:
    topic = topics.name("rules.packs", settings.topic_prefix)
    kafka.send_all(brokers, [(topic, *pack_record(pack)), (topic, *activation_record(activation))])


def _now() -> int:
    return time.time_ns() // 1_000_000
