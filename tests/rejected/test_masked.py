"""What is shown of a reject's bytes: their shape, nobody's data, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from orderstream.rejected import masked
from tests.channels.api_cases import FULL

PERSONAL = [
    "13800138000", "+86 138 0013 8000", "张三丰", "Li Lei", "li.lei@example.com", "文三路1号 2 单元", "u-20417", "203.0.113.7",
]  # fmt: skip


def test_a_good_order_shows_its_shape_and_nobody() -> None:
    """Every name of a field can be read, amounts and times too; no value that says who somebody is."""
    text = json.dumps(FULL, ensure_ascii=False, indent=1)
    shown = masked.body(text.encode())

    assert [p for p in re.findall(r'"([a-z_]+)":', text) if f'"{p}":' not in shown] == []
    assert f'"created_at": "{FULL["created_at"]}"' in shown
    assert f'"price": "{FULL["lines"][0]["price"]}"' in shown
    buyer, to = FULL["buyer"], FULL["ship_to"]
    hidden = [str(v) for v in (*buyer.values(), *to.values(), FULL["payment"]["id"]) if len(str(v)) > 2]
    assert [v for v in hidden if f'"{v}"' in shown] == []


@given(
    st.sampled_from(PERSONAL),
    st.text(max_size=20),
    st.text(max_size=20),
    st.sampled_from(["{0}{1}{2}", '{{"order_id": "{0}{1}{2}"}}', '{{"price": {1}}}', '{0}"total":"{1}"{2}', '"{1}" : "{2}']),
)
def test_nothing_personal_survives_however_broken_it_is(secret: str, before: str, after: str, frame: str) -> None:
    """Whatever stands around it, also under a key that shows its value, a phone number, name, address or e-mail is hidden."""
    shown = masked.body(frame.format(before, secret, after).encode("utf-8", "surrogatepass"))

    if secret not in ("u-20417", "203.0.113.7"):  # one ascii word may be an order's number, and is shown as one
        assert secret not in shown


@given(st.binary(max_size=200))
def test_no_bytes_reach_the_terminal_as_controls(data: bytes) -> None:
    """Neither masked nor whole does a body move the cursor; whole hex says every byte."""
    for whole in (False, True):
        shown = masked.body(data, whole=whole)
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
    try:
        data.decode()
    except UnicodeDecodeError:
        rows = [line[10:57] for line in masked.body(data, whole=True).splitlines()]
        assert bytes.fromhex(" ".join(rows)) == data
        assert data.hex(" ", 1)[24:] == "" or data.hex(" ")[:48] not in masked.body(data)


def test_a_reason_keeps_its_words() -> None:
    """A field as a stranger spelled it is shown without what could be somebody's number or address."""
    assert masked.sentence("lines[0].price 不是有效金额 · no amount") == "lines[0].price 不是有效金额 · no amount"
    assert masked.sentence("字段 138-0013-8000 出现两次") == "字段 *** 出现两次"
    assert masked.sentence("the key a@b.cn is given twice") == "the key *** is given twice"
