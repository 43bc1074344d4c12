"""What the board drops by itself."""

from __future__ import annotations

from orderstream.board import decide, retention, store
from orderstream.board.decide import Person, Terms
from orderstream.board.store import Db
from orderstream.times import DAY
from tests.board.core.records import Feed, T, oid, signal


def test_what_is_over_loses_its_contents_and_keeps_its_figures(db: Db, feed: Feed) -> None:
    """The oldest first, so many at a time; what somebody may still decide keeps everything, however old it is."""
    for number in ("A1", "A2", "A3"):
        feed.waiting(number, signal("duplicate-order"))
    for number in ("A1", "A2"):
        decide.decide(
            db, Person("li", frozenset({"supervisor"})), {oid(number): 1}, "release", "checked", at=T + 1, terms=Terms()
        )

    def contents() -> list[str]:
        found = db.execute("SELECT order_id FROM board.orders WHERE document IS NOT NULL OR buyer IS NOT NULL ORDER BY 1")
        return [row["order_id"] for row in found]

    assert retention.drop_old(db, 90 * DAY, T + 90 * DAY)["contents"] == 0
    assert retention.drop_old(db, 90 * DAY, T + 90 * DAY + 1, most=1)["contents"] == 1
    assert len(contents()) == 2
    assert retention.drop_old(db, 90 * DAY, T + 90 * DAY + 1)["contents"] == 1
    assert contents() == [oid("A3")]
    row = store.rows(db, [oid("A1")])[oid("A1")]
    assert (row.total, row.level, row.state) == (35_800, "medium", "decided")


def test_what_was_told_and_sent_goes_after_190_days_and_what_waits_stays(db: Db) -> None:
    """Messages, links and what Kafka has."""
    for name, state in (("sent", "sent"), ("dead", "dead"), ("due", "waiting"), ("now", "trying")):
        db.execute(
            "INSERT INTO board.messages (id, action, order_id, seq, kind, level, state, made_at, next_at)"
            " VALUES (%s, '', 'o', 1, 'notify', 'low', %s, %s, 0)",
            (name, state, T),
        )
    db.execute(
        "INSERT INTO board.links (id, order_id, seq, what, expires_at, made_at) VALUES ('l', 'o', 1, 'release', %s, 0)", (T,)
    )
    db.execute("INSERT INTO board.outbox (topic, key, value, made_at, sent_at) VALUES ('t', 'a', '{}', 0, %s)", (T,))
    db.execute("INSERT INTO board.outbox (topic, key, value, made_at) VALUES ('t', 'b', '{}', 0)")

    assert not any(retention.drop_old(db, DAY, T + retention.KEPT).values())
    assert retention.drop_old(db, DAY, T + retention.KEPT + 1) == {"contents": 0, "messages": 2, "links": 1, "outbox": 1}
    left = [row["id"] for row in db.execute("SELECT id FROM board.messages ORDER BY 1")]
    assert (left, [row["key"] for row in db.execute("SELECT key FROM board.outbox")]) == (["due", "now"], ["b"])
