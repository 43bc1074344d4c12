"""Topics: every one that exists, read from `schemas/topics/*.yaml`, made on a broker and checked there.

Law: a topic is a file before it is a topic: who writes, who reads, key, schema, partitions, retention and one example.
The broker makes none by itself, and one that is there with another partition count is refused, never repaired: the key of
an order decides its partition, so another count would split an order's history between two workers.

Names in code are the files' names; `name()` gives the one on the broker, which has the installation's prefix.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from orderstream import access
from orderstream.errors import NoBroker, TopicsUnfit
from orderstream.settings import PREFIX, Settings, data_file

T = TypeVar("T")

HOPS: tuple[str, ...] = ("normalise", "detect", "route")
"""The hops that keep state; each has a changelog."""


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence in both languages."""

    zh: str
    en: str


class Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One topic as its file describes it.

    schema: a file of schemas/messages, None for the inner topics, whose codec is a module's own (`codec`). example: a file
    of schemas/examples. personal: whether its values may say who somebody is (name, phone, address, e-mail); keys and headers
    never do, nor does any value elsewhere, and a test reads a whole run of the line to see to it. partitions
    "setting": ORDERSTREAM_PARTITIONS. config: the broker's own names and values.
    """

    name: str
    purpose: Text
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    key: str
    personal: bool
    config: dict[str, str]
    partitions: Literal["setting"] | int = "setting"
    schema: str | None = None
    codec: str | None = None
    example: str | None = None

    def on_broker(self, settings: Settings) -> str:
        """Its name on the broker."""
        if self.name.startswith("{group}"):
            return self.name.replace("{group}", settings.group)
        return name(self.name, settings.topic_prefix)

    def count(self, settings: Settings) -> int:
        """How many partitions it has."""
        return settings.partitions if self.partitions == "setting" else self.partitions

    @property
    def retention_days(self) -> float | None:
        """Days that records are kept; None for ever."""
        ms = int(self.config.get("retention.ms", "-1"))
        return None if ms < 0 else ms / 86_400_000


class Change(msgspec.Struct, frozen=True):
    """What `apply` did to one topic."""

    topic: str
    done: Literal["created", "altered", "unchanged"]


def name(topic: str, prefix: str | None = None) -> str:
    """The name on the broker of a topic in code. prefix None: ORDERSTREAM_TOPIC_PREFIX of the environment."""
    return (os.environ.get(PREFIX + "TOPIC_PREFIX", "") if prefix is None else prefix) + topic


def changelog(hop: str, settings: Settings) -> str:
    """The changelog of a hop, as Faust names it: `<app id>-<table>-changelog`; the app id is `settings.group`."""
    return f"{settings.group}-{hop}-changelog"


def archive(hop: str, settings: Settings) -> str:
    """The archive of a hop's changelog."""
    return f"{settings.group}-{hop}-archive"


def raw(channel: str, prefix: str | None = None) -> str:
    """The topic of a channel's raw records."""
    return name(f"orders.raw.{channel}", prefix)


@cache
def declared() -> tuple[Topic, ...]:
    """Every topic there is, by file name."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(load(path, loader) for path in sorted(data_file("schemas/topics").glob("*.yaml")))


def load(path: Path, loader: Any = yaml.SafeLoader) -> Topic:
    """One topic's file. Raises TopicsUnfit for one that is not of the format."""
    try:
        return msgspec.convert(yaml.load(path.read_text("utf-8"), loader), Topic)  # noqa: S506  both loaders are safe ones
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise TopicsUnfit(f"主题文件 {path.name} 不合格式 · topic file {path.name}: {error}") from None


async def apply(address: str, settings: Settings) -> list[Change]:
    """Creates what is missing and aligns the configuration of what is there. Raises TopicsUnfit on a wrong partition count."""
    from aiokafka.admin import NewTopic  # noqa: PLC0415  not needed to list what is declared
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: PLC0415

    admin = await admin_client(address, settings)
    try:
        there = await _partition_counts(admin)
        _fit(there, settings, missing_is_fine=True)
        missing = [topic for topic in declared() if topic.on_broker(settings) not in there]
        if missing:
            answer = await admin.create_topics(
                [
                    NewTopic(topic.on_broker(settings), topic.count(settings), settings.replication, topic_configs=topic.config)
                    for topic in missing
                ],
                timeout_ms=30_000,
            )
            for created, code, *rest in answer.topic_errors:
                # 36: another process made it in the same moment
                if code in access.FORBIDDEN:
                    raise access.only_admin()
                if code not in {0, 36}:
                    raise TopicsUnfit(f"主题 {created} 无法创建 · topic {created} cannot be created: {rest[0] if rest else code}")
        old = [topic for topic in declared() if topic not in missing]
        differing = await _differing(admin, old, settings)
        if differing:
            resources = [
                ConfigResource(ConfigResourceType.TOPIC, topic.on_broker(settings), configs=topic.config) for topic in differing
            ]
            for answer in await admin.alter_configs(resources):
                for code, message, _, topic_name in answer.resources:
                    if code in access.FORBIDDEN:
                        raise access.only_admin()
                    if code != 0:
                        raise TopicsUnfit(f"主题 {topic_name} 无法修改 · topic {topic_name} cannot be altered: {message}")
        await _settled(admin, settings)
    finally:
        await admin.close()
    created_names, altered = {t.name for t in missing}, {t.name for t in differing}
    return [
        Change(
            topic.on_broker(settings),
            "created" if topic.name in created_names else "altered" if topic.name in altered else "unchanged",
        )
        for topic in declared()
    ]


async def check(address: str, settings: Settings) -> None:
    """Raises TopicsUnfit where a topic is missing or has the wrong partition count; changes nothing."""
    admin = await admin_client(address, settings)
    try:
        _fit(await _partition_counts(admin), settings, missing_is_fine=False)
    finally:
        await admin.close()


async def delete(address: str, settings: Settings) -> None:
    """Removes this prefix's topics and waits until they are gone. For tests and the demo, never for an installation."""
    admin = await admin_client(address, settings)
    try:
        names = {topic.on_broker(settings) for topic in declared()}
        while gone := names & set(await _partition_counts(admin)):
            await admin.delete_topics(sorted(gone), timeout_ms=30_000)
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def present(address: str, settings: Settings) -> dict[str, int]:
    """Partition counts of this installation's topics that are on the broker, by their name there."""
    admin = await admin_client(address, settings)
    try:
        names = {topic.on_broker(settings) for topic in declared()}
        return {topic: count for topic, count in (await _partition_counts(admin)).items() if topic in names}
    finally:
        await admin.close()


def now(work: Coroutine[Any, Any, T]) -> T:
    """Runs one of the above from code that is not asynchronous, also where a loop is already running in this thread."""
    box: list[T] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            box.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            trouble.append(error)

    thread = threading.Thread(target=run, name="topics", daemon=True)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return box[0]


async def admin_client(address: str, settings: Settings) -> Any:
    """An administrator's client, connected; to be closed. Raises NoBroker or NotAdmitted."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    options = access.client(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=30_000, client_id="orderstream-topics", **options)
    try:
        await asyncio.wait_for(admin.start(), 15)
    except (KafkaError, TimeoutError):
        await admin.close()
        await access.admit(settings, address)
        raise NoBroker(access.silent(address)) from None
    return admin


async def _partition_counts(admin: Any) -> dict[str, int]:
    return {found["topic"]: len(found["partitions"]) for found in await admin.describe_topics()}


async def _settled(admin: Any, settings: Settings) -> None:
    """Waits until every partition has a leader: a client that comes earlier is told that the topic does not exist."""
    names = {topic.on_broker(settings): topic.count(settings) for topic in declared()}
    for _ in range(200):
        ready = {
            found["topic"]: sum(1 for part in found["partitions"] if part["leader"] >= 0)
            for found in await admin.describe_topics()
        }
        if all(ready.get(topic) == count for topic, count in names.items()):
            return
        await asyncio.sleep(0.05)
    raise TopicsUnfit("主题已创建但没有就绪 · the topics were created and did not become ready")


async def _differing(admin: Any, topics: list[Topic], settings: Settings) -> list[Topic]:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: PLC0415

    if not topics:
        return []
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, topic.on_broker(settings), configs=dict.fromkeys(topic.config))
        for topic in topics
    ]
    held: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for _, _, _, topic_name, entries in answer.resources:
            held[topic_name] = {entry[0]: entry[1] for entry in entries}
    return [topic for topic in topics if held.get(topic.on_broker(settings)) != topic.config]


def _fit(there: dict[str, int], settings: Settings, *, missing_is_fine: bool) -> None:
    wrong, missing = [], []
    for topic in declared():
        on_broker, count = topic.on_broker(settings), topic.count(settings)
        if on_broker not in there:
            missing.append(on_broker)
        elif there[on_broker] != count:
            wrong.append(f"{on_broker} {there[on_broker]}≠{count}")
    if wrong:
        raise TopicsUnfit(
            f"主题分区数不符（实际≠应为；改 ORDERSTREAM_PARTITIONS 或换前缀）: {', '.join(wrong)}"
            f" · wrong partition counts (is≠must be; set ORDERSTREAM_PARTITIONS or another prefix): {', '.join(wrong)}"
        )
    if missing and not missing_is_fine:
        raise TopicsUnfit(
            f"缺少 {len(missing)} 个主题，先运行 orderstream topics apply"
            f" · {len(missing)} topics are missing ({missing[0]}, …): run `orderstream topics apply`"
        )
