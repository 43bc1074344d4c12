"""The long run finds what is there to find: held against faults that are put in on purpose."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orderstream.channels import api
from orderstream.orders import Order, Parsed, Raw
from tests.fuzz import law, run

PLANTED = """
import sys
from pathlib import Path
from tests.fuzz import run
from orderstream.channels import api

genuine = api.Api.parse

def parse(self, raw):
    found = genuine(self, raw)
    if type(found).__name__ == "Order" and found.ship_to is None and found.buyer.phone is None:
        raise KeyError("planted")
    return found

api.Api.parse = parse
run.search("api", 60, Path(sys.argv[1]))
"""


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    """An exception behind two fields of an otherwise good order is met in seconds, and its input is kept."""
    pytest.importorskip("atheris", reason="no wheel of atheris for this platform")
    (tmp_path / "corpus").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PLANTED, str(tmp_path)], cwd=law.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "planted" in done.stderr
    (crash,) = tmp_path.glob("crash-*")
    found = api.CHANNEL.parse(Raw("api", "main", law.NOW, law.split(crash.read_bytes())[1]))
    assert isinstance(found, Order)
    assert (found.ship_to, found.buyer.phone) == (None, None)


def test_a_slow_and_a_fat_input_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes over 50 ms of CPU or 50 MB each time it is measured is a finding; what does not is none."""
    genuine = api.Api.parse

    def parse(self: api.Api, raw: Raw) -> Parsed:
        if b"slow" in raw.body:
            until = time.process_time() + 0.06
            while time.process_time() < until:
                pass
        if b"fat" in raw.body:
            bytearray(60_000_000)
        return genuine(self, raw)

    monkeypatch.setattr(law, "bombs", lambda: {"one": b"slow", "two": b"fat", "three": b"{}"})
    for folder in ("slow", "corpus"):
        (tmp_path / folder).mkdir()
    (tmp_path / "search.log").write_text("")
    assert run.measure("api", tmp_path) == 0
    monkeypatch.setattr(api.Api, "parse", parse)
    assert run.measure("api", tmp_path) == 1
    found = {file.name for file in tmp_path.glob("*-*")}
    assert {"fat-two", "slow-one"} <= found
    assert not {"fat-three", "slow-three"} & found
