"""The demo: a whole shop on this machine, for a minute or two.

Law: it starts the processes that an installation runs, by the commands that an operator types, and talks to them as the world does:
signed webhooks in, topics out. Nothing is short-circuited, so a green demo says something. Whatever happens, it ends all that
it started: processes by their numbers, the broker if it is its own, its topics on a broker of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
from rich.console import Console

from orderstream import access, broker, topics
from orderstream.actions.process import group as deeds
from orderstream.board import store
from orderstream.board.web import accounts
from orderstream.demo import behind
from orderstream.demo.behind import Behind
from orderstream.demo.database import Database, find
from orderstream.demo.phones import Customers, Phones
from orderstream.demo.processes import Child, Processes, terminable, undisturbed
from orderstream.demo.shops import Shops
from orderstream.demo.tally import Summary, Tally
from orderstream.demo.view import View, conclude, follow
from orderstream.downstream.store import READER as WATCHES
from orderstream.engine.partitioner import Partitioner
from orderstream.errors import BadFile, RunFailed
from orderstream.fetch.process import group as fetchers
from orderstream.rules import pack as packs
from orderstream.settings import PREFIX, Settings, data_file
from orderstream.simulators import Scenario, make, write_catalogue
from orderstream.simulators.market import Market
from orderstream.simulators.scenario import MARKETPLACES, SHOPS
from orderstream.simulators.served import served

READY_SECONDS = 60.0
PARTS = ("intake", "fetch", "workers", "consumers", "people")
PEOPLE = (("supervisor", "主管", ("supervisor", "reviewer")), ("approver", "审批人", ("approver",)))
"""Who gets a one-time link to the demo's board: login, name, roles."""
SETTLE_SECONDS = 60.0
"""How long after the last acknowledgement every order must have its verdict."""
DEEDS_SECONDS = 100.0
"""How long what follows the verdicts may take: a deed that failed is tried again after 5, 10, 20, 40 s, one given up after 90 s."""
QUIET_SECONDS = 1.5
"""No new verdict for this long, with nothing waiting: the run is over, recalls that follow the last orders included."""


def run(
    settings: Settings,
    *,
    orders: int = 3_000,
    rate: float = 50.0,
    report: Path | None = None,
    workers: int = 2,
    stay: bool = False,
) -> int:
    """Run the demo; 0 when every acknowledged order came out, and the ERP has exactly the released ones.

    stay: the board stays open after that, until Ctrl-C.

    orders, rate: distinct orders, and how many of them a second. report: where the Summary goes as JSON.
    Raises RunFailed (exit code 13) where orders were lost, another UserError where the surroundings are missing, and
    KeyboardInterrupt on Ctrl-C or SIGTERM: in every case after it has ended what it started.
    """
    if report is not None and not (report.parent.is_dir() and os.access(report.parent, os.W_OK)):
        # told before the run, not after it
        raise BadFile(f"报告写不到 {report} · the report cannot be written to {report}")
    console = Console()
    home = Path(tempfile.mkdtemp(prefix="orderstream-demo-"))
    demo = _Demo(settings, console, home, workers)
    clean = False
    try:
        with terminable():
            demo.play(orders, rate, report, stay=stay)
            clean = True
    except KeyboardInterrupt:
        console.print("正在结束已启动的进程 … · ending what was started …", highlight=False)
        clean = True
        raise
    finally:
        with undisturbed():
            demo.stop()
            if clean:
                shutil.rmtree(home, ignore_errors=True)
            else:
                console.print(f"日志 · logs: {home / 'logs'}", highlight=False)
    return 0


class _Demo:
    def __init__(self, settings: Settings, console: Console, home: Path, workers: int) -> None:
        self._given = settings
        self._console = console
        self._home = home
        self._workers = workers
        self._processes = Processes(home / "logs")
        self._broker: broker.Broker | None = None
        self._shared = False
        self._settings = settings
        self._env: dict[str, str] = {}
        self._market = Market(SHOPS)
        self._market_port = 0
        self._phones = Phones(secrets.token_hex(24))
        self._phones_port = 0
        self._database: Database | None = None
        self._board = ""
        self._over = False

    def play(self, orders: int, rate: float, report: Path | None, *, stay: bool) -> None:
        self._kafka()
        self._topics()
        self._postgres()
        # only what the processes need before the first order; the peak itself is dated when they are ready
        shop = make(orders, rate=rate, start=_now(), marketplaces=MARKETPLACES, payments=True)
        self._load(shop)
        self._start(shop)
        try:
            asyncio.run(self._peak(orders, rate, report, stay=stay))
        except KeyboardInterrupt:
            # whoever ends what stayed open at the end interrupts nothing
            if not self._over:
                raise

    def stop(self) -> None:
        """End everything that was started."""
        self._processes.stop()
        if self._database is not None:
            self._database.stop()
        if self._broker is None:
            return
        if self._shared:
            # best effort: on a broker that is gone there is nothing to tidy
            with contextlib.suppress(Exception):
                topics.now(topics.delete(self._broker.address, self._settings))
        self._broker.stop()

    def _kafka(self) -> None:
        self._say("寻找或启动 Kafka … · finding or starting a Kafka …")
        with undisturbed():
            # an interrupt half-way would leave a broker that nobody knows
            found = broker.running(self._given)
            self._shared = found is not None
            self._broker = found or broker.start(self._given, self._home / "broker", port=0, fresh=True)
        self._say(self._broker.describe())

    def _topics(self) -> None:
        assert self._broker is not None
        port, self._market_port, self._phones_port = (broker.free_port() for _ in range(3))
        prefix = f"{self._given.topic_prefix}demo-{secrets.token_hex(3)}." if self._shared else self._given.topic_prefix
        file = self._own("secrets.json", self._market.doors())
        accounts = self._own("platforms.json", self._market.accounts(f"http://127.0.0.1:{self._market_port}"))
        values: dict[str, str] = {
            "BROKERS": self._broker.address,
            "TOPIC_PREFIX": prefix,
            "STATE_DIR": str(self._home / "state"),
            "INTAKE_HOST": "127.0.0.1",
            "INTAKE_PORT": str(port),
            "METRICS_PORT": "0",
            "SECRETS_FILE": str(file),
            "PLATFORMS_FILE": str(accounts),
            "LOG_LEVEL": "WARNING",
        }
        self._env = os.environ | {PREFIX + name: value for name, value in values.items()}
        # the user's own shops have no business here
        for own in ("SECRETS", "PLATFORMS", "KEY_FILE"):
            self._env.pop(PREFIX + own, None)
        self._settings = self._given.model_copy(
            update={
                "brokers": self._broker.address,
                "topic_prefix": prefix,
                "state_dir": self._home / "state",
                "intake_port": port,
                "secrets_file": file,
            }
        )
        # each worker gets a state folder of its own, and all of them one key
        self._env[PREFIX + "KEY"] = self._settings.hash_key().decode()
        changes = topics.now(topics.apply(self._broker.address, self._settings))
        self._say(f"{len(changes)} 个主题就绪 · {len(changes)} topics are there")

    def _own(self, name: str, values: Mapping[str, Any]) -> Path:
        """A file that only we may read."""
        file = self._home / name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(values, out)
        return file

    def _load(self, shop: Scenario) -> None:
        catalogue = self._home / "catalogue.jsonl"
        write_catalogue(catalogue, shop)
        self._command("catalogue", "load", str(catalogue))
        self._say(f"目录 {len(shop.catalogue)} 个商品 · catalogue: {len(shop.catalogue)} articles")
        self._command("rules", "publish", str(data_file("rules/standard")))
        self._say("标准规则包已发布 · the standard pack is published")

    def _start(self, shop: Scenario) -> None:
        stock = self._home / "stock.jsonl"
        stock.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in shop.reference if r["kind"] == "stock"))
        self._process("intake", "orderstream", "intake")
        for number in range(1, self._workers + 1):
            self._process(f"worker-{number}", "orderstream", "worker", STATE_DIR=str(self._home / f"worker-{number}"))
        self._process("erp", "orderstream.consumers.erp")
        # picked soon, and shipped by nobody before the score is taken: what has left is not recalled
        self._process("wms", "orderstream.consumers.wms", "--stock", str(stock), "--pick-after", "2")
        self._process("fetch", "orderstream", "fetch")
        self._say(
            f"启动：接收、取详情、{self._workers} 个工作进程、ERP、WMS · started: intake, fetch, {self._workers} workers, ERP, WMS"
        )
        self._start_people()

    def _postgres(self) -> None:
        with undisturbed():
            self._database = find(self._given)
        if self._database is None:
            self._say(
                "没有 PostgreSQL，看板、动作、下游不启动：apt-get install postgresql 或设置 ORDERSTREAM_DATABASE"
                " · no PostgreSQL, so no board, actions and downstream: apt-get install postgresql, or set ORDERSTREAM_DATABASE"
            )
            return
        self._say(self._database.describe)

    def _start_people(self) -> None:
        """The board, what tells people and asks customers, and what watches the ERP and the warehouse."""
        if self._database is None:
            return
        port, links = broker.free_port(), broker.free_port()
        self._board = f"http://127.0.0.1:{port}"
        phones = f"http://127.0.0.1:{self._phones_port}"
        # theirs alone: the example ERP keeps its own books beside it
        values = {"DATABASE": self._database.url, "BOARD_HOST": "127.0.0.1", "BOARD_PORT": str(port), "PUBLIC_URL": self._board}
        self._command("board", "migrate", **values)
        self._process("board", "orderstream", "board", **values)
        pages = {"LINKS_HOST": "127.0.0.1", "LINKS_PORT": str(links), "LINKS_URL": f"http://127.0.0.1:{links}"}
        file = self._own("actions.json", self._phones.file(phones, self._board))
        self._process("actions", "orderstream", "actions", ACTIONS_FILE=str(file), **pages, **values)
        self._process("downstream", "orderstream", "downstream", DOWNSTREAM_HOST="127.0.0.1", DOWNSTREAM_PORT="0", **values)
        self._say("启动：看板、动作、下游 · started: board, actions, downstream")
        self._links()
        self._say(f"消息，含可签收的链接 · messages, with their signed links: {phones}")

    def _links(self) -> None:
        """One-time links for two people: frozen orders need another one than who asks."""
        assert self._database is not None
        with store.answering(), store.connect(self._database.url) as db:
            for login, name, roles in PEOPLE:
                token = accounts.invite(db, login, store.now(), "demo", name=name, roles=roles)
                self._say(f"看板 · board, {name} {login}: {self._board}/welcome/{token}")

    async def _stay(self) -> None:
        """Leaves all of it running until Ctrl-C, for people to look at the board."""
        if not self._board:
            return
        self._say(f"看板还开着，Ctrl-C 结束 · the board stays open at {self._board}, Ctrl-C ends it")
        while True:
            self._processes.check()
            await asyncio.sleep(0.5)

    def _process(self, name: str, module: str, *arguments: str, **values: str) -> Child:
        env = self._env | {PREFIX + setting: value for setting, value in values.items()}
        return self._processes.start(name, [sys.executable, "-m", module, *arguments], env)

    def _command(self, *arguments: str, **values: str) -> None:
        """One command of the CLI, to its end."""
        name = "-".join(arguments[:2])
        processes = Processes(self._home / "logs")
        env = self._env | {PREFIX + setting: value for setting, value in values.items()}
        child = processes.start(name, [sys.executable, "-m", "orderstream", *arguments], env)
        try:
            code = child.process.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            code = 1
        finally:
            processes.stop()
        if code:
            raise RunFailed(f"orderstream {' '.join(arguments[:2])} 失败 · failed: {child.tail(300)}")

    async def _peak(self, orders: int, rate: float, report: Path | None, *, stay: bool) -> None:
        """Waits until all is up, sends the peak, waits for its verdicts. Raises RunFailed with a sentence for each thing gone wrong."""
        async with served(self._market.app, self._market_port), served(self._phones.app, self._phones_port):
            await self._ready()
            customers = Customers(self._phones)
            answering = asyncio.create_task(customers.run())
            try:
                result, unsure = await self._played(orders, rate, customers)
                if report is not None:
                    report.write_bytes(orjson.dumps(msgspec.to_builtins(result), option=orjson.OPT_INDENT_2) + b"\n")
                    self._say(f"报告 · report: {report}")
                if unsure:
                    raise RunFailed("; ".join(unsure))
                self._over = True
                if stay:
                    await self._stay()
            finally:
                answering.cancel()
                await asyncio.wait([answering])

    async def _played(self, orders: int, rate: float, customers: Customers) -> tuple[Summary, list[str]]:
        scenario = make(
            orders, rate=rate, start=_now() + 500, zone=self._given.timezone, marketplaces=MARKETPLACES, payments=True
        )
        await self._reference(scenario)
        tally = Tally(scenario)
        shops = Shops(f"http://127.0.0.1:{self._settings.intake_port}", self._market, tally.acknowledged)
        size = len(scenario.expected)
        self._say(
            f"{len(SHOPS)} 家店铺发送 {size} 单，约 {rate:g} 单/秒 · {len(SHOPS)} shops send {size} orders at about {rate:g} a second"
        )
        async with _verdicts(self._settings, tally) as reader:
            with View(self._console, scenario, tally, _titles()) as view:
                sending = asyncio.create_task(shops.send(scenario))
                try:
                    await self._watch(view, sending.done, reader)
                    await sending
                    late = await self._settle(view, tally, reader)
                finally:
                    sending.cancel()
            result = tally.summary()
            conclude(self._console, scenario, tally, result)
            unsure = late
            if result.lost and not late:
                unsure.append(f"丢失 {result.lost} 单 · {result.lost} orders are lost")
            if shops.refused:
                delivery, status = shops.refused[0]
                unsure.append(
                    f"{len(shops.refused)} 个推送未被接收 · {len(shops.refused)} deliveries were not taken: {delivery.order_id} → {status}"
                )
            for expected, final in tally.odd()[:10]:
                what = ",".join((*expected.rules, *expected.low)) or expected.tag or "—"
                self._say(f"与预期不符 · not as meant: {expected.order_id} {expected.outcome} ({what}) → {final}")
            # people and customers go on deciding: their word is on the way to the ERP, too
            unsure += await self._erp(tally)
            if self._database is not None:
                unsure += await self._behind(tally, customers)
        return result, unsure

    async def _behind(self, tally: Tally, customers: Customers) -> list[str]:
        """What follows the verdicts, to its end: messages, answers, the ERP's word, parcels."""
        assert self._database is not None
        with store.answering(), store.connect(self._database.url) as db:

            async def still(look: Callable[[Behind], bool]) -> Behind:
                deadline = time.monotonic() + DEEDS_SECONDS
                while True:
                    self._processes.check()
                    found = await asyncio.to_thread(behind.count, db)
                    if look(found) or time.monotonic() > deadline:
                        return found
                    await asyncio.sleep(0.2)

            asked = await self._end("orders.actions")

            def done(found: Behind) -> bool:
                known = found.pending == 0 and customers.idle and found.acknowledged == len(tally.released())
                return known and behind.read(db) >= asked

            found = await still(done)
            unsure = [] if done(found) else [_late(found, len(tally.released()))]
            if found.dead or customers.refused:
                unsure.append(
                    f"{found.dead} 条消息没送到，{customers.refused} 个回答没被接受"
                    f" · {found.dead} messages are dead letters, {customers.refused} answers were not taken"
                )
            parcels, wrong = await asyncio.to_thread(behind.scanned, self._settings.state_dir / "wms.sqlite", tally.clean())
            await self._publish("wms.shipments", [(box["order_id"], box) for box in parcels])
            found = await still(lambda found: found.wrong >= wrong)
            if found.wrong != wrong:
                unsure.append(f"发错 {wrong} 单，看板上 {found.wrong} 单 · {wrong} left wrong, the wall shows {found.wrong}")
        follow(self._console, found, len(parcels))
        self._say(f"下游差异 · differences downstream: {self._board}/downstream")
        return unsure

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        health = f"http://127.0.0.1:{self._settings.intake_port}/readyz"
        up: set[str] = set()
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while len(up) < len(PARTS):
                self._processes.check()
                if time.monotonic() > deadline:
                    missing = ", ".join(part for part in PARTS if part not in up)
                    raise RunFailed(f"{READY_SECONDS:.0f} 秒内没有就绪 · not ready after {READY_SECONDS:.0f} s: {missing}")
                if "intake" not in up:
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(health)).status_code == 200:
                            up.add("intake")
                            self._say("接收服务就绪 · intake is ready")
                if "fetch" not in up and await self._group(fetchers(self._settings), 1):
                    up.add("fetch")
                    self._say("取详情服务就绪 · fetch is ready")
                if "workers" not in up and await self._group(self._settings.group, self._workers):
                    up.add("workers")
                    self._say("工作进程就绪 · the workers are ready")
                if "consumers" not in up:
                    prefix = self._settings.topic_prefix
                    if await self._group(prefix + "erp", 1) and await self._group(prefix + "wms", 1):
                        up.add("consumers")
                        self._say("ERP 与 WMS 就绪 · ERP and WMS are ready")
                if "people" not in up and await self._people():
                    up.add("people")
                await asyncio.sleep(0.2)

    async def _people(self) -> bool:
        """Whether those are ready who work behind the verdicts."""
        if self._database is None:
            return True
        prefix = self._settings.topic_prefix
        if not (await self._group(deeds(self._settings), 1) and await self._group(prefix + WATCHES, 1)):
            return False
        self._say("动作与下游就绪 · actions and downstream are ready")
        return True

    async def _group(self, group: str, members: int) -> bool:
        """Whether a consumer group is settled with this many members."""
        from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415  a second of imports that the first lines need not wait for
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._settings.brokers, client_id="orderstream-demo", **access.client(self._settings)
        )
        try:
            await admin.start()
            for answer in await admin.describe_consumer_groups([group]):
                for described in answer.groups:
                    error, _, state, _, _, held = described[:6]
                    if error == 0 and state == "Stable" and len(held) >= members:
                        return True
        except KafkaError:
            return False
        finally:
            await admin.close()
        return False

    async def _reference(self, scenario: Scenario) -> None:
        """Publish rates, floors and trusted relations; stock comes from the WMS."""
        records = [record for record in scenario.reference if record["kind"] != "stock"]
        await self._publish("reference.updates", [(r.get("pair") or r.get("sku") or r["entity"], r) for r in records])

    async def _publish(self, topic: str, records: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Sends (key, record), each until Kafka has it."""
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415

        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.brokers, acks="all", partitioner=Partitioner(), **access.client(self._settings)
        )
        await producer.start()
        try:
            for key, record in records:
                await producer.send_and_wait(topics.name(topic, self._settings.topic_prefix), orjson.dumps(record), key.encode())
        finally:
            await producer.stop()

    async def _end(self, topic: str) -> int:
        """How many records a topic of this demo has had."""
        from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415

        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.brokers, **access.client(self._settings))
        await consumer.start()
        try:
            name = topics.name(topic, self._settings.topic_prefix)
            ends = await consumer.end_offsets([TopicPartition(name, p) for p in range(self._settings.partitions)])
            return sum(ends.values())
        finally:
            await consumer.stop()

    async def _watch(self, view: View, done: Callable[[], bool], reader: asyncio.Task[None]) -> None:
        while not done():
            self._check(reader)
            view.refresh()
            await asyncio.sleep(0.25)

    async def _settle(self, view: View, tally: Tally, reader: asyncio.Task[None]) -> list[str]:
        """Wait until nothing waits and nothing changes; a sentence where the time ran out."""
        deadline = time.monotonic() + SETTLE_SECONDS
        seen, since = tally.revision, time.monotonic()
        while time.monotonic() < deadline:
            self._check(reader)
            view.refresh()
            if tally.revision != seen:
                seen, since = tally.revision, time.monotonic()
            waiting = tally.waiting()
            if not waiting and time.monotonic() - since > QUIET_SECONDS:
                return []
            await asyncio.sleep(0.1)
        waiting = tally.waiting()
        if not waiting:
            return []
        return [
            f"{SETTLE_SECONDS:.0f} 秒后仍有 {len(waiting)} 单没有判定 · {len(waiting)} orders have no verdict: {', '.join(waiting[:3])}"
        ]

    def _check(self, reader: asyncio.Task[None]) -> None:
        self._processes.check()
        if reader.done():
            reader.result()
            raise RunFailed("判定读取中断 · the reader of verdicts ended")

    async def _erp(self, tally: Tally) -> list[str]:
        """The ERP's accepted orders must be the released ones: nothing on the way to it was lost, nothing recalled stayed."""
        path = self._settings.state_dir / "erp.sqlite"
        accepted: set[str] = set()
        released: set[str] = set()
        for _ in range(100):
            released = tally.released()
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                accepted = {row[0] for row in db.execute("SELECT order_id FROM orders WHERE state = 'accepted'")}
            if accepted == released:
                self._say(
                    f"ERP 接单 {len(accepted)}，与放行一致 · the ERP accepted {len(accepted)} orders: exactly the released ones"
                )
                return []
            self._processes.check()
            await asyncio.sleep(0.1)
        lacks, has = len(released - accepted), len(accepted - released)
        return [f"ERP 与放行不一致：少 {lacks}，多 {has} · the ERP lacks {lacks} released orders and has {has} that are not"]

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


@contextlib.asynccontextmanager
async def _verdicts(settings: Settings, tally: Tally) -> AsyncIterator[asyncio.Task[None]]:
    """A task that reads verdicts and rejects into the tally, from the beginning of this demo's topics."""
    from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415

    names = {topics.name(topic, settings.topic_prefix): topic for topic in ("orders.verdicts", "orders.rejected")}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.brokers, enable_auto_commit=False, auto_offset_reset="earliest", **access.client(settings)
    )
    await consumer.start()
    # no group: what we read is nobody's progress
    consumer.assign([TopicPartition(name, p) for name in names for p in range(settings.partitions)])

    async def read() -> None:
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    value: dict[str, Any] = orjson.loads(record.value)
                    if names[partition.topic] == "orders.verdicts":
                        tally.verdict(value, record.timestamp)
                    else:
                        tally.reject(value)

    reading = asyncio.create_task(read())
    try:
        yield reading
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await consumer.stop()


def _late(found: Behind, released: int) -> str:
    return (
        f"{DEEDS_SECONDS:.0f} 秒后还有 {found.pending} 件事没做完，ERP 确认 {found.acknowledged}/{released}"
        f" · {found.pending} deeds are still to be done ({found.stuck}), the ERP has acknowledged {found.acknowledged} of {released}"
    )


def _titles() -> Mapping[str, tuple[str, str]]:
    return {rule.id: (rule.title.zh, rule.title.en) for rule in packs.load(data_file("rules/standard")).rules.values()}


def _now() -> int:
    return time.time_ns() // 1_000_000
