"""The reference job's oracle against the definitions, read order by order; and the input that it judges."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.reference import oracle, orders

CATALOGUE = {"a": "sku-a", "b": "sku-b", "a2": "sku-a"}
RULES = {
    "address-sum", "duplicate-device", "duplicate-user", "gift", "ip-burst", "payment-shared", "price", "sku-rush", "unknown-sku",
    "user-burst",
}  # fmt: skip


@st.composite
def days(draw: st.DrawFn) -> list[dict]:
    """Few entities and steps that lie on the windows' edges, so that something is shared all the time."""
    made = []
    for number in range(draw(st.integers(1, 30))):
        line = st.fixed_dictionaries(
            {
                "code": st.sampled_from(["a", "a2", "b", "c"]),
                "qty": st.sampled_from([1, 200, 400]),
                "price": st.sampled_from([84, 85, 250_000]),
                "list_price": st.just(100),
                "gift": st.booleans(),
            }
        )
        who = st.sampled_from("xyz")
        made.append(
            {
                "order_id": f"o-{number}",
                **{kind: draw(who) for kind in ("user", "device", "ip", "payment", "address")},
                "created_at": draw(st.sampled_from([0.0, 29.999, 30.0, 59.999, 60.0, 299.999, 300.0, 600.0, 86_400.0])),
                "lines": draw(st.lists(line, min_size=1, max_size=3)),
            }
        )
    return made


def by_definition(order: dict, day: list[dict]) -> tuple[str, ...]:
    """The job's words, each taken literally."""

    def at(o: dict) -> int:
        return round(o["created_at"] * 1000)

    def skus(o: dict) -> set[str]:
        return {CATALOGUE[n["code"]] for n in o["lines"] if n["code"] in CATALOGUE}

    def total(o: dict) -> int:
        return sum(n["qty"] * n["price"] for n in o["lines"])

    def units(o: dict, sku: str) -> int:
        return sum(n["qty"] for n in o["lines"] if CATALOGUE.get(n["code"]) == sku)

    def of(kind: str, seconds: int) -> list[dict]:
        return [o for o in during(seconds) if o[kind] == order[kind]]

    def during(seconds: int) -> list[dict]:
        return [o for o in day if at(order) - seconds * 1000 < at(o) <= at(order)]

    def sharing(kind: str, seconds: int) -> int:
        return sum(bool(skus(o) & skus(order)) for o in of(kind, seconds))

    found = {
        "unknown-sku": any(n["code"] not in CATALOGUE for n in order["lines"]),
        "price": any(not n["gift"] and n["price"] / n["list_price"] < 0.85 for n in order["lines"]),
        "gift": all(n["gift"] for n in order["lines"]),
        "duplicate-user": sharing("user", 300) >= 2,
        "duplicate-device": sharing("device", 300) >= 2,
        "user-burst": sharing("user", 600) >= 5,
        "address-sum": sum(map(total, of("address", 86_400))) > 500_000,
        "ip-burst": len(of("ip", 30)) >= 10,
        "payment-shared": len({o["user"] for o in of("payment", 86_400)}) >= 3,
        "sku-rush": any(sum(units(o, sku) for o in during(60)) >= 400 for sku in skus(order)),
    }
    return tuple(sorted(rule for rule, fires in found.items() if fires))


@settings(deadline=None, max_examples=60)
@given(days())
def test_the_oracle_says_what_the_job_s_words_say(day):
    """Sums, edges of windows and what is shared, against one order at a time; the verdict follows from the rules alone."""
    said = oracle.answers([orjson.dumps(order) for order in day], CATALOGUE)
    hard = {"address-sum", "ip-burst", "payment-shared"}
    for order in day:
        rules = by_definition(order, day)
        verdict = "released" if not rules else "frozen" if set(rules) & hard and len(rules) > 1 else "review"
        assert said[order["order_id"]] == (verdict, rules)


def test_the_input_meets_every_rule_and_is_mostly_ordinary():
    """Every rule fires, most orders are released, and the hot SKU is in the share that was asked for."""
    made = list(orders.make(12_000))
    said = oracle.answers(made, orders.catalogue())
    assert {rule for _, rules in said.values() for rule in rules} == RULES
    assert sum(verdict == "released" for verdict, _ in said.values()) > 0.6 * len(made)
    for share in (0.3, 0.7):
        codes = {code for code, sku in orders.catalogue().items() if sku == f"sku-{orders.HOT:04d}"}
        having = sum(any(n["code"] in codes for n in orjson.loads(o)["lines"]) for o in orders.make(4_000, hot=share))
        assert abs(having / 4_000 - share) < 0.05


def test_the_input_is_a_function_of_its_arguments():
    """The same bytes again, another seed other ones; ids in the order of arrival, which is not that of the event times."""
    made = list(orders.make(2_000))
    assert made == list(orders.make(2_000))
    assert made != list(orders.make(2_000, seed=8))
    assert [o[13:22] for o in made] == [b"o-%07d" % n for n in range(1, 2_001)]
    at = [orjson.loads(o)["created_at"] for o in made]
    assert at != sorted(at)
