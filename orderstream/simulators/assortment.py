"""The simulated shop's articles, and how each channel names them.

Law: one article has one SKU and as many names as there are channels, as in the first article's shop, where one rack was four
articles in the system. Prices are fen (CNY); base prices keep clear of 999, 1999 and 4999 wherever a buyer may take one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from orderstream.money import major


class Article(NamedTuple):
    """One article. base: fen. stock: pieces before the peak. group: what part it plays in the scenario."""

    sku: str
    name: str
    english: str
    base: int
    colour: tuple[str, str] | None = None
    size: str | None = None
    group: str = "shelf"
    """hot · shelf (bought by anybody) · bundle · gift · floor (sold below base price, with a campaign's leave) · export
    (needs papers abroad) · scarce, short, dear, exact-998, exact-999, small (for one incident only)."""
    components: tuple[tuple[str, int], ...] = ()
    hs: str = "94036099"
    weight: int = 1200
    stock: int = 50_000
    place: str = "hangzhou"

    def code(self, channel: str) -> str:
        """What a channel calls it: four ways for one thing."""
        number = 100 + int(self.sku.removeprefix("SKU"))
        return {
            "taobao": f"tb-9{number}",
            "jd": f"1000{number}21",
            "douyin": f"dy{number}88",
            "wechat": f"wx-{number}",
            "youzan": f"yz{number}",
            "shopify": f"HOME-{number}",
            "api": f"mini-{number}",
        }[channel]


_WOOD, _WALNUT = ("原木色", "#C8A26B"), ("胡桃木色", "#5C4033")
_WHITE, _GREY, _BLACK, _GREEN = ("米白色", "#F5F0E6"), ("深灰色", "#4A4A4A"), ("黑色", "#111111"), ("橄榄绿", "#6B7A3A")

RACK_WOOD, RACK_WALNUT, BUNDLE, CLOTH_GIFT, FLOOR = "SKU1", "SKU2", "SKU31", "SKU33", "SKU35"
EXPORT, SNEAKER, SHORT, DESK, SMALL, EXACT_998, EXACT_999 = "SKU36", "SKU37", "SKU38", "SKU39", "SKU40", "SKU41", "SKU42"

ARTICLES: tuple[Article, ...] = (
    Article(RACK_WOOD, "多功能收纳架", "Storage rack", 19900, _WOOD, "三层", "hot", weight=4200),
    Article(RACK_WALNUT, "多功能收纳架", "Storage rack", 19900, _WALNUT, "三层", "hot", weight=4200),
    Article("SKU3", "桌面收纳盒", "Desk organiser", 5900, _WHITE, hs="39241000"),
    Article("SKU4", "桌面收纳盒", "Desk organiser", 5900, _GREY, hs="39241000"),
    Article("SKU5", "抽屉分隔板", "Drawer divider", 3900, _WHITE, hs="39249000"),
    Article("SKU6", "折叠洗衣篮", "Folding laundry basket", 6900, _GREY, hs="39249000"),
    Article("SKU7", "免打孔挂钩 6只装", "Hooks, pack of 6", 2900, _WHITE, hs="39269090"),
    Article("SKU8", "真空压缩袋", "Vacuum bags", 4500, None, "大号", hs="39232900"),
    Article("SKU9", "鞋架 五层", "Shoe rack, 5 tiers", 12900, _BLACK),
    Article("SKU10", "衣帽架", "Coat stand", 16900, _WOOD),
    Article("SKU11", "床头柜", "Bedside table", 28900, _WOOD, hs="94035099"),
    Article("SKU12", "床头柜", "Bedside table", 28900, _WALNUT, hs="94035099"),
    Article("SKU13", "厨房置物架", "Kitchen shelf", 15900, _BLACK),
    Article("SKU14", "调味罐套装", "Spice jars", 7900, None, "四件", hs="70134900"),
    Article("SKU15", "密封储物罐", "Storage jar", 4900, None, "1.5L", hs="39241000"),
    Article("SKU16", "保温饭盒", "Lunch box", 11900, _GREEN, hs="73239300"),
    Article("SKU17", "陶瓷餐具套装", "Tableware set", 25900, _WHITE, "十六件", hs="69111019"),
    Article("SKU18", "硅藻泥地垫", "Bath mat", 8900, _GREY, hs="68109990"),
    Article("SKU19", "浴室置物架", "Bathroom shelf", 13900, _WHITE),
    Article("SKU20", "毛巾三件套", "Towels, set of 3", 9900, _WHITE, hs="63026010"),
    Article("SKU21", "四件套床品", "Bed linen set", 39900, _GREY, "1.8m", hs="63023191"),
    Article("SKU22", "记忆棉枕", "Memory foam pillow", 18900, None, hs="94049000"),
    Article("SKU23", "香薰灯", "Aroma lamp", 10900, _WOOD, hs="85437099"),
    Article("SKU24", "落地灯", "Floor lamp", 32900, _BLACK, hs="94052900"),
    Article("SKU25", "遮光窗帘", "Blackout curtain", 22900, _GREY, "2.7m", hs="63039200"),
    Article("SKU26", "懒人沙发", "Bean bag", 45900, _GREEN, hs="94016190"),
    Article("SKU27", "折叠椅", "Folding chair", 17900, _BLACK, hs="94017900"),
    Article("SKU28", "儿童书架", "Children's bookshelf", 24900, _WHITE),
    Article("SKU29", "猫爬架", "Cat tree", 34900, _WOOD),
    Article("SKU30", "植物花架", "Plant stand", 14900, _BLACK),
    Article(BUNDLE, "收纳架大套装", "Rack bundle", 24500, _WOOD, None, "bundle", ((RACK_WOOD, 1), ("SKU7", 2)), weight=5000),
    Article("SKU32", "书桌整理套装", "Desk bundle", 14500, _WHITE, None, "bundle", (("SKU3", 2), ("SKU5", 1)), hs="39241000"),
    Article(CLOTH_GIFT, "超细纤维抹布（赠品）", "Cleaning cloth (gift)", 1500, None, None, "gift", hs="63071000", weight=80),
    Article("SKU34", "香薰片（赠品）", "Scent tablet (gift)", 1900, None, None, "gift", hs="33074900", weight=40),
    Article(FLOOR, "直播专享毛毯", "Live-stream blanket", 29900, _WHITE, None, "floor", hs="63014000"),
    Article(EXPORT, "实木餐边柜（出口）", "Solid wood sideboard", 68000, _WALNUT, None, "export", hs="94036010", place="ningbo"),
    Article(SNEAKER, "限量跑鞋", "Limited running shoe", 46900, _BLACK, "42", "scarce", hs="64041100", stock=2),
    Article(SHORT, "手工陶瓷花瓶", "Hand-made vase", 35900, _WHITE, None, "short", hs="69139000", stock=5),
    Article(DESK, "升降书桌", "Standing desk", 148000, _WOOD, None, "dear", hs="94033000", weight=28000),
    Article(SMALL, "收纳标签贴", "Label stickers", 990, None, None, "small", hs="48211000", weight=20),
    Article(EXACT_998, "空气循环扇", "Air circulator", 99800, _WHITE, None, "exact-998", hs="84145990"),
    Article(EXACT_999, "智能台灯礼盒", "Smart lamp box", 99900, _WHITE, None, "exact-999", hs="94052100"),
)
"""42 articles; the two racks are the peak's 68 %."""

LIVE_WRONG_CODE = "live-rack-b"
"""The live shop's code that somebody mapped to the walnut rack, while its page sells the natural one."""


def by_sku() -> dict[str, Article]:
    """Every article by SKU."""
    return {article.sku: article for article in ARTICLES}


def catalogue() -> list[dict[str, Any]]:
    """The lines of the catalogue file."""
    lines: list[dict[str, Any]] = []
    for article in ARTICLES:
        line: dict[str, Any] = {
            "sku": article.sku,
            "name": article.name,
            "base_price": major(article.base, "CNY"),
            "currency": "CNY",
            "image": f"https://images.example.com/{article.sku.lower()}.jpg",
            "hs_code": article.hs,
            "weight_g": article.weight,
            "codes": [
                {"channel": channel, "shop": "main", "code": article.code(channel)}
                for channel in ("taobao", "jd", "douyin", "wechat", "youzan")
            ],
            "place": article.place,
        }
        # the mini-program and the site have one catalogue for all their shops: no shop named
        line["codes"] += [{"channel": channel, "code": article.code(channel)} for channel in ("api", "shopify")]
        if article.sku == RACK_WALNUT:
            line["codes"].append({"channel": "api", "shop": "live", "code": LIVE_WRONG_CODE})
        if article.colour is not None:
            line["colour"] = {"name": article.colour[0], "hex": article.colour[1]}
        if article.size is not None:
            line["spec"] = {"尺寸": article.size}
        if article.components:
            line["components"] = [{"sku": sku, "quantity": quantity} for sku, quantity in article.components]
        if article.sku == CLOTH_GIFT:
            line["gift"] = {"with_any": [RACK_WOOD, RACK_WALNUT], "min_total": "199.00"}
        elif article.group == "gift":
            line["gift"] = {"with_any": ["SKU23", "SKU24"], "min_total": "100.00"}
        if article.group == "export":
            line["customs"] = {"required": ["declaration"]}
        lines.append(line)
    return lines
