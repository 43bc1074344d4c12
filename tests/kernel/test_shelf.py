"""A shelf is a table of values, whatever of them is an object, bytes, or lies in a page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orderstream import pages, shelf
from orderstream.pages import Page, Pages
from orderstream.shelf import Frozen, Shelf
from orderstream.times import MINUTE

KEYS = st.sampled_from([f"k{n}" for n in range(12)])


START = (":", None, 0)


class Word:
    """A value: what has been said of a key, in turn."""

    def __init__(self, said: bytes) -> None:
        self.said = said


def thaw(_: str, frozen: Frozen) -> Word:
    return Word(frozen if isinstance(frozen, bytes) else b"".join(frozen))


def whole(_: str, __: int, held: Frozen | Word) -> bytes:
    return held.said if isinstance(held, Word) else thaw("", held).said


@pytest.fixture(autouse=True)
def _many_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    # checksums that a third of the keys share, and that are found across two others; pages of a few values
    monkeypatch.setattr(pages, "crc32", lambda key: 1 << (8 + 8 * (crc32(key) % 3)))
    monkeypatch.setattr(pages, "PAGE_BYTES", 6)
    monkeypatch.setattr(pages, "RECENT", 3)


class Kept(RuleBasedStateMachine):
    """One worker's shelf beside a dict, with deaths: what comes after one is read back from a dump and what was said since."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, bytes] = {}
        self.due: dict[str, int] = {}
        self.now = 1
        self.log: list[Page | tuple[str, bytes | None, int]] = []
        self.dump: Iterator[Page] | None = None
        self.weight = 0
        self.make()

    @initialize(keys=st.sets(KEYS, min_size=3))
    def begin(self, keys: set[str]) -> None:
        """A worker that came back from a dump."""
        for key in sorted(keys):
            self.say(key, 97)
            self.now += 1
        self.begin_dump()
        self.dump_some(100)
        self.die()

    def make(self) -> None:
        self.weight = 0
        self.shelf: Shelf[Word] = Shelf(lambda word: word.said, thaw, weigh=len, outweighed=self.outweighed)

    def outweighed(self, held: Frozen | Word) -> None:
        self.weight -= len(whole("", 0, held))

    @rule(key=KEYS, letter=st.sampled_from(b"abc"))
    def say(self, key: str, letter: int) -> None:
        """A value is made longer, as a hop does: it is got, changed, and the change is logged."""
        part = bytes([letter])
        word = self.shelf.get(key)
        if word is None:
            word = Word(b"")
            self.shelf.put(key, word)
            self.due[key] = self.now + 3
            self.shelf.remind(self.due[key] * MINUTE, key)
        word.said += part
        self.weight += 1
        self.model[key] = self.model.get(key, b"") + part
        self.log.append((key, part, self.now + 3))

    @rule(key=KEYS, letter=st.sampled_from(b"abc"))
    def say_in_bytes(self, key: str, letter: int) -> None:
        """A value is made longer and stays bytes, where it is none or bytes already."""
        part = bytes([letter])
        found = self.shelf.find(key)
        if isinstance(found, Word):
            found.said += part
        elif found is None:
            self.due[key] = self.now + 3
            self.shelf.begin(key, part, self.due[key] * MINUTE)
        else:
            self.shelf.change(key, found + part)
        self.weight += 1
        self.model[key] = self.model.get(key, b"") + part
        self.log.append((key, part, self.now + 3))

    @rule(limit=st.integers(1, 20))
    def cool(self, limit: int) -> None:
        hot, shelf.HOT = shelf.HOT, 1
        self.shelf.cool(limit)
        shelf.HOT = hot

    @rule()
    def begin_dump(self) -> None:
        self.dump = self.shelf.dump(whole)
        self.log.append(START)

    @rule(pieces=st.integers(1, 9))
    def dump_some(self, pieces: int) -> None:
        """The next pieces of a dump; at its end, what was said before it is no longer needed."""
        if self.dump is None:
            return
        taken = list(islice(self.dump, pieces))
        self.log += taken
        if len(taken) == pieces:
            return
        begun = max(n for n, said in enumerate(self.log) if said == START)
        self.log = [said for said in self.log[begun:] if said != START]
        self.dump = None

    @rule(minutes=st.integers(1, 2))
    def pass_time(self, minutes: int) -> None:
        self.now += minutes
        told = self.shelf.until(self.now * MINUTE)
        for key in set(told):
            if key not in self.model:
                continue
            if self.due[key] + 1 > self.now:
                self.shelf.remind(self.due[key] * MINUTE, key)  # too early: of an earlier life
            else:
                self.weight -= len(self.model.pop(key))
                self.shelf.discard(key)
                self.log.append((key, None, 0))
        # nobody who is due is left out
        assert not [key for key in self.model if self.due[key] + 1 <= self.now]

    @rule()
    def die(self) -> None:
        """What was never dumped to its end is passed over, as the archive's reader does."""
        self.dump = None
        begun = [n for n, said in enumerate(self.log) if said == START]
        if begun:
            self.log = [said for n, said in enumerate(self.log) if n < begun[0] or isinstance(said, tuple)]
            self.log = [said for said in self.log if said != START]
        self.make()
        for said in self.log:
            if isinstance(said, Page):
                self.weight += said.weight
                self.shelf.lay_page(said)
            elif said[1] is None:
                held = self.shelf.held(said[0])
                if held is not None:
                    self.weight -= len(whole("", 0, held))
                self.shelf.discard(said[0])
            else:
                key, part, at = said
                new = self.shelf.add(key, part)
                assert new is not None
                self.weight += 1
                if new:
                    self.shelf.remind(at * MINUTE, key)

    @invariant()
    def is_what_was_said(self) -> None:
        assert sorted(self.shelf) == sorted(self.model)
        for key, said in self.model.items():
            word = self.shelf.peek(key)
            assert word is not None
            assert word.said == said
        assert self.shelf.held("nobody") is None
        assert self.weight == sum(map(len, self.model.values()))


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.text(max_size=6), st.integers(0, 9), st.binary(max_size=5)), min_size=1, max_size=60))
def test_pages_give_what_was_put_in_last(items: list[tuple[str, int, bytes]]) -> None:
    """Of a key in several pages the last one counts, and what it replaces is told."""
    gone: list[bytes] = []
    kept = Pages(gone.append)
    for one in pages.pages(items, len):
        kept.lay(one)
    last = {key: value for key, _, value in items}
    found = {key: kept.find(key) for key in last}
    assert {key: kept.look(place) for key, place in found.items() if place is not None} == last
    assert len(gone) == len(items) - len(last)
    assert sorted(kept) == sorted(last)
    assert kept.find("not there") is None
    minutes = {key: minute for key, minute, _ in items}
    assert {key: minute for minute, key in kept.due(9)} == minutes
    assert list(kept.due(9)) == []


def test_a_page_whose_values_are_all_gone_takes_no_room() -> None:
    kept = Pages(lambda _: None)
    kept.lay(pages.page([("a", 1, b"x"), ("b", 2, b"y")], len))
    for key in "ab":
        place = kept.find(key)
        assert place is not None
        assert kept.take(place) == {"a": (1, b"x"), "b": (2, b"y")}[key]
    assert kept.find("a") is None
    assert list(kept.unopened(len)) == []
    assert list(kept.due(5)) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=30, unique=True), max_size=8))
def test_what_is_laid_again_is_there_once(laid: list[list[int]]) -> None:
    """Indices of every size, one larger than the other either way: the last value of a key stands, and its owner is told of the rest."""
    gone: list[bytes] = []
    made = Pages(gone.append)
    wanted: dict[str, bytes] = {}
    replaced: list[bytes] = []
    for turn, numbers in enumerate(laid):
        items = [(f"k{n}", 1, b"%d of %d" % (n, turn)) for n in numbers]
        if items:
            made.lay(pages.page(items, len))
        replaced += [wanted[key] for key, _, _ in items if key in wanted]
        wanted |= {key: value for key, _, value in items}
        for key in ("k0", "k7", "nowhere"):
            place = made.find(key)
            assert (None if place is None else made.look(place)) == wanted.get(key)
    assert sorted(made) == sorted(wanted)
    assert sorted(gone) == sorted(replaced)
