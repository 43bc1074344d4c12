"""Suggestions: whom people keep clearing of one rule, proposed as an entry of the whitelist.

Law: a suggestion changes nothing. It becomes a trust when a person accepts it by its id, with their name, a reason and an end.
One order of it that somebody called bad, and there is no suggestion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from orderstream import identity, times
from orderstream.facts import Outcome
from orderstream.feedback.labels import label, standing_of
from orderstream.identity import Keys

LEAST = 3
"""Orders that people must have cleared."""


class Suggestion(msgspec.Struct, frozen=True):
    """A rule that people cleared of an entity each time. id: says nothing of who it is. key: as the channel gives it, personal.

    among: the accounts between which it would be off, [] for everybody; orders: those that were cleared; by: who cleared them.
    """

    id: str
    rule: str
    entity: str
    key: str
    among: list[str]
    orders: list[str]
    by: list[str]

    @property
    def shown(self) -> str:
        """The key with its middle hidden."""
        return self.key if len(self.key) < 4 else f"{self.key[:2]}…{self.key[-2:]}"


def suggestions(
    verdicts: Iterable[Mapping[str, Any]],
    documents: Iterable[Mapping[str, Any]],
    said: Iterable[Outcome],
    trusts: Iterable[Mapping[str, Any]],
    keys: Keys,
    now: int,
    least: int = LEAST,
) -> list[Suggestion]:
    """What people may want to trust, the most often cleared first.

    verdicts: records of orders.verdicts; documents: `order` of released, review, frozen; trusts: of reference.updates. now: ms.
    """
    by_order = {document["order_id"]: document for document in documents}
    heard: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for one in said:
        heard[one.order].setdefault(one.id, one)
    known = {
        (t["entity"], t["key"], rule)
        for t in entries(trusts)
        if t["kind"] == "trust" and (t.get("until") is None or times.parse(t["until"]) > now)
        for rule in t["rules"]
    }
    met: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for verdict in verdicts:
        document = by_order.get(verdict["order_id"])
        for signal in verdict["signals"] if document is not None else ():
            kind = signal["evidence"].get("by", "")
            key = key_of(kind, document) if document is not None and kind in _KEYS else None
            if key:
                met[kind, key, signal["rule"]].add(verdict["order_id"])
    out: list[Suggestion] = []
    for (kind, key, rule), orders in met.items():
        told = {order: standing_of(heard[order].values()) for order in orders if order in heard}
        said_of = {order: label(standing) for order, standing in told.items()}
        cleared = sorted(order for order, one in said_of.items() if one == "good")
        if len(cleared) < least or "bad" in said_of.values() or (kind, key, rule) in known:
            continue
        who = {one.by for order in cleared for one in told[order] if one.by}
        among = {user for order in cleared if (user := key_of("user", by_order[order]))} if kind == "payment" else set()
        name = keys.key(kind, f"{rule}\0{key}").partition(":")[2][:12]
        out.append(Suggestion(name, rule, kind, key, sorted(among) if len(among) > 1 else [], cleared, sorted(who)))
    return sorted(out, key=lambda s: (-len(s.orders), s.rule, s.id))


def accepted(suggestion: Suggestion, *, by: str, why: str, at: int, until: int) -> dict[str, Any]:
    """The record of reference.updates that a person's acceptance is. at, until: ms."""
    among = {"with": suggestion.among} if suggestion.among else {}
    return {
        "kind": "trust", "entity": suggestion.entity, "key": suggestion.key, **among, "rules": [suggestion.rule],
        "at": times.text(at), "until": times.text(until), "by": by, "why": why,
    }  # fmt: skip


def snoozed(rule: str, entity: str, key: str, *, by: str, why: str, at: int, until: int) -> dict[str, Any]:
    """The record of reference.updates by which a rule rests for an entity. at, until: ms."""
    return {
        "kind": "snooze", "entity": entity, "key": key, "rules": [rule],
        "at": times.text(at), "until": times.text(until), "by": by, "why": why,
    }  # fmt: skip


def ended(entry: Mapping[str, Any], *, by: str, why: str, at: int) -> dict[str, Any]:
    """The record by which a trust or a rest is over from `at` (ms) on: the same one, with its end. Before its time: it never was."""
    until = max(at, times.parse(entry["at"])) if "at" in entry else at
    return {**entry, "until": times.text(until), "by": by, "why": why}


def entries(records: Iterable[Any]) -> list[dict[str, Any]]:
    """The trusts and rests among records of reference.updates, each once: as it was made, with the earliest end that was told of it.

    What the line has refused is none of them.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        try:
            if record["kind"] in ("trust", "snooze"):
                _until(record)
                found[entry_name(record)].append(record)
        except (KeyError, ValueError, TypeError):
            continue
    out = []
    for several in found.values():
        made, ended = max(several, key=_until), min(several, key=_until)
        out.append({**made, **({"until": ended["until"]} if ended.get("until") is not None else {})})
    return out


def entry_name(record: Mapping[str, Any]) -> str:
    """What tells one trust or rest from another: everything but its end, and who said it why. Personal: it has the key in it."""
    at = times.parse(record["at"]) if "at" in record else 0
    said = (record["kind"], record["entity"], record["key"], sorted(record["rules"]), sorted(record.get("with") or ()), at)
    return msgspec.json.encode(said).decode()


def _until(record: Mapping[str, Any]) -> int:
    return times.parse(record["until"]) if record.get("until") is not None else times.MAX_MS


def key_of(kind: str, document: Mapping[str, Any]) -> str | None:
    """An order's key of a kind as the channel gives it, or None."""
    return _KEYS[kind](document)


def _buyer(field: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda document: (document.get("buyer") or {}).get(field)


def _segment(document: Mapping[str, Any]) -> str | None:
    told = _buyer("ip")(document)
    return identity.segment(told) if told else None


def _address(document: Mapping[str, Any]) -> str | None:
    to = document.get("ship_to") or {}
    text = "".join(to.get(part) or "" for part in ("province", "city", "district", "town", "detail"))
    return text if identity.address_text(text) else None


_KEYS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "user": _buyer("id"),
    "device": _buyer("device"),
    "phone": _buyer("phone"),
    "ip": _buyer("ip"),
    "segment": _segment,
    "payment": lambda document: (document.get("payment") or {}).get("id"),
    "address": _address,
}
