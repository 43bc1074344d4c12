"""Serve: the board's web part as a task of `orderstream board`.

Law: the port is taken before anything else is begun, so that a taken one is one sentence at the start; whoever is reading a page when
it ends gets it whole.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from orderstream.board import store
from orderstream.board.web.app import create_app
from orderstream.settings import Settings

GRACE_SECONDS = 3
CONNECTIONS = 30
"""To PostgreSQL, for pages."""


async def run(settings: Settings, place: str, stop: asyncio.Event, listener: socket.socket) -> None:
    """Serves pages and API until `stop` is set. place: PostgreSQL's URL."""
    pool = store.pool(place, CONNECTIONS)
    app = create_app(settings, pool)
    config = uvicorn.Config(
        app,
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Quiet(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        # those who have a page open are let go: the server would wait for them
        await app.state.site.live.end()
        server.should_exit = True
        await serving
    finally:
        waiting.cancel()
        await asyncio.to_thread(pool.close)


class _Quiet(uvicorn.Server):
    """Signals are whoever's who started us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None of ours."""
        yield
