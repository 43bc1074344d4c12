"""What is committed, told without Kafka."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orderstream.fetch.share import Item, Progress, Share


@given(st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted), st.data())
def test_a_successor_begins_before_all_that_is_unfinished(offsets: list[int], data: st.DataObject) -> None:
    """Finished in whatever sequence, the safe position never passes an unfinished offset, and ends behind the last."""
    progress = Progress()
    assert progress.safe is None
    for offset in offsets:
        progress.take(offset)
    unfinished, before = set(offsets), -1
    for offset in data.draw(st.permutations(offsets)):
        assert progress.safe == min(unfinished)
        assert progress.safe >= before
        before = progress.safe
        progress.done(offset)
        progress.done(offset)
        unfinished.discard(offset)
    assert progress.safe == offsets[-1] + 1


def test_the_newest_word_of_a_parked_record_counts() -> None:
    """What orders.parked said before is gone, and a tombstone ends it."""
    share = Share(0)
    first, second = Item(share, b"0.1.2", 1, 0), Item(share, b"0.1.2", 7, 0)
    share.park(first)
    share.park(second)
    assert (first.gone, second.gone, [*share.parked.values()]) == (True, False, [second])
    share.unpark(b"0.1.2")
    share.unpark(b"0.1.2")
    assert second.gone
    assert share.parked == {}
