"""Pages say what the code says: tables, commands, exit codes, links."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import typer.main
import yaml

from orderstream import errors, topics
from orderstream.cli import app
from orderstream.demo import view
from tests.docs.pages import PAGES, READMES, ROOT, anchors, table, text

TOPIC_HEADINGS = {"README.md": ("topic", "writes", "reads", "key", "kept"), "README.zh-CN.md": ("主题", "写", "读", "键", "保留")}


def _kept(days: float | None, page: str) -> str:
    if page == "README.md":
        return "for ever" if days is None else f"{days:g} d"
    return "永久" if days is None else f"{days:g} 天"


@pytest.mark.parametrize("page", READMES)
def test_the_topics_table_is_the_topics(page: str) -> None:
    """Each declared topic has a row with its writers, readers, key and retention, and no row is of another."""
    rows = {row[0].strip("`"): tuple(row[1:]) for row in table(page, *TOPIC_HEADINGS[page])}
    declared: dict[str, set[tuple[str, ...]]] = {}
    for topic in topics.declared():
        name = re.sub(r"^orders\.raw\.\w+$", "orders.raw.<channel>", topic.name)
        key = topic.key.replace("<", "&lt;").replace(">", "&gt;")
        cells = (", ".join(topic.writers), ", ".join(topic.readers), key, _kept(topic.retention_days, page))
        declared.setdefault(name, set()).add(cells)

    assert {name: {cells} for name, cells in rows.items()} == declared


def _commands(group: Any, before: str = "orderstream") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():
        path = f"{before} {name}"
        found |= _commands(command, path) if hasattr(command, "commands") else {path}
        if getattr(command, "invoke_without_command", False):
            found.add(path)
    return found


@pytest.mark.parametrize(("page", "heading"), [("README.md", "command"), ("README.zh-CN.md", "命令")])
def test_the_command_table_is_the_command_line(page: str, heading: str) -> None:
    """Every command has its row, and every row is a command."""
    rows = {" ".join(re.findall(r"[a-z]+", row[0])) for row in table(page, heading)}
    rows = {re.sub(r" out$", "", row) for row in rows}

    assert rows == _commands(typer.main.get_command(app))


@pytest.mark.parametrize(("page", "heading"), [("README.md", "exit code"), ("README.zh-CN.md", "退出码")])
def test_exit_codes_are_those_of_the_errors(page: str, heading: str) -> None:
    """A script that acts on a code reads the right one here."""
    rows = [row[0] for row in table(page, heading)]
    named = {f"{one.exit_code} {one.__name__}" for one in errors.CODES}

    assert set(rows) == {"0", "1", "2", str(errors.BUG), str(errors.INTERRUPTED)} | named


@pytest.mark.parametrize("page", READMES)
def test_the_summary_is_the_demo_s(page: str) -> None:
    """The lines that a reader is told to expect are those that the demo prints, all of them in its order."""
    printed = re.findall(r'\("([^"]+ · [^"]+)", ', inspect.getsource(view.conclude))

    assert re.findall(r"^    (\S.* · .*?) {2,}\S", text(page), re.MULTILINE) == printed


@pytest.mark.parametrize("page", READMES)
def test_the_rule_in_the_readme_is_the_rule(page: str) -> None:
    """What is shown of ip-pair is what ip-pair says."""
    (shown,) = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE))
    rule = yaml.safe_load((ROOT / "rules/standard/ip-pair.yaml").read_text("utf-8"))

    assert all(example in rule["examples"] for example in shown.pop("examples"))
    assert shown == {key: rule[key] for key in shown}


@pytest.mark.parametrize("page", READMES)
def test_make_targets_are_there(page: str) -> None:
    """What a reader is told to make can be made."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert set(re.findall(r"^    make ([a-z-]+)", text(page), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file, and where it names a place in a page, that place."""
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target:
            continue
        path, _, place = target.partition("#")
        there = (folder / path).resolve() if path else ROOT / page
        assert there.exists(), target
        if place:
            assert place in anchors(str(there.relative_to(ROOT))), target
