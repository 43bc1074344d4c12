"""A board with orders and people, and links into it as messages carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from orderstream.actions import plan, receivers
from orderstream.actions.ledger import Row
from orderstream.actions.links import create_app
from orderstream.actions.tokens import Link, Signer, What
from orderstream.board import store
from orderstream.board.store import Db, Pool
from orderstream.board.web.limits import Limit
from orderstream.metrics import Metrics
from orderstream.settings import Settings
from tests.actions.conftest import receivers_file
from tests.board.core.records import Feed, oid, signal

BUYER = {"id": "u-17", "phone": "13910000124", "email": "zhao@buyer.example", "ip": "203.0.113.7"}
SHIP_TO = {
    "name": "赵桂英",
    "phone": "13910000124",
    "country": "CN",
    "province": "山东省",
    "city": "青岛市",
    "district": "市南区",
    "detail": "和平街124号17幢150室",
}
PERSONAL = ("赵桂英", "13910000124", "zhao@buyer.example", "和平街124号", "203.0.113.7")

__all__ = ["Feed", "oid", "signal"]


def people(db: Db, **roles: list[str]) -> None:
    """Accounts by login and roles."""
    for login, given in roles.items():
        db.execute(
            "INSERT INTO board.people (login, name, roles, made_at, made_by) VALUES (%s, %s, %s, 0, 'test')",
            (login, login, given),
        )


def order(feed: Feed, number: str, *signals: dict[str, Any], seq: int = 1, **more: Any) -> str:
    """A waiting order of the buyer; its id."""
    feed.waiting(number, *signals, seq=seq, **{"buyer": BUYER, "ship_to": SHIP_TO, **more})
    return oid(number)


def link(
    db: Db, order_id: str, what: What, person: str | None = None, *, seq: int = 1, about: str = "", valid: int = 3_600_000
) -> str:
    """A link's token."""
    signer = Signer(Settings.load().hash_key())
    made = Link(signer.number(order_id, f"{what}{person}{about}{seq}"), order_id, seq, person, what, about, store.now() + valid)
    db.execute(
        "INSERT INTO board.links (id, order_id, seq, person, what, about, expires_at, made_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 0)",
        msgspec.structs.astuple(made),
    )
    return signer.token(made)


def site(pool: Pool, folder: Path, limits: tuple[Limit, Limit] | None = None, **settings: Any) -> Any:
    """The pages."""
    file = receivers.read(receivers_file(folder / "actions.yaml", "http://127.0.0.1:9"))
    return create_app(Settings.load(**settings), pool, lambda: file, Metrics(), limits=limits)


def outcomes(db: Db) -> list[dict[str, Any]]:
    """What was said to the stream."""
    return [row["value"] for row in db.execute("SELECT value FROM board.outbox WHERE topic = 'orders.outcomes' ORDER BY id")]


def action(db: Db, do: str, order_id: str, *, rule: str | None = "ip-pair", level: str = "low", **body: Any) -> Row:
    """An action's row, as reading the topic leaves it."""
    name = plan.key(do, order_id)
    db.execute(
        "INSERT INTO board.messages (id, action, order_id, seq, kind, rule, level, body, state, made_at, next_at)"
        " VALUES (%s, %s, %s, 1, 'action', %s, %s, %s, 'waiting', 0, 0)",
        (name, name, order_id, rule, level, Jsonb({"do": do, **body})),
    )
    return Row(name, name, order_id, 1, "action", rule, level, "", "", {"do": do, **body}, 1, 0, 0)
