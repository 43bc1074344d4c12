"""What the engine promises without a broker: the order of effects, who may write a changelog, where keys and partitions go."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import cramjam
import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from orderstream.engine import (
    Effects,
    Fenced,
    Hop,
    NotCopartitioned,
    Record,
    Send,
    Watch,
    archive_topic,
    attach,
    changelog_topic,
    make_app,
    partition_for,
    zstd,
)
from orderstream.engine.app import Tuning
from orderstream.engine.changelog import CLAIM, SIGNED, Reading, claim_headers, signed_headers
from orderstream.engine.lane import Lane, Wires
from orderstream.engine.partitioner import Partitioner, murmur2
from orderstream.engine.transport import Consumer, ConsumerThread, Gatherer, GatheringProducer, InFlight, Pace

# -- a lane, with a broker that acknowledges when it is told to


@dataclass
class Sent:
    topic: str
    value: bytes | None
    future: asyncio.Future

    def ok(self, offset: int = 0) -> None:
        self.future.set_result(SimpleNamespace(offset=offset))


class Plain:
    """Sends what it is told, one of each kind per record, and logs it."""

    def process(self, records: Sequence[Record]) -> Effects:
        names = [record.value.decode() for record in records]
        if "bug" in names:
            raise ValueError("bug")
        log = "+".join(names).encode()
        return Effects([Send("public", log, public=True), Send("inner", log)], log)

    def restore(self, blob: bytes) -> None: ...

    def idle(self) -> Effects | None:
        return Effects([Send("public", b"idle", public=True)], b"idle")


@dataclass
class World:
    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[tuple] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    opened: list[tuple] = field(default_factory=list)
    claims: list[bytes] = field(default_factory=list)
    asked: list[tuple] = field(default_factory=list)

    async def send(self, sends: Iterable[Send]) -> list[asyncio.Future]:
        items = [Sent(one.topic, one.value, asyncio.get_running_loop().create_future()) for one in sends]
        self.sent += items
        return [item.future for item in items]

    def push(self) -> None: ...

    async def claims_between(self, *where: object) -> list[bytes]:
        self.asked.append(where)
        return self.claims

    def lane(self, max_in_flight: int = 8, next_offset: int = 0) -> Lane:
        wires = Wires(
            self,
            self.claims_between,
            lambda tp, n: self.acknowledged.append((tp, n)),
            self.failures.append,
            self.opened.append,
            Watch(),
        )
        lane = Lane(Hop("h", ["in", "other"], lambda _: Plain()), 3, "log", "archive", wires, max_in_flight)
        lane.ready(Plain(), b"me", next_offset)
        return lane

    def of(self, topic: str) -> list[Sent]:
        return [item for item in self.sent if item.topic == topic]

    def topics(self) -> list[tuple[str, bytes | None]]:
        return [(item.topic, item.value) for item in self.sent]


def batch(offset: int, *names: str, topic: str = "in") -> tuple[tuple[str, int], list[Record]]:
    records = [Record(topic, 3, offset + n, None, name.encode(), (), 0) for n, name in enumerate(names)]
    return (topic, 3), records


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_public_sends_wait_for_the_log_and_the_input_waits_for_both() -> None:
    """The order that promise 3 is made of."""
    world = World()
    await world.lane().take(*batch(10, "a", "b"))
    await settle()
    assert world.topics() == [("log", b"a+b"), ("inner", b"a+b")]

    world.of("inner")[0].ok()
    await settle()
    assert world.of("public") == []

    world.of("log")[0].ok(0)
    await settle()
    assert [item.value for item in world.of("public")] == [b"a+b"]
    assert world.acknowledged == []

    world.of("public")[0].ok()
    await settle()
    assert world.acknowledged == [(("in", 3), 12)]


async def test_batches_overlap_and_are_published_and_acknowledged_in_order() -> None:
    """The second is processed at once; its acknowledgement coming first changes nothing."""
    world = World()
    lane = world.lane()
    await lane.take(*batch(10, "a"))
    await lane.take(*batch(50, "b", topic="other"))
    await lane.take(*batch(11, "c"))
    first, second, third = world.of("log")
    third.ok(2)
    second.ok(1)
    for item in world.of("inner"):
        item.ok()
    await settle()
    assert world.of("public") == []
    first.ok(0)
    await settle()
    assert [item.value for item in world.of("public")] == [b"a", b"b", b"c"]
    for item in reversed(world.of("public")):
        item.ok()
        await settle()
    assert world.acknowledged == [(("in", 3), 11), (("other", 3), 51), (("in", 3), 12)]


@pytest.mark.parametrize("which", ["log", "inner", "public"])
async def test_a_failed_send_fails_the_worker_and_acknowledges_nothing(which: str) -> None:
    world = World()
    await world.lane().take(*batch(10, "a"))
    for topic in ("log", "inner", "public"):
        await settle()
        if topic == which:
            world.of(topic)[0].future.set_exception(OSError("refused"))
            break
        world.of(topic)[0].ok(0)
    await settle()
    assert [str(error) for error in world.failures] == ["refused"]
    assert world.acknowledged == []
    assert which != "log" or world.of("public") == []


async def test_a_claim_between_two_of_our_records_fences_us() -> None:
    """Nothing of that batch leaves, although the broker has acknowledged its log."""
    world = World(claims=[b"other"])
    await world.lane(next_offset=7).take(*batch(10, "a"))
    world.of("inner")[0].ok()
    world.of("log")[0].ok(9)
    await settle()
    assert world.asked == [("log", 3, 7, 9)]
    assert isinstance(world.failures[0], Fenced)
    assert world.of("public") == []
    assert world.acknowledged == []


@pytest.mark.parametrize("claims", [[b"heir"], []])
async def test_a_proof_that_comes_late_is_looked_at_again(claims: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stopped between its log and the answer would publish behind its heir: a claim after the log ends it."""
    world = World(claims=claims)
    await world.lane(next_offset=9).take(*batch(10, "a"))
    monkeypatch.setattr("orderstream.engine.lane._DOUBT_S", -1.0)  # as if it had been away
    world.of("inner")[0].ok()
    world.of("log")[0].ok(9)
    await settle()
    assert world.asked == [("log", 3, 10, None)]
    assert len(world.of("public")) == (0 if claims else 1)
    assert [type(failure) for failure in world.failures] == ([Fenced] if claims else [])


async def test_late_records_of_a_displaced_owner_do_not_fence_its_heir() -> None:
    """No reader counts them, so the heir goes on, and asks only once about the same gap."""
    world = World()
    lane = world.lane(next_offset=7)
    await lane.take(*batch(10, "a"))
    world.of("log")[0].ok(9)
    await settle()
    await lane.take(*batch(11, "b"))
    world.of("log")[1].ok(10)
    await settle()
    assert world.failures == []
    assert len(world.asked) == 1
    assert len(world.of("public")) == 2


async def test_a_closed_lane_publishes_and_acknowledges_nothing_more() -> None:
    """The partition was taken away before its batches were through."""
    world = World()
    lane = world.lane()
    await lane.take(*batch(10, "a"))
    lane.close()
    world.of("log")[0].future.cancelled() or world.of("log")[0].ok(0)
    await settle()
    assert await lane.take(*batch(11, "b")) is False
    assert world.of("public") == []
    assert world.acknowledged == []
    assert world.failures == []


async def test_parking_finishes_what_is_under_way() -> None:
    world = World()
    lane = world.lane()
    await lane.take(*batch(10, "a"))
    parking = asyncio.create_task(lane.park(asyncio.get_running_loop().time() + 5))
    for topic in ("log", "inner", "public"):
        await settle()
        world.of(topic)[0].ok(0)
    assert await parking is True
    assert world.acknowledged == [(("in", 3), 11)]


async def test_parking_that_does_not_finish_says_so() -> None:
    """Then the memory is ahead of the log and must be dropped."""
    lane = World().lane()
    await lane.take(*batch(10, "a"))
    assert await lane.park(asyncio.get_running_loop().time() + 0.01) is False


async def test_a_full_lane_is_not_read_until_it_has_room() -> None:
    world = World()
    lane = world.lane(max_in_flight=2)
    await lane.take(*batch(10, "a"))
    assert world.opened == [("in", 3)]
    await lane.take(*batch(11, "b"))
    await settle()
    assert world.opened == [("in", 3)]
    for item in world.of("inner"):
        item.ok()
    world.of("log")[0].ok(0)
    await settle()
    world.of("public")[0].ok()
    await settle()
    assert world.opened == [("in", 3)] * 2


async def test_what_idle_asks_for_takes_the_same_way() -> None:
    world = World()
    await world.lane().idle()
    await settle()
    assert world.topics() == [("log", b"idle")]
    world.of("log")[0].ok(0)
    await settle()
    world.of("public")[0].ok()
    await settle()
    assert world.acknowledged == []
    assert world.failures == []


async def test_what_is_processed_first_is_logged_first() -> None:
    """Two topics share a state: a producer that makes the first wait must not let the second's record overtake it."""
    world = World()
    lane = world.lane()
    gate = asyncio.Event()
    plain_send = world.send

    async def slow_send(sends: Iterable[Send]) -> list[asyncio.Future]:
        if any(one.value == b"a" for one in sends):
            await gate.wait()
        return await plain_send(sends)

    world.send = slow_send
    both = asyncio.gather(lane.take(*batch(10, "a")), lane.take(*batch(50, "b", topic="other")))
    await settle()
    gate.set()
    await both
    assert [item.value for item in world.of("log")] == [b"a", b"b"]


async def test_a_hop_that_remembers_nothing_may_not_log() -> None:
    world = World()
    lane = world.lane()
    lane.hop.remembers = False
    with pytest.raises(TypeError, match="remembers nothing"):
        await lane.take(*batch(10, "a"))


# -- drawing records, in the consumer's thread


class Drawn:
    """aiokafka's consumer and fetcher as far as `_fetch` looks at them."""

    def __init__(self, on_draw: Callable[["Drawn", frozenset], dict]) -> None:
        self._closed = False
        self._records: dict = {}
        self._fetcher = self._subscription = self
        self._on_draw = on_draw
        self.draws = 0
        self.waiter: asyncio.Future | None = None
        self.thread = object.__new__(ConsumerThread)
        self.thread.app = SimpleNamespace(engine=SimpleNamespace(epoch=1, tuning=Tuning()))
        self.thread.consumer = SimpleNamespace(flow_active=True)
        self.thread._consumer = self
        self._proc_fetch_request = None

    def fetch_context(self) -> contextlib.nullcontext:
        return contextlib.nullcontext()

    async def fetched_records(self, wanted: frozenset, _timeout: float, _max: int) -> dict:
        self.draws += 1
        return self._on_draw(self, wanted)

    def _create_fetch_waiter(self) -> asyncio.Future:
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter


async def test_records_belong_to_the_epoch_in_which_they_are_drawn() -> None:
    """A rebalance passed while we waited: what is drawn then is behind the new seek, and to be processed."""
    drawn = Drawn(lambda self, _: {("t", 0): ["r"]} if self.draws > 1 else {})
    waiting = asyncio.create_task(drawn.thread._fetch({TP("t", 0)}, 10))
    await settle()
    drawn.thread.app.engine.epoch = 2
    drawn.waiter.set_result(None)
    assert await waiting == (2, {("t", 0): ["r"]})


async def test_nothing_is_drawn_while_the_flow_is_off() -> None:
    """Between revocation and seek the positions are wrong, and drawing moves them."""
    drawn = Drawn(lambda *_: {("t", 0): ["r"]})
    drawn.thread.consumer.flow_active = False
    assert await drawn.thread._fetch({TP("t", 0)}, 10) == (-1, {})
    assert drawn.draws == 0


async def test_a_reopened_partition_is_drawn_at_once() -> None:
    """Its records were already here, so no news from the broker would end the wait; and no partition open is not all of them."""
    tp = TP("t", 0)
    drawn = Drawn(lambda self, wanted: {tp: ["r"]} if tp in wanted else {})
    drawn._records[tp] = "waiting"
    opened: set[TP] = set()
    waiting = asyncio.create_task(drawn.thread._fetch(opened, 10))
    await settle()
    assert drawn.draws == 0
    opened.add(tp)
    drawn.thread.wake(tp)
    assert await asyncio.wait_for(waiting, 0.5) == (1, {tp: ["r"]})


async def test_partitions_opened_together_wake_the_thread_once() -> None:
    """A call into another loop is a system call; and after it has looked again, the next one is heard."""
    tp = TP("t", 0)
    drawn = Drawn(lambda *_: {})
    drawn._records[tp] = "waiting"
    waiting = asyncio.create_task(drawn.thread._fetch({tp}, 10))
    await settle()
    calls: list[Callable[[], None]] = []
    drawn.thread._loop = SimpleNamespace(call_soon_threadsafe=calls.append)
    drawn.thread.wake(tp)
    drawn.thread.wake(tp)
    assert len(calls) == 1
    calls[0]()
    await settle()
    assert drawn.draws == 2
    drawn.thread.wake(tp)
    assert len(calls) == 2
    waiting.cancel()


# -- requests: few, and with company


async def test_after_a_fetch_that_brought_something_the_next_waits() -> None:
    """Until that has been worked off, and a moment; one that brought nothing, and another broker's, keep nobody waiting."""
    asked: list[int] = []
    brings = {1: False, 2: True, 3: True, 4: True, 5: True}

    async def ask(_assignment: object, node: int, _request: object) -> bool:
        asked.append(node)
        return brings[len(asked)]

    def paced(gather_s: float) -> tuple[Pace, Callable[[int], Coroutine[object, object, bool]]]:
        fetcher, pace = SimpleNamespace(_proc_fetch_request=ask), Pace(gather_s)
        pace.over(fetcher)
        return pace, lambda node: fetcher._proc_fetch_request(None, node, None)

    pace, fetch = paced(1_000)
    pace.free()
    assert [await fetch(1), await fetch(1), await fetch(2)] == [False, True, True]
    waiting = asyncio.create_task(fetch(1))
    await settle()
    assert asked == [1, 1, 2]
    # the partitions are somebody else's now
    waiting.cancel()
    assert await waiting is False

    asked[:] = [1]
    pace, fetch = paced(1e-9)
    assert await fetch(1)
    pace.busy()
    waiting = asyncio.create_task(fetch(1))
    await settle()
    assert asked == [1, 1], "what it brought is still being worked off"
    pace.free()
    assert await waiting
    assert asked == [1, 1, 1]


async def test_what_is_due_takes_along_what_waits_for_the_same_broker() -> None:
    """Records made at different moments leave in one request, of their own broker only; the sender is not woken to be told to wait."""
    brokers = {TP("t", 0): 1, TP("t", 1): 1, TP("u", 0): 2}
    made = Gatherer(SimpleNamespace(leader_for_partition=brokers.get), 1 << 14, 0, 30, linger_ms=200)
    made.in_flight = InFlight()
    futures = [*made.put(TP("t", 0), [Send("t", b"first", b"k")])]
    assert made.waiter().done(), "the first one sets the clock"
    assert made.drain_by_nodes(set()) == ({}, False)
    waiter = made.waiter()
    futures += [future for tp in (TP("t", 1), TP("u", 0)) for future in made.put(tp, [Send(tp.topic, b"later", b"k")])]
    for tp in (TP("t", 1), TP("u", 0)):
        made._batches[tp][0]._linger_time = 1_000
    assert not waiter.done()
    await asyncio.wait_for(waiter, 60)
    drained, _ = made.drain_by_nodes(set())
    assert {node: set(batches) for node, batches in drained.items()} == {1: {TP("t", 0), TP("t", 1)}}
    # while a request is on its way, its answer is what the sender waits for
    made._batches[TP("u", 0)][0]._ctime -= 2_000
    assert set(made.drain_by_nodes({1})[0]) == {2}
    for _ in range(InFlight.MOST):
        made.in_flight.add(1)
    waiter = made.waiter()
    futures += made.put(TP("t", 0), [Send("t", b"last", b"k")])
    assert not waiter.done()
    assert not any(future.done() for future in futures)


def gatherer(**settings: int) -> Gatherer:
    made = Gatherer(SimpleNamespace(leader_for_partition=lambda _: 1), 400, 0, 30, **{"linger_ms": 60_000, **settings})
    made.in_flight = InFlight()
    return made


async def test_records_handed_over_together_are_promised_together() -> None:
    """One future for each record batch that they went into, with the offset of the last there; none of them is left out."""
    made, tp = gatherer(), TP("t", 0)
    values = [bytes([n]) * 60 for n in range(12)]
    futures = list(made.put(tp, [Send("t", value, b"k", headers=(("h", b"v"),)) for value in values]))
    batches = list(made._batches[tp])
    assert 1 < len(batches) == len(futures) < len(values)
    assert made.waiter().done(), "a full batch does not wait for the clock"
    assert made.drain_by_nodes(set())[0][1][tp] is batches[0]

    records, offset = 0, 100
    for batch, future in zip(batches, futures, strict=True):
        assert not future.done()
        records += batch.record_count
        offset += batch.record_count
        batch.done(offset - batch.record_count)
        assert future.result().offset == offset - 1
    assert records == len(values)


async def test_a_request_waits_for_no_other_but_for_its_partition_s_last() -> None:
    """Verdicts do not stand behind the answer to somebody else's records; a partition's records keep their order."""
    producer = GatheringProducer(acks="all", enable_idempotence=True, linger_ms=60_000)
    producer._txn_manager.set_pid_and_epoch(1, 0)
    made = producer._message_accumulator
    made._cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
    asked: list[set[TP]] = []
    never = asyncio.Event()

    async def ask(_node: int, batches: dict[TP, object]) -> None:
        asked.append(set(batches))
        await never.wait()

    producer._sender._send_produce_req = ask
    sender = asyncio.create_task(producer._sender._sender_routine())

    async def say(*partitions: int) -> None:
        for number in partitions:
            made.put(TP("t", number), [Send("t", b"v", b"k")])
        made.push()
        await settle()

    await say(0, 1)
    await say(0, 2)
    assert asked == [{TP("t", 0), TP("t", 1)}, {TP("t", 2)}]
    for number in range(3, 10):
        await say(number)
    assert len(asked) == InFlight.MOST
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sender


async def test_a_batch_that_is_sent_again_takes_no_further_records() -> None:
    """Its sequence number says how many it has."""
    made, tp = gatherer(linger_ms=0), TP("t", 0)
    (first,) = made.put(tp, [Send("t", b"one")])
    again = made.drain_by_nodes(set())[0][1][tp]
    again.get_data_buffer()
    made.reenqueue(again)
    (second,) = made.put(tp, [Send("t", b"two")])
    assert [batch.record_count for batch in made._batches[tp]] == [1, 1]
    assert made.drain_by_nodes(set())[0][1][tp] is again
    again.failure(OSError("gone"))
    assert isinstance(first.exception(), OSError)
    assert not second.done()


async def test_what_is_pushed_does_not_wait() -> None:
    made = gatherer()
    futures = [*made.put(TP("t", 0), [Send("t", b"one")]), *made.put(TP("u", 1), [Send("u", b"two")])]
    assert made.drain_by_nodes(set()) == ({}, False), "the clock has only begun"
    waiter = made.waiter()
    made.push()
    assert waiter.done()
    assert set(made.drain_by_nodes(set())[0][1]) == {TP("t", 0), TP("u", 1)}
    waiter = made.waiter()
    made.push()
    assert not waiter.done(), "nobody is woken for nothing"
    assert not any(future.done() for future in futures)


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=4))
def test_frames_are_what_every_zstd_reads(payloads: list[bytes]) -> None:
    """Also those that do not say how long they are, as Kafka's own clients write them; contexts are used again."""
    for payload in payloads:
        assert bytes(cramjam.zstd.decompress(zstd.encode(payload))) == payload
        assert zstd.decode(zstd.encode(payload)) == payload
        streamed = cramjam.zstd.Compressor()
        streamed.compress(payload)
        assert zstd.decode(bytes(streamed.finish())) == payload


def test_every_client_of_the_process_compresses_so() -> None:
    """Kafka's own batches of records, through aiokafka's builder and reader."""
    make_app("a", "localhost:1", "/tmp", 1)
    builder = DefaultRecordBatchBuilder(2, 4, 0, -1, -1, 0, 1 << 20)
    builder.append(0, None, b"k", b"v" * 500, [])
    with patch.object(zstd._contexts, "compressor", SimpleNamespace(compress=lambda data: b"!" + bytes(data))):
        assert bytes(builder.build())[61:62] == b"!"


async def test_the_last_commit_is_not_the_one_that_was_already_under_way() -> None:
    """Faust's `commit` joins a running one, which knows nothing of what was acknowledged since it began."""
    consumer = object.__new__(Consumer)
    consumer._done = {TP("t", 0): 5}
    consumer._loop = asyncio.get_running_loop()
    consumer._commit_fut = running = consumer._loop.create_future()
    consumer.app = SimpleNamespace(client_only=False)
    committed: list[dict] = []

    async def force_commit(*_: object, **__: object) -> bool:
        committed.append(dict(consumer._done))
        return True

    consumer.force_commit = force_commit
    ending = asyncio.create_task(consumer.commit_and_end_transactions())
    await settle()
    assert committed == []
    consumer._commit_fut = None
    running.set_result(None)
    await ending
    assert committed == [{TP("t", 0): 5}]


# -- who may write a changelog


def fold(records: list[tuple[list[tuple[str, bytes]], bytes]]) -> list[bytes]:
    reading = Reading()
    return [blob for headers, value in records if (blob := reading.blob(value, headers)) is not None]


def test_only_the_last_claimant_is_read() -> None:
    """What the displaced one writes late does not count; what it wrote before does."""
    a, b = b"a", b"b"
    log = [
        (claim_headers(a), b""),
        (signed_headers(a), b"1"),
        (claim_headers(b), b""),
        (signed_headers(a), b"zombie"),
        (signed_headers(b), b"2"),
        (signed_headers(a), b"zombie"),
    ]
    assert fold(log) == [b"1", b"2"]


def test_a_log_whose_first_claim_has_expired_belongs_to_its_first_writer() -> None:
    """Retention removes the oldest records, the claim among them."""
    assert fold([(signed_headers(b"a"), b"5"), (signed_headers(b"z"), b"zombie"), (signed_headers(b"a"), b"6")]) == [b"5", b"6"]


def test_an_unsigned_record_is_nobodys() -> None:
    assert fold([(claim_headers(b"a"), b""), ([], b"by hand"), ([("other", b"a")], b"?"), (signed_headers(b"a"), b"1")]) == [b"1"]


@given(st.lists(st.tuples(st.sampled_from([CLAIM, SIGNED]), st.sampled_from([b"a", b"b", b"c"])), max_size=40), st.data())
def test_a_reader_and_an_owner_agree_whatever_is_written_after(log: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """An owner that folded up to its claim, and a later reader of the longer log, have the same of that prefix."""
    records = [([entry], str(n).encode()) for n, entry in enumerate(log)]
    cut = data.draw(st.integers(0, len(records)))
    assert fold(records)[: len(fold(records[:cut]))] == fold(records[:cut])


# -- partitions


@given(st.binary(max_size=64))
def test_keys_land_where_every_kafka_client_puts_them(key: bytes) -> None:
    assert murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF
    assert partition_for(key, 12) == DefaultPartitioner()(key, list(range(12)), list(range(12)))
    assert Partitioner()(key, list(range(12)), []) == partition_for(key, 12)


class Cluster:
    def __init__(self, topics: Sequence[str], partitions: int) -> None:
        self._found = {topic: set(range(partitions)) for topic in topics}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self._found.get(topic)


@pytest.mark.parametrize("seed", range(5))
def test_every_topic_gives_a_partition_number_to_the_same_worker(seed: int, tmp_path: object) -> None:
    """Through joins, leaves and crashes: Faust's assignor co-partitions all topics of one partition count."""
    dice = random.Random(seed)
    topics = [f"{dice.randrange(1 << 30):x}.{n}" for n in range(11)]
    assignors: dict[str, object] = {}
    for round_ in range(12):
        leave = dice.sample(sorted(assignors), dice.randrange(len(assignors))) if len(assignors) > 1 else []
        for name in leave:
            del assignors[name]
        for number in range(dice.randrange(0 if assignors else 1, 4)):
            app = make_app("a", "127.0.0.1:1", tmp_path, 8)
            attach(app, Hop("h", list(topics), lambda _: Plain()))
            assignors[f"member-{round_}-{number}"] = app.assignor
        order = dice.sample(sorted(assignors), len(assignors))
        metadata = {name: assignors[name].metadata(set(topics)) for name in order}
        given_ = assignors[order[0]].assign(Cluster(topics, 8), metadata)
        owners: dict[int, set[str]] = {}
        for name, assignment in given_.items():
            assignors[name].on_assignment(assignment)
            per_topic = {topic: set(numbers) for topic, numbers in assignment.assignment}
            assert len({frozenset(numbers) for numbers in per_topic.values()}) <= 1
            assert per_topic == {} or set(per_topic) == set(topics)
            for topic, numbers in per_topic.items():
                for number in numbers:
                    owners.setdefault((topic, number), set()).add(name)
        assert set(owners) == {(topic, number) for topic in topics for number in range(8)}
        assert all(len(names) == 1 for names in owners.values())


async def test_an_assignment_that_splits_a_hop_is_refused(tmp_path: object, logged_errors: list[str]) -> None:
    """Workers of two versions in one group, or topics of unequal size, would put one state in two places."""
    app = make_app("a", "127.0.0.1:1", tmp_path, 4)
    attach(app, Hop("h", ["x", "y"], lambda _: Plain()))
    with pytest.raises(NotCopartitioned, match="same version"):
        await app.engine.restore({TP("x", 0), TP("x", 1), TP("y", 0)})
    assert len(logged_errors) == 1


async def test_a_state_that_goes_is_told(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever shows something of a partition hears when another worker has it, and when its memory was ahead of the log."""
    monkeypatch.setattr("orderstream.engine.app._PARK_S", 0.01)
    lost: list[tuple[str, int]] = []
    app = make_app("a", "127.0.0.1:1", tmp_path, 4, watch=Watch(lost=lambda hop, partition: lost.append((hop, partition))))
    attach(app, Hop("h", ["x"], lambda _: Plain(), remembers=False))
    await app.engine.restore({TP("x", 0), TP("x", 1), TP("x", 2)})
    assert lost == []
    await app.engine.restore({TP("x", 0), TP("x", 2)})
    assert lost == [("h", 1)]
    never = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    app.engine._lanes["h", 2]._tasks.add(never)
    await app.engine.suspend()
    assert lost == [("h", 1), ("h", 2)]


def test_an_app_names_the_topics_it_needs(tmp_path: object) -> None:
    app = make_app("a", "127.0.0.1:1", tmp_path, 4)
    attach(app, Hop("h", ["x", "y"], lambda _: Plain()))
    attach(app, Hop("f", ["z"], lambda _: Plain(), remembers=False))
    assert app.engine.topics() == {"x": 4, "y": 4, "z": 4, changelog_topic("a", "h"): 4, archive_topic("a", "h"): 4}
    with pytest.raises(ValueError, match="already read by hop h"):
        attach(app, Hop("g", ["x"], lambda _: Plain()))
