"""Reports on a catalogue: what in it will send the wrong parcel, and what nobody needs any more.

Law: a section says what it looked at, and where it had nothing to look at it says that; an empty list means that it looked and
found nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from orderstream import times
from orderstream.catalogue import colours, images
from orderstream.catalogue.article import Article
from orderstream.catalogue.images import Images
from orderstream.catalogue.index import Catalogue
from orderstream.catalogue.listing import Key, Listing, Sold
from orderstream.identity import plain
from orderstream.times import DAY


class Section(msgspec.Struct):
    """One question and its answer. title: `中文 · English`; not_available: why it could not be looked at, else None."""

    id: str
    title: str
    columns: list[str]
    rows: list[list[str]] = []
    not_available: str | None = None


def report(
    catalogue: Catalogue, at: int, sold: Sold | None, lists: Mapping[Key, Listing], pictures: Images, stale_days: int
) -> list[Section]:
    """Every section, as of `at` (ms UTC). sold: what orders say, None where none were read; lists: what product lists say."""
    listings = {**(sold.listings if sold is not None else {})}
    for key, one in lists.items():
        listings.setdefault(key, one)
    said = list(lists.values()) + (list(sold.listings.values()) if sold is not None else [])
    return [
        clashes(catalogue, at),
        overrides(catalogue, at),
        stated_colours(catalogue, at, said),
        own_colours(catalogue, at),
        unmapped(catalogue, at, listings.values()),
        stale(catalogue, at, sold, stale_days),
        bundles(catalogue, at),
        same_images(catalogue, at, pictures),
        other_images(catalogue, at, lists.values(), pictures),
    ]


def clashes(catalogue: Catalogue, at: int) -> Section:
    """Codes that name several articles: their orders are unmapped."""
    out = Section("clashes", "一个编码对应多个商品 · one code, several articles", ["渠道", "店铺", "编码 code", "商品 articles"])
    for (channel, shop, code), skus in sorted(catalogue.codes(at).items(), key=_by_code):
        if len(skus) > 1:
            out.rows.append([channel, shop or "*", code, "、".join(_named(catalogue, sku, at) for sku in skus)])
    return out


def overrides(catalogue: Catalogue, at: int) -> Section:
    """Codes that one shop maps otherwise than its channel: meant, or forgotten."""
    title = "店铺与全渠道对应不同 · a shop's mapping differs from its channel's"
    out = Section("overrides", title, ["渠道", "店铺", "编码 code", "店铺 shop's", "全渠道 channel's"])
    codes = catalogue.codes(at)
    for (channel, shop, code), skus in sorted(codes.items(), key=_by_code):
        usual = codes.get((channel, None, code))
        if shop is not None and usual is not None and usual != skus:
            out.rows.append([channel, shop, code, "、".join(skus), "、".join(usual)])
    return out


def stated_colours(catalogue: Catalogue, at: int, listings: Iterable[Listing]) -> Section:
    """Articles that channels sell under another colour than theirs, or under several."""
    title = "一个商品，多种颜色 · one article under different colours"
    out = Section("colours", title, ["商品 article", "颜色 colour", "渠道", "店铺", "编码 code", "写成 stated", "ΔE", "次 times"])
    looked = False
    for one in sorted(listings, key=lambda found: found.key):
        skus = catalogue.skus(one.channel, one.shop, one.code, at)
        article = catalogue.article(skus[0], at) if len(skus) == 1 else None
        if article is None or not one.colours:
            continue
        looked = True
        for stated, count in sorted(one.colours.items()):
            distance = _off(stated, article)
            if distance is not None:
                ours = article.colour.name if article.colour else "—"
                where = [one.channel, one.shop, one.code]
                out.rows.append([_named(catalogue, article.sku, at), ours, *where, stated, distance, str(count)])
        if article.colour is None and len(one.colours) > 1:
            for stated, count in sorted(one.colours.items()):
                out.rows.append(
                    [_named(catalogue, article.sku, at), "—", one.channel, one.shop, one.code, stated, "—", str(count)]
                )
    if not looked:
        out.not_available = "订单与商品清单都没有写颜色 · neither orders nor product lists state a colour"
    return out


def _off(stated: str, article: Article) -> str | None:
    """How far a stated colour is off the article's, as text; None where it is not."""
    if article.colour is None or plain(stated) == plain(article.colour.name) or colours.states_none(stated):
        return None
    distance = colours.apart(stated, article.colour.name, article.colour.hex)
    if distance is None:
        return "?"
    return f"{distance:.1f}" if distance > colours.ALIKE else None


def own_colours(catalogue: Catalogue, at: int) -> Section:
    """Articles whose hex is not the colour that they are named for: one of the two is a slip."""
    title = "颜色名与色值不符 · a colour's name and its hex disagree"
    out = Section("hex", title, ["商品 article", "颜色 colour", "色值 hex", "ΔE"])
    for article in catalogue.articles(at):
        colour = article.colour
        if colour is None or colour.hex is None:
            continue
        distance = colours.apart(colour.name, colour.hex)
        # a shade's name is a range, not a point: twice what two spellings may differ by
        if distance is not None and distance > 2 * colours.ALIKE:
            out.rows.append([_named(catalogue, article.sku, at), colour.name, colour.hex, f"{distance:.1f}"])
    return out


def unmapped(catalogue: Catalogue, at: int, listings: Iterable[Listing]) -> Section:
    """Codes that were seen and name no article; `orderstream catalogue suggest` has proposals."""
    title = "未对应的编码 · codes that name no article"
    out = Section("unmapped", title, ["渠道", "店铺", "编码 code", "标题 title", "订单 orders", "最近 last"])
    found = [one for one in listings if not catalogue.skus(one.channel, one.shop, one.code, at)]
    for one in sorted(found, key=lambda o: (-o.orders, o.key)):
        out.rows.append([one.channel, one.shop, one.code, one.title or "—", str(one.orders), _day(one.last)])
    return out


def stale(catalogue: Catalogue, at: int, sold: Sold | None, days: int) -> Section:
    """Codes of ours that no order named for so many days; only where orders reach back that far."""
    title = f"{days} 天没有卖出的编码 · codes not sold for {days} days"
    out = Section("stale", title, ["渠道", "店铺", "编码 code", "商品 article", "最近 last"])
    if sold is None or sold.since is None:
        out.not_available = "没有读到订单 · no orders were read"
        return out
    since = at - days * DAY
    if sold.since > since:
        reach = max(0, (at - sold.since) // DAY)
        out.not_available = (
            f"订单只到 {reach} 天前，说不了 {days} 天；可用 --orders 加历史文件，或 --stale {reach}d"
            f" · orders reach back {reach} days, not {days}: add history with --orders, or ask for --stale {reach}d"
        )
        return out
    last: dict[tuple[str, str | None, str], int] = defaultdict(lambda: -1)
    for one in sold.listings.values():
        if one.last is not None:
            for shop in (one.shop, None):
                key = (one.channel, shop, one.code)
                last[key] = max(last[key], one.last)
    for key, skus in sorted(catalogue.codes(at).items(), key=_by_code):
        if last[key] < since and any(_since(catalogue, sku, key, at) <= since for sku in skus):
            channel, shop, code = key
            seen = last[key] if last[key] >= 0 else None
            out.rows.append([channel, shop or "*", code, "、".join(_named(catalogue, sku, at) for sku in skus), _day(seen)])
    return out


def _since(catalogue: Catalogue, sku: str, key: tuple[str, str | None, str], at: int) -> int:
    """Since when an article has had a code without a break (ms): what is new has not had its days to sell."""
    since = at
    for begins, article in reversed([v for v in catalogue.versions(sku) if v[0] <= at]):
        if not any((c.channel, c.shop, c.code) == key for c in article.codes):
            break
        since = begins
    return since


def bundles(catalogue: Catalogue, at: int) -> Section:
    """Bundles that can't be taken apart, and those that hold what is no article."""
    out = Section("bundles", "套装有误 · bundles that are wrong", ["商品 article", "问题 what"])
    for fault in catalogue.faults():
        out.rows.append(["—", str(fault)])
    for article in catalogue.articles(at):
        for part in article.components:
            if catalogue.article(part.sku, at) is None:
                what = f"组成里的 {part.sku} 不在目录 · {part.sku} is no article"
                out.rows.append([_named(catalogue, article.sku, at), what])
    return out


def same_images(catalogue: Catalogue, at: int, pictures: Images) -> Section:
    """Articles of different names with one main image: a slip, or one thing entered twice."""
    title = "不同商品用同一主图 · different articles, one main image"
    out = Section("same-image", title, ["商品 article", "商品 article", "位差 bits"], not_available=pictures.missing)
    if pictures.missing is not None:
        return out
    hashed = [(a, h) for a in catalogue.articles(at) if (h := pictures.hash(a.image, a.sku)) is not None]
    if not hashed:
        out.not_available = "图片目录里没有商品的主图 · the folder has no article's image"
    for index, (one, first) in enumerate(hashed):
        for other, second in hashed[index + 1 :]:
            bits = images.apart(first, second)
            if bits <= images.SAME and plain(one.name) != plain(other.name):
                out.rows.append([_named(catalogue, one.sku, at), _named(catalogue, other.sku, at), f"{bits}/64"])
    return out


def other_images(catalogue: Catalogue, at: int, listings: Iterable[Listing], pictures: Images) -> Section:
    """Codes whose page shows another picture than the article that they are mapped to."""
    title = "渠道主图与商品主图不同 · a channel's image is not the article's"
    columns = ["渠道", "店铺", "编码 code", "商品 article", "位差 bits"]
    out = Section("other-image", title, columns, not_available=pictures.missing)
    if pictures.missing is not None:
        return out
    looked = False
    for one in sorted(listings, key=lambda found: found.key):
        skus = catalogue.skus(one.channel, one.shop, one.code, at)
        article = catalogue.article(skus[0], at) if len(skus) == 1 else None
        theirs = pictures.hash(one.image, one.code)
        ours = pictures.hash(article.image, article.sku) if article is not None else None
        if article is None or theirs is None or ours is None:
            continue
        looked = True
        bits = images.apart(theirs, ours)
        if bits > images.SAME:
            out.rows.append([one.channel, one.shop, one.code, _named(catalogue, article.sku, at), f"{bits}/64"])
    if not looked:
        out.not_available = "没有商品清单的图片可比 · no product list has an image that could be compared"
    return out


def _named(catalogue: Catalogue, sku: str, at: int) -> str:
    article = catalogue.article(sku, at)
    return sku if article is None else f"{sku} {article.name}{f'（{article.colour.name}）' if article.colour else ''}"


def _by_code(item: tuple[tuple[str, str | None, str], list[str]]) -> tuple[str, str, str]:
    (channel, shop, code), _ = item
    return channel, shop or "", code


def _day(ms: int | None) -> str:
    return "—" if ms is None else times.text(ms)[:10]
