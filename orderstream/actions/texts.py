"""Texts: what people are told, in both languages. Order ids, rules, amounts; never who somebody is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orderstream import times
from orderstream.actions.known import Known
from orderstream.actions.ledger import Row
from orderstream.actions.receivers import Language
from orderstream.money import major

SHOWN = 10
"""Order ids that a message names; the board has all of them."""

_TITLES: dict[str, tuple[str, str]] = {
    "frozen": ("订单已冻结", "Order frozen"),
    "review": ("订单待复核", "Order to be reviewed"),
    "signal-after-decision": ("已由人决定的订单出现新信号", "New signals for an order that a person decided"),
    "found-late": ("发现得太晚的信号", "Signals found too late"),
    "second-check": ("请二次验证身份", "Check the buyer's identity again"),
    "meeting": ("请召开风控会议", "A risk meeting is called"),
    "no-contact": ("联系不上客户，请人工确认", "The customer cannot be reached by message: please confirm by hand"),
    "reminded": ("订单还在等人决定", "An order still waits for a decision"),
    "supervisor": ("订单快到期，还没有人决定", "An order nears its deadline undecided"),
    "approver": ("订单已到期，还没有人决定", "An order is past its deadline undecided"),
    "ended": ("订单逾期，已按设置处理", "An order's time is over: done as the setting says"),
    "approve": ("有放行申请待审批", "A release waits for your approval"),
    "decision": ("有一个决定没有生效，请重新决定", "A decision did not take effect: please decide again"),
    "notify": ("订单提醒", "About an order"),
}
_LEVELS = {"none": ("无", "none"), "low": ("低", "low"), "medium": ("中", "medium"), "high": ("高", "high")}
_OFFERS = {
    "release": ("放行", "Release"),
    "cancel": ("取消订单", "Cancel the order"),
    "approve": ("同意放行", "Approve"),
    "refuse": ("不同意", "Refuse"),
    "meeting": ("会议记录", "Record of the meeting"),
    "board": ("打开看板", "Open the board"),
    "confirm": ("确认订单", "Confirm your order"),
}


class Words(Protocol):
    """What a pack calls its rules: `board.web.words`."""

    def title(self, rule: str, version: str | None = None) -> str:
        """A rule's title."""

    def sentence(self, rule: str, evidence: Mapping[str, Any] | None, version: str | None = None) -> str:
        """What it says of an order."""


def of(language: Language, both: tuple[str, str]) -> str:
    return both[language == "en"]


def offer(language: Language, what: str) -> str:
    """What a link's button says."""
    return of(language, _OFFERS[what])


def title(row: Row, order: Known | None, words: Words, language: Language) -> str:
    """A message's first line."""
    what, why = row.body.get("what", "notify"), row.body.get("why", "")
    # route says decision-<why> of one that did not see the newest signals
    why = why.partition("-")[0] if why.startswith("decision-") else why
    what = row.body.get("step", what)
    name = why if why in _TITLES else what if what != "notify" else order.verdict if order is not None else "notify"
    said = of(language, _TITLES.get(name, _TITLES["notify"]))
    orders = 1 + len(row.joined)
    if orders > 1:
        said += of(language, (f"（{orders} 单）", f" ({orders} orders)"))
    if row.rule is None:
        return said
    return said + of(language, ("：", ": ")) + words.title(row.rule, None if order is None else order.pack)


def lines(row: Row, order: Known | None, words: Words, language: Language) -> tuple[str, ...]:
    """What follows it."""
    ids: Sequence[str] = [row.order_id, *row.joined]
    more = "" if len(ids) <= SHOWN else of(language, (f" 等 {len(ids)} 单", f" and {len(ids) - SHOWN} more"))
    out = [of(language, ("订单 ", "Order ")) + ", ".join(ids[:SHOWN]) + more]
    if order is not None and not row.joined:
        level = of(language, _LEVELS[row.level])
        amount = f"{major(order.total, order.currency)} {order.currency}"
        out.append(of(language, (f"金额 {amount}，级别 {level}", f"Total {amount}, level {level}")))
        signal = order.signal(row.rule)
        if signal is not None and row.rule is not None:
            out.append(words.sentence(row.rule, signal["evidence"], order.pack))
    out += ["· " + words.title(rule, None if order is None else order.pack) for rule in row.body.get("rules") or ()]
    if row.body.get("deadline"):
        at = times.text(row.body["deadline"])
        out.append(of(language, (f"期限 {at}", f"Deadline {at}")))
    if row.body.get("asker"):
        out.append(of(language, (f"申请人 {row.body['asker']}", f"Asked by {row.body['asker']}")))
    return tuple(line for line in out if line)


def customer(shop: str, language: Language) -> tuple[str, str]:
    """Title and line of the message to a customer."""
    return of(language, (f"【{shop}】请确认您的订单", f"{shop}: please confirm your order")), of(
        language,
        (
            f"【{shop}】您好，您刚才的订单需要您确认一下，点开链接选一项即可，不会要求付款或密码：",
            f"{shop}: please confirm your recent order. Open the link and choose; we never ask for money or passwords:",
        ),
    )
