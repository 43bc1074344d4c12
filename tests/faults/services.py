"""The processes of an installation, and what starts them again when they end, as systemd or Kubernetes would.

Law: a process is ended by its number and by us alone, and ends with us; how each one ended is kept, since "it came back" is
only half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orderstream.leash import Leash

RESTART_S = 0.5
"""Between a process's end and its next start."""


class Ending(NamedTuple):
    """How a process ended. at: monotonic seconds; code: negative for a signal; asked: by us."""

    service: str
    at: float
    code: int
    asked: bool


class Service:
    """One process: kept up while `wanted`. env: what differs from the installation's."""

    def __init__(self, name: str, module: str, arguments: tuple[str, ...], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = [sys.executable, "-m", module, *arguments]
        self.env = dict(env)
        self.log = log
        self.wanted = False
        self.process: subprocess.Popen[bytes] | None = None
        self.leash: Leash | None = None
        self.asked = False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.wanted, self.asked = True, False
        with self.log.open("ab") as out:
            out.write(f"-- {time.strftime('%H:%M:%S')} start\n".encode())
            out.flush()
            self.process = subprocess.Popen(
                self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.leash = Leash(self.process.pid, " ".join(self.command))

    def ended(self) -> int | None:
        """How what ran here has ended, told once; None while it runs, or nothing does."""
        code = self.process.poll() if self.process is not None else None
        if code is not None:
            self.process = None
            if self.leash is not None:
                self.leash.release()
        return code

    def signal(self, number: signal.Signals) -> None:
        """To the process as it runs now. One that ended by itself a moment ago is left to the supervisor."""
        if self.process is not None and self.process.poll() is None:
            self.asked = self.asked or number in (signal.SIGKILL, signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class Supervisor:
    """Starts what ended and is still wanted."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.endings: list[Ending] = []

    def add(self, service: Service) -> Service:
        self.services[service.name] = service
        service.start()
        return service

    async def run(self) -> None:
        while True:
            for service in list(self.services.values()):
                self._note(service)
                if service.wanted and service.process is None:
                    await asyncio.sleep(RESTART_S)
                    if service.wanted:
                        service.start()
            await asyncio.sleep(0.05)

    def _note(self, service: Service) -> None:
        code = service.ended()
        if code is not None:
            self.endings.append(Ending(service.name, time.monotonic(), code, service.asked))

    async def end(self, name: str, seconds: float = 40.0) -> None:
        """SIGTERM, and no restart. One that does not listen is killed, and that is an ending with -9."""
        service = self.services.pop(name)
        service.wanted = False
        service.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while service.alive:
            if time.monotonic() > deadline:
                service.signal(signal.SIGKILL)
            await asyncio.sleep(0.05)
        self._note(service)

    async def end_all(self) -> None:
        for service in self.services.values():
            service.signal(signal.SIGCONT)
        await asyncio.gather(*(self.end(name) for name in list(self.services)))
