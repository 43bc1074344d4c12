"""docs/board.md says what is so."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry

from orderstream.board import decide
from orderstream.board.metrics import BoardMetrics
from orderstream.settings import PREFIX, Settings
from tests.docs.pages import table, text

PAGE = "docs/board.md"


def test_every_metric_of_the_board_is_explained() -> None:
    registry = CollectorRegistry()
    BoardMetrics(registry)
    known = {f"{m.name}_total" if m.type == "counter" else m.name for m in registry.collect()}

    assert {name for row in table(PAGE, "metric") for name in re.findall(r"`(orderstream_\w+)`", row[0])} == known


def test_the_decisions_are_those_that_can_be_made() -> None:
    """What is said to the stream, and the state after it, stand as they are."""
    rows = {row[0].strip("`"): row for row in table(PAGE, "决定 decision")}

    assert list(rows) == list(decide.REASONS)
    for what in decide.REASONS:
        assert rows[what][2].startswith(f"`{decide.STATES[what]}`")
        assert rows[what][3].strip("`") == decide.OUTCOMES.get(what, "—")


def test_settings_that_it_names_are_there() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text(PAGE)))

    assert named <= known
    assert {name for name in known if name.startswith(f"{PREFIX}BOARD_")} - named <= {
        f"{PREFIX}BOARD_HOST",
        f"{PREFIX}BOARD_PORT",
    }
