"""Colours: distances as the standard's authors published them, names as shops write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderstream.catalogue import colours
from orderstream.catalogue.colours import ALIKE, Lab, apart, difference, lab, read

# pairs and distances of Sharma, Wu, Dalal (2005), table 1: they were chosen to find what implementations get wrong
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0010), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0010, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "distance"), PUBLISHED)
def test_distances_are_the_published_ones(one: tuple[float, ...], other: tuple[float, ...], distance: float) -> None:
    """To the fourth decimal, and the same from either side."""
    a, b = Lab(*one), Lab(*other)

    assert difference(a, b) == pytest.approx(distance, abs=5.1e-5)
    assert difference(b, a) == pytest.approx(difference(a, b), abs=1e-9)


@given(st.tuples(*[st.integers(0, 255)] * 6))
def test_a_distance_is_one(parts: tuple[int, ...]) -> None:
    """None to itself, never below nothing, the same from either side."""
    one, other = lab("#{:02x}{:02x}{:02x}".format(*parts[:3])), lab("#{:02X}{:02X}{:02X}".format(*parts[3:]))
    assert one is not None
    assert other is not None

    assert difference(one, one) == 0
    assert difference(one, other) >= 0
    assert difference(one, other) == pytest.approx(difference(other, one), abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("米白", "奶白"),
        ("米白色", "象牙白"),
        ("原木色", "橡木色"),
        ("深灰色", "Dark-Grey"),
        ("Charcoal Gray", "深灰"),
        ("【原木 色】", "原木色"),
        ("原木色（三层加厚）", "原木"),
        ("黑色/Black", "黑"),
        ("雾霾蓝", "灰蓝色"),
        ("#C8A26B", "原木色"),
        ("黑白拼色", "黑白"),
    ],
)
def test_what_looks_alike_is_one(one: str, other: str) -> None:
    """Spelling, language, a size beside it: no other colour."""
    distance = apart(one, other)

    assert distance is not None
    assert distance <= ALIKE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("原木色", "胡桃木色"),
        ("Walnut", "原木色"),
        ("白色", "米白"),
        ("深灰", "黑色"),
        ("深灰", "灰"),
        ("藏青", "黑"),
        ("红色", "酒红"),
        ("黑白", "白黑"),
    ],
)
def test_what_a_customer_would_send_back_is_not(one: str, other: str) -> None:
    """The parcel of the article: natural wood ordered, walnut arrived."""
    distance = apart(one, other)

    assert distance is not None
    assert distance > ALIKE


@pytest.mark.parametrize("text", ["雾凇", "浅原木色", "lightish walnutty", "红色 Blue", "金属架", "x" * 400, "均码 42"])
def test_what_is_no_known_colour_has_no_distance(text: str) -> None:
    """A word that is not known, a known one made lighter by another, two languages that disagree: never a small distance."""
    assert read(text) is None
    assert apart(text, "原木色") is None


@pytest.mark.parametrize("text", ["如图", "默认颜色", "如图色", "As shown", " "])
def test_a_place_without_a_colour_states_none(text: str) -> None:
    """As if the channel had not said it."""
    assert colours.states_none(text)


def test_an_article_s_hex_goes_before_its_name() -> None:
    """A fancy name means what was measured; a broken hex means nothing."""
    assert apart("胡桃木色", "晨雾", "#5C4033") == 0
    assert apart("胡桃木色", "原木色", "#5C4033") == 0
    assert apart("胡桃木色", "晨雾", "#5C403") is None


def test_no_name_means_two_colours() -> None:
    """A spelling that two lines of the data file claim would mean whichever is read last."""
    seen: dict[str, str] = {}
    path = colours.Path(colours.__file__).parent / "colours.csv"
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# "):
            continue
        code, *names = line.split(",")
        assert not code or lab(code) is not None, line
        for name in names:
            spelled = colours._bare(name.replace("grey", "gray"))
            assert seen.setdefault(spelled, line) == line, name


@given(st.text(max_size=40))
def test_any_text_can_be_read(text: str) -> None:
    """A channel's value is whatever somebody typed."""
    read(text)
    apart(text, text, text)
