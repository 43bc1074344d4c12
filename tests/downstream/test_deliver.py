"""Releases and recalls by signed HTTP to a real receiving ERP: each applied once, in the order's sequence, whatever is killed."""

from __future__ import annotations

import http.server
import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import orjson
import pytest

from orderstream.board.store import connect
from orderstream.consumers.signature import SIGNATURE, TIMESTAMP, UnsignedError, sign, verify
from orderstream.downstream import deliver, deliveries
from orderstream.downstream.deliveries import Delivery
from tests.downstream.conftest import publish, values
from tests.downstream.test_process import SECRETS, recalled, released
from tests.waiting import wait_until

# signatures


def test_any_secret_of_either_side_proves_a_request_so_that_one_can_be_changed():
    """The sender signs with all it has, the receiver takes any it has; one that both have is enough, none is not."""
    headers = sign([b"new", b"old"], "o/1", b"body", 1000)
    assert verify([b"old"], headers, b"body", 1000) == "o/1"
    assert verify([b"newer", b"new"], {name.upper(): value for name, value in headers.items()}, b"body", 1000) == "o/1"
    for secrets, changed, body, now in (
        ([b"older"], {}, b"body", 1000),
        ([], {}, b"body", 1000),
        ([b"new"], {}, b"body ", 1000),
        ([b"new"], {TIMESTAMP: "1001"}, b"body", 1000),
        ([b"new"], {"X-Orderstream-Key": "o/2"}, b"body", 1000),
        ([b"new"], {SIGNATURE: ""}, b"body", 1000),
        ([b"new"], {SIGNATURE: "sha256=é"}, b"body", 1000),
        ([b"new"], {TIMESTAMP: "soon"}, b"body", 1000),
        ([b"new"], {}, b"body", 1301),
        ([b"new"], {}, b"body", 699),
    ):
        with pytest.raises(UnsignedError):
            verify(secrets, {**headers, **changed}, body, now)


def test_pauses_double_to_a_bound_and_differ():
    """From a second to five minutes, never longer, also after a thousand attempts; by chance up to half shorter."""
    dice = random.Random(1)
    for attempts, most in ((0, 1), (3, 8), (8, 256), (9, 300), (5000, 300)):
        found = {deliver.pause(attempts, dice) for _ in range(50)}
        assert most / 2 <= min(found) < max(found) <= most
        assert len(found) > 40


def test_what_an_erp_says_is_believed_as_far_as_it_is_of_our_form():
    """Nothing, or nonsense: it did what the record asks, and has not said what it booked."""
    one = Delivery("o", 1, "orders.released", b"", 0, 0)

    def said(body: bytes) -> dict:
        ack = deliver.acknowledgement(one, body, 5)
        return {name: value for name, value in ack.items() if name not in ("order_id", "verdict_seq", "at")}

    assert (
        said(b"")
        == said(b"OK")
        == said(b'{"effect": "wonder"}')
        == said(b'{"total": -5, "currency": "CNY"}')
        == {"effect": "accepted"}
    )
    assert said(b'{"effect": "refused", "reason": "no such article"}') == {"effect": "refused", "reason": "no such article"}
    booked = {"effect": "accepted", "total": 100, "currency": "CNY"}
    assert said(b'{"total": 100, "currency": "CNY"}') == booked
    assert said(b'{"total": 100, "currency": "CNY", "refunded": 30}') == {**booked, "refunded": 30}
    # money back is of what was booked, and no less than nothing
    assert said(b'{"total": 100, "currency": "CNY", "refunded": -1}') == booked
    assert said(b'{"refunded": 30}') == {"effect": "accepted"}


# the table


def row(order: str, seq: int, topic: str = "orders.released") -> bytes:
    del topic
    return orjson.dumps({"order_id": order, "verdict_seq": seq})


def test_one_at_a_time_an_order_in_its_sequence(database):
    """The second waits for the first, also while that one is under way; orders do not wait for each other."""
    with connect(database) as db:
        deliveries.take(
            db, "orders.released", 0, [(0, 1, b"a", row("a", 1)), (1, 1, b"a", row("a", 3)), (2, 1, b"b", row("b", 1))]
        )
        later = int(time.time() * 1000) + 1000
        first = deliveries.claim(db, later, 10, 60_000)
        assert [one.key for one in sorted(first)] == ["a/1", "b/1"]
        assert deliveries.claim(db, later, 10, 60_000) == []
        assert [one.key for one in sorted(deliveries.claim(db, later + 60_000, 10, 60_000))] == ["a/1", "b/1"]
        deliveries.delivered(db, first[0] if first[0].order_id == "a" else first[1], {})
        assert [one.key for one in deliveries.claim(db, later, 10, 60_000)] == ["a/3"]


def test_what_is_overtaken_is_not_sent_and_its_bytes_go(database):
    """A recall that was read and delivered first takes its release's place; nothing personal stays behind."""
    with connect(database) as db:
        deliveries.take(db, "orders.recalled", 0, [(0, 1, b"a", row("a", 2))])
        later = int(time.time() * 1000) + 1000
        [recall] = deliveries.claim(db, later, 10, 60_000)
        deliveries.delivered(db, recall, {})
        deliveries.take(db, "orders.released", 0, [(0, 1, b"a", row("a", 1)), (1, 1, b"a", row("a", 1))])
        assert deliveries.claim(db, later, 10, 60_000) == []
        states = db.execute("SELECT seq, state, body FROM board.deliveries ORDER BY seq").fetchall()
    assert [(one["seq"], one["state"], one["body"]) for one in states] == [(1, "overtaken", None), (2, "delivered", None)]


def test_a_tombstone_takes_what_is_still_to_be_sent(database):
    """An order that is forgotten is sent to nobody, and its bytes are gone."""
    with connect(database) as db:
        deliveries.take(db, "orders.released", 0, [(0, 1, b"a", row("a", 1)), (1, 2, b"a", None)])
        assert deliveries.claim(db, 2**50, 10, 1) == []
        [kept] = db.execute("SELECT state, body FROM board.deliveries").fetchall()
    assert (kept["state"], kept["body"]) == ("forgotten", None)


def test_a_dead_letter_waits_for_a_person_and_holds_nobody_up(database):
    """The order's next record goes; tried anew it is sent, unless it was overtaken meanwhile."""
    with connect(database) as db:
        deliveries.take(db, "orders.released", 0, [(0, 1, b"a", row("a", 1)), (1, 1, b"b", row("b", 1))])
        later = int(time.time() * 1000) + 1000
        for one in deliveries.claim(db, later, 10, 60_000):
            deliveries.failed(db, one, "HTTP 422 no such article", None)
        assert [(one.order_id, one.error) for one in deliveries.dead(db)] == [
            ("a", "HTTP 422 no such article"), ("b", "HTTP 422 no such article"),
        ]  # fmt: skip
        deliveries.take(db, "orders.recalled", 0, [(0, 1, b"a", row("a", 2))])
        [recall] = deliveries.claim(db, later, 10, 60_000)
        deliveries.delivered(db, recall, {})
        assert deliveries.retry(db, None) == 1
        assert [one.key for one in deliveries.claim(db, later + 60_000, 10, 60_000)] == ["b/1"]
        assert deliveries.counts(db).dead == 0


# processes


class Fake(http.server.ThreadingHTTPServer):
    """An ERP that answers as it is told to: status by key, in turn; `seen`: key and headers in the order of arrival."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, list[int]] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/orders"

    def asked(self) -> list[str]:
        with self.lock:
            return [key for key, _, _ in self.seen]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Fake

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["X-Orderstream-Key"]
        with self.server.lock:
            self.server.seen.append((key, dict(self.headers), body))
            left = self.server.answers.get(key, [])
            status = left.pop(0) if left else 200
        said = b"no such article" if status == 422 else b"{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake() -> Iterator[Fake]:
    server = Fake()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def states(database: str) -> dict[str, str]:
    with connect(database) as db:
        found = db.execute("SELECT order_id, seq, state FROM board.deliveries").fetchall()
    return {f"{one['order_id']}/{one['seq']}": one["state"] for one in found}


@pytest.mark.stream
def test_it_is_tried_until_it_is_taken_and_only_a_wrong_record_is_dead(fresh_topics, database, run):
    """5xx, 401 and 429 are tried again; 422 is a dead letter that a person may retry; the bytes and the signatures are exact."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    a, b, c = "api:main:A1", "api:main:A2", "api:main:A3"
    with fake() as erp:
        erp.answers = {f"{a}/1": [503, 401, 429], f"{b}/1": [422]}
        records = [released(a, 1, "p@1"), released(b, 1, "p@1"), released(c, 1, "p@1"), released(a, 2, "p@1")]
        publish(settings, *records)
        env = {"ORDERSTREAM_DATABASE": database, "ORDERSTREAM_DELIVERY_URL": erp.url}
        process = run("downstream", "deliver", env=env)
        wanted = {f"{a}/1": "delivered", f"{a}/2": "delivered", f"{b}/1": "dead", f"{c}/1": "delivered"}
        wait_until(lambda: process.up() and states(database) == wanted, lambda: f"{states(database)} {process.said()}")
        assert [key for key in erp.asked() if key.startswith(a)] == [f"{a}/1"] * 4 + [f"{a}/2"]
        key, headers, body = next(one for one in erp.seen if one[0] == f"{c}/1")
        assert json.loads(body) == records[2][1]
        for secret in (b"new", b"old"):
            assert verify([secret], headers, body, int(time.time())) == key
        shown = run("downstream", "dead", "--json", env=env)
        assert shown.child.wait(120) == 0, shown.said()
        [dead] = json.loads(shown.said().splitlines()[-1])
        assert (dead["order_id"], dead["error"]) == (b, "HTTP 422 no such article")
        assert run("downstream", "retry", b, env=env).child.wait(120) == 0
        wait_until(lambda: states(database)[f"{b}/1"] == "delivered", process.said)
        process.stop()


DIES_BEFORE_NOTING = """
import os, signal
from orderstream.downstream import deliveries
real, count = deliveries.delivered, 0
def dying(db, one, ack):
    # the receiver has done it and said so, and nothing of that is written here
    global count
    count += 1
    if count == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(db, one, ack)
deliveries.delivered = dying
"""
DIES_BEFORE_ANSWERING = """
import os, signal
from orderstream.consumers import erp_http
real, count = erp_http.HttpErp.receive, 0
def dying(self, body):
    global count
    done = real(self, body)
    count += 1
    if count == 7:
        # the effect is written, and nobody hears of it
        os.kill(os.getpid(), signal.SIGKILL)
    return done
erp_http.HttpErp.receive = dying
"""


@pytest.mark.stream
def test_killed_between_the_receiver_s_effect_and_our_note_each_is_applied_once(fresh_topics, database, run, tmp_path):
    """SIGKILL on either side between effect and note, several times: every order ends as it should, each verdict has one effect."""
    settings = fresh_topics(database=database, secrets=SECRETS)
    records, expected = [], {}
    for n in range(40):
        order = f"api:main:A{n}"
        records.append(released(order, 1, "p@1", total=100 + n))
        expected[order] = "accepted"
        if n % 4 == 0:
            records.append(recalled(order, 2, "p@1"))
            expected[order] = "stopped"
    publish(settings, *records)
    with fake() as placeholder:
        port = placeholder.server_port
    url = f"http://127.0.0.1:{port}/orders"
    # the lease of what dies under way is over in a moment
    env = {"ORDERSTREAM_DATABASE": database, "ORDERSTREAM_DELIVERY_URL": url, "ORDERSTREAM_DELIVERY_SECONDS": "3"}
    own = {"ORDERSTREAM_DATABASE": ""}

    def erp(prelude: str = ""):
        return run("--port", str(port), env=own, prelude=prelude, module="orderstream.consumers.erp_http")

    def there() -> bool:
        try:
            return httpx.post(url, content=b"{}", trust_env=False).status_code == 401
        except httpx.TransportError:
            return False

    first = erp(DIES_BEFORE_ANSWERING)
    wait_until(there, first.said)
    sender = run("downstream", "deliver", env=env, prelude=DIES_BEFORE_NOTING.format(count=3))
    sender.dies(180)
    sender = run("downstream", "deliver", env=env, prelude=DIES_BEFORE_NOTING.format(count=12))
    first.dies(180)
    second = erp()
    wait_until(there, second.said)
    sender.dies(180)
    sender = run("downstream", "deliver", env=env)

    def applied() -> dict:
        with closing(sqlite3.connect(f"file:{tmp_path / 'erp-http.sqlite'}?mode=ro", uri=True)) as db:
            return dict(db.execute("SELECT order_id, state FROM orders").fetchall())

    wait_until(lambda: applied() == expected, lambda: f"{applied()} {sender.said()}")
    wait_until(lambda: not {"waiting", "dead"} & set(states(database).values()), sender.said)
    with closing(sqlite3.connect(tmp_path / "erp-http.sqlite")) as db:
        repeated = db.execute("SELECT order_id, verdict_seq, count(*) FROM journal GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
    assert repeated == []
    sender.stop()
    # what the ERP said goes to erp.acks by the process that watches, once for each verdict
    watch = run("downstream", env={"ORDERSTREAM_DATABASE": database}).up()
    delivered = {tuple(key.rsplit("/", 1)) for key, state in states(database).items() if state == "delivered"}
    wait_until(lambda: len(values(settings, "erp.acks")) >= len(delivered), watch.said)
    acks = values(settings, "erp.acks")
    assert sorted((one["order_id"], str(one["verdict_seq"])) for one in acks) == sorted(delivered)
    assert {one["order_id"]: one["total"] for one in acks if one["effect"] == "accepted"}.items() >= {("api:main:A1", 101)}
    watch.stop()
