"""Show: the ledger as the command line prints it. Order ids, names of the receivers' file, codes; never whom a customer's message went to."""

from __future__ import annotations

import msgspec

from orderstream import times
from orderstream.actions import ledger, meeting
from orderstream.actions.receivers import Language
from orderstream.board import store
from orderstream.board.store import Db
from orderstream.board.web.words import Words
from orderstream.errors import BadFile
from orderstream.settings import Settings

COLUMNS = ["编号 id", "订单 order", "做什么 kind", "给谁 to", "状态 state", "次数 tries", "下次 next", "错误 error"]
_DEAD = ("dead",)
_ALL = ("waiting", "trying", "sent", "joined", "dropped", "dead")


def rows(settings: Settings, *, everything: bool, order: str | None, most: int) -> list[dict[str, object]]:
    """Dead letters, the newest first; everything: all states; order: of one order, in every state."""
    with store.answering(), store.connect(store.url(settings)) as db:
        found = db.execute(
            "SELECT id, action, order_id, seq, kind, rule, level, receiver, via, body, state, attempts, made_at, next_at, done_at, error,"
            " receipt, lead FROM board.messages WHERE state = ANY(%s) AND (%s::text IS NULL OR order_id = %s)"
            " ORDER BY made_at DESC, id LIMIT %s",
            (list(_ALL if everything or order else _DEAD), order, order, most),
        )
        return [dict(row) for row in found]


def table(found: list[dict[str, object]]) -> list[tuple[str, ...]]:
    """For a terminal."""
    return [
        (
            str(row["id"])[:12],
            str(row["order_id"]),
            _kind(row),
            str(row["receiver"] or "—"),
            str(row["state"]),
            str(row["attempts"]),
            times.text(_int(row["next_at"]))[:19] if row["state"] in ("waiting", "trying") else "—",
            str(row["error"] or "—"),
        )
        for row in found
    ]


def as_json(found: list[dict[str, object]]) -> str:
    """One JSON array."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def in_full(settings: Settings, name: str) -> list[tuple[str, str]]:
    """(field, value) of one message, by the beginning of its id. Raises BadFile where it is none or several."""
    with store.answering(), store.connect(store.url(settings)) as db:
        found = db.execute("SELECT * FROM board.messages WHERE starts_with(id, %s) LIMIT 2", (name,)).fetchall()
        if len(found) != 1:
            raise BadFile(
                f"没有唯一的消息以 {name} 开头，见 orderstream actions list --all"
                f" · not one message's id begins with {name}: orderstream actions list --all"
            )
        row = dict(found[0])
        joined = db.execute("SELECT order_id FROM board.messages WHERE lead = %s ORDER BY order_id", (row["id"],))
        row["joined"] = ", ".join(one["order_id"] for one in joined)
    for name_ in ("made_at", "next_at", "tried_at", "done_at"):
        row[name_] = times.text(row[name_]) if row[name_] is not None else None
    row["body"] = msgspec.json.encode(row["body"]).decode()
    return [(field, str(value)) for field, value in row.items() if value not in (None, "")]


def again(settings: Settings, ids: list[str], *, everything: bool) -> list[str]:
    """Puts dead letters back; which ones."""
    with store.answering(), store.connect(store.url(settings)) as db:
        return ledger.retry(db, ids, store.now(), everything=everything)


def meetings(settings: Settings, name: str | None, language: str) -> str:
    """The list of records, or one of them as Markdown, by its id's beginning, case or order. Raises BadFile."""
    with store.answering(), store.connect(store.url(settings)) as db:
        if name is None:
            return "\n".join(
                f"{row['id'][:12]}\t{times.text(row['made_at'])[:19]}\t{row['case_id']}\t{'closed' if row['closed_at'] else 'open'}"
                for row in db.execute(
                    "SELECT id, made_at, case_id, closed_at FROM board.meetings ORDER BY made_at DESC LIMIT 100"
                )
            )
        return _record(db, name, language)


def _record(db: Db, name: str, language: str) -> str:
    found = db.execute(
        "SELECT id FROM board.meetings WHERE starts_with(id, %s) OR case_id = %s OR order_id = %s ORDER BY made_at DESC LIMIT 1",
        (name, name, name),
    ).fetchone()
    spoken: Language = "en" if language == "en" else "zh"
    record = None if found is None else meeting.record(db, found["id"], Words().of(db, spoken), store.now())
    if record is None:
        raise BadFile(f"没有 {name} 的会议记录 · there is no record of a meeting {name}")
    return meeting.markdown(record, spoken)


def _kind(row: dict[str, object]) -> str:
    body = row["body"]
    what = body.get("do") or body.get("what") or "" if isinstance(body, dict) else ""
    return f"{row['kind']} {what}".strip() if what != row["kind"] else str(row["kind"])


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
