"""Identity: what makes two orders share an entity, as keyed hashes.

Law: a key never holds what it stands for (HMAC-SHA256 with a secret of the installation, cut to 128 bits), and what is not
enough to tell one from another (a masked value, "北京" as an address) is no key at all.
Reason: keys travel through topics, changelogs and logs; personal data stays in the order.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from orderstream import places
from orderstream.orders import CHANNELS, Address

KINDS: tuple[str, ...] = ("user", "device", "phone", "ip", "segment", "payment", "address", "receiver", "sku", "pair")
"""Entity kinds. receiver: who receives where (for merging parcels); pair: a currency pair, "USD/CNY"."""

OPEN_KINDS: frozenset[str] = frozenset({"sku", "pair"})
"""Kinds whose keys are no personal data and stay readable."""

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_NUMERAL = re.compile("[零〇一二两三四五六七八九十百]+")
_KEEP = re.compile(r"[^\w]+|_+")
_MASKED = re.compile(r"[*＊]{2,}|\*")


class Keys:
    """Makes entity keys with one secret (bytes). A key is `kind:<32 hex digits>`; sku and pair stay as they are."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Keys(***)"

    def key(self, kind: str, value: str) -> str:
        if kind in OPEN_KINDS:
            return f"{kind}:{value}"
        mac = hmac.digest(self._secret, f"{kind}\0{value}".encode(), "sha256")
        return f"{kind}:{mac[:16].hex()}"

    def user(self, channel: str, buyer: str) -> str:
        """A buyer's number means something on its channel only: 1001 of Shopify is not 1001 of the own shop."""
        return self.key("user", f"{channel}\0{buyer}")

    def given(self, kind: str, value: str) -> list[str]:
        """The keys that a value "as the channel gives it" may stand for; a user's on every channel. [] where it is no key."""
        if kind == "user":
            return [self.user(channel, value) for channel in CHANNELS]
        normal = _NORMAL.get(kind, str.strip)(value)
        return [self.key(kind, normal)] if normal else []


def masked(value: str) -> bool:
    """Whether a platform has hidden a value (张**, 1********20): then it is equal for many people."""
    return _MASKED.search(value) is not None


@lru_cache(maxsize=8192)
def ip(text: str) -> str | None:
    """The canonical form of an IPv4 or IPv6 address (an IPv4 inside an IPv6 is the IPv4), or None."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@lru_cache(maxsize=8192)
def segment(text: str) -> str | None:
    """The /24 (IPv4) or /64 (IPv6) network of an address or network, or None."""
    address = ip(text.split("/", maxsplit=1)[0])
    if address is None:
        return None
    return str(ipaddress.ip_network(f"{address}/{64 if ':' in address else 24}", strict=False))


def phone(text: str) -> str | None:
    """Digits of a number, China's country code taken off; None for a masked or too short one."""
    if masked(text):
        return None
    digits = re.sub(r"\D", "", unicodedata.normalize("NFKC", text))
    if digits.startswith("0086"):
        digits = digits[4:]
    elif digits.startswith("86") and len(digits) == 13:
        digits = digits[2:]
    return digits if len(digits) >= 7 else None


def plain(text: str) -> str:
    """Text for comparing: full-width to half-width, lower case, no spaces or punctuation."""
    return _KEEP.sub("", unicodedata.normalize("NFKC", text).casefold())


def _number(match: re.Match[str]) -> str:
    run = match.group()
    if not any(c in "十百" for c in run):
        return "".join(str(_DIGITS[c]) for c in run)
    total = current = 0
    for c in run:
        if c == "百":
            total += (current or 1) * 100
            current = 0
        elif c == "十":
            total += (current or 1) * 10
            current = 0
        else:
            current = _DIGITS[c]
    return str(total + current)


@lru_cache(maxsize=65536)
def address_text(text: str) -> str | None:
    """One spelling of an address: `<division code>|<rest>`; None for a fragment that is no place to deliver to.

    浙江省杭州市西湖区文三路1号, 浙江 杭州 西湖区 文三路一号 and 杭州市西湖区文三路１号 are one.
    """
    if masked(text):
        return None
    code, rest = places.locate(plain(text))
    rest = _NUMERAL.sub(_number, rest)
    # a delivery needs a street with its number, or at least a name that is not just an area's
    if len(rest) < 2 or (not any(c.isdigit() for c in rest) and len(rest) < 6):
        return None
    return f"{code or ''}|{rest}"


_NORMAL: dict[str, Callable[[str], str | None]] = {"phone": phone, "ip": ip, "segment": segment, "address": address_text}


def address(value: Address | None) -> str | None:
    """The one spelling of a delivery address, its country in front where that is not China; None for a fragment."""
    if value is None or value.detail is None:
        return None
    parts = [value.province, value.city, value.district, value.detail]
    whole = address_text(" ".join(p for p in parts if p))
    if whole is None or value.country in (None, "CN", "中国"):
        return whole
    return f"{plain(value.country)}|{plain(value.postcode or '')}|{whole}"


def place(value: Address | None) -> tuple[float, float] | None:
    """(lat, lon) in degrees: as given, otherwise the centre of the city or district that the address names."""
    if value is None:
        return None
    if value.lat is not None and value.lon is not None:
        return (value.lat, value.lon)
    if value.country not in (None, "CN", "中国"):
        return None
    parts = [value.province, value.city, value.district, value.detail]
    code, _ = places.locate(plain(" ".join(p for p in parts if p)))
    return places.centre(code) if code else None
