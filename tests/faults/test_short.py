"""A short campaign of the fault harness: the whole system under signed traffic, broken five times in a minute, and reconciled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import play

KINDS = ["intake-killed", "repeated", "zombie", "erp-killed", "worker-killed"]
"""Of every place one: what is sent, what takes it, what decides, what applies. `make faults` has all of them."""


@pytest.mark.stream
@pytest.mark.timeout(200)
def test_a_minute_of_faults_loses_doubles_and_contradicts_nothing(tmp_path: Path) -> None:
    """Every acknowledged order has one final verdict, the backtest's to the byte, and one state in the ERP."""
    said: list[str] = []
    done = play(tmp_path / "c", 20261111, KINDS, workers=2, rate=30.0, say=said.append)

    assert done.error == "", f"{done.error}\n{said}\n" + "\n".join(
        log.read_text()[-1500:] for log in (tmp_path / "c").glob("*.log")
    )
    assert [one.kind for one in done.rounds] == KINDS
    assert done.orders > 500
    assert sum(one.lost + one.twice + one.contradictions for one in done.rounds) == 0
