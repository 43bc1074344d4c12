"""The engine's promises, with real workers on a real broker: killed, paused, joined by others, sent what they cannot take."""

import asyncio
import json
import random
import signal

import pytest
from aiokafka import AIOKafkaProducer
from engine_bench import Bench, contradictions

from orderstream.engine import TopicsUnfit, check_topics
from orderstream.engine.changelog import Reader, claim_headers, signed_headers
from tests.waiting import until

pytestmark = pytest.mark.stream


async def test_workers_killed_at_random_lose_nothing_and_contradict_nothing(bench: Bench) -> None:
    """Two workers, one and then both killed amid the load: every id comes out, with the one number that the changelog gives it."""
    config = await bench.standard(slow_ms=3, poll=20, session_s=3.0)
    workers = [bench.worker(config), bench.worker(config)]
    for worker in workers:
        await worker.holds(2)
    ids = [f"id{n}" for n in range(3000)]
    dice = random.Random(7)

    async def load() -> None:
        for start in range(0, len(ids), 20):
            await bench.send(bench.name("raw"), ids[start : start + 20])
            await asyncio.sleep(0.1)

    loading = asyncio.create_task(load())
    for victims in ([0], [0, 1]):
        for worker in workers:
            await worker.holds(2)
        await asyncio.sleep(dice.uniform(0.2, 0.8))
        for victim in victims:
            workers[victim].signal(signal.SIGKILL)
            await workers[victim].ended()
            workers[victim] = bench.worker(config)
    await loading
    published = await bench.all_published(set(ids), 40)

    assert contradictions(published) == []
    assert {told["id"] for told in published} == set(ids)
    logged = [tuple(entry) for record in await bench.read(bench.changelog) if record.value for entry in json.loads(record.value)]
    assert len({name for name, _ in logged}) == len(ids)


async def test_a_worker_that_comes_or_goes_in_order_repeats_nothing(bench: Bench) -> None:
    """A rebalance finishes and commits what is under way, so each id is published exactly once, and kept states are kept."""
    config = await bench.standard(slow_ms=2, poll=20)
    first = bench.worker(config)
    await first.holds(4)
    ids = [f"id{n}" for n in range(2000)]

    async def load() -> None:
        for start in range(0, len(ids), 20):
            await bench.send(bench.name("raw"), ids[start : start + 20])
            await asyncio.sleep(0.04)

    loading = asyncio.create_task(load())
    second = bench.worker(config)
    await second.holds(2)
    await first.holds(2)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0, first.text()
    await second.holds(4)
    await loading
    published = await bench.all_published(set(ids))

    assert contradictions(published) == []
    assert len(published) == len(ids)
    assert len([told for told in first.events("recovered") if told["records"]]) == 0


async def test_a_worker_that_was_away_too_long_is_not_listened_to(bench: Bench) -> None:
    """Paused beyond its session and woken: what it still writes is ignored, and it publishes nothing of it."""
    config = await bench.standard(slow_ms=5, poll=20, session_s=3.0)
    sleeper = bench.worker(config)
    await sleeper.holds(4)
    ids = [f"id{n}" for n in range(1500)]
    await bench.send(bench.name("raw"), ids[:1000])
    await until(bench.published, "the first output", 10)
    sleeper.signal(signal.SIGSTOP)
    heir = bench.worker(config)
    await heir.holds(4)
    await bench.send(bench.name("raw"), ids[1000:])
    await until(lambda: heir.events("recovered"), "the heir has recovered", 10)
    sleeper.signal(signal.SIGCONT)
    found: list[dict] = []

    async def complete() -> bool:
        nonlocal found
        found = await bench.published()
        assert heir.code is None, heir.text()
        return set(ids) <= {told["id"] for told in found}

    await until(complete, "all published", 30)
    assert contradictions(found) == []


@pytest.mark.parametrize(("poison", "why"), [("raise", "a bug in the toy"), ("huge", "MessageSizeTooLarge")])
async def test_what_cannot_be_done_stops_the_worker_and_stays_unacknowledged(bench: Bench, poison: str, why: str) -> None:
    """A state that raises, or a send that the broker refuses: a non-zero exit, and the input is there for the next one."""
    await bench.topics(bench.name("in"), bench.changelog, bench.archive)
    await bench.topics(bench.name("out"), **{"max.message.bytes": "50000"})
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out"), poll=1))
    await worker.holds(4)
    await bench.send(bench.name("in"), ["a", "b", poison, "c", "d"], partition=1)

    assert await worker.ended() == 1
    assert why in worker.text()
    assert (await bench.committed(bench.name("in"))).get(1, 0) <= 2
    # batches overlap, so what came after a refused send may be out already; nothing comes after a state that raised
    assert {told["id"] for told in await bench.published()} <= ({"a", "b"} if poison == "raise" else {"a", "b", "c", "d"})


async def test_what_the_broker_has_not_acknowledged_holds_back_the_commit(bench: Bench) -> None:
    """Faust's flush before a commit gives up after 0.1 s, and commits. Here the inputs of outputs that the broker does not take
    (their topic is not there) stay uncommitted while another hop's commits go on; once it takes them, everything is there once.
    """
    config = await bench.standard(poll=20, without="out")
    worker = bench.worker(config)
    await worker.holds(4)
    ids = [f"id{n}" for n in range(200)]
    await bench.send(bench.name("raw"), ids)
    await until(lambda: bench.committed_is(bench.name("raw"), 200), "the relay's commit", 20)
    await until(lambda: bench.logged(set(ids)), "the book has processed and logged all", 20)
    # two more rounds of the commit loop, seen by the relay's own commits
    await bench.send(bench.name("raw"), ids[:4])
    await until(lambda: bench.committed_is(bench.name("raw"), 204), "the relay's next commit", 20)

    assert await bench.committed(bench.name("mid")) == {}

    await bench.topics(bench.name("out"))
    published = await bench.all_published(set(ids))
    await until(lambda: bench.committed_is(bench.name("mid"), 204), "the book's commit", 20)
    assert contradictions(published) == []
    assert len(published) == 204


async def test_a_send_that_stays_refused_stops_the_worker_and_the_next_one_repeats_it(bench: Bench) -> None:
    """Faust logs a failed send and goes on. Here the worker ends with 1, nothing of it committed, and its heir says it all."""
    config = await bench.standard(request_s=2.0, without="out")
    worker = bench.worker(config)
    await worker.holds(4)
    ids = [f"id{n}" for n in range(40)]
    await bench.send(bench.name("raw"), ids)

    assert await worker.ended(40) == 1
    assert worker.events("send_failed"), worker.text()
    assert await bench.committed(bench.name("mid")) == {}
    await bench.topics(bench.name("out"))
    bench.workers.remove(worker)
    bench.worker(config)
    published = await bench.all_published(set(ids), 40)
    assert contradictions(published) == []


async def test_a_rebalance_amid_what_is_not_acknowledged_drops_nothing(bench: Bench) -> None:
    """Faust forgets acknowledgements at a rebalance. Here partitions change hands twice while the broker takes no output: what
    was under way is given up after a few seconds, read again by whoever holds it, and said with the numbers of the log.
    """
    config = await bench.standard(poll=20, without="out")
    first = bench.worker(config)
    await first.holds(4)
    ids = [f"id{n}" for n in range(300)]
    await bench.send(bench.name("raw"), ids)
    await until(lambda: bench.logged(set(ids)), "all is processed and logged", 20)
    second = bench.worker(config)
    await second.holds(2)
    await first.holds(2)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0, second.text()
    await first.holds(4)
    assert await bench.committed(bench.name("mid")) == {}

    await bench.topics(bench.name("out"))
    published = await bench.all_published(set(ids), 40)
    assert contradictions(published) == []
    assert await bench.numbered() == len(ids)


async def test_bytes_that_are_no_message_reach_the_state(bench: Bench) -> None:
    """A value that Faust cannot decode kills its agent in silence, and the partition stands still. Here it is the state's to judge."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out")))
    await worker.holds(4)
    strange: list[bytes | None] = [b"\xff\xfe{", b"{", b'"', b"\x00" * 9, None, b'{"__faust": {"ns": "no.such.Record"}}']
    for value in strange:
        await bench.producer.send_and_wait(bench.name("in"), value, key=b"\xff", partition=1, headers=[("\x00", b"\xff")])
    await bench.send(bench.name("in"), ["after"], partition=1)

    names = {(value or b"").decode(errors="backslashreplace") for value in strange}
    published = await bench.all_published(names | {"after"})
    assert contradictions(published) == []


async def test_holes_in_the_offsets_do_not_hold_back_the_commit(bench: Bench) -> None:
    """Transaction markers and removed records are offsets that never come: the commit is past them at once."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    producer = AIOKafkaProducer(bootstrap_servers=bench.brokers, transactional_id=bench.prefix)
    await producer.start()
    for number in range(30):
        async with producer.transaction():
            await producer.send(bench.name("in"), f"id{number}".encode(), partition=0)
    await producer.stop()
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out")))
    await worker.holds(4)
    await bench.all_published({f"id{n}" for n in range(30)})

    async def committed() -> bool:
        return (await bench.committed(bench.name("in"))).get(0) == 59

    await until(committed, "the commit behind the last record", 5)


async def test_a_hundred_thousand_entries_come_back(bench: Bench) -> None:
    """A new worker folds what the last owner signed, and nothing that a displaced one wrote after it."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    blobs = [json.dumps([[f"id{400 * r + n}", 400 * r + n] for n in range(400)]) for r in range(250)]
    await bench.send(bench.changelog, [""], partition=2, headers=claim_headers(b"old"))
    await bench.send(bench.changelog, blobs[:100], partition=2, headers=signed_headers(b"old"))
    await bench.send(bench.changelog, [""], partition=2, headers=claim_headers(b"new"))
    await bench.send(bench.changelog, blobs[100:], partition=2, headers=signed_headers(b"new"))
    await bench.send(bench.changelog, [json.dumps([["late", 7]])], partition=2, headers=signed_headers(b"old"))
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out")))
    await worker.holds(4)
    await bench.send(bench.name("in"), ["id4711", "late"], partition=2)

    published = await bench.all_published({"id4711", "late"})
    assert {told["id"]: told["n"] for told in published} == {"id4711": 4711, "late": 100_000}
    recovered = {told["partition"]: told for told in worker.events("recovered")}
    assert recovered[2]["records"] == 250
    assert recovered[2]["seconds"] < 5


async def test_claims_are_found_up_to_the_end_of_the_log(bench: Bench) -> None:
    """Between two offsets, or from one to wherever the log ends."""
    await bench.topics(bench.changelog)
    await bench.send(bench.changelog, ["", "[]"], partition=1, headers=claim_headers(b"first"))
    await bench.send(bench.changelog, [""], partition=1, headers=claim_headers(b"last"))
    reader = Reader(bench.brokers)
    assert await reader.claims_between(bench.changelog, 1, 0, 1) == [b"first"]
    assert await reader.claims_between(bench.changelog, 1, 1, None) == [b"first", b"last"]
    assert await reader.claims_between(bench.changelog, 1, 3, None) == []


async def test_a_memory_that_cannot_be_read_stops_the_worker_before_its_first_record(bench: Bench) -> None:
    """Going on with half a memory would number anew; Faust's own recovery logs this and goes on."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    await bench.send(bench.changelog, ["", "not json"], partition=1, headers=signed_headers(b"old"))
    await bench.send(bench.name("in"), ["a", "b", "c", "d"])
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out")))
    assert await worker.ended() == 1, worker.text()
    assert "JSONDecodeError" in worker.text()
    assert await bench.published() == []
    assert await bench.committed(bench.name("in")) == {}


async def test_a_worker_that_cannot_stop_in_order_still_ends(bench: Bench) -> None:
    """Faust waits for a broker that is gone, whatever cancels it."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    worker = bench.worker(bench.config(book=[bench.name("in")], out=bench.name("out"), hang=True, stop_s=1.0))
    await worker.holds(4)
    worker.signal(signal.SIGTERM)
    assert await worker.ended(10) == 0
    assert "did not stop in time" in worker.text()


async def test_idle_is_called_when_all_is_read(bench: Bench) -> None:
    config = await bench.standard(idle=bench.name("idle"))
    worker = bench.worker(config)
    await worker.holds(4)
    await bench.send(bench.name("raw"), [f"id{n}" for n in range(400)])

    async def told() -> bool:
        last: dict[int, int] = {}
        for record in await bench.read(bench.name("idle")):
            partition, count = json.loads(record.value)
            last[partition] = count
        return sum(last.values()) == 400

    await until(told, "every partition idle with all of its ids", 15)


async def test_a_reference_is_read_before_the_first_record_and_followed(bench: Bench) -> None:
    """Every worker has all of it: a rule pack published an hour ago applies to the first order, one published now soon."""
    await bench.topics(bench.name("in"), bench.name("out"), bench.changelog, bench.archive)
    await bench.topics(bench.name("packs"), **{"cleanup.policy": "compact"})
    keyed = [await bench.producer.send(bench.name("packs"), b"pack%d" % n, key=b"k%d" % n) for n in range(50)]
    await asyncio.gather(*keyed)
    await bench.send(bench.name("in"), ["a"])
    worker = bench.worker(
        bench.config(book=[bench.name("in")], out=bench.name("out"), reference=bench.name("packs"), batches=True)
    )
    await until(lambda: worker.events("batch"), "the first batch", 15)
    before = worker.text().split('"event": "batch"')[0]
    assert before.count('"event": "reference"') == 50

    await bench.producer.send_and_wait(bench.name("packs"), b"later", key=b"k0")
    await until(lambda: worker.events("reference")[-1]["value"] == "later", "the later pack", 10)


async def test_unfit_topics_are_named_at_the_start(bench: Bench) -> None:
    """One error that names them all, before anything is joined or read."""
    await bench.topics(bench.name("in"), partitions=2)
    with pytest.raises(TopicsUnfit, match="orderstream topics apply") as unfit:
        await check_topics(bench.brokers, {bench.name("in"): 4, bench.name("nowhere"): 4, bench.name("gone"): None})
    assert f"{bench.name('in')} has 2 partitions, not 4" in str(unfit.value)
    assert f"{bench.name('nowhere')} is missing" in str(unfit.value)
    assert f"{bench.name('gone')} is missing" in str(unfit.value)
    with pytest.raises(TopicsUnfit, match="ORDERSTREAM_PARTITIONS") as wrong:
        await check_topics(bench.brokers, {bench.name("in"): 4})
    assert "topics apply" not in str(wrong.value)  # it would refuse, too
    await check_topics(bench.brokers, {bench.name("in"): 2})
