"""Small parts: what is made once for many, limits, drawings, keys as they are shown."""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from orderstream.board.web import picture, whitelist
from orderstream.board.web.articles import shade
from orderstream.board.web.kept import Kept
from orderstream.board.web.language import span
from orderstream.board.web.limits import Limit
from orderstream.board.web.picture import Place
from orderstream.board.web.site import home


def test_many_who_ask_at_once_get_what_was_made_once():
    """Until something changed; and whoever was told of a change gets nothing that was made before it."""
    kept: Kept[int] = Kept()
    made: Counter[str] = Counter()

    def make() -> int:
        made["cards"] += 1
        time.sleep(0.05)
        return made["cards"]

    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(kept.get("all", 1, make))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1] * 20
    assert kept.get("all", 1, make) == 1
    assert kept.get("all", 2, make) == 2
    # somebody who asked before the change is not given something older
    assert kept.get("all", 1, make) == 2
    assert kept.get("high", 2, make) == 3


def test_what_fails_is_tried_again_by_the_next():
    """A database that was away for one is not away for all who come after."""
    kept: Kept[int] = Kept()

    def fail() -> int:
        raise OSError

    with pytest.raises(OSError):
        kept.get("all", 1, fail)
    assert kept.get("all", 1, lambda: 7) == 7


def test_a_limit_lets_a_burst_through_and_then_the_rate(monkeypatch: pytest.MonkeyPatch):
    """Of each asker for themselves."""
    now = 100.0
    monkeypatch.setattr("orderstream.board.web.limits.time.monotonic", lambda: now)
    limit = Limit(rate=0.5, burst=3)
    assert [limit.take("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.take("b")
    now += 2.0
    assert [limit.take("a") for _ in range(2)] == [True, False]


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", None, "/a\nb"])
def test_no_address_leads_away(path: str | None):
    """After signing in one goes on within the board."""
    assert home(path) == "/"


def test_a_map_is_whole_and_shows_no_place_outside():
    """Well-formed, with its title, a dot and a ring; of a place that is not on it there is none."""
    drawn = ET.fromstring(str(picture.land_map(Place(36.1, 120.4), [Place(23.1, 113.3), Place(51.5, -0.1)], "到 <哪里>")))
    names = Counter(one.get("class") for one in drawn.iter())
    assert (names["here"], names["usual"], names["way"]) == (1, 1, 1)
    assert drawn.find("title").text == "到 <哪里>"
    assert str(picture.land_map(Place(51.5, -0.1), [], "London")) == ""


def test_bars_leave_a_gap_where_nothing_is_known():
    """And the greatest is as tall as there is room."""
    drawn = ET.fromstring(str(picture.bars([("a", 1.0), ("b", None), ("c", 4.0)], "orders")))
    heights = [float(one.get("height")) for one in drawn.iter("rect")]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(heights[1] / 4, abs=0.1)


@pytest.mark.parametrize(
    ("entity", "key", "seen"),
    [
        ("user", "u-000124", "…0124"),
        ("phone", "13910000124", "139****0124"),
        ("segment", "203.0.113.0/24", "203.0.*.*"),
        ("address", "山东省青岛市和平街124号", "山东省***"),
        ("sku", "SKU1", "SKU1"),
    ],
)
def test_a_key_is_shown_masked(entity: str, key: str, seen: str):
    """Enough to tell two apart; an article is nobody."""
    assert whitelist.shown(entity, key) == seen


def test_times_and_shades_are_said():
    """As the pages' script says them; a colour that is none has no swatch."""
    assert span(7_500_000, "en") == "2 h 5 min"
    assert span(-90_000_000, "zh") == "1 天 1 小时"
    assert shade("胡桃木色") == "#5c4033"
    assert shade("如图") is None
