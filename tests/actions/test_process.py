"""The whole process: real Kafka, real PostgreSQL, gateways on sockets, and SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from orderstream import kafka, topics
from orderstream.actions import plan
from orderstream.board import store
from orderstream.board.store import Db
from orderstream.settings import Settings
from orderstream.simulators.gateways import Gateways
from tests.actions.conftest import SECRET, receivers_file
from tests.actions.rig import PERSONAL, Feed, oid, order, outcomes, people, signal
from tests.contracts.test_schemas import validator
from tests.waiting import until

pytestmark = pytest.mark.stream

PRELUDE = """
import tests.brief
from orderstream.actions import plan
plan.GATHER = 200
"""
"""A message waits a fifth of a second for others like it, a killed process is missed by its group after three. The lease stays as it
is: a shorter one ends under a busy process.
"""


class Process:
    """`orderstream actions` as a process of its own."""

    def __init__(self, settings: Settings, database: str, file: Path, folder: Path) -> None:
        self.env = {
            **os.environ,
            "ORDERSTREAM_BROKERS": str(settings.brokers),
            "ORDERSTREAM_TOPIC_PREFIX": settings.topic_prefix,
            "ORDERSTREAM_PARTITIONS": str(settings.partitions),
            "ORDERSTREAM_DATABASE": database,
            "ORDERSTREAM_ACTIONS_FILE": str(file),
            "ORDERSTREAM_METRICS_PORT": "0",
            "ORDERSTREAM_LINKS_PORT": "0",
            "ORDERSTREAM_LINKS_URL": "http://links.example",
        }
        self.log = folder / "actions.log"
        self.start()

    def start(self) -> None:
        code = PRELUDE + "from orderstream.cli import run; raise SystemExit(run(['actions']))"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], env=self.env, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def pages(self) -> str:
        """The address of its pages."""
        return self.said().rpartition("pages: ")[2].split()[0]


@pytest.fixture
def db(database: str) -> Iterator[Db]:
    with store.connect(database) as one:
        people(one, wang=["supervisor"], chen=["approver"])
        yield one


async def asked(settings: Settings, *records: dict[str, Any]) -> None:
    """Puts records on orders.actions, as [route] does."""
    topic = topics.name("orders.actions", settings.topic_prefix)
    check = validator("action.v1.schema.json")
    for record in records:
        check.validate(record)
    sent = [(topic, r["order_id"].encode(), orjson.dumps(r)) for r in records]
    await asyncio.to_thread(kafka.send_all, str(settings.brokers), sent)


def wanted(
    do: str, number: str, *, rule: str | None = "ip-pair", level: str = "low", until: int | None = None, **params: Any
) -> dict[str, Any]:
    return {
        "id": plan.key(do, number, str(rule), json.dumps(params)),
        "order_id": oid(number),
        "verdict_seq": 1,
        "action": do,
        "rule": rule,
        "level": level,
        "until": until,
        "params": params,
    }  # fmt: skip


async def read(settings: Settings, topic: str) -> list[dict[str, Any]]:
    name = topics.name(topic, settings.topic_prefix)
    found = await asyncio.to_thread(kafka.read_all, str(settings.brokers), [name])
    return [json.loads(m.value) for m in found if m.value is not None]


def states(db: Db) -> dict[str, int]:
    rows = db.execute("SELECT kind || ' ' || state AS it, count(*) AS n FROM board.messages GROUP BY 1")
    return {row["it"]: row["n"] for row in rows}


async def test_what_is_asked_for_is_done_once_whatever_is_killed(
    fresh_topics: Callable[..., Settings], database: str, db: Db, gateways: Gateways, tmp_path: Path
) -> None:
    """One way through it all: told, locked, challenged, asked, called to a meeting; killed while a gateway has a message and its
    answer is under way; killed again after the success was noted; records said twice. The gateways' keys are each taken to be one,
    and a noted success is never sent again.
    """
    settings = fresh_topics(partitions=2)
    file = receivers_file(tmp_path / "actions.yaml", gateways.address)  # type: ignore[attr-defined]
    feed = Feed(db)
    order(feed, "A1", signal("duplicate-order"))
    order(feed, "A2", signal("platform-hold"))
    until_ = store.now() + 3_600_000
    records = [
        wanted("notify", "A1", rule="duplicate-order", level="medium", to="supervisor"),
        wanted("second-check", "A1", rule="duplicate-order", level="medium"),
        wanted("confirm", "A1", by=["sms", "email"]),
        wanted("lock-stock", "A1", until=until_),
        wanted("challenge", "A2", rule="ip-segment-burst", level="high"),
        wanted("meeting", "A2", rule="platform-hold", level="high", to="risk"),
        wanted("notify", "A2", rule="platform-hold", level="high", to="nobody"),
    ]
    gateways.hold = asyncio.Event()
    await asked(settings, *records)
    process = Process(settings, database, file, tmp_path)
    try:
        # four gateways have taken their message, and nobody has heard that they did; what needs no gateway is noted as done
        noted = {"action sent": 7, "lock sent": 1, "challenge sent": 1}
        await until(
            lambda: gateways.waiting >= 4 and noted.items() <= states(db).items(), lambda: f"{states(db)} {process.said()}"
        )
        process.kill()
        before = len(gateways.taken)
        # the leases of what it had under way end
        db.execute("UPDATE board.messages SET next_at = 0 WHERE state = 'trying'")
        gateways.hold.set()
        await asked(settings, *records[:3])
        process.start()
        done = {
            "action sent": 7,
            "notify sent": 3,
            "notify dead": 1,
            "confirm sent": 1,
            "lock sent": 1,
            "unlock waiting": 1,
            "challenge sent": 1,
        }
        await until(lambda: states(db) == done, lambda: f"{states(db)} {process.said()}")
        # the lock's hour goes by
        (unlock,) = db.execute("SELECT id, next_at FROM board.messages WHERE kind = 'unlock'").fetchall()
        assert unlock["next_at"] == until_
        db.execute("UPDATE board.messages SET next_at = 0 WHERE kind = 'unlock'")
        done["unlock sent"] = done.pop("unlock waiting")
        await until(lambda: states(db) == done, lambda: f"{states(db)} {process.said()}")
        # those that were under way came again with their keys, and no other
        assert len(gateways.taken) == 2 * before
        keyed = [(one.gateway, one.key) for one in gateways.taken if one.key]
        assert {keyed.count(one) for one in keyed} == {2}
        process.kill()
        await asked(settings, *records)
        process.start()
        end = await _end(settings)
        await until(lambda: _position(db) == end, process.said)
        locked = await read(settings, "wms.commands")
        assert [(c["command"], c["why"], c["until"]) for c in locked] == [
            ("lock", "rule", until_),
            ("unlock", "over", None),
        ]
        (challenge,) = await read(settings, "channel.challenges")
        assert (challenge["segment"], challenge["kind"], challenge["shop"]) == ("203.0.113.0/24", "captcha", "main")
        for command in locked:
            validator("wms-command.v1.schema.json").validate(command)
        validator("challenge.v1.schema.json").validate(challenge)
        assert states(db) == done
        assert len(gateways.taken) == 2 * before

        # from the message to the stream: the supervisor's link and the customer's
        (told,) = {t.body["id"]: t.body for t in gateways.of("hook")}.values()
        assert [link["label"] for link in told["links"]] == ["放行", "取消订单"]
        async with httpx.AsyncClient(base_url=process.pages, trust_env=False) as browser:
            released = await browser.post(
                told["links"][0]["url"].removeprefix("http://links.example"), data={"reason": "checked"}
            )
            assert "已放行" in released.text
            (sms,) = {t.body["id"]: t.body for t in gateways.of("sms")}.values()
            assert sms["to"] == "+8613910000124"
            path = sms["text"].rpartition("http://links.example")[2]
            answered = await browser.post(path, data={"answer": "customer-confirmed"})
            assert answered.status_code == 200, answered.text
        assert [o["outcome"] for o in outcomes(db)] == ["released", "customer-confirmed"]

        # the dead letter is seen, mended and put back
        listed = await _cli(process, "list", "--json")
        (dead,) = json.loads(listed)
        assert (dead["receiver"], dead["error"]) == ("nobody", "no-receiver")
        receivers_file(file, gateways.address, roles={"risk": ["group"], "nobody": ["group"], "desk": ["desk-group"]})  # type: ignore[attr-defined]
        assert dead["id"] in await _cli(process, "retry", dead["id"][:12])
        done["notify sent"] += done.pop("notify dead") + 1  # the letter, and the message that came of it
        await until(lambda: states(db) == done, lambda: f"{states(db)} {process.said()}")
        assert len(gateways.taken) == 2 * before + 1
        assert "A2" in await _cli(process, "meeting", oid("A2"))
        assert await asyncio.to_thread(process.end) == 0
    finally:
        if process.process.poll() is None:
            process.kill()
    said = process.said()
    assert [mark for mark in (*PERSONAL, SECRET, "access_token", "/c/", "/d/") if mark in said] == []
    rows = json.dumps(db.execute("SELECT * FROM board.messages").fetchall(), default=str)
    assert [mark for mark in PERSONAL if mark in rows] == []


async def _cli(process: Process, *arguments: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "orderstream", "actions", *arguments],
        env=process.env, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


async def _end(settings: Settings) -> int:
    """How many records orders.actions has had."""
    name = topics.name("orders.actions", settings.topic_prefix)
    return len(list(await asyncio.to_thread(kafka.read_all, str(settings.brokers), [name])))


def _position(db: Db) -> int:
    row = db.execute("SELECT coalesce(sum(next), 0)::int AS n FROM board.actions_read").fetchone()
    return row["n"] if row else 0
