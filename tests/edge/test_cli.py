"""The command line, as a process: one sentence, its own exit code, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orderstream import cli, topics
from orderstream.errors import CODES, UserError
from orderstream.settings import Settings

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def run(*arguments: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orderstream", *arguments],
        env={**os.environ, "COLUMNS": "200", **{f"ORDERSTREAM_{name}": value for name, value in env.items()}},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def fails(code: int, *arguments: str, says: str, **env: str) -> None:
    """It ends with this code, and says so in one line that has both languages."""
    done = run(*arguments, **env)
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert CHINESE.search(line)
    assert " · " in line
    assert says in line
    assert "Traceback" not in done.stdout + done.stderr


def test_every_error_has_an_exit_code_of_its_own() -> None:
    """A script can tell them apart; 0, 1, 2 and those of shells are not among them."""
    codes = [one.exit_code for one in CODES]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(range(3, 3 + len(codes)))
    assert set(CODES) == set(UserError.__subclasses__())


@pytest.mark.parametrize(
    "arguments",
    [(), ("broker",), ("topics",), ("catalogue",), ("rules",)]
    + [
        (*one.split(), "--help")
        for one in (
            "broker start", "broker stop", "broker status", "topics apply", "topics list", "catalogue load", "intake", "worker",
            "demo", "backtest", "verdicts", "rules check", "rules publish", "rules rollback", "rules disable", "rules bypass",
            "settings",
        )
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_explains_itself_in_both_languages(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Chinese first, then English."""
    assert cli.run(list(arguments)) in {0, 2}
    said = "".join(capsys.readouterr())
    assert "Usage" in said
    assert re.search(r"[\u4e00-\u9fff）].* · [A-Za-z`]", said)


def test_help_is_quick() -> None:
    """The command line imports no framework before it knows what to do."""
    heavy = {"aiokafka", "faust", "fastapi", "pydantic", "msgspec", "rich.table", "agents"}
    code = f"import sys, orderstream.cli; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [("broker", "status"), ("topics", "apply"), ("intake", "--port", "0"), ("worker",), ("verdicts", "--out", "x"),
     ("rules", "rollback"), ("backtest", "--from-topics", "--out", "x")],
    ids=" ".join,
)  # fmt: skip
def test_without_a_broker_it_says_how_to_get_one(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Exit code 4."""
    fails(4, *arguments, says="orderstream broker start", BROKERS="", STATE_DIR=str(tmp_path))


def test_a_broker_that_does_not_answer_is_named() -> None:
    """Exit code 4, with the address that was tried."""
    fails(4, "broker", "start", says="127.0.0.1:1", BROKERS="127.0.0.1:1")


def test_without_docker_java_and_maven_it_says_what_to_install(tmp_path: Path) -> None:
    """Exit code 5, with the line to type."""
    bare = {"PATH": str(tmp_path), "JAVA_HOME": "", "DOCKER_HOST": "unix:///nowhere", "ORDERSTREAM_BROKERS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "orderstream", "broker", "start"],
        env={**os.environ, **bare, "ORDERSTREAM_STATE_DIR": str(tmp_path), "ORDERSTREAM_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done
    assert "apt-get install openjdk-17-jre-headless maven" in done.stderr
    fails(5, "broker", "start", says="Docker", BROKERS="", BROKER_WITH="docker", STATE_DIR=str(tmp_path))


@pytest.mark.parametrize("command", [("intake",), ("broker", "start")], ids=" ".join)
def test_a_taken_port_is_named(command: tuple[str, ...], tmp_path: Path) -> None:
    """Exit code 6."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        # a leftover java would be found first without the empty state folder
        fails(6, *command, says=port, BROKERS="", INTAKE_PORT=port, BROKER_PORT=port, BROKER_WITH="java", STATE_DIR=str(tmp_path))


@pytest.mark.stream
def test_topics_that_are_missing_or_unfit_stop_intake(brokers: str, fresh_topics: Callable[..., Settings]) -> None:
    """Exit code 7, before the first delivery."""
    fails(7, "intake", "--port", "0", says="topics apply", BROKERS=brokers, TOPIC_PREFIX="none.")
    settings = fresh_topics(partitions=2)
    for command in (("intake", "--port", "0"), ("topics", "apply")):
        fails(7, *command, says="2≠3", BROKERS=brokers, TOPIC_PREFIX=settings.topic_prefix, PARTITIONS="3")


def test_a_bad_pack_and_bad_files_are_named(tmp_path: Path) -> None:
    """Exit codes 8 and 9; the file and the line stand in the sentence."""
    (tmp_path / "pack").mkdir()
    assert run("rules", "check", str(tmp_path / "pack")).returncode == 8
    fails(9, "catalogue", "load", str(tmp_path / "none.jsonl"), says="none.jsonl")
    broken = tmp_path / "c.jsonl"
    broken.write_text('{"sku": "S1", "name": "x", "base_price": "1.00", "currency": "CNY", "codes": []}\n{"sku": 5}\n')
    fails(9, "catalogue", "load", str(broken), says="line 2", BROKERS="127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PARTITIONS", "many"), ("TIMEZONE", "Mars/Olympus"), ("CURRENCY", "RMB"), ("BROKERS", "kafka"), ("SECRETS", "hunter2"),
     ("SECRETS", '{"api:main": ["hunter2", ""]}'), ("LOG_LEVEL", "loud")],
)  # fmt: skip
def test_a_bad_setting_is_named_and_its_value_is_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3; what was set may be a secret."""
    monkeypatch.setenv(f"ORDERSTREAM_{name}", value)
    assert cli.run(["settings"]) == 3
    said = capsys.readouterr()
    assert f"ORDERSTREAM_{name}" in said.err
    assert "hunter2" not in said.out + said.err
    assert len(said.err.splitlines()) == 1


def test_settings_are_listed_with_their_variable_and_secrets_are_masked() -> None:
    """Every setting, its value, its meaning; no secret."""
    done = run("settings", KEY="hunter2", SECRETS='{"api:main": ["hunter3", "hunter4"]}', DATABASE="postgresql://u:hunter5@h/d")
    assert done.returncode == 0
    for name in Settings.model_fields:
        assert f"ORDERSTREAM_{name.upper()} " in done.stdout
    assert "hunter" not in done.stdout
    assert "api:main (2)" in done.stdout
    assert "hunter" not in repr(Settings.load(secrets='{"api:main": ["hunter2"]}', key="hunter2", database="hunter2"))


def test_what_ships_beside_the_code_is_installed_with_it() -> None:
    """Every file of schemas and of the standard pack, Kafka's pom and its users are among the wheel's data, where `data_file` looks for it."""
    root = Path(__file__).parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["data-files"]
    shipped = {
        f"{folder}/{path.name}": path.relative_to(root)
        for folder, patterns in declared.items()
        for pattern in patterns
        for path in root.glob(pattern)
    }
    needed = [p for folder in ("schemas", "rules") for p in (root / folder).rglob("*") if p.is_file()]
    needed += [root / "deploy/kafka/pom.xml", root / "deploy/kafka/access.yaml"]

    assert shipped == {f"share/orderstream/{p.relative_to(root)}": p.relative_to(root) for p in needed}


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Two processes that start together end with the same key, in a file that others cannot read."""
    code = (
        "from orderstream.settings import Settings; from pathlib import Path; import sys;"
        "print(Settings.load(key=None, state_dir=Path(sys.argv[1])).hash_key().decode())"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    keys = {process.communicate()[0] for process in racing}
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 64
    assert stat.S_IMODE((tmp_path / "s" / "key").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["key"]


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    """As shells expect it."""
    done = run("nonsense")
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    for arguments in (["backtest"], ["backtest", "--out", "x", "--orders", "f"], ["catalogue", "load"], ["verdicts"]):
        assert cli.run(arguments) == 2, arguments
        assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_one_line_and_keeps_its_traceback(tmp_path: Path) -> None:
    """What nobody foresaw ends with 70, and the traceback is in the file that the line names."""
    code = "import orderstream.cli as c, orderstream.settings as s; s.rows = None; c.sys.argv = ['orderstream', 'settings']; c.main()"
    env = {**os.environ, "ORDERSTREAM_STATE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert len(done.stderr.splitlines()) == 1
    (file,) = tmp_path.glob("error-*.txt")
    assert str(file) in done.stderr
    assert "TypeError" in file.read_text()


@pytest.fixture
def waiting(brokers: str, fresh_topics: Callable[..., Settings]) -> Iterator[subprocess.Popen[str]]:
    settings = fresh_topics(partitions=1)
    env = {
        **os.environ,
        "ORDERSTREAM_BROKERS": brokers,
        "ORDERSTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "ORDERSTREAM_PARTITIONS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "orderstream", "intake", "--port", "0"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.mark.stream
def test_ctrl_c_is_130_and_one_line(waiting: subprocess.Popen[str]) -> None:
    """A person who ends a process sees a line, not a stack."""
    assert waiting.stdout is not None
    assert "http://127.0.0.1:" in waiting.stdout.readline()
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert said.splitlines() == ["已中断 · interrupted"]


@pytest.mark.stream
def test_topics_list_shows_every_topic(brokers: str, fresh_topics: Callable[..., Settings]) -> None:
    """Who writes, who reads, and whether it is there."""
    settings = fresh_topics(partitions=2)
    done = run("topics", "list", BROKERS=brokers, PARTITIONS="2")
    assert done.returncode == 0
    for topic in topics.declared():
        assert topic.on_broker(settings) in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.stream
def test_a_catalogue_is_loaded_whole_or_not_at_all(brokers: str, fresh_topics: Callable[..., Settings], tmp_path: Path) -> None:
    """A file with one bad line leaves the topic as it was."""
    from orderstream import kafka

    settings = fresh_topics(partitions=1)
    good = [{"sku": f"S{at}", "name": "架", "base_price": "1.00", "currency": "CNY", "codes": []} for at in range(3)]
    file = tmp_path / "c.jsonl"
    topic = topics.name("catalog.skus", settings.topic_prefix)
    file.write_text("\n".join(json.dumps(line) for line in [*good, {**good[0], "base_price": "x"}]))
    assert run("catalogue", "load", str(file), PARTITIONS="1").returncode == 9
    assert list(kafka.read_all(brokers, [topic])) == []
    file.write_text("\n".join(json.dumps(line) for line in good) + "\n\n")
    done = run("catalogue", "load", str(file), PARTITIONS="1")
    assert done.returncode == 0, done
    assert [json.loads(record.value or b"")["sku"] for record in kafka.read_all(brokers, [topic])] == ["S0", "S1", "S2"]


def test_a_coordinator_that_is_not_there_yet_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A fresh broker says so once and is asked again: a warning. What the client cannot mend itself stays an error."""
    from aiokafka.errors import GroupAuthorizationFailedError, GroupCoordinatorNotAvailableError

    from orderstream import kafka

    log = logging.getLogger("aiokafka.consumer.group_coordinator")
    kafka.calm()
    kafka.calm()
    for error in (GroupCoordinatorNotAvailableError(), GroupAuthorizationFailedError("g")):
        log.error("Group Coordinator Request failed: %s", error)

    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
