"""A person asks to be forgotten: what is taken out, what stays, and what is said of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from orderstream import cli, kafka, topics
from orderstream.kafka import Outgoing
from orderstream.personal import Marks
from orderstream.settings import Settings
from tests.privacy.people import ARTICLES, PEOPLE, bodies, buyer, encode, marks, order
from tests.privacy.rig import System
from tests.stream.line import prepare
from tests.waiting import wait_until

pytestmark = [pytest.mark.stream, pytest.mark.timeout(300)]

ARCHIVES = {"{group}-normalise-archive", "{group}-route-archive"}
WHO = 2
"""Whose wish it is. Everybody else is to keep what is theirs."""


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it says."""
    capfd.readouterr()
    code = cli.run([*arguments])
    said = capfd.readouterr()
    return code, said.out + said.err


def holding(system: System, wanted: Marks) -> dict[str, int]:
    """Topics -> how many of the records that count on them hold any of the marks: of a compacted one, each key's last."""
    found: dict[str, int] = {}
    last: dict[tuple[str, bytes | None], bytes | None] = {}
    for topic, message in system.records():
        if "compact" in topic.config["cleanup.policy"]:
            last[topic.name, message.key] = message.value
        elif message.value is not None and wanted.within(message.value):
            found[topic.name] = found.get(topic.name, 0) + 1
    for (name, _), value in last.items():
        if value is not None and wanted.within(value):
            found[name] = found.get(name, 0) + 1
    return found


def test_a_person_is_forgotten_and_nobody_else(
    fresh_topics: Callable[..., Settings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An order under way is kept unless one says otherwise. What is forgotten leaves tombstones, the ERP's book and the
    workers' memory, also of one that takes over; what cannot be rewritten is named with its day. Verdicts and everybody else stay.
    """
    system = System(fresh_topics(partitions=2), tmp_path)
    settings = system.settings
    prepare(settings, ARTICLES)
    system.start(workers=1)
    theirs, others = Marks(marks(WHO)), Marks(mark for n in range(len(PEOPLE)) if n != WHO for mark in marks(n))
    try:
        for body in bodies():
            system.post(body)
        system.settle()
        before, kept = holding(system, theirs), holding(system, others)
        assert {"orders.released", "orders.review", "orders.frozen"} <= before.keys()
        verdicts = verdicts_of(system)

        code, said = run(capfd, "forget", "--phone", "00447700900123", "--wait", "0", "--dry-run")
        assert "no topic holds" in said  # not how the person gave it: their country's code is theirs
        assert code == 0
        code, said = run(capfd, "forget", "--buyer", buyer(WHO)["id"])
        assert code == 13, said
        assert "api:main:P2-hold\tfrozen" in said
        assert "forgotten\tapi:main:P2-gone" in said
        code, said = run(capfd, "forget", "--email", PEOPLE[WHO]["email"].upper(), "--open-too", "--wait", "120")
        assert code == 0, said
        for topic in ("orders.raw.api", "orders.rejected", "normalise-changelog", "route-changelog", "orders.dossiers"):
            assert re.search(rf"{re.escape(topic)}[ │]+\d+[ │]+20\d\d-\d\d-\d\d", said), said

        after = holding(system, theirs)
        assert after.keys() - ARCHIVES == before.keys() - ARCHIVES - {"orders.released", "orders.review", "orders.frozen"}
        still = holding(system, others)
        # a hop's own log may say of an order again what it said before: it grows, and loses nothing
        assert {t: n for t, n in still.items() if "{group}" not in t} == {t: n for t, n in kept.items() if "{group}" not in t}
        assert all(still[topic] >= kept[topic] for topic in kept)
        assert verdicts_of(system) == verdicts
        forgotten_by_the_erp(system, theirs, others)

        # a worker that takes over from the changelog has nothing of theirs to say, whatever comes
        system.workers.stop()
        system.work(3)
        system.at_work(3)
        again = encode(order("P2-hold", WHO, hold="risk"))
        release(settings, "api:main:P2-hold")
        system.settle()
        # what it archives is the changelog as it was
        assert set(holding(system, theirs)) - ARCHIVES == set(after) - ARCHIVES
        # what the channel says afterwards is an order as ever
        system.post(again.replace(b'"revision": 1', b'"revision": 9'))
        system.settle()
        assert "orders.released" in holding(system, theirs)
    finally:
        system.stop()
    assert system.workers.logs().count("Traceback") == 0


def verdicts_of(system: System) -> dict[str, int]:
    """Order -> the number of its last verdict."""
    return {m.key.decode(): m.offset for t, m in system.records() if t.name == "orders.verdicts" and m.key}


def release(settings: Settings, order_id: str) -> None:
    """A person releases an order."""
    line = f'{{"kind":"outcome","at":"2026-11-11T03:10:00+08:00","order_id":"{order_id}","outcome":"released","by":"wang"}}'
    topic = topics.name("orders.outcomes", settings.topic_prefix)
    kafka.send_all(str(settings.brokers), [Outgoing(topic, order_id.encode(), line.encode())])


def forgotten_by_the_erp(system: System, theirs: Marks, others: Marks) -> None:
    """The ERP's files hold the others and, as soon as it has read the tombstones, no longer the person."""

    def book() -> bytes:
        return b"".join(path.read_bytes() for path in sorted((system.folder / "erp").glob("erp.sqlite*")))

    def so() -> bool:
        data = book()
        return others.within(data) and not theirs.within(data)

    wait_until(so, lambda: f"the book still holds {theirs.found(book())}", 30)


def test_tombstones_empty_the_disk(fresh_topics: Callable[..., Settings]) -> None:
    """With its times made short, the broker itself takes a forgotten order's bytes off the topic, and leaves the others'."""
    settings = fresh_topics(partitions=1)
    brokers, name = str(settings.brokers), topics.name("orders.released", settings.topic_prefix)
    (declared,) = (t for t in topics.declared() if t.name == "orders.released")
    short = {**declared.config, "segment.ms": "500", "max.compaction.lag.ms": "500", "delete.retention.ms": "500"}
    asyncio.run(configure(brokers, name, short))
    kafka.send_all(brokers, [Outgoing(name, b"gone", b"what is theirs"), Outgoing(name, b"stays", b"somebody else's")])
    kafka.send_all(brokers, [Outgoing(name, b"gone", None)])

    deadline = time.monotonic() + 100
    number = 0
    held = list(kafka.read_all(brokers, [name]))
    while any(m.key == b"gone" for m in held):
        assert time.monotonic() < deadline, held
        # a segment ends when the next record comes
        number += 1
        kafka.send_all(brokers, [Outgoing(name, b"traffic", str(number).encode())])
        time.sleep(0.3)
        held = list(kafka.read_all(brokers, [name]))
    assert [m.value for m in held if m.key == b"stays"] == [b"somebody else's"]


async def configure(brokers: str, name: str, config: dict[str, str]) -> None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])
    await admin.close()
