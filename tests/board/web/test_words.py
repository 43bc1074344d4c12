"""What the pages say and how: both languages whole, contrasts, assets, masking."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from orderstream.board import decide, fold
from orderstream.board.web import language, masked, words
from orderstream.board.web.roles import RIGHTS, ROLES, rights, sight

WEB = Path(language.__file__).parent
STATIC = WEB / "static"
HAN = re.compile(r"[一-龥]")
SAME = {"IP", "Shopify"}
"""What is called the same in Chinese, or as good as."""


def texts() -> set[str | tuple[str, ...]]:
    """Every text of ours: in templates and in code."""
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    options = {"templates/**.html": {"newstyle_gettext": "true"}}
    found = extract_from_dir(str(WEB), methods, options, keywords={"_": None, "gettext": None, "ngettext": (1, 2), "N_": None})
    return {message for _, _, message, _, _ in found}


def test_both_languages_are_whole():
    """Each text has its Chinese with the same places for values, and none is left over; each is English by itself."""
    with (WEB / "locale/zh/board.po").open("rb") as file:
        chinese = {message.id: message for message in read_po(file) if message.id}
    ours = texts()
    assert len(ours) > 250
    assert set(chinese) == ours
    for text, message in chinese.items():
        said = message.string[0] if isinstance(message.string, tuple) else message.string
        english = text[0] if isinstance(text, tuple) else text
        assert said, english
        assert not message.fuzzy, english
        assert HAN.search(said) or english in SAME, english
        assert not HAN.search(english), english
        assert sorted(re.findall(r"%\(\w+\)[sd]", said)) == sorted(re.findall(r"%\(\w+\)[sd]", english)), english


def test_every_code_has_a_name():
    """Whatever a decision, a reason, a role or a state is called in code, a page can name it in both languages."""
    named: dict[str, set[str]] = {
        "decision": set(decide.REASONS),
        "reason": {reason for reasons in decide.REASONS.values() for reason in reasons} | {"deadline"},
        "role": set(ROLES),
        "method": set(decide.METHODS),
        "result": set(decide.RESULTS),
        "state": {*decide.STATES.values(), "waiting", "closed"},
    }
    for kind, codes in named.items():
        assert codes <= set(words.TERMS[kind]), kind
    assert set(words.TERMS["state"]) >= fold.OPEN


def test_no_role_has_all_rights_and_each_right_has_a_role():
    """Nobody decides, approves and makes accounts; an unknown role gives nothing and sees nothing."""
    assert set(RIGHTS) == rights(ROLES)
    assert not any(rights([role]) == set(RIGHTS) for role in ROLES)
    assert not {"decide", "approve"} & rights(["admin"])
    assert rights(["ghost"]) == frozenset()
    assert sight(["ghost"]) == "none"


def test_the_assets_are_small_and_ours():
    """Under 100 KB in all, nothing from elsewhere, the licences beside what we did not write."""
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir()}
    assert sum(sizes.values()) < 100_000
    assert {"htmx.min.js", "idiomorph-ext.min.js", "LICENSES.txt"} <= set(sizes)
    for path in [*STATIC.glob("board.*"), *(WEB / "templates").glob("*.html")]:
        assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", path.read_text("utf-8")), path.name
    for path in (WEB / "templates").glob("*.html"):
        # the policy of our headers would stop it
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", path.read_text("utf-8")), path.name


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_colours_can_be_read(scheme: int):
    """WCAG AA: 4.5 for text, 3 for borders that say what is a field, in both schemes."""
    css = (STATIC / "board.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    text = [(ink, ground) for ink in ("ink", "soft", "link", "bad", "good", "medium") for ground in ("card", "ground")]
    text += [("on-act", "act"), ("ink", "mark"), ("soft", "mark"), ("soft", "shade"), ("card", "bad"), ("ground", "ink")]
    text += [("on-level", level) for level in ("high", "medium", "low", "none")]
    assert {
        pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2)
        for pair in text
        if contrast(*(colours[c] for c in pair)) < 4.5
    } == {}
    assert contrast(colours["edge"], colours["card"]) >= 3


DOCUMENT: dict[str, Any] = {
    "order_id": "api:main:A1",
    "buyer": {"id": "u-000124", "device": "d-000124", "ip": "101.162.164.162", "phone": "13910000124", "email": "someone@example.com"},
    "payment": {"id": "p-000124", "method": "alipay"},
    "ship_to": {
        "name": "赵桂英", "phone": "13910000124", "province": "山东省", "city": "青岛市", "district": "市南区",
        "detail": "和平街124号17幢150室", "postcode": "266001", "lat": 36.09145, "lon": 120.38743, "new_field": "赵桂英",
    },
    "keys": {"oaid": "secret-oaid"},
    "remark": "打 13910000124 或写 someone@example.com",
}  # fmt: skip
PERSONAL = (
    "000124",
    "101.162.164",
    "someone",
    "桂英",
    "13910000124",
    "124号",
    "150室",
    "266001",
    "36.09",
    "120.38",
    "secret-oaid",
)


@pytest.mark.parametrize("seen", ["part", "none"])
def test_masking_hides_what_is_personal(seen: Any):
    """In full nowhere, a field that nobody has listed included; the document itself stays as it was."""
    shown = str(masked.document(DOCUMENT, seen))
    assert [mark for mark in PERSONAL if mark in shown] == []
    assert "山东省" in shown
    assert DOCUMENT["ship_to"]["name"] == "赵桂英"
    part = masked.document(DOCUMENT, "part")
    assert part["ship_to"]["phone"] == "139****0124"
    assert part["ship_to"]["name"] == "赵**"
    none = masked.document(DOCUMENT, "none")
    assert none["ship_to"]["phone"] == none["ship_to"]["district"] == none["remark"] == masked.HIDDEN


@pytest.mark.parametrize(
    ("accepted", "kept", "spoken"),
    [("en-US,en;q=0.9", None, "en"), ("fr,zh;q=0.5", None, "zh"), ("fr", None, "zh"), (None, None, "zh"), ("en", "zh", "zh")],
)
def test_the_language_is_the_reader_s(accepted: str | None, kept: str | None, spoken: str):
    """What they chose, else what their browser asks for, else Chinese."""
    assert language.chosen(accepted, kept) == spoken
