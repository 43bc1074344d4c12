"""A worker that counts its objects when it is told to (SIGUSR2), and says what has grown since it last did.

    python -m bench.census      with the environment of `orderstream worker`

For finding a leak that `bench.soak` has shown: a type whose number grows while what is kept stays level. A census stops the
worker for seconds, so figures of such a run are no measure of anything else. Writes state_dir/census.1, census.2, …
"""

from __future__ import annotations

import gc
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from agents.app import run_worker
from orderstream.settings import Settings

LARGE = 20_000
"""Items from which on a container is named."""
GROWN = 50
"""Objects more than before from which on a type is named."""


def count() -> tuple[Counter[str], Counter[str]]:
    """Objects that the collector knows, by type; and the largest containers, by type and what they hold, with their sizes."""
    gc.collect()
    types: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        types[f"{kind.__module__}.{kind.__qualname__}"] += 1
        if kind in (dict, list, set) and len(thing) >= LARGE:
            one = next(iter(thing.values() if kind is dict else thing))
            large[f"{kind.__name__} of {type(one).__name__}"] += len(thing)
    return types, large


def main() -> int:
    settings = Settings.load()
    before: Counter[str] = Counter()
    censuses = 0

    def write(number: int, frame: FrameType | None) -> None:
        nonlocal before, censuses
        del number, frame
        types, large = count()
        censuses += 1
        grown = sorted(((now - before[name], now, name) for name, now in types.items()), reverse=True)
        lines = ["growth  now  type", *(f"{more:+d}  {now}  {name}" for more, now, name in grown if more > GROWN)]
        lines += ["", "items  containers of 20,000 and more", *(f"{size}  {name}" for name, size in large.most_common())]
        path = Path(settings.state_dir) / f"census.{censuses}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # whoever waits for the file finds it whole
        part = path.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        part.rename(path)
        before = types

    signal.signal(signal.SIGUSR2, write)
    assert settings.brokers is not None
    return run_worker(settings, settings.brokers)


if __name__ == "__main__":
    sys.exit(main())
