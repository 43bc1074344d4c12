"""What outcomes teach the rules: returns and usual places by entity, and rules that rest; as of a time, in any order."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from histories import GOODS, HOME, KEYS, STANDARD, ZONE, Record, T, among, run, text
from hops import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_moving import order

from orderstream.facts import Came, Snooze, batch
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import Pack, PackError
from orderstream.times import DAY, HOUR, SECOND
from orderstream.windows import Entity

RETURNS = msgspec.structs.replace(
    STANDARD.rules["unusual-address"], id="returns", measure=None, within=None, needs=("history",),
    profile="history.orders >= 3 && 2 * history.returned >= history.orders", value="history.returned", limit="history.orders",
)  # fmt: skip
"""Half of at least three orders came back."""
PACK = Pack(STANDARD.policy, {**STANDARD.rules, "returns": RETURNS})
BOOK = PackBook([PACK])
AWAY = {"province": "北京市", "city": "北京市", "district": "海淀区", "detail": "中关村大街1号", "postcode": "100080"}

quick = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def line() -> Pipeline:
    return Pipeline(GOODS, BOOK, KEYS, ZONE)


def bought(n: int, at: int, to: Record = HOME, user: str = "u1") -> Record:
    return order(str(n), at, buyer={"id": user}, ship_to=to)


def came(n: int, said: str, at: int, **more: Any) -> Record:
    return {"kind": "outcome", "order_id": f"api:main:{n}", "outcome": said, "at": text(at), **more}


def snooze(rule: str, at: int, until: int, entity: str = "user", key: str = "u1") -> Record:
    return {"kind": "snooze", "entity": entity, "key": key, "rules": [rule], "at": text(at), "until": text(until), "by": "li"}


def found(records: list[Record]) -> dict[str, dict[str, Any]]:
    """Order number -> the last verdict."""
    pipeline, out = line(), {}
    for record in records:
        for told in pipeline.feed(read_item(record, KEYS, "CNY")):
            if told.topic == "orders.verdicts" and told.value is not None:
                out[told.order.rsplit(":", 1)[1]] = json.loads(msgspec.json.encode(told.value))
    return out


def fired(records: list[Record], n: int) -> set[str]:
    return {signal["rule"] for signal in found(records)[str(n)]["signals"]}


# -- usual places and returns -----------------------------------------------------------------------------------------------

HABIT = [bought(n, T + n * DAY) for n in (1, 2, 3)]


def test_where_a_fraud_went_is_no_usual_place() -> None:
    """One order went far away. Said to be a fraud, it lends its address to nobody; taken back, or said too late, it does."""
    far = [*HABIT, bought(4, T + 4 * DAY, AWAY), bought(5, T + 6 * DAY, AWAY)]
    fraud = came(4, "chargeback", T + 5 * DAY, id="f")
    back = came(4, "undone", T + 5 * DAY + HOUR, undoes="f")

    assert "unusual-address" not in fired(far, 5)
    assert "unusual-address" in fired([*far, fraud], 5)
    assert "unusual-address" not in fired([*far, back, fraud], 5)
    assert "unusual-address" not in fired([*far, came(4, "chargeback", T + 7 * DAY)], 5)


def test_returns_count_from_when_they_are_known() -> None:
    """Of three orders two came back, one of them after the fourth was placed: that one does not count."""
    four = [*HABIT, bought(4, T + 5 * DAY)]
    early, late = came(1, "returned", T + 4 * DAY), came(2, "returned", T + 4 * DAY + HOUR)

    assert "returns" not in fired([*four, early], 4)
    verdict = found([*four, early, late, early])["4"]
    (signal,) = [s for s in verdict["signals"] if s["rule"] == "returns"]
    assert (signal["evidence"]["value"], signal["evidence"]["limit"]) == (2, 3)
    assert "returns" not in fired([*four, early, came(2, "returned", T + 5 * DAY + SECOND)], 4)


def test_history_is_of_a_profile() -> None:
    """A rule that measures a window of its own and reads history has two windows: it is refused."""
    rule = msgspec.structs.replace(STANDARD.rules["unusual-address"], needs=("history",))

    with pytest.raises(PackError, match="history"):
        Pack(STANDARD.policy, {rule.id: rule})


# -- rules that rest --------------------------------------------------------------------------------------------------------

PAIR = [bought(1, T), bought(2, T + SECOND)]


@pytest.mark.parametrize(
    ("at", "until", "rests"),
    [(T, T + DAY, True), (T + 2 * SECOND, T + DAY, False), (T, T + SECOND, False), (T, T + SECOND + 1, True)],
)
def test_a_rule_rests_for_an_entity_until_a_date(at: int, until: int, rests: bool) -> None:
    """What it finds of an order within that time stands in the tags and counts for nothing."""
    verdict = found([*PAIR, snooze("duplicate-order", at, until)])["2"]

    tags = [(tag["tag"], tag["rule"], tag["evidence"]["orders"]) for tag in verdict["tags"] if "rule" in tag]
    assert tags == ([("snoozed", "duplicate-order", ["api:main:1"])] if rests else [])
    assert verdict["verdict"] == ("released" if rests else "review")


def test_a_rule_rests_for_that_entity_only() -> None:
    """The device that the same order shares finds it still; a rule on the order itself rests for the buyer."""
    shared = [order(str(n), T + n, buyer={"id": "u1", "device": "d1"}) for n in (1, 2)]
    unknown = order("3", T, buyer={"id": "u1"}, lines=[{"code": "nobody's", "quantity": 1, "price": "9.00"}])

    assert "duplicate-order" in fired([*shared, snooze("duplicate-order", T, T + DAY)], 2)
    both = [snooze("duplicate-order", T, T + DAY, "device", "d1"), snooze("duplicate-order", T, T + DAY)]
    assert "duplicate-order" not in fired([*shared, *both], 2)
    assert "unknown-article" in fired([unknown], 3)
    verdict = found([unknown, snooze("unknown-article", T, T + DAY)])["3"]
    assert (verdict["verdict"], [tag["tag"] for tag in verdict["tags"]]) == ("released", ["snoozed"])


def test_a_snooze_ends() -> None:
    """One without an end is refused: a rule that is off for ever is the on-call's to switch off."""
    with pytest.raises(ValueError, match="until"):
        read_item({k: v for k, v in snooze("ip-pair", T, T).items() if k != "until"}, KEYS, "CNY")


# -- in any order -----------------------------------------------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn) -> list[Record]:
    """Two buyers' orders of a few days to two places, what came of them, and rules that rest."""
    out = [
        bought(n, T + draw(among(0, 0, 1, 2, 3, 4, 5)) * DAY + draw(among(0, 1, SECOND)), draw(st.sampled_from((HOME, HOME, AWAY))),
               draw(among("u1", "u1", "u2")))
        for n in range(1, draw(st.integers(4, 9)))
    ]  # fmt: skip
    for n in range(draw(st.integers(0, 6))):
        at = T + draw(among(0, 1, 2, 3, 4)) * DAY + draw(among(0, 1))
        said = draw(among("returned", "chargeback", "confirmed-fraud", "complaint"))
        out.append(came(draw(st.integers(1, 8)), said, at, id=f"o{n}"))
        if draw(among(False, False, True)):
            out.append(came(int(out[-1]["order_id"][9:]), "undone", at + draw(among(0, DAY)), id=f"u{n}", undoes=f"o{n}"))
    for _ in range(draw(st.integers(0, 3))):
        at = T + draw(among(0, 1, 2)) * DAY
        rule = draw(among("duplicate-order", "unusual-address", "returns", "missing-info"))
        out.append(snooze(rule, at, at + draw(among(1, DAY, 3 * DAY)), key=draw(among("u1", "u2"))))
        if draw(among(False, False, True)):
            out.append({**out[-1], "until": text(at + draw(among(0, 1, HOUR)))})
    return out


@quick
@given(lives(), st.data())
def test_what_is_learnt_in_any_order_and_often(life: list[Record], data: Any) -> None:
    """Whatever comes first, the order, its outcome or the rest, the verdicts are the same bytes; said again changes nothing."""
    again = data.draw(st.permutations(life)) + data.draw(st.lists(st.sampled_from(life), max_size=5))

    assert run(again, line) == run(life, line)


@settings(quick, max_examples=50)
@given(lives(), st.integers(1, 3), st.integers(0, 2**32), st.integers(0, 5))
def test_what_is_learnt_survives(life: list[Record], partitions: int, seed: int, deaths: int) -> None:
    """Over partitions and deaths, from route to the entities and back, end the verdicts of the backtest."""
    world = World(life, partitions, seed, BOOK)

    world.run(deaths)

    assert world.lines() == run(life, line)


@pytest.mark.parametrize("kind", ["trust", "snooze"])
def test_what_is_ended_early_holds_for_no_order_after_it(kind: str) -> None:
    """It holds for those it held for; orders since the end are judged again; once ended it stays so, whatever is read again."""
    two = [bought(n, T + at) for n, at in ((1, 0), (2, SECOND), (3, HOUR), (4, HOUR + SECOND))]
    entry = {**snooze("duplicate-order", T, T + DAY), "kind": kind}
    end = {**entry, "until": text(T + HOUR), "by": "wang", "why": "abused"}

    assert [n for n in (2, 4) if "duplicate-order" in fired(two, n)] == [2, 4]
    assert [n for n in (2, 4) if "duplicate-order" in fired([entry, *two], n)] == []
    for told in ([entry, *two, end], [end, *two, entry], [entry, end, entry, *two]):
        assert [n for n in (2, 4) if "duplicate-order" in fired(told, n)] == [4]


def test_it_is_forgotten() -> None:
    """What came of an order is kept as long as a rule may ask for it, and a snooze until its end."""
    entity = Entity("user:x", ZONE)
    for update in (
        Came("user:x", T, "a", "returned"),
        Came("user:x", T + DAY, "b", "returned"),
        Snooze("user:x", T, T + DAY, ("r",)),
    ):
        entity.learn(update, BOOK.pack)
    entity.expire(T + DAY)

    assert (entity.rare.came, entity.rare.snoozes, entity.empty) == ([Came("user:x", T + DAY, "b", "returned")], [], False)
    entity.expire(T + 2 * DAY)
    assert entity.empty


def test_a_lesson_moves_nobody_s_clock() -> None:
    """What route tells entities is of no normaliser: nothing is forgotten because of it."""
    from orderstream.detect import Detector
    from orderstream.facts import NO_SOURCE

    detector = Detector(BOOK.pack, ZONE)
    detector.process(batch(NO_SOURCE, T + 9999 * DAY, {"user:x": [Came("user:x", T, "a", "returned")]}))

    assert detector._progress == {}
