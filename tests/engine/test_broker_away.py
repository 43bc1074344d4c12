"""A broker that is away for longer than any request may take: what a worker hands over meanwhile waits for it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError, UnknownTopicOrPartitionError

from orderstream import broker
from orderstream.engine import Send, Tuning, make_app
from orderstream.settings import Settings
from tests.waiting import until

pytestmark = pytest.mark.stream


async def test_a_first_record_of_a_topic_waits_for_the_broker(tmp_path: Path) -> None:
    """A worker had died of it a minute into an outage: its archive's first record is 30 s younger than itself.

    A topic that the broker says it has not is refused as ever.
    """
    own = await asyncio.to_thread(broker.start, Settings.load(), tmp_path / "kafka", port=0)
    app = make_app("away", own.address, tmp_path / "state", 1, tuning=Tuning(request_timeout_s=1.0))
    producer: Any = app.producer
    try:
        await producer.start()
        admin = AIOKafkaAdminClient(bootstrap_servers=own.address)
        await admin.start()
        await admin.create_topics([NewTopic("late", 1, 1)])
        await admin.close()
        own.kill()
        tried = _count_looks(producer)
        sending = asyncio.create_task(producer.send([Send("late", b"x", partition=0)]))
        await until(lambda: tried[0] > 1, "the client has given it up once", 30)
        assert not sending.done()
        await asyncio.to_thread(own.restart)

        (sent,) = await sending
        assert (await sent).offset == 0
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.send([Send("nowhere", b"x", partition=0)])
        # what no broker could take is refused at once, and what was to go with it stays
        for record, error in (
            (Send("late", b"x" * (5 << 20), partition=0), MessageSizeTooLargeError),
            (Send("late", b"x", partition=1), ValueError),
        ):
            with pytest.raises(error):
                await producer.send([Send("late", b"beside", partition=0), record])
        (sent,) = await producer.send([Send("late", b"y", partition=0)])
        assert (await sent).offset == 1
    finally:
        await producer.stop()
        own.kill()
        own.stop()


def _count_looks(producer: Any) -> list[int]:
    """How often the client has been asked for a topic, from now on."""
    count = [0]
    client = producer._ensure_producer().client
    look = client._wait_on_metadata

    async def counting(topic: str) -> Any:
        count[0] += 1
        return await look(topic)

    client._wait_on_metadata = counting
    return count
