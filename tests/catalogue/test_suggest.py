"""Suggestions and reports: evidence for a person, nothing by itself, and what was not looked at is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from orderstream.catalogue import Catalogue, read_article, report
from orderstream.catalogue.images import SAME, Images, apart
from orderstream.catalogue.listing import Listing, Sold, of_orders
from orderstream.catalogue.suggest import FORBIDDEN, Suggester
from orderstream.orders import Raw
from orderstream.simulators.assortment import catalogue as assortment
from orderstream.times import DAY, text

T = 1_794_326_402_000
GOODS = Catalogue(read_article(json.dumps(line)) for line in assortment())
WITH_COLOUR = [a for a in GOODS.articles(T) if a.colour is not None and not a.components]


def goods(*lines: dict[str, Any]) -> Catalogue:
    return Catalogue(read_article(json.dumps({"name": line["sku"], **line})) for line in lines)


def listing(title: str | None = None, colour: str | None = None, price: int | None = None, **spec: str) -> Listing:
    return Listing("douyin", "main", "c", title, spec, Counter([colour] if colour else []), price)


# -- suggestions ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(WITH_COLOUR),
    st.sampled_from(["", "【直播专享】", "2026新款 ", "加厚 "]),
    st.sampled_from(["", " 包邮", " 家用"]),
    st.floats(0.9, 1.1),
)
def test_the_right_article_comes_first(article: Any, before: str, after: str, factor: float) -> None:
    """A title as shops dress it up, the colour, the spec, a price nearby: the article is the first, and likely."""
    said = listing(f"{before}{article.name}{after}", article.colour.name, round(article.base * factor), **article.spec)

    found = Suggester(GOODS, T).of(said)

    assert found[0].sku == article.sku
    assert found[0].confidence >= 80


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=20), st.text(max_size=6), st.none() | st.integers(0, 10**6))
def test_a_confidence_is_one_whatever_is_said(title: str, colour: str, price: int | None) -> None:
    """From 0 to 100, the best first, and no more than one of two is likely."""
    found = Suggester(GOODS, T).of(listing(title, colour, price))

    assert all(0 <= one.confidence <= 100 for one in found)
    assert sum(one.confidence > 50 for one in found[:2]) <= 2


def test_another_colour_forbids() -> None:
    """The two racks share name, size and price: what is said of the colour decides, and where nothing is, neither is likely."""
    sure = Suggester(GOODS, T).of(listing("多功能收纳架", "Walnut", 19900, 尺寸="三层"))
    by_title = Suggester(GOODS, T).of(listing("多功能收纳架 胡桃木色 三层", None, 19900))
    unsure = Suggester(GOODS, T).of(listing("多功能收纳架", None, 19900, 尺寸="三层"))

    assert (sure[0].sku, by_title[0].sku) == ("SKU2", "SKU2")
    assert (
        next(one for one in Suggester(GOODS, T).of(listing("多功能收纳架", "Walnut"), 40) if one.sku == "SKU1").confidence
        <= FORBIDDEN
    )
    assert {one.sku for one in unsure[:2]} == {"SKU1", "SKU2"}
    assert all(one.confidence <= 50 for one in unsure)


def test_what_is_not_said_confirms_nothing() -> None:
    """A title alone is weaker evidence than the same title with everything else in agreement."""
    alone = Suggester(GOODS, T).of(listing("儿童书架"))[0]
    whole = Suggester(GOODS, T).of(listing("儿童书架", "米白", 24900))[0]

    assert (alone.sku, whole.sku) == ("SKU28", "SKU28")
    assert alone.confidence < whole.confidence
    assert [g.what for g in alone.grounds if g.likeness is None] == ["colour", "price"]


# -- reports --------------------------------------------------------------------------------------------------------------


def raw(number: str, at: int, code: str, colour: str | None = None, revision: int = 1) -> Raw:
    line = {
        "id": "1",
        "code": code,
        "quantity": 2,
        "price": "10.00",
        "title": "架",
        **({"spec": {"颜色": colour}} if colour else {}),
    }
    body = {"order_id": number, "revision": revision, "created_at": text(at), "currency": "CNY", "lines": [line]}
    return Raw("api", "main", at, json.dumps(body).encode())


def sections(catalogue: Catalogue, sold: Sold | None = None, days: int = 30, **more: Any) -> dict[str, report.Section]:
    found = report.report(catalogue, T, sold, more.get("lists", {}), Images(more.get("images")), days)
    return {section.id: section for section in found}


def code(name: str, shop: str | None = None) -> dict[str, str]:
    return {"channel": "api", "code": name} | ({"shop": shop} if shop else {})


def test_an_order_is_counted_once() -> None:
    """However many revisions of it came; a record that is no order is passed over."""
    sold = of_orders([raw("1", T, "x"), raw("1", T, "x", revision=2), raw("2", T + 1, "x"), Raw("api", "main", T, b"{")])

    assert (sold.orders, sold.since, sold.until) == (2, T, T + 1)
    assert [(one.orders, one.pieces, one.last) for one in sold.listings.values()] == [(2, 4, T + 1)]


def test_what_sends_the_wrong_parcel_is_told() -> None:
    """A code of two articles, a shop that overrides, a colour that is another, a hex that is not its name's, bundles that are wrong."""
    catalogue = goods(
        {"sku": "A", "codes": [code("x"), code("y")], "colour": {"name": "原木色", "hex": "#C8A26B"}},
        {"sku": "B", "codes": [code("x"), code("y", "main")], "colour": {"name": "白色", "hex": "#111111"}},
        {"sku": "C", "components": [{"sku": "D", "quantity": 1}, {"sku": "gone", "quantity": 1}]},
        {"sku": "D", "components": [{"sku": "C", "quantity": 1}]},
        {"sku": "E", "codes": [code("e")], "colour": {"name": "米白"}},
    )
    sold = of_orders(
        [
            raw("1", T, "e", "奶白"),
            raw("2", T, "e", "胡桃木色"),
            raw("3", T, "e", "胡桃木色"),
            raw("4", T, "e", "雾凇"),
            raw("5", T, "u"),
        ]
    )
    found = sections(catalogue, sold)

    assert [row[2:3] for row in found["clashes"].rows] == [["x"]]
    assert [row[1:4] for row in found["overrides"].rows] == [["main", "y", "B"]]
    assert [(row[0][0], row[5], row[7]) for row in found["colours"].rows] == [("E", "胡桃木色", "2"), ("E", "雾凇", "1")]
    assert [row[0][0] for row in found["hex"].rows] == ["B"]
    assert [row[1].split(" · ")[0] for row in found["bundles"].rows] == ["cycle: C → D → C", "组成里的 gone 不在目录"]
    assert [(row[2], row[4]) for row in found["unmapped"].rows] == [("u", "1")]


def test_a_code_is_stale_only_where_orders_reach_back() -> None:
    """Sold on the last day it is not; one that is newer than the days has not had them; without enough history nothing is said."""
    catalogue = goods(
        {"sku": "A", "codes": [code("old"), code("sold"), code("edge")]},
        {"sku": "B", "codes": [code("new")], "at": text(T - 5 * DAY)},
    )
    orders = [raw("0", T - 40 * DAY, "old"), raw("1", T - 30 * DAY - 1, "edge"), raw("2", T - 30 * DAY, "sold")]

    assert [row[2] for row in sections(catalogue, of_orders(orders))["stale"].rows] == ["edge", "old"]
    assert [row[4] for row in sections(catalogue, of_orders(orders))["stale"].rows][1] == text(T - 40 * DAY)[:10]
    assert "40" in str(sections(catalogue, of_orders(orders), 90)["stale"].not_available)
    assert sections(catalogue)["stale"].not_available is not None
    assert sections(catalogue)["colours"].not_available is not None


def picture(path: Path, seed: int, size: int = 256, quality: int = 90) -> None:
    """A photo-like picture: blocks of grey, from a number."""
    image = Image.new("L", (64, 64))
    draw = ImageDraw.Draw(image)
    for n in range(24):
        x, y, shade = (seed * (n + 3) * 37) % 64, (seed * (n + 7) * 53) % 64, (seed * (n + 1) * 91) % 256
        draw.rectangle((x, y, x + 18, y + 14), fill=shade)
    image.resize((size, size)).convert("RGB").save(path, quality=quality)


def test_images_are_compared_where_they_are(tmp_path: Path) -> None:
    """The same photo smaller and compressed is the same; another is not; without a folder or file it is not available."""
    picture(tmp_path / "a.jpg", 1)
    picture(tmp_path / "B.png", 1, 97)
    picture(tmp_path / "list.jpg", 5, 300, 40)
    catalogue = goods(
        {"sku": "A", "image": "https://cdn.example.com/x/a.jpg?w=1", "codes": [{"channel": "douyin", "code": "c"}]},
        {"sku": "B"},
        {"sku": "C", "image": "gone.jpg"},
    )
    one = Listing("douyin", "main", "c", image="list.jpg")
    found = sections(catalogue, images=tmp_path, lists={one.key: one})

    assert [row[:2] for row in found["same-image"].rows] == [["A A", "B B"]]
    assert [row[2] for row in found["other-image"].rows] == ["c"]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    pictures = Images(tmp_path)
    assert pictures.hash("broken.jpg") is None
    assert pictures.hash("../a.jpg") == pictures.hash("a.jpg")
    first, second = pictures.hash("a.jpg"), pictures.hash(None, "B")
    assert first is not None
    assert second is not None
    assert apart(first, second) <= SAME


def test_absent_images_are_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, a folder without one of ours, no library: said each, and no row."""
    none, empty = sections(GOODS)["same-image"], sections(GOODS, images=tmp_path)["same-image"]
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    without = sections(GOODS, images=tmp_path)["same-image"]

    assert all(section.not_available and not section.rows for section in (none, empty, without))
    assert "imagehash" in str(without.not_available)
