"""What docs/architecture.md says of the project is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec

from orderstream.catalogue import Catalogue
from orderstream.identity import Keys
from orderstream.normalise import Books, Normaliser
from orderstream.orders import Raw
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from tests.channels.api_cases import FULL
from tests.docs.pages import ROOT, table

PAGE = "docs/architecture.md"
OURS = {"orderstream", "agents"}


def _modules() -> dict[str, Path]:
    """Module name, without `orderstream.`, of every file."""
    found = {}
    for top in OURS:
        for path in (ROOT / top).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name.removeprefix("orderstream.")] = path
    return found


def _imports(path: Path, known: set[str]) -> set[str]:
    """Our modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            base = node.module.removeprefix("orderstream").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if inner in known else base)
    return found - {""}


def _parts() -> dict[str, set[str]]:
    return {row[0]: set(re.findall(r"`([^`]+)`", row[1])) for row in table(PAGE, "part", "modules")}


def _part_of(module: str, parts: dict[str, set[str]]) -> str | None:
    names = [".".join(module.split(".")[:n]) for n in range(module.count(".") + 1, 0, -1)]
    return next((part for name in names for part, modules in parts.items() if name in modules), None)


def test_every_module_has_its_place() -> None:
    """The module map knows every module, and every name on it is one."""
    parts, modules = _parts(), _modules()
    empty = {"orderstream", "agents", "rules"}

    assert {m for m in modules if _part_of(m, parts) is None} - empty == set()
    assert {m for names in parts.values() for m in names} - set(modules) == set()


def test_the_kernel_cannot_reach_out() -> None:
    """The kernel imports the kernel, the engine nothing of ours, the agents nothing above them; the kernel knows no Kafka, clock or web."""
    parts, modules = _parts(), _modules()
    outside = {"aiokafka", "faust", "fastapi", "prometheus_client", "httpx", "asyncio", "time", "os", "socket"}
    allowed = {"kernel": {"kernel"}, "engine": {"engine"}, "agents": {"kernel", "engine", "agents", "edges"}}
    for module, path in modules.items():
        part = _part_of(module, parts)
        if part in allowed:
            assert {_part_of(m, parts) for m in _imports(path, set(modules))} <= allowed[part] | {None}, module
        if part == "kernel":
            said = path.read_text("utf-8")
            direct = {n.split(".")[0] for n in re.findall(r"^\s*(?:from|import) ([\w.]+)", said, re.MULTILINE)}
            assert not direct & outside, module


def test_promises_name_tests_that_are_there() -> None:
    """A promise is a test before it is a sentence."""
    named = {t for row in table(PAGE, "", "promise") for t in re.findall(r"`(tests/[^`]+)`", row[2])}
    missing = set()
    for test in named:
        path, _, function = test.partition("::")
        there = (ROOT / path).read_text("utf-8") if (ROOT / path).exists() else ""
        if not re.search(rf"def {re.escape(function)}\(", there):
            missing.add(test)

    assert named
    assert missing == set()
    assert [row[0] for row in table(PAGE, "", "promise")] == [str(n) for n in range(1, 10)]


def test_facts_name_nobody() -> None:
    """What travels by entity and what a signal says of it has no buyer's id, number, device, IP, account or address in it."""
    body = msgspec.json.encode(FULL)
    books = Books(Catalogue(), PackBook([load(ROOT / "rules/standard")]).at)
    done = Normaliser(books, Keys(b"test")).process(Raw("api", "main", 1_794_326_402_000, body), 0, 0)
    facts = msgspec.json.encode(done.facts)
    assert done.dossier is not None
    seen = facts + msgspec.json.encode((done.dossier.expects, done.dossier.findings, done.dossier.tags))
    buyer, to = FULL["buyer"], FULL["ship_to"]
    personal = [buyer[k] for k in ("id", "device", "ip", "phone", "email")] + [FULL["payment"]["id"]]
    personal += [to[k] for k in ("name", "phone", "detail")]

    assert len(done.facts) >= 6
    assert [p for p in personal if f'"{p}"'.encode() in seen or (len(p) > 5 and p.encode() in seen)] == []
