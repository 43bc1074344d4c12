"""Tables: articles and product lists from CSV and Excel, all rows or none, each fault with its place."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.catalogue import ALWAYS, Catalogue, Code, Colour, Component, imports, read_article, tables
from orderstream.catalogue.imports import Imported
from orderstream.errors import BadFile
from orderstream.times import text

T = 1_794_326_402_000
ZONE = "Asia/Shanghai"


def goods(*lines: dict[str, Any]) -> Catalogue:
    return Catalogue(read_article(json.dumps({"name": line["sku"], **line})) for line in lines)


def workbook(path: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def articles(path: Path, known: Catalogue | None = None, at: int = T, **given: str) -> Imported:
    table = tables.read(path, imports.recognised(None, given))
    return imports.articles(table, given, known or Catalogue(), at, ZONE)


def listed(path: Path, known: Catalogue, channel: str = "taobao", **given: str) -> Imported:
    table = tables.read(path, imports.recognised(channel, given))
    return imports.product_list(table, given, known, T, channel, "main")


def written(path: Path, said: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(said.encode(encoding))
    return path


HEAD = "货号,商品名称,基准价,颜色,色值,规格:尺寸,编码:taobao:main,编码:api,组成,预售,预售发货时间,克重,备注\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_table_of_articles_becomes_catalogue_lines(tmp_path: Path, encoding: str) -> None:
    """Every column of it, however the spreadsheet saved it; a column that means nothing here is told."""
    said = HEAD + 'SKU1,收纳架,"¥1,299.00",原木色,c8a26b,三层,tb-1;tb-2,m-1,SKU7*2；BOX2,是,2026-11-20,4200,好\n'

    done = articles(written(tmp_path / "a.csv", said, encoding))

    assert done.faults == []
    (one,) = done.articles
    assert (one.sku, one.name, one.base_price, one.weight_g, one.presale) == ("SKU1", "收纳架", Decimal("1299.00"), 4200, True)
    assert one.colour == Colour("原木色", "#C8A26B")
    assert one.spec == {"尺寸": "三层"}
    assert one.codes == (Code("taobao", "tb-1", "main"), Code("taobao", "tb-2", "main"), Code("api", "m-1"))
    assert one.components == (Component("SKU7", 2), Component("BOX2", 1))
    assert (one.ships_at, one.at) == ("2026-11-19T16:00:00.000Z", text(T))
    assert done.unread == ["备注"]
    assert done.new == ["SKU1"]


def test_excel_is_read_as_it_looks(tmp_path: Path) -> None:
    """A title above the headings, numbers and dates as cells, an empty row."""
    path = workbook(
        tmp_path / "a.xlsx",
        ["商品资料 2026"],
        [None, None],
        ["sku", "name", "price", "ships_at", "weight_g"],
        [1001, "椅", 19.9, datetime(2026, 11, 20, 8, 30), 250],  # noqa: DTZ001  Excel's times have no zone
        [None],
        ["B", "桌", 100, None, None],
    )

    done = articles(path)

    assert done.faults == []
    assert [(a.sku, a.base, a.ships_at, a.weight_g) for a in done.articles] == [
        ("1001", 1990, "2026-11-20T00:30:00.000Z", 250),
        ("B", 10000, None, None),
    ]


def test_every_fault_is_told_and_nothing_else_is_hidden(tmp_path: Path) -> None:
    """Row, column, what was there, why: in one go, not one at a time."""
    said = (
        "sku,name,price,hex,colour,weight_g,presale,ships_at,components,code:api\n"
        "A,a,abc,#12,红,1.5,maybe,soon,,1.2E+16\n"
        ",b,,,,,,,,\n"
        "C,,,,,,,,,\n"
        "D,d,1.234,,,,,,,\n"
        "E,e,,#FF0000,,,,,,\n"
        "F,f,,,,,,,F*2,\n"
        "A2,a,1,,,,,,X*0,\n"
        "G,g,1,,,,,,,\n"
        "G,g,1,,,,,,,\n"
    )
    done = articles(written(tmp_path / "a.csv", said))

    assert [(f.row, f.column) for f in done.faults] == [
        (2, "price"), (2, "hex"), (2, "weight_g"), (2, "presale"), (2, "ships_at"), (2, "code:api"),
        (3, "sku"), (4, ""), (5, ""), (6, ""), (7, ""), (8, ""), (10, "sku"),
    ]  # fmt: skip
    assert all(" · " in f.why for f in done.faults)
    assert "第 9 行" in done.faults[-1].why


def test_digits_that_excel_has_cut_are_lost(tmp_path: Path) -> None:
    """An id of 18 digits as a number is another id: in a workbook, and in the CSV that was saved from one."""
    book = workbook(
        tmp_path / "a.xlsx", ["sku", "name", "code:taobao"], ["A", "a", 123456789012345678], ["B", "b", "123456789012345678"]
    )
    table = written(tmp_path / "a.csv", "sku,name,code:taobao\nA,a,1.23457E+17\n")

    assert [(f.row, f.column, "15" in f.why) for f in articles(book).faults] == [(2, "code:taobao", True)]
    assert [a.codes[0].code for a in articles(book).articles] == ["123456789012345678"]
    assert [(f.row, f.column) for f in articles(table).faults] == [(2, "code:taobao")]


def test_an_article_keeps_what_the_table_does_not_say(tmp_path: Path) -> None:
    """A price list changes prices; what is as it was makes no line; what came before is read as it was."""
    known = goods(
        {
            "sku": "A",
            "name": "a",
            "base_price": "1.00",
            "colour": {"name": "红", "hex": "#D32F2F"},
            "codes": [{"channel": "api", "code": "x"}],
        },
        {"sku": "B", "name": "b", "base_price": "2.00"},
    )
    done = articles(written(tmp_path / "p.csv", "货号\t价格\nA\t1.50\nB\t2.00\n"), known)
    for one in done.articles:
        known.add(*read_article(json.dumps({**json.loads(imports.write_article(one))})))

    assert (done.changed, done.unchanged, done.new) == (["A"], 1, [])
    after = known.article("A", T)
    assert after is not None
    assert (after.base, after.colour, after.codes) == (150, Colour("红", "#D32F2F"), (Code("api", "x"),))
    before = known.article("A", T - 1)
    assert before is not None
    assert before.base == 100


def test_a_first_import_may_hold_from_the_beginning(tmp_path: Path) -> None:
    """Then history is read with it."""
    (one,) = articles(written(tmp_path / "a.csv", "sku,name\nA,a\n"), at=ALWAYS).articles

    assert one.at is None


@pytest.mark.parametrize(
    ("name", "said", "given", "what"),
    [
        ("a.xls", "x", {}, "另存为"),
        ("a.csv", "", {}, "空的"),
        ("a.xlsx", "no workbook", {}, "不是 Excel"),
        ("a.csv", "颜色,尺寸\n红,大\n", {}, "--column sku="),
        ("a.csv", "sku,name,code:ebay\nA,a,x\n", {}, "没有渠道 ebay"),
        ("a.csv", "sku,name\nA,a\n", {"sku": "货物"}, "没有列 货物"),
        ("a.csv", "sku,name\nA,a\n", {"gewicht": "sku"}, "没有字段 gewicht"),
        ("a.csv", "sku,SKU,name\nA,a,b\n", {}, "重名"),
        ("a.csv", 'sku,name\nA,"a\n', {}, "不是 CSV"),
    ],
)
def test_a_table_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, name: str, said: str, given: dict[str, str], what: str
) -> None:
    """In both languages, before any row is looked at."""
    with pytest.raises(BadFile, match=what) as found:
        articles(written(tmp_path / name, said), **given)
    assert " · " in str(found.value)


def test_a_named_column_goes_before_the_usual_one(tmp_path: Path) -> None:
    """A shop that keeps its SKU under 型号 says so."""
    done = articles(written(tmp_path / "a.csv", "sku,型号,name\nignored,M1,a\n"), sku="型号")

    assert [a.sku for a in done.articles] == ["M1"]
    assert done.unread == ["sku"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=8), max_size=6), max_size=6))
def test_any_table_is_an_import_or_a_sentence(rows: list[list[str]]) -> None:
    """Whatever stands in its cells: lines, faults, or a BadFile; never a traceback."""
    table = tables.Table(("sku", "name", "price", "hex", "components", "ships_at"), [])
    for number, cells in enumerate(rows, 2):
        table.rows.append(tables.Row(number, dict(zip(table.headings, cells, strict=False)), frozenset()))

    done = imports.articles(table, {}, Catalogue(), T, ZONE)

    assert len(done.articles) + len({f.row for f in done.faults}) == len(rows)


# -- product lists --------------------------------------------------------------------------------------------------------

KNOWN = ({"sku": "A", "name": "架"}, {"sku": "B", "name": "椅", "codes": [{"channel": "taobao", "shop": "main", "code": "tb-9"}]})


def test_a_list_maps_what_names_our_article_and_leaves_the_rest(tmp_path: Path) -> None:
    """The shop's own code is what orders bring, where there is one; else the platform's number, as the parsers write it."""
    said = (
        "宝贝标题,SKU ID,商家编码,我方SKU,销售属性,价格\n"
        "木架,111,A,,颜色分类:原木色;尺寸:三层,199\n"
        "木架,112,,A,颜色分类:胡桃木色,199.5\n"
        "椅子,113,tb-9,B,,99\n"
        "不认识,114,xx-1,,颜色:红,9.9\n"
    )
    done = listed(written(tmp_path / "l.csv", said), goods(*KNOWN))

    assert done.faults == []
    assert [(a.sku, a.codes) for a in done.articles] == [("A", (Code("taobao", "A", "main"), Code("taobao", "sku:112", "main")))]
    assert done.unmapped == ["xx-1"]
    assert next((o.code, o.title, o.colour, o.spec, o.price) for o in done.listings) == (
        "A",
        "木架",
        "原木色",
        {"尺寸": "三层"},
        19900,
    )
    assert listed(written(tmp_path / "s.csv", "Variant ID,Variant SKU\n5,\n"), goods(*KNOWN), "shopify").unmapped == ["variant:5"]


def test_a_list_never_remaps(tmp_path: Path) -> None:
    """A code that names another article, one that is listed twice, a SKU that is none, an id that Excel cut: faults, all of them."""
    said = "编码,我方SKU\ntb-9,A\nnew,A\nnew,A\nz,NOPE\n1.2E+17,A\n,A\n"

    done = listed(written(tmp_path / "l.csv", said), goods(*KNOWN))

    assert [f.row for f in done.faults] == [2, 4, 5, 6, 7]
    assert "--move" in done.faults[0].why
