"""What every test may lean on: an own environment, a real broker, and errors that cannot pass unseen."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from orderstream import access, topics
from orderstream import broker as kafka
from orderstream.settings import PREFIX, Settings
from tests import parts

KEY = "key-of-the-tests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        parts.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parts.FromBothEnds:
    return parts.make_scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No developer's ORDERSTREAM_* reaches a test, except the broker that the suite is told to use; subprocesses inherit this."""
    # a suite that was started in a shell's background ignores SIGINT, and so would every process that it tests with one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kept = {"BROKERS", "BROKER_WITH", "CACHE_DIR", "SAMPLES"}
    before = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for name in before:
        if name.removeprefix(PREFIX) not in kept:
            del os.environ[name]
    os.environ[PREFIX + "STATE_DIR"] = str(tmp_path_factory.mktemp("state"))
    os.environ[PREFIX + "KEY"] = KEY
    yield
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real Kafka: the environment's, or a fresh one of this session's own. It has no topics yet: `fresh_topics`."""
    settings = Settings.load()
    if settings.brokers is not None:
        found = kafka.running(settings)
        assert found is not None
        yield found.address
        return
    own = kafka.start(settings, tmp_path_factory.mktemp("kafka"), port=0)
    topics.now(_clean_at_once(own.address))
    yield own.address
    # its data is nobody's any more: putting it in order takes seconds
    own.kill()
    own.stop()


async def _clean_at_once(address: str) -> None:
    """Of its own accord the broker looks every 15 s for what it can compact, and a tombstone takes it two rounds."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", configs={"log.cleaner.backoff.ms": "300"})])
    finally:
        await admin.close()


@pytest.fixture
def fresh_topics(brokers: str) -> Iterator[Callable[..., Settings]]:
    """`fresh_topics(**settings)`: the full, empty topic set under a prefix of this test's own, and the Settings that name it.

    A topic has two partitions where the test does not say how many: to make and to delete eight of each costs it a second. The
    prefix is in the returned settings and, while the test runs, in ORDERSTREAM_TOPIC_PREFIX; so are ORDERSTREAM_BROKERS
    and each override, so that `topics.name(…)` and subprocesses agree. The topics are deleted after the test.
    """
    made: list[Settings] = []
    before = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}

    def make(prefix: str | None = None, **overrides: object) -> Settings:
        chosen = f"t{uuid.uuid4().hex[:8]}." if prefix is None else prefix
        values = {"brokers": brokers, "topic_prefix": chosen, "partitions": 2, **overrides}
        settings = Settings.load(**values)
        if prefix is not None:
            topics.now(topics.delete(brokers, settings))
        topics.now(topics.apply(brokers, settings))
        made.append(settings)
        for name, value in values.items():
            if isinstance(value, str | int | float | Path):
                os.environ[PREFIX + name.upper()] = str(value)
        return settings

    yield make
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(before)
    for settings in made:
        if access.answers(brokers, 5):
            topics.now(topics.delete(brokers, settings))


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """The URL of a real PostgreSQL with a migrated database `board_template` to copy: a fresh one, or TEST_POSTGRES's."""
    from orderstream.board import store
    from tests.postgres import another, postgres

    with nullcontext(os.environ["TEST_POSTGRES"]) if "TEST_POSTGRES" in os.environ else postgres() as server:
        store.migrate(another(server, "board_template"))
        yield server


@pytest.fixture
def database(database_server: str) -> str:
    """The URL of a fresh database with the board's schema, and nothing in it."""
    from tests.postgres import another

    return another(database_server, f"t{uuid.uuid4().hex[:12]}", "board_template")


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in {"orderstream", "agents"}:
            self.seen.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def logged_errors() -> Iterator[list[str]]:
    """What our code logged as an error; asking for this fixture means that the test expects some."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield handler.seen
    logging.getLogger().removeHandler(handler)


@pytest.fixture(autouse=True)
def no_silent_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error that was only logged fails the test."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    if "logged_errors" not in request.fixturenames:
        assert handler.seen == [], "logged and nothing else"
