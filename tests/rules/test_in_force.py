"""What a worker shows of the packs: what is in force now, also where nothing was said when it came to be."""

from __future__ import annotations

import pytest

from agents import app
from agents.app import Knowledge
from orderstream.metrics import Metrics
from orderstream.rules.book import Activation, activation_record, pack_record
from orderstream.rules.pack import Pack, load
from orderstream.settings import data_file

STANDARD = load(data_file("rules/standard"))
MILD = STANDARD.without("ip-pair")
BYPASS = STANDARD.without(*STANDARD.rules)


class Worker:
    """A worker's knowledge, its gauges, and a clock of our own (ms)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.metrics = Metrics()
        self.known = Knowledge(self.metrics)
        self.now = 0
        monkeypatch.setattr(app.time, "time_ns", lambda: self.now * 1_000_000)

    def reads(self, pack: Pack, at: int) -> None:
        for key, value in (pack_record(pack), activation_record(Activation(at, pack.version, "publish"))):
            self.known.pack(key, value, 0)

    def shows(self) -> tuple[list[str], float | None, float | None]:
        """(packs in force, rules disabled, bypass)"""
        found = self.metrics.registry.get_sample_value
        packs = [s.labels["pack"] for m in self.metrics.pack_info.collect() for s in m.samples]
        return packs, found("orderstream_disabled_rules"), found("orderstream_bypass")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(monkeypatch)


def test_a_pack_that_comes_due_is_shown_without_a_record(worker: Worker) -> None:
    """An activation lies ahead of its record: the gauges move at its time, at the next tick."""
    worker.reads(STANDARD, 0)
    worker.reads(MILD, 2000)
    worker.known.whole(8)
    assert worker.shows() == ([STANDARD.version], 0, 0)

    worker.now = 2000
    worker.known.show()
    assert worker.shows() == ([MILD.version], 1, 0)


def test_a_bypass_is_shouted_once_and_only_while_it_is_in_force(worker: Worker, logged_errors: list[str]) -> None:
    """One that ended before this worker began is history; one that begins is loud, on the log and on the gauge."""
    worker.now = 10_000
    worker.reads(STANDARD, 0)
    worker.reads(BYPASS, 1000)
    worker.reads(STANDARD, 2000)
    worker.known.whole(8)
    assert logged_errors == []

    worker.reads(BYPASS, 10_000)
    worker.known.show()
    assert worker.shows() == ([BYPASS.version], len(STANDARD.rules), 1)
    assert len(logged_errors) == 1
    assert "BYPASS" in logged_errors[0]

    worker.reads(STANDARD, 11_000)
    assert worker.shows()[2] == 1
    worker.now = 11_000
    worker.known.show()
    assert worker.shows() == ([STANDARD.version], 0, 0)


def test_an_activation_before_its_pack_stops_nobody(worker: Worker) -> None:
    """Compaction keeps a pack's last record, which may lie behind its first activation."""
    record, activation = pack_record(STANDARD), activation_record(Activation(0, STANDARD.version, "publish"))
    worker.known.pack(*activation, 0)
    worker.known.whole(8)
    assert worker.shows() == ([], 0, 0)

    worker.known.pack(*record, 1)
    assert worker.shows() == ([STANDARD.version], 0, 0)
