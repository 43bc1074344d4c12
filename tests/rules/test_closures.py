"""Closures against the library: what one decides, the other says too, to the type; on generated and on real expressions."""

from __future__ import annotations

from typing import Any

import cel
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orderstream.catalogue import Catalogue, read_article
from orderstream.channels import registry
from orderstream.identity import Keys
from orderstream.orders import Order, Raw
from orderstream.reading import Reading
from orderstream.rules.closures import Undecided, closure
from orderstream.rules.pack import CEL_ERRORS, Pack, load
from orderstream.settings import data_file
from orderstream.simulators import scenario
from orderstream.times import parse

NOTHING = object()
"""What neither gives."""


def told(source: str, env: dict[str, Any]) -> Any:
    """What the closure gives; NOTHING where it leaves that to the library, or there is none."""
    run = closure(source)
    try:
        return NOTHING if run is None else run(env)
    except Undecided:
        return NOTHING


def said(source: str, env: dict[str, Any]) -> Any:
    """What the library gives; NOTHING where it raises."""
    try:
        return cel.compile(source).execute(cel.Context(env))
    except CEL_ERRORS:
        return NOTHING


def alike(a: Any, b: Any) -> bool:
    """Equal, and of one type all the way down; the library's maps have no order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(a == b) and repr(a) == repr(b)


NUMBERS = st.integers(-3, 3) | st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, -(2**63)])
VALUES = st.one_of(
    st.booleans(),
    NUMBERS,
    st.sampled_from([0.0, -0.0, 1.0, 0.1, -2.5, 1e300]),
    st.sampled_from(["", "a", "ab", "CNY", "颜色"]),
    st.none(),
)
ENV = st.fixed_dictionaries(
    {"n": NUMBERS, "s": st.sampled_from(["", "a", "CNY"]), "b": st.booleans(), "x": VALUES},
    optional={
        "o": st.dictionaries(st.sampled_from(["p", "q", "l"]), VALUES | st.lists(VALUES, max_size=3), max_size=3),
        "l": st.lists(VALUES, max_size=3) | st.lists(NUMBERS, max_size=3) | st.lists(st.booleans(), max_size=3),
    },
)
ATOMS = st.sampled_from([
    "n", "s", "b", "x", "o", "l", "o.p", "o.q", "o.l", "i", "0", "1", "2", "-1", "9223372036854775807", "1.5", "0.0", "''", '"a"',
    "'CNY'", "true", "false", "null", "has(o.p)", "has(o.q)", "size(l)", "size(s)", "l.size()", "[1, 2]", "r'a'", "1u",
])  # fmt: skip


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
        st.tuples(inner, binary, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        inner.map(lambda e: f"!({e})"),
        inner.map(lambda e: f"-({e})"),
        st.tuples(st.sampled_from(["double", "int", "string", "size"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]})[{t[1]}]"),
        st.tuples(st.sampled_from(["l", "o.l", "[1, 2]"]), st.sampled_from(["exists", "all", "filter", "map"]), inner).map(
            lambda t: f"{t[0]}.{t[1]}(i, {t[2]})"
        ),
        st.tuples(inner, st.sampled_from(["startsWith", "endsWith", "contains"]), inner).map(
            lambda t: f"({t[0]}).{t[1]}({t[2]})"
        ),
    )


SOURCES = st.recursive(ATOMS, grown, max_leaves=6)


@settings(max_examples=3000, deadline=None)
@given(source=SOURCES, env=ENV)
def test_what_a_closure_decides_the_library_says(source: str, env: dict[str, Any]) -> None:
    """Whatever the expression and the values: the same, to the type, or left to the library."""
    try:
        cel.compile(source)
    except CEL_ERRORS:
        assume(False)
    ours = told(source, env)
    if ours is not NOTHING:
        assert alike(ours, said(source, env)), (source, env)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("size(o.l) > 0", True),
        ("o.l.exists(i, i == 2)", True),
        ("o.l.filter(i, i > 1)", [2, 3]),
        ("has(o.p) && !has(o.q)", True),
        ("o.p * 100 < 85 * n || s == 'CNY'", True),
        ("b ? string(n) : s", "7"),
        ("double(n) * 1.5", 10.5),
        ("'a' in o.t", True),
        ("-n", -7),
        ("o.l.map(i, i + 1)[0]", 2),
    ],
)
def test_what_rules_ask_is_decided(source: str, value: Any) -> None:
    """The forms that rules are made of are not left to the library."""
    env = {"o": {"l": [1, 2, 3], "p": 5, "t": ["a", "b"]}, "n": 7, "s": "CNY", "b": True}
    assert alike(told(source, env), value)
    assert alike(said(source, env), value)


@pytest.mark.parametrize(
    ("source", "env"),
    [
        ("o.p > 1", {"o": {}}),
        ("n == s", {"n": 1, "s": "1"}),
        ("n + 1 > n", {"n": 2**63 - 1}),
        ("n / 2", {"n": -3}),
        ("n / 0", {"n": 3}),
        ("b || n", {"b": False, "n": 1}),
        ("l[3]", {"l": [1]}),
        ("n < 1.5", {"n": 1}),
        ("s.matches('a.*')", {"s": "ab"}),
        ("s == 'a\\n'", {"s": "a"}),
        ("l == [1]", {"l": [1]}),
    ],
)
def test_what_is_unlike_is_the_library_s(source: str, env: dict[str, Any]) -> None:
    """Absent, of two types, past 64 bits, rounded otherwise, or not covered."""
    assert told(source, env) is NOTHING


@pytest.fixture(scope="module")
def peak() -> scenario.Scenario:
    return scenario.make(600, rate=50, start=parse("2026-11-11T00:00:00+08:00"))


def readings(peak: scenario.Scenario, pack: Pack) -> list[Reading]:
    goods = Catalogue(read_article(orjson.dumps(article)) for article in peak.catalogue)
    out: list[Reading] = []
    for one in peak.deliveries:
        at = peak.start + one.at
        headers = {} if one.topic is None else {"x-shopify-topic": one.topic}
        order = registry()[one.channel].parse(Raw(one.channel, one.shop, at, one.body, headers))
        if isinstance(order, Order):
            out.append(Reading(order, pack, at, at, goods, Keys(b"k")))
    return out


@pytest.mark.parametrize("name", ["standard"])
def test_every_rule_on_real_orders(name: str, peak: scenario.Scenario) -> None:
    """All expressions on orders, of the shipped pack, on a peak with all incidents; hardly any is left to the library."""
    pack = load(data_file(f"rules/{name}"))
    asked = decided = 0
    for reading in readings(peak, pack):
        values = reading.context()
        for judge in (*pack.own, *pack.filtered):
            for part, program in judge.programs.items():
                if part in ("profile", "value", "limit", "detail") and judge.kinds:
                    continue  # they read what an entity knows
                try:
                    theirs = program.execute(values.context())
                except CEL_ERRORS:
                    theirs = NOTHING
                run = judge.closures.get(part)
                try:
                    ours = NOTHING if run is None else run(values.env)
                except Undecided:
                    ours = NOTHING
                asked += 1
                if ours is not NOTHING:
                    decided += 1
                    assert alike(ours, theirs), (judge.id, part, values.env)
    assert decided > 0.9 * asked > 5000
