"""The example ERP on a real PostgreSQL: the same SQL, the same promises."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.consumers.erp import Erp
from orderstream.errors import NoDatabase
from tests.consumers.test_erp_wms import HISTORY, feed, recalled, released
from tests.postgres import another


@pytest.fixture(scope="module")
def url(database_server: str) -> str:
    """A database of this module's own, empty."""
    return another(database_server, f"erp{uuid.uuid4().hex[:8]}")


def emptied(url: str) -> Erp:
    store = Erp(url)
    store.db.execute("TRUNCATE position, orders, journal, intercepts, outgoing")
    return store


@settings(max_examples=25, deadline=None)
@given(extra=st.lists(st.sampled_from(HISTORY), max_size=6), data=st.data())
def test_no_sequence_or_repetition_changes_the_erp(url, extra, data):
    """However verdicts interleave and repeat, each order ends as its highest number says."""
    store = emptied(url)
    feed(store, *data.draw(st.permutations(HISTORY + extra)))
    ends = dict(store.db.execute("SELECT order_id, state FROM orders").fetchall())
    store.close()
    assert ends == {"o1": "accepted", "o2": "accepted", "o3": "stopped"}


def test_a_batch_that_fails_leaves_no_trace_and_what_was_shipped_is_told_once(url):
    """One transaction for effects and position; a shipment waits in the outbox until it is told."""
    store = emptied(url)
    topic, value = released("o1", 1)
    with pytest.raises(ValueError, match=r"orders\.released\[3\]@8"):
        store.take(topic, 3, [(7, value), (8, b"{")])
    assert (store.states(), store.position(topic, 3)) == ({}, 0)
    feed(store, released("o1", 1))
    assert store.ship("o1", 1000)
    feed(store, recalled("o1", 2))
    assert store.states() == {"intercept": 1}
    waiting = store.outgoing()
    assert [(r.topic, r.key, r.what) for r in waiting] == [
        ("erp.acks", "o1", "1"), ("erp.acks", "o1", "2"), ("orders.outcomes", "o1", "shipped"),
    ]  # fmt: skip
    store.gone(waiting)
    assert store.outgoing() == []
    store.close()


def test_two_processes_with_one_position_apply_a_record_once(url):
    """One that was thought dead and wakes up waits for the other's transaction, and then finds its records applied."""
    first, second = emptied(url), Erp(url)
    topic, value = released("o1", 1)
    done: list[str] = []
    with first.transaction():
        waking = threading.Thread(target=lambda: done.extend(second.take(topic, 0, [(0, value)])))
        waking.start()
        first.db.execute("INSERT INTO position VALUES (?, 0, 1)", (topic,))
        waking.join(0.3)
        assert waking.is_alive()
    waking.join(10)
    assert done == ["repeat"]
    assert first.states() == {}
    first.close()
    second.close()


def test_without_a_database_there_is_one_line(tmp_path):
    """At the start, and as an error that names the setting."""
    env = os.environ | {
        "ORDERSTREAM_BROKERS": "127.0.0.1:9",
        "ORDERSTREAM_METRICS_PORT": "0",
        "ORDERSTREAM_DATABASE": f"postgresql:///x?host={tmp_path}",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "orderstream.consumers.erp"], env=env, timeout=60, capture_output=True, text=True, check=False
    )
    assert ended.returncode == NoDatabase.exit_code, ended.stderr
    assert "ORDERSTREAM_DATABASE" in ended.stderr
    assert "Traceback" not in ended.stderr
