"""`make test` in two parts side by side: one begins with the files that need a broker, the other with those that need none.

Law: a file is one part's from its first test to its last, and the parts share nothing: each has its own broker, PostgreSQL and
browser when it comes to need one. Reason: what waits for a broker and what computes leave each other the processor, while two
tests on brokers take it from each other. Whichever part is done with its own goes on from the other's end.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

FIRST = ("tests/faults/test_short.py", "tests/stream/test_line.py", "tests/engine/test_engine_stream.py")
"""What takes longest and would be waited for, begun last."""


class FromBothEnds(LoadFileScheduling):
    """Files in the order of their collection; every part but the first takes from the end."""

    def _assign_work_unit(self, node: Any) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def make_scheduler(config: pytest.Config, log: Any) -> FromBothEnds:
    config.option.loadscopereorder = False
    return FromBothEnds(config, log)


def in_order(items: list[pytest.Item]) -> None:
    """Files with a test on a broker first, and among them what takes longest."""

    def file(item: pytest.Item) -> str:
        return item.nodeid.partition("::")[0]

    stream = {file(item) for item in items if item.get_closest_marker("stream")}
    items.sort(key=lambda item: (file(item) not in FIRST, file(item) not in stream))
