"""The intake process: port, Kafka, signals.

Law: what would make every delivery fail is found before the first one: a taken port, no Kafka, unfit topics, unreadable
secrets are one sentence at the start. SIGTERM stops accepting, finishes what is in flight, flushes and ends with 0.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys

import uvicorn

from orderstream import topics
from orderstream.broker import require
from orderstream.intake.app import create_app
from orderstream.intake.door import Limits, Room
from orderstream.intake.sink import Sink
from orderstream.process import bound
from orderstream.settings import Settings

GRACE_SECONDS = 10
BACKLOG = 1024
"""Connections that may wait to be taken, and that are taken in one turn of the loop."""
SPARE_FILES = 200 + BACKLOG
"""Descriptors that are not senders': Kafka's connections, secrets files, and those just taken in, of whom some are sent away."""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises UserError before it serves."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # it warns once for each request that is none, and anybody may send these
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # sixty lines a second while Kafka is away, and a full pipe behind them would stop us; the sink says it in two
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with bound(settings.intake_host, settings.intake_port) as listener:
        broker = require(settings)
        topics.now(topics.check(broker.address, settings))
        app = create_app(settings, Sink(broker.address, settings))
        host, port = listener.getsockname()[:2]
        room = Room(
            Limits(
                connections=_connections(),
                requests=settings.intake_in_flight,
                # a third of the time after which nobody is told 200 any more: the pace is known a little after it has changed
                answer_seconds=settings.intake_ack_seconds / 3,
            )
        )
        config = uvicorn.Config(
            app,
            # uvloop takes one new connection a turn of its loop: under load the queue of those who connect overflows
            loop="asyncio",
            http=room.protocol(),
            ws="none",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=GRACE_SECONDS,
            backlog=BACKLOG,
        )
        print(f"接收服务 http://{host}:{port}/hooks/… → Kafka {broker.address} · intake is up", flush=True)  # noqa: T201
        # uvicorn raises the signal again when it is done: then it is to end us quietly
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])


def _connections() -> int:
    """How many connections there may be: with what else needs a descriptor, as many as the system lets us have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = Limits().connections + SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(Limits().connections, max(256, soft - SPARE_FILES))
