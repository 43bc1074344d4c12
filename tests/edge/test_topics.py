"""Topics on a real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from orderstream import topics
from orderstream.errors import NoBroker, TopicsUnfit
from orderstream.settings import Settings
from tests.waiting import until

pytestmark = pytest.mark.stream


async def test_every_declared_topic_is_made_with_its_partitions(fresh_topics: Callable[..., Settings]) -> None:
    """After `apply` the broker holds exactly the declared topics, each with its count."""
    settings = fresh_topics(partitions=3)
    there = await topics.present(str(settings.brokers), settings)
    assert there == {topic.on_broker(settings): topic.count(settings) for topic in topics.declared()}
    assert set(there.values()) == {1, 3}
    await topics.check(str(settings.brokers), settings)


async def test_applying_twice_changes_nothing(fresh_topics: Callable[..., Settings]) -> None:
    """A second `apply` finds everything as it left it."""
    settings = fresh_topics()
    assert {change.done for change in await topics.apply(str(settings.brokers), settings)} == {"unchanged"}


async def test_a_changed_configuration_is_put_back(fresh_topics: Callable[..., Settings]) -> None:
    """What somebody changed by hand is altered back, on that topic alone."""
    settings = fresh_topics()
    name = topics.name("orders.verdicts")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "1000"})])
    await admin.close()
    await _until(settings, {"altered", "unchanged"}, [name])
    await _until(settings, {"unchanged"}, [])


async def _until(settings: Settings, done: set[str], changed: list[str]) -> None:
    # a change of configuration reaches the broker that we ask a moment after it was answered
    async def so() -> list[topics.Change]:
        changes = await topics.apply(str(settings.brokers), settings)
        return changes if {change.done for change in changes} == done else []

    changes = await until(so, f"what is done is {done}", 20)
    assert [change.topic for change in changes if change.done != "unchanged"] == changed


async def test_a_wrong_partition_count_is_refused(fresh_topics: Callable[..., Settings]) -> None:
    """Other partitions than declared stop both `apply` and `check`: keys would land elsewhere than their history."""
    settings = fresh_topics(partitions=2)
    other = settings.model_copy(update={"partitions": 4})
    for act in (topics.apply, topics.check):
        with pytest.raises(TopicsUnfit, match=r"orders.raw.api 2≠4"):
            await act(str(settings.brokers), other)


async def test_a_missing_topic_is_named_not_made(brokers: str) -> None:
    """`check` changes nothing: an installation without topics is told what to type."""
    settings = Settings.load(topic_prefix="nothing-here.")
    with pytest.raises(TopicsUnfit, match="topics apply"):
        await topics.check(brokers, settings)
    assert await topics.present(brokers, settings) == {}


async def test_nobody_there_is_one_sentence() -> None:
    """A broker that does not answer is NoBroker, not a client's exception."""
    with pytest.raises(NoBroker):
        await topics.apply("127.0.0.1:1", Settings.load())


def test_changelogs_are_named_as_faust_names_them() -> None:
    """`<app id>-<hop>-changelog`, where the app id has the prefix: two installations on one broker keep apart."""
    settings = Settings.load(topic_prefix="x.")
    declared = {topic.on_broker(settings) for topic in topics.declared()}
    assert {topics.changelog(hop, settings) for hop in topics.HOPS} == {f"x.orderstream-{hop}-changelog" for hop in topics.HOPS}
    assert {topics.changelog(hop, settings) for hop in topics.HOPS} <= declared
