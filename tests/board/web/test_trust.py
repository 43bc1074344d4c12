"""Whitelist and resting rules: made from an order that is at hand, said to the line, shown masked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec
import pytest

from orderstream import kafka, replay, times, topics
from orderstream.board import store
from orderstream.identity import Keys
from orderstream.settings import Settings
from tests.board.core.records import signal
from tests.board.web.conftest import KEY, Board, running
from tests.board.web.test_api import caller
from tests.waiting import wait_until

pytestmark = pytest.mark.stream


def test_a_trust_is_a_record_that_the_line_reads(fresh_topics: Callable[..., Settings], database: str):
    """With who, why and until when; its key is on the topic alone, and not in audit, address or page."""
    settings = fresh_topics(partitions=1, database=database, key=KEY)
    with running(settings) as (url, app), store.connect(database) as db:
        board = Board(url, db, app)
        board.feed.waiting("A1", signal("duplicate-order", "A0"), buyer={"id": "u-000124"})
        client = board.client(board.person("lin", "supervisor"))
        assert "加入白名单" in client.get("/orders/api:main:A1").text
        form = {
            "order_id": "api:main:A1",
            "entity": "user",
            "rule": "duplicate-order",
            "days": "30",
            "why": "家里人代买 13910000124",
        }
        assert board.post(client, "/trust", kind="trust", **form).status_code == 303
        assert board.post(client, "/trust", kind="snooze", **{**form, "why": "活动期间"}).status_code == 303
        for wrong in ({"rule": "address-sum"}, {"entity": "device"}, {"days": "0"}, {"why": " "}, {"order_id": "api:main:none"}):
            assert board.post(client, "/trust", kind="trust", **{**form, **wrong}).status_code in {400, 404}, wrong
        assert board.post(board.client(board.person("rev", "reviewer")), "/trust", kind="trust", **form).status_code == 403

        name = topics.name("reference.updates", settings.topic_prefix)
        said = [json.loads(message.value or b"") for message in kafka.read_all(str(settings.brokers), [name])]
        assert [(one["kind"], one["entity"], one["key"], one["rules"], one["by"]) for one in said] == [
            ("trust", "user", "u-000124", ["duplicate-order"], "lin"),
            ("snooze", "user", "u-000124", ["duplicate-order"], "lin"),
        ]
        assert said[0]["why"] == "家里人代买 ***"
        audited = db.execute("SELECT body FROM board.audit WHERE what = 'trust' ORDER BY n").fetchall()
        assert [row["body"]["order"] for row in audited] == ["api:main:A1"] * 2
        assert "u-000124" not in str(audited)

        page = wait_until(lambda: text if "活动期间" in (text := client.get("/trust").text) else "", "the list")
        assert "…0124" in page
        assert "u-000124" not in page
        profile = client.get("/profiles", params={"order": "api:main:A1"}).text
        assert "规则暂停" in profile

        # ended before its time: by the page, and by the API
        trust, rest = re.findall(r'name="id" value="([0-9a-f]{16})"', page)[::-1]
        api = caller(board, "lin", "supervisor")
        listed = {one["id"]: one["kind"] for one in api.get("/trust").json()["entries"]}
        assert listed == {trust: "trust", rest: "snooze"}
        assert board.post(client, "/trust/end", id=trust, why=" ").status_code == 400
        assert board.post(client, "/trust/end", id=trust, why="被滥用 13910000124").status_code == 303
        assert "家里人代买" not in client.get("/trust").text
        assert caller(board, "desk", "desk").post(f"/trust/{rest}/end", json={"why": "x"}).status_code == 403
        assert api.post(f"/trust/{rest}/end", json={"why": "活动结束"}).status_code == 200
        # somebody else was first
        assert board.post(client, "/trust/end", id=trust, why="again").status_code == 404
        assert api.post(f"/trust/{rest}/end", json={"why": "again"}).status_code == 404

        ends = [json.loads(message.value or b"") for message in kafka.read_all(str(settings.brokers), [name])][2:]
        for one, end in zip(said, ends, strict=True):
            # the line takes it for the same one, over from now on
            assert {**end, "until": 0, "why": 0} == {**one, "until": 0, "why": 0}
            (before, *_), (after, *_) = (replay.updates(record, Keys(b"k"), "CNY") for record in (one, end))
            assert after == msgspec.structs.replace(before, until=times.parse(end["until"]))
            assert times.parse(one["at"]) < times.parse(end["until"]) <= store.now()
        assert ends[0]["why"] == "被滥用 ***"
        audited = db.execute("SELECT by, body FROM board.audit WHERE what = 'trust-ended' ORDER BY n").fetchall()
        assert [(row["by"], row["body"]["ended"]) for row in audited] == [("lin", trust), ("lin", rest)]
        assert "u-000124" not in str(audited)
