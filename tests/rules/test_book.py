"""Which pack a switch activates: a question about the packs that were in force, answered without a broker."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderstream.rules import book as books
from orderstream.rules.book import Activation, Cause, NoPackError, PackBook
from orderstream.rules.pack import Pack, load
from orderstream.settings import data_file

STANDARD = load(data_file("rules/standard"))
ONE, TWO, THREE = (Pack(msgspec.structs.replace(STANDARD.policy, name=name), STANDARD.rules) for name in ("one", "two", "three"))
MILD = ONE.without("ip-pair")


class Desk:
    """The switches as the commands make them, a second apart."""

    def __init__(self) -> None:
        self.book = PackBook()
        self.now = 0

    def _activate(self, pack: Pack, cause: Cause, at: int | None = None) -> Pack:
        self.now += 1000
        self.book.add(pack)
        self.book.activate(Activation(self.now if at is None else at, pack.version, cause))
        return pack

    def publish(self, pack: Pack, at: int | None = None) -> Pack:
        return self._activate(pack, "publish", at)

    def disable(self, rule: str) -> Pack:
        return self._activate(self.book.at(self.now).without(rule), "disable")

    def bypass(self) -> Pack:
        pack = self.book.at(self.now)
        return self._activate(pack.without(*pack.rules), "bypass")

    def off(self) -> Pack:
        return self._activate(books.resumed(self.book, self.now), "resume")

    def rollback(self) -> Pack:
        return self._activate(books.before(self.book, self.now), "rollback")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_rollback_goes_to_the_pack_before(desk: Desk) -> None:
    """The pack that was published before the present one."""
    desk.publish(ONE)
    desk.publish(TWO)

    assert desk.rollback() is ONE


def test_rollback_twice_goes_further_back_and_never_forward(desk: Desk) -> None:
    """What was rolled back is not gone back to; before the first pack there is none."""
    for pack in (ONE, TWO, THREE):
        desk.publish(pack)

    assert [desk.rollback(), desk.rollback()] == [TWO, ONE]
    with pytest.raises(NoPackError):
        desk.rollback()


def test_after_a_rollback_a_pack_can_be_tried_again(desk: Desk) -> None:
    """Published after a rollback, it is rolled back to the same place."""
    desk.publish(ONE)
    desk.publish(TWO)
    desk.rollback()
    desk.publish(TWO)

    assert desk.rollback() is ONE


def test_rollback_never_goes_back_into_a_bypass(desk: Desk) -> None:
    """Neither after it ended nor where a pack was published amid it."""
    desk.publish(ONE)
    desk.bypass()
    desk.off()
    with pytest.raises(NoPackError):
        books.before(desk.book, desk.now)

    desk.bypass()
    desk.publish(TWO)
    assert desk.rollback() is ONE


def test_rollback_amid_a_bypass_ends_it_with_the_pack_before(desk: Desk) -> None:
    """Bypass first, then roll back: what was wrong is the pack that was bypassed."""
    desk.publish(ONE)
    desk.publish(TWO)
    desk.bypass()

    assert desk.rollback() is ONE
    assert not books.bypassed(desk.book, desk.now)


def test_rollback_undoes_no_disabling_of_the_present_pack(desk: Desk) -> None:
    """A rule taken out of the present pack is not put back by it: that is what `publish` is for."""
    desk.publish(ONE)
    desk.publish(TWO)
    desk.disable("ip-pair")
    desk.disable("near-threshold")

    assert desk.rollback() is ONE
    with pytest.raises(NoPackError):
        desk.rollback()


def test_rollback_finds_the_pack_before_as_it_last_was(desk: Desk) -> None:
    """Its disabled rules are disabled still."""
    desk.publish(ONE)
    desk.disable("ip-pair")
    desk.publish(TWO)

    assert desk.rollback().version == MILD.version


def test_a_pack_published_again_with_all_its_rules_is_the_same_pack(desk: Desk) -> None:
    """To enable a rule again leaves nothing to go back to."""
    desk.publish(THREE)
    desk.publish(ONE)
    desk.disable("ip-pair")
    desk.publish(ONE)

    assert desk.book.at(desk.now) is ONE
    assert desk.rollback() is THREE


def test_a_bypass_ends_with_what_it_began_with(desk: Desk) -> None:
    """Its disabled rules included; begun twice, it is one bypass."""
    desk.publish(ONE)
    desk.disable("ip-pair")
    desk.bypass()
    desk.bypass()

    assert desk.off().version == MILD.version
    with pytest.raises(NoPackError):
        desk.off()


def test_the_end_of_a_bypass_brings_no_scheduled_pack_forward(desk: Desk) -> None:
    """A pack for tomorrow waits for tomorrow; it is no pack before, either."""
    desk.publish(ONE)
    desk.publish(TWO, at=10**9)
    desk.bypass()

    assert desk.off() is ONE
    with pytest.raises(NoPackError):
        desk.rollback()
    assert desk.book.at(10**9) is TWO
    assert books.before(desk.book, 10**9) is ONE


def test_a_scheduled_pack_ends_a_bypass_when_its_time_comes(desk: Desk) -> None:
    """From then on there is none to end."""
    desk.publish(ONE)
    desk.publish(TWO, at=10**9)
    desk.bypass()

    assert books.bypassed(desk.book, 10**9 - 1)
    assert not books.bypassed(desk.book, 10**9)
    with pytest.raises(NoPackError):
        books.resumed(desk.book, 10**9)


def test_a_switch_right_behind_a_publish_is_meant_for_it(desk: Desk) -> None:
    """A pack counts 2 s after it was published; what is thrown in between comes after it, and what is for tomorrow waits."""
    desk.publish(ONE)
    now = desk.now + 10_000
    assert books.moment(desk.book, now) == now

    desk.publish(TWO, at=now + books.LEAD_MS)
    desk.publish(THREE, at=10**9)
    at = books.moment(desk.book, now)
    assert at == now + books.LEAD_MS + 1
    assert desk.book.at(at) is TWO
    assert books.before(desk.book, at) is ONE


def test_the_first_pack_holds_before_its_time(desk: Desk) -> None:
    """As for orders, so for the switches."""
    desk.publish(ONE, at=10**9)
    desk.bypass()

    assert desk.off() is ONE


def test_nothing_published_is_nothing_to_go_back_to(desk: Desk) -> None:
    """An empty book answers with its own error."""
    assert not books.bypassed(desk.book, 0)
    for choice in (books.before, books.resumed):
        with pytest.raises(NoPackError):
            choice(desk.book, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three", "disable", "bypass", "off", "rollback"]), max_size=14))
def test_no_switch_leads_into_a_bypass_but_bypass(presses: list[str]) -> None:
    """Whatever was pressed before, rollback and --off end with rules that judge, and rollback with another pack than before."""
    desk = Desk()
    desk.publish(ONE)
    for press in presses:
        present = desk.book.at(desk.now)
        try:
            if press in ("rollback", "off"):
                found = desk.rollback() if press == "rollback" else desk.off()
                assert not all(rule.tag_only for rule in found.rules.values())
                assert not books.bypassed(desk.book, desk.now)
                assert found.version != present.version
            elif press == "bypass":
                desk.bypass()
            elif press == "disable":
                if not books.bypassed(desk.book, desk.now):
                    desk.disable("ip-pair")
            else:
                desk.publish({"one": ONE, "two": TWO, "three": THREE}[press])
        except NoPackError:
            assert press in ("rollback", "off")
