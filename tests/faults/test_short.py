"""A short campaign of the fault harness: the whole system under signed traffic, broken five times in a minute, and reconciled."""

from __future__ import annotations

import os

import pytest

from tests.faults.campaign import play
from tests.faults.ledger import STATE

KINDS = ["intake-killed", "repeated", "zombie", "erp-killed", "worker-killed"]
"""Of every place one: what is sent, what takes it, what decides, what applies. `make faults` has all of them."""


@pytest.mark.stream
@pytest.mark.timeout(600)
def test_a_minute_of_faults_loses_doubles_and_contradicts_nothing() -> None:
    """Every acknowledged order has one final verdict, the backtest's to the byte, and one state in the ERP; every decision counts once."""
    said: list[str] = []
    # not under pytest's folder, which is emptied: what failed must be there to be looked at
    home = STATE / f"short-{os.getpid()}"
    done = play(home, 20261111, KINDS, workers=2, rate=30.0, brief=True, say=said.append)

    assert done.error == "", f"{done.error}\n{said}\n" + "\n".join(log.read_text()[-1500:] for log in home.glob("*.log"))
    assert [one.kind for one in done.rounds] == KINDS
    assert done.orders > 500
    assert done.decisions > 20
    assert sum(one.lost + one.twice + one.contradictions for one in done.rounds) == 0
