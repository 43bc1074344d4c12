"""One whole installation: a Kafka with a link for every process, intake, fetch, workers, the example ERP, the board, actions; shops.

The platforms' APIs, which fetch asks, fail in every twentieth call. The board and actions have a PostgreSQL of their own, people who
decide by the board's API, gateways that take every message, and customers who answer theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import orjson
import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from psycopg.rows import dict_row

from orderstream import broker, kafka, topics
from orderstream.board import store
from orderstream.board.consume import READS as BOARD_READS
from orderstream.board.web import accounts
from orderstream.demo.phones import Customers, Phones
from orderstream.fetch.process import group as fetchers
from orderstream.orders import CHANNELS
from orderstream.settings import PREFIX, Settings, data_file
from orderstream.simulators import write_catalogue
from orderstream.simulators.market import POLLED, Market
from orderstream.simulators.scenario import SHOPS
from orderstream.simulators.served import served
from orderstream.simulators.trouble import Trouble
from tests.faults.desk import Desk
from tests.faults.links import Link
from tests.faults.services import Service, Supervisor
from tests.faults.traffic import Traffic
from tests.faults.watch import Watch
from tests.postgres import Server, postgres, server
from tests.waiting import until

PARTITIONS = 6


class Installation:
    """An installation in `home`; `start` it, `stop` it, and in between break it. workers: how many it is to have.

    brief: a group hears of a member's death sooner than it would outside of a test.
    """

    def __init__(self, home: Path, *, workers: int, rate: float, seed: int, brief: bool = False) -> None:
        self.home = home
        self.workers = workers
        self.brief = brief
        self.supervisor = Supervisor()
        names = ["intake", "fetch", "erp", "board", "actions", *(f"w{n}" for n in range(1, workers + 3))]
        self.links = {name: Link(name) for name in names}
        self._stack = ExitStack()
        self._platforms = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._shops: asyncio.Task[None] | None = None
        self._rate, self._seed = rate, seed
        self.broker: broker.Broker
        self.settings: Settings
        self.traffic: Traffic
        self.watch: Watch
        self.desk: Desk
        self.database = ""
        self.people: Server
        self.phones = Phones("secret-of-the-gateways")
        self.customers = Customers(self.phones)
        self.unread = ""
        """What drained waits for."""

    # -- up and down

    async def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.database = self._stack.enter_context(postgres())
        self.people = self._stack.enter_context(server())
        for link in self.links.values():
            await link.open()
        await asyncio.to_thread(self._kafka)
        port = broker.free_port()
        market = Market(SHOPS, trouble=Trouble(failing=0.05, seed=self._seed))
        url = await self._platforms.enter_async_context(served(market.app))
        file, accounts = self.home / "secrets.json", self.home / "platforms.json"
        file.write_text(json.dumps(market.doors()))
        accounts.write_text(json.dumps(market.accounts(url)))
        values = {
            "BROKERS": self.broker.address,
            "PARTITIONS": str(PARTITIONS),
            "INTAKE_PORT": str(port),
            "METRICS_PORT": "0",
            "SECRETS_FILE": str(file),
            "PLATFORMS_FILE": str(accounts),
            "KEY": "key-of-the-faults",
            "LOG_LEVEL": "WARNING",
        }
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self.env |= {PREFIX + name: value for name, value in values.items()}
        await topics.apply(self.broker.address, self.settings)
        self.traffic = Traffic(f"http://127.0.0.1:{port}", market, self._rate, self._seed)
        await self._reference()
        self.service("intake", "orderstream", "intake")
        self.service("fetch", "orderstream", "fetch")
        for number in range(1, self.workers + 1):
            self.worker(f"w{number}")
        self.service("erp", "orderstream.consumers.erp", DATABASE=self.database)
        await self._people()
        self.watch = Watch(self.settings)
        runs = (self.supervisor.run(), self.watch.run(), self.desk.run(), self.customers.run())
        self._tasks = [asyncio.create_task(run) for run in runs]
        await self.traffic.open()
        async with httpx.AsyncClient(trust_env=False) as client:

            async def up() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                return False

            await until(up, "intake is ready")
        await until(lambda: self.members_are(self.workers), "the workers share the partitions")
        self._shops = asyncio.create_task(self.traffic.run())

    async def _people(self) -> None:
        """The board and actions, the accounts of those who decide, and the gateways."""
        port, links = broker.free_port(), broker.free_port()
        gateways = await self._platforms.enter_async_context(served(self.phones.app))
        board = f"http://127.0.0.1:{port}"
        said = self.phones.file(gateways, board)
        # a group's robot has no place for a key: here all are programs, so that each message can be counted
        said["receivers"] |= {name: {"via": "person"} for name in ("risk-group", "desk-group")}
        file = self.home / "actions.json"
        file.write_text(json.dumps(said))
        tokens = await asyncio.to_thread(_accounts, self.people.url)
        self.service("board", "orderstream", "board", DATABASE=self.people.url, BOARD_PORT=str(port))
        pages = {"LINKS_PORT": str(links), "LINKS_URL": f"http://127.0.0.1:{links}", "ACTIONS_FILE": str(file)}
        self.service("actions", "orderstream", "actions", DATABASE=self.people.url, **pages)
        self.desk = Desk(board, tokens, self._seed)

    def _kafka(self) -> None:
        """A broker of our own, with a listener for each link."""
        given, configure = Settings.load(broker_with="java"), broker._configure

        def with_links(home: Path, port: int, controller: int) -> None:
            configure(home, port, controller)
            self._link(home / "server.properties")

        with patch.object(broker, "_configure", with_links):
            self.broker = broker.start(given, self.home / "broker", port=0, fresh=True)
        self._stack.callback(self.broker.stop)
        # its data is nobody's afterwards: it need not be put in order
        self._stack.callback(self.broker.kill)
        self.settings = Settings.load(brokers=self.broker.address, partitions=PARTITIONS, topic_prefix="")

    def _link(self, file: Path) -> None:
        """Puts a listener for each link into a broker's properties."""
        said = dict(line.split("=", 1) for line in file.read_text().splitlines())
        # chosen at each attempt, all at once, and with the links' own ports open: none of them is another's
        with ExitStack() as held:
            probes = [held.enter_context(socket.socket()) for _ in self.links]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            upstreams = [int(probe.getsockname()[1]) for probe in probes]
        for (name, link), link.upstream in zip(self.links.items(), upstreams, strict=True):
            listener = name.upper()
            said["listeners"] += f",{listener}://127.0.0.1:{link.upstream}"
            said["advertised.listeners"] += f",{listener}://127.0.0.1:{link.port}"
            said["listener.security.protocol.map"] += f",{listener}:PLAINTEXT"
        said["inter.broker.listener.name"] = "PLAINTEXT"
        said["num.network.threads"] = "1"
        file.write_text("".join(f"{name}={value}\n" for name, value in said.items()))

    async def _reference(self) -> None:
        """The catalogue and the pack by the operator's commands; stock, rates, floors and trusts on their topics."""
        shop = self.traffic.peak(400)
        write_catalogue(self.home / "catalogue.jsonl", shop)
        for command in (
            ("catalogue", "load", str(self.home / "catalogue.jsonl")),
            ("rules", "publish", str(data_file("rules/standard"))),
        ):
            code, said = await self.command(*command)
            assert code == 0, said
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.brokers, acks="all")
        await producer.start()
        for record in shop.reference:
            name = "wms.stock" if record["kind"] == "stock" else "reference.updates"
            key = record.get("pair") or record.get("sku") or record["entity"]
            await producer.send(topics.name(name, self.settings.topic_prefix), orjson.dumps(record), key.encode())
        await producer.stop()

    async def stop(self) -> None:
        if self._shops is not None:
            self._shops.cancel()
        if hasattr(self, "traffic"):
            await self.traffic.close()
        for link in self.links.values():
            link.mend()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.supervisor.end_all()
        await self._platforms.aclose()
        for link in self.links.values():
            await link.close()
        await asyncio.to_thread(self._stack.close)

    # -- its parts

    def service(self, name: str, module: str, *arguments: str, **values: str) -> Service:
        """Start a process that is kept up. values: its own settings."""
        own = {"BROKERS": self.links[name].address, "STATE_DIR": str(self.home / name), **values}
        env = self.env | {PREFIX + setting: value for setting, value in own.items()}
        if self.brief:
            module, arguments = "tests.brief", (module, *arguments)
        return self.supervisor.add(Service(name, module, arguments, env, self.home / f"{name}.log"))

    def worker(self, name: str, **values: str) -> Service:
        return self.service(name, "orderstream", "worker", **values)

    def named(self, name: str) -> Service:
        return self.supervisor.services[name]

    @property
    def worker_names(self) -> list[str]:
        return [name for name in self.supervisor.services if name.startswith("w")]

    async def command(self, *arguments: str, seconds: float = 60.0, **values: str) -> tuple[int, str]:
        """One command of the operator's, to its end: its exit code and what it said."""
        env = self.env | {"ORDERSTREAM_STATE_DIR": str(self.home / "operator")} | {PREFIX + n: v for n, v in values.items()}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orderstream", *arguments, env=env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")

    # -- what can be seen of it

    async def members_are(self, count: int) -> bool:
        """Whether the workers' group is settled with this many members."""
        return await self.members() == count

    async def members(self) -> int:
        """Members of the workers' group; -1 while it is not settled or not to be asked."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.brokers, request_timeout_ms=5000)
        try:
            await admin.start()
            for answer in await admin.describe_consumer_groups([self.settings.group]):
                for error, _, state, _, _, held, *_ in answer.groups:
                    return len(held) if error == 0 and state == "Stable" else -1
        except (KafkaError, OSError):
            pass
        finally:
            await admin.close()
        return -1

    async def ends(self, names: Iterable[str]) -> dict[TopicPartition, int]:
        """Where each partition of these topics ends now."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.brokers)
        await consumer.start()
        try:
            return dict(
                await consumer.end_offsets(
                    [
                        TopicPartition(topics.name(name, self.settings.topic_prefix), p)
                        for name in names
                        for p in range(PARTITIONS)
                    ]
                )
            )
        finally:
            await consumer.stop()

    async def raw_count(self) -> int:
        """Raw records that the broker has of channels that intake alone writes for."""
        return sum((await self.ends(f"orders.raw.{channel}" for channel in ("api", "shopify"))).values())

    def waiting(self, before: float) -> list[str]:
        """Orders acknowledged before a time (monotonic) that nothing has come out for."""
        return [order for order, at in self.traffic.since.items() if at < before and order not in self.watch.decided]

    def decided_since(self, since: float) -> bool:
        """Whether an order that was acknowledged after this time (monotonic) has come out."""
        return any(at > since and order in self.watch.decided for order, at in self.traffic.since.items())

    async def decided(self, mark: float) -> None:
        """Until all that was acknowledged before a time (monotonic) has come out."""

        def lost() -> str:
            left = self.waiting(mark)
            return f"a verdict or a reject for each acknowledged order; {len(left)} have none: {', '.join(left[:5])}"

        await until(lambda: not self.waiting(mark), lost)

    async def healed(self) -> None:
        """Until all that was acknowledged by now has come out, what comes now comes out, and every worker is there."""
        mark = time.monotonic()
        await until(lambda: self.decided_since(mark), "an order that was acknowledged after the fault is decided")
        await self.decided(mark)
        await until(lambda: self.members_are(self.workers), f"{self.workers} workers share the partitions")

    async def drained(self) -> None:
        """Stop the traffic and wait until fetch owes nothing, and every hop and the ERP have read all there is."""
        assert self._shops is not None
        self._shops.cancel()
        await self.traffic.settled()
        await until(self._fetched, "what waited for its detail has it")
        # what a poll finds again from here on is nothing new
        await self.supervisor.end("fetch")
        await self.desk.close()
        quiet = 0

        async def read() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if not await self._unread() else 0
            return quiet >= 3

        # as long as a deed may be tried again: after 5, 10, 20, 40 s, or after a lease of 90 s
        await until(read, lambda: f"every hop has read its topics to their ends; unread: {self.unread}", 240)
        await self.decided(time.monotonic())
        await until(self._erp_has_all, "the ERP has read its topics to their ends")

    async def _fetched(self) -> bool:
        """Whether nothing waits on orders.pending or orders.parked, and every platform that tells nobody has been asked since."""
        ends = await self.ends(["orders.pending"])
        done = await self._offsets(fetchers(self.settings))
        if any(end > (done[tp].offset if tp in done else 0) for tp, end in ends.items()):
            return False
        parked, polled = await self._newest("orders.parked"), await self._newest("platforms.polled")
        asked = {one["account"]: one["until"] for one in map(orjson.loads, filter(None, polled.values()))}
        # a platform's clock counts seconds
        since = self.traffic.told_nobody + 1_000
        silent = [shop for shop in SHOPS if shop.partition(":")[0] in POLLED]
        return not any(parked.values()) and all(asked.get(shop, 0) > since for shop in silent)

    async def _newest(self, name: str) -> dict[bytes | None, bytes | None]:
        """The newest value of each key of a compacted topic."""
        topic = topics.name(name, self.settings.topic_prefix)
        found = await asyncio.to_thread(lambda: [*kafka.read_all(str(self.settings.brokers), [topic])])
        return {message.key: message.value for message in found}

    async def _offsets(self, group: str) -> Any:
        """Where a group goes on, by partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.brokers)
        await admin.start()
        try:
            return await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()

    async def _unread(self) -> bool:
        raw = [f"orders.raw.{channel}" for channel in CHANNELS]
        reads = [*raw, "wms.stock", "reference.updates", "orders.facts", "orders.dossiers", "orders.outcomes"]
        ends = await self.ends(reads)
        done = await self._offsets(self.settings.group)
        behind = [f"{tp.topic}-{tp.partition}" for tp, end in ends.items() if end > (done[tp].offset if tp in done else 0)]
        # what customers answer and people decided comes round to the workers again
        self.unread = (
            ", ".join(behind)
            or ("" if self.customers.idle else "customers")
            or await self._undone()
            or ("the board's topics" if await self._board_behind() else "")
        )
        return bool(self.unread)

    async def _board_behind(self) -> bool:
        """Whether the board or actions have something to read."""
        there = await self.wall(
            "SELECT topic, partition, next FROM board.offsets UNION SELECT 'acts', partition, next FROM board.actions_read"
        )
        at = {(row["topic"], row["partition"]): row["next"] for row in there}
        for topic in BOARD_READS:
            ends = await self.ends([topic]) if topic != "rules.packs" else {}
            plain = {tp.partition: end for tp, end in ends.items()}
            if any(at.get((topic, p), 0) < end for p, end in plain.items()):
                return True
            if topic == "orders.actions" and any(at.get(("acts", p), 0) < end for p, end in plain.items()):
                return True
        return False

    async def _undone(self) -> str:
        """The decisions that are not said yet, and the deeds that are due: kind, state, attempts, last error."""
        (row,) = await self.wall(
            "SELECT concat_ws(', ', (SELECT string_agg(concat_ws(' ', 'decision', id), ', ') FROM board.outbox WHERE sent_at IS NULL),"
            " (SELECT string_agg(concat_ws(' ', kind, state, attempts, error), ', ') FROM board.messages"
            " WHERE state IN ('waiting', 'trying') AND next_at < %s)) AS said",
            # a lock's end is two hours away
            store.now() + 1_800_000,
        )
        return str(row["said"])

    async def _erp_has_all(self) -> bool:
        ends = await self.ends(["orders.released", "orders.recalled"])
        there = {(row[0], row[1]): row[2] for row in await self.sql("SELECT topic, partition, next FROM position")}
        return all(there.get((tp.topic, tp.partition), 0) >= end for tp, end in ends.items())

    async def wall(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the board's database, read beside it."""
        async with await psycopg.AsyncConnection.connect(self.people.url, autocommit=True, row_factory=dict_row) as connection:
            return await (await connection.execute(query, values)).fetchall()

    async def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ERP's database, read beside it."""
        async with await psycopg.AsyncConnection.connect(self.database, autocommit=True) as connection:
            return await (await connection.execute(query)).fetchall()


def _accounts(place: str) -> dict[str, str]:
    """API tokens of a reviewer who is a supervisor too, and of an approver; and whoever is told in messages."""
    store.migrate(place)
    tokens = {}
    with store.connect(place) as db:
        for login, roles in (
            ("reviewer", ("reviewer", "supervisor")),
            ("approver", ("approver",)),
            ("supervisor", ("supervisor",)),
        ):
            person = accounts.invited(db, accounts.invite(db, login, store.now(), "faults", roles=roles), store.now())
            assert person is not None
            tokens[login] = accounts.make_token(db, person, "faults", 1, store.now(), reads_only=False)
    return tokens
