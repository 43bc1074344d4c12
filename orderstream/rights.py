"""Kafka's users and what each may do: derived from who reads and who writes, made on a broker by `orderstream broker secure`.

Law: a right exists because a topic's file names its reader or writer, and for no other reason; what a user may do beyond that
is taken away. Passwords never cross the wire, a command line or a log: the broker is sent what proves them, and they stay in
files that only their owner reads.
"""

from __future__ import annotations

import hashlib
import os
import secrets as random
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import yaml

from orderstream import access, topics
from orderstream.errors import BadFile, BrokerFailed
from orderstream.settings import Settings, data_file, read_secret
from orderstream.topics import Text

May = Literal["read", "write", "describe"]

Rule = tuple[int, str, int, str, str, int, int]
"""A right in Kafka's own numbers: resource, its name, pattern, principal, host, operation, permission."""
_OPERATIONS: dict[str, int] = {"read": 3, "write": 4, "describe": 8}
_RESOURCES: dict[str, int] = {"topic": 2, "group": 3}
_MECHANISMS: dict[str, tuple[int, str]] = {"SCRAM-SHA-256": (1, "sha256"), "SCRAM-SHA-512": (2, "sha512")}
_ANY, _LITERAL, _ALLOW = 1, 3, 3
_ITERATIONS = 4096
"""Kafka's least. A stretched hash protects passwords that people think of; these are 256 random bits."""


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of Kafka's users. acts_as: the names under which topics know it; groups: consumer groups it may join or look at."""

    purpose: Text
    acts_as: tuple[str, ...]
    groups: dict[str, Literal["read", "describe"]] = {}


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """deploy/kafka/access.yaml."""

    users: dict[str, User]
    without_user: tuple[str, ...] = ()


class Right(NamedTuple):
    """What one user may do with one topic or group, named as on the broker."""

    user: str
    kind: Literal["topic", "group"]
    name: str
    may: May


class Given(NamedTuple):
    """What `apply` did for one user. rights: how many it has; file: of its password."""

    user: str
    rights: int
    file: Path


@cache
def declared() -> Declared:
    """The users there are."""
    return msgspec.convert(yaml.safe_load(data_file("deploy/kafka/access.yaml").read_text("utf-8")), Declared)


def name(user: str, settings: Settings) -> str:
    """A user's name on the broker; the prefix keeps installations apart, as it does topics."""
    return settings.topic_prefix + user


def rights(settings: Settings) -> set[Right]:
    """Every right of every user."""
    found: set[Right] = set()
    for plain, user in declared().users.items():
        who, acts = name(plain, settings), set(user.acts_as)
        for topic in topics.declared():
            on_broker = topic.on_broker(settings)
            found.add(Right(who, "topic", on_broker, "describe"))
            if acts & set(topic.readers):
                found.add(Right(who, "topic", on_broker, "read"))
            if acts & set(topic.writers):
                found.add(Right(who, "topic", on_broker, "write"))
        for group, may in user.groups.items():
            called = group.replace("{group}", settings.group).replace("{prefix}", settings.topic_prefix)
            found.add(Right(who, "group", called, may))
    return found


def passwords(folder: Path) -> dict[str, Path]:
    """The file of each user's password; a missing one is made, for its owner alone. Raises BadFile."""
    files = {user: folder / user for user in declared().users}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in files.values():
            if not file.exists():
                with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                    out.write(random.token_urlsafe(32) + "\n")
    except OSError as error:
        raise BadFile(f"密码目录不可写 · cannot write passwords to {folder}: {error.strerror}") from None
    return files


async def apply(address: str, settings: Settings, folder: Path) -> list[Given]:
    """Makes users, sets their passwords from `folder`, gives them their rights and takes any other away; may be run again.

    Raises NotAdmitted where we are not the administrator, BrokerFailed where this Kafka keeps no users or rights, BadFile.
    """
    from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest  # noqa: PLC0415  late, as all that loads aiokafka

    files = passwords(folder)
    proofs = {name(user, settings): read_secret(file) for user, file in files.items()}
    wanted = rights(settings)
    admin = await topics.admin_client(address, settings)
    try:
        held = {rule for user in proofs for rule in await _held(admin, user)}
        given = {_rule(right) for right in wanted}
        if new := sorted(given - held):
            for answer in (await _ask(admin, _about(CreateAclsRequest, new))).creation_responses:
                _sure(answer)
        if old := sorted(held - given):
            for answer in (await _ask(admin, _about(DeleteAclsRequest, old))).filter_responses:
                _sure(answer)
        # the password last: nobody comes in before their rights are what they should be
        for result in (await _ask(admin, _upsert(proofs, settings.kafka_mechanism))).results:
            _sure(result[1:3])
    finally:
        await admin.close()
    return [
        Given(name(user, settings), sum(right.user == name(user, settings) for right in wanted), files[user]) for user in files
    ]


async def _ask(admin: Any, request: Any) -> Any:
    return await admin._send_request(request)  # noqa: SLF001  the public client has no words for users and rights


def _about(request: Any, rules: list[Rule]) -> Any:
    """aiokafka's request about one rule, made to be about all of these: the broker writes to its disk for every request."""
    made = request(*rules[0])
    made.build = lambda struct: struct(rules)
    return made


def _sure(answer: tuple[Any, ...]) -> None:
    """Raises unless the broker did as asked. answer: begins with Kafka's error code and message."""
    code, message = answer[0], answer[1]
    if code == 0:
        return
    if code in access.FORBIDDEN:
        raise access.only_admin()
    if code == 54:
        raise BrokerFailed(
            "这个 Kafka 没有启用权限（authorizer.class.name），见 deploy/kafka/secure.properties"
            " · this Kafka keeps no rights (authorizer.class.name): see deploy/kafka/secure.properties"
        )
    raise BrokerFailed(f"Kafka 拒绝了设置（{code} {message}） · Kafka refused a user or right: {code} {message}")


def _rule(right: Right) -> Rule:
    return (_RESOURCES[right.kind], right.name, _LITERAL, f"User:{right.user}", "*", _OPERATIONS[right.may], _ALLOW)


async def _held(admin: Any, user: str) -> set[Rule]:
    """Every rule about a user, of whatever kind."""
    from aiokafka.protocol.admin import DescribeAclsRequest  # noqa: PLC0415

    answer = await _ask(admin, DescribeAclsRequest(_ANY, None, _ANY, f"User:{user}", None, _ANY, _ANY))
    _sure((answer.error_code, answer.error_message))
    return {(kind, resource, pattern, *rule) for kind, resource, pattern, rules in answer.resources for rule in rules}


def _upsert(proofs: dict[str, bytes], mechanism: str) -> Any:
    """A request that sets passwords: salt and salted hash of each, by RFC 5802."""
    from aiokafka.protocol.api import Request, RequestStruct, Response  # noqa: PLC0415
    from aiokafka.protocol.types import (  # noqa: PLC0415
        CompactArray,
        CompactBytes,
        CompactString,
        Int8,
        Int16,
        Int32,
        Schema,
        TaggedFields,
    )

    text = CompactString("utf-8")

    class Altered(Response):  # type: ignore[misc]  # aiokafka has no types
        API_KEY = 51
        API_VERSION = 0
        SCHEMA = Schema(
            ("throttle_time_ms", Int32),
            ("results", CompactArray(("user", text), ("code", Int16), ("message", text), ("tags", TaggedFields))),
            ("tags", TaggedFields),
        )

    class Alter(RequestStruct):  # type: ignore[misc]
        API_KEY = 51
        API_VERSION = 0
        FLEXIBLE_VERSION = True
        RESPONSE_TYPE = Altered
        SCHEMA = Schema(
            ("deletions", CompactArray(("name", text), ("mechanism", Int8), ("tags", TaggedFields))),
            (
                "upsertions",
                CompactArray(
                    ("name", text),
                    ("mechanism", Int8),
                    ("iterations", Int32),
                    ("salt", CompactBytes),
                    ("salted", CompactBytes),
                    ("tags", TaggedFields),
                ),
            ),
            ("tags", TaggedFields),
        )

    number, digest = _MECHANISMS[mechanism]

    class AlterUsers(Request[Alter]):  # type: ignore[misc]
        API_KEY = 51

        def build(self, struct: Any) -> Any:
            rows: list[tuple[Any, ...]] = []
            for user, password in proofs.items():
                salt = random.token_bytes(32)
                salted = hashlib.pbkdf2_hmac(digest, password, salt, _ITERATIONS)
                rows.append((user, number, _ITERATIONS, salt, salted, {}))
            return struct([], rows, {})

    return AlterUsers()
