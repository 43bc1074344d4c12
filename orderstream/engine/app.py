"""A Faust app whose agents carry batches, whose memory is in the broker, and which rather stops than goes on wrong.

The law: *a worker may be killed at any moment, so it may also kill itself*. Every doubt (a failed send, a bug in a state, a
partition claimed by someone else, topics that are not co-partitioned) ends the process with a non-zero code, the input
unacknowledged. What starts it again (systemd, Kubernetes, compose) is not our business.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import faust
from aiokafka import TopicPartition
from faust.types import TP

from orderstream.engine import zstd
from orderstream.engine.archive import Joined, head_of
from orderstream.engine.changelog import Reader, Reading, claim_headers, new_token
from orderstream.engine.hop import Hop, Record, Send, State, archive_topic, changelog_topic
from orderstream.engine.lane import Lane, Wires
from orderstream.engine.recovery import TableManager
from orderstream.engine.reference import Reference
from orderstream.engine.topics import check_topics
from orderstream.engine.transport import Fetched, PassThrough, Transport
from orderstream.engine.watch import Watch

_log = logging.getLogger(__name__)

# Under the session timeout (10 s), so that a slow broker costs a repetition and not our membership.
_PARK_S = 5.0


_DUMP_S, _DUMP_QUIET_S = 0.05, 0.3
"""What of a second may go into a dump while there is work, and while there is none."""
_PROGRESS_S = 5.0


class NotCopartitioned(RuntimeError):  # noqa: N818 - named for what is so
    """One partition number of a hop's topics is held by several workers: its state would be in two places."""


@dataclass(slots=True)
class Tuning:
    """What may be changed without changing a promise."""

    max_poll_records: int = 500
    max_fetch_bytes: int = 1 << 20
    max_in_flight: int = 8
    commit_interval_s: float = 0.5
    idle_interval_s: float = 1.0
    linger_s: float = 0.0
    """How long what is sent beside the batches (claims, archives) waits for company; what a fetch led to leaves at its end."""
    gather_s: float = 0.0
    """From when all that was fetched has been worked off until more is asked for: what it led to is there by then. The first record
    of a quiet moment waits for nobody.
    """
    max_request_bytes: int = 4 << 20
    max_batch_bytes: int = 1 << 18
    # gzip costs 50 µs a record batch before its first byte, and is all that aiokafka has without a C library: what should be
    # small on disk (changelogs) is better compressed by the broker, by the topic's own compression.type
    compression: str | None = None
    session_timeout_s: float = 10.0
    heartbeat_s: float = 3.0
    max_poll_interval_s: float = 120.0
    request_timeout_s: float = 30.0
    stop_s: float = 20.0


@dataclass(slots=True)
class _Rebuild:
    """A partition's way back to its state."""

    lane: Lane
    state: State
    token: bytes
    claim: int
    changelog: TopicPartition
    archive: TopicPartition
    reading: Reading = field(default_factory=Reading)
    joined: Joined = field(default_factory=Joined)
    folded: int = 0


class _Progress:
    """Tells every few seconds how much of so many topic-partitions has been read."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._shares: dict[TopicPartition, float] = {}
        self._told = monotonic()

    def at(self, tp: TopicPartition, share: float) -> None:
        self._shares[tp] = min(1.0, share)
        if monotonic() - self._told >= _PROGRESS_S:
            self._told = monotonic()
            _log.info("恢复状态 %.0f%% · restoring states", 100 * sum(self._shares.values()) / self._number)


@dataclass(slots=True)
class Engine:
    """The hops of an app, their lanes, and what happens to them when partitions come and go."""

    app: Any
    brokers: str
    partitions: int
    watch: Watch
    tuning: Tuning
    epoch: int = 0
    hops_by_topic: dict[str, Hop] = field(default_factory=dict)
    hops: dict[str, Hop] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)
    extra_topics: dict[str, int | None] = field(default_factory=dict)
    failure: BaseException | None = None
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    _lanes: dict[tuple[str, int], Lane] = field(default_factory=dict)
    _followers: list[asyncio.Task[None]] = field(default_factory=list)
    client: Mapping[str, Any] = field(default_factory=dict)
    """What every Kafka client of this app is given besides: TLS, a user."""
    _reader: Reader | None = None

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.brokers, self.client)
        return self._reader

    def topics(self) -> dict[str, int | None]:
        """Every topic that must exist, with its partition count (None: any)."""
        wanted: dict[str, int | None] = dict(self.extra_topics)
        wanted.update((reference.topic, None) for reference in self.references)
        wanted.update(dict.fromkeys(self.hops_by_topic, self.partitions))
        remembering = [hop.name for hop in self.hops.values() if hop.remembers]
        wanted.update((changelog_topic(self.app.conf.id, hop), self.partitions) for hop in remembering)
        wanted.update((archive_topic(self.app.conf.id, hop), self.partitions) for hop in remembering)
        return wanted

    def state(self, hop: str, partition: int) -> State | None:
        """The state of a partition that this worker holds now."""
        lane = self._lanes.get((hop, partition))
        return lane.state if lane is not None else None

    # -- batches

    async def handle(self, hop: Hop, fetched: Fetched) -> None:
        """Process what a fetch brought for one of a hop's topics. Never raises: an agent that does is restarted by Faust."""
        consumer = self.app.consumer
        try:
            for tp, raw in fetched.parts:
                lane = self._lanes.get((hop.name, tp.partition))
                # fetched before a rebalance: whoever holds the partition now reads it again
                if fetched.epoch != self.epoch or lane is None:
                    continue
                await lane.take(tp, [Record(r.topic, r.partition, r.offset, r.key, r.value, r.headers, r.timestamp) for r in raw])
                if fetched.epoch == self.epoch and consumer.took(tp):
                    # what a fetch has led to leaves in one request, and waits for nothing else
                    self.app.producer.push()
                # a backlog's fetch is seconds of work: answers of the broker are read between its parts, or they time out
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - a bug in a state, or a send that was refused at once
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Stop the worker because of this. From here on nothing is processed, published or acknowledged."""
        if self.failure is not None:
            return
        self.failure = error
        _log.critical("the worker stops: %s", error, exc_info=error)
        self.epoch += 1
        for lane in self._lanes.values():
            lane.close()
        self.failed.set()

    # -- partitions come and go

    async def suspend(self) -> None:
        """Take nothing new, and finish what is under way as far as a few seconds allow."""
        self.epoch += 1
        deadline = asyncio.get_running_loop().time() + _PARK_S
        lanes = list(self._lanes.items())
        clean = await asyncio.gather(*(lane.park(deadline) for _, lane in lanes))
        for (key, lane), finished in zip(lanes, clean, strict=True):
            if not finished:  # its memory is ahead of the log: only the log is true
                lane.close()
                if self._lanes.get(key) is lane:
                    self._drop(key)

    async def restore(self, assignment: Iterable[TP]) -> None:
        """Bring the states of these partitions up to date and let their lanes live. May be cancelled and called again."""
        if self.failure is not None:
            return
        try:
            await self._restore(assignment)
        except Exception as error:
            self.fail(error)
            raise

    async def _restore(self, assignment: Iterable[TP]) -> None:
        for reference in self.references[len(self._followers) :]:
            await reference.start(self.brokers, self.client)
            self._followers.append(asyncio.create_task(self._follow(reference)))
        wanted = self._held(set(assignment))
        for key in [key for key in self._lanes if key not in wanted]:
            self._drop(key)
        wires = self._wires()
        remembering: list[tuple[str, int]] = []
        for key, hop in wanted.items():
            if hop.remembers:
                remembering.append(key)
            elif key not in self._lanes:
                self._lanes[key] = self._lane(hop, key[1], wires)
                self._lanes[key].ready(hop.state_factory(key[1]), b"", 0)
            else:
                kept = self._lanes[key]
                assert kept.state is not None
                kept.ready(kept.state, b"", 0)
        await self._restore_from_changelogs([(key, wanted[key]) for key in remembering], wires)
        self.watch.rebalanced(len({key[1] for key in wanted}))

    async def _restore_from_changelogs(self, wanted: Sequence[tuple[tuple[str, int], Hop]], wires: Wires) -> None:
        # every lane is claimed, kept ones too: someone may have held the partition while we did not
        claims = []
        for key, hop in wanted:
            token = new_token()
            topic = changelog_topic(self.app.conf.id, hop.name)
            (sent,) = await wires.outlet.send([Send(topic, b"", None, key[1], claim_headers(token))])
            claims.append((key, hop, topic, token, sent))
        rebuild: list[_Rebuild] = []
        for key, hop, topic, token, sent in claims:
            claim = (await sent).offset
            lane = self._lanes.get(key)
            if lane is not None and lane.state is not None and lane.next_offset == claim:
                lane.ready(lane.state, token, claim + 1)
                continue
            if lane is not None:
                self._drop(key)
            fresh = self._lane(hop, key[1], wires)
            archive = TopicPartition(fresh.archive.topic, key[1])
            rebuild.append(_Rebuild(fresh, hop.state_factory(key[1]), token, claim, TopicPartition(topic, key[1]), archive))
        if rebuild:
            started = monotonic()
            progress = _Progress(2 * len(rebuild))
            await self._fold_archives({one.archive: one for one in rebuild}, progress)
            await self._fold_changelogs({one.changelog: one for one in rebuild}, progress, started)
        for one in rebuild:
            one.lane.ready(one.state, one.token, one.claim + 1)
            self._lanes[one.lane.hop.name, one.lane.partition] = one.lane

    async def _fold_archives(self, rebuild: Mapping[TopicPartition, "_Rebuild"], progress: "_Progress") -> None:
        """Take in what the archives say, as far as it is of one piece."""
        async with self.reader.open(dict.fromkeys(rebuild)) as consumer:
            ends = await consumer.end_offsets(list(rebuild))
            starts = await consumer.beginning_offsets(list(rebuild))
            left = {tp for tp in rebuild if ends[tp] > starts[tp]}
            if not left:
                return
            consumer.pause(*(tp for tp in rebuild if tp not in left))
            for tp in left:
                # the last record knows where to begin
                consumer.seek(tp, ends[tp] - 1)
            asked = set(left)
            while asked:
                for tp, records in (await consumer.getmany(*asked, timeout_ms=1000, max_records=1000)).items():
                    head = head_of(records[0].headers)
                    starts[tp] = max(starts[tp], head.base if head is not None else 0)
                    consumer.seek(tp, starts[tp])
                    asked.discard(tp)
            while left:
                for tp, records in (await consumer.getmany(timeout_ms=1000, max_records=8)).items():
                    one = rebuild[tp]
                    for record in records:
                        one.joined.begun_at = one.joined.begun_at or record.timestamp / 1000
                        for blob in one.joined.blobs(record.offset, record.value, record.headers):
                            one.state.restore(blob)
                            one.folded += 1
                    await asyncio.sleep(0)
                self.app.consumer.touch()
                for tp in list(left):
                    position = await consumer.position(tp)
                    progress.at(tp, (position - starts[tp]) / (ends[tp] - starts[tp]))
                    if position >= ends[tp]:
                        left.discard(tp)
                        consumer.pause(tp)
        for tp, one in rebuild.items():
            if one.joined.torn:
                _log.warning("%s[%d] lacks a part: the rest is read from the changelog, which takes longer", *tp)

    async def _fold_changelogs(self, rebuild: Mapping[TopicPartition, "_Rebuild"], progress: "_Progress", started: float) -> None:
        """Take in what the changelogs say from there on, up to our claims, and put it into the archives."""
        for one in rebuild.values():
            joined, archive = one.joined, one.lane.archive
            one.reading.owner = joined.owner
            archive.start, archive.base, archive.grown, archive.dumped = joined.end, joined.base, joined.bytes, joined.dumped
            archive.begun_at = joined.begun_at or archive.begun_at
        left = set(rebuild)
        async with self.reader.open({tp: one.joined.end for tp, one in rebuild.items()}) as consumer:
            begins = {tp: await consumer.position(tp) for tp in rebuild}
            while left:
                # small helpings: 100,000 records alive at once cost the garbage collector more than their decoding
                for tp, records in (await consumer.getmany(timeout_ms=1000, max_records=1000)).items():
                    one = rebuild[tp]
                    reading, archive = one.reading, one.lane.archive
                    for record in records:
                        if record.offset >= one.claim:
                            break
                        blob = reading.blob(record.value, record.headers)
                        if blob is None:
                            continue
                        one.state.restore(blob)
                        one.folded += 1
                        archive.keep(blob, record.offset, record.offset + 1, reading.owner or b"")
                        if archive.due:
                            await archive.flush()
                    await asyncio.sleep(0)
                self.app.consumer.touch()
                for tp in list(left):
                    one = rebuild[tp]
                    position = await consumer.position(tp)
                    progress.at(tp, (position - begins[tp]) / max(1, one.claim - begins[tp]))
                    if position > one.claim:
                        left.discard(tp)
                        consumer.pause(tp)
                        self.watch.recovered(one.lane.hop.name, one.lane.partition, one.folded, monotonic() - started)

    def _held(self, assignment: set[TP]) -> dict[tuple[str, int], Hop]:
        held: dict[tuple[str, int], Hop] = {}
        for hop in self.hops.values():
            per_topic = {topic: {tp.partition for tp in assignment if tp.topic == topic} for topic in hop.topics}
            numbers = set.union(*per_topic.values())
            if any(found != numbers for found in per_topic.values()):
                raise NotCopartitioned(
                    f"hop {hop.name} was given {per_topic}: do all workers of this group run the same version, and have all its"
                    f" topics {self.partitions} partitions?"
                )
            held.update(((hop.name, number), hop) for number in numbers)
        return held

    def _drop(self, key: tuple[str, int]) -> None:
        self._lanes.pop(key).close()
        self.watch.lost(*key)

    def _lane(self, hop: Hop, partition: int, wires: Wires) -> Lane:
        app = self.app.conf.id
        changelog, archive = changelog_topic(app, hop.name), archive_topic(app, hop.name)
        return Lane(hop, partition, changelog, archive, wires, self.tuning.max_in_flight)

    def _wires(self) -> Wires:
        consumer, producer = self.app.consumer, self.app.producer

        return Wires(
            outlet=producer,
            claims_between=self.reader.claims_between,
            acknowledge=lambda tp, offset: consumer.acknowledge(TP(*tp), offset),
            fail=self.fail,
            reopen=lambda tp: consumer.reopen(TP(*tp)),
            watch=self.watch,
        )

    # -- beside the batches

    async def _follow(self, reference: Reference) -> None:
        try:
            await reference.follow()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - stale reference data would give wrong verdicts in silence
            self.fail(error)
        finally:
            await reference.stop()

    async def tend(self) -> None:
        """Tick, tell the lag, and let states that have nothing left to read do what they do then."""
        try:
            while not self.app.should_stop and self.failure is None:
                await asyncio.sleep(self.tuning.idle_interval_s)
                self.watch.tick()
                consumer = self.app.consumer
                quiet = True
                for lane in list(self._lanes.values()):
                    backlogs = [(topic, consumer.backlog(TP(topic, lane.partition))) for topic in lane.hop.topics]
                    for topic, records in backlogs:
                        if records is not None:
                            self.watch.lag(topic, lane.partition, records)
                    if all(records == 0 for _, records in backlogs):
                        await lane.idle()
                    else:
                        quiet = False
                await self._archive(_DUMP_QUIET_S if quiet else _DUMP_S)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in a state
            self.fail(error)

    async def _archive(self, seconds: float) -> None:
        """What is due in the archives, for so long: one state is dumped at a time, a piece after the other."""
        until = monotonic() + seconds
        for lane in list(self._lanes.values()):
            while await lane.tend():
                if monotonic() > until:
                    return

    async def stop(self) -> None:
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)


class EngineApp(faust.App):  # type: ignore[misc]
    """A Faust app with our transport and recovery."""

    engine: Engine

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return Transport(self.conf.broker_producer, self)


def make_app(
    app_id: str,
    brokers: str,
    datadir: Path | str,
    partitions: int,
    *,
    web_port: int | None = None,
    watch: Watch | None = None,
    tuning: Tuning | None = None,
    replication: int = 1,
    client: Mapping[str, Any] | None = None,
) -> EngineApp:
    """The app, with every setting that the promises or the speed need. `brokers` is `host:port[,host:port…]`.

    client: options for every Kafka client of the app, aiokafka's words for TLS and a user.
    """
    tuning = tuning or Tuning()
    zstd.install()
    for name in ("aiokafka", "faust", "mode", "kafka"):
        # records below a handler's level are otherwise built and then dropped: 7 % of a busy worker's time
        logging.getLogger(name).setLevel(logging.WARNING)
    Path(datadir).mkdir(parents=True, exist_ok=True)
    web: dict[str, Any] = {"web_enabled": False}
    if web_port is not None:
        web = {"web_enabled": True, "web_bind": "127.0.0.1", "web_host": "127.0.0.1", "web_port": web_port}
    app = EngineApp(
        app_id,
        broker=[f"kafka://{broker.strip()}" for broker in brokers.split(",")],
        datadir=str(datadir),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        TableManager=TableManager,
        topic_partitions=partitions,
        topic_replication_factor=replication,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        worker_redirect_stdouts=False,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # offsets are committed for whole batches; an early crash must not skip what was there before we were
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=tuning.max_fetch_bytes,
        broker_max_poll_records=tuning.max_poll_records,
        broker_max_poll_interval=tuning.max_poll_interval_s,
        broker_commit_interval=tuning.commit_interval_s,
        broker_commit_every=1 << 60,  # by time only
        # an unclean death is noticed after this long
        broker_session_timeout=tuning.session_timeout_s,
        broker_heartbeat_interval=tuning.heartbeat_s,
        broker_rebalance_timeout=30.0,
        broker_request_timeout=tuning.request_timeout_s,
        producer_acks=-1,
        producer_linger=tuning.linger_s,
        producer_compression_type=tuning.compression,
        producer_max_batch_size=tuning.max_batch_bytes,
        producer_max_request_size=tuning.max_request_bytes,
        producer_request_timeout=tuning.request_timeout_s,
        **web,
    )
    app.engine = Engine(app, brokers, partitions, watch or Watch(), tuning, client=client or {})
    app.task(app.engine.tend)
    return app


def attach(app: EngineApp, hop: Hop) -> list[Any]:
    """Make the hop part of the app: one agent a topic, one state a partition. Returns the agents."""
    engine = app.engine
    if hop.name in engine.hops:
        raise ValueError(f"there already is a hop {hop.name}")
    if not hop.topics:
        raise ValueError(f"hop {hop.name} reads no topic")
    engine.hops[hop.name] = hop
    agents = []
    for topic in hop.topics:
        if topic in engine.hops_by_topic:
            raise ValueError(f"{topic} is already read by hop {engine.hops_by_topic[topic].name}")
        engine.hops_by_topic[topic] = hop
        channel = app.topic(topic, partitions=engine.partitions, schema=PassThrough(key_type=bytes, value_type=bytes))
        agents.append(app.agent(channel, name=f"{hop.name}.{topic}", concurrency=1)(_agent(engine, hop)))
    return agents


def _agent(engine: Engine, hop: Hop) -> Callable[[Any], Any]:
    async def carry(stream: Any) -> None:
        async for event in stream.noack().events():
            await engine.handle(hop, event.value)

    return carry


def run(app: EngineApp) -> int:
    """Run the worker in this process until SIGTERM or SIGINT (0), or until it stops because of an error (1)."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - absent on Windows

        loop_factory = uvloop.new_event_loop
    with contextlib.ExitStack() as at_end, asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_run(app, at_end))


async def _run(app: EngineApp, at_end: contextlib.ExitStack) -> int:
    engine = app.engine
    await check_topics(engine.brokers, engine.topics(), engine.client)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    starting = loop.create_task(app.start())
    waits = [loop.create_task(event.wait()) for event in (asked, engine.failed, app._crashed)]  # noqa: SLF001
    await asyncio.wait({*waits, starting}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and starting.exception() is None:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    elif starting.done():
        engine.fail(starting.exception() or RuntimeError("not started"))
    if not asked.is_set() and engine.failure is None:
        engine.fail(app.crash_reason or RuntimeError("the app crashed"))
    for wait in waits:
        wait.cancel()
    code = 0 if engine.failure is None else 1
    # Faust's services swallow cancellations while they stop, so that no time-out inside the loop can end one that waits for a
    # broker that is gone. What matters is in the broker already; to leave the group in order is a courtesy.
    watchdog = threading.Timer(engine.tuning.stop_s if code == 0 else _PARK_S, _leave, (code,))
    watchdog.daemon = True
    watchdog.start()
    at_end.callback(watchdog.cancel)  # after the loop has closed, which may wait too
    try:
        await engine.suspend()
        starting.cancel()
        await app.stop()
        await engine.stop()
    except Exception as error:  # noqa: BLE001 - as above
        _log.warning("the worker did not stop in order: %r", error)
    return code or (0 if engine.failure is None else 1)


def _leave(code: int) -> None:
    _log.warning("the worker did not stop in time and is ended")
    logging.shutdown()
    os._exit(code)
