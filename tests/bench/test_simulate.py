"""The model of the line against queues whose answer is known, and against its own bookkeeping."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from bench import simulate
from bench.simulate import Costs, Model

MS = 0.001
ONE = Model(100, 60_000, 1, 1, Costs(MS, 0, 0, 0), facts=0, skus=0, hop=0, gather=0, take=1)
"""One server, every order 1 ms, one at a time: M/D/1."""


@pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
def test_one_server_waits_as_an_m_d_1_queue(load):
    """Mean time in the system: D + ρD / 2(1 - ρ); and the server is busy for ρ of its time."""
    found = simulate.simulate(ONE._replace(rate=load / MS))
    expected = MS + load * MS / (2 * (1 - load))
    assert sum(found.waits) / len(found.waits) == pytest.approx(expected, rel=0.06)
    assert found.busy[0] == pytest.approx(load, rel=0.03)


def test_an_order_alone_takes_the_way_that_it_has():
    """Gather, work and hand over three times, and wait for the slowest fact: nothing else is on the way."""
    costs = Costs(2 * MS, 1 * MS, 0.5 * MS, 0.1 * MS)
    alone = Model(0.001, 1, 1, 8, costs, facts=1, skus=0, hop=5 * MS, gather=3 * MS)
    found = simulate.simulate(alone)
    # normalise, then the fact and the dossier's own record, then the fact's answer
    assert found.latencies[0] == pytest.approx(3 * 3 * MS + 2 * 5 * MS + (2.1 + 1.1 + 0.6) * MS + 0.6 * MS, abs=1e-9)
    assert found.batches == 4


def test_gathering_makes_fewer_batches_and_costs_time():
    """At a low rate a wait makes larger batches, each order then takes longer; without one, batches are of one."""
    low = Model(100, 3_000, 2, 8, Costs(0.3 * MS, 0.01 * MS, 0.01 * MS, 0.3 * MS))
    at_once, gathered = (simulate.simulate(low._replace(gather=ms * MS)) for ms in (0, 20))
    assert gathered.batches < 0.7 * at_once.batches
    assert gathered.quantile(0.5) > at_once.quantile(0.5) + 30 * MS


def test_a_hot_sku_loads_the_one_worker_that_has_it():
    """All of its facts meet one partition: that worker is busier by their rate times what one takes, and the others are not."""
    model = Model(1_000, 5_000, 8, 32, Costs(0, 0.4 * MS, 0, 0), facts=4, skus=0, zipf=0)
    even, hot = (simulate.simulate(model._replace(hot=share)) for share in (0.0, 1.0))
    assert max(hot.busy) - max(even.busy) == pytest.approx(0.4, abs=0.06)
    assert min(hot.busy) == pytest.approx(min(even.busy), abs=0.06)


def test_a_lost_worker_s_orders_wait_and_none_is_lost():
    """Every order is done; those on its partitions after the session and the restore; afterwards it is level again."""
    model = Model(100, 6_000, 4, 16, Costs(MS, 0.1 * MS, 0.1 * MS, 0.1 * MS), lost=10.0, restore=5.0)
    found = simulate.simulate(model)
    assert not any(map(math.isnan, found.latencies))
    assert simulate.SESSION + 5 - 0.2 < max(found.latencies) < simulate.SESSION + 5 + 2
    late = [took for at, took in zip(found.arrived, found.latencies, strict=True) if at > 30]
    assert max(late) < 1
    assert found.busy[0] < 0.5 * found.busy[1]


def test_the_same_model_says_the_same():
    model = ONE._replace(orders=500, facts=3)
    assert simulate.simulate(model) == simulate.simulate(model)
    assert simulate.simulate(model) != simulate.simulate(model._replace(seed=2))


def test_a_plan_follows_from_its_figures_by_hand():
    """1,000 orders/s at 600 µs are 0.6 cores a second of work: one busy worker, two because one may die; memory may ask for more."""
    measured = {
        "normalise_us": 300, "detect_us": 100, "route_us": 50, "engine_us": 150, "broker_us": 100, "bytes_written": 1_000,
        "bytes_held": 7_000, "fold_us": 40,
    }  # fmt: skip
    small = simulate.plan(simulate.Shop("s", 1_000_000, 1_000), measured, simulate.Prices(), simulate.Assumed())
    assert (small.cores, small.by_load, small.by_memory, small.workers, small.partitions) == (0.6, 1, 2, 2, 8)
    assert (small.memory_gb, small.brokers, small.machines, small.restart_s) == (7.0, 3, 4, 20.0)
    large = simulate.plan(simulate.Shop("l", 10_000_000, 1_000), measured, simulate.Prices(), simulate.Assumed())
    assert (large.by_load, large.by_memory, large.workers, large.partitions) == (1, 20, 20, 128)
    machines = 4 * 0.0816 * 8_766
    disk = 1 * 0.35 * 7 * 3 * 0.08 * 12
    zones = 1 * 0.35 * (2 + 4 / 3) * 0.02 * 365
    assert small.yearly == pytest.approx(machines + disk + zones)


def test_the_picture_is_an_svg():
    """Made of the figures alone; an XML reader reads it."""
    rows = {
        "rate": [
            {"rate": 20, "p50_ms": 30, "p99_ms": 40, "busiest": 0.1},
            {"rate": 200, "p50_ms": 40, "p99_ms": 90, "busiest": 0.5},
        ],
        "hot": [{"hot": 0.0, "busiest": 0.5, "mean_busy": 0.5}, {"hot": 0.7, "busiest": 0.9, "mean_busy": 0.5}],
        "waiting": [{"at": 0, "orders": 1}, {"at": 60, "orders": 9}],
    }
    text = simulate.drawn(rows)
    ET.fromstring(text)
    assert "200 /s" in text
    assert "60 s" in text
