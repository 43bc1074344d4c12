"""What we started ends with us, also where we are killed and can end nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from orderstream.leash import Leash
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    print(subprocess.Popen([sys.executable, __file__, "of a child"]).pid, flush=True)
time.sleep(600)
"""
"""Deaf to SIGTERM, and with a child of its own that is so, too."""

PARENTS = {
    "the demo's and the bench's": """
        import os, sys
        from pathlib import Path
        from orderstream.demo.processes import Processes

        child = Processes(Path(sys.argv[1])).start("deaf", [sys.executable, sys.argv[2]], os.environ)
        print(child.process.pid, child.log, flush=True)
    """,
    "the fault harness's": """
        import os, sys
        from pathlib import Path
        from tests.faults.services import Service

        service = Service("deaf", "deaf", (), os.environ, Path(sys.argv[1]) / "deaf.log")
        service.start()
        print(service.process.pid, service.log, flush=True)
    """,
}


def runs(pid: int) -> bool:
    """Whether a process is there and is more than an entry that nobody has looked at."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize("whose", PARENTS)
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path, whose: str) -> None:
    """SIGKILL to the parent alone: its child, and that one's child, end though both ignore SIGTERM."""
    (tmp_path / "deaf.py").write_text(CHILD)
    code = textwrap.dedent(PARENTS[whose]) + "import time; time.sleep(600)"
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "deaf.py")], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child, log = parent.stdout.readline().split(" ", 1)
        grandchild = int(wait_until(lambda: said(Path(log.strip())), "the child has a child of its own"))
        assert runs(int(child))
        assert runs(grandchild)
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: not runs(int(child)), "the child has ended")
    wait_until(lambda: not runs(grandchild), "its own child has ended")


def said(log: Path) -> str:
    """The number that the child gave, without what the harness writes before it."""
    return next((line for line in log.read_text().splitlines() if line.isdecimal()), "")


def test_a_leash_ends_nobody_else() -> None:
    """One that was let go stays; so does a stranger who has the number by now, told by the command line."""
    one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(611)"], start_new_session=True)
    try:
        let_go = Leash(one.pid, "time.sleep(611)")
        let_go.release()
        let_go.release()
        we_are_gone(Leash(one.pid, "orderstream worker"))
        assert one.poll() is None
        we_are_gone(Leash(one.pid, "time.sleep(611)"))
        assert one.wait(60) == -signal.SIGKILL
    finally:
        one.kill()
        one.wait()


def we_are_gone(leash: Leash) -> None:
    """What the watcher sees of our end: nobody holds the pipe."""
    assert leash._watcher.stdin is not None
    leash._watcher.stdin.close()
    leash._watcher.wait()
