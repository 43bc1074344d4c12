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
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from orderstream import access, broker, kafka, rights, times, topics
from orderstream.channels.api import sign
from orderstream.errors import NoBroker, NotAdmitted, UserError
from orderstream.rules import examples
from orderstream.settings import Settings
from tests.security.secured import HOST, Process, Secured, certificates, cli, settings_of
from tests.stream.line import STANDARD

pytestmark = pytest.mark.stream


def ready(secured: Secured, prefix: str, partitions: int = 1) -> dict[str, str]:
    """Topics, users and rights under a prefix; what every process of this installation has in its environment."""
    common = {"TOPIC_PREFIX": prefix, "PARTITIONS": str(partitions), "METRICS_PORT": "0"}
    settings = settings_of({**secured.admin(), **common})
    topics.now(topics.apply(secured.internal, settings))
    topics.now(rights.apply(secured.internal, settings, secured.passwords))
    return common


def until(good: Callable[[], bool], processes: list[Process], seconds: float = 90) -> None:
    """Waits for a condition; a process that ended meanwhile fails the test with what it said."""
    deadline = time.monotonic() + seconds
    while not good():
        for one in processes:
            assert one.code() is None, one.said()
        assert time.monotonic() < deadline, "\n".join(one.said()[-3000:] for one in processes)
        time.sleep(0.05)


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


def test_the_whole_line_works_and_shows_no_secret(secured: Secured, tmp_path: Path, processes: list[Process]) -> None:
    """Webhook to ERP, each process as its own user; then the analyst's backtest gives the live bytes. No log, however detailed,
    and no process list shows a password, a shop's secret or the key.
    """
    prefix, shop, key = "line.", secrets.token_hex(16), secrets.token_hex(16)
    secured_as_said = [
        cli({**secured.admin(), "TOPIC_PREFIX": prefix}, *arguments)
        for arguments in (("topics", "apply"), ("broker", "secure", str(secured.passwords)))
    ]
    assert [done.returncode for done in secured_as_said] == [0, 0], secured_as_said
    common = {"TOPIC_PREFIX": prefix, "METRICS_PORT": "0", "LOG_LEVEL": "DEBUG", "KEY": "", "KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "key").write_text(key)
    (tmp_path / "shops.json").write_text(json.dumps({"api:main": [shop]}))
    (tmp_path / "skus.jsonl").write_text(json.dumps(examples.ARTICLE) + "\n")
    operator = secured.user("operator", **common)
    for arguments in (("rules", "publish", str(STANDARD)), ("catalogue", "load", str(tmp_path / "skus.jsonl"))):
        done = cli(operator, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done

    for user, module in (
        ("worker", ("orderstream", "worker")),
        ("erp", ("orderstream.consumers.erp",)),
        ("wms", ("orderstream.consumers.wms",)),
    ):
        values = secured.user(user, **common, STATE_DIR=str(tmp_path / user))
        processes.append(Process(values, tmp_path / f"{user}.log", *module))
    front, url = intake(secured, common, tmp_path / "intake.log", SECRETS_FILE=str(tmp_path / "shops.json"))
    processes.append(front)
    assert [deliver(url, shop, f"A{n}") for n in range(3)] == [200] * 3
    assert deliver(url, "wrong", "A9") == 401
    until(lambda: accepted(tmp_path / "erp") == {f"api:main:A{n}" for n in range(3)}, processes)

    analyst = secured.user("analyst", **common)
    live, again = tmp_path / "live.jsonl", tmp_path / "again.jsonl"
    for arguments in (("verdicts", "--out", str(live)), ("backtest", "--from-topics", "--out", str(again))):
        assert cli(analyst, *arguments).returncode == 0
    assert live.read_bytes() == again.read_bytes() != b""

    hidden = [shop, key, *(file.read_text().strip() for file in secured.passwords.iterdir())]
    table = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert "orderstream intake" in table
    assert "server.properties" in table
    said = [table, *(one.said() for one in processes), *(file.read_text("utf-8", "replace") for file in tmp_path.rglob("*.txt"))]
    assert [text for text in said for secret in hidden if secret in text] == []
    assert [one.end() for one in processes] == [0] * 4


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


@pytest.fixture
def turned(secured: Secured) -> Iterator[Secured]:
    """The secured broker, and running again afterwards."""
    yield secured
    if broker._pid(secured.home) is None:
        secured.start()


def test_a_password_is_rotated_without_a_restart(
    turned: Secured, common: dict[str, str], tmp_path: Path, processes: list[Process]
) -> None:
    """New password in the file, `broker secure`, and then every connection is new (the broker went away): intake and the
    worker of before go on. The old password is worth nothing.
    """
    shop = secrets.token_hex(16)
    (tmp_path / "skus.jsonl").write_text(json.dumps(examples.ARTICLE) + "\n")
    operator = turned.user("operator", **common)
    admin = settings_of({**turned.admin(), **common})
    topics.now(topics.delete(turned.internal, admin))
    ready(turned, "deny.")
    for arguments in (("rules", "publish", str(STANDARD)), ("catalogue", "load", str(tmp_path / "skus.jsonl"))):
        assert cli(operator, *arguments).returncode == 0
    old = {user: (turned.passwords / user).read_text() for user in ("intake", "worker", "erp")}
    front, url = intake(turned, common, tmp_path / "intake.log", SECRETS=json.dumps({"api:main": [shop]}))
    processes.append(front)
    for user, module in (("worker", ("orderstream", "worker")), ("erp", ("orderstream.consumers.erp",))):
        processes.append(Process(turned.user(user, **common, STATE_DIR=str(tmp_path / user)), tmp_path / f"{user}.log", *module))
    assert deliver(url, shop, "B1") == 200
    until(lambda: "api:main:B1" in accepted(tmp_path / "erp"), processes)

    for user in old:
        (turned.passwords / user).write_text(secrets.token_urlsafe(32))
    assert cli({**turned.admin(), **common}, "broker", "secure", str(turned.passwords)).returncode == 0
    assert deliver(url, shop, "B2") == 200  # who is in stays in
    turned.stop()
    turned.start()

    until(lambda: deliver(url, shop, "B3") == 200, processes)
    until(lambda: accepted(tmp_path / "erp") == {"api:main:B1", "api:main:B2", "api:main:B3"}, processes)
    (tmp_path / "old").write_text(old["intake"])
    told = refused({**turned.user("intake", **common), "KAFKA_PASSWORD_FILE": str(tmp_path / "old")})
    assert "takes no such user and password" in told.sentence
    assert [one.end() for one in processes] == [0] * 3
