"""Ways to the broker that can be slow, silent, or deaf on one side.

Law: a link is a network, not an error. Cut means that bytes stop, in both directions and without a word, as they do when a
cable is pulled; what was under way arrives when it is mended. Kafka's clients go where the broker tells them to, so each link
is a listener of the broker whose advertised port is the link's.
"""

from __future__ import annotations

import asyncio
import contextlib


class Link:
    """A TCP proxy from `port` to `upstream`, both on loopback."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.upstream = 0
        self.port = 0
        self.delay = 0.0
        """Seconds that every piece of data waits, in each direction."""
        self.held = 0
        """Pieces of data that wait for the link to be mended."""
        self.requests = asyncio.Event()
        self.answers = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._ways: set[asyncio.Task[None]] = set()
        self.mend()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for way in list(self._ways):
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def cut(self) -> None:
        """Silence in both directions."""
        self.requests.clear()
        self.answers.clear()

    def hold_answers(self) -> None:
        """What the client says arrives; what the broker answers waits."""
        self.answers.clear()

    def hold_requests(self) -> None:
        """What the broker has to say arrives; what the client says waits."""
        self.requests.clear()

    def mend(self) -> None:
        self.requests.set()
        self.answers.set()
        self.held = 0
        self.delay = 0.0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._ways.add(task)
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            ends.append(far_writer)
            pumps = [
                asyncio.ensure_future(self._pump(reader, far_writer, self.requests)),
                asyncio.ensure_future(self._pump(far_reader, writer, self.answers)),
            ]
            try:
                # either side's end ends both: a half-open connection is nothing that Kafka's protocol knows
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody there: the client sees its connection close
        finally:
            self._ways.discard(task)
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.held += not gate.is_set()
                await gate.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
