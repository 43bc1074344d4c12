"""Labels and suggestions: only what somebody said, and nothing by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orderstream import replay, times
from orderstream.facts import Outcome, Trust
from orderstream.feedback.labels import labels
from orderstream.feedback.suggest import accepted, ended, entries, entry_name, snoozed, suggestions
from orderstream.identity import Keys
from orderstream.times import DAY, HOUR

T = 1_794_326_402_000
KEYS = Keys(b"k")


def verdict(n: int, *rules: str, seq: int = 1, by: str = "payment") -> dict[str, Any]:
    signals = [{"rule": rule, "level": "medium", "evidence": {"by": by, "orders": []}} for rule in rules]
    return {
        "order_id": f"api:main:{n}", "verdict_seq": seq, "verdict": "review", "level": "medium", "score": 40, "pack": "p@1",
        "signals": signals, "channel": "api", "shop": "main", "timings": {"decided_at": T},
    }  # fmt: skip


def document(n: int, **buyer: str) -> dict[str, Any]:
    to = {"province": "浙江省", "city": "杭州市", "district": "西湖区", "detail": "文三路1号"}
    given = {"id": f"u{n % 2}", **buyer}
    return {"order_id": f"api:main:{n}", "buyer": given, "payment": {"id": "pay-0001"}, "ship_to": to}


def said(n: int, *words: str) -> list[Outcome]:
    return [Outcome(f"api:main:{n}", T + i, word, "wang", f"{n}-{i}-{word}") for i, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ((), None), (("shipped",), None), (("released",), "good"), (("released", "chargeback"), "bad"), (("cancelled",), "bad"),
        (("cancelled", "released"), "good"), (("customer-confirmed",), "good"), (("returned",), None), (("chargeback", "released"), "bad"),
    ],
)  # fmt: skip
def test_a_label_is_what_somebody_said(words: tuple[str, ...], label: str | None) -> None:
    """A person's later word counts before an earlier one, a fraud before all; what nobody said is no label."""
    (one,) = labels([verdict(1, "oversold")], said(1, *words))

    assert (one.label, [s.outcome for s in one.outcomes]) == (label, list(words))


def test_rules_that_fired_at_any_time_are_told() -> None:
    """Also those that a later verdict no more has; repeats and any sequence change nothing; what was taken back is gone."""
    told = [verdict(1, "oversold", seq=2), verdict(1, "ip-pair", seq=1), verdict(1, "oversold", seq=2)]
    undone = Outcome("api:main:1", T + 9, "undone", "wang", "u", undoes="1-0-released")
    (one,) = labels(told, [*said(1, "released"), *said(1, "released"), undone])

    assert (one.rules, one.outcomes, one.label) == (["ip-pair", "oversold"], [], None)


def propose(*outcomes: Outcome, trusts: tuple[dict[str, Any], ...] = (), count: int = 3, by: str = "payment") -> list[Any]:
    orders = range(1, count + 1)
    verdicts = [verdict(n, "payment-shared", by=by) for n in orders]
    return suggestions(verdicts, [document(n) for n in orders], outcomes, trusts, KEYS, T)


def test_what_people_keep_clearing_is_suggested() -> None:
    """Three orders cleared of a shared payment account: the accounts among which it would be off, and an id that says nothing."""
    cleared = [one for n in (1, 2, 3) for one in said(n, "released")]
    (one,) = propose(*cleared)

    assert (one.rule, one.entity, one.key, one.among) == ("payment-shared", "payment", "pay-0001", ["u0", "u1"])
    assert (one.orders, one.by) == (["api:main:1", "api:main:2", "api:main:3"], ["wang"])
    assert "pay-0001" not in one.id + one.shown
    assert propose(*cleared[:2]) == []
    assert propose(*cleared, *said(2, "released", "chargeback")) == []
    assert propose(*said(1, "returned"), *cleared)[0].orders == one.orders


def test_what_is_trusted_is_not_suggested_again() -> None:
    """An accepted suggestion is a trust that the line reads; while it holds there is nothing to accept."""
    cleared = [one for n in (1, 2, 3) for one in said(n, "released")]
    (one,) = propose(*cleared)
    record = accepted(one, by="li", why="family", at=T, until=T + DAY)

    (trust,) = replay.updates(record, KEYS, "CNY")
    assert isinstance(trust, Trust)
    assert (trust.rules, trust.until) == (("payment-shared",), T + DAY)
    assert propose(*cleared, trusts=(record,)) == []
    over = accepted(one, by="li", why="family", at=T - DAY, until=T)
    assert len(propose(*cleared, trusts=(over,))) == 1
    # ended early it holds no more, whatever was said first and is said again
    end = ended(record, by="wang", why="abused", at=T)
    assert len(propose(*cleared, trusts=(end, record, end))) == 1


def test_an_end_is_of_one_entry() -> None:
    """The same record with its end, which the line takes for the same trust; one of another beginning, rule or kind stays."""
    one = {"kind": "trust", "entity": "payment", "key": "p1", "rules": ["a", "b"], "with": ["u2", "u3"], "by": "li", "why": "w"}
    entry = {**one, "at": times.text(T), "until": times.text(T + DAY)}
    end = ended(entry, by="wang", why="abused", at=T + HOUR)
    others = [
        one,
        {**entry, "at": times.text(T + 1)},
        {**entry, "rules": ["a"]},
        {**entry, "with": []},
        {**entry, "kind": "snooze"},
    ]

    assert (end["until"], end["by"], end["why"]) == (times.text(T + HOUR), "wang", "abused")
    (before,), (after,) = replay.updates(entry, KEYS, "CNY"), replay.updates(end, KEYS, "CNY")
    assert after == msgspec.structs.replace(before, until=T + HOUR)
    found = entries([end, *others, entry, {"kind": "trust"}, None])
    assert len(found) == 6
    assert [(e["until"], e["by"]) for e in found if entry_name(e) == entry_name(entry)] == [(times.text(T + HOUR), "li")]
    assert [e.get("until") for e in found if entry_name(e) == entry_name(one)] == [None]
    # of one that has not begun nothing is left, and of one without a beginning what was
    assert ended(entry, by="w", why="w", at=T - DAY)["until"] == entry["at"]
    assert ended(one, by="w", why="w", at=T)["until"] == times.text(T)


@pytest.mark.parametrize("kind", ["user", "device", "phone", "ip", "segment", "payment", "address"])
def test_every_kind_s_key_is_one_that_the_line_reads(kind: str) -> None:
    """What is suggested, accepted or left to rest names an entity that orders have."""
    buyer = {"id": "u1", "device": "d1", "phone": "13800000000", "ip": "203.0.113.7"}
    told = suggestions(
        [verdict(n, "a-rule", by=kind) for n in (1, 2, 3)], [document(n, **buyer) for n in (1, 2, 3)],
        [one for n in (1, 2, 3) for one in said(n, "false-alarm")], (), KEYS, T,
    )  # fmt: skip
    (one,) = told

    assert replay.updates(accepted(one, by="li", why="w", at=T, until=T + DAY), KEYS, "CNY")
    assert replay.updates(snoozed("a-rule", kind, one.key, by="li", why="w", at=T, until=T + DAY), KEYS, "CNY")
