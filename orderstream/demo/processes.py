"""The processes that a demo starts, and ends.

Law: we end what we started, by its number, and nothing else. Each child leads a process group of its own, so that Ctrl-C in the
terminal reaches us alone and we end the others in our order: SIGTERM first, and SIGKILL only for what did not listen. Where we
are killed ourselves, they go with us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from orderstream.errors import RunFailed
from orderstream.leash import Leash

TERM_SECONDS = 8.0
"""How long a child has to finish its batch after SIGTERM."""


class Child:
    """One process of ours. log: where its output goes."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.leash = Leash(process.pid, " ".join(map(str, process.args)))  # type: ignore[arg-type]  # the list we gave

    def tail(self, size: int = 600) -> str:
        """The end of what it said."""
        try:
            return self.log.read_text("utf-8", "replace")[-size:].strip()
        except OSError:
            return ""


class Processes:
    """Starts children and ends all of them, whatever happened in between."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start one in a process group of its own, its output going to a file."""
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{name}.log"
        with path.open("wb") as log, undisturbed():
            process = _popen(command, env, log)
            child = Child(name, process, path)
            # noted before an interrupt can come: a child that nobody remembers would outlive us
            self._children.append(child)
        return child

    def check(self) -> None:
        """Raises RunFailed where a child has ended by itself."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise RunFailed(
                    f"进程 {child.name} 意外结束（{code}），日志 {child.log} · process {child.name} ended by itself ({code}), "
                    f"see {child.log}: {child.tail(300)!r}"
                )

    def stop(self) -> None:
        """End all: the last started first, all told before any is waited for. An interrupt in between does not stop this."""
        with undisturbed():
            children = [child for child in reversed(self._children) if child.process.poll() is None]
            for child in children:
                _signal(child, signal.SIGTERM)
            deadline = time.monotonic() + TERM_SECONDS
            for child in children:
                while not _ended(child) and time.monotonic() < deadline:
                    time.sleep(0.02)
                # also where it listened: its group may hold a process of its own that did not. It is not reaped yet, so the
                # number cannot have become somebody else's
                _signal(child, signal.SIGKILL)
                child.process.wait()
            for child in self._children:
                child.leash.release()
            self._children.clear()


def _popen(command: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own interpreter and modules
        list(command), env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def _ended(child: Child) -> bool:
    """Whether it has ended, without reaping it."""
    return os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of this block."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        # only the main thread has signals, so nothing interrupts here
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends this block as Ctrl-C does, so that `kill` cleans up as well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        # as SIGINT to ourselves: asyncio has its own answer to that one
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored:
        # a shell starts what it puts in the background with SIGINT ignored: SIGTERM must end us all the same
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
