"""Addresses: one spelling of a place to deliver to, however a channel, a buyer or a form writes it.

Law: two spellings that differ only in how they are written meet; two doors never do. So what is dropped (width, numerals, 幢 for
栋, a street office, "please leave at the door") tells no door from another, and where that is not certain it stays: a shop's name in
a mall, the wing of a building. What is no place to deliver to (a fragment, a masked or encrypted text) has no spelling.

Chinese text is read from its divisions (`places`) down to the room: number by number, each with its unit. Anything else is read as
words: without accents, abbreviated alike, the flat behind the street.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from orderstream import places
from orderstream.orders import Address

CHINA = frozenset({None, "CN", "中国", "中国大陆", "中华人民共和国", "China", "CHN", "cn", "china"})

_HAN = re.compile("[一-龥]")

# -- Chinese ------------------------------------------------------------------------------------------------------------

_SAME = str.maketrans(
    {
        **dict(zip("壹贰叁肆伍陆柒捌玖拾佰仟贰〇零", "一二三四五六七八九十百千二零零", strict=True)),
        "廿": "二十", "卅": "三十", "貳": "二", "叄": "三", "陸": "六", "幺": "一",
        **dict(
            zip(
                "號樓棟單層區縣臺灣門東廣園華國灣陽鎮鄉裡鐵龍濱長馬興業學館廈場邊關衛",
                "号楼栋单层区县台湾门东广园华国湾阳镇乡里铁龙滨长马兴业学馆厦场边关卫",
                strict=True,
            )
        ),
    }
)  # fmt: skip
"""Formal numerals as plain ones, and the traditional characters that addresses have."""
_OTHERWISE = re.compile(f"[{''.join(map(chr, _SAME))}]")

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2}
_POWERS = {"十": 10, "百": 100, "千": 1000}
_NUMERAL = re.compile("[零一二两三四五六七八九十百千]+")
_NOTE = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]|【([^【】]*)】")
_HASH = re.compile(r"(?<=[路街道巷弄])([0-9]+)#(?!楼)|([0-9a-z])#楼?|#")
_BETWEEN = re.compile(r"(?<![0-9a-z])[\W_]+|[\W_]+(?![0-9a-z])")
_SEPARATOR = re.compile(r"[\W_]+")
_OFFICE = re.compile("[一-龥]{2,5}?街道(?:办事处)?(?=[一-龥][一-龥0-9]|[0-9]+(?![号弄巷幢栋])[一-龥])")
"""A street office under a district: half of the buyers leave it out."""
_TOKEN = re.compile(
    r"第?((?<![a-z])[a-z]?[0-9]+(?:[a-z](?![a-z0-9]))?|(?<![a-z])[a-z](?=号楼|座|栋|幢|单元))"
    r"(号楼|楼栋|幢|栋|座|单元|门(?![一-龥])|层|楼|号房|房间|房|室|户|号)?"
)
_UNITS = {
    "号": "号", "号楼": "幢", "楼栋": "幢", "幢": "幢", "栋": "幢", "座": "幢", "单元": "单元", "门": "单元", "层": "层", "楼": "层",
    "号房": "室", "房间": "室", "房": "室", "室": "室", "户": "室", "": "",
}  # fmt: skip
_WISH = re.compile("请|麻烦|谢谢|放在?|送到|送货|打电话|电话联系|勿|不要|代收|转交|亲启|本人|家?门口|收货")
_PICKUP = re.compile("快递柜|丰巢|菜鸟|驿站|门卫|保安|前台|收发室|传达室|物业")
_ESTATE = re.compile("[一-龥]{2,}(?:花园|小区|公寓|家园|嘉园|花苑|名苑|雅苑|山庄|新城|名城|府邸)")
_WING = re.compile("[东西南北中前后左右新老内外上下区期]")

Door = tuple[str, str]
"""A number and its unit: 号 幢 单元 层 室, or none."""


def spelling(address: Address | None) -> str | None:
    """The one spelling of a delivery address, its country in front where that is not China; None for what is none."""
    if address is None or address.detail is None or hidden(address.detail):
        return None
    abroad = address.country not in CHINA
    if abroad and not _HAN.search(address.detail):
        return _foreign(address)
    whole = text(_whole(address)) if not abroad else _chinese(_whole(address), divided=False)
    if whole is None or not abroad:
        return whole
    return f"{_country(address.country)}|{_code(address.postcode)}|{whole}"


def text(whole: str) -> str | None:
    """The spelling of an address written as one text: `<division code>|<rest>` where it is Chinese.

    浙江省杭州市西湖区文三路1号3幢2单元501室, 杭州 西湖区 文三路一号叁栋2-501 and 杭州市西湖区文三路１号3号楼二单元501 are one.
    """
    if not whole.isascii() and _HAN.search(whole):
        return _chinese(whole)
    words, flats = _words(whole)
    street = " ".join(words)
    return f"|{street}|{' '.join(flats)}" if _deliverable(street) and not hidden(whole) else None


def masked(value: str) -> bool:
    """Whether a platform has hidden a value (张**, 1********20): then it is equal for many people."""
    return "*" in value or "＊" in value


def hidden(value: str) -> bool:
    """Whether a platform has masked a text, or encrypted it (`$…$1$`, `~…~`, base64): then it is nobody's and no place's."""
    return masked(value) or (len(value) >= CIPHER and value.isascii() and _CIPHER.fullmatch(value) is not None)


CIPHER = 16
_CIPHER = re.compile(r"[$~#@].{14,}|(?=.*[0-9+/=])[A-Za-z0-9+/=_-]{16,}")


def division(address: Address) -> str | None:
    """The code (6 digits) of the division that an address in China lies in; None where its text leaves a choice."""
    if address.country not in CHINA:
        return None
    whole = _whole(address)
    # every division's name is Chinese
    return None if whole.isascii() else _located(whole)[0]


def _whole(address: Address) -> str:
    if not (address.province or address.city or address.district):
        return address.detail or ""
    return " ".join([p for p in (address.province, address.city, address.district, address.detail) if p])


@lru_cache(maxsize=65536)
def _located(whole: str) -> tuple[str | None, str]:
    """The code of the division that a text names, and its rest."""
    return places.locate(_clean(whole))


def _clean(whole: str) -> str:
    """Half width, lower case, simplified; what stands between two numbers is `-`, other punctuation is gone."""
    said = unicodedata.normalize("NFKC", whole).lower()
    if _OTHERWISE.search(said):
        said = said.translate(_SAME)
    if "(" in said or "[" in said or "【" in said:
        # a note is for the courier, unless it has the building in it
        said = _NOTE.sub(lambda m: m[0] if any(c.isdigit() for c in m[0]) else " ", said)
    if "#" in said:
        said = _HASH.sub(lambda m: f"{m[1]}号" if m[1] else f"{m[2]}幢" if m[2] else " ", said)
    return _SEPARATOR.sub("-", _BETWEEN.sub("", said))


@lru_cache(maxsize=65536)
def _chinese(whole: str, *, divided: bool = True) -> str | None:
    if masked(whole):
        return None
    code, rest = _located(whole) if divided else (None, _clean(whole))
    rest = _NUMERAL.sub(_number, rest)
    if code is not None and not code.endswith("00"):
        office = _OFFICE.match(rest)
        if office is not None:
            rest = rest[office.end() :]
    rest = _doors(rest)
    return f"{code or ''}|{rest}" if _deliverable(rest) else None


def _deliverable(rest: str) -> bool:
    # a delivery needs a street with its number, or at least a name that is not just an area's
    return len(rest) >= 2 and (len(rest) >= 6 or any(c.isdigit() for c in rest))


def _number(match: re.Match[str]) -> str:
    run = match.group()
    if len(run) == 1:
        return str(_DIGITS[run] if run in _DIGITS else _POWERS[run])
    if not any(c in _POWERS for c in run):
        return "".join(str(_DIGITS[c]) for c in run)
    total = current = 0
    for c in run:
        power = _POWERS.get(c)
        if power is None:
            current = _DIGITS[c]
        else:
            total += (current or 1) * power
            current = 0
    return str(total + current)


def _doors(rest: str) -> str:
    """The rest of an address with its numbers told alike: `文3路1号3幢2单元501`."""
    out = ""
    run: list[Door] = []
    end = 0
    for match in _TOKEN.finditer(rest):
        between = rest[end : match.start()]
        if between not in ("", "-") or not end:
            out = _join(out, run, between)
            run = []
        run.append((match[1], _UNITS[match[2] or ""]))
        end = match.end()
    tail = rest[end:].lstrip("-")
    out, told = _told(out, run)
    if tail and run:
        wish = _WISH.search(tail)
        tail = tail[: wish.start()] if wish else tail
        pickup = _PICKUP.search(tail) if told else None
        tail = tail[: pickup.start()] if pickup else tail
    return out + tail


def _join(out: str, run: list[Door], between: str) -> str:
    """What stands before a text between numbers, and that text."""
    return _told(out, run)[0] + between.strip("-")


def _told(out: str, run: list[Door]) -> tuple[str, bool]:
    """The text so far with a run of numbers, and whether that ends at a room."""
    if not run:
        return out, False
    doors = _levelled(run)
    room = not doors[-1][1] and (len(doors) > 1 or len(doors[-1][0]) >= 3)
    if room and any(unit == "幢" for _, unit in doors) and out:
        # the estate's name between a street's number and the building says nothing that these do not
        name = out.rpartition("号")[2]
        if len(name) < len(out) and _ESTATE.fullmatch(name) and not _WING.search(name[:-2]):
            out = out[: -len(name)]
    for number, unit in doors:
        if out and out[-1].isascii() and out[-1].isalnum():
            out += "-"
        out += number + unit
    return out, room


def _levelled(run: list[Door]) -> list[Door]:
    """Numbers without a unit get it from their place: 3-2-501 is building, entrance, room; a room is told without one."""
    first = len(run)
    while first and run[first - 1][1] in ("", "室") and (first == len(run) or not run[first - 1][1]):
        first -= 1
    bare = [number for number, _ in run[first:]]
    head = [(number, "" if unit == "室" else unit) for number, unit in run[:first]]
    if len(bare) == 2:
        head.append((bare[0], "单元" if head and head[-1][1] == "幢" else "幢"))
    elif len(bare) == 3:
        head += [(bare[0], "幢"), (bare[1], "单元")]
    elif len(bare) > 3:
        head += [(number, "") for number in bare[:-1]]
    if bare:
        # the floor that the room's own number tells
        if head and head[-1][1] == "层" and bare[-1].startswith(head[-1][0]) and len(bare[-1]) == len(head[-1][0]) + 2:
            head.pop()
        head.append((bare[-1], ""))
    return head


# -- the rest of the world ----------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W_]+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "'": "", "’": "", "#": " unit "})
_SHORT = {
    "street": "st", "road": "rd", "avenue": "ave", "av": "ave", "boulevard": "blvd", "bd": "blvd", "boul": "blvd", "drive": "dr",
    "lane": "ln", "court": "ct", "place": "pl", "square": "sq", "highway": "hwy", "parkway": "pkwy", "terrace": "ter",
    "circle": "cir", "trail": "trl", "crescent": "cres", "north": "n", "south": "s", "east": "e", "west": "w", "northeast": "ne",
    "northwest": "nw", "southeast": "se", "southwest": "sw", "saint": "st", "mount": "mt", "strasse": "str", "avenida": "avda",
    "av.": "avda", "calle": "c", "building": "bldg", "number": "no", "first": "1", "second": "2", "third": "3", "fourth": "4",
    "fifth": "5", "sixth": "6", "seventh": "7", "eighth": "8", "ninth": "9", "tenth": "10",
}  # fmt: skip
_FLAT = frozenset({"apartment", "apt", "unit", "suite", "ste", "flat", "room", "rm", "appartement", "wohnung", "whg"})
_FLOOR = frozenset({"floor", "fl", "level", "etage", "piso"})
_INSIDE = _FLAT | _FLOOR
_SPOKEN = re.compile("[0-9](?:st|nd|rd|th)|strasse")
"""What a text without flats and floors must have so that more than single words is to be looked at."""
_ORDINAL = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_AMERICA = frozenset({"us", "usa", "united states", "united states of america", "美国"})
_COUNTRIES = {
    **dict.fromkeys(_AMERICA, "us"), "uk": "gb", "united kingdom": "gb", "great britain": "gb", "england": "gb", "germany": "de",
    "deutschland": "de", "france": "fr", "japan": "jp", "日本": "jp", "singapore": "sg", "新加坡": "sg", "australia": "au",
    "canada": "ca", "hong kong": "hk", "香港": "hk", "中国香港": "hk", "macao": "mo", "macau": "mo", "澳门": "mo", "中国澳门": "mo",
    "taiwan": "tw", "台湾": "tw", "中国台湾": "tw",
}  # fmt: skip


def _country(country: str | None) -> str:
    said = (country or "").strip().casefold()
    return _COUNTRIES.get(said, said)


def _code(postcode: str | None) -> str:
    return "".join(_WORD.findall(unicodedata.normalize("NFKC", postcode or "").casefold()))


def _foreign(address: Address) -> str | None:
    if hidden(address.city or ""):
        return None
    country, code = _country(address.country), _code(address.postcode)
    if country == "us":
        code = code[:5]
    words, flats = _words(address.detail or "")
    if not _deliverable(" ".join(words)):
        return None
    # a postcode has the province in it, which is written in full here and in two letters there
    area = " ".join([*_words(address.city or "")[0], *(_words(address.district or "")[0])])
    area = area if code else f"{area} {' '.join(_words(address.province or '')[0])}"
    return f"{country}|{code}|{area}|{' '.join(words)}|{' '.join(flats)}"


def _words(said: str) -> tuple[list[str], list[str]]:
    """The words of a street, and the flats and floors in it, sorted."""
    bare = said.casefold()
    if not bare.isascii():
        bare = "".join([c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c)]).translate(_LETTERS)
    elif "#" in bare or "'" in bare:
        bare = bare.translate(_LETTERS)
    found = _WORD.findall(bare)
    if _INSIDE.isdisjoint(found) and not _SPOKEN.search(bare):
        return [_SHORT.get(word, word) for word in found], []
    words: list[str] = []
    flats: list[str] = []
    at = 0
    while at < len(found):
        word, after = found[at], found[at + 1] if at + 1 < len(found) else ""
        ordinal = _ORDINAL.fullmatch(word) if word[0].isdigit() else None
        word = ordinal[1] if ordinal else _SHORT.get(word, word)
        if ordinal and after in _FLOOR:
            flats.append(f"f{word}")
            at += 2
        elif word in _FLAT and after and not (words and words[-1] in _FLAT):
            # "Apt Unit 5" is one flat
            if after in _FLAT:
                at += 1
                continue
            flats.append(f"u{after}")
            at += 2
        elif word in _FLOOR and words and words[-1].isdigit() and ordinal is None and not after[:1].isdigit():
            flats.append(f"f{words.pop()}")
            at += 1
        elif word in _FLOOR and after[:1].isdigit():
            flats.append(f"f{after}")
            at += 2
        else:
            # Hauptstrasse, not a street called so
            words.append(word[:-4] if word.endswith("strasse") and len(word) >= len("..strasse") else word)
            at += 1
    return words, sorted(flats)
