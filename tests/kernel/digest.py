"""What the hops write and send, in short: two builds that say the same here are the same to everybody outside.

python -m tests.kernel.digest          with PYTHONPATH on the tree to be asked; JSON, and where its hops were found
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable
from typing import Any

import orjson

from bench import days, kernel
from orderstream import windows
from orderstream.engine import Effects

ORDERS = 4_000
BATCHES = (3, 100)
"""Records at a time: as at a low load, and as in a backlog."""


class Heard(kernel.Spent):
    """All that hops say, instead of what it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.said = {hop: hashlib.sha256() for hop in kernel.HOPS}
        self.count = dict.fromkeys(kernel.HOPS, 0)

    def take(self, what: str, state: Any, records: Any) -> Effects:
        effects = state.process(records)
        log = effects.log or []
        self._hear(what, log if isinstance(log, list) else [log])
        self._hear(what, (repr(send).encode() for send in effects.sends))
        return effects

    def _hear(self, hop: str, blobs: Iterable[bytes]) -> None:
        for blob in blobs:
            self.said[hop].update(len(blob).to_bytes(4) + blob)
            self.count[hop] += 1


def told(pack: str, batch: int) -> dict[str, Any]:
    """Of one pack: how much each hop has said, and its hash; the hash of each state's dump."""
    heard = Heard()
    line = kernel.Kernel(pack, heard)
    for records in kernel.day(line, ORDERS, pack, batch):
        line.feed(records)
    dumps = {hop: hashlib.sha256(b"".join(getattr(line.line, hop).dump())).hexdigest() for hop in kernel.HOPS}
    return {"said": {hop: one.hexdigest() for hop, one in heard.said.items()}, "records": heard.count, "dumps": dumps}


def main() -> None:
    clock = itertools.count(days.START * 1_000_000, 1_000_000)
    time.time_ns = lambda: next(clock)
    said = {f"{pack} {batch}": told(pack, batch) for pack in ("reference", "standard") for batch in BATCHES}
    print(orjson.dumps({"windows": windows.__file__, "said": said}).decode())  # noqa: T201


if __name__ == "__main__":
    main()
