"""What follows from an action, on a real PostgreSQL and gateways on sockets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import orjson
import pytest
import yaml

from orderstream import times
from orderstream.actions import ledger, plan, receivers, work
from orderstream.actions.work import Shop
from orderstream.board import decide, store
from orderstream.board.decide import Person, Terms
from orderstream.board.store import Db
from orderstream.catalogue import Catalogue, read_article
from orderstream.identity import Keys
from orderstream.metrics import Metrics
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import Settings, data_file
from orderstream.simulators.gateways import Gateways
from tests.actions.conftest import receivers_file
from tests.actions.rig import PERSONAL, SHIP_TO, Feed, action, oid, order, people, signal

HOUR = 3_600_000
WANG = Person("wang", frozenset(["supervisor"]))
CHEN = Person("chen", frozenset(["approver"]))


class Nowhere:
    """No Kafka: what is told to people needs none."""

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> Any:
        raise AssertionError(topic)


class Kept:
    """A Kafka that keeps what it is given: (topic, value)."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> Any:
        self.said.append((topic, orjson.loads(value)))


class Desk:
    """A board, a file, and whoever carries out."""

    def __init__(self, db: Db, shop: Shop, gateways: Gateways, path: Path) -> None:
        self.db, self.shop, self.gateways, self.path = db, shop, gateways, path
        self.feed = Feed(db)

    def file(self, **changes: Any) -> None:
        address = self.gateways.address  # type: ignore[attr-defined]
        self.shop.file = receivers.read(receivers_file(self.path, address, **changes))

    async def go_on(self, ahead: int = 10_000) -> None:
        """Carries out all that falls due until so many ms from now."""
        work.adopt(self.db, store.now())
        for later in (0, ahead):  # as it is in the world: all that is due is taken apart before what follows from it falls due
            while rows := ledger.take(self.db, store.now() + later, 8, self.shop.pace(store.now() + later)):
                await asyncio.gather(*(work.carry_out(self.shop, row) for row in rows))

    def rows(self, kind: str) -> list[tuple[str, str, str | None]]:
        found = self.db.execute("SELECT receiver, state, error FROM board.messages WHERE kind = %s ORDER BY 1, 2", (kind,))
        return [(row["receiver"], row["state"], row["error"]) for row in found]


@pytest.fixture
async def desk(database: str, gateways: Gateways, tmp_path: Path) -> AsyncIterator[Desk]:
    pool = store.pool(database, 4)
    path = tmp_path / "actions.yaml"
    file = receivers.read(receivers_file(path, gateways.address))  # type: ignore[attr-defined]
    shop = Shop(Settings.load(), "http://links.example", file, pool, Nowhere(), Metrics())
    with store.connect(database) as db:
        people(db, wang=["supervisor"], chen=["approver"], zhou=["approver"])
        yield Desk(db, shop, gateways, path)
    await shop.http.aclose()
    pool.close()


async def test_an_approver_is_told_and_never_the_asker(desk: Desk) -> None:
    """Whoever stands in for them too; what is decided meanwhile is told to nobody any more."""
    desk.file(
        receivers={one: {"via": "hook", "person": one} for one in ("chen", "zhou", "wang")}, roles={"approver": ["chen", "wang"]}
    )
    number = order(desk.feed, "A1", signal("platform-hold"))
    decide.decide(desk.db, WANG, {number: 1}, "release", "checked", at=store.now(), terms=Terms())
    desk.db.execute(
        "INSERT INTO board.deputies (person, deputy, roles, since, until, by, at) VALUES ('chen', 'zhou', '{approver}', 0, %s, 'x', 0)",
        (store.now() + HOUR,),
    )
    await desk.go_on()
    assert desk.rows("notify") == [("chen", "sent", None), ("zhou", "sent", None)]
    bodies = [taken.body for taken in desk.gateways.taken]
    assert [[link["label"] for link in body["links"]] for body in bodies] == [["同意放行", "不同意"]] * 2
    assert "申请人 wang" in str(bodies[0]["lines"])
    second = order(desk.feed, "A2", signal("platform-hold"))
    decide.decide(desk.db, WANG, {second: 1}, "release", "checked", at=store.now(), terms=Terms())
    work.adopt(desk.db, store.now())
    (row,) = ledger.take(desk.db, store.now(), 8, desk.shop.pace(store.now()))
    await work.carry_out(desk.shop, row)
    found = desk.db.execute("SELECT id FROM board.decisions WHERE order_id = %s", (second,)).fetchone()
    assert found is not None
    decide.approve(desk.db, CHEN, found["id"], yes=False, at=store.now())
    await desk.go_on()
    assert desk.rows("notify")[0] == ("chen", "dropped", "decided")
    assert len(desk.gateways.taken) == 2


async def test_what_may_be_taken_back_is_not_sent_to_a_customer_yet(desk: Desk) -> None:
    """`Confirm with the customer` on the board goes out when its minute is over; taken back in time, it never does."""
    for number in ("A1", "A2"):
        order(desk.feed, number)
    now = store.now()
    decide.decide(desk.db, WANG, {oid("A1"): 1}, "confirm", "duplicate", at=now, terms=Terms())
    back = decide.decide(desk.db, WANG, {oid("A2"): 1}, "confirm", "duplicate", at=now, terms=Terms())
    await desk.go_on(decide.UNDO // 2)
    assert desk.gateways.taken == []
    decide.undo(desk.db, WANG, back.bulk, at=now + 1000)
    await desk.go_on(decide.UNDO + 10_000)
    (sms,) = desk.gateways.of("sms")
    assert sms.body["to"] == "+8613910000124"
    assert desk.rows("confirm") == [("customer", "dropped", "taken-back"), ("customer", "sent", None)]


async def test_who_cannot_be_reached_is_called_by_the_desk(desk: Desk) -> None:
    """A masked number and no mail: the desk is told, and of whom it is it finds on the board."""
    number = order(desk.feed, "A1", buyer={"id": "u-1"}, ship_to={**SHIP_TO, "phone": "139****0124"})
    action(desk.db, "confirm", number, by=["sms", "email"])
    await desk.go_on()
    (taken,) = desk.gateways.of("feishu")
    assert "联系不上客户" in str(taken.body)
    assert [mark for mark in PERSONAL if mark in str(taken.body)] == []


async def test_a_customer_abroad_is_asked_in_english_by_the_other_gateway(desk: Desk) -> None:
    """And at night nobody is."""
    desk.file(customers={"sms": "sms", "sms_abroad": "aliyun"})
    abroad = {"name": "Ann Lee", "country": "US", "phone": "+1 415 555 2671"}
    number = order(desk.feed, "A1", buyer={"id": "u-2", "phone": "+14155552671"}, ship_to=abroad)
    action(desk.db, "confirm", number)
    await desk.go_on()
    (taken,) = desk.gateways.of("aliyun")
    assert (taken.body["TemplateCode"], taken.body["PhoneNumbers"]) == ("SMS_2", "14155552671")
    assert taken.body["TemplateParam"]["shop"] == "Example Shop"
    local = datetime.now(ZoneInfo(desk.shop.settings.timezone))
    night = "-".join((local + timedelta(hours=by)).strftime("%H:%M") for by in (-2, 2))
    desk.file(customers={"sms": "sms", "quiet": night})
    action(desk.db, "confirm", order(desk.feed, "A2"))
    await desk.go_on()
    assert desk.gateways.of("sms") == []


async def test_each_customer_has_a_pace_of_their_own(desk: Desk) -> None:
    """One message a minute is one to each: who ordered twice waits, somebody else does not. Nobody's number stands in a row."""
    gateway = {"kind": "http-sms", "url": f"{desk.gateways.address}/sms", "secret": desk.gateways.secret, "per_minute": 1}  # type: ignore[attr-defined]
    desk.file(gateways={"sms": gateway}, receivers={}, roles={})
    for number, phone in (("A1", "13910000124"), ("A2", "13910000124"), ("A3", "13810000125")):
        action(desk.db, "confirm", order(desk.feed, number, buyer={"id": number, "phone": phone}))
    await desk.go_on()
    assert sorted(taken.body["to"] for taken in desk.gateways.of("sms")) == ["+8613810000125", "+8613910000124"]
    assert [state for _, state, _ in desk.rows("confirm")] == ["sent", "sent", "waiting"]
    rows = str(desk.db.execute("SELECT * FROM board.messages").fetchall())
    assert "13910000124" not in rows
    await desk.go_on(ledger.MINUTE + 10_000)
    assert len(desk.gateways.of("sms")) == 3


async def test_what_nobody_needs_to_hear_is_not_said(desk: Desk) -> None:
    """An order withdrawn or decided before its message goes out."""
    one, two = order(desk.feed, "A1"), order(desk.feed, "A2")
    decide.decide(desk.db, WANG, {one: 1}, "cancel", "fraud", at=store.now(), terms=Terms())
    desk.db.execute("UPDATE board.orders SET verdict = 'withdrawn', state = 'closed' WHERE order_id = %s", (two,))
    for number in (one, two):
        action(desk.db, "second-check", number, rule="duplicate-order", level="medium")
    action(desk.db, "confirm", two)
    # one at a time: told together they are about more than one
    desk.db.execute("UPDATE board.messages SET rule = 'user-burst' WHERE order_id = %s AND body->>'do' = 'second-check'", (two,))
    await desk.go_on()
    assert desk.gateways.taken == []
    assert {state for _, state, _ in desk.rows("notify") + desk.rows("confirm")} == {"dropped"}


async def test_a_recall_unlocks_at_once_and_the_lock_s_end_says_nothing_more(desk: Desk) -> None:
    """Lock, recalled; two hours later there is nothing left to give back. A lock whose time is over already is not said."""
    desk.shop.producer = kafka = Kept()
    one, late = order(desk.feed, "A1"), order(desk.feed, "A2")
    action(desk.db, "lock-stock", one, until=store.now() + 2 * HOUR)
    action(desk.db, "lock-stock", late, until=store.now() - 1)
    await desk.go_on()
    action(desk.db, "unlock-stock", one)
    await desk.go_on()
    await desk.go_on(3 * HOUR)
    assert [(said["order_id"], said["command"], said["why"]) for _, said in kafka.said] == [
        (one, "lock", "rule"),
        (one, "unlock", "recalled"),
    ]
    assert desk.rows("unlock") == [("", "dropped", "unlocked-before"), ("", "sent", None)]


async def test_a_network_is_challenged_where_there_is_one_and_in_time(desk: Desk) -> None:
    """One whose order shows no address, or was forgotten, or whose time was over before it could be said, is asked of no front end."""
    desk.shop.producer = kafka = Kept()
    known, nowhere, late = order(desk.feed, "A1"), order(desk.feed, "A2", buyer={"id": "u-1"}), order(desk.feed, "A3")
    for number in (known, nowhere):
        action(desk.db, "challenge", number)
    action(desk.db, "challenge", late, until=store.now() - 1)
    action(desk.db, "challenge", order(desk.feed, "A4"))
    desk.feed(("orders.review", None, oid("A4")))
    await desk.go_on()
    assert [(topic, said["segment"]) for topic, said in kafka.said] == [("channel.challenges", "203.0.113.0/24")]
    assert {(state, error) for _, state, error in desk.rows("challenge")} == {
        ("dropped", "no-ip"),
        ("dropped", "over"),
        ("dropped", "forgotten"),
        ("sent", None),
    }


async def test_a_link_is_about_what_its_message_says(desk: Desk) -> None:
    """Signals that came between the action and its message stand in the message: its links decide with them seen."""
    number = order(desk.feed, "A1", signal("duplicate-order"))
    action(desk.db, "second-check", number, to="supervisor")
    order(desk.feed, "A1", signal("duplicate-order"), signal("user-burst"), seq=2)
    await desk.go_on()
    assert desk.db.execute("SELECT DISTINCT seq FROM board.links").fetchall() == [{"seq": 2}]


async def test_a_burst_calls_one_meeting_and_sends_one_message(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six orders of one case: one record, one call, one notice that names them."""
    # however slow this machine is, all six are there before the first is told
    monkeypatch.setattr(plan, "GATHER", HOUR)
    for n in range(6):
        order(desk.feed, f"A{n}", signal("platform-hold", "A0"))
    for n in range(6):
        action(desk.db, "notify", oid(f"A{n}"), rule="platform-hold", level="high", to="risk")
        row = action(desk.db, "meeting", oid(f"A{n}"), rule="platform-hold", level="high", to="risk")
        assert row.kind == "action"
    await desk.go_on(2 * HOUR)
    titles = {body[body["msgtype"]]["title"] for body in (taken.body for taken in desk.gateways.of("dingtalk"))}
    assert titles == {"请召开风控会议：平台要求暂不发货", "订单已冻结（6 单）：平台要求暂不发货"}
    assert len(desk.gateways.taken) == 2
    assert desk.db.execute("SELECT count(*) AS n FROM board.meetings").fetchone() == {"n": 1}


async def test_deadlines_are_told_as_the_board_steps_through_them(desk: Desk) -> None:
    """Who is named by the board's row, once; nobody is reminded whom the file does not name."""
    number = order(desk.feed, "A1")
    for step, role in (("reminded", "reviewer"), ("supervisor", "supervisor")):
        desk.db.execute(
            "INSERT INTO board.escalations (order_id, seq, step, done, deadline, at, whom) VALUES (%s, 1, %s, %s, 99, %s, %s)",
            (number, step, step, store.now(), '{"role": "' + role + '", "deputies": {}}'),
        )
    await desk.go_on()
    await desk.go_on()
    (taken,) = desk.gateways.taken
    assert taken.body["title"].startswith("订单快到期")
    assert [link["label"] for link in taken.body["links"]] == ["放行", "取消订单"]


async def test_a_role_that_nobody_is_becomes_a_dead_letter_that_can_be_mended(desk: Desk) -> None:
    """The file is mended, the letter put back, and it goes out."""
    action(desk.db, "notify", order(desk.feed, "A1"), to="warehouse")
    await desk.go_on()
    assert desk.rows("notify") == [("warehouse", "dead", "no-receiver")]
    desk.file(roles={"warehouse": ["group"]}, receivers={"group": {"via": "ding"}})
    ledger.retry(desk.db, [oid("A1")], store.now())
    await desk.go_on()
    assert len(desk.gateways.of("dingtalk")) == 1


async def test_a_rule_s_file_says_who_is_told(desk: Desk, tmp_path: Path) -> None:
    """From a changed line of a pack to the message: no code knows which rule triggers what."""
    pack = tmp_path / "pack"
    shutil.copytree(data_file("rules/standard"), pack)
    rule = yaml.safe_load((pack / "platform-hold.yaml").read_text("utf-8"))
    rule["actions"] = [{"do": "notify", "to": "desk"}]
    (pack / "platform-hold.yaml").write_text(yaml.safe_dump(rule, allow_unicode=True), "utf-8")
    article = {"sku": "S", "name": "收纳架", "base_price": "9.00", "codes": [{"channel": "api", "code": "c"}]}
    line = Pipeline(Catalogue([read_article(orjson.dumps(article))]), PackBook([load(pack)]), Keys(b"tests"), "Asia/Shanghai")
    at = times.text(store.now())
    body = {
        "order_id": "A1",
        "created_at": at,
        "status": "paid",
        "currency": "CNY",
        "lines": [{"code": "c", "quantity": 1, "price": "9.00"}],
        "hold": "wait",
    }
    told = line.feed(
        read_item({"kind": "raw", "channel": "api", "shop": "main", "received_at": at, "body": body}, Keys(b"tests"), "CNY")
    )

    for public in told:
        if public.topic == "orders.actions":
            ledger.read(desk.db, public.topic, 0, [plan.read(msgspec.json.encode(public.value))], 1, store.now())
        else:
            desk.feed((public.topic, orjson.loads(msgspec.json.encode(public.value))))
    await desk.go_on()

    assert desk.rows("notify") == [("desk-group", "sent", None)]
    (message,) = desk.gateways.of("feishu")
    assert "平台要求暂不发货" in orjson.dumps(message.body).decode()
    assert desk.gateways.taken == [message]
