"""A simulated platform's API on a real loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

START_SECONDS = 10.0


@contextlib.asynccontextmanager
async def served(app: Any, port: int = 0) -> AsyncIterator[str]:
    """An ASGI app's address, `http://127.0.0.1:port`, while it runs in this loop. port: 0 for a free one."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    # Ctrl-C is our caller's to hear
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(START_SECONDS):
        while not server.started:  # noqa: ASYNC110  uvicorn tells nobody
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
