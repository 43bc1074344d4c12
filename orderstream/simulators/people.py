"""Simulated buyers and where they live.

Law: two buyers share nothing (user, device, phone, ip, ip segment, payment, address) unless an incident says so; a false alarm in
the demo is then the line's fault. Nobody here exists: numbers are counted, names drawn from a list, streets invented.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple


class Place(NamedTuple):
    """A district with the coordinates of its centre (degrees)."""

    province: str
    city: str
    district: str
    lat: float
    lon: float
    postcode: str
    country: str = "CN"


HANGZHOU = Place("浙江省", "杭州市", "西湖区", 30.27, 120.13, "310012")
HUZHOU = Place("浙江省", "湖州市", "吴兴区", 30.81, 120.13, "313000")
"""60 km north of HANGZHOU's coordinates."""
DEQING = Place("浙江省", "湖州市", "德清县", 30.63, 120.13, "313200")
"""40 km north of HANGZHOU's coordinates: further than usual, and no rule's business."""

PLACES: tuple[Place, ...] = (
    HANGZHOU,
    Place("浙江省", "宁波市", "鄞州区", 29.82, 121.55, "315100"),
    Place("浙江省", "温州市", "鹿城区", 28.02, 120.66, "325000"),
    Place("上海市", "上海市", "浦东新区", 31.22, 121.54, "200120"),
    Place("上海市", "上海市", "徐汇区", 31.19, 121.44, "200030"),
    Place("江苏省", "南京市", "鼓楼区", 32.07, 118.77, "210009"),
    Place("江苏省", "苏州市", "姑苏区", 31.31, 120.62, "215008"),
    Place("北京市", "北京市", "海淀区", 39.96, 116.30, "100080"),
    Place("北京市", "北京市", "朝阳区", 39.92, 116.44, "100020"),
    Place("广东省", "广州市", "天河区", 23.12, 113.36, "510620"),
    Place("广东省", "深圳市", "南山区", 22.53, 113.93, "518052"),
    Place("广东省", "佛山市", "禅城区", 23.01, 113.12, "528000"),
    Place("四川省", "成都市", "武侯区", 30.64, 104.04, "610041"),
    Place("重庆市", "重庆市", "渝中区", 29.55, 106.57, "400010"),
    Place("湖北省", "武汉市", "洪山区", 30.50, 114.34, "430070"),
    Place("湖南省", "长沙市", "岳麓区", 28.24, 112.93, "410006"),
    Place("陕西省", "西安市", "雁塔区", 34.22, 108.95, "710061"),
    Place("山东省", "青岛市", "市南区", 36.07, 120.41, "266001"),
    Place("山东省", "济南市", "历下区", 36.67, 117.08, "250014"),
    Place("河南省", "郑州市", "金水区", 34.80, 113.66, "450003"),
    Place("福建省", "厦门市", "思明区", 24.45, 118.08, "361001"),
    Place("辽宁省", "沈阳市", "和平区", 41.79, 123.42, "110001"),
    Place("安徽省", "合肥市", "蜀山区", 31.85, 117.26, "230031"),
    Place("云南省", "昆明市", "五华区", 25.04, 102.71, "650021"),
)

ABROAD: tuple[Place, ...] = (
    Place("California", "San Jose", "", 37.34, -121.89, "95112", "US"),
    Place("New York", "New York", "", 40.73, -73.99, "10003", "US"),
    Place("", "Singapore", "", 1.30, 103.85, "188065", "SG"),
    Place("Berlin", "Berlin", "", 52.52, 13.40, "10117", "DE"),
    Place("New South Wales", "Sydney", "", -33.87, 151.21, "2000", "AU"),
)

_ROADS = (
    "文三路",
    "人民路",
    "解放路",
    "建设大道",
    "中山路",
    "和平街",
    "学院路",
    "滨江大道",
    "新华路",
    "体育路",
    "科技园路",
    "青年路",
)
_ABROAD_ROADS = ("Oak Street", "Market Street", "Park Avenue", "Hill Road")
_FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = (
    "伟",
    "芳",
    "娜",
    "秀英",
    "敏",
    "静",
    "丽",
    "强",
    "磊",
    "洋",
    "艳",
    "勇",
    "杰",
    "娟",
    "涛",
    "明",
    "超",
    "霞",
    "平",
    "桂英",
)
_PREFIXES = ("135", "136", "138", "139", "150", "151", "158", "159", "186", "187", "188")
_SEGMENTS = (36, 39, 58, 101, 112, 117, 120, 125, 183, 219, 223)
"""First octets of the simulated buyers' addresses. They are text in a payload; nothing is ever sent there."""
_SCATTER = 40_503
"""Odd, so multiplying by it modulo 2^16 visits every /24 of a first octet once before any comes again."""


@dataclass(frozen=True, slots=True)
class Person:
    """One buyer: what an order of theirs says. registered_days: age of the account in days."""

    user: str
    device: str
    ip: str
    phone: str
    payment: str
    name: str
    place: Place
    detail: str
    lat: float
    lon: float
    registered_days: float

    def at(self, place: Place, detail: str) -> Person:
        """The same buyer, sending to another place: its exact coordinates."""
        return replace(self, place=place, detail=detail, lat=place.lat, lon=place.lon)


class People:
    """Makes buyers, each new one unlike all before. count: how many there were before the first."""

    def __init__(self, rng: random.Random, count: int = 0) -> None:
        self._rng = rng
        self._count = count

    def buyer(self, place: Place | None = None, *, abroad: bool = False) -> Person:
        rng = self._rng
        self._count += 1
        n = self._count
        where = place or rng.choice(ABROAD if abroad else PLACES)
        if abroad:
            detail = f"{n} {rng.choice(_ABROAD_ROADS)}, Apt {rng.randint(1, 40)}"
        else:
            # the count is in the house number: no two buyers share an address by chance
            detail = f"{rng.choice(_ROADS)}{n}号{rng.randint(1, 20)}幢{rng.randint(101, 2604)}室"
        net = n * _SCATTER % 65_536
        first = _SEGMENTS[(n + n // 65_536) % len(_SEGMENTS)]
        return Person(
            user=f"u-{n:06d}",
            device=f"d-{n:06d}",
            ip=f"{first}.{net >> 8}.{net & 255}.{rng.randint(2, 250)}",
            phone=f"{_PREFIXES[n % len(_PREFIXES)]}{10_000_000 + n:08d}",
            payment=f"p-{n:06d}",
            name=rng.choice(_FAMILY) + rng.choice(_GIVEN),
            place=where,
            detail=detail,
            # within about 5 km of the centre
            lat=round(where.lat + rng.uniform(-0.03, 0.03), 5),
            lon=round(where.lon + rng.uniform(-0.03, 0.03), 5),
            registered_days=rng.uniform(20, 1500),
        )
