"""The faults. Each is injected, lasts as long as a condition says, and is undone; the campaign then waits until all is healed.

Law: a fault ends when its effect has been seen, never after a guessed time. What is slept is the fault's own length.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import psycopg

from orderstream import broker
from orderstream.board import store
from orderstream.errors import NoBroker, TopicsUnfit
from orderstream.settings import data_file
from orderstream.simulators import Delivery
from orderstream.times import HOUR, MINUTE
from tests.faults.installation import Installation
from tests.faults.services import Service
from tests.waiting import until

SIDE = 60
"""Orders of a side scenario."""
PER_SECOND = 40.0
"""How fast a side scenario is sent."""

BROUGHT = ("douyin:", "wechat:", "taobao:", "jd:")
"""Orders that come in by fetch alone."""

Fault = Callable[[Installation, random.Random], Awaitable[None]]


class Kind(NamedTuple):
    """A fault in the plan. seconds: about how long a round of it takes."""

    zh: str
    en: str
    inject: Fault
    seconds: float


def _pick(system: Installation, dice: random.Random) -> Service:
    return system.named(dice.choice(system.worker_names))


async def _end(number: signal.Signals, *services: Service) -> None:
    """A signal to each; until what runs now has ended. The supervisor starts the next."""
    before = [service.process for service in services]
    for service in services:
        service.signal(number)
    await until(lambda: all(p is None or p.poll() is not None for p in before), "the processes have ended")


# workers


def worker_gets(number: signal.Signals) -> Fault:
    """One worker is ended by a signal."""

    async def inject(system: Installation, dice: random.Random) -> None:
        await _end(number, _pick(system, dice))

    return inject


def all_get(number: signal.Signals) -> Fault:
    """All workers are ended at once by a signal."""

    async def inject(system: Installation, dice: random.Random) -> None:
        del dice
        await _end(number, *(system.named(name) for name in system.worker_names))

    return inject


async def zombie(system: Installation, dice: random.Random) -> None:
    """Stopped until others hold its partitions and have decided orders with them, then woken."""
    service = _pick(system, dice)
    await _replaced(system, lambda: service.signal(signal.SIGSTOP))
    service.signal(signal.SIGCONT)


async def cut_off(system: Installation, dice: random.Random) -> None:
    """One worker's network is silent until others hold its partitions and have decided orders with them."""
    link = system.links[dice.choice(system.worker_names)]
    await _replaced(system, link.cut)
    link.mend()


async def _replaced(system: Installation, away: Callable[[], None]) -> None:
    away()
    await until(lambda: system.members_are(system.workers - 1), "the group goes on without the one that is away")
    mark = time.monotonic()
    await until(lambda: system.decided_since(mark), "the others decide")


async def added_and_removed(system: Installation, dice: random.Random) -> None:
    """One worker more, or two, and then as many less; in order, under load."""
    more = [f"w{n}" for n in range(system.workers + 1, system.workers + 1 + dice.choice((1, 2)))]
    for name in more:
        system.worker(name)
    await until(lambda: system.members_are(system.workers + len(more)), "the new workers have joined")
    await asyncio.gather(*(system.supervisor.end(name) for name in more))


async def rolled(system: Installation, dice: random.Random) -> None:
    """Every worker is restarted in turn, and in the midst of it another pack is published."""
    folder = system.home / "pack"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(data_file("rules/standard"), folder)
    policy = folder / "policy.yaml"
    text = policy.read_text("utf-8")
    changed = text.replace(
        "low: {verdict: released, weight: 10}", f"low: {{verdict: released, weight: {dice.randint(11, 10_000)}}}"
    )
    assert changed != text, "the policy no longer reads as this expects"
    policy.write_text(changed, "utf-8")
    publishing = asyncio.ensure_future(system.command("rules", "publish", str(folder), "--why", "faults"))
    for name in list(system.worker_names):
        service = system.named(name)
        await _end(signal.SIGTERM, service)
        await until(lambda: system.members_are(system.workers), "the restarted worker is back")
    code, said = await publishing
    assert code == 0, said


# intake and ERP


async def intake_killed(system: Installation, dice: random.Random) -> None:
    """The broker has a record and has said so, its word is held back, intake dies: its sender knows nothing and asks again."""
    del dice
    link, service = system.links["intake"], system.named("intake")
    before = await system.raw_count()
    link.hold_answers()

    async def written() -> bool:
        return link.held > 0 and await system.raw_count() > before

    try:
        await until(written, "the broker has a record that intake does not know of")
        await _end(signal.SIGKILL, service)
    finally:
        link.mend()


async def fetch_killed(system: Installation, dice: random.Random) -> None:
    """Killed with details under way, until its successor has brought in orders that nobody else brings."""
    del dice
    await _end(signal.SIGKILL, system.named("fetch"))
    mark = time.monotonic()

    def brought() -> bool:
        new = (order for order, at in system.traffic.since.items() if at > mark and order in system.watch.decided)
        return any(order.startswith(BROUGHT) for order in new)

    await until(brought, "fetch goes on")


async def erp_killed(system: Installation, dice: random.Random) -> None:
    """Killed inside its transaction, its effect written and not committed; or after it, before Kafka was told."""
    service = system.named("erp")
    if dice.random() < 0.5:
        async with await psycopg.AsyncConnection.connect(system.database) as lock:
            # its insert into the journal waits here, after the order was written
            await lock.execute("LOCK TABLE journal IN EXCLUSIVE MODE")

            async def inside() -> bool:
                rows = await system.sql(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO journal%'"
                )
                return bool(rows)

            await until(inside, "the ERP is between its effect and its commit")
            await _end(signal.SIGKILL, service)
    else:
        link = system.links["erp"]
        link.hold_requests()
        before = await _applied(system)

        async def committed() -> bool:
            return await _applied(system) > before

        try:
            # nothing comes where the last request was answered already: it dies without new effects then
            with contextlib.suppress(AssertionError):
                await until(committed, "the ERP has applied what Kafka was not told of", 2)
            await _end(signal.SIGKILL, service)
        finally:
            link.mend()

    applied = await _applied(system)

    async def again() -> bool:
        return await _applied(system) > applied

    await until(again, "the ERP goes on")


async def _applied(system: Installation) -> int:
    return int((await system.sql("SELECT count(*) FROM journal"))[0][0])


# the board and actions


async def board_killed(system: Installation, dice: random.Random) -> None:
    """Killed with decisions committed and not sent; or sent, and not noted; or reading, with rows written and not committed."""
    service, link = system.named("board"), system.links["board"]
    way = dice.randrange(3)
    if way < 2:
        await _heap(system)
        # counted first: what a customer's answer had sent just then would wait for its own answer, and nothing came after it
        before = sum((await system.ends(["orders.outcomes"])).values())
        (link.hold_requests if way == 0 else link.hold_answers)()

        async def between() -> bool:
            (row,) = await system.wall("SELECT count(*) AS n FROM board.outbox WHERE sent_at IS NULL")
            there = sum((await system.ends(["orders.outcomes"])).values()) > before
            return row["n"] > 0 and (way == 0 or there)

        system.desk.rests = False
        try:
            await until(between, "a decision is between the board's commit and its note that Kafka has it")
            await _end(signal.SIGKILL, service)
        finally:
            link.mend()
    else:
        async with await psycopg.AsyncConnection.connect(system.people.url) as lock:
            # the last thing that a batch writes is where it ends
            await lock.execute("LOCK TABLE board.offsets IN EXCLUSIVE MODE")

            async def inside() -> bool:
                return bool(
                    await system.wall(
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO board.offsets%%'"
                    )
                )

            await until(inside, "the board is between a batch's rows and their commit")
            await _end(signal.SIGKILL, service)
    await _decides(system)


async def _heap(system: Installation) -> None:
    """Until ten orders wait that nobody has looked at: the board hears of no other while its network is held."""
    system.desk.rests = True

    async def enough() -> bool:
        rows = await system.wall("SELECT order_id, seq FROM board.orders WHERE state = 'waiting' AND asked IS NULL")
        return len({(row["order_id"], row["seq"]) for row in rows} - system.desk.met) >= 10

    await until(enough, "ten orders wait for somebody to look at them")


async def _decides(system: Installation) -> None:
    """Until the board says yes to people again, and what it said is on the topic."""
    said = len(system.desk.said)
    await until(lambda: len(system.desk.said) > said, "the board takes decisions again")

    async def sent() -> bool:
        (row,) = await system.wall("SELECT count(*) AS n FROM board.outbox WHERE sent_at IS NOT NULL AND sent_at > %s", mark)
        return bool(row["n"])

    mark = store.now()
    await until(sent, "the board sends decisions again")


async def postgres_away(system: Installation, dice: random.Random) -> None:
    """Stopped until the stream has gone on without it and people were told so; then back."""
    del dice
    away = system.desk.away
    await asyncio.to_thread(system.people.stop)
    try:
        mark = time.monotonic()
        await until(lambda: system.decided_since(mark), "the stream goes on without PostgreSQL")
        await until(lambda: system.desk.away > away, "the board says that PostgreSQL is away")
    finally:
        await asyncio.to_thread(system.people.start)
    await _decides(system)
    await _does(system)


async def actions_killed(system: Installation, dice: random.Random) -> None:
    """Killed while gateways have messages and their answers are under way; or with a lock on Kafka that it does not know of."""
    service, link, gateways = system.named("actions"), system.links["actions"], system.phones.gateways
    if dice.random() < 0.5:
        gateways.hold, gateways.waiting = asyncio.Event(), 0
        try:
            await until(lambda: gateways.waiting > 0, "a gateway has a message, and nobody has heard that it has")
            await _end(signal.SIGKILL, service)
        finally:
            gateways.hold.set()
            gateways.hold = None
    else:
        # a lock's two hours go by: its network is held, so it hears of nothing else to do
        waits = "(SELECT id FROM board.messages WHERE kind = 'unlock' AND state = 'waiting' LIMIT 1)"

        async def locked() -> bool:
            return bool(await system.wall(f"SELECT id FROM board.messages WHERE id = {waits}"))

        await until(locked, "a lock has an end")
        before = sum((await system.ends(["wms.commands"])).values())
        link.hold_answers()
        await system.wall(f"UPDATE board.messages SET next_at = 0 WHERE id = {waits} RETURNING id")

        async def there() -> bool:
            return sum((await system.ends(["wms.commands"])).values()) > before

        try:
            await until(there, "the broker has a command that actions does not know of")
            await _end(signal.SIGKILL, service)
        finally:
            link.mend()
    # a minute and a half goes by: the leases of what it had in hand end, and of nothing that its successor has, which is not up yet
    await system.wall("UPDATE board.messages SET next_at = 0 WHERE state = 'trying' AND tried_at <= %s RETURNING id", store.now())
    await _does(system)


async def _does(system: Installation) -> None:
    """Until actions does something that fell due after now."""
    mark = store.now()

    async def done() -> bool:
        (row,) = await system.wall("SELECT count(*) AS n FROM board.messages WHERE state = 'sent' AND made_at > %s", mark)
        return bool(row["n"])

    await until(done, "actions goes on")


# the broker


async def broker_killed(system: Installation, dice: random.Random) -> None:
    """SIGKILL, and back at once."""
    del dice
    await asyncio.to_thread(system.broker.kill)
    await asyncio.to_thread(system.broker.restart)


async def broker_restarted(system: Installation, dice: random.Random) -> None:
    """In order, as for an upgrade."""
    del dice
    await asyncio.to_thread(system.broker.restart)


async def broker_away(system: Installation, dice: random.Random) -> None:
    """A minute without a broker, under load."""
    del dice
    await asyncio.to_thread(system.broker.kill)
    await asyncio.sleep(60)
    await asyncio.to_thread(system.broker.restart)


async def broker_absent(system: Installation, dice: random.Random) -> None:
    """Workers, intake and ERP are started where no broker is: each says so, with its exit code, until there is one."""
    del dice
    nowhere = f"127.0.0.1:{broker.free_port()}"
    for command in (("worker",), ("intake",)):
        code, said = await system.command(*command, BROKERS=nowhere, INTAKE_PORT="0")
        _refused(code, said, NoBroker.exit_code, f"no Kafka answers at {nowhere}")
    services = [system.named(name) for name in (*system.worker_names, "erp")]
    await asyncio.to_thread(system.broker.kill)
    await _end(signal.SIGKILL, *services)
    began = time.monotonic()

    def refused() -> bool:
        said = {e.service for e in system.supervisor.endings if e.at > began and e.code == NoBroker.exit_code}
        return said >= {service.name for service in services}

    try:
        await until(refused, "every process says that there is no broker")
    finally:
        await asyncio.to_thread(system.broker.restart)


async def broker_slow(system: Installation, dice: random.Random) -> None:
    """Every way to the broker takes a third of a second longer, for eight seconds."""
    del dice
    for link in system.links.values():
        link.delay = 0.3
    await asyncio.sleep(8)
    for link in system.links.values():
        link.mend()


async def topic_missing(system: Installation, dice: random.Random) -> None:
    """A worker and an intake of an installation that has no topics."""
    prefix = f"none{dice.randrange(1000)}."
    for command in (("worker",), ("intake",)):
        code, said = await system.command(*command, TOPIC_PREFIX=prefix, INTAKE_PORT="0")
        _refused(code, said, TopicsUnfit.exit_code, "orderstream topics apply")


async def topic_misfit(system: Installation, dice: random.Random) -> None:
    """A worker and an intake that believe in another number of partitions, beside those that run."""
    for command in (("worker",), ("intake",)):
        code, said = await system.command(*command, PARTITIONS=str(dice.choice((1, 5, 7, 12))), INTAKE_PORT="0")
        _refused(code, said, TopicsUnfit.exit_code, "ORDERSTREAM_PARTITIONS")


def _refused(code: int, said: str, wanted: int, sentence: str) -> None:
    assert code == wanted, f"exit code {code} and not {wanted}: {said[-500:]}"
    assert sentence in said, f"it does not say {sentence!r}: {said[-500:]}"
    assert "Traceback" not in said, said[-2000:]


# the state directory: it holds nothing that a worker needs, which is what these three show


async def disk_full(system: Installation, dice: random.Random) -> None:
    """A worker whose state directory is on a full disk, for as long as it takes to decide orders with it."""
    name = dice.choice(system.worker_names)
    place = system.home / "full"
    place.mkdir(exist_ok=True)
    await _run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place))
    try:
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 1024)
        await _elsewhere(system, name, str(place / "state"))
    finally:
        await _elsewhere(system, name, str(system.home / name))
        await _run("umount", "-l", str(place))


async def _run(*command: str) -> None:
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this user may mount a small disk; without that there is no full one to be had."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


async def _elsewhere(system: Installation, name: str, place: str) -> None:
    await system.supervisor.end(name)
    system.worker(name, STATE_DIR=place)
    await until(lambda: system.members_are(system.workers), "the worker is there again")
    mark = time.monotonic()
    await until(lambda: system.decided_since(mark), "orders are decided with it")


async def state_deleted(system: Installation, dice: random.Random) -> None:
    """The state directory goes while the worker runs, and then the worker."""
    service = _pick(system, dice)
    shutil.rmtree(system.home / service.name, ignore_errors=True)
    mark = time.monotonic()
    await until(lambda: system.decided_since(mark), "orders are decided without it")
    await _end(signal.SIGTERM, service)


async def state_of_another_version(system: Installation, dice: random.Random) -> None:
    """The state directory is full of another version's files."""
    service = _pick(system, dice)
    place = system.home / service.name / "worker"
    (place / "v9" / "tables" / "orders.rocksdb").mkdir(parents=True, exist_ok=True)
    for file in ("v9/tables/orders.rocksdb/CURRENT", "v9/checkpoint", "version", "state.bin"):
        (place / file).write_bytes(dice.randbytes(500))
    await _end(signal.SIGTERM, service)


# what channels do


async def clocks_wrong(system: Installation, dice: random.Random) -> None:
    """A channel whose clock is hours off, either way, beside those that are right; the same people order on both."""
    behind = dice.choice((-1, 1)) * dice.randrange(1 * HOUR, 9 * HOUR)
    await system.traffic.send_in_turn(system.traffic.peak(SIDE, behind_ms=behind).deliveries, PER_SECOND)


async def late_orders(system: Installation, dice: random.Random) -> None:
    """Orders up to the lateness (an hour) behind and beyond it, shuffled."""
    behind = dice.choice((20 * MINUTE, HOUR - 5_000, HOUR, HOUR + 5_000, 3 * HOUR))
    parts = [system.traffic.peak(SIDE // 2, behind_ms=b).deliveries for b in (behind, dice.randrange(2 * HOUR))]
    mixed = [delivery for part in parts for delivery in part]
    dice.shuffle(mixed)
    await system.traffic.send_in_turn(mixed, PER_SECOND)


async def repeated(system: Installation, dice: random.Random) -> None:
    """For three seconds every webhook comes up to ten times, all at once."""
    system.traffic.copies = dice.randint(5, 10)
    await asyncio.sleep(3)
    system.traffic.copies = 1


async def reversed_revisions(system: Installation, dice: random.Random) -> None:
    """Orders whose last revision comes first: cancelled, then paid, then placed."""
    del dice
    deliveries = list(system.traffic.peak(2 * SIDE).deliveries)
    await system.traffic.send_in_turn(_reversed(deliveries), PER_SECOND)


def _reversed(deliveries: list[Delivery]) -> list[Delivery]:
    """The same places in the sequence, the revisions of each order in reverse."""
    left: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        left.setdefault(delivery.order_id, []).append(delivery)
    return [left[delivery.order_id].pop() for delivery in deliveries]


KINDS: dict[str, Kind] = {
    "worker-killed": Kind("工作进程 SIGKILL", "a worker, SIGKILL", worker_gets(signal.SIGKILL), 14),
    "worker-terminated": Kind("工作进程 SIGTERM", "a worker, SIGTERM", worker_gets(signal.SIGTERM), 6),
    "all-killed": Kind("全部工作进程 SIGKILL", "all workers at once, SIGKILL", all_get(signal.SIGKILL), 16),
    "all-terminated": Kind("全部工作进程 SIGTERM", "all workers at once, SIGTERM", all_get(signal.SIGTERM), 8),
    "intake-killed": Kind(
        "接收：Kafka 已确认、尚未应答时被杀", "intake between Kafka's acknowledgement and its answer", intake_killed, 6
    ),
    "fetch-killed": Kind("取详情：调用途中被杀", "fetch with calls under way", fetch_killed, 12),
    "erp-killed": Kind("ERP：生效与提交之间被杀", "the ERP between effect and commit", erp_killed, 10),
    "board-killed": Kind(
        "看板：决定提交与送出之间、读取途中被杀", "the board between commit and send, and while reading", board_killed, 14
    ),
    "actions-killed": Kind("动作：网关已收、尚未记下时被杀", "actions between a deed and its note", actions_killed, 14),
    "postgres-away": Kind("看板的 PostgreSQL 停掉再恢复", "the board's PostgreSQL stopped and back", postgres_away, 14),
    "zombie": Kind("工作进程停过会话超时后复活", "a worker stopped past its session, then woken", zombie, 18),
    "added-removed": Kind("增减工作进程", "workers added and removed", added_and_removed, 10),
    "rolled": Kind("滚动重启并同时发布规则包", "rolling restart with a new pack", rolled, 20),
    "broker-killed": Kind("Kafka 被杀后恢复", "the broker, SIGKILL", broker_killed, 14),
    "broker-restarted": Kind("Kafka 重启", "the broker restarted", broker_restarted, 12),
    "broker-absent": Kind("启动时没有 Kafka", "the broker absent at start", broker_absent, 18),
    "broker-away": Kind("Kafka 消失一分钟", "the broker away for a minute", broker_away, 80),
    "broker-slow": Kind("Kafka 缓慢", "the broker slow", broker_slow, 12),
    "topic-missing": Kind("启动时缺主题", "topics missing at start", topic_missing, 5),
    "topic-misfit": Kind("启动时分区数不符", "a wrong partition count at start", topic_misfit, 5),
    "cut-off": Kind("一个工作进程断网", "one worker cut off from the broker", cut_off, 20),
    "disk-full": Kind("状态目录磁盘已满", "the state directory on a full disk", disk_full, 14),
    "state-deleted": Kind("状态目录被删", "the state directory deleted", state_deleted, 7),
    "state-other": Kind("状态目录属于另一版本", "a state directory of another version", state_of_another_version, 7),
    "clocks-wrong": Kind("渠道时钟偏差数小时", "a channel's clock wrong by hours", clocks_wrong, 5),
    "late": Kind("迟到订单，乱序", "orders late up to the lateness and beyond, shuffled", late_orders, 5),
    "repeated": Kind("同一推送并发多达十次", "each webhook up to ten times at once", repeated, 6),
    "reversed": Kind("修订逆序到达", "revisions in reverse", reversed_revisions, 6),
}
