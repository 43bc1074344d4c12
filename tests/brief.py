"""A process whose death its group hears of in three seconds, and not in the six or ten of an installation: a test kills it and waits.

`python -m tests.brief orderstream.consumers.erp …` runs a module so; `import tests.brief` makes the process that does it one.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import aiokafka

_as_given = aiokafka.AIOKafkaConsumer.__init__


def _briefly(self: aiokafka.AIOKafkaConsumer, *topics: str, **options: Any) -> None:
    _as_given(self, *topics, **{**options, "session_timeout_ms": 3_000, "heartbeat_interval_ms": 500})


aiokafka.AIOKafkaConsumer.__init__ = _briefly

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
