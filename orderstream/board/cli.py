"""`orderstream board`: everything that the board does, in one process; and what `orderstream audit` asks.

Law: reading Kafka, saying decisions, watching deadlines and serving pages are tasks side by side. One that meets PostgreSQL or Kafka
away waits and says so; one that meets a bug ends the process, which is started again and repeats what was not finished.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from orderstream import times
from orderstream.board import articles, audit, consume, deadlines, outbox, rejects, retention, store
from orderstream.board.agreed import clock, limits, terms
from orderstream.board.consume import pause
from orderstream.board.metrics import BoardMetrics
from orderstream.errors import BadFile, NoBroker, NoDatabase, PortTaken, RunFailed, UserError
from orderstream.kafka import calm
from orderstream.metrics import Metrics
from orderstream.process import bound, shown, told_to_end
from orderstream.settings import Settings

log = logging.getLogger("orderstream.board")


def run(settings: Settings, brokers: str) -> None:
    """Runs the board until SIGTERM or Ctrl-C. Raises NoDatabase, PortTaken, TopicsUnfit, UserError."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    calm()
    place = store.url(settings)
    for name in store.migrate(place):
        log.info("migrated %s", name)
    asyncio.run(_run(settings.model_copy(update={"brokers": brokers}), place))


async def _run(settings: Settings, place: str) -> None:
    from orderstream.board.web import serve as web  # noqa: PLC0415  late: its pages are many

    stop = told_to_end()
    listener = bound(settings.board_host, settings.board_port)
    metrics = Metrics()
    own = BoardMetrics(metrics.registry)
    try:
        served = shown(metrics, settings)
    except PortTaken:
        listener.close()
        raise
    host, port = listener.getsockname()[:2]
    print(f"看板就绪 · the board is at {settings.public_url or f'http://{host}:{port}'}", flush=True)  # noqa: T201  whoever started us waits for it
    work = [
        asyncio.create_task(consume.run(settings, place, stop, own, limits(settings))),
        asyncio.create_task(outbox.run(settings, place, stop, own)),
        asyncio.create_task(tick(settings, place, stop, own)),
        asyncio.create_task(web.run(settings, place, stop, listener)),
    ]
    try:
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # what ended first says why; the others end in order
        stop.set()
        ended = await asyncio.gather(*work, return_exceptions=True)
        served.close()
    for result in ended:
        if isinstance(result, BaseException):
            raise result


async def tick(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics, seconds: float = 1.0) -> None:
    """Deadlines, mappings, replays and what waits, every second until `stop` is set."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(_watch, settings, place, stop, metrics, seconds)
        except NoDatabase as error:
            log.warning("deadlines wait for PostgreSQL: %s", error.sentence)
        except NoBroker as error:
            log.warning("mappings and replays wait for Kafka: %s", error.sentence)
        await pause(stop, seconds)


def _watch(settings: Settings, place: str, stop: asyncio.Event, metrics: BoardMetrics, seconds: float) -> None:
    kept_at = 0
    with store.answering(), store.connect(place) as db:
        while not stop.is_set():
            if store.now() - kept_at >= times.MINUTE:
                kept_at = store.now()
                retention.drop_old(db, settings.board_keep_days * times.DAY, kept_at)
            deadlines.escalate(db, clock(settings), terms(settings), store.now(), metrics)
            deadlines.counts(db, store.now(), metrics)
            articles.carry_out(db, settings, str(settings.brokers), store.now())
            rejects.carry_out(db, settings, str(settings.brokers), store.now())
            for _ in range(5):
                if not stop.is_set():
                    time.sleep(seconds / 5)


# -- people ---------------------------------------------------------------------------------------------------------------


def invite(settings: Settings, login: str, roles: Sequence[str], shops: Sequence[str], name: str | None) -> str:
    """A one-time link with which somebody chooses their password. Raises NoDatabase, UserError for a role that is none."""
    from orderstream.board.web import accounts  # noqa: PLC0415  it hashes, which the other commands need not load

    place = store.url(settings)
    store.migrate(place)
    by = getpass.getuser()
    with store.answering(), store.connect(place) as db, db.transaction():
        try:
            token = accounts.invite(db, login, store.now(), by, name=name, roles=roles, shops=shops)
        except accounts.AccountError as error:
            raise UserError(error.sentence, 2) from None  # wrong usage
        audit.append(db, store.now(), by, "invite", {"login": login, "roles": sorted(roles), "shops": sorted(shops)})
    public = settings.public_url or f"http://{settings.board_host}:{settings.board_port}"
    return f"{public.rstrip('/')}/welcome/{token}"


# -- audit ----------------------------------------------------------------------------------------------------------------


def verify_audit(settings: Settings, against: Path | None) -> str:
    """Checks the audit, against an earlier export where one is given; a sentence. Raises RunFailed where a row is not as written."""
    known = _exported(against) if against is not None else None
    with store.answering(), store.connect(store.url(settings)) as db:
        faults = audit.verify(db, known)
        head = db.execute("SELECT n, hash FROM board.audit_head").fetchone()
    if faults:
        said = ", ".join(f"{fault.n} {fault.what}" for fault in faults[:20])
        raise RunFailed(f"审计记录被改动，共 {len(faults)} 处：{said} · the audit is not as it was written: {said}")
    assert head is not None
    return f"审计完整，共 {head['n']} 行 · the audit is whole: {head['n']} rows, head {bytes(head['hash']).hex()[:16]}"


def export_audit(settings: Settings) -> Iterator[str]:
    """The audit, a JSON line a row."""
    with store.answering(), store.connect(store.url(settings)) as db:
        yield from audit.export(db)


def _exported(file: Path) -> dict[int, str]:
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        return {int(row["n"]): str(row["hash"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadFile(f"{file} 不是 orderstream audit export 的文件 · {file} is no export of the audit") from None
