"""Promise 9, held against a whole run: who somebody is stands in orders, and nowhere else."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderstream import kafka, topics
from orderstream.kafka import Outgoing, send_all
from orderstream.personal import Marks
from orderstream.settings import Settings
from tests.privacy.people import ARTICLES, PEOPLE, bodies, buyer, marks
from tests.privacy.rig import System
from tests.stream.line import STANDARD, prepare

ANYBODY = re.compile(
    rb"(?<![0-9A-Za-z])(?:\+?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9A-Za-z])"
    rb"|[A-Za-z0-9._%+-]{2,64}@[A-Za-z0-9.-]{2,64}\.[A-Za-z]{2,8}"
)
"""A Chinese mobile number or an e-mail address of whomever: what nobody thought of when the people were invented."""

EVERYBODY = Marks(mark for n in range(len(PEOPLE)) for mark in marks(n))


INVENTED = {match.group() for path in STANDARD.glob("*.yaml") for match in ANYBODY.finditer(path.read_bytes())}
"""Numbers in the examples of rules, which travel with their pack."""


def leaks(data: bytes | None) -> list[str]:
    """Who can be read in bytes."""
    if not data:
        return []
    return [*EVERYBODY.found(data), *(m.group().decode() for m in ANYBODY.finditer(data) if m.group() not in INVENTED)]


@given(st.sampled_from([mark for n in range(len(PEOPLE)) for mark in marks(n)]), st.binary(max_size=9), st.binary(max_size=9))
def test_a_mark_is_found_however_it_is_wrapped(mark: str, before: bytes, after: bytes) -> None:
    """Plain, in JSON with and without escapes, in base64 and hex of something longer, in the encodings in use."""
    import base64

    import msgspec

    plain = before + mark.encode() + after
    for wrapped in (
        plain, base64.b64encode(plain), base64.urlsafe_b64encode(plain), plain.hex().encode(),
        json.dumps({"x": [mark]}).encode(), json.dumps(json.dumps([mark])).encode(), mark.encode("gb18030"), mark.encode("utf-16"),
        msgspec.msgpack.encode([{"deep": msgspec.msgpack.encode([plain])}]), base64.b64encode(json.dumps([mark]).encode()),
    ):  # fmt: skip
        assert EVERYBODY.found(wrapped), wrapped


@pytest.mark.parametrize(
    "number", ["13912345670", "139 1234 5670", "+86-139-1234-5670", "0086 13912345670", "(+86)139-1234-5670"]
)
def test_a_number_is_found_however_it_is_written(number: str) -> None:
    """The number of a person who gave it as 13912345670."""
    assert Marks(["13912345670"]).found(f"tel: {number}.".encode())


@pytest.mark.stream
@pytest.mark.timeout(300)
def test_a_whole_run_says_nowhere_else_who_somebody_is(fresh_topics: Callable[..., Settings], tmp_path: Path) -> None:
    """Orders good, repeated, broken, held, frozen and withdrawn come in by HTTP while a worker is killed; then every topic's
    keys, headers and values, every log at DEBUG, every file and every process's metrics are read. Topics that may carry
    personal data do, so that the search is known to see it.
    """
    system = System(fresh_topics(partitions=4), tmp_path)
    settings, brokers = system.settings, str(system.settings.brokers)
    prepare(settings, ARTICLES)
    tell(settings)
    system.start()
    try:
        sent = bodies()
        for at, body in enumerate(sent):
            if at == len(sent) // 2:
                system.workers.kill(2)
                system.work(3)
            assert system.post(body) in (200, 400), body
        system.at_work(3)
        system.settle()
        # an order under way is judged again by what is told of it now
        tell(settings)
        system.settle()
        metrics = system.shown()
    finally:
        system.stop()

    found = defaultdict(set)
    carrying = set()
    for topic, message in system.records():
        where = f"{topic.name}[{message.partition}]@{message.offset}"
        found[f"key of {where}"] |= set(leaks(message.key))
        for name, value in message.headers:
            found[f"header {name} of {where}"] |= set(leaks(name.encode() + b"\n" + value))
        if not topic.personal:
            found[f"value of {where}"] |= set(leaks(message.value))
        elif topic.name not in carrying and leaks(message.value):
            carrying.add(topic.name)
    for place, data in [*system.left().items(), *metrics.items()]:
        found[place] |= set(leaks(data))
    assert {where: what for where, what in found.items() if what} == {}

    written = {t.name for t in topics.declared() if t.personal and kafka.count(brokers, t.on_broker(settings))}
    # what people note beside an outcome may name somebody; nobody decides anything here
    assert carrying == written - {"orders.outcomes"}
    assert carrying >= {
        "orders.raw.api",
        "orders.rejected",
        "orders.released",
        "orders.review",
        "orders.frozen",
        "orders.dossiers",
    }
    logs = system.left()
    assert all(b"DEBUG" in logs[f"{name}.log"] for name in ("w1", "w2", "w3"))


def tell(settings: Settings) -> None:
    """Says something of the people by what the channel knows them by, as a shop's people do, good and broken."""
    one, other = buyer(0), buyer(1)
    at = "2026-01-01T00:00:00Z"
    lines = [
        {"kind": "trust", "at": at, "entity": "phone", "key": one["phone"], "rules": ["user-burst"], "why": "family"},
        {"kind": "trust", "at": at, "entity": "payment", "key": "payment-wv-0-55820", "with": [one["id"], other["id"]], "rules": ["payment-shared"]},
        {"kind": "trust", "at": at, "entity": "address", "key": "杭州市西湖区" + PEOPLE[0]["detail"], "rules": ["address-sum"]},
        {"kind": "trust", "at": one["phone"], "entity": PEOPLE[0]["name"], "key": one["email"], "rules": 7},
    ]  # fmt: skip
    topic = topics.name("reference.updates", settings.topic_prefix)
    send_all(str(settings.brokers), [Outgoing(topic, b"trust", json.dumps(line, ensure_ascii=False).encode()) for line in lines])
