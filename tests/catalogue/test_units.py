"""Bundles, gifts and splitting: units in are units out, and money in is money out to the fen."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz, process

from orderstream.catalogue import BundleError, Catalogue, CatalogueError, index, read_article, resolve, units
from orderstream.catalogue.index import MAX_DEPTH
from orderstream.catalogue.units import share
from orderstream.identity import plain
from orderstream.orders import Customs, Line, Order
from orderstream.times import text

T = 1_794_326_402_000
DAY = 86_400_000
Record = dict[str, Any]
steady = settings(max_examples=60, deadline=None)


def goods(*lines: Record) -> Catalogue:
    return Catalogue(read_article(json.dumps({"name": line["sku"], **line})) for line in lines)


def code(name: str) -> list[Record]:
    return [{"channel": "api", "code": name}]


def order(*lines: Line, total: int | None = None, currency: str = "CNY", at: int = T, **more: Any) -> Order:
    paid = sum(line.price * line.quantity - (line.discount or 0) for line in lines)
    total = paid if total is None else total
    return Order("api:main:1", "api", "main", "1", None, "paid", at, None, currency, total, lines, **more)


def bundle(sku: str, *parts: tuple[str, int], **more: Any) -> Record:
    return {"sku": sku, "codes": code(sku), "components": [{"sku": s, "quantity": q} for s, q in parts], **more}


# -- bundles --------------------------------------------------------------------------------------------------------------


def test_bundles_that_hold_each_other_are_refused_with_the_path() -> None:
    """Whoever loads it reads which ones; a line that is sold so meanwhile is unmapped, and says it too."""
    ring = goods(bundle("B", ("C", 1)), bundle("A", ("B", 1)), bundle("C", ("X", 2), ("A", 1)))

    with pytest.raises(BundleError, match="cycle: A → B → C → A"):
        ring.check()
    found = resolve(order(Line("1", "B", 2, 500)), ring, T)
    assert [u.why for u in found.unmapped] == ["cycle: A → B → C → A"]
    assert found.pieces == {}
    assert found.unplaced == 1000


def test_a_cycle_counts_from_when_it_is_there(tmp_path: Any) -> None:
    """Each entry by itself is good; from the day that both hold, they hold each other."""
    lines = [bundle("A", ("B", 1)), {"sku": "B", "codes": code("B")}, bundle("B", ("A", 1), at=text(T))]
    catalogue = goods(*lines)

    assert catalogue.pieces("A", 3, T - 1) == {"B": 3}
    with pytest.raises(BundleError):
        catalogue.pieces("A", 3, T)
    file = tmp_path / "c.jsonl"
    file.write_text("\n".join(json.dumps({"name": "n", **line}) for line in lines), "utf-8")
    with pytest.raises(CatalogueError, match="cycle: A → B → A"):
        Catalogue.load(file)


def test_what_no_shelf_holds_is_refused() -> None:
    """Too deep, or more pieces than a number of 64 bits has room for: said, not counted."""
    deep = goods(*(bundle(f"S{n}", (f"S{n + 1}", 1)) for n in range(MAX_DEPTH + 1)))
    wide = goods(*(bundle(f"S{n}", (f"S{n + 1}", 10_000)) for n in range(3)))

    with pytest.raises(BundleError, match="deeper than"):
        deep.pieces("S0", 1, T)
    with pytest.raises(BundleError, match="more than"):
        wide.pieces("S0", 1, T)
    assert deep.pieces("S2", 1, T) == {f"S{MAX_DEPTH + 1}": 1}


def test_a_bundle_that_meets_itself_on_two_ways_is_no_cycle() -> None:
    """A in B and in C, both in D: pieces add up, once along each way, and in no time however often it forks."""
    catalogue = goods(bundle("D", ("B", 1), ("C", 2)), bundle("B", ("A", 3)), bundle("C", ("A", 5), ("X", 1)))
    forks = goods(*(bundle(f"F{n}", (f"F{n + 1}", 1), (f"F{n + 1}", 2)) for n in range(12)))

    assert catalogue.pieces("D", 2, T) == {"A": 2 * (3 + 10), "X": 4}
    assert forks.pieces("F0", 1, T) == {"F12": 3**12}


# -- a whole order --------------------------------------------------------------------------------------------------------

PLACES = ("hangzhou", None, None)


@st.composite
def assortments(draw: st.DrawFn) -> tuple[list[Record], dict[str, Counter[str]]]:
    """Articles S0…, each a piece or a bundle of earlier ones; and what one of each comes apart into."""
    lines: list[Record] = []
    parts: dict[str, Counter[str]] = {}
    for number in range(draw(st.integers(1, 7))):
        sku = f"S{number}"
        line: Record = {"sku": sku, "codes": code(sku), "place": draw(st.sampled_from(PLACES))}
        if draw(st.booleans()):
            line["base_price"] = f"{draw(st.integers(0, 300))}.{draw(st.integers(0, 99)):02d}"
        when = draw(st.sampled_from([None, None, -DAY, DAY, 2 * DAY]))
        if when is not None:
            line["ships_at"] = text(T + when)
        if draw(st.booleans()):
            line["customs"] = {"required": []}
        if draw(st.integers(0, 3)) == 0:
            line["gift"] = {"min_total": draw(st.sampled_from(["0", "10.00"]))}
        held = draw(st.lists(st.sampled_from(sorted(parts)), max_size=3)) if parts else []
        parts[sku] = Counter()
        if held:
            line["components"] = [{"sku": s, "quantity": draw(st.integers(1, 3))} for s in held]
            for part in line["components"]:
                for piece, count in parts[part["sku"]].items():
                    parts[sku][piece] += count * part["quantity"]
        else:
            parts[sku][sku] = 1
        lines.append(line)
    return lines, parts


@st.composite
def bought(draw: st.DrawFn, skus: list[str]) -> Order:
    """An order of these articles, and of what nobody knows; its total may be anything."""
    lines = []
    for number in range(draw(st.integers(1, 5))):
        quantity, price = draw(st.integers(1, 4)), draw(st.integers(0, 99_999))
        lines.append(
            Line(
                str(number),
                draw(st.sampled_from([*skus, *skus, "nobody"])),
                quantity,
                price,
                gift=draw(st.sampled_from([False, False, True, None])),
                discount=draw(st.none() | st.integers(0, price * quantity + 5)),
            )
        )
    return order(*lines, total=draw(st.integers(0, 500_000)), presale=draw(st.booleans()))


@steady
@given(st.data())
def test_units_in_are_units_out_and_money_in_is_money_out(data: st.DataObject) -> None:
    """Every piece of every mapped line is in one unit; amounts and what is unplaced come to the total, to the fen."""
    lines, parts = data.draw(assortments())
    one = data.draw(bought(sorted(parts)))

    found = resolve(one, goods(*lines), T)

    wanted: Counter[str] = Counter()
    for line in one.lines:
        for piece, count in parts.get(str(line.code), Counter()).items():
            wanted[piece] += count * line.quantity
    sent: Counter[str] = Counter()
    for unit in found.units:
        sent.update(unit.skus)
    assert +sent == +wanted == Counter(found.pieces)
    assert sum(unit.amount for unit in found.units) + found.unplaced == one.total
    assert all(unit.amount >= 0 for unit in found.units)
    assert found.unplaced >= 0
    assert {line for unit in found.units for line in unit.with_lines} == {line.id for line in one.lines if line.code in parts}
    stands = [(unit.kind, unit.place, unit.ships_at) for unit in found.units]
    assert len(set(stands)) == len(stands)
    assert all(all(count > 0 for count in unit.skus.values()) and unit.skus for unit in found.units)


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=9))
def test_a_share_is_fair_to_the_last_coin(total: int, weights: list[int]) -> None:
    """Parts come to the whole, and none is a coin away from its exact share."""
    parts = share(total, weights)
    whole = sum(weights)

    assert sum(parts) == total
    exact = [total * w / whole for w in weights] if whole else [total / len(weights)] * len(weights)
    assert all(abs(part - wanted) < 1 + wanted * 1e-12 for part, wanted in zip(parts, exact, strict=True))


def test_a_bundle_that_lies_nowhere_is_split_by_its_pieces() -> None:
    """Two warehouses and a pre-sale day: three parcels, their money by what the pieces cost; packed beforehand it is one."""
    parts: list[Record] = [
        {"sku": "A", "base_price": "10.00", "place": "hangzhou"},
        {"sku": "B", "base_price": "20.00", "place": "ningbo"},
        {"sku": "C", "base_price": "33.33", "place": "ningbo", "ships_at": text(T + DAY)},
        {"sku": "D", "base_price": "0.01", "place": "ningbo", "codes": code("D")},
    ]
    held = (("A", 2), ("B", 1), ("C", 1), ("D", 1))
    sold = order(Line("1", "SET", 1, 5000), Line("2", "D", 1, 7))

    split = resolve(sold, goods(*parts, bundle("SET", *held)), T)
    packed = resolve(sold, goods(*parts, bundle("SET", *held, place="hangzhou")), T)

    assert [(u.kind, u.place, u.ships_at, u.skus, u.amount) for u in split.units] == [
        ("own", "hangzhou", None, {"A": 2}, 1364),
        ("own", "ningbo", None, {"B": 1, "D": 2}, 1363 + 1 + 7),
        ("presale", "ningbo", T + DAY, {"C": 1}, 2272),
    ]
    assert [(u.place, u.skus, u.amount) for u in packed.units] == [
        ("hangzhou", {"A": 2, "B": 1, "C": 1, "D": 1}, 5000),
        ("ningbo", {"D": 1}, 7),
    ]


def test_a_pre_sale_ends_on_its_day() -> None:
    """To the millisecond of the order, by its own time."""
    catalogue = goods({"sku": "A", "codes": code("A"), "presale": True, "ships_at": text(T)})

    kinds = [resolve(order(Line("1", "A", 1, 1), at=at), catalogue, T).units[0].kind for at in (T - 1, T)]

    assert kinds == ["presale", "own"]


# -- gifts ----------------------------------------------------------------------------------------------------------------


def earned(gift: Any, *mains: Line, quantity: int = 1, **more: Any) -> str:
    catalogue = goods(
        {"sku": "A", "codes": code("A")}, {"sku": "B", "codes": code("B")}, {"sku": "G", "codes": code("G"), "gift": gift}
    )
    found = resolve(order(*mains, Line("g", "G", quantity, 0, gift=None), **more), catalogue, T)
    return "earned" if not found.gifts_without_main + found.gifts_unknown else "not" if found.gifts_without_main else "unknown"


def test_a_gift_for_each_full_amount() -> None:
    """Three hundred fen short of the second one is one; without `every` the amount earns as many as the line says, up to `most`."""
    each: Record = {"min_total": "100.00", "every": True}

    assert earned(each, Line("1", "A", 2, 10_000), quantity=2) == "earned"
    assert earned(each, Line("1", "A", 2, 9_999), quantity=2) == "not"
    assert earned({**each, "most": 1}, Line("1", "A", 2, 10_000), quantity=2) == "not"
    assert earned({"with_any": ["A"], "every": True}, Line("1", "A", 2, 1), quantity=2) == "earned"
    assert earned({"with_any": ["A"], "every": True}, Line("1", "A", 2, 1), Line("2", "B", 5, 1), quantity=3) == "not"
    assert earned({"min_total": "100.00"}, Line("1", "A", 1, 10_000), quantity=9) == "earned"


def test_two_lines_of_a_gift_are_not_earned_by_one_amount() -> None:
    """A platform that lists the gift twice gives it twice."""
    catalogue = goods({"sku": "A", "codes": code("A")}, {"sku": "G", "codes": code("G"), "gift": {"most": 1}})

    found = resolve(order(Line("1", "A", 1, 1), Line("g", "G", 1, 0, gift=True), Line("h", "G", 1, 0, gift=True)), catalogue, T)

    assert found.gifts_without_main == ("h",)


def test_a_campaign_has_its_time_and_its_place() -> None:
    """From its first millisecond to before its end, where it runs; one of several conditions is enough."""
    campaign: Record = {"campaign": "双十一", "since": text(T), "until": text(T + DAY), "where": ["api:main", "douyin"]}
    main = Line("1", "A", 1, 1)

    assert [earned(campaign, main, at=at) for at in (T - 1, T, T + DAY - 1, T + DAY)] == ["not", "earned", "earned", "not"]
    assert earned({**campaign, "where": ["api:live", "douyin"]}, main) == "not"
    assert earned([{**campaign, "where": ["douyin"]}, {"with_any": ["A"]}], main) == "earned"
    assert earned([{**campaign, "where": ["douyin"]}, {"with_any": ["B"]}], main) == "not"


def test_what_cannot_be_compared_is_unknown() -> None:
    """An amount in another currency, a main line that nobody knows: neither earned nor not."""
    assert earned({"min_total": "100.00"}, Line("1", "A", 1, 99_999), currency="USD") == "unknown"
    assert earned({"with_any": ["B"]}, Line("1", "A", 1, 1), Line("2", "nobody", 1, 1)) == "unknown"
    assert earned({"with_any": ["A"]}, Line("1", "A", 1, 1), currency="USD") == "earned"


# -- colours --------------------------------------------------------------------------------------------------------------


def wrong(stated: str, key: str = "颜色", *others: str) -> str:
    catalogue = goods(
        {"sku": "A", "name": "架", "codes": code("A"), "colour": {"name": "米白"}},
        *({"sku": f"O{n}", "name": "架", "colour": {"name": other}} for n, other in enumerate(others)),
    )
    found = resolve(order(Line("1", "A", 1, 1, spec={key: stated})), catalogue, T)
    return "wrong" if found.wrong_variants else "unknown" if found.variants_unknown else "right"


def test_a_colour_is_what_it_looks_like() -> None:
    """Spelled otherwise it is the same; where the shop sells both it is not; a place without a colour says nothing."""
    assert wrong("奶白色") == "right"
    assert wrong("奶白色", "颜色", "奶白") == "wrong"
    assert wrong("milk white", "Color", "奶白", "黑色") == "wrong"
    assert wrong("奶白色", "颜色", "黑色") == "right"
    assert wrong("胡桃木色") == "wrong"
    assert wrong("雾凇") == "wrong"
    assert wrong("如图色") == "unknown"


def test_an_option_without_a_name_is_compared_where_it_is_a_colour() -> None:
    """Shopify's options have values alone: Walnut says what it is, Large does not."""
    assert wrong("Walnut", "option1") == "wrong"
    assert wrong("Ivory", "option1") == "right"
    assert wrong("Large", "option1") == "unknown"


# -- as of ----------------------------------------------------------------------------------------------------------------


def test_what_is_nearest_does_not_depend_on_who_asked_before() -> None:
    """An order is told the articles that there were when it came, also after a later one asked for the same text."""
    lines: list[Record] = [{"sku": "A", "name": "收纳架"}, {"sku": "B", "name": "收纳架 大号", "at": text(T)}]

    def names(*times: int) -> list[list[str]]:
        catalogue = goods(*lines)
        return [[sku for sku, _, _ in catalogue.nearest("收纳架 大", at)] for at in times]

    assert names(T - 1, T) == names(T, T - 1)[::-1] == [["A"], ["B", "A"]]


WORDS = ("收纳架", "置物架", "厨房", "大号", "小号", "米白", "rack", "sku-0012", "sku-0021")


@steady
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join), min_size=1, max_size=12),
    st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
    st.integers(1, 4),
)
@example(["sku-0012", "sku-9921", "sku-0021"], "sku-0012", 2)
def test_what_is_nearest_is_what_a_look_at_every_article_finds(names: list[str], asked: str, most: int) -> None:
    """However the names are gone through, and however many articles bear one: the same ones, in the same order."""
    lines = [{"sku": f"S{n:02d}", "name": name} for n, name in enumerate(names)]
    every = {line["sku"]: plain(line["name"]) for line in lines}
    hits = process.extract(plain(asked), every, scorer=fuzz.WRatio, limit=most, score_cutoff=30)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "SLICE", 2)
        found = goods(*lines).nearest(asked, T, most)

    assert [(sku, score) for sku, _, score in found] == [
        (sku, int(score)) for _, score, sku in sorted(hits, key=lambda h: (-int(h[1]), h[2]))
    ]


def test_what_a_code_names_is_asked_anew_where_it_may_be_another() -> None:
    """Another shop, another time, an article that has come since: each has its own answer."""
    catalogue = goods({"sku": "A", "codes": code("x")}, {"sku": "B", "codes": [{"channel": "api", "shop": "own", "code": "x"}]})
    catalogue.add(*read_article(json.dumps({"sku": "A", "name": "A", "at": text(T), "codes": []})))

    def named(shop: str, at: int) -> list[str]:
        return [article.sku for article in catalogue.named("api", shop, at)["x"]]

    assert [named("main", T - 1), named("own", T - 1), named("main", T), named("own", T)] == [["A"], ["B"], [], ["B"]]
    catalogue.add(*read_article(json.dumps({"sku": "C", "name": "C", "codes": code("x")})))
    assert [named("main", T - 1), named("own", T - 1), named("main", T)] == [["A", "C"], ["B"], ["C"]]


def test_texts_that_name_nothing_are_not_kept() -> None:
    """A code is anybody's text: only the catalogue's own are remembered, and of those no more than so many."""
    catalogue = goods({"sku": "A", "codes": code("x")})
    scope = catalogue.named("api", "main", T)

    assert [len(scope["y"]), len(scope["x"])] == [0, 1]
    assert list(scope) == ["x"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "MAX_SCOPES", 3)
        for shop in range(20):
            assert catalogue.named("api", f"s{shop}", T)["x"]
        assert len(catalogue._named) <= 5


@steady
@given(data=st.data())
def test_an_ordinary_order_is_split_as_any_other(data: st.DataObject) -> None:
    """Where all leaves together there is nothing to work out, and what is worked out is the same."""
    more: st.SearchStrategy[Record] = st.fixed_dictionaries(
        {},
        optional={
            "place": st.sampled_from(["hangzhou", "ningbo"]),
            "presale": st.booleans(),
            "customs": st.just({"required": ["hs_code"]}),
        },
    )
    lines = [{"sku": sku, "codes": code(sku), **data.draw(more)} for sku in "ABC"]
    sold = st.builds(lambda sku, n, price: (sku, n, price), st.sampled_from("ABCx"), st.integers(1, 3), st.integers(0, 999))
    drawn = data.draw(st.lists(sold, min_size=1, max_size=4))
    papers = data.draw(st.none() | st.just(Customs({"0": "9403208000"})))
    one = order(*(Line(str(n), *line) for n, line in enumerate(drawn)), presale=data.draw(st.booleans()), customs=papers)

    short = resolve(one, goods(*lines), T)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "ordinary", lambda *_: None)
        long = resolve(one, goods(*lines), T)

    assert short == long
