"""The door: what a connection may cost us before and while it says something worth hearing.

Law: whoever keeps us waiting is bounded in time, bytes and number, and when there is no more room the one that has kept us
waiting longest goes first. Reason: a stranger can open connections, send headers drop by drop or a body without an end at no
cost to himself, and none of it may cost the platform that sends a whole request at once so much as an answer.

uvicorn's own protocol has a time-out between requests and none within one, no bound on headers, pipelined requests or held
bodies, and refuses everybody when too many connections are open. `Door` is that protocol with these bounds; `Room` is what
all doors of a process share. A connection is always in one of five places:

    waiting   it owes us a request's head            408 after head_seconds
    reading   it owes us the rest of the body        408 by `app`; cut after serve_seconds
    serving   we owe it an answer                    cut after serve_seconds: it does not read what we say
    idle      between two requests                   closed by uvicorn after its keep-alive time
    leaving   answered, still sending                cut after linger_seconds: closed at once it would not hear the answer
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
import msgspec
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from orderstream.intake import answers, metrics
from orderstream.intake.pace import Pace

SWEEP_SECONDS = 0.25
BODY_SECONDS = 0.25
"""How long one that is to be turned away may take for the body behind its head: answered before, he would have to connect anew."""


class Limits(msgspec.Struct, frozen=True):
    """connections, requests: open at once, and being answered at once. head, target: bytes; fields: headers of a request.

    held: bytes of bodies in all requests under way. pipelined: requests behind the one that is being answered.
    answer_seconds: how long we may take to answer a delivery that is here; more than we answer in that time are not taken (`pace`).
    """

    connections: int = 4096
    requests: int = 1000
    held: int = 64 * 1_048_576
    head: int = 16_384
    target: int = 2_048
    fields: int = 100
    pipelined: int = 8
    head_seconds: float = 10.0
    serve_seconds: float = 20.0
    linger_seconds: float = 2.0
    answer_seconds: float = 1.0


class Refusal(Exception):  # noqa: N818  named for what is so
    """What a sender does is against a limit; status says which."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


_OUTCOME = {400: "bad", 408: "timeout", 413: "too-large", 414: "too-large", 431: "too-large", 503: "busy"}

Place = dict["Door", float]
"""Connections, by the loop's time since which they are there; the one longest there comes first."""


class Room:
    """All connections of a process, by place."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: Place = {}
        self.reading: Place = {}
        self.serving: Place = {}
        self.idle: Place = {}
        self.leaving: Place = {}
        self.held = 0
        self.taken: dict[RequestResponseCycle, tuple[float, int]] = {}
        """Deliveries that are here whole and under way: since when (the loop's time), and as which of how many."""
        self.pace = Pace(limits.requests, limits.answer_seconds)
        self._sweeping: asyncio.TimerHandle | None = None

    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn is to make for each connection (its `http` option)."""
        return cast("type[asyncio.Protocol]", partial(Door, room=self))

    def __len__(self) -> int:
        return sum(map(len, (self.waiting, self.reading, self.serving, self.idle, self.leaving)))

    def came(self, door: Door) -> None:
        """Takes a connection in, at the cost of one that has less claim on us where there is no room."""
        door.go(self.waiting)
        if self._sweeping is None:
            self._sweeping = door.loop.call_later(SWEEP_SECONDS, self._sweep, door.loop)
        if len(self) > self.limits.connections:
            for place in (self.leaving, self.waiting, self.idle, self.reading):
                victim = next(iter(place)) if place else door
                if victim is not door:
                    break
            victim.evict()

    def hold(self, count: int) -> None:
        """Bytes of bodies more (or, negative, less) in memory; over the limit, the slowest sender of a body is sent away."""
        self.held += count
        while self.held > self.limits.held and self.reading:
            next(iter(self.reading)).refuse(503)

    def take(self, cycle: RequestResponseCycle, now: float) -> None:
        """A delivery is here whole, and now it is on us."""
        self.taken[cycle] = (now, len(self.taken) + 1)

    def answered(self, cycle: RequestResponseCycle, status: int, now: float) -> None:
        """What this answer says of our pace: one that did not go into Kafka says something only where it came late."""
        since, among = self.taken.get(cycle, (now, 0))
        if among and (status == 200 or self.pace.late(now - since)):
            self.pace.answered(among, now - since)
            metrics.LIMIT.set(self.pace.limit)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        rules: tuple[tuple[Place, float, Callable[[Door], None]], ...] = (
            (self.waiting, self.limits.head_seconds, Door.late),
            (self.reading, self.limits.serve_seconds, Door.cut),
            (self.serving, self.limits.serve_seconds, Door.cut),
            (self.leaving, self.limits.linger_seconds, Door.cut),
        )
        for place, seconds, end in rules:
            over = []
            for door, since in place.items():
                if since > now - seconds:
                    break
                over.append(door)
            for door in over:
                end(door)
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if len(self) else None


class Curtain:
    """A request's transport that does not close on a sender who is still talking: he leaves, and hears the answer first."""

    __slots__ = ("_door", "is_closing", "write")

    def __init__(self, door: Door) -> None:
        self._door = door
        self.write = door.transport.write
        self.is_closing = door.transport.is_closing

    def close(self) -> None:
        """What uvicorn calls behind an answer that ends the connection."""
        if self._door.cycle.more_body:
            self._door.leave()
        else:
            self._door.transport.close()


class Door(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, room: Room, **more: Any) -> None:
        super().__init__(*args, **more)
        self._room = room
        self._limits = room.limits
        self._place: Place | None = None
        self._left = False
        self._held = 0
        self._said = False
        self._quiet = 0
        """Bytes since the parser last had something whole: of a head, of trailers, of a chunk's extensions."""
        self._head = 0
        self._fields = 0
        self._begun: RequestResponseCycle | None = None
        """The delivery that `app` was given last."""
        self._unwanted: RequestResponseCycle | None = None
        """The delivery that is to be turned away as soon as it is here."""

    # -- places ------------------------------------------------------------------------------------------------------

    def go(self, place: Place | None) -> None:
        """Moves to the end of a place; None: out of the room."""
        if self._place is not None:
            self._place.pop(self, None)
        self._place = place
        if place is not None:
            place[self] = self.loop.time()

    def refuse(self, status: int) -> None:
        """Answers a request that is not whole, and ends with it; closes only, where that would answer another one."""
        if self._left or self.transport.is_closing():
            return
        metrics.REQUESTS.labels("-", "-", _OUTCOME[status]).inc()
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and (self.pipeline or self.cycle.response_started or not self.cycle.more_body):
            self.cut()
            return
        if answering:
            # `app` is reading this body: to it the sender has gone
            self.cycle.disconnected = True
            self.cycle.body = bytearray()
            self.cycle.message_event.set()
        self.transport.write(answers.last(status))
        self.leave()

    def evict(self) -> None:
        """Makes room at once; who has begun a request learns that he may come again."""
        if self._said and self._place is self._room.waiting:
            self.transport.write(answers.last(503))
        metrics.REQUESTS.labels("-", "-", "busy").inc()
        self.go(None)
        self._left = True
        self.transport.close()

    def late(self) -> None:
        """The head has not come in time; who has sent nothing at all is told nothing."""
        if self._said:
            self.refuse(408)
        else:
            self.cut()

    def leave(self) -> None:
        """Says that nothing more will be said, and hears out the sender for a moment."""
        if self._left:
            return
        self._left = True
        self._release()
        self.pipeline.clear()
        self.go(self._room.leaving)
        self.flow.resume_reading()
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError, NotImplementedError):
            self.cut()

    def cut(self) -> None:
        """Ends the connection now, whatever is still to be sent on it."""
        self._left = True
        self.go(None)
        self.transport.abort()

    def _release(self) -> None:
        self._room.hold(-self._held)
        self._held = 0

    # -- what the transport says -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._room.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = True
        self.go(None)
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._left:
            return
        self._unset_keepalive_if_required()
        self._said = True
        if self._place is self._room.idle:
            self.go(self._room.waiting)
        self._quiet += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause.status if isinstance(cause, Refusal) else 400)
            return
        if self._quiet > self._limits.head:
            self.refuse(431)
        elif self._unwanted is not None:
            if self._unwanted.more_body:
                self.loop.call_later(BODY_SECONDS, self._turn_away, self._unwanted)
            else:
                self._turn_away(self._unwanted)

    def timeout_keep_alive_handler(self) -> None:
        # not close(): what the other side never reads would keep the connection for ever
        self.cut()

    # -- what the parser says ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._fields = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.target:
            raise Refusal(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        # trailers come here too
        self._head += len(name) + len(value)
        self._fields += 1
        if self._head > self._limits.head or self._fields > self._limits.fields:
            raise Refusal(431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._quiet = 0
        if self.parser.should_upgrade() or len(self.pipeline) >= self._limits.pipelined:
            raise Refusal(400)
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", Curtain(self))
        if self._place is self._room.waiting:
            self.go(self._room.reading)

    def on_body(self, body: bytes) -> None:
        self._quiet = 0
        if self._left or self.cycle.response_complete:
            return
        super().on_body(body)
        self._held += len(body)
        self._room.hold(len(body))

    def on_message_complete(self) -> None:
        self._quiet = 0
        super().on_message_complete()
        if self._place is self._room.reading:
            self.go(self._room.serving)
            if self.cycle is self._begun:
                self._room.take(self.cycle, self.loop.time())

    # -- what uvicorn says -------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # who asks whether we live is always answered: a supervisor would end us for being busy
        if cycle.scope["method"] != "POST":
            super()._start_asgi_task(cycle, app)
            return
        room = self._room
        full = len(self.tasks) >= self._limits.requests
        if full and room.reading:
            next(iter(room.reading)).refuse(503)
            full = False
        if full or len(room.taken) >= room.pace.limit:
            if cycle.more_body:
                # the body is most often right behind the head: once it is here the connection can stay
                self._unwanted = cycle
            else:
                self._turn_away(cycle)
            return

        async def begin(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            async def measured(message: Any) -> None:
                if message["type"] == "http.response.start":
                    room.answered(cycle, message["status"], self.loop.time())
                await send(message)

            try:
                await app(scope, receive, measured)
            finally:
                room.taken.pop(cycle, None)

        self._begun = cycle
        if not cycle.more_body:
            room.take(cycle, self.loop.time())
        super()._start_asgi_task(cycle, begin)

    def _turn_away(self, cycle: RequestResponseCycle) -> None:
        """Answers 503 here and now. No task and no `app`: this must cost a tenth of a delivery, there may be ten times as many."""
        if self._left or cycle.response_complete or self.transport.is_closing():
            return
        self._unwanted = None
        metrics.BUSY.inc()
        stays = cycle.keep_alive and not cycle.more_body
        self.transport.write(_BUSY if stays else answers.last(503))
        cycle.response_started = cycle.response_complete = True
        if not stays:
            cycle.transport.close()
        cycle.on_response()

    def on_response_complete(self) -> None:
        if not self._left and self.cycle.more_body and not self.pipeline:
            # answered before the body was here: what follows is not to be read, nor taken for a request
            self.leave()
        if self._left:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self.cycle.response_complete:
            self._release()
            self.go(self._room.idle)
        else:
            self.go(self._room.serving)


_BUSY = answers.whole(503)
