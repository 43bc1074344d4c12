"""Senders who mean no good, and one who does: each is refused with the right word, and the good one notices nothing."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import time
import tracemalloc

import httpx
import pytest
from live import order, request, serving, signed

from orderstream.channels.reading import MAX_BODY
from orderstream.intake.door import Limits
from orderstream.intake.pace import FLOOR
from tests.sink import MemorySink
from tests.waiting import until

HEAD = b"POST /hooks/api/main HTTP/1.1\r\nHost: x\r\n"
QUICK = Limits(head_seconds=0.4, serve_seconds=1.5, linger_seconds=0.4)


def head(**headers: str) -> bytes:
    return HEAD + "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


NO_REQUESTS: list[tuple[bytes, int]] = [
    (b"GET / HTTP/9.9\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"A" * 20_000, 400),
    (b"\r\n" * 20_000, 431),
    (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"CONNECT kafka:9092 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"POST /hooks/api/main HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400),
    (b"GET /" + b"a" * 3_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /" + b"a" * 200_000, 414),
    (HEAD + b"X: " + b"a" * 17_000 + b"\r\n\r\n", 431),
    (HEAD + b"X: " + b"a" * 5_000_000, 431),
    (HEAD + b"a" * 17_000, 431),
    (HEAD + b"X: a\r\n" * 101 + b"\r\n", 431),
    (HEAD + b"X: a\r\n" * 200_000, 431),
    (HEAD + b"Bad Header: a\r\n\r\n", 400),
    (head(Content_Length="x"), 400),
    (head(Content_Length="-1"), 400),
    (head(Content_Length="9" * 40), 400),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}", 400),
    (head(Transfer_Encoding="chunked") + b"zz\r\n", 400),
    (HEAD + b"\r\n", 411),
    (head(Content_Length=str(MAX_BODY + 1)), 413),
    (head(Content_Length="99999999999999"), 413),
    (head(Content_Length="5", Content_Encoding="gzip") + b"\x1f\x8b\x08\x00\x00", 415),
    (head(Content_Length="5", Content_Encoding="br") + b"\x1f\x8b\x08\x00\x00", 415),
    (head(Transfer_Encoding="chunked", Content_Encoding="deflate"), 415),
    (head(Content_Length="5", Content_Encoding="identity", Connection="close") + b"12345", 401),
]


async def test_what_is_no_request_is_refused_with_its_status() -> None:
    """At once, before its end has come, and in words that help nobody who looks around."""
    async with serving() as live, live.good_sender():
        for said, status in NO_REQUESTS:
            began = time.monotonic()
            heard = await live.say(said)
            assert heard.startswith(f"HTTP/1.1 {status} ".encode()), (said[:200], heard)
            assert len(heard.partition(b"\r\n\r\n")[2]) < 30
            assert time.monotonic() - began < 3, "it need not finish to be answered"


async def test_a_body_over_the_limit_is_refused_while_it_comes() -> None:
    """Declared, the head is enough; in chunks, the first byte too many. The sender hears it though he is still sending."""
    async with serving() as live, live.good_sender():
        assert await live.status(head(Content_Length="50000000"), *[b"x" * 65_536] * 60) == 413
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        assert await live.status(head(Transfer_Encoding="chunked"), *[chunk] * 60) == 413
        exact = b"x" * MAX_BODY
        assert await live.status(request(exact)) == 200
        assert live.sink.kept[-1].body in {exact} | {order(f"G{at}") for at in range(999)}


async def test_who_listens_only_after_he_has_said_all_hears_the_answer() -> None:
    """A refused sender that writes thirty megabytes before it reads is not reset: it would take that for a failure of ours."""

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as deaf:
            deaf.sendall(head(Content_Length="30000000") + b"x" * 30_000_000)
            return deaf.recv(100)

    async with serving() as live:
        for _ in range(5):
            assert (await asyncio.to_thread(talk, live.port)).startswith(b"HTTP/1.1 413 ")


async def test_an_answered_sender_does_not_stay() -> None:
    """After its answer one goes on sending for ever, another says nothing more and does not hang up: both are cut off."""
    async with serving(QUICK) as live:
        endless = head(Content_Length="999999999").replace(b"/hooks/api/main", b"/nowhere")
        began = time.monotonic()
        heard = await live.say(endless, *[b"x" * 10_000] * 1_000, pause=0.01)
        assert heard.startswith(b"HTTP/1.1 404 ")
        assert heard.count(b"HTTP/1.1") == 1, "its body is not taken for requests"
        _, silent = await asyncio.open_connection("127.0.0.1", live.port)
        silent.write(head(Content_Length="999999999"))
        await live.emptied()
        assert time.monotonic() - began < 5
        silent.close()


async def test_a_gzip_bomb_is_not_unpacked() -> None:
    """Said to be compressed: 415, unread. Not said: it is bytes like others, kept as they are, and nothing grows."""
    bomb = gzip.compress(b"\0" * 100_000_000)
    async with serving() as live:
        assert await live.status(request(bomb, headers={"Content-Encoding": "gzip"})) == 415
        assert live.sink.kept == []
        tracemalloc.start()
        assert await live.status(request(bomb)) == 200
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000
        assert live.sink.kept[0].body == bomb


async def test_a_slow_head_is_given_up() -> None:
    """Headers drop by drop: 408 when the time for a head is over, however busily it drips. Nothing at all: closed."""
    async with serving(QUICK) as live, live.good_sender():
        began = time.monotonic()
        dripping = [HEAD] + [b"X: a\r\n"] * 40
        answers = await asyncio.gather(*(live.status(*dripping, pause=0.05) for _ in range(50)), live.status(), live.status(b"P"))
        assert answers == [408] * 50 + [0, 408]
        assert time.monotonic() - began < 5


async def test_a_slow_head_on_a_kept_connection_is_given_up_too() -> None:
    """The second request of a connection has no more time than the first."""
    async with serving(QUICK) as live:
        heard = await live.say(request(b"{}", close=False), *[b"POST "] + [b"\r\n"] * 30, pause=0.05)
        assert heard.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 4" in heard


async def test_a_slow_body_is_given_up() -> None:
    """A body that comes drop by drop, or stops half-way: 408. Half a body and then the end: no order, no answer needed."""
    async with serving(QUICK, intake_read_seconds=0.3) as live, live.good_sender():
        slow = [head(Content_Length="1000", **signed(b"")), *[b"x"] * 40]
        answers = await asyncio.gather(*(live.status(*slow, pause=0.05) for _ in range(50)), live.status(*slow[:2]))
        assert answers == [408] * 51
        assert await live.status(slow[0], b"x" * 500, end=True) in {0, 400}
        assert all(raw.body.startswith(b'{"order_id"') for raw in live.sink.kept)


async def test_idle_connections_do_not_keep_anybody_out() -> None:
    """Past the limit of connections the one goes that has kept us waiting longest, silent or half-said, never who is served."""
    limits = Limits(connections=60, head_seconds=30)
    async with serving(limits) as live, live.good_sender():
        silent = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(100)]
        half = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(100)]
        for _, writer in half:
            writer.write(HEAD)
        async with httpx.AsyncClient(trust_env=False) as kept:
            for at in range(5):
                assert (await kept.post(live.url, content=order(f"K{at}"), headers=signed(order(f"K{at}")))).status_code == 200
                more = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(20)]
                silent += more
        await asyncio.sleep(0.1)
        assert len(live.room) <= limits.connections + 2
        for _, writer in silent + half:
            writer.close()


async def test_past_the_limit_of_requests_the_answer_is_503_with_retry_after() -> None:
    """The connection stays good, and when there is room again the same sender is served."""
    sink = MemorySink(hold=asyncio.Event())
    assert sink.hold is not None
    async with serving(Limits(requests=4), sink) as live, httpx.AsyncClient(trust_env=False) as client:
        body = order("A")
        held = [asyncio.create_task(client.post(live.url, content=body, headers=signed(body))) for _ in range(4)]
        async with asyncio.timeout(5):
            while len(live.room.serving) < 4:  # noqa: ASYNC110  a test may look
                await asyncio.sleep(0.01)
        for path in ("healthz", "readyz", "metrics"):
            assert (await client.get(f"http://127.0.0.1:{live.port}/{path}")).status_code == 200, "busy is not dead"
        for _ in range(3):
            refused = await client.post(live.url, content=body, headers=signed(body))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        sink.hold.set()
        assert [(await one).status_code for one in held] == [200] * 4
        assert (await client.post(live.url, content=body, headers=signed(body))).status_code == 200
        assert len(sink.kept) == 5
        assert live.room.idle
        assert live.room.held == 0, "what is answered is let go, though the connection stays"


async def test_slow_bodies_do_not_use_up_the_requests() -> None:
    """Where as many are under way as may be, the body that has kept us waiting longest goes, and who sends at once is served."""
    async with serving(Limits(requests=10), intake_read_seconds=20) as live, live.good_sender():
        slow = [head(Content_Length="1000", **signed(b"")), b"x"]
        senders = []
        for _ in range(40):
            senders.append(asyncio.create_task(live.status(*slow)))
            await asyncio.sleep(0.01)
        await asyncio.wait(senders, timeout=1)
        left = [one for one in senders if not one.done()]
        assert 0 < len(left) <= 10
        assert {one.result() for one in senders if one not in left} == {503}
        for one in left:
            one.cancel()


async def test_more_than_are_answered_in_time_are_refused_at_once() -> None:
    """Four hundred at one moment, of which a hundred are answered in a second: so many are taken, all others hear 503 while
    these still wait. What was answered since says how many the next may be.
    """
    sink = MemorySink(hold=asyncio.Event())
    assert sink.hold is not None
    async with serving(sink=sink) as live:
        pace = live.room.pace
        for _ in range(300):
            pace.answered(1, 0.01)
        assert pace.limit == 100
        senders = [asyncio.create_task(live.status(request(order(f"B{at}")))) for at in range(400)]
        await until(lambda: sum(one.done() for one in senders) >= 300, "three hundred are refused")
        assert [one.result() for one in senders if one.done()] == [503] * 300
        assert len(live.room.taken) == 100
        sink.hold.set()
        assert sorted(await asyncio.gather(*senders)) == [200] * 100 + [503] * 300
        assert len(sink.kept) == 100
        assert pace.limit != 100, "it has learnt"
        await live.emptied()
        assert not live.room.taken
        assert await live.status(request(order("after"))) == 200


async def test_who_is_turned_away_keeps_his_connection_if_he_sends_his_body() -> None:
    """Head and body in two pieces, as many clients send them: 503, and the next delivery on the same connection is taken. A
    head without its body: 503 all the same, and closed.
    """
    sink = MemorySink(hold=asyncio.Event())
    assert sink.hold is not None
    async with serving(Limits(requests=1), sink) as live:
        first = asyncio.create_task(live.status(request(order("A"))))
        await until(lambda: live.room.taken, "the one that may be is under way")
        body = order("B")
        said = request(body, close=False).removesuffix(body)
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(said)
        await until(lambda: live.room.reading, "its head is here")
        writer.write(body)
        heard = await reader.readuntil(b"try again\n")
        assert heard.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2\r\n" in heard
        assert b"connection: close" not in heard
        heard = await live.say(said)
        assert heard.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in heard
        sink.hold.set()
        assert await first == 200
        writer.write(request(body))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_slow_sender_says_nothing_of_our_pace() -> None:
    """Bodies that take their time are the senders' time, and no reason to take fewer."""
    async with serving(Limits(answer_seconds=0.5), intake_read_seconds=0.8) as live:
        before = live.room.pace.limit
        slow = [head(Content_Length="1000", **signed(b"")), *[b"x"] * 40]
        assert await asyncio.gather(*(live.status(*slow, pause=0.05) for _ in range(20))) == [408] * 20
        assert live.room.pace.limit == before
        said = request(order("in two parts, and whole"))
        assert await live.status(said[:-5], said[-5:], pause=0.6) == 200
        # counted from its first byte, this one alone would have brought the bound to its floor
        assert FLOOR < live.room.pace.limit != before


async def test_held_bodies_are_bounded_and_the_slowest_goes() -> None:
    """Two hundred senders of a megabyte that never ends: memory stays at the limit, and the good sender is served all along."""
    limits = Limits(held=8 * MAX_BODY)
    async with serving(limits, intake_read_seconds=3) as live, live.good_sender():
        half = b"x" * (MAX_BODY - 10)
        gc.collect()
        tracemalloc.start()
        writers = []
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(head(Content_Length=str(MAX_BODY), **signed(b"")) + half)
            writers.append(writer)
            assert live.room.held <= limits.held
            await asyncio.sleep(0.01)
        # the writers' own buffers are in this process too: a megabyte each that the server has not read
        held = [sum(len(part) for raw in (door.cycle.body,) for part in (raw,)) for door in live.room.reading]
        assert sum(held) <= limits.held
        tracemalloc.stop()
        for writer in writers:
            writer.transport.abort()
    assert live.room.held == 0


async def test_trailers_and_chunk_extensions_are_bounded() -> None:
    """What stands around a body's bytes is not a way to send more than its limit."""
    chunked = head(Transfer_Encoding="chunked", **signed(b""))
    async with serving(QUICK, intake_read_seconds=60) as live:
        assert await live.status(chunked + b"1\r\nx\r\n0\r\n", b"X: " + b"a" * 400_000) == 431
        assert await live.status(chunked + b"1\r\nx\r\n0\r\n", b"X: a\r\n" * 40_000) == 431
        assert await live.status(chunked + b"1;" + b"e" * 400_000) == 431
        await live.emptied(2)
        assert live.room.held == 0


async def test_who_is_refused_in_his_body_is_answered_once(caplog: pytest.LogCaptureFixture) -> None:
    """The service that was reading it learns that the sender has gone: it has nothing more to say, and nothing to fail at."""
    async with serving(intake_read_seconds=0.2) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(head(Transfer_Encoding="chunked", **signed(b"")) + b"1\r\nx\r\n0\r\n")
        async with asyncio.timeout(5):
            while not live.room.reading:  # noqa: ASYNC110  a test may look
                await asyncio.sleep(0)
        writer.write(b"X: " + b"a" * 400_000)
        heard = await reader.read()
        assert heard.startswith(b"HTTP/1.1 431 ")
        assert heard.count(b"HTTP/1.1") == 1
        await asyncio.sleep(0.5)  # past the time for a body
        writer.close()
        await live.emptied()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_pipelined_requests_are_bounded() -> None:
    """Eight wait behind the first; a sender of thousands in one breath is cut off, and what was taken is taken."""
    async with serving() as live:
        few = request(b"{}", close=False) * 8 + request(b"{}")
        assert (await live.say(few)).count(b"HTTP/1.1 200") == 9
        await live.say(request(b"{}", close=False) * 3_000)
        assert len(live.sink.kept) < 30
        assert len(live.room) == 0


async def test_who_does_not_read_is_cut_off() -> None:
    """A sender that asks and never reads its answers holds a connection for a bounded time."""
    async with serving(QUICK) as live:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", live.port))
        deaf.setblocking(False)
        async with asyncio.timeout(20):
            asked = 0
            while not any(door.flow.write_paused for door in live.room.serving):
                if live.server.server_state.total_requests == asked:
                    asked += 1
                    deaf.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                await asyncio.sleep(0)
        await live.emptied()
        deaf.close()


async def test_readiness_is_asked_once_for_all() -> None:
    """A flood of /readyz costs Kafka one question a second, not one each."""
    asked = 0

    class Counting(MemorySink):
        async def ready(self) -> bool:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.05)
            return True

    async with serving(sink=Counting()) as live, httpx.AsyncClient(trust_env=False) as client:
        answers = await asyncio.gather(*(client.get(f"http://127.0.0.1:{live.port}/readyz") for _ in range(50)))
        assert {one.status_code for one in answers} == {200}
    assert asked == 1


def test_the_room_forgets_who_left() -> None:
    """Nobody stays in any place, and no timer keeps running, once all have gone."""

    async def day() -> None:
        async with serving(QUICK) as live:
            alive = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            sent = [*[request(b"{}"), alive] * 10, request(b"{}", headers={"Content-Length": "5"}), b"\xff"]
            await asyncio.gather(*(live.say(one) for one in sent), live.say(b"G", end=True))
            await live.emptied()
            async with asyncio.timeout(2):
                while live.room._sweeping:  # noqa: ASYNC110  a test may look
                    await asyncio.sleep(0.05)
            assert live.room.held == 0
            assert not live.room.taken

    asyncio.run(day())
