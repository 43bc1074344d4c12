"""The shops' accounts on their platforms, as a person writes them down: `{"douyin:main": {"app_key": "…", "app_secret": "…"}}`.

Law: a misspelled field is an error that names it and never its value; nothing that stands here is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr

from orderstream.errors import BadFile, BadSettings
from orderstream.orders import CHANNELS
from orderstream.platforms import Account
from orderstream.reread import Reread
from orderstream.settings import PREFIX, Settings


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """One account, as it is written."""

    app_key: str
    app_secret: str
    url: str = ""
    token: str | None = None
    refresh_token: str | None = None
    extra: dict[str, str] = {}
    rate: float = 10.0
    burst: int = 10
    poll_seconds: float = 300.0


class Accounts:
    """The accounts in force: the environment's, and the file's over them; the file is read again when it changes."""

    def __init__(self, settings: Settings) -> None:
        given = settings.platforms
        try:
            self._own = {} if given is None else read(given.get_secret_value())
        except ValueError as error:
            raise BadSettings(f"设置 {PREFIX}PLATFORMS 不可用 · setting {PREFIX}PLATFORMS: {error}") from None
        self._file = None if settings.platforms_file is None else Reread(settings.platforms_file, read_file)

    def __call__(self) -> Mapping[str, Account]:
        """By name."""
        return {**self._own, **(self._file() if self._file is not None else {})}


def read(text: str) -> dict[str, Account]:
    """The accounts of a JSON text, by name. Raises ValueError, naming the place and no value."""
    try:
        table = json.loads(text or "{}")
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(table, dict):
        raise ValueError('is not {"channel:shop": {…}}')  # noqa: TRY004  one kind of error for whoever reads a setting
    return {name: _account(name, said) for name, said in table.items()}


def _account(name: str, said: Any) -> Account:
    channel, _, shop = name.partition(":")
    if channel not in CHANNELS or not shop or ":" in shop:
        raise ValueError(f"{name}: is not channel:shop, channel one of {', '.join(CHANNELS)}")
    try:
        one = msgspec.convert(said, _Written)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from None
    if not (one.rate > 0 and one.burst >= 1 and one.poll_seconds >= 0):
        raise ValueError(f"{name}: rate must be over 0, burst at least 1, poll_seconds 0 (never) or more")
    if one.url and not one.url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ValueError(f"{name}: url is not https:// (a key would cross the network in the clear)")
    return Account(
        channel, shop, one.app_key, SecretStr(one.app_secret), one.url.rstrip("/"), _secret(one.token), _secret(one.refresh_token),
        one.extra, one.rate, one.burst, one.poll_seconds,
    )  # fmt: skip


def _secret(value: str | None) -> SecretStr | None:
    return SecretStr(value) if value else None


def read_file(path: Path) -> dict[str, Account]:
    """The accounts in a file. Raises BadFile."""
    try:
        return read(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise BadFile(f"平台账户文件不可读 · cannot read the platforms file {path}") from None
    except ValueError as error:
        raise BadFile(f"平台账户文件格式不对 · platforms file {path}: {error}") from None
