"""Most orders meet no other in any window: they are answered by one look and remembered as bytes. Nothing else may come of it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from histories import DAYS, LONG_DELAYS, STANDARD, ZONE, Record, T, histories, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderstream import detect, wire
from orderstream.detect import Detector
from orderstream.facts import Answer, Fact, batch
from orderstream.rules.book import PackBook
from orderstream.times import MINUTE, SECOND
from orderstream.windows import Entity

WITHIN = STANDARD.merge_within

quick = settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def fact(order: str, at: int, version: int = 1, **more: object) -> Fact:
    return Fact(order, version, at, at, STANDARD.version, user=f"user:{order}", **more)  # type: ignore[arg-type]


def told(detector: Detector, entity: str, one: Fact) -> dict[str, Answer]:
    """Order -> what the entity says of it now."""
    return {order: by[entity] for order, by in detector.process(batch(0, one.since, {entity: [one]})).items()}


def objects(detector: Detector) -> int:
    return len(detector.entities.objects())


@pytest.mark.parametrize("days", [False, True])
@quick
@given(st.data())
def test_passing_changes_no_verdict(days: bool, data: st.DataObject) -> None:
    """A detector that makes an object of every entity ends with the same bytes."""
    history: list[Record] = data.draw(histories(days=DAYS, delays=LONG_DELAYS) if days else histories())
    usual = run(history)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "_pass", lambda *_: None)
        patch.setattr(Entity, "_settle", lambda _: None)

        assert run(history) == usual


def test_what_passes_stays_bytes() -> None:
    """Orders an hour apart are no objects, up to so many of one entity; those ten seconds apart are, and both are found."""
    detector = Detector(PackBook([STANDARD]).pack, ZONE)
    for n in range(detect.FEW):
        assert told(detector, "ip:x", fact(f"a:{n}", T + n * 60 * MINUTE)) == {f"a:{n}": Answer(1, n)}
    assert (objects(detector), detector.entries) == (0, detect.FEW)

    assert "ip-pair" in told(detector, "ip:x", fact("a:near", T + 9 * SECOND))["a:near"].findings
    assert (objects(detector), detector.entries) == (1, detect.FEW + 1)


@pytest.mark.parametrize("gap", [10 * SECOND - 1, 10 * SECOND])
@pytest.mark.parametrize("first", [T, T + 40 * MINUTE])
@pytest.mark.parametrize("between", [0, 1, 30])
def test_a_window_s_edge(gap: int, first: int, between: int) -> None:
    """Ten seconds are a pair's window: one ms less is a pair, whichever comes first and whatever of the entity is bytes."""
    for pair in ([first, first + gap], [first + gap, first]):
        detector = Detector(PackBook([STANDARD]).pack, ZONE)
        for n in range(between):
            told(detector, "ip:x", fact(f"b:{n}", T + (n + 100) * MINUTE))
        found: dict[str, Answer] = {}
        for at in pair:
            found |= told(detector, "ip:x", fact(f"a:{at - first}", at))

        assert [order for order, answer in found.items() if answer.findings] == ([f"a:{gap}"] if gap < 10 * SECOND else [])


@pytest.mark.parametrize("others", [0, 30])
@pytest.mark.parametrize("gap", [WITHIN - 1, WITHIN])
def test_an_order_is_told_whom_it_could_leave_with(gap: int, others: int) -> None:
    """No rule asks a receiver's orders, but those within the pack's time are named."""
    detector = Detector(PackBook([STANDARD]).pack, ZONE)
    for n in range(others):
        told(detector, "receiver:x", fact(f"b:{n}", T + (n + 1000) * WITHIN))
    told(detector, "receiver:x", fact("a:1", T))

    assert told(detector, "receiver:x", fact("a:2", T + gap))["a:2"].merge == (("a:1",) if gap < WITHIN else ())


def test_a_newer_version_is_the_same_order() -> None:
    """An order that moves in time stands where it is now, once, also where its entity was bytes."""
    detector = Detector(PackBook([STANDARD]).pack, ZONE)
    for n in range(3):
        told(detector, "ip:x", fact(f"a:{n}", T + n * MINUTE))
    told(detector, "ip:x", fact("a:1", T + 60 * MINUTE, version=2))

    assert detector.entries == 3
    assert told(detector, "ip:x", fact("a:3", T + MINUTE)) == {"a:3": Answer(1, 4)}
    assert "ip-pair" in told(detector, "ip:x", fact("a:4", T + 60 * MINUTE + 1))["a:4"].findings


@given(st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=60)), max_size=80), st.sampled_from((20, 200, 10**6)))
def test_records_are_cut_where_they_are_full(items: list[tuple[str, bytes]], most: int) -> None:
    """Items come out of the records as they went in; a record is too large only with one item, and takes what fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MAX_RECORD", most)
        records = list(wire.packed(iter(items)))
    found = [msgspec.msgpack.decode(record) for record in records]

    assert [tuple(item) for record in found for item in record] == items
    sizes = [[len(wire.encode(item)) for item in record] for record in found]
    assert all(len(record) == 1 or sum(record) <= most for record in sizes)
    assert all(sum(one) + after[0] > most for one, after in pairwise(sizes))
