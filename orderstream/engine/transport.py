"""Faust's Kafka transport with what it lacks: batches, exact acknowledgements, co-partitioning without tables.

The law: *the cost is per fetch, not per record*. Faust spends four tasks on each message (`wait_first` in `_drain_messages`),
which is 70-80 µs; here one event carries all that a fetch brought for a topic, so a batch grows with the load and nothing
waits for a batch to fill.

Also repaired here, each a difference between what Faust says and does:

- an offset is committed when the engine has acknowledged all before it. Faust's own bookkeeping (intervals of gaps, lists of
  offsets) skips the head of a partition acknowledged out of order, and includes the delivered offset in a gap, so a compacted
  source advances one gap a commit;
- `producer.flush()` before a commit gives up after 0.1 s: the engine holds every send's future instead, and no flush is needed;
- with all partitions held back the fetch loop slept a whole second; here it is woken;
- co-partitioned assignment is Faust's only while an app has tables; without, aiokafka's round robin scatters a partition
  number over several workers;
- `fetch_max_wait_ms` was fixed at 1,500;
- a fetch brings what is there at that moment, so a low load makes batches of one: requests keep a distance (`Pace`); what is
  sent leaves in as many requests as it was made at moments, and each record of it has a future of its own: see `Gatherer`.
"""

# ruff: noqa: SLF001 - repairing a library from outside means reaching into it; aiokafka and faust-streaming are pinned for this

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import randrange
from time import monotonic
from typing import Any, NamedTuple

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, ProducerClosed, UnknownTopicOrPartitionError
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from orderstream.engine.hop import Send
from orderstream.engine.partitioner import partition_for

FETCH_WAIT_MS = 250
_POLL_S = 1.0
_LATE_S = 3.0


class Fetched(NamedTuple):
    """The value of an event: what one fetch brought for one topic. `epoch` says between which rebalances."""

    epoch: int
    parts: list[tuple[TP, Sequence[Any]]]


class PassThrough(Schema):  # type: ignore[misc]
    """Keys and values reach the agent as they are: a message that cannot be decoded would kill its agent silently."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one (not on Windows)."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


class Pace:
    """When a broker is asked for more: a moment after all that it brought has led to something.

    What a fetch brings is worked off whole, and what that leads to leaves at its end. Asked before, the broker answers with the
    next few records of the first hop, and the other hops' wait for another round; and each round has its price, however little it
    brings. The first record after a quiet moment waits for nobody, since a request is already there. In a backlog a round is
    a second of work, and the moment is nothing.

    Lives in the consumer's thread.
    """

    def __init__(self, gather_s: float) -> None:
        self._gather_s = gather_s
        self._free = asyncio.Event()
        self._free.set()
        self._since = 0.0

    def busy(self) -> None:
        """Records have been drawn."""
        self._free.clear()

    def free(self) -> None:
        """All that was drawn has been worked off."""
        self._since = monotonic()
        self._free.set()

    def over(self, fetcher: Any) -> None:
        """Has a fetcher's requests keep to it."""
        ask = fetcher._proc_fetch_request
        brought: set[int] = set()

        async def later(assignment: Any, node: int, request: Any) -> bool:
            try:
                if node in brought:
                    # a worker that is held up by one partition must not starve the others
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._free.wait(), _POLL_S)
                    if (wait := self._since + self._gather_s - monotonic()) > 0:
                        await asyncio.sleep(wait)
            except asyncio.CancelledError:
                return False  # as aiokafka does: the partitions are not ours any more
            brought.discard(node)
            found: bool = await ask(assignment, node, request)
            if found:
                brought.add(node)
            return found

        if self._gather_s:
            fetcher._proc_fetch_request = later


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """aiokafka's consumer, in its own thread so that heartbeats go on while a batch is processed."""

    _wake: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _rung = False
    """Somebody has called `wake` since the thread last looked: once is enough."""
    _pace: Pace | None = None
    _paced: Any = None
    """The fetcher that keeps to it."""

    async def _keepalive2(self) -> None:
        """Mode's, but what it sees is no error: batches of a backlog, or a machine that is busy with something else."""
        while not self.should_stop:
            await self.sleep(1.1)
            if self.last_wakeup_at and (late := monotonic() - self.last_wakeup_at) > _LATE_S:
                self.log.warning("the worker's loop was busy for %.0f s: heartbeats go on, records wait", late)
            await asyncio.sleep(0)
            await self._wakeup_timer_in_thread()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = self.app.assignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **self.app.engine.client,
        )

    async def fetch(self, open_tps: set[TP], max_records: int) -> tuple[int, Mapping[TP, Sequence[Any]]]:
        """What is there for the open partitions, waiting a little for it, and the epoch that it belongs to.

        `open_tps` may change meanwhile: see `wake`.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._fetch(open_tps, max_records), self.thread_loop))

    async def _fetch(self, open_tps: set[TP], max_records: int) -> tuple[int, Mapping[TP, Sequence[Any]]]:
        consumer = self._ensure_consumer()
        engine = self.app.engine
        fetcher = consumer._fetcher
        if self._wake is None:
            self._wake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._pace is None or self._paced is not fetcher:
            self._pace, self._paced = Pace(engine.tuning.gather_s), fetcher
            self._pace.over(fetcher)
        # whoever asks for more has worked off what there was
        self._pace.free()
        deadline = monotonic() + _POLL_S
        # a call counts as activity of the group's member (`max_poll_interval_ms`)
        with consumer._subscription.fetch_context():
            while True:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                # before the open partitions are looked at: whoever opens one after that rings again
                self._rung = False
                self._wake.clear()
                # A whole rebalance fits into one wait of ours. Records are of the epoch in which they are drawn, and are drawn
                # only while the flow is on: called by the epoch in which the wait began, those after the rebalance's seek
                # would be thrown away as stale, and the commit would later pass over them.
                epoch = engine.epoch
                if not self.consumer.flow_active or epoch != engine.epoch:
                    break
                # a copy, since the set belongs to another thread, and an empty one would mean "all"
                wanted = frozenset(open_tps)
                if wanted:
                    records: Mapping[TP, Sequence[Any]] = await fetcher.fetched_records(wanted, 0, max_records)
                    if records:
                        self._pace.busy()
                        return epoch, records
                left = deadline - monotonic()
                if left <= 0:
                    break
                woken = asyncio.ensure_future(self._wake.wait())
                try:
                    done, _ = await asyncio.wait(
                        {fetcher._create_fetch_waiter(), woken}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    woken.cancel()
                for waiter in done - {woken}:
                    waiter.result()  # authorisation errors
        return -1, {}

    def wake(self, tp: TP) -> None:
        """Say that this partition was opened; called from the other thread."""
        consumer, loop, wake = self._consumer, self._loop, self._wake
        if self._rung or consumer is None or loop is None or wake is None or tp not in consumer._fetcher._records:
            return
        self._rung = True
        loop.call_soon_threadsafe(wake.set)

    def position(self, tp: TP) -> tuple[int, int] | None:
        """(next offset to hand out, end of the log as last heard of), None while either is unknown."""
        subscription = self._consumer._subscription.subscription if self._consumer is not None else None
        assignment = subscription.assignment if subscription is not None else None
        state = assignment._tp_state.get(tp) if assignment is not None else None
        if state is None or not state.has_valid_position or state.highwater is None:
            return None
        return int(state.position), int(state.highwater)

    def touch(self) -> None:
        """Count as active although nothing is fetched: a long recovery must not cost us our membership."""
        if self._consumer is not None:
            with self._consumer._subscription.fetch_context():
                pass


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Delivers a fetch as one event a topic, and commits exactly what the engine acknowledged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[TP, int] = {}
        self._in_hand: set[TP] = set()
        self._free = asyncio.Event()

    def _new_consumer_thread(self) -> ConsumerThread:
        # asyncio's own loop takes four times the processor time for a fetch's hand-over
        thread = ConsumerThread(self, loop=self.loop, beacon=self.beacon, thread_loop=new_loop())
        thread._close_thread_loop_on_stop = True
        return thread

    # -- what the engine says

    def acknowledge(self, tp: TP, next_offset: int) -> None:
        """All before `next_offset` is done. Called in order, so the highest is the one to commit."""
        self._done[tp] = next_offset

    def reopen(self, tp: TP) -> None:
        """Fetch this partition again: its last batch is processed, and there is room for another."""
        if tp not in self._paused_partitions:
            self._active_partitions.add(tp)
            self._thread.wake(tp)

    def took(self, tp: TP) -> bool:
        """The agent has taken the partition's batch. Whether it was the last of what the fetches have brought."""
        self._in_hand.discard(tp)
        if not self._in_hand:
            self._free.set()
        return not self._in_hand

    def backlog(self, tp: TP) -> int | None:
        """Records in the log that no state has seen yet; None while unknown. At least 1 with a batch still in hand."""
        known = self._thread.position(tp)
        if known is None:
            return None
        return max(int(known[1] - known[0]), 1 if tp in self._in_hand else 0)

    def touch(self) -> None:
        self._thread.touch()

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        app = self.app
        hops = app.engine.hops_by_topic
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                    continue
                active = self._active_partitions
                epoch, records = await self._thread.fetch(active, app.conf.broker_max_poll_records)
                if not self.flow_active or epoch != app.engine.epoch:
                    continue  # drawn before a rebalance: the positions are set anew after it
                # Faust's stream drops what is not of the current generation
                generation = app.consumer_generation_id
                by_topic: dict[str, list[tuple[TP, Sequence[Any]]]] = {}
                for aiotp, batch in records.items():
                    tp = TP(aiotp.topic, aiotp.partition)
                    assert tp.topic in hops, f"subscribed to {tp.topic}, which no hop reads"
                    active.discard(tp)
                    self._in_hand.add(tp)
                    by_topic.setdefault(tp.topic, []).append((tp, batch))
                for parts in by_topic.values():
                    tp, batch = parts[0]
                    last = batch[-1]
                    await self.callback(
                        ConsumerMessage(
                            tp.topic,
                            tp.partition,
                            last.offset,
                            last.timestamp / 1000.0,
                            last.timestamp_type,
                            (),
                            None,
                            Fetched(epoch, parts),
                            None,
                            0,
                            0,
                            tp,
                            generation_id=generation,
                        )
                    )
                if self._in_hand:
                    self._free.clear()
                    # a batch that takes long must not hold up the other partitions
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._free.wait(), _POLL_S)
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise
        except Exception as error:
            app.engine.fail(error)
            raise
        except asyncio.CancelledError:
            # Faust takes a cancellation amid a rebalance for a crash, also while it is stopping the fetcher itself
            if not (app.should_stop or fetcher.should_stop):
                raise

    # -- rebalances

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # We still are a member here: what can be finished and committed now need not be repeated by the next owner.
        self.stop_flow()
        await self.app.engine.suspend()
        await self.commit_and_end_transactions()
        self._done.clear()
        self._in_hand.clear()
        self._free.set()
        await super().on_partitions_revoked(revoked)

    async def verify_all_partitions_active(self) -> None:
        """Faust's watchdog compares a record's timestamp with this machine's uptime; lag and `max_poll_interval` say it better."""

    # -- commits

    async def commit_and_end_transactions(self) -> None:
        """The last commit before a rebalance or the end.

        `commit` waits for one that is already under way and then does nothing; that one was begun before the last
        acknowledgements, and what they acknowledged would be processed again.
        """
        if not await self.commit(start_new_transaction=False):
            await self.commit(start_new_transaction=False)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._done) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        offset: int | None = self._done.get(tp)
        return offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        assignment = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assignment}
        if not ours or not await self._commit(ours):
            return False
        self._committed_offset.update(ours)
        return True


class Gatherer(MessageAccumulator):  # type: ignore[misc]
    """aiokafka's accumulator, with requests that carry all there is, and a sender that is left alone until one is due.

    A request costs ten times what one more partition in it does. aiokafka's linger is each partition's own, so that a hop's outputs
    leave in as many requests as they were made at different moments; and each new partition's batch wakes the sender, which looks
    at all of them and finds that it has to wait. Here what is due takes along what waits for the same broker, as in Kafka's own
    client.
    """

    in_flight: "InFlight"
    """Holds the brokers that get no further request for now: when one is answered, the sender looks by itself."""

    def _append_batch(self, builder: Any, tp: Any) -> Any:
        if self._wakeup_handle is None and self._cluster.leader_for_partition(tp) not in self.in_flight:
            return super()._append_batch(builder, tp)
        batch = MessageBatch(tp, builder, self._batch_ttl, self._linger_time)
        self._batches[tp].append(batch)
        return batch

    def put(self, tp: TopicPartition, records: Iterable[Send]) -> "list[asyncio.Future[Any]]":
        """Records for one partition; a future for each batch that they went into, for the last of them there.

        It waits for no room: how much can be under way is the engine's to bound.
        """
        if self._closed:
            raise ProducerClosed
        if self._exception is not None:
            raise self._exception
        waiting = self._batches.get(tp)
        batch = waiting[-1] if waiting else self._append_batch(self.create_builder(), tp)
        last = None
        promised: list[asyncio.Future[Any]] = []
        for one in records:
            headers = list(one.headers)
            # an empty batch takes whatever it is given
            while (placed := batch._builder.append(timestamp=None, key=one.key, value=one.value, headers=headers)) is None:
                if last is not None:
                    promised.append(self._promise(batch, last))
                self._wakeup(self._waiter_future)
                batch, last = self._append_batch(self.create_builder(), tp), None
            last = placed
        if last is not None:
            promised.append(self._promise(batch, last))
        return promised

    def push(self) -> None:
        """Lets all that waits go now: nothing more is being made that could go along."""
        if self._batches:
            for waiting in self._batches.values():
                waiting[0]._linger_time = 0.0
            self._wakeup(self._waiter_future)

    @staticmethod
    def _promise(batch: Any, placed: Any) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        batch._msg_futures.append((future, placed))
        return future

    def drain_by_nodes(self, ignore_nodes: Any, muted_partitions: Any = frozenset()) -> Any:
        leaders = {tp: self._cluster.leader_for_partition(tp) for tp in self._batches if tp not in muted_partitions}
        due = {leader for tp, leader in leaders.items() if not self._batches[tp][0].remaining_linger()}
        for tp, leader in leaders.items():
            if leader in due:
                self._batches[tp][0]._linger_time = 0.0
        return super().drain_by_nodes(ignore_nodes, muted_partitions)


class InFlight:
    """The brokers that have as many requests on their way as they are to have, in place of aiokafka's set of those that have one.

    With one, what people wait for, verdicts, stood behind the answer to the next batch's records. Of a partition there is one batch
    under way as ever: its records keep their order.
    """

    MOST = 5
    """Kafka's own client's number."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def add(self, node: int) -> None:
        self._count[node] += 1

    def remove(self, node: int) -> None:
        self._count[node] -= 1

    def __contains__(self, node: int) -> bool:
        return self._count[node] >= self.MOST


class GatheringProducer(aiokafka.AIOKafkaProducer):  # type: ignore[misc]
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._message_accumulator.__class__ = Gatherer
        self._message_accumulator.in_flight = self._sender._in_flight = InFlight()


class Producer(driver.Producer):  # type: ignore[misc]
    """aiokafka's producer: acknowledged by all replicas, and a retry is written once."""

    @property
    def _producer_type(self) -> type[aiokafka.AIOKafkaProducer]:
        return GatheringProducer

    def _settings_auth(self) -> Mapping[str, Any]:
        client: Mapping[str, Any] = self.app.engine.client
        return client

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def send(self, sends: Iterable[Send]) -> "list[asyncio.Future[Any]]":
        """Hand over records, in this order; the futures are done when the broker has them, and fail when it has not.

        There is one for each partition, as a rule, with the offset of the last record there: aiokafka's own way, a future for each
        record, costs 30 to 40 µs of the loop. Raises MessageSizeTooLargeError, and ValueError for a partition that there is not;
        then nothing has been handed over.
        """
        producer = self._ensure_producer()
        counts: dict[str, int] = {}
        parts: dict[TopicPartition, list[Send]] = {}
        for one in sends:
            if one.topic not in counts:
                counts[one.topic] = await self._partitions(producer, one.topic)
            number = one.partition
            if number is None:
                number = partition_for(one.key, counts[one.topic]) if one.key is not None else randrange(counts[one.topic])  # noqa: S311 - spreading load, no secret
            elif not 0 <= number < counts[one.topic]:
                raise ValueError(f"{one.topic} has {counts[one.topic]} partitions, and none is {number}")
            producer._serialize(one.key, one.value, list(one.headers))  # which looks at its size
            parts.setdefault(TopicPartition(one.topic, number), []).append(one)
        accumulator = producer._message_accumulator
        return [future for tp, part in parts.items() for future in accumulator.put(tp, part)]

    def push(self) -> None:
        """What has been handed over need not wait for more."""
        if self._producer is not None:
            self._producer._message_accumulator.push()

    @staticmethod
    async def _partitions(producer: aiokafka.AIOKafkaProducer, topic: str) -> int:
        """How many a topic has.

        A topic that this producer has not met yet can't be looked up while no broker answers: aiokafka takes that for a topic
        that does not exist. Here it is one only if a broker has said so.
        """
        answered = False
        while not (found := producer.client.cluster.partitions_for_topic(topic)):
            try:
                await producer.client._wait_on_metadata(topic)
            except UnknownTopicOrPartitionError:
                if answered:
                    raise
                answered = await producer.client.force_metadata_update()
        return len(found)

    async def on_stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            await super().on_stop()


class Transport(driver.Transport):  # type: ignore[misc]
    Consumer = Consumer
    Producer = Producer
