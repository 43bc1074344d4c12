"""Who is told, how, and when: the file that ORDERSTREAM_ACTIONS_FILE names.

Law: the rules say that a supervisor is told (`{do: notify, to: supervisor}`), this file says who that is. It is read whole or
refused with the place of the mistake, and a word that it does not know is a mistake. It holds secrets: a value `file:/path` is
read from there, and no error and no repr shows one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

import msgspec
import yaml
from msgspec import Meta

from orderstream.errors import BadFile, BadSettings
from orderstream.reread import Reread
from orderstream.rules.model import LEVELS, Level, Text, duration
from orderstream.settings import PREFIX, Settings, read_secret

Language = Literal["zh", "en"]
Offer = Literal["release", "cancel"]
"""What a person may do from a message."""

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,40}")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_MAIL = re.compile(r"[^@\s<>,;\"]{1,64}@[^@\s<>,;\"]{1,190}")

Rate = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[float, Meta(gt=0, le=60)]
Filled = Annotated[str, Meta(min_length=1)]


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """A way to reach somebody. timeout: seconds for one attempt; per_minute: messages to one receiver through it."""

    secrets: ClassVar[tuple[str, ...]] = ()
    needs_address: ClassVar[bool] = False
    """Whether a receiver of it says `to`: its phone or e-mail."""

    timeout: Seconds = 10.0
    per_minute: Rate = 60

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class DingTalk(Gateway, frozen=True, kw_only=True, tag="dingtalk"):
    """A group's robot. secret: what it signs with (`SEC…`); robots without one are told apart by words or addresses."""

    secrets: ClassVar[tuple[str, ...]] = ("token", "secret")
    token: Filled
    secret: str | None = None
    url: Filled = "https://oapi.dingtalk.com/robot/send"
    per_minute: Rate = 20


class WeCom(Gateway, frozen=True, kw_only=True, tag="wecom"):
    """A group's robot, known by the key in its address."""

    secrets: ClassVar[tuple[str, ...]] = ("key",)
    key: Filled
    url: Filled = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send"
    per_minute: Rate = 20


class Feishu(Gateway, frozen=True, kw_only=True, tag="feishu"):
    """A group's robot. token: the end of its address."""

    secrets: ClassVar[tuple[str, ...]] = ("token", "secret")
    token: Filled
    secret: str | None = None
    url: Filled = "https://open.feishu.cn/open-apis/bot/v2/hook/"
    per_minute: Rate = 100


class Smtp(Gateway, frozen=True, kw_only=True, tag="smtp"):
    """A mail server. sender: `Shop <orders@shop.example>`."""

    secrets: ClassVar[tuple[str, ...]] = ("password",)
    needs_address: ClassVar[bool] = True
    host: Filled
    sender: Filled
    port: Annotated[int, Meta(ge=1, le=65535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str | None = None
    password: str | None = None


class AliyunSms(Gateway, frozen=True, kw_only=True, tag="aliyun-sms"):
    """Aliyun's SMS. sign: the approved signature; confirm, notice: approved templates by language, see docs/actions.md for their variables."""

    secrets: ClassVar[tuple[str, ...]] = ("key_secret",)
    needs_address: ClassVar[bool] = True
    key_id: Filled
    key_secret: Filled
    sign: Filled
    confirm: dict[Language, Filled] = {}
    notice: dict[Language, Filled] = {}
    url: Filled = "https://dysmsapi.aliyuncs.com/"


class HttpSms(Gateway, frozen=True, kw_only=True, tag="http-sms"):
    """Any other SMS gateway, behind a few lines of the shop's own: a signed JSON `{id, to, text}`."""

    secrets: ClassVar[tuple[str, ...]] = ("secret",)
    needs_address: ClassVar[bool] = True
    url: Filled
    secret: Filled


class Webhook(Gateway, frozen=True, kw_only=True, tag="webhook"):
    """A program of the shop's own: the action as signed JSON."""

    secrets: ClassVar[tuple[str, ...]] = ("secret",)
    url: Filled
    secret: Filled
    per_minute: Rate = 600


class Apprise(Gateway, frozen=True, kw_only=True, tag="apprise"):
    """Whatever else apprise reaches: Slack, Teams, Telegram, Bark, ….  url: in its own form."""

    secrets: ClassVar[tuple[str, ...]] = ("url",)
    url: Filled


Kinds = DingTalk | WeCom | Feishu | Smtp | AliyunSms | HttpSms | Webhook | Apprise


class Quiet(msgspec.Struct, frozen=True):
    """Hours of a day in the shop's zone, from `since` to `until` (minutes after midnight), which may pass midnight."""

    since: int
    until: int

    def ends(self, now: int, zone: str) -> int | None:
        """When (ms UTC) the quiet hours that `now` falls into are over; None outside of them."""
        if self.since == self.until:
            return None
        local = datetime.fromtimestamp(now / 1000, UTC).astimezone(ZoneInfo(zone))
        minute = local.hour * 60 + local.minute
        inside = self.since <= minute < self.until if self.since < self.until else minute >= self.since or minute < self.until
        if not inside:
            return None
        day = local.date() + timedelta(days=1 if self.since > self.until and minute >= self.since else 0)
        # by the wall clock: a night with a change of clocks ends when its people say so
        end = datetime(day.year, day.month, day.day, self.until // 60, self.until % 60, tzinfo=local.tzinfo)
        return int(end.timestamp() * 1000)


class _Receiver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    via: str
    to: str | None = None
    person: str | None = None
    language: Language | None = None
    quiet: str | None = None
    pierce: tuple[Level, ...] = ()
    per_minute: Rate | None = None
    offers: tuple[Offer, ...] = ("release", "cancel")


class _Customers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sms: str | None = None
    sms_abroad: str | None = None
    email: str | None = None
    quiet: str | None = None
    valid: str = "48h"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gateways: dict[str, Any] = {}
    receivers: dict[str, Any] = {}
    roles: dict[str, tuple[str, ...]] = {}
    customers: _Customers = _Customers()
    shops: dict[str, Any] = {}
    language: Language = "zh"
    board: str | None = None
    links_valid: str = "24h"
    challenge_lasts: str = "30m"


class Receiver(msgspec.Struct, frozen=True):
    """Somebody, or a group, that is told. person: their login on the board: then messages carry links that act as them."""

    name: str
    via: str
    to: str
    person: str | None
    language: Language
    quiet: Quiet | None
    pierce: frozenset[str]
    per_minute: int
    offers: tuple[Offer, ...]

    def wait_until(self, level: str, now: int, zone: str) -> int | None:
        """When (ms UTC) it may be told of something of this level; None: now."""
        return None if self.quiet is None or level in self.pierce else self.quiet.ends(now, zone)


CUSTOMER = "customer"
"""The name of whoever ordered, beside the receivers of the file."""


class Receivers(msgspec.Struct, frozen=True):
    """The file, understood. valid, links_valid, challenge_lasts: ms; shops: `channel:shop` -> its name for customers."""

    gateways: Mapping[str, Kinds]
    named: Mapping[str, Receiver]
    roles: Mapping[str, tuple[str, ...]]
    shops: Mapping[str, Text]
    language: Language
    board: str | None
    sms: str | None
    sms_abroad: str | None
    email: str | None
    quiet: Quiet | None
    valid: int
    links_valid: int
    challenge_lasts: int

    def of(self, role: str) -> list[Receiver]:
        """Who a role is; a receiver's own name will do. Empty where nobody is."""
        names = self.roles.get(role, (role,) if role in self.named else ())
        return [self.named[name] for name in names]

    def shop(self, channel: str, shop: str, language: Language) -> str:
        """A shop's name for its customers."""
        text = self.shops.get(f"{channel}:{shop}")
        if text is None:
            return "店铺" if language == "zh" else "the shop"
        return text.zh if language == "zh" else text.en


def empty() -> Receivers:
    """Where no file is named: everything that needs somebody waits in the dead letters and says so."""
    return _understand(_File(), Path("-"))


def source(settings: Settings) -> Reread[Receivers] | None:
    """The file of the settings, read again when it changes; None where none is named. Raises BadFile."""
    return None if settings.actions_file is None else Reread(settings.actions_file, read)


def read(path: Path) -> Receivers:
    """Raises BadFile with the place of the first mistake."""
    try:
        said = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise BadFile(f"通知设置不可读 · cannot read the receivers' file {path}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # without the line's own text, which may be a secret
        where = f"line {mark.line + 1}" if mark is not None else "?"
        raise _bad(path, where, "不是 YAML", "is not YAML") from None
    return _understand(_convert(said or {}, _File, path, "file"), path)


def _bad(path: Path, where: str, zh: str, en: str) -> BadFile:
    return BadFile(f"通知设置 {path}，{where}：{zh} · receivers' file {path}, {where}: {en}")


def _convert(value: Any, kind: Any, path: Path, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _bad(path, where, "不合格式", str(error)) from None


def _understand(file: _File, path: Path) -> Receivers:
    def check(holds: bool, where: str, zh: str, en: str) -> None:
        if not holds:
            raise _bad(path, where, zh, en)

    def hours(text: str | None, where: str) -> Quiet | None:
        if text is None:
            return None
        found = _HOURS.fullmatch(text)
        if found is None:
            raise _bad(path, where, f"{text!r} 不是 22:00-08:00 这样的时段", f"{text!r} is no hours like 22:00-08:00")
        since, until = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
        return Quiet(since, until)

    def length(text: str, where: str) -> int:
        try:
            return duration(text)
        except ValueError as error:
            raise _bad(path, where, f"{text!r} 不是 30m、48h 这样的时长", str(error)) from None

    for part, names in (("gateways", file.gateways), ("receivers", file.receivers), ("roles", file.roles)):
        for name in names:
            check(
                _NAME.fullmatch(str(name)) is not None,
                f"{part}.{name}",
                "名字须为小写字母、数字、- _ .",
                "a name is small letters, digits, - _ .",
            )
    gateways = {name: _gateway(value, path, f"gateways.{name}") for name, value in file.gateways.items()}
    named: dict[str, Receiver] = {}
    for name, value in file.receivers.items():
        where = f"receivers.{name}"
        one: _Receiver = _convert(value, _Receiver, path, where)
        check(name != CUSTOMER, where, "customer 指下单的客户，请换名字", "`customer` is whoever ordered: take another name")
        gateway = gateways.get(one.via)
        if gateway is None:
            raise _bad(path, f"{where}.via", f"没有名为 {one.via} 的网关", f"there is no gateway {one.via}")
        check(not gateway.needs_address or bool(one.to), where, "须写 to（手机号或邮箱）", "needs `to`, a phone number or e-mail")
        if isinstance(gateway, Smtp):
            check(_MAIL.fullmatch(one.to or "") is not None, f"{where}.to", "不是邮箱地址", "is no e-mail address")
        if isinstance(gateway, AliyunSms):
            check(bool(gateway.notice), where, f"网关 {one.via} 没有 notice 模板", f"gateway {one.via} has no `notice` template")
        check("none" not in one.pierce, f"{where}.pierce", f"只能是 {LEVELS[1:]}", f"is some of {', '.join(LEVELS[1:])}")
        named[name] = Receiver(
            name,
            one.via,
            one.to or "",
            one.person,
            one.language or file.language,
            hours(one.quiet, f"{where}.quiet"),
            frozenset(one.pierce),
            one.per_minute or gateway.per_minute,
            one.offers,
        )
    for role, members in file.roles.items():
        strange = [name for name in members if name not in named]
        check(not strange, f"roles.{role}", f"没有接收人 {', '.join(strange)}", f"there is no receiver {', '.join(strange)}")
        check(bool(members), f"roles.{role}", "没有人", "names nobody")
    customers = file.customers
    for word, kinds in (("sms", (AliyunSms, HttpSms)), ("sms_abroad", (AliyunSms, HttpSms)), ("email", (Smtp,))):
        name = getattr(customers, word)
        if name is not None:
            where = f"customers.{word}"
            gateway = gateways.get(name)
            if gateway is None:
                raise _bad(path, where, f"没有名为 {name} 的网关", f"there is no gateway {name}")
            check(isinstance(gateway, kinds), where, f"{name} 不是这种网关", f"{name} is not a gateway of that kind")
            if isinstance(gateway, AliyunSms):
                check(bool(gateway.confirm), where, f"{name} 没有 confirm 模板", f"{name} has no `confirm` template")
    shops: dict[str, Text] = {}
    for name, value in file.shops.items():
        check(str(name).count(":") == 1, f"shops.{name}", "须写 渠道:店铺", "is named channel:shop")
        shops[name] = _convert(value, Text, path, f"shops.{name}")
    if file.board is not None:
        check("{order_id}" in file.board, "board", "须含 {order_id}", "must contain {order_id}")
    return Receivers(
        gateways=gateways,
        named=named,
        roles=file.roles,
        shops=shops,
        language=file.language,
        board=file.board,
        sms=customers.sms,
        sms_abroad=customers.sms_abroad or customers.sms,
        email=customers.email,
        quiet=hours(customers.quiet, "customers.quiet"),
        valid=length(customers.valid, "customers.valid"),
        links_valid=length(file.links_valid, "links_valid"),
        challenge_lasts=length(file.challenge_lasts, "challenge_lasts"),
    )


def _gateway(value: Any, path: Path, where: str) -> Kinds:
    if isinstance(value, dict):
        value = dict(value)
        for key, said in value.items():
            if isinstance(said, str) and said.startswith("file:"):
                try:
                    value[key] = read_secret(Path(said.removeprefix("file:"))).decode()
                except BadFile:
                    file = said.removeprefix("file:")
                    raise _bad(path, f"{where}.{key}", f"读不到 {file}", f"cannot read the secret in {file}") from None
    made: Kinds = _convert(value, Kinds, path, where)
    url = getattr(made, "url", "")
    if not isinstance(made, Apprise | Smtp) and not re.match(r"https?://[^/\s]+", url):
        raise _bad(path, f"{where}.url", "不是 http(s) 地址", "is no http(s) address")
    return made


def public_url(settings: Settings) -> str:
    """Where people's browsers find our pages, without the last slash. Raises BadSettings."""
    url = settings.links_url.rstrip("/")
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", url):
        raise BadSettings(f"设置 {PREFIX}LINKS_URL 不是 http(s) 地址 · setting {PREFIX}LINKS_URL is no http(s) address")
    return url
