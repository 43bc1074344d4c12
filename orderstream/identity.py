"""Identity: what makes two orders share an entity, as keyed hashes, each with where it is valid and how sure it is.

Law: a key never holds what it stands for (HMAC-SHA256 with a secret of the installation, cut to 128 bits), and what is not
enough to tell one from another (a masked value, "北京" as an address) is no key at all.
Reason: keys travel through topics, changelogs and logs; personal data stays in the order.

The ladder. The same person or place looks different on every channel. For each kind of entity an order is known by the first
rung that it has of each reach: in the shop or on the channel by what the platform itself gives to tell them apart (`LADDER`),
everywhere by plain values and then by normalised text. Orders meet where they share any key. So two channels meet only by what
both show plainly; and a rule that asks for more confidence than a key has does not see that key.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

from orderstream import addresses, phones, places
from orderstream.addresses import hidden, masked
from orderstream.orders import CHANNELS, Address, Order

KINDS: tuple[str, ...] = (
    "user", "person", "device", "phone", "ip", "segment", "payment", "address", "receiver", "sku", "pair",
)  # fmt: skip
"""Entity kinds. user: an account; person: who it is, on whatever channel; receiver: who receives where (for merging parcels);
pair: a currency pair, "USD/CNY"."""

BLOCK = 64
"""Bytes: SHA-256's."""

OPEN_KINDS: frozenset[str] = frozenset({"sku", "pair"})
"""Kinds whose keys are no personal data and stay readable."""

Confidence = Literal["weak", "likely", "sure"]
"""How sure it is that two with one key are one. sure: the platform says so, or the value is the thing itself (a whole number, an
account). likely: few exceptions (a name at an address, an address by its text). weak: nobody has promised it."""

RANK: dict[str, int] = {"weak": 0, "likely": 1, "sure": 2}
WEAK, LIKELY, SURE = RANK.values()

Reach = Literal["shop", "channel", "everywhere"]
"""Where a key is valid: equal values mean one thing only among the orders of that shop, of that channel, or all."""


class Rung(NamedTuple):
    """What a platform's key is a key of, where, and how surely."""

    kind: str
    reach: Reach
    confidence: int


LADDER: dict[str, dict[str, tuple[Rung, ...]]] = {
    "taobao": {
        "oaid": (Rung("address", "shop", SURE),),
        "buyer_ip": (Rung("ip", "channel", WEAK),),
    },
    "jd": {
        "oaid": (Rung("address", "shop", SURE),),
        "desen_mobile": (Rung("phone", "channel", WEAK), Rung("person", "channel", WEAK)),
        "desen_telephone": (Rung("phone", "channel", WEAK), Rung("person", "channel", WEAK)),
    },
    "douyin": {"open_address_id": (Rung("address", "shop", SURE),)},
    "wechat": {
        "unionid": (Rung("person", "everywhere", SURE),),
        "hash_code": (Rung("address", "shop", SURE),),
    },
    "youzan": {
        "buyer_phone": (Rung("phone", "shop", WEAK), Rung("person", "shop", WEAK)),
        "receiver_tel": (Rung("person", "shop", WEAK),),
        "delivery_address": (Rung("address", "shop", WEAK),),
    },
}
"""Channel -> what `Order.keys` may hold there, the platform's best key of a kind first; accounts are `buyer.id`. The weak ones are ciphertexts and digests
that have been seen to repeat, which no document promises."""


class Known(NamedTuple):
    """What an order is known by: kind -> its keys; unsure: those of them that are less than sure, and how sure they are."""

    keys: dict[str, list[str]]
    unsure: dict[str, int]


class Keys:
    """Makes entity keys with one secret (bytes). A key is `kind:<32 hex digits>`; sku and pair stay as they are."""

    def __init__(self, secret: bytes) -> None:
        # HMAC as RFC 2104 writes it: hmac.digest would take twice as long, and to copy a hash that is begun longer than to begin it
        padded = (secret if len(secret) <= BLOCK else hashlib.sha256(secret).digest()).ljust(BLOCK, b"\0")
        self._inner = bytes(byte ^ 0x36 for byte in padded)
        self._outer = bytes(byte ^ 0x5C for byte in padded)

    def __repr__(self) -> str:
        return "Keys(***)"

    def key(self, kind: str, value: str) -> str:
        if kind in OPEN_KINDS:
            return f"{kind}:{value}"
        inner = sha256(self._inner + f"{kind}\0{value}".encode()).digest()
        return f"{kind}:{sha256(self._outer + inner).hexdigest()[:32]}"

    def user(self, channel: str, buyer: str) -> str:
        """A buyer's number means something on its channel only: 1001 of Shopify is not 1001 of the own shop."""
        return self.key("user", f"{channel}\0{buyer}")

    def given(self, kind: str, value: str) -> list[str]:
        """The keys that a value "as the channel gives it" may stand for; a user's on every channel. [] where it is no key."""
        if kind == "user":
            return [self.user(channel, value) for channel in CHANNELS]
        normal = _NORMAL.get(kind, str.strip)(value)
        return [self.key(kind, normal)] if normal else []


def ip(text: str) -> str | None:
    """The canonical form of an IPv4 or IPv6 address, or None. One that says nothing of who it was (a proxy's own, 127.0.0.1) is none.

    An IPv4 inside an IPv6 (mapped, 6to4) is the IPv4: it is one connection, told by two machines.
    """
    said = text.strip()
    if _IPV4.fullmatch(said):
        return None if said.startswith(_NOWHERE) else said
    return _written_otherwise(said)


@lru_cache(maxsize=8192)
def _written_otherwise(said: str) -> str | None:
    try:
        told = ipaddress.ip_address(said.partition("%")[0])
    except ValueError:
        return None
    if isinstance(told, ipaddress.IPv6Address):
        told = told.ipv4_mapped or told.sixtofour or told
    return None if told.is_unspecified or told.is_loopback or told.is_link_local or str(told).startswith(_NOWHERE) else str(told)


def segment(text: str) -> str | None:
    """The /24 (IPv4) or /64 (IPv6: what one household or office is given) network of an address or network, or None."""
    told = ip(text.partition("/")[0])
    if told is None:
        return None
    return _household(told) if ":" in told else f"{told.rpartition('.')[0]}.0/24"


@lru_cache(maxsize=8192)
def _household(told: str) -> str:
    return str(ipaddress.ip_network(f"{told}/64", strict=False))


def phone(text: str, country: str | None = None) -> str | None:
    """A number in an order whose address names a country: E.164, China's without its code; None for what is nobody's own number."""
    told = phones.number(text, phones.region(country))
    return None if told is None else phones.home(told)


def plain(text: str) -> str:
    """Text for comparing: full-width to half-width, lower case, no spaces or punctuation."""
    return _KEEP.sub("", unicodedata.normalize("NFKC", text).casefold())


def name(text: str | None) -> str | None:
    """Who receives, for comparing; None for a masked, encrypted or empty name, and for one that is only a title."""
    if text is None or hidden(text):
        return None
    said = plain(text)
    short = _TITLE.sub("", said)
    return short if len(short) > 1 else None


address = addresses.spelling
address_text = addresses.text


def own(order: Order) -> str | None:
    """The buyer's number (as `phone` tells it), the receiver's where the buyer has none that is theirs."""
    to = order.ship_to
    country = to.country if to is not None else None
    told = phone(order.buyer.phone, country) if order.buyer.phone else None
    return told if told is not None or to is None or not to.phone else phone(to.phone, country)


def place(value: Address | None) -> tuple[float, float] | None:
    """(lat, lon) in degrees: as given, otherwise the centre of the city or district that the address names.

    To a hundredth of a degree (1.1 km): facts travel and stay, and what they hold is to be an area, nobody's door.
    """
    if value is None:
        return None
    if value.lat is not None and value.lon is not None:
        return (round(value.lat, 2), round(value.lon, 2))
    code = addresses.division(value)
    return places.centre(code) if code else None


def known(order: Order, keys: Keys, kinds: frozenset[str], least: Mapping[str, int], *, merging: bool) -> Known:
    """The keys of an order, of these kinds, each at least as sure as `least` says of its kind.

    merging: whether parcels to one receiver are looked for.
    """
    known = Known({}, {})
    found = known.keys
    buyer, to = order.buyer, order.ship_to
    account = buyer.id if buyer.id is not None and not masked(buyer.id) else None
    if account is not None and "user" in kinds:
        found["user"] = [keys.user(order.channel, account)]
    if buyer.device is not None and "device" in kinds:
        found["device"] = [keys.key("device", buyer.device)]
    if buyer.phone and "phone" in kinds:
        number = phone(buyer.phone, to.country if to is not None else None)
        if number is not None:
            found["phone"] = [keys.key("phone", number)]
    if buyer.ip is not None:
        if "ip" in kinds and (network := ip(buyer.ip)) is not None:
            found["ip"] = [keys.key("ip", network)]
        if "segment" in kinds and (network := segment(buyer.ip)) is not None:
            found["segment"] = [keys.key("segment", network)]
    if order.payment.id is not None and "payment" in kinds and not masked(order.payment.id):
        found["payment"] = [keys.key("payment", order.payment.id)]
    parcel = _platform(order, keys, kinds, least, known) if order.keys else None
    where = address(to) if merging or "address" in kinds or "person" in kinds else None
    if where is not None and "address" in kinds and least["address"] <= LIKELY:
        _put(known, "address", keys.key("address", where), LIKELY)
    if "person" in kinds:
        _person(order, keys, where, least["person"], known)
    if merging and to is not None:
        who = (phone(to.phone, to.country) if to.phone else None) or name(to.name) if where is not None else None
        if who is not None:
            _put(known, "receiver", keys.key("receiver", f"{who}\0{where}"), LIKELY)
        if parcel is not None and account is not None:
            _put(known, "receiver", keys.key("receiver", f"{order.channel}\0{account}\0{parcel}"), SURE)
    return known


def _put(known: Known, kind: str, key: str, confidence: int) -> None:
    known.keys.setdefault(kind, []).append(key)
    if confidence < SURE:
        known.unsure[key] = confidence


def _platform(order: Order, keys: Keys, kinds: frozenset[str], least: Mapping[str, int], known: Known) -> str | None:
    """Puts the keys that the platform gives, of a kind and a reach the best; what it gives for the address, None where nothing."""
    taken: set[tuple[str, str]] = set()
    parcel: str | None = None
    for called, rungs in LADDER.get(order.channel, {}).items():
        value = order.keys.get(called)
        if not value or masked(value):
            continue
        for kind, reach, confidence in rungs:
            scope = {"shop": f"{order.channel}\0{order.shop}\0", "channel": f"{order.channel}\0", "everywhere": ""}[reach]
            whole = f"{scope}{called}\0{value}"
            if kind == "address" and parcel is None and confidence >= LIKELY:
                parcel = whole
            if kind not in kinds or (kind, reach) in taken or confidence < least.get(kind, LIKELY):
                continue
            taken.add((kind, reach))
            _put(known, kind, keys.key(kind, whole), confidence)
    return parcel


def _person(order: Order, keys: Keys, where: str | None, least: int, known: Known) -> None:
    """Who it is by what all channels may show: the number, and the name at the address; either order may lack one of them."""
    number = own(order)
    if number is not None:
        _put(known, "person", keys.key("person", number), SURE)
    if where is not None and least <= LIKELY and order.ship_to is not None:
        called = name(order.ship_to.name)
        if called is not None:
            _put(known, "person", keys.key("person", f"{called}\0{where}"), LIKELY)


_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
_NOWHERE = ("0.", "127.", "169.254.")
_KEEP = re.compile(r"[^\w]+|_+")
_TITLE = re.compile("(?:先生|女士|小姐|太太|老师|师傅|同学|同志|收)$")

_NORMAL: dict[str, Callable[[str], str | None]] = {
    "phone": phone,
    "person": phone,
    "ip": ip,
    "segment": segment,
    "address": address_text,
}
