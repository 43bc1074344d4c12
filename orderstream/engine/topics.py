"""Topics are made beforehand and checked at the start.

The broker's auto-creation is off: a misspelled topic made on the fly, with the broker's default partition count, would end
co-partitioning without a word.
"""

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient


class TopicsUnfit(RuntimeError):  # noqa: N818 - named for what is so
    """Topics that the app needs are missing or have the wrong number of partitions."""


async def check_topics(brokers: str, wanted: Mapping[str, int | None], client: Mapping[str, Any] | None = None) -> None:
    """Raise TopicsUnfit unless every topic exists with this many partitions; None accepts any number."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, **(client or {}))
    await admin.start()
    try:
        there = set(await admin.list_topics())
        present = [topic for topic in wanted if topic in there]
        described = await admin.describe_topics(present) if present else []
    finally:
        await admin.close()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
    missing = [topic for topic in sorted(wanted) if topic not in counts]
    wrong = [
        f"{topic} has {counts[topic]} partitions, not {number}"
        for topic, number in sorted(wanted.items())
        if topic in counts and number is not None and counts[topic] != number
    ]
    said = []
    if wrong:
        said.append(
            f"{'; '.join(wrong)}. A count cannot be changed, since keys decide partitions: start with the number that they have"
            " (ORDERSTREAM_PARTITIONS), or with another prefix."
        )
    if missing:
        said.append(f"{'; '.join(f'{topic} is missing' for topic in missing)}. Run `orderstream topics apply`.")
    if said:
        raise TopicsUnfit(" ".join(said))
