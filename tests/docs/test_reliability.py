"""What docs/reliability.md says of the promises and the faults is so."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, table
from tests.faults.kinds import KINDS
from tests.faults.ledger import table as faults

PAGE = "docs/reliability.md"


def test_each_promise_names_tests_that_are_there() -> None:
    """The nine promises of the architecture, in its order and words, each with a test."""
    rows = table(PAGE, "", "promise")
    missing = set()
    for number, _, _, tests in rows:
        named = re.findall(r"`(tests/[^`]+)`", tests)
        assert named, number
        for test in named:
            path, _, function = test.partition("::")
            if not (ROOT / path).exists() or not re.search(rf"def {re.escape(function)}\(", (ROOT / path).read_text("utf-8")):
                missing.add(test)

    assert missing == set()
    architecture = table("docs/architecture.md", "", "promise")
    assert [row[:2] for row in rows] == [[row[0], re.findall(r"\*\*(.+?)\.?\*\*", row[1])[0]] for row in architecture]


def test_the_table_of_the_last_long_run_has_every_fault() -> None:
    """In the plan's words, so that a fault that was never run is seen to be missing; and nothing lost, doubled or contradictory."""
    rows = table(PAGE, "故障 fault")
    assert [row[0] for row in rows] == [row[0] for row in faults([], KINDS)]
    assert [row for row in rows if row[3:6] != ["0", "0", "0"]] == []
