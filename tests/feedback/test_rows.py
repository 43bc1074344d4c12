"""Tables of outcomes: every row understood, or none taken."""

from __future__ import annotations

import pytest

from orderstream import outcomes, times
from orderstream.feedback.rows import FROM_OUTSIDE, WORDS, read_outcomes
from orderstream.outcomes import OUTCOMES

ROW = {"order_id": "api:main:A1", "at": "2026-11-12T10:00:00+08:00", "outcome": "returned"}
ZONE = "Asia/Shanghai"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-12T10:00:00+08:00", "2026-11-12T02:00:00.000Z"),
        ("2026-11-12 10:00", "2026-11-12T02:00:00.000Z"),
        ("2026/11/12 10:00:30", "2026-11-12T02:00:30.000Z"),
        ("2026-11-12", "2026-11-12T15:59:59.999Z"),
    ],
)
def test_times_as_an_erp_writes_them(said: str, meant: str) -> None:
    """Without an offset in the shop's zone; a day is known by its end, so that no order of that day is judged by it."""
    (record,) = read_outcomes([(2, {**ROW, "at": said})], ZONE, by="erp").records

    assert record["at"] == meant


@pytest.mark.parametrize("word", sorted(WORDS))
def test_chinese_words_are_outcomes(word: str) -> None:
    """Each word that a table may say stands for an outcome that a table may say."""
    (record,) = read_outcomes([(2, {**ROW, "outcome": word})], ZONE, by="erp").records

    assert record["outcome"] in FROM_OUTSIDE < OUTCOMES


@pytest.mark.parametrize(
    "wrong",
    [
        {"order_id": ""}, {"order_id": "A1"}, {"order_id": "ebay:main:A1"}, {"at": ""}, {"at": "12.11.2026"}, {"at": "2026-13-01"},
        {"outcome": "lost"}, {"outcome": ""}, {"note": "x" * 4001}, {"reason": "x" * 201},
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(wrong: dict[str, str]) -> None:
    """With its number and a sentence in both languages, beside rows that are good."""
    read = read_outcomes([(2, ROW), (3, {**ROW, **wrong})], ZONE, by="erp")

    assert [fault.row for fault in read.faults] == [3]
    assert " · " in read.faults[0].sentence


def test_a_table_decides_nothing() -> None:
    """A person's decision comes in that person's name, from the board; only who may say so is told that they may."""
    released = [(2, {**ROW, "outcome": "released"})]

    assert read_outcomes(released, ZONE, by="erp").faults
    assert not read_outcomes(released, ZONE, by="wang", allowed=outcomes.DECISIONS).faults


def test_said_twice_is_once() -> None:
    """The same row has the same id, in this table and in the next; one id with two meanings is a fault."""
    read = read_outcomes([(2, ROW), (3, ROW)], ZONE, by="erp")
    again = read_outcomes([(2, ROW)], ZONE, by="erp")

    assert (len(read.records), read.repeats, read.faults) == (1, 1, [])
    assert read.records == again.records
    assert outcomes.read(read.records[0]).at == times.parse(ROW["at"])
    two = [(2, {**ROW, "id": "r1"}), (3, {**ROW, "id": "r1", "outcome": "complaint"})]
    assert [fault.row for fault in read_outcomes(two, ZONE, by="erp").faults] == [3]
