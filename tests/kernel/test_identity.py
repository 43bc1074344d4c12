"""The identity ladder: variants of one meet, two never do, and what a platform has hidden is nobody's."""

from __future__ import annotations

import hmac
import json
import re
from typing import Any

import msgspec
import phonenumbers
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from orderstream import addresses, identity, phones, places
from orderstream.catalogue import Catalogue
from orderstream.identity import LADDER, LIKELY, SURE, WEAK, Keys
from orderstream.orders import CHANNELS, Address, Buyer, Line, Order, Payment
from orderstream.reading import Reading
from orderstream.rules.model import Rule
from orderstream.rules.pack import Pack, PackError, load
from orderstream.settings import data_file

KEYS = Keys(b"test")
STANDARD = load(data_file("rules/standard"))
quick = settings(max_examples=150, deadline=None)


def order(channel: str = "api", number: str = "1", shop: str = "main", **values: Any) -> Order:
    line = Line("1", "c1", 1, 100)
    return Order(f"{channel}:{shop}:{number}", channel, shop, number, 1, "paid", 0, 0, "CNY", 100, (line,), **values)


def known(one: Order, *kinds: str, least: int = LIKELY) -> dict[str, set[str]]:
    """Kind -> keys of an order, for rules that need so much confidence."""
    asked = frozenset(kinds or ("user", "person", "phone", "ip", "segment", "payment", "address"))
    found = identity.known(one, KEYS, asked, dict.fromkeys((*asked, "receiver"), least), merging=True)
    return {kind: set(several) for kind, several in found.keys.items()}


def meet(a: Order, b: Order, least: int = LIKELY) -> set[str]:
    """Kinds of entities in which two orders meet."""
    first, second = known(a, least=least), known(b, least=least)
    return {kind for kind in first if first[kind] & second.get(kind, set())}


# -- addresses in China ---------------------------------------------------------------------------------------------------

NUMERALS = "零一二三四五六七八九"


def chinese(number: int) -> str:
    """1 to 999 as one says it."""
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    out = f"{NUMERALS[hundreds]}百" if hundreds else ""
    if tens:
        out += ("" if tens == 1 and not out else NUMERALS[tens]) + "十"
    elif hundreds and ones:
        out += "零"
    return out + (NUMERALS[ones] if ones else "")


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def formal(text: str) -> str:
    return text.translate(str.maketrans("一二三四五六七八九十百", "壹贰叁肆伍陆柒捌玖拾佰"))


PLACES = [
    ("浙江省", "杭州市", "西湖区"),
    ("上海市", "上海市", "浦东新区"),
    ("北京市", "北京市", "海淀区"),
    ("广东省", "深圳市", "南山区"),
    ("湖北省", "武汉市", "洪山区"),
]
ROADS = ["文三路", "人民路", "中关村大街", "张杨路", "和平里西街", "十里铺路"]
Door = tuple[int, str, int, int, int, int]
doors = st.tuples(
    st.integers(0, len(PLACES) - 1),
    st.sampled_from(ROADS),
    st.integers(1, 999),
    st.integers(1, 60),
    st.integers(1, 9),
    st.builds(lambda floor, room: floor * 100 + room, st.integers(1, 33), st.integers(1, 12)),
)


@st.composite
def written(draw: st.DrawFn, door: Door) -> Address:
    """One of the ways in which buyers, forms and channels write a door."""
    place, road, house, building, entrance, room = door
    province, city, district = PLACES[place]
    number = draw(st.sampled_from([str, chinese, lambda n: formal(chinese(n)), lambda n: f"第{n}"]))
    digit = draw(st.sampled_from([str, lambda n: wide(str(n))]))
    at = f"{road}{number(house).removeprefix('第')}号"
    estate = draw(st.sampled_from(["", "", "世贸花园", "(世贸花园)", "阳光小区"]))
    floor = draw(st.sampled_from(["", "", f"{room // 100}楼", f"{room // 100}层"]))
    unit, behind = draw(st.sampled_from(["幢", "栋", "号楼", "棟", "座"])), draw(st.sampled_from(["室", "房", "", "户"]))
    inside = draw(
        st.sampled_from(
            [
                f"{number(building)}{unit}{number(entrance)}单元{floor}{digit(room)}{behind}",
                f"{digit(building)}-{digit(entrance)}-{digit(room)}",
                f"{building}幢{entrance}-{room}",
                f"{building}#楼{entrance}單元{room}室",
            ]
        )
    )
    if inside[0].isdigit() and not estate:
        at += draw(st.sampled_from(["", " ", ","]))
    wish = draw(st.sampled_from(["", "", "(放门卫)", " 请放快递柜", "，谢谢", "菜鸟驿站"]))
    office = draw(st.sampled_from(["", "", "文新街道"]))
    detail = f"{office}{at}{estate}{inside}{wish}"
    form = draw(st.integers(0, 4))
    if form == 0:
        return Address(country="CN", province=province, city=city, district=district, detail=detail)
    if form == 1:
        short = province.removesuffix("省").removesuffix("市")
        return Address(province=short, city=city.removesuffix("市"), district=district, detail=detail)
    if form == 2:
        return Address(detail=f"{province}{city}{district}{detail}")
    if form == 3:
        return Address(province=province, city=city, district=district, detail=f"{province} {city} {district} {detail}")
    return Address(country="中国", detail=f"{city.removesuffix('市')} {district} {detail}")


@quick
@given(doors, st.data())
def test_variants_of_one_address_meet(door: Door, data: Any) -> None:
    """Numerals, units, width, order of the form, street office, an estate's name and wishes to the courier change nothing."""
    one, other = data.draw(written(door)), data.draw(written(door))

    assert identity.address(one) == identity.address(other) is not None


@settings(max_examples=300, deadline=None)
@given(doors, doors, st.data())
def test_two_doors_never_meet(door: Door, other: Door, data: Any) -> None:
    """Two doors are two however they are written; most drawn here differ in one number of one building."""
    place = data.draw(st.integers(0, 5))
    near = tuple(other[n] if n == place else door[n] for n in range(6))
    assume(near != door)

    assert identity.address(data.draw(written(door))) != identity.address(data.draw(written(near)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("文三路1号1-101", "文三路1号11-01"),
        ("文三路1号3-12-01", "文三路1号31-2-01"),
        ("文三路1号南楼501室", "文三路1号北楼501室"),
        ("文三路1号东区3幢501室", "文三路1号西区3幢501室"),
        ("文三路1号一期3幢501室", "文三路1号二期3幢501室"),
        ("文三路1号世贸东苑小区3幢501室", "文三路1号世贸西苑小区3幢501室"),
        ("文三路1号星巴克", "文三路1号海底捞"),
        ("文三路1号A座1201", "文三路1号B座1201"),
        ("文三路1号5层", "文三路1号5室"),
        ("文三路1弄3号501室", "文三路1号3弄501室"),
        ("文三路11号", "文三路1号1"),
        ("文三路1号3幢501室A", "文三路1号3幢501室B"),
        ("张家村3组12号", "张家村12组3号"),
        ("文三路1号菜鸟驿站", "文三路1号丰巢快递柜"),
    ],
)
def test_what_looks_alike_and_is_two(one: str, other: str) -> None:
    """What is dropped tells no door from another; where it might, it stays."""
    district = "浙江省杭州市西湖区"

    assert addresses.text(district + one) != addresses.text(district + other)
    assert addresses.text(district + one) is not None


def test_towns_of_one_name_are_two() -> None:
    """A street of the same name in another district, and in a town of the same county, is another street."""
    said = ["浙江省杭州市西湖区", "浙江省杭州市拱墅区", "浙江省湖州市德清县新市镇", "浙江省湖州市德清县钟管镇"]

    assert len({addresses.text(f"{one}人民路1号") for one in said}) == 4


@quick
@given(st.text(max_size=60))
@example("街道街道1号")
@example("号幢单元室0#-(")
def test_any_text_has_a_spelling_or_none(text: str) -> None:
    """Whatever a channel sends: no exception, and a spelling is its own spelling's equal in width and case."""
    told = addresses.text(text)

    assert told is None or told == addresses.text(text.strip())
    addresses.spelling(Address(country="US", city=text, postcode=text, detail=text))


# -- addresses elsewhere --------------------------------------------------------------------------------------------------


def abroad(detail: str, **values: str) -> str | None:
    return identity.address(
        Address(**{"country": "US", "province": "California", "city": "San José", "postcode": "95112", **values}, detail=detail)
    )


@pytest.mark.parametrize(
    ("detail", "values"),
    [
        ("12 oak st, apt 5", {}),
        ("12 Oak St. #5", {"province": "CA", "postcode": "95112-1234"}),
        ("Apt. 5, 12 Oak Street", {"country": "United States", "city": "SAN JOSE"}),
        ("12 OAK STREET UNIT 5", {"country": "USA"}),
    ],
)
def test_spellings_of_one_address_abroad_meet(detail: str, values: dict[str, str]) -> None:
    """Abbreviations, accents, a state in full or in letters, the flat before or behind."""
    assert abroad(detail, **values) == abroad("12 Oak Street, Apt 5") is not None


STREET = st.lists(
    st.sampled_from(["12", "Oak", "Street", "Apt", "5th", "3rd", "Floor", "fl", "Hauptstrasse", "Strasse", "4", "suite", "O'Neill", "#7", "Ålesund"]),
    min_size=1, max_size=7,
).map(" ".join)  # fmt: skip


@given(STREET)
def test_plain_words_are_read_as_any_others(street: str) -> None:
    """A street in which nothing is to be put together is read word by word; the long way says the same."""
    short = abroad(street)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "_SPOKEN", re.compile(""))
        assert abroad(street) == short


def test_no_division_is_written_in_latin_letters() -> None:
    """So an address that is has none."""
    assert not [d.name for d in places.divisions().values() if any(name.isascii() for name in d.names)]


def test_doors_abroad_are_two() -> None:
    """Another house, flat, floor, street, town or country."""
    said = [
        abroad("12 Oak Street, Apt 5"), abroad("12 Oak Street, Apt 6"), abroad("12 Oak Street"), abroad("125 Oak Street"),
        abroad("12 Oak Street, Floor 5"), abroad("12 Oak Road, Apt 5"), abroad("12 Oak Street, Apt 5", city="Oakland"),
        abroad("12 Oak Street, Apt 5", country="CA"), abroad("5 Oak Street, Apt 12"), abroad("12 Oak Street, Apt 5", postcode="95113"),
        abroad("5th Floor, 12 Oak Street, Apt 5"),
    ]  # fmt: skip

    assert None not in said
    assert len(set(said)) == len(said)
    assert abroad("Musterstraße 5", country="DE") == abroad("MUSTERSTRASSE 5", country="Germany")


# -- numbers --------------------------------------------------------------------------------------------------------------

mobiles = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True)


@quick
@given(mobiles, st.data())
def test_a_number_is_one_number(mobile: str, data: Any) -> None:
    """However it is written, and the short way says what the tables of all countries say."""
    how = data.draw(
        st.sampled_from(
            [
                "{0}",
                "+86{0}",
                "+86 {0}",
                "0086-{0}",
                "86{0}",
                "(+86){0}",
                "{1} {2} {3}",
                "{1}-{2}-{3}",
                " {0} ",
                "+86 {1} {2} {3}",
            ]
        )
    )
    said = how.format(mobile, mobile[:3], mobile[3:7], mobile[7:])

    assert phones.number(data.draw(st.sampled_from([said, wide(said)]))) == f"+86{mobile}"
    parsed = phonenumbers.parse(mobile, "CN")
    if phonenumbers.is_valid_number(parsed):
        assert phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) == f"+86{mobile}"


@quick
@given(mobiles, st.data())
def test_a_lent_number_is_nobodys(mobile: str, data: Any) -> None:
    """A platform's privacy number (with an extension) lasts for an order: it tells nothing of who it is."""
    how = data.draw(st.sampled_from(["{}-{}", "{}转{}", "{},{}", "{} ext {}", "{}#{}", "{}分机{}"]))

    assert phones.number(how.format(mobile, data.draw(st.integers(1, 9999)))) is None


def test_numbers_are_read_as_their_country_writes_them() -> None:
    """The address says which; China's are China's wherever the parcel goes."""
    assert identity.phone("(415) 555-2671", "US") == identity.phone("+1 415 555 2671") == "+14155552671"
    assert identity.phone("0571-88888888") == "57188888888"
    assert identity.phone("0571-88888888转801") == identity.phone("0571-88888888-801") != identity.phone("0571-88888888")
    assert identity.phone("13500000001", "US") == "13500000001"
    assert [identity.phone(said) for said in ("88888888", "12345678901", "1" * 400, "11111111111", "无", "")] == [None] * 6


# -- what a platform has hidden -------------------------------------------------------------------------------------------

KINDS_OF_PEOPLE = ("user", "person", "device", "phone", "ip", "segment", "payment", "address", "receiver")


@quick
@given(st.data())
def test_a_masked_value_is_never_an_identity(data: Any) -> None:
    """Whatever of an order is masked or encrypted gives no key, on any channel, however weak a rule may want it."""

    def hide(text: str) -> str:
        first = data.draw(st.integers(0, len(text) - 1))
        last = data.draw(st.integers(first + 1, len(text)))
        return text[:first] + data.draw(st.sampled_from(["*", "＊"])) * data.draw(st.integers(1, 4)) + text[last:]

    secret = st.from_regex(r"\$[A-Za-z0-9+/]{22}==\$1\$|~[A-Za-z0-9+/]{22}==~1~|AAS/[A-Za-z0-9+/]{30}=", fullmatch=True)

    def cover(text: str) -> str:
        return data.draw(secret) if data.draw(st.booleans()) else hide(text)

    channel = data.draw(st.sampled_from(CHANNELS))
    one = order(
        channel,
        buyer=Buyer(id=hide("tb12345"), phone=cover("13612345678"), ip=hide("203.0.113.7")),
        payment=Payment(id=hide("2088123456789012")),
        ship_to=Address(
            name=cover("张三丰"),
            phone=cover("13612345678"),
            province="浙江省",
            city="杭州市",
            district="西湖区",
            detail=cover("文三路1号3幢501室"),
        ),
        keys={name: hide("abcdef123456") for name in LADDER.get(channel, {})},
    )

    assert known(one, *KINDS_OF_PEOPLE, least=WEAK) == {}


@pytest.mark.parametrize(
    "name", ["张**", "先生", "张先生", "收", "*", "", "AAS/q1w2e3r4t5y6u7i8o9p0==", "$dGVzdDEyMzQ1Njc4OTA=$1$"]
)
def test_names_of_nobody(name: str) -> None:
    """A mask, a title, one character and a ciphertext name nobody."""
    assert identity.name(name) is None


# -- addresses of machines ------------------------------------------------------------------------------------------------


@quick
@given(st.ip_addresses(v=4))
def test_one_connection_is_one_ip(given_: Any) -> None:
    """An IPv4 is the same told by an IPv6 machine; its segment is its /24."""
    text = str(given_)
    told = identity.ip(text)

    assert told == identity.ip(f"::ffff:{text}") == identity.ip(f" {text} ")
    nowhere = given_.is_unspecified or given_.is_loopback or given_.is_link_local or text.startswith("0.")
    assert told == (None if nowhere else text)
    assert identity.segment(text) == (None if nowhere else text.rpartition(".")[0] + ".0/24")


@quick
@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_a_64_counts_as_one(given_: Any, host: int) -> None:
    """Whatever a household's machines call themselves within their /64, they are of one segment."""
    assume(given_.ipv4_mapped is None and given_.sixtofour is None and not given_.is_link_local and int(given_) >> 64)
    other = type(given_)((int(given_) >> 64 << 64) | host)

    assert identity.segment(str(given_)) == identity.segment(other.exploded) is not None
    assert identity.segment(str(given_)) != identity.segment(str(type(given_)(int(given_) ^ (1 << 64))))


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1%eth0", "169.254.1.1", "203.0.113.256", "x", "1.2.3", ""]
)
def test_what_says_nothing_of_who(text: str) -> None:
    """A proxy's own address would make one buyer of all."""
    assert identity.ip(text) is None
    assert identity.segment(text) is None


# -- the ladder -----------------------------------------------------------------------------------------------------------

HOME = Address(
    name="张三丰", phone="13612345678", province="浙江省", city="杭州市", district="西湖区", detail="文三路1号3幢2单元501室"
)
SAME = Address(name="张三丰", phone="+86 136 1234 5678", detail="杭州市西湖区文三路一号叁栋2-501")
MASKED = Address(name="张**", phone="1********78", province="浙江省", city="杭州市", district="西湖区", detail="文三路***")


def test_two_channels_meet_by_a_plain_number_or_by_name_and_address() -> None:
    """One buyer on Taobao and Douyin is one only where both show who it is."""
    taobao = order("taobao", buyer=Buyer(id="AAopen1"), ship_to=HOME, keys={"oaid": "o1"})

    def douyin(to: Address) -> Order:
        return order("douyin", "2", buyer=Buyer(id="1@#open1"), ship_to=to, keys={"open_address_id": "a1"})

    assert meet(taobao, douyin(SAME)) == {"person", "address", "receiver"}
    assert meet(taobao, douyin(Address(name="李四", phone="13612345678", detail="北京市海淀区中关村大街1号"))) == {"person"}
    assert meet(taobao, douyin(Address(name="张三丰", phone="13812345678", detail=SAME.detail))) == {"person", "address"}
    assert meet(taobao, douyin(Address(name="李四光", phone="13812345678", detail=SAME.detail))) == {"address"}
    assert meet(taobao, douyin(Address(name="张三丰", phone="18412345678-1234", detail="北京市海淀区中关村大街1号"))) == set()
    assert meet(taobao, douyin(MASKED), WEAK) == set()


def test_masked_orders_of_a_shop_meet_by_the_platforms_own_keys() -> None:
    """Where everything plain is masked, the platform's keys carry: in their reach, and no further."""

    def masked(number: str, channel: str = "douyin", shop: str = "main", buyer: str = "1@#x", key: str = "a1") -> Order:
        return order(channel, number, shop, buyer=Buyer(id=buyer), ship_to=MASKED, keys={"open_address_id": key, "oaid": key})

    assert meet(masked("1"), masked("2")) == {"user", "address", "receiver"}
    assert meet(masked("1"), masked("2", buyer="1@#y")) == {"address"}
    assert meet(masked("1"), masked("2", key="a2")) == {"user"}
    assert meet(masked("1"), masked("2", shop="other")) == {"user"}
    assert meet(masked("1"), masked("2", channel="taobao"), WEAK) == set()


@given(st.sampled_from([(channel, name) for channel, names in LADDER.items() for name in names]))
def test_every_key_of_the_ladder_counts_within_its_reach(which: tuple[str, str]) -> None:
    """Each name is a key of what it says, and of nothing outside its shop or channel."""
    channel, name = which
    one = order(channel, keys={name: "K"})
    for kind, reach, confidence in LADDER[channel][name]:
        assert kind in meet(one, order(channel, "2", keys={name: "K"}), WEAK)
        assert kind not in meet(one, order(channel, "2", keys={name: "L"}), WEAK)
        assert (kind in meet(one, order(channel, "2", "other", keys={name: "K"}), WEAK)) == (reach != "shop")
        assert kind not in meet(one, order("api", "2", keys={name: "K"}), WEAK)
        assert (kind in known(one, least=LIKELY)) == (confidence >= LIKELY)


@quick
@given(st.binary(max_size=200), st.text(max_size=40))
def test_a_key_is_an_hmac(secret: bytes, value: str) -> None:
    """Of SHA-256 by RFC 2104, whatever the secret's length: keys that were made with the library stay what they are."""
    mac = hmac.digest(secret, f"phone\0{value}".encode(), "sha256")

    assert Keys(secret).key("phone", value) == f"phone:{mac[:16].hex()}"


# -- what rules say of confidence -----------------------------------------------------------------------------------------


def rule(name: str, on: list[str], confidence: str | None = None) -> dict[str, Any]:
    said = {"zh": "x", "en": "x"}
    example = {"says": "x", "orders": [], "expect": {"A": "fired", "B": "silent"}}
    out = {
        "id": name, "title": said, "explain": said, "why": said, "blind": said, "level": "low", "owner": "x", "runbook": "x",
        "on": on, "within": "1h", "measure": {"count": "orders", "at_least": 2}, "examples": [example],
    }  # fmt: skip
    return out | ({"confidence": confidence} if confidence else {})


def packed(*rules: dict[str, Any]) -> Pack:
    encoded = json.dumps(
        {"policy": json.loads(STANDARD.encode())["policy"] | {"combinations": []}, "rules": {r["id"]: r for r in rules}}
    )
    return Pack.decode(encoded.encode())


def read(one: Order, pack: Pack) -> Reading:
    return Reading(one, pack, 0, 0, Catalogue(), KEYS)


def test_a_rule_does_not_see_keys_that_are_less_sure_than_it_needs() -> None:
    """The fact says of which rules the order is no member there; a rule that sees no key is not available."""
    pack = packed(
        rule("text", ["address"]), rule("sure", ["address"], "sure"), rule("weak", ["ip"], "weak"), rule("plain", ["ip"])
    )
    taobao = order("taobao", ship_to=HOME, keys={"buyer_ip": "MASwLjEwNS4xNxyuZxQ:"})
    reading = read(taobao, pack)

    assert {key.partition(":")[0]: fact.out for key, fact in reading.facts().items() if key[0] in "ai"} == {
        "address": ("sure",),
        "ip": ("plain",),
    }
    dossier = reading.dossier(1, dict.fromkeys(reading.facts(), 1), [], 0)
    assert set(dossier.missing) == {"sure", "plain"}
    with_key = read(order("taobao", ship_to=HOME, keys={"oaid": "o1"}), pack)
    assert sorted(fact.out for key, fact in with_key.facts().items() if key.startswith("address:")) == [(), ("sure",)]
    assert set(with_key.dossier(1, dict.fromkeys(with_key.facts(), 1), [], 0).missing) == {"weak", "plain"}


def test_a_key_that_no_rule_would_see_is_not_told() -> None:
    """Weak keys cost nothing where no rule asks for them."""
    one = order("jd", keys={"desen_mobile": "d41d8cd98f00", "oaid": "o1"})

    assert {key.partition(":")[0] for key in read(one, packed(rule("pp", ["person", "address"]))).facts()} == {"address"}
    assert {key.partition(":")[0] for key in read(one, packed(rule("pp", ["person", "address"], "weak"))).facts()} == {
        "address",
        "person",
    }
    assert LIKELY < SURE


@pytest.mark.parametrize("wrong", [rule("xx", ["sku"], "sure"), rule("xx", ["pair"], "weak"), rule("xx", ["user"], "certain")])
def test_confidence_is_checked(wrong: dict[str, Any]) -> None:
    """Another word, and confidence in what is no person or place, is an error in the pack."""
    with pytest.raises(PackError, match=r"confidence|Invalid enum"):
        packed(wrong)


def test_a_pack_that_says_nothing_of_confidence_is_what_it_was() -> None:
    """The default is not part of what a pack says, so its version stays."""
    assert "confidence" not in json.loads(STANDARD.encode())["rules"]["address-sum"]
    assert msgspec.convert(rule("xx", ["user"]), Rule).confidence == "likely"


def test_a_place_is_an_area() -> None:
    """What facts hold of a place is a hundredth of a degree wide: nobody's door."""
    assert identity.place(Address(lat=30.274151, lon=120.155149)) == (30.27, 120.16)
    assert identity.place(Address(lat=30.27, lon=120.16)) == (30.27, 120.16)
