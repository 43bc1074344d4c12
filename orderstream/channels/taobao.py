"""Taobao and Tmall: thin messages of TMC, and the trades that the platform tells when asked (`taobao_trade`).

Law: a message says which trade something happened to, never what the trade is now; so its trade is fetched, whatever else the
message holds. The one exception is a refund that went through: it says all that a Refund needs. What comes with its trade
(a row of the 聚石塔 database, an answer of the API) is read as it is.

Messages are pulled (`orderstream.platforms.taobao`): TMC proves the connection, not the message. What comes over HTTP must carry
the sign of an SPI call: `sign` in the query is the upper-case hex MD5 of secret + every key and value, sorted by key + body +
secret. The keys are those of the query, of a form, and the headers that `top-sign-list` names. Of a form the fields are
signed and not the bytes. A `timestamp` in the query may be 5 minutes off.

A shop's secret is `app_key:app_secret`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec
import orjson

from orderstream.channels import Proved, Push, Refused, Reply, reading, taobao_trade
from orderstream.channels.reading import Fault, part, said, unsaid
from orderstream.orders import Parsed, Raw, Refund, Skip

MAX_SKEW_MS = 300_000
"""How far an SPI call's timestamp may be from our clock; the platform's own kit says the same."""
MAX_MESSAGES = 1_000
"""Messages of one push or answer; the platform gives at most 200. More of them stay together, and are a reject."""
MAX_CONTENT = 65_536
"""Characters of a message's content: it names a trade and says a dozen things of it."""
SIGN, STAMP, SIGN_LIST = "sign", "timestamp", "top-sign-list"
REFUNDED = "taobao_refund_RefundSuccess"

_NOTHING = frozenset(
    f"taobao_trade_{name}"
    for name in (
        "TradeSellerShip", "TradePartlySellerShip", "TradeSuccess", "TradePartlyConfirmPay", "TradeDelayConfirmPay",
        "TradeTimeoutRemind", "TradeRated",
    )
) | frozenset(f"taobao_refund_{name}" for name in ("RefundCreateMessage", "RefundBlockMessage", "RefundTimeoutRemind"))  # fmt: skip
"""Topics about trades after which nothing is decided otherwise: shipped, received, rated, talked about."""
_FOLLOWED = ("taobao_trade_", "taobao_refund_")
_UPPER_MD5 = re.compile(r"[0-9A-F]{32}")
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 1_000


class _Messages(msgspec.Struct, frozen=True):
    tmc_message: msgspec.Raw = msgspec.Raw(b"[]")


class _Consumed(msgspec.Struct, frozen=True):
    messages: _Messages | None = None


class _Answer(msgspec.Struct):
    tmc_messages_consume_response: _Consumed


_NONE = frozenset({b"", b"null", b"{}", b'""'})
_ANSWER = msgspec.json.Decoder(_Answer)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class Told(msgspec.Struct, frozen=True):
    """What a body tells: the whole trade, or a message about one. number: of the trade; None where it names no usable one."""

    number: str | None
    trade: Any = None
    topic: str | None = None
    content: dict[str, Any] = {}
    sent: Any = None

    @property
    def followed(self) -> bool:
        """Whether the topic is one that may change a verdict; new ones are, until they are known to be nothing."""
        return self.topic is None or (self.topic.startswith(_FOLLOWED) and self.topic not in _NOTHING)


class Taobao:
    """The channel; `CHANNEL` is the one there is."""

    id = "taobao"
    headers: tuple[str, ...] = ()
    accepted = Reply(b'{"success":true}', "application/json")

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Who sent it: the sign of an SPI call. Raises Refused. Carried are the messages, one record each."""
        given = push.query.get(SIGN, "")
        if not _UPPER_MD5.fullmatch(given):
            raise Refused("unsigned")
        known = [secret for whole in secrets if (secret := app_secret(whole)) is not None]
        if not known:
            raise Refused("bad-secret")
        charset, form = _kind(push.headers.get("content-type", ""))
        fields = _fields(push.body, charset) if form else {}
        signed = {name: unquote_plus(push.headers.get(name.lower(), ""), charset) for name in _listed(push.headers)}
        params = {**fields, **signed, **push.query}
        params.pop(SIGN, None)
        made = (digest(secret, params, b"" if form else push.body, charset).encode() for secret in known)
        if not reading.matches(given.encode(), made):
            raise Refused("bad-signature")
        if STAMP in push.query and not _fresh(push.query[STAMP], now_ms):
            raise Refused("stale")
        if push.method != "POST":
            return Proved("top-spi", ())
        body = orjson.dumps(fields) if form and "content" in fields and "topic" in fields else push.body
        return Proved("top-spi", messages(body))

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of a message's or a row's trade."""
        del headers
        number = _about(body)
        return None if number is None else f"taobao:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """True for a message whose trade must be fetched; not for a refund that went through, nor where no trade is named."""
        told = _glanced(raw.body)
        return told is not None and told.trade is None and told.number is not None and told.followed and told.topic != REFUNDED

    def parse(self, raw: Raw) -> Parsed:
        """The order, refund, skip or reject of a raw record. Never raises for what was sent."""
        try:
            told = _told(reading.document(raw.body), reading.document)
        except Fault as fault:
            return reading.rejected(raw, _about(raw.body), fault)
        try:
            return _parsed(raw, told)
        except Fault as fault:
            return reading.rejected(raw, told.number, fault)


CHANNEL = Taobao()


def app_secret(secret: bytes) -> bytes | None:
    """The second half of `app_key:app_secret`; None for what is no such pair."""
    key, _, value = secret.partition(b":")
    return value if key and value else None


def digest(secret: bytes, params: Mapping[str, str], body: bytes = b"", charset: str = "utf-8") -> str:
    """The platform's MD5 over parameters (and a body), of SPI calls and of its API alike: upper-case hex."""
    joined = "".join(key + params[key] for key in sorted(params)).encode(charset, "replace")
    # their algorithm, not our choice: MD5 with the secret at both ends
    return hashlib.md5(secret + joined + body + secret, usedforsecurity=False).hexdigest().upper()


def messages(body: bytes) -> tuple[bytes, ...]:
    """The TMC messages of a body, each as it stands there: of an answer to `consume`, of a list; else the body itself."""
    try:
        if body.lstrip()[:1] == b"[":
            found = tuple(bytes(one) for one in _RAWS.decode(body))
            return found if len(found) <= MAX_MESSAGES else (body,)
        if b"tmc_messages_consume_response" in body[:200]:
            listed = _ANSWER.decode(body).tmc_messages_consume_response.messages
            inner = b"" if listed is None else bytes(listed.tmc_message)
            return messages(inner) if inner not in _NONE else ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return (body,)


# -- who sent it -----------------------------------------------------------------------------------------------------


def _kind(content_type: str) -> tuple[str, bool]:
    """The charset that a Content-Type says, and whether it is a form."""
    kind, *more = (one.strip().lower() for one in content_type.split(";"))
    for one in more:
        name, _, value = one.partition("=")
        if name.strip() == "charset" and value.strip(' "').startswith("gb"):
            return "gb18030", kind == _FORM
    return "utf-8", kind == _FORM


def _fields(body: bytes, charset: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, encoding=charset, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise Refused("bad-form", 400) from None


def _listed(headers: Mapping[str, str]) -> list[str]:
    given = headers.get(SIGN_LIST, "")
    return given.split(",") if given else []


def _fresh(stamp: str, now_ms: int) -> bool:
    try:
        return abs(now_ms - reading.beijing(stamp, STAMP)) <= MAX_SKEW_MS
    except Fault:
        return False


# -- what it tells ---------------------------------------------------------------------------------------------------


def _about(body: bytes) -> str | None:
    told = _glanced(body)
    return None if told is None else told.number


def _glanced(body: bytes) -> Told | None:
    """What a body tells, read without strictness; None where it cannot be read."""
    try:
        return _told(reading.glance(body), reading.glance)
    except Fault:
        return None


def _told(value: Any, read: Callable[[bytes], Any]) -> Told:
    """What a JSON value tells. read: for JSON within its texts. Raises Fault."""
    if isinstance(value, dict) and "tmc_messages_consume_response" in value:
        value = _only(part(part(value["tmc_messages_consume_response"]).get("messages")).get("tmc_message"))
    if not isinstance(value, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    trade = _trade(value, read)
    if trade is not None:
        return Told(taobao_trade.number(trade), trade)
    topic = said(value.get("topic"))
    content = value.get("content")
    if isinstance(content, str):
        if len(content) > MAX_CONTENT:
            raise Fault("too-large", "消息的 content 超过 64 K", "the message's content is over 64 K characters", "content")
        try:
            content = read(content.encode("utf-8", "surrogatepass")) if content.strip() else {}
        except Fault as fault:
            raise Fault(fault.code, "消息的 content 不是合法 JSON", "the message's content is not JSON", "content") from None
    elif topic is None and content is None:
        # the content alone, as some relays hand it on
        content = value
    content = part(content)
    return Told(taobao_trade.number(content), None, topic, content, value.get("pub_time"))


def _only(given: Any) -> Any:
    listed = given if isinstance(given, list) else [given]
    if len(listed) != 1:
        raise Fault("several-messages", "一条记录须只含一条消息", "a record must hold one message", "messages")
    return listed[0]


def _trade(value: dict[str, Any], read: Callable[[bytes], Any]) -> Any:
    """The trade in an answer of the API or a row of the database; None where there is none. Raises Fault."""
    row = value.get("jdp_response")
    if isinstance(row, str):
        inner = read(row.encode("utf-8", "surrogatepass"))
        return _trade(inner, lambda _: None) if isinstance(inner, dict) else None
    if isinstance(row, dict):
        return _trade(row, read)
    if value.get("error_response"):
        raise Fault("detail-error", "平台返回的是错误而不是订单", "the platform answered an error and no trade", "error_response")
    if "trade_fullinfo_get_response" in value:
        return part(value["trade_fullinfo_get_response"]).get("trade", {})
    if isinstance(value.get("trade"), dict):
        return value["trade"]
    return value if "orders" in value and "topic" not in value else None


def _parsed(raw: Raw, told: Told) -> Parsed:
    if told.trade is not None:
        return taobao_trade.order(raw, told.trade)
    if not told.followed:
        topic = (told.topic or "")[:64]
        return Skip(f"不处理主题 {topic} · the topic {topic} is not followed")
    if told.number is None:
        raise Fault("bad-order-id", "消息里没有可用的 tid", "the message names no usable tid", "content.tid")
    if told.topic == REFUNDED:
        return _refund(raw, told, told.number)
    if raw.detail is None:
        raise Fault("no-detail", "没有取到订单详情", "the trade's detail has not been fetched")
    detail = _told(reading.document(raw.detail), reading.document)
    if detail.trade is None:
        raise Fault("wrong-detail", "详情里没有 trade", "the detail holds no trade", "trade")
    if detail.number != told.number:
        raise Fault("other-order", "详情是另一笔订单", "the detail is another trade's", "trade.tid")
    return taobao_trade.order(raw, detail.trade)


def _refund(raw: Raw, told: Told, number: str) -> Refund:
    content = told.content
    refund_id = said(content.get("refund_id"))
    if refund_id is None or reading.usable_id(refund_id) is None:
        raise Fault("missing-field", "缺少退款号", "refund_id is missing or no number", "content.refund_id")
    at, field = (content.get("modified"), "content.modified") if not unsaid(content.get("modified")) else (told.sent, "pub_time")
    return Refund(
        f"{raw.channel}:{raw.shop}:{number}",
        refund_id,
        reading.amount(content.get("refund_fee"), "CNY", "content.refund_fee"),
        "CNY",
        reading.beijing(at, field),
    )
