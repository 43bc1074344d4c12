"""The compiled build against plain Python: the same bytes. `make test-compiled` runs this, and the kernel's other tests, on it."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

PLAIN = os.environ.get("PLAIN_TREE", "")
"""The checkout that was compiled."""

pytestmark = pytest.mark.skipif(not PLAIN, reason="this is plain Python: make test-compiled")
HERE = Path(__file__).parents[2]


def hops() -> list[str]:
    """What setup.py compiles; it is read and not run, which would build it."""
    for one in ast.parse((Path(PLAIN) / "setup.py").read_text("utf-8")).body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "HOPS":
            return list(ast.literal_eval(one.value))
    return []


def digest(tree: Path) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, "-m", "tests.kernel.digest"], cwd=tree, env=env, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = orjson.loads(done.stdout)
    assert Path(told["windows"]).is_relative_to(tree)
    return told


def test_the_hops_are_compiled() -> None:
    """Else all that is tested here would be plain Python."""
    assert hops()
    for name in hops():
        found = importlib.import_module(name).__file__
        assert found is not None
        assert found.startswith(f"{HERE}/")
        assert found.endswith(".so")


def test_the_bytes_are_the_same() -> None:
    """All that the hops log, send and dump, of both packs, at a low load and in a backlog."""
    plain, compiled = digest(Path(PLAIN)), digest(HERE)

    assert plain["windows"].endswith(".py")
    assert compiled["windows"].endswith(".so")
    assert compiled["said"] == plain["said"]
