"""docs/security.md says what is so."""

from __future__ import annotations

import re

from orderstream import rights
from orderstream.settings import PREFIX, Settings
from tests.docs.pages import ROOT, table, text

PAGE = "docs/security.md"


def _cell(user: str, may: str) -> set[str]:
    """A user's topics as the page names them."""
    names = {r.name for r in rights.rights(Settings.load(topic_prefix="")) if (r.user, r.kind, r.may) == (user, "topic", may)}
    names = {re.sub(r"^orders\.raw\.\w+$", "orders.raw.*", name) for name in names}
    return {re.sub(r"^orderstream-\w+-(changelog|archive)$", r"*-\1", name) for name in names}


def test_the_table_is_the_rights() -> None:
    """Each user has a row with what it reads and writes, and no row is of another."""
    told = {row[0]: tuple(set(re.findall(r"`([^`]+)`", cell)) for cell in row[2:4]) for row in table(PAGE, "user", "process")}

    assert told == {user: (_cell(user, "read"), _cell(user, "write")) for user in rights.declared().users}


def test_every_setting_and_file_named_is_there() -> None:
    """What a reader is told to set or run exists."""
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for page in (PAGE, "deploy/kafka/certificates.sh", "deploy/kafka/secure.properties"):
        assert set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text(page))) <= settings, page
    for path in re.findall(r"\bdeploy/kafka/[\w.]+\w", text(PAGE)):
        assert (ROOT / path).exists(), path


def test_the_properties_leave_no_door_open() -> None:
    """No listener is in the clear, the two that need no password need a certificate, and nothing is allowed unless said."""
    lines = [
        line.partition("=") for line in text("deploy/kafka/secure.properties").splitlines() if "=" in line and line[0] != "#"
    ]
    told = {name: value for name, _, value in lines}

    kinds = dict(part.split(":") for part in told["listener.security.protocol.map"].split(","))
    assert kinds == {"CLIENTS": "SASL_SSL", "INTERNAL": "SSL", "CONTROLLER": "SSL"}
    assert {told[f"listener.name.{name}.ssl.client.auth"] for name in ("internal", "controller")} == {"required"}
    assert told["allow.everyone.if.no.acl.found"] == "false"
    assert told["auto.create.topics.enable"] == "false"
    assert told["super.users"] == "User:broker;User:admin"
    assert not {"broker", "admin"} & rights.declared().users.keys()


def test_every_security_rule_that_is_switched_off_says_why() -> None:
    """Beside each exception from ruff's security rules stands its reason."""
    silent = []
    for path in [p for folder in ("orderstream", "agents", "bench") for p in (ROOT / folder).rglob("*.py")]:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found = re.search(r"noqa:((?:,? ?[A-Z]+\d+)+)(.*)", line)
            if found and re.search(r"\bS\d{3}\b", found[1]) and not re.search(r"\w{2}", found[2]):
                silent.append(f"{path.relative_to(ROOT)}:{number}")

    assert silent == []
