"""Coming to Kafka: options, secrets, and who has which right. No broker is needed here; the real one is in test_secured_kafka."""

from __future__ import annotations

import ast
import logging
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from orderstream import access, rights, topics
from orderstream.errors import BadFile, BadSettings
from orderstream.settings import Settings
from tests.docs.pages import ROOT
from tests.security.secured import certificates

SECRET = "hunter2-hunter2"
USER = {"brokers": "k:9093", "kafka_security": "SASL_SSL", "kafka_user": "intake"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    return folder


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({**USER}, "KAFKA_PASSWORD_FILE"),
        ({**USER, "kafka_user": None, "kafka_password": SECRET}, "KAFKA_USER"),
        ({**USER, "brokers": None, "kafka_password": SECRET}, "BROKERS"),
        ({**USER, "kafka_password": SECRET, "kafka_password_file": "x"}, "KAFKA_PASSWORD"),
        ({"brokers": "k:9093", "kafka_user": "intake"}, "KAFKA_SECURITY"),
        ({**USER, "kafka_security": "SSL", "kafka_password": SECRET}, "KAFKA_SECURITY"),
        ({**USER, "kafka_security": "SASL_PLAINTEXT", "kafka_password": SECRET}, "KAFKA_SECURITY"),
        ({"key": SECRET, "key_file": "x"}, "KEY"),
    ],
)
def test_settings_that_do_not_agree_are_refused_by_name(values: dict[str, str | None], named: str) -> None:
    """A half-set connection is a sentence at the start, names its variable, and shows no value."""
    with pytest.raises(BadSettings) as refused:
        Settings.load(**{"brokers": None, "key": None, **values})

    assert f"ORDERSTREAM_{named}" in refused.value.sentence
    assert SECRET not in refused.value.sentence


def test_in_the_clear_there_are_no_options() -> None:
    """Without security nothing is given to a client, so nothing of ours stands between it and aiokafka's defaults."""
    assert access.client(Settings.load(brokers="k:9092")) == {}


def test_a_password_shows_as_nothing_and_is_read_when_it_is_used(tmp_path: Path, tls: Path) -> None:
    """Options can be printed; what authenticates is what the file says then."""
    file = tmp_path / "password"
    file.write_text("first\n")
    options = access.client(Settings.load(**USER, kafka_ca=tls / "ca.pem", kafka_password_file=file))
    password = options["sasl_plain_password"]

    assert password.encode("utf-8") == b"first"
    assert "first" not in f"{options!r} {password} {password!r}"
    file.write_text("second\n")
    assert password.encode("utf-8") == b"second"


def test_a_password_file_that_broke_keeps_the_last_good_one(tmp_path: Path, tls: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process that runs goes on with what it knows and says so; one that starts refuses."""
    file = tmp_path / "password"
    file.write_text(SECRET)
    settings = Settings.load(**USER, kafka_ca=tls / "ca.pem", kafka_password_file=file)
    password = access.client(settings)["sasl_plain_password"]
    file.write_text("")

    with caplog.at_level(logging.WARNING, "orderstream.access"):
        assert password.encode("utf-8") == SECRET.encode()
    assert str(file) in caplog.text
    assert SECRET not in caplog.text
    with pytest.raises(BadFile):
        access.client(settings)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, tls: Path) -> None:
    """No CA, no certificate, or one whose key is encrypted: a sentence each, and no question to a terminal."""
    nothing = tmp_path / "nothing.pem"
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", str(tls / "admin.pem"), "-aes256", "-passout", "pass:x", "-out", str(locked)],
        check=True, capture_output=True,
    )  # fmt: skip
    for more, named in (
        ({"kafka_ca": nothing}, "ORDERSTREAM_KAFKA_CA"),
        ({"kafka_ca": tls / "ca.pem", "kafka_cert": nothing}, "ORDERSTREAM_KAFKA_CERT"),
        ({"kafka_ca": tls / "ca.pem", "kafka_cert": tls / "admin.pem", "kafka_cert_key": locked}, "ORDERSTREAM_KAFKA_CERT"),
    ):
        with pytest.raises(BadFile, match=named):
            access.client(Settings.load(brokers="k:1", kafka_security="SSL", **more))


def test_the_hash_key_may_stand_in_a_file(tmp_path: Path) -> None:
    """As in the environment, without the line's end."""
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")

    assert Settings.load(key=None, key_file=file).hash_key() == Settings.load(key=SECRET).hash_key()
    with pytest.raises(BadFile, match="nothing"):
        Settings.load(key=None, key_file=tmp_path / "nothing").hash_key()


# Whatever connects


CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "create_conn"}
READERS = {"read_all": 3, "scan": 4, "count": 3, "send_all": 3, "passed": 5}
"""Functions of orderstream.kafka that connect, and which argument is `client`."""


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.append((name, node))
    return found


def test_whatever_connects_comes_in_by_access() -> None:
    """Each client is made with options, and each helper is told them: one that forgot would knock in the clear."""
    forgot, seen = [], Counter[str]()
    for path in [*(ROOT / "orderstream").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]:
        for name, call in _calls(ast.parse(path.read_text("utf-8"))):
            of_kafka = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "kafka"
            if name in CLIENTS:
                good = any(keyword.arg is None for keyword in call.keywords)
            elif name in READERS and of_kafka:
                good = len(call.args) >= READERS[name] or any(keyword.arg == "client" for keyword in call.keywords)
            else:
                continue
            seen[name] += 1
            if not good:
                forgot.append(f"{path.relative_to(ROOT)}:{call.lineno} {name}")

    assert forgot == []
    assert seen.keys() >= CLIENTS | {"read_all", "scan", "send_all"}


# Who may do what


def test_every_actor_is_one_user_s_and_every_name_is_an_actor() -> None:
    """A topic that names a new reader or writer gets no right by accident, and none is given to a name that is gone."""
    actors = {actor for topic in topics.declared() for actor in (*topic.readers, *topic.writers)}
    named = Counter(actor for user in rights.declared().users.values() for actor in user.acts_as)
    named.update(rights.declared().without_user)

    assert set(named) == actors, "give each actor of schemas/topics to a user in deploy/kafka/access.yaml"
    assert [actor for actor, times in named.items() if times > 1] == []


def _may(user: str, may: str) -> set[str]:
    settings = Settings.load(topic_prefix="")
    return {right.name for right in rights.rights(settings) if (right.user, right.kind, right.may) == (user, "topic", may)}


RAW = {f"orders.raw.{channel}" for channel in ("api", "douyin", "jd", "shopify", "taobao", "wechat", "youzan")}
FETCH = {"orders.pending", "orders.parked", "platforms.polled"}
CHANGELOGS = {f"orderstream-{hop}-{log}" for hop in topics.HOPS for log in ("changelog", "archive")}


def test_a_foothold_is_worth_little() -> None:
    """What docs/security.md says of each user, written down a second time."""
    assert (_may("intake", "read"), _may("intake", "write")) == (set(), RAW | {"orders.pending"})
    assert _may("fetch", "read") == RAW | FETCH
    assert _may("fetch", "write") == RAW | FETCH | {"orders.rejected"}
    assert _may("analyst", "write") == set()
    assert not _may("worker", "write") & (
        RAW | {"rules.packs", "catalog.skus", "orders.outcomes", "wms.stock", "reference.updates"}
    )
    assert (_may("erp", "read"), _may("erp", "write")) == (
        {"orders.released", "orders.recalled"},
        {"orders.outcomes", "erp.acks"},
    )
    assert _may("wms", "read") == {"orders.released", "orders.recalled", "orders.actions", "wms.commands"}
    assert _may("wms", "write") == {"wms.stock", "wms.acks", "wms.shipments"}
    assert _may("downstream", "write") == {"erp.acks", "orders.outcomes"}
    assert _may("deliver", "write") == set()
    assert (_may("actions", "read"), _may("actions", "write")) == ({"orders.actions"}, {"wms.commands", "channel.challenges"})
    assert _may("board", "write") == RAW | {"catalog.skus", "orders.outcomes", "orders.pending", "reference.updates"}
    assert _may("desk", "read") == {"orders.review", "orders.frozen"}
    held = {"orders.released", "orders.review", "orders.frozen"}
    assert _may("supervisor", "read") == held | {"orders.verdicts", "orders.outcomes", "reference.updates"}
    assert _may("supervisor", "write") == {"orders.outcomes", "reference.updates"}
    assert _may("desk", "write") == {"orders.outcomes", "reference.updates", "wms.stock"}


def test_what_must_be_written_by_one_is_written_by_one() -> None:
    """Verdicts and memory are the workers', rules and catalogue the operator's; only what is fetched or put back adds to intake's."""
    writers: dict[str, set[str]] = {}
    for user in rights.declared().users:
        for topic in _may(user, "write"):
            writers.setdefault(topic, set()).add(user)

    workers = CHANGELOGS | {"orders.facts", "orders.dossiers", "orders.verdicts", "orders.released", "orders.recalled"}
    workers |= {"orders.review", "orders.frozen", "orders.actions"}
    assert {topic for topic in writers if writers[topic] == {"worker"}} == workers
    assert {topic for topic in writers if writers[topic] == {"operator"}} == {"rules.packs"}
    assert {topic for topic in writers if writers[topic] == {"operator", "board"}} == {"catalog.skus"}
    assert {topic for topic in writers if writers[topic] == {"intake", "fetch", "operator", "board"}} == RAW | {"orders.pending"}
    assert {topic for topic in writers if writers[topic] == {"fetch"}} == FETCH - {"orders.pending"}
    assert {topic for topic in writers if writers[topic] == {"worker", "fetch"}} == {"orders.rejected"}


def test_users_are_named_by_the_prefix() -> None:
    """Two installations on one Kafka have no user in common, so taking one's rights away touches no other."""
    assert {right.user for right in rights.rights(Settings.load(topic_prefix="a."))} == {
        f"a.{u}" for u in rights.declared().users
    }


def test_passwords_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    """A second run keeps what is there, so that a process and its broker agree."""
    files = rights.passwords(tmp_path / "p")
    before = {user: file.read_text() for user, file in files.items()}

    assert rights.passwords(tmp_path / "p") == files
    assert {user: file.read_text() for user, file in files.items()} == before
    assert len(set(before.values())) == len(before)
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
    assert all(len(text.strip()) >= 40 for text in before.values())
