"""Words: what codes are called on a page, and what a rule says of an order.

Law: a rule's title and sentences are the pack's that made the verdict, in the reader's language; a rule or code that we do not
know is shown as it is, never left out. Codes of ours (levels, states, reasons) are named here, in English, and translated like
every text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from orderstream.board import store
from orderstream.board.store import Db
from orderstream.board.web.language import N_, say
from orderstream.rules import pack as packs
from orderstream.settings import data_file

NEWEST_SECONDS = 30.0
"""How long the newest pack is taken for the newest."""
KEPT = 50
"""Packs that are remembered."""


TERMS: dict[str, dict[str, str]] = {
    "level": {"none": N_("none"), "low": N_("low"), "medium": N_("medium"), "high": N_("high")},
    "verdict": {
        "released": N_("released"),
        "review": N_("in review"),
        "frozen": N_("frozen"),
        "pending": N_("not paid yet"),
        "withdrawn": N_("withdrawn"),
        "rejected": N_("rejected"),
        "": N_("nowhere yet"),
    },
    "state": {
        "waiting": N_("waiting"),
        "decided": N_("decided"),
        "correction": N_("returned for correction"),
        "after-sales": N_("with after-sales"),
        "asking": N_("customer is asked"),
        "closed": N_("closed"),
    },
    "rule": {"fired": N_("fired"), "silent": N_("silent"), "not_available": N_("could not judge")},
    "status": {
        "created": N_("not paid yet"),
        "paid": N_("paid"),
        "cancelled": N_("cancelled"),
        "refunding": N_("refund under way"),
        "refunded": N_("refunded"),
    },
    "channel": {
        "taobao": N_("Taobao"),
        "jd": N_("JD"),
        "douyin": N_("Douyin"),
        "wechat": N_("WeChat"),
        "youzan": N_("Youzan"),
        "shopify": N_("Shopify"),
        "api": N_("own shop"),
    },
    "decision": {
        "release": N_("Release"),
        "correction": N_("Return for correction"),
        "after-sales": N_("Hand to after-sales"),
        "confirm": N_("Confirm with the customer"),
        "cancel": N_("Cancel"),
    },
    "decided": {
        "asked": N_("waits for an approver"),
        "standing": N_("stands"),
        "refused": N_("refused by an approver"),
        "undone": N_("taken back"),
        "overtaken": N_("overtaken by a later one"),
    },
    "reason": {
        "false-alarm": N_("False alarm"),
        "known-customer": N_("Known customer"),
        "customer-confirmed": N_("Customer confirmed"),
        "checked": N_("Checked, all in order"),
        "price-approved": N_("Price is approved"),
        "article": N_("Article or code is wrong"),
        "address": N_("Address"),
        "price": N_("Price"),
        "customs": N_("Customs papers"),
        "contact": N_("Name or telephone"),
        "customer-asked": N_("Customer asked for it"),
        "exchange": N_("Exchange"),
        "complaint": N_("Complaint"),
        "refund": N_("Refund"),
        "duplicate": N_("Double order"),
        "quantity": N_("Quantity"),
        "payment": N_("Payment"),
        "fraud": N_("Fraud"),
        "no-stock": N_("Out of stock"),
        "unreachable": N_("Customer cannot be reached"),
        "deadline": N_("Its time was over"),
        "other": N_("Other (say what in the note)"),
    },
    "method": {
        "phone": N_("by telephone"),
        "papers": N_("papers"),
        "platform": N_("by the platform"),
        "video": N_("by video"),
    },
    "result": {"confirmed": N_("confirmed"), "failed": N_("failed"), "unreachable": N_("not reached")},
    "answer": {
        "customer-confirmed": N_("yes, both"),
        "customer-single": N_("only one"),
        "customer-address": N_("wrong address"),
    },
    "role": {
        "reviewer": N_("Reviewer"),
        "desk": N_("Customer desk"),
        "supervisor": N_("Supervisor"),
        "approver": N_("Approver"),
        "analyst": N_("Analyst"),
        "admin": N_("Administrator"),
        "system": N_("Connected system"),
    },
    "unit": {"own": N_("own stock"), "presale": N_("pre-sale"), "bonded": N_("bonded warehouse"), "gift": N_("with a gift")},
    "event": {
        "received": N_("Came in"),
        "verdict": N_("The machine decided"),
        "released": N_("Released to the ERP"),
        "review": N_("Put before people"),
        "frozen": N_("Frozen"),
        "recalled": N_("Recalled from the ERP"),
        "action": N_("Action"),
        "decision": N_("Decided"),
        "undone": N_("Taken back"),
        "approval": N_("Approver's word"),
        "verification": N_("Identity checked again"),
        "outcome": N_("Heard from outside"),
        "deadline": N_("Deadline"),
        "reminder": N_("Reminder"),
        "unmask": N_("Personal data shown"),
        "mapping": N_("Code mapped to an article"),
        "again": N_("Checked again with the new mapping"),
        "not-again": N_("Not checked again: its record is gone"),
        "not-applied": N_("Not carried out: something new had come"),
        "closed": N_("Closed"),
        "settled": N_("Dealt with"),
        "forgotten": N_("Personal data erased"),
    },
    "trust": {"trust": N_("trusted"), "snooze": N_("rule rests")},
    "wait": {
        "unacknowledged-erp": N_("not acknowledged by the ERP"),
        "unacknowledged-wms": N_("not acknowledged by the warehouse"),
        "refused-erp": N_("refused by the ERP"),
        "refused-wms": N_("refused by the warehouse"),
        "unpicked": N_("not picked"),
        "stuck": N_("paid and stuck"),
        "wrong-shipment": N_("wrong shipment"),
        "intercept": N_("recalled after it was shipped"),
    },
    "parcel": {
        "wrong-variant": N_("wrong variant"),
        "missing-pieces": N_("pieces missing"),
        "missing-part": N_("a part is missing"),
        "too-many": N_("too many"),
        "not-ordered": N_("nobody ordered it"),
        "not-released": N_("not released"),
    },
    "replay": {
        "sent": N_("put back with its own time"),
        "late": N_("put back as late: window rules cannot judge it"),
        "still": N_("would be rejected again"),
        "skip": N_("no order, as is known now"),
        "unreadable": N_("cannot be read by anything"),
        "lost": N_("not kept any more"),
    },
    "difference": {
        "unjudged": N_("the channel has it, no verdict is known"),
        "total-differs": N_("released with another total than the channel's"),
        "not-acknowledged": N_("released, and the ERP has not acknowledged it"),
        "refused": N_("the ERP refused it"),
        "booked-differs": N_("the ERP has booked another amount"),
        "booked-unsaid": N_("the ERP does not say what it has booked"),
        "not-stopped": N_("recalled, and the ERP has not stopped it"),
        "not-withdrawn": N_("cancelled or refunded at the channel, still released"),
        "refund-differs": N_("paid back in part, and the ERP has paid back another sum"),
        "refund-unsaid": N_("paid back in part, and the ERP does not say what it has paid back"),
        "unknown-to-channel": N_("no record of the channel tells of it"),
    },
    "figure": {
        "came": N_("came in"),
        "unpaid": N_("not paid yet"),
        "withdrawn": N_("withdrawn"),
        "held": N_("kept back"),
        "unjudged": N_("not judged"),
        "released": N_("released"),
        "applied": N_("booked by the ERP"),
        "refunds": N_("refunds"),
    },
    "step": {
        "reminded": N_("its people were reminded"),
        "supervisor": N_("the supervisor was told"),
        "approver": N_("the approver or deputy was told"),
        "ended": N_("its time was over"),
        "stay": N_("it stays"),
        "release": N_("released by the setting"),
        "cancel": N_("cancelled by the setting"),
    },
    "outcome": {
        "released": N_("released by a person"),
        "cancelled": N_("cancelled by a person"),
        "correction": N_("returned for correction"),
        "after-sales": N_("with after-sales"),
        "confirmed-fraud": N_("confirmed fraud"),
        "shipped": N_("shipped"),
        "returned": N_("returned"),
        "chargeback": N_("chargeback"),
        "wrong-shipment": N_("wrong shipment"),
        "complaint": N_("complaint"),
        "contact": N_("asked again"),
        "false-alarm": N_("false alarm"),
        "customer-confirmed": N_("customer: yes, both"),
        "customer-single": N_("customer: only one"),
        "customer-address": N_("customer: wrong address"),
        "undone": N_("taken back"),
    },
    "by": {"machine": N_("the machine"), "orderstream": N_("a setting")},
    "entity": {
        "user": N_("buyer account"),
        "person": N_("person"),
        "device": N_("device"),
        "phone": N_("telephone"),
        "ip": N_("IP"),
        "segment": N_("IP segment"),
        "payment": N_("payment account"),
        "address": N_("address"),
        "receiver": N_("receiver"),
        "sku": N_("article"),
        "pair": N_("currencies"),
        "order": N_("the order itself"),
    },
}
# what comes due downstream stands in time lines under its own name
TERMS["event"] |= TERMS["wait"]


class Words:
    """The packs that were read, and how our own codes are called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packs: dict[str, Mapping[str, Any]] = {}
        self._newest: tuple[float, Mapping[str, Any]] | None = None
        # half a second, once and before anybody waits for it
        _standard()

    @staticmethod
    def term(language: str, kind: str, code: str | None) -> str:
        """A code's name in a language; the code where it has none."""
        text = TERMS[kind].get(code or "")
        return (code or "—") if text is None else say(language, text)

    def of(self, db: Db, language: str) -> Reader:
        """The words in a language, for one visit."""
        return Reader(self, db, language)

    def rules(self, db: Db, version: str | None) -> Mapping[str, Any]:
        """The rules of a pack, as YAML has them; None: of the newest one, of the standard pack where none is published."""
        with self._lock:
            if version is not None and version in self._packs:
                return self._packs[version]
            if version is None and self._newest is not None and time.monotonic() - self._newest[0] < NEWEST_SECONDS:
                return self._newest[1]
        body = store.pack(db, version)
        found: Mapping[str, Any] = _standard() if body is None else body.get("rules", {})
        with self._lock:
            if version is None:
                self._newest = (time.monotonic(), found)
            elif body is not None:
                if len(self._packs) >= KEPT:
                    self._packs.clear()
                self._packs[version] = found
        return found


class Reader:
    """What rules say, in one language."""

    def __init__(self, words: Words, db: Db, language: str) -> None:
        self._words, self._db, self._language = words, db, language

    def title(self, rule: str, version: str | None = None) -> str:
        """A rule's title."""
        return self._text(rule, "title", version) or rule

    def sentence(self, rule: str, evidence: Mapping[str, Any] | None, version: str | None = None) -> str:
        """What a rule says of an order that it fired for: its explanation with the evidence in it."""
        text = self._text(rule, "explain", version)
        if not text:
            return ""
        said = evidence or {}
        values = {
            "value": _plain(said.get("value")),
            "limit": _plain(said.get("limit")),
            "detail": said.get("detail") or "—",
            "orders": ", ".join(one.split(":", 2)[-1] for one in said.get("orders") or ()) or "—",
        }
        return text.format_map(_Kept(values))

    def why(self, rule: str, version: str | None = None) -> str:
        """Why a rule exists."""
        return self._text(rule, "why", version)

    def blind(self, rule: str, version: str | None = None) -> str:
        """What it does not see."""
        return self._text(rule, "blind", version)

    def titles(self) -> dict[str, str]:
        """Every rule of the newest pack by its id."""
        return {rule: self.title(rule) for rule in self._words.rules(self._db, None)}

    def _text(self, rule: str, name: str, version: str | None) -> str:
        found = self._words.rules(self._db, version).get(rule) or _standard().get(rule) or {}
        both = found.get(name) or {}
        return str(both.get(self._language) or both.get("zh") or "")


class _Kept(dict[str, Any]):
    """A place that is not ours stays as it is written."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return "—" if value is None else str(value)


@cache
def _standard() -> Mapping[str, Any]:
    """The words of the pack that ships with us: for a rule whose own pack has not been read yet."""
    return {
        rule.id: {
            name: {"zh": text.zh, "en": text.en}
            for name, text in (("title", rule.title), ("explain", rule.explain), ("why", rule.why), ("blind", rule.blind))
        }
        for rule in packs.load(data_file("rules/standard")).rules.values()
    }
