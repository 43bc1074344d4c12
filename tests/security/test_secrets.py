"""A shop's secret changes under a running intake; no secret is where people and programs look."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from orderstream import broker
from orderstream.channels import Channel
from orderstream.channels.api import sign
from orderstream.cli import app
from orderstream.intake.app import create_app
from orderstream.orders import Raw
from orderstream.rules import examples
from orderstream.settings import Settings, rows
from tests.security.secured import HOST, Process, environment
from tests.waiting import wait_until

SECRET = secrets.token_hex(16)
EVERY = {
    "key": SECRET,
    "kafka_password": SECRET,
    "database": f"postgresql://u:{SECRET}@h/d",
    "secrets": json.dumps({"api:main": [SECRET]}),
    "brokers": "127.0.0.1:9",
    "kafka_security": "SASL_SSL",
    "kafka_user": "u",
}
"""Every setting that holds a secret."""


@pytest.mark.stream
def test_a_shop_s_secret_is_rotated_without_a_restart(fresh_topics: Callable[..., Settings], tmp_path: Path) -> None:
    """Old; old and new; new: each delivery is judged by what the file says then, by the same process. A broken file changes
    nothing, HUP says what was understood and ends nobody.
    """
    settings = fresh_topics(partitions=1)
    old, new = secrets.token_hex(16), secrets.token_hex(16)
    file, port = tmp_path / "shops.json", broker.free_port()
    file.write_text(json.dumps({"api:main": [old]}))
    values = {"BROKERS": str(settings.brokers), "TOPIC_PREFIX": settings.topic_prefix, "PARTITIONS": "1"}
    intake = Process(
        {**values, "INTAKE_PORT": str(port), "SECRETS_FILE": str(file)}, tmp_path / "intake.log", "orderstream", "intake"
    )
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=30) as client:
            _until_ready(client, intake)

            def status(secret: str) -> int:
                body = json.dumps({**examples.BODY, "order_id": secrets.token_hex(4)}).encode()
                return client.post("/hooks/api/main", content=body, headers=sign(body, secret, int(time.time()))).status_code

            assert (status(old), status(new)) == (200, 401)
            file.write_text(json.dumps({"api:main": [new, old]}))
            assert (status(old), status(new)) == (200, 200)
            file.write_text('{"api:main": ["' + new)  # as an editor leaves it amid a save
            assert (status(old), status(new)) == (200, 200)
            file.unlink()
            assert (status(old), status(new)) == (200, 200)
            beside = tmp_path / "beside"
            beside.write_text(json.dumps({"api:main": [new]}))
            beside.rename(file)
            assert (status(old), status(new)) == (401, 200)
            intake.hangup()
            intake.until_said("secrets read again: 1 shops")
            assert (status(old), status(new)) == (401, 200)
    finally:
        code = intake.end()
    assert code == 0
    assert intake.said().count("the last good one stays in force") == 2
    assert old not in intake.said()
    assert new not in intake.said()


def _until_ready(client: httpx.Client, intake: Process) -> None:
    def ready() -> bool:
        assert intake.code() is None, intake.said()
        with contextlib.suppress(httpx.TransportError):
            return client.get("/readyz").status_code == 200
        return False

    wait_until(ready, intake.said, 60)


def test_settings_show_no_secret() -> None:
    """Printed, logged, dumped, listed or in a message: a secret is a row of dots."""
    settings = Settings.load(**EVERY)
    shown = [
        repr(settings),
        str(settings),
        f"{settings!r:>9}",
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(rows(settings)),
    ]

    assert [text for text in shown if SECRET in text] == []
    assert settings.kafka_password is not None
    assert settings.kafka_password.get_secret_value() == SECRET  # and it is there


@pytest.mark.parametrize("name", [name for name in EVERY if SECRET in EVERY[name]])
def test_a_setting_that_is_refused_shows_no_secret(name: str) -> None:
    """The command's sentence, and the traceback of what caused it, where the variable beside it is wrong too."""
    values = {k.upper(): v for k, v in EVERY.items()} | {"PARTITIONS": "none", "SECRETS": "{" + SECRET}
    done = subprocess.run(
        [sys.executable, "-m", "orderstream", "settings"],
        env=environment(values), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert SECRET not in done.stdout + done.stderr
    try:
        Settings.load(**{**EVERY, name: 5})
    except Exception:  # noqa: BLE001  what a caller that does not know us would log
        assert SECRET not in traceback.format_exc()


def test_a_bug_s_traceback_shows_no_secret(tmp_path: Path) -> None:
    """What is kept of a crash names lines and no values."""
    code = (
        "import sys; from orderstream import cli, settings\n"
        "def bug(s):\n    password = s.kafka_password.get_secret_value(); raise RuntimeError('a bug')\n"
        "settings.rows = bug\nsys.exit(cli.run(['settings']))"
    )
    values = {k.upper(): v for k, v in EVERY.items()} | {"STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(values), capture_output=True, text=True, timeout=60, check=False
    )
    (kept,) = tmp_path.glob("error-*.txt")

    assert done.returncode == 70
    assert "RuntimeError: a bug" in kept.read_text()
    assert SECRET not in kept.read_text() + done.stdout + done.stderr


class _Broken:
    """A sink with a bug in it, met with secrets in hand."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def ready(self) -> bool:
        raise RuntimeError(f"ready with {len(SECRET)}")

    async def put(self, channel: Channel, raw: Raw) -> None:
        mine: dict[str, Any] = {"password": SECRET, "raw": raw}
        raise RuntimeError(f"a bug beside {len(mine)}")


async def test_an_error_page_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in intake is a bare 500 to its sender, and its log has neither the secret, nor the signature, nor the body."""
    service = create_app(Settings.load(secrets=EVERY["secrets"]), _Broken())
    body = json.dumps({**examples.BODY, "order_id": "E1", "remark": "personal-remark"}).encode()
    headers = sign(body, SECRET, int(time.time()))
    transport = httpx.ASGITransport(service, raise_app_exceptions=False)
    with caplog.at_level(logging.DEBUG):
        async with httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
            answers = [await client.post("/hooks/api/main", content=body, headers=headers), await client.get("/readyz")]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert {answer.text for answer in answers} == {"Internal Server Error"}
    for hidden in (SECRET, "personal-remark", *headers.values()):
        assert hidden not in caplog.text


def test_nothing_of_ours_takes_a_secret_as_an_argument() -> None:
    """A process list shows arguments to every user of a machine: no option of any command is a secret."""

    def walk(command: Any) -> Iterator[str]:
        yield from (option for parameter in command.params for option in (*parameter.opts, parameter.name))
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    options = set(walk(typer.main.get_command(app)))

    assert "--out" in options
    assert [one for one in options if any(word in one for word in ("password", "secret", "key", "token"))] == []
