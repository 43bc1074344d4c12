"""Reading what a channel sent: strict JSON, exact amounts, absent instead of empty. Every parser's common ground.

Law: a body means one thing or nothing. Text that is not UTF-8, a key given twice, a number that a float would round, a
string that cannot be stored: each is a Fault with its place, never a value that was repaired. Reason: two readers of one
body must never disagree about it, and the signature covers the bytes, not what we made of them.

A Fault is raised inside a parser and becomes its Rejected at the border (`rejected`); nothing else leaves a parser.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from orderstream import money, times
from orderstream.orders import Raw, Rejected, Status

MAX_BODY = 1_048_576
"""Bytes of a body: a platform's largest order is a few hundred KB; intake refuses more, so does a parser."""
MAX_DEPTH = 32
MAX_BRACKETS = 30_000
"""Brackets in a body. To read a megabyte of empty objects takes a quarter of a second; 500 lines of Shopify have two thirds of these."""
MAX_COMMAS = 50_000
"""About a body's values: they bound what it takes where the brackets do not; 500 lines of Shopify have 40,000."""
MAX_INNER = 65_536
"""Characters of JSON within a text: some parts are asked for several times, and each time it is read."""
MAX_LINES = 500
MAX_QUANTITY = 1_000_000
MAX_REVISION = 2**53
"""Past it a JSON number is not the same in every reader."""
MAX_ID = 128
_MAX_DIGITS = 28
"""Digits of an amount: past them decimal arithmetic would round before anybody could refuse."""

_AMOUNTS = (str, Decimal, int)
_AMOUNT = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")
_TIME = re.compile(r"([0-9-]{10})[ T]([0-9:]{8}(?:\.[0-9]{1,9})?)(Z|[+-][0-9]{2}:?[0-9]{2})?")
_MILLISECONDS = 10**11
"""From here on a number of time counts ms: as seconds it would be the year 5138."""
_LEAST_SECONDS = 10**9
"""Below it a number where a text should be is no time (2001): 20261111 is a day to people and 1970 to machines."""
_PIECES = re.compile(r"([0-9]{1,7})(?:\.0+)?")
_COUNTED = re.compile(r"[1-9][0-9]{0,19}")
_WHOLE = re.compile(r"[0-9]{1,20}")
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A JSON string, or an unfinished one to the end: nothing is tried twice, or 100 KB of \\" after a quote take 20 seconds."""
_VALUE = msgspec.json.Decoder()
_BRACKETS = re.compile(r"[\[\]{}]")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*+\\u0000")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Fault(Exception):  # noqa: N818  not an error of ours: a finding about what a channel sent
    """What is wrong with a body. code: short and stable; zh, en: the sentence; field: where, as a path."""

    def __init__(self, code: str, zh: str, en: str, field: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.reason = f"{zh} · {en}"
        self.field = field


def rejected(raw: Raw, number: str | None, fault: Fault) -> Rejected:
    """The reject of a raw record: under its order id where the body names a usable one, else under its bytes' hash."""
    return Rejected(record_id(raw, number), fault.code, fault.reason, fault.field)


def record_id(raw: Raw, number: str | None) -> str:
    """`channel:shop:number`, or `raw:<sha256 of the body's bytes>` where there is no number."""
    if number is not None:
        return f"{raw.channel}:{raw.shop}:{number}"
    return "raw:" + hashlib.sha256(raw.body).hexdigest()


def document(body: bytes) -> Any:
    """The JSON value of a body, fractions as Decimal. Raises Fault."""
    if len(body) > MAX_BODY:
        raise Fault("too-large", "内容超过 1 MB", "the body is over 1 MB")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("not-utf8", "内容不是 UTF-8", "the body is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise Fault("not-json", "内容以 BOM 开头，请去掉", "the body begins with a byte order mark: leave it out")
    # before anything is built: what is refused here has cost a walk over its bytes
    begun = text.count("[") + text.count("{")
    if begun + text.count("]") + text.count("}") > MAX_BRACKETS or text.count(",") > MAX_COMMAS:
        zh, en = f"超过 {MAX_BRACKETS} 个括号或 {MAX_COMMAS} 个逗号", f"more than {MAX_BRACKETS} brackets or {MAX_COMMAS} commas"
        raise Fault("too-many-values", zh, en)
    if begun > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Fault("too-deep", f"嵌套超过 {MAX_DEPTH} 层", f"nested deeper than {MAX_DEPTH}")
    try:
        found = _STRICT.decode(text)
        # Python's reader lets half a surrogate pair through, which no UTF-8 can hold
        if _SURROGATE.search(text):
            orjson.loads(body)
    except _TwiceError as twice:
        key = twice.args[0][:64]
        raise Fault("duplicate-key", f"字段 {key} 出现两次", f"the key {key} is given twice", key) from None
    except OverflowError:
        raise Fault("bad-number", "有数字超出范围", "a number is beyond what a double holds") from None
    except (ValueError, ArithmeticError, RecursionError):
        raise Fault("not-json", "内容不是合法 JSON", "the body is not JSON") from None
    if "\\u0000" in text and _NUL.search(text):
        raise Fault("bad-text", "文本含有空字符", "a text contains NUL")
    return found


def glance(body: bytes) -> Any:
    """The same at a tenth of the cost and without most of the strictness: for what a body is about. Raises Fault."""
    if len(body) > MAX_BODY or sum(map(body.count, (b"[", b"]", b"{", b"}"))) > MAX_BRACKETS or body.count(b",") > MAX_COMMAS:
        raise Fault("too-many-values", "内容过大", "the body is too large")
    try:
        return _VALUE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault("not-json", "内容不是合法 JSON", "the body is not JSON") from None


class _TwiceError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _fraction(text: str) -> Decimal:
    """Raises OverflowError for what `glance` cannot read either: a body has one order, whoever reads it."""
    if math.isinf(float(text)):
        raise OverflowError(text[:64])
    return Decimal(text)


_STRICT = json.JSONDecoder(parse_float=_fraction, parse_constant=_no_constant, object_pairs_hook=_once)


def _depth(text: str) -> int:
    deepest = now = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        now += 1 if bracket in "[{" else -1
        deepest = max(deepest, now)
    return deepest


_NAMED = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)


def fault_of(error: msgspec.ValidationError) -> Fault:
    """The Fault that msgspec's finding stands for, with its path."""
    said, at, path = str(error).rpartition(" - at `")
    said, path = (said, path.removesuffix("`").removeprefix("$").removeprefix(".")) if at else (path, "")
    what = said.replace("`", "")
    named = _NAMED.fullmatch(said)
    if named is not None:
        path = f"{path}.{named[2][:64]}" if path else named[2][:64]
        if named[1] == "missing required":
            return Fault("missing-field", f"缺少 {path}", f"{path} is missing", path)
        return Fault("unknown-field", f"不认识的字段 {path}", f"the format has no field {path}", path)
    name = path or "body"
    if path.endswith("quantity"):
        return Fault("bad-quantity", f"{name} 须为 1 以上的整数", f"{name} must be an integer from 1 to {MAX_QUANTITY}", path)
    if path == "lines" and "of length <=" in what:
        return Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", path)
    if "of length <=" in what:
        return Fault("too-long", f"{name} 过长", f"{name}: {what}", path or None)
    if path == "lines" and "of length >=" in what:
        return Fault("no-lines", "订单没有商品行", "the order has no lines", path)
    if what.startswith("Expected") and ", got " in what:
        return Fault("wrong-type", f"{name} 类型不对", f"{name}: {what}", path or None)
    return Fault("bad-value", f"{name} 取值不对", f"{name}: {what}", path or None)


def text(value: str | None) -> str | None:
    """A text that says something, or None: what is empty or blank is absent."""
    return (value.strip() or None) if value else None


def absent(value: Any) -> bool:
    """True for what a channel sends where it has nothing to say."""
    return value is None or value == ""  # not `in`: False == 0, and 0 is an amount


def unsaid(value: Any) -> bool:
    """`absent`, or what the Chinese platforms' programs write where a value has none: the text "null", an empty list or object."""
    return absent(value) or value == "null" or (isinstance(value, list | dict) and not value)


def usable_id(value: Any) -> str | None:
    """An id that can stand in a key, a log line and `channel:shop:number`: printable, no blank, no colon, 1 to 128 long."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or ":" in value:
        return None
    # isprintable counts the plain blank as printable and every other one not
    return value if value.isprintable() and " " not in value else None


def said(*values: Any) -> str | None:
    """The first of these that says something, as text: a text that is not blank, or a whole number of up to 20 digits.

    The text "null" says nothing: as a buyer's number it would be the same for all whom a platform's program has none of.
    """
    for value in values:
        found = text(value) if isinstance(value, str) and value != "null" else None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20:
            found = str(value)
        if found is not None:
            return found
    return None


def code(own: str | None, **numbers: str | None) -> str | None:
    """What a line's article is called: by the shop's own code, else by the first of the platform's numbers, as `kind:number`.

    Numbers that are None or 0 are none.
    """
    if own is not None:
        return own
    return next((f"{kind}:{number}" for kind, number in numbers.items() if number not in {None, "0"}), None)


def spec(stated: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """A variant's properties, value by name; what lacks either is left out."""
    return {name: value for name, value in stated if name is not None and value is not None}


def number(value: Any) -> str | None:
    """The number of an order, line or article where a platform counts from 1 in 63 bits, from digits or an integer; else None."""
    found = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else value
    return found if isinstance(found, str) and _COUNTED.fullmatch(found) else None


def unmasked(value: Any) -> str | None:
    """A text that the platform did not hide: what has an asterisk (张**, 1********20) stands for many people."""
    found = said(value)
    return None if found is None or "*" in found or "＊" in found else found


def part(value: Any) -> dict[str, Any]:
    """An object that only helps, also as the one of a list: what is none is an empty one."""
    found = opened(value)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, dict) else {}


def parts(value: Any) -> list[dict[str, Any]]:
    """A list of objects that only help, also one alone: what is none is left out."""
    found = listed(value)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def listed(value: Any) -> Any:
    """The list of the one object that stands where a list should, as of programs that make JSON of XML; all else as it is."""
    found = opened(value)
    return [found] if isinstance(found, dict) and found else found


def opened(value: Any) -> Any:
    """The object or list that a text holds as JSON; all else as it is."""
    if not isinstance(value, str) or len(value) > MAX_INNER or value.lstrip()[:1] not in {"{", "["}:
        return value
    try:
        return document(value.encode("utf-8", "surrogatepass"))
    except Fault:
        return value


def true(value: Any) -> bool | None:
    """Yes or no, in the platforms' several spellings; None where it says neither."""
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get((said(value) or "").lower())


def whole(value: Any) -> int | None:
    """A whole number of 0 or more, written as a number or as digits; None for what is none."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def quantity(value: Any, field: str) -> int:
    """Pieces of a line, as a number or as digits, also as 2.0. Raises Fault."""
    pieces = _PIECES.fullmatch(str(value)) if isinstance(value, str | Decimal) else None
    found = whole(value) if pieces is None else int(pieces[1])
    if found is None or not 1 <= found <= MAX_QUANTITY:
        raise Fault("bad-quantity", f"{field} 须为 1 以上的整数", f"{field} must be an integer from 1 to {MAX_QUANTITY}", field)
    return found


def fen(value: Any, field: str) -> int:
    """Minor units that a platform states as such, as a number or as digits. Raises Fault."""
    found = whole(value)
    if found is None or found > money.MAX_MINOR:
        raise Fault("bad-amount", f"{field} 不是以分为单位的金额", f"{field} is no amount in fen", field)
    return found


def amount(value: Any, currency: str, field: str) -> int:
    """Minor units of a decimal number or a decimal text. Raises Fault."""
    try:
        return _minor(value, currency)
    except money.AmountError as error:
        raise Fault("bad-amount", f"{field} 不是有效金额", f"{field} {error}", field) from None


def _minor(value: Any, currency: str) -> int:
    quick = money.plain(value, currency) if type(value) in _AMOUNTS else None
    if quick is not None:
        return quick
    if isinstance(value, str):
        if not _AMOUNT.fullmatch(value):
            raise money.AmountError("is not a plain decimal number")
        value = Decimal(value)
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise money.AmountError("is not a number")
    if isinstance(value, Decimal) and len(value.as_tuple().digits) > _MAX_DIGITS:
        raise money.AmountError("has too many digits")
    if isinstance(value, int) and abs(value) > money.MAX_MINOR:
        raise money.AmountError("is too large" if value > 0 else "is below zero")
    return money.minor(value, currency)


def currency(value: Any, field: str) -> str:
    """An ISO 4217 code in use. Raises Fault."""
    if isinstance(value, str) and value in money.EXPONENT:
        return value
    raise Fault("bad-currency", f"{field} 不是 ISO 4217 货币代码", f"{field} is no ISO 4217 currency", field)


def time(value: Any, field: str) -> int:
    """The ms UTC of an ISO 8601 time with an offset. Raises Fault."""
    if not isinstance(value, str) or len(value) > 40:
        raise Fault("bad-time", f"{field} 不是时间", f"{field} is not an ISO 8601 time", field)
    try:
        return times.parse(value)
    except (times.TimeError, OverflowError) as error:
        raise Fault("bad-time", f"{field} 不是带时区的有效时间", f"{field} {error}", field) from None


def optional_time(value: Any, field: str) -> int | None:
    """The same, None where the channel gives none."""
    return None if absent(value) else time(value, field)


def beijing(value: Any, field: str) -> int:
    """The ms UTC of `yyyy-MM-dd HH:mm:ss` in Beijing time (UTC+8), as Chinese platforms write it. Raises Fault.

    Also with its zone, with a fraction, or as a Unix time, as the programs that hand orders on make of it.
    """
    count = whole(value)
    found = _told(value) if count is None or count < _LEAST_SECONDS else _counted(count)
    if found is None:
        raise Fault("bad-time", f"{field} 不是 yyyy-MM-dd HH:mm:ss", f"{field} is not a yyyy-MM-dd HH:mm:ss time", field)
    return found


def _told(value: Any) -> int | None:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        return None if match is None else times.parse(f"{match[1]}T{match[2]}{match[3] or '+08:00'}")
    except (times.TimeError, OverflowError):
        return None


def _counted(count: int) -> int | None:
    ms = count if count >= _MILLISECONDS else count * times.SECOND
    return ms if ms <= times.MAX_MS else None


def optional_beijing(value: Any, field: str) -> int | None:
    """The same, None where the channel gives none."""
    return None if unsaid(value) else beijing(value, field)


def unix(value: Any, field: str) -> int:
    """The ms UTC of Unix seconds, as a number or as digits; also of milliseconds, or of a text as `beijing` reads it. Raises Fault."""
    count = whole(value)
    found = _told(value) if count is None else _counted(count)
    if found is None:
        raise Fault("bad-time", f"{field} 不是 Unix 秒", f"{field} is no time in Unix seconds", field)
    return found


def optional_unix(value: Any, field: str) -> int | None:
    """The same, None where the channel gives none; 0 is none."""
    return None if unsaid(value) or value in (0, "0") else unix(value, field)


_STAGE: dict[Status, int] = {"created": 0, "paid": 1, "refunding": 2, "refunded": 3, "cancelled": 3}


def as_of(ms: int, status: Status) -> int:
    """`updated_at` where a platform counts in seconds: of two states within one, that further in an order's life is the later.

    Two records with one `updated_at` are one to us: an order made and paid within a second would else stay unpaid.
    """
    return ms - ms % times.SECOND + _STAGE[status]


@lru_cache(maxsize=16_384)
def ip(value: str) -> str | None:
    """An IP address in its one canonical spelling; None for what is none (or the unspecified one)."""
    try:
        found = ipaddress.ip_address(value.strip())
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
    return None if found.is_unspecified else str(found)


def coordinates(lat: Any, lon: Any, field: str) -> tuple[float, float] | tuple[None, None] | None:
    """Degrees, both or none; (None, None) where none are given, None (not a tuple) where they are no place on Earth.

    Raises Fault for what is no number: that is another format, not a bad measurement.
    """
    for name, value in (("lat", lat), ("lon", lon)):
        if not absent(value) and (isinstance(value, bool) or not isinstance(value, int | float | Decimal)):
            raise Fault("wrong-type", f"{field}.{name} 须为数字", f"{field}.{name} is not a number", f"{field}.{name}")
    if absent(lat) and absent(lon):
        return None, None
    if absent(lat) or absent(lon):
        return None
    try:
        found = float(lat), float(lon)
    except OverflowError:
        return None
    if not all(math.isfinite(one) for one in found) or abs(found[0]) > 90 or abs(found[1]) > 180:
        return None
    return found


def app_of(secret: bytes) -> tuple[bytes, bytes] | None:
    """Key and secret of a platform's app, of `key:secret`; None for what is no such pair."""
    key, colon, rest = secret.partition(b":")
    return (key, rest) if colon and key and rest else None


def matches(given: bytes, made: Iterable[bytes]) -> bool:
    """True when one of the digests that our secrets make is the one given. Takes the same time whichever it is, and if none is."""
    found = 0
    for one in made:
        # the sum of all, not the first: every secret costs the same
        found |= hmac.compare_digest(one, given)
    return bool(found)


def signed(expected: bytes, message: bytes, secrets: Sequence[bytes]) -> bool:
    """True when one of the secrets makes this HMAC-SHA256."""
    return matches(expected, (hmac.new(secret, message, hashlib.sha256).digest() for secret in secrets))


def base64_digest(value: str | None) -> bytes | None:
    """The 32 bytes of a base64 SHA-256 value; None for what is none."""
    try:
        found = base64.b64decode((value or "").strip().encode("ascii"), validate=True)
    except ValueError:
        return None
    return found if len(found) == 32 else None
