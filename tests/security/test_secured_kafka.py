"""The line on a Kafka that lets nobody in unasked: it works, who has no business is told so, and a password can change under it."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from orderstream import access, broker, kafka, rights, times, topics
from orderstream.channels.api import sign
from orderstream.errors import NoBroker, NotAdmitted, UserError
from orderstream.rules import examples
from orderstream.settings import Settings
from tests.security.secured import HOST, Process, Secured, certificates, cli, settings_of
from tests.stream.line import STANDARD
from tests.waiting import wait_until

pytestmark = pytest.mark.stream


def ready(secured: Secured, prefix: str, partitions: int = 1) -> dict[str, str]:
    """Topics, users and rights under a prefix; what every process of this installation has in its environment."""
    common = {"TOPIC_PREFIX": prefix, "PARTITIONS": str(partitions), "METRICS_PORT": "0"}
    settings = settings_of({**secured.admin(), **common})
    topics.now(topics.apply(secured.internal, settings))
    topics.now(rights.apply(secured.internal, settings, secured.passwords))

    def let_in() -> bool:
        # the controller has said yes; the broker that asks for passwords hears of them a moment later
        user = settings_of(secured.user("intake", **common))
        with suppress(NotAdmitted):
            asyncio.run(access.admit(user, secured.clients))
            return True
        return False

    wait_until(let_in, lambda: f"nobody is let in under {prefix}", 30)
    return common


def until(good: Callable[[], bool], processes: list[Process], seconds: float = 90) -> None:
    """Waits for a condition; a process that ended meanwhile fails the test with what it said."""

    def so() -> bool:
        for one in processes:
            assert one.code() is None, one.said()
        return good()

    wait_until(so, lambda: "\n".join(one.said()[-3000:] for one in processes), seconds)


def intake(secured: Secured, common: dict[str, str], log: Path, **more: str) -> tuple[Process, str]:
    """Intake as its user, answering; and its address."""
    port = broker.free_port()
    process = Process(secured.user("intake", **common, INTAKE_PORT=str(port), **more), log, "orderstream", "intake")
    url = f"http://{HOST}:{port}"
    until(lambda: _answers(url), [process])
    return process, url


def _answers(url: str) -> bool:
    with httpx.Client(trust_env=False, timeout=30) as client, suppress(httpx.TransportError):
        return client.get(url + "/readyz").status_code == 200
    return False


def deliver(url: str, secret: str, number: str) -> int:
    """One signed order of the api channel; the answer's status, 0 for none."""
    body = json.dumps(
        {**examples.BODY, "order_id": number, "created_at": times.text(int(time.time() * 1000)), "buyer": {"id": f"u-{number}"}}
    )
    headers = sign(body.encode(), secret, int(time.time()))
    with httpx.Client(trust_env=False, timeout=30) as client:
        try:
            return client.post(f"{url}/hooks/api/main", content=body.encode(), headers=headers).status_code
        except httpx.TransportError:
            return 0


def accepted(state: Path) -> set[str]:
    """The orders that the ERP has accepted."""
    if not (state / "erp.sqlite").exists():
        return set()
    with closing(sqlite3.connect(f"file:{state / 'erp.sqlite'}?mode=ro", uri=True)) as db:
        try:
            return {row[0] for row in db.execute("SELECT order_id FROM orders WHERE state = 'accepted'")}
        except sqlite3.OperationalError:
            return set()


@dataclass
class Line:
    """An installation that runs: each process as its own user, everything that can be logged being logged."""

    secured: Secured
    common: dict[str, str]
    folder: Path
    url: str
    shop: str
    key: str
    processes: list[Process]

    def accepted(self) -> set[str]:
        return accepted(self.folder / "erp")

    def as_user(self, name: str) -> dict[str, str]:
        return self.secured.user(name, **self.common)


@pytest.fixture(scope="module")
def line(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Set up by the commands of docs/security.md, and started."""
    folder, shop, key = tmp_path_factory.mktemp("line"), secrets.token_hex(16), secrets.token_hex(16)
    (folder / "key").write_text(key)
    (folder / "shops.json").write_text(json.dumps({"api:main": [shop]}))
    (folder / "skus.jsonl").write_text(json.dumps(examples.ARTICLE) + "\n")
    common = {"TOPIC_PREFIX": "line.", "PARTITIONS": "2", "METRICS_PORT": "0", "LOG_LEVEL": "DEBUG"}
    common |= {"KEY": "", "KEY_FILE": str(folder / "key"), "STATE_DIR": str(folder / "state")}
    admin, operator = {**secured.admin(), **common}, secured.user("operator", **common)
    for values, *arguments in (
        (admin, "topics", "apply"),
        (admin, "broker", "secure", str(secured.passwords)),
        (operator, "rules", "publish", str(STANDARD)),
        (operator, "catalogue", "load", str(folder / "skus.jsonl")),
    ):
        done = cli(values, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
    processes: list[Process] = []
    try:
        for user, *module in (
            ("worker", "orderstream", "worker"),
            ("erp", "orderstream.consumers.erp"),
            ("wms", "orderstream.consumers.wms"),
        ):
            values = secured.user(user, **common | {"STATE_DIR": str(folder / user)})
            processes.append(Process(values, folder / f"{user}.log", *module))
        front, url = intake(secured, common, folder / "intake.log", SECRETS_FILE=str(folder / "shops.json"))
        for process, ready_line in zip(processes, ("Worker ready", "erp 就绪", "wms 就绪"), strict=True):
            process.until_said(ready_line)
        processes.append(front)
        yield Line(secured, common, folder, url, shop, key, processes)
        assert [one.end() for one in processes] == [0] * 4
    finally:
        for one in processes:
            if one.code() is None:
                one.end()


def test_the_whole_line_works(line: Line) -> None:
    """Webhook to ERP, through processes that may do no more than they must; then the analyst's backtest gives the live bytes."""
    assert [deliver(line.url, line.shop, f"A{n}") for n in range(3)] == [200] * 3
    assert deliver(line.url, "wrong", "A9") == 401
    until(lambda: line.accepted() == {f"api:main:A{n}" for n in range(3)}, line.processes)

    live, again = line.folder / "live.jsonl", line.folder / "again.jsonl"
    for arguments in (("verdicts", "--out", str(live)), ("backtest", "--from-topics", "--out", str(again))):
        assert cli(line.as_user("analyst"), *arguments).returncode == 0
    assert live.read_bytes() == again.read_bytes() != b""


def test_a_password_is_rotated_without_a_restart(line: Line) -> None:
    """New passwords in the files, `broker secure`, and then every connection is new, as the broker goes away and comes back: the
    same processes go on. The old password is worth nothing.
    """
    secured, before = line.secured, line.accepted()
    hidden = {user: (secured.passwords / user).read_text() for user in ("intake", "worker", "erp", "wms")}
    (line.folder / "old").write_text(hidden["intake"])
    for user in hidden:
        (secured.passwords / user).write_text(secrets.token_urlsafe(32))
    topics.now(rights.apply(secured.internal, settings_of({**secured.admin(), **line.common}), secured.passwords))
    assert deliver(line.url, line.shop, "B1") == 200  # who is in stays in
    secured.stop()
    secured.start()

    until(lambda: deliver(line.url, line.shop, "B2") == 200, line.processes)
    until(lambda: line.accepted() == before | {"api:main:B1", "api:main:B2"}, line.processes)
    told = refused({**line.as_user("intake"), "KAFKA_PASSWORD_FILE": str(line.folder / "old")})
    assert "takes no such user and password" in told.sentence


def test_the_running_line_shows_no_secret(line: Line) -> None:
    """No log, however detailed, and no process list, the broker's included, has a password, a shop's secret or the key."""
    hidden = [line.shop, line.key, *(file.read_text().strip() for file in line.secured.passwords.iterdir())]
    table = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert "orderstream intake" in table
    assert str(line.secured.home / "server.properties") in table
    said = [table, *(one.said() for one in line.processes)]
    assert all("DEBUG" in one.said() for one in line.processes if one.log.name == "worker.log")
    assert [text[:200] for text in said for secret in hidden if secret in text] == []


@pytest.fixture(scope="module")
def common(secured: Secured) -> dict[str, str]:
    """An installation for the tests that refuse."""
    return ready(secured, "deny.")


def refused(values: dict[str, str]) -> UserError:
    """What a process in this environment is told."""
    settings = settings_of(values)
    with pytest.raises(UserError) as told:
        asyncio.run(access.admit(settings, str(settings.brokers)))
    zh, _, en = told.value.sentence.partition(" · ")
    assert zh
    assert en
    return told.value


def test_who_comes_in_wrongly_is_told_what_to_do(secured: Secured, common: dict[str, str], tmp_path: Path) -> None:
    """Wrong password, unknown user, unknown CA, another host's certificate, in the clear, on the wrong port: a sentence each."""
    certificates(tmp_path / "others")
    (tmp_path / "wrong").write_text("wrong")
    good = secured.user("intake", **common)
    settings = settings_of(good)
    asyncio.run(access.admit(settings, str(settings.brokers)))  # and this one is let in

    cases = {
        "takes no such user and password": [{"KAFKA_PASSWORD_FILE": str(tmp_path / "wrong")}, {"KAFKA_USER": "nobody"}],
        "is not trusted": [
            {"KAFKA_CA": str(tmp_path / "others/ca.pem")},
            {"KAFKA_CA": ""},
            {"BROKERS": secured.clients.replace(HOST, "localhost")},
        ],
        "does not know SCRAM-SHA-256": [{"KAFKA_MECHANISM": "SCRAM-SHA-256"}],
        "takes no users on this port": [{"BROKERS": secured.internal}],
    }
    for said, changes in cases.items():
        for change in changes:
            told = refused({**good, **change})
            assert said in told.sentence
            assert isinstance(told, NotAdmitted)
    assert "wants TLS" in refused({"BROKERS": secured.clients}).sentence
    assert "wants TLS" in refused({"BROKERS": secured.internal}).sentence
    stranger = {**secured.admin(), "KAFKA_CERT": str(tmp_path / "others/admin.pem")}
    for change in ({"BROKERS": secured.clients}, {"KAFKA_CERT": ""}):
        assert "wants a certificate" in refused({**secured.admin(), **change}).sentence
    assert "wants a certificate" in refused(stranger).sentence
    with pytest.raises(NoBroker):
        asyncio.run(access.admit(settings, f"{HOST}:{broker.free_port()}"))


def test_a_command_that_is_turned_away_says_one_line(secured: Secured, common: dict[str, str], tmp_path: Path) -> None:
    """Exit code 14 and the sentence, for a command, a worker and a consumer alike; and nothing of the password."""
    (tmp_path / "wrong").write_text("not-the-password")
    values = {**secured.user("worker", **common), "KAFKA_PASSWORD_FILE": str(tmp_path / "wrong")}
    for arguments in (("broker", "status"), ("worker",)):
        done = cli(values, *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (14, 1), done
        assert "not-the-password" not in done.stderr
    consumer = Process({**values, "KAFKA_USER": "deny.erp"}, tmp_path / "erp.log", "orderstream.consumers.erp")
    assert consumer._child.wait(60) == 14
    assert "takes no such user and password" in consumer.said().splitlines()[-1]


def test_a_kafka_in_the_clear_is_not_taken_for_a_secured_one(secured: Secured, common: dict[str, str], brokers: str) -> None:
    """Who wants TLS is not handed a connection without it."""
    assert "in the clear" in refused({**secured.user("intake", **common), "BROKERS": brokers}).sentence


def test_each_user_may_do_what_is_declared_and_no_more(secured: Secured, common: dict[str, str]) -> None:
    """Tried on the broker: every user on every topic, both ways."""
    asyncio.run(_fill(settings_of({**secured.admin(), **common})))
    wanted = {
        r for r in rights.rights(settings_of(secured.user("intake", **common))) if r.kind == "topic" and r.may != "describe"
    }
    found = set()
    for user in rights.declared().users:
        found |= asyncio.run(_tried(settings_of(secured.user(user, **common))))

    assert found - wanted == set()
    assert wanted - found == set()


async def _fill(settings: Settings) -> None:
    """One record in each topic, so that whoever may read sees it at once."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, **access.client(settings))
    await producer.start()
    for topic in topics.declared():
        await producer.send_and_wait(topic.on_broker(settings), b"{}", b"k", partition=0)
    await producer.stop()


async def _tried(settings: Settings) -> set[rights.Right]:
    """What this user could really do."""
    options = {"bootstrap_servers": settings.brokers, **access.client(settings)}
    producer = AIOKafkaProducer(**options)
    consumer = AIOKafkaConsumer(auto_offset_reset="earliest", enable_auto_commit=False, **options)
    await producer.start()
    await consumer.start()
    found = set()
    try:
        for topic in topics.declared():
            name = topic.on_broker(settings)
            try:
                await producer.send_and_wait(name, b"{}", b"k", partition=0)
                found.add(rights.Right(str(settings.kafka_user), "topic", name, "write"))
            except TopicAuthorizationFailedError:
                pass
            consumer.assign([part := TopicPartition(name, 0)])
            try:
                async with asyncio.timeout(30):
                    await consumer.getone(part)  # of this one: the refusal of the one before may still be on its way
                found.add(rights.Right(str(settings.kafka_user), "topic", name, "read"))
            except TopicAuthorizationFailedError:
                pass
    finally:
        await producer.stop()
        await consumer.stop()
    return found


def test_nobody_joins_another_s_group_or_administers(secured: Secured, common: dict[str, str]) -> None:
    """Stealing a group's partitions would stop a process; making topics, users or rights would be worth every right."""
    for user, group in (("erp", "deny.orderstream"), ("worker", "deny.erp"), ("operator", "deny.orderstream"), ("intake", "any")):
        with pytest.raises(GroupAuthorizationFailedError):
            asyncio.run(_join(settings_of(secured.user(user, **common)), group))
    for user in rights.declared().users:
        settings = settings_of(secured.user(user, **common))
        with pytest.raises(NotAdmitted, match="only Kafka's administrator may"):
            topics.now(rights.apply(str(settings.brokers), settings, secured.passwords))
        more = settings.model_copy(update={"topic_prefix": "deny.more."})
        with pytest.raises(NotAdmitted, match="only Kafka's administrator may"):
            topics.now(topics.apply(str(settings.brokers), more))
    settings = settings_of(secured.user("intake", **common))
    with pytest.raises(NotAdmitted, match=r"deny\.orders\.verdicts"):
        kafka.read_all(str(settings.brokers), ["deny.orders.verdicts"], access.client(settings))


async def _join(settings: Settings, group: str) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers, group_id=group, **access.client(settings))
    consumer.subscribe(["deny.orders.released"])
    try:
        await consumer.start()
        async with asyncio.timeout(30):
            await consumer.getone()
    finally:
        await consumer.stop()


def test_a_right_that_is_declared_no_more_is_taken_away(secured: Secured, common: dict[str, str]) -> None:
    """Whatever a user got by hand is gone after the next `broker secure`, and what it must have is there."""
    admin = settings_of({**secured.admin(), **common})
    intruder = settings_of(secured.user("erp", **common))
    everything = (2, "deny.", 4, "User:deny.erp", "*", 2, 3)  # topics that begin so, prefixed, all operations

    async def by_hand() -> None:
        from aiokafka.protocol.admin import CreateAclsRequest

        client = await topics.admin_client(secured.internal, admin)
        rights._sure((await rights._ask(client, CreateAclsRequest(*everything))).creation_responses[0])
        await client.close()

    asyncio.run(by_hand())
    assert kafka.send_all(secured.clients, [("deny.rules.packs", b"k", b"v")], access.client(intruder)) == 1
    asyncio.run(rights.apply(secured.internal, admin, secured.passwords))
    with pytest.raises(NotAdmitted, match=r"deny\.rules\.packs"):
        kafka.send_all(secured.clients, [("deny.rules.packs", b"k", b"v")], access.client(intruder))
    kafka.send_all(secured.clients, [("deny.orders.outcomes", b"k", b"v")], access.client(intruder))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reader_that_has_read_closes_at_once(
    secured: Secured, common: dict[str, str], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Though its next fetch still waits at Kafka: a worker closes readers at its start, and whenever it looks for a claim."""
    settings = settings_of(secured.user("erp", **common))

    async def read_and_close() -> float:
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers, fetch_max_wait_ms=20_000, **access.client(settings))
        await consumer.start()
        consumer.assign([TopicPartition("deny.orders.released", 0)])
        await consumer.seek_to_end()
        await consumer.getmany(timeout_ms=500)
        began = time.monotonic()
        await consumer.stop()
        return time.monotonic() - began

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(read_and_close()) < 5
