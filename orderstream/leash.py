"""What ties a process that we started to our own life: it ends when we do, however we end.

Law: who is killed with SIGKILL can end nobody, so somebody else must hold the other end. A watcher of a few kilobytes reads a
pipe that only we write to; it reads end-of-file when we are gone, and ends the process by its number *and* its command line:
a number alone may be somebody else's by then. (Linux's own way, PR_SET_PDEATHSIG, ends a child with the *thread* that started
it, and there is nothing like it elsewhere.)
"""

# ruff: noqa: S603  a fixed command, the shell's own words are ours
from __future__ import annotations

import subprocess

_WATCH = (
    "read -r _; "
    'if [ -r "/proc/$1/cmdline" ]; then c=$(tr "\\0" " " <"/proc/$1/cmdline"); else c=$(ps -ww -o args= -p "$1"); fi; '
    'case "$c" in *"$2"*) kill -s KILL -- "-$1" || kill -s KILL "$1";; esac'
)


class Leash:
    """Holds one process and its group. mark: what its command line has that a stranger's has not.

    Let go with `release` once it has ended or is to outlive us; a leash that is merely forgotten ends it.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(pid), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # out of reach of what is sent to our group: a terminal's Ctrl-C, a supervisor's SIGKILL
            start_new_session=True,
        )

    def release(self) -> None:
        """Forgets the process; does nothing the second time."""
        self._watcher.kill()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        self._watcher.wait()
