"""Pages: what the public pages say, in both languages, and how an order is shown to whoever ordered it.

Law: an address that was forwarded must give away little: articles, amounts, a town, and of name, number and street as much as tells
the owner that it is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from orderstream.actions.known import Known
from orderstream.actions.receivers import Language
from orderstream.actions.texts import of
from orderstream.board.web import masked
from orderstream.money import major

HERE = Path(__file__).parent

WORDS: dict[str, tuple[str, str]] = {
    "other-language": ("English", "中文"),
    "sorry": ("抱歉", "Sorry"),
    "done-title": ("好了", "Done"),
    "unknown": ("这个链接无效。请从原消息里重新点开，或联系店铺。", "This link is not valid. Open it from the message again, or ask the shop."),
    "expired": ("这个链接已过期。请联系店铺，或到看板处理。", "This link has expired. Ask the shop, or go to the board."),
    "used": ("这个链接已经用过，只能用一次。", "This link has been used; it works once."),
    "busy": ("操作太频繁，请一分钟后再试。", "Too many requests: try again in a minute."),
    "away": ("系统暂时无法处理，什么都没有改变，请几分钟后再点一次。", "We cannot do this now and nothing was changed: try again in a few minutes."),
    "missing": ("请选择一项。", "Please choose one."),
    "note-missing": ("选“其他”时请写明原因。", "With “other”, say why."),
    # the customer's page
    "ask-title": ("请确认您的订单", "Please confirm your order"),
    "ask-two": ("您在短时间内下了这些订单，是都要吗？", "You placed these orders within a short time. Do you want all of them?"),
    "ask-one": ("这是您刚下的订单，对吗？", "Is this the order that you placed?"),
    "yes-two": ("是的，都要", "Yes, both"),
    "yes-one": ("是的，没错", "Yes, it is right"),
    "single": ("只要一单", "Only one"),
    "address": ("地址不对", "The address is wrong"),
    "confirm-answer": ("请确认您的选择", "Please confirm your choice"),
    "send": ("提交", "Send"),
    "ships-to": ("送到", "Ships to"),
    "total": ("合计", "Total"),
    "order-number": ("订单号", "Order"),
    "gift": ("赠品", "gift"),
    "safe": ("我们不会在这里要求付款、密码或验证码。", "We never ask for money, passwords or codes here."),
    "customer-confirmed": ("谢谢！我们会照常发货。", "Thank you! We will ship as ordered."),
    "customer-single": ("收到！我们会先停下，由客服与您确认留哪一单，多付的会退回。", "Understood. We have stopped and will ask you which order to keep; what you paid too much is returned."),
    "customer-address": ("收到！我们会先停下，由客服与您核对地址。", "Understood. We have stopped and will check the address with you."),
    "answered-before": ("您已经回答过了：", "You have already answered:"),
    # a decision
    "release": ("放行这一单？", "Release this order?"),
    "cancel": ("取消这一单？", "Cancel this order?"),
    "approve": ("同意放行这一单？", "Approve the release of this order?"),
    "refuse": ("不同意放行这一单？", "Refuse the release of this order?"),
    "do-release": ("放行", "Release"),
    "do-cancel": ("取消订单", "Cancel the order"),
    "do-approve": ("同意", "Approve"),
    "do-refuse": ("不同意", "Refuse"),
    "as": ("以这个身份操作", "You act as"),
    "reason": ("原因", "Reason"),
    "note": ("说明", "Note"),
    "level": ("级别", "Level"),
    "signals": ("系统看到的", "What the machine saw"),
    "once": ("确认后立即生效，此链接随即失效。", "It takes effect at once, and then this link is used up."),
    "changed": ("这一单有了新情况，请到看板上看过再决定。什么都没有改变。", "There is something new about this order: look at the board before you decide. Nothing was changed."),
    "done-release": ("已放行。", "Released."),
    "done-cancel": ("已取消。", "Cancelled."),
    "asked": ("这一单需要审批人同意，申请已提交。", "This release needs an approver, who has been asked."),
    "asked-before": ("这一单已经在等审批人同意。", "This order waits for an approver already."),
    "approved": ("已同意，订单放行。", "Approved: the order is released."),
    "more": ("已记录，还需要另一位审批人同意。", "Noted. One more approver is needed."),
    "refused-it": ("已记录您的不同意，订单不放行。", "Noted: the order is not released."),
    "not-waiting": ("已经有人处理了这一单，没有改变什么。", "Somebody has decided this order already. Nothing was changed."),
    "gone": ("看板上没有这一单。", "The board does not know this order."),
    "unverified": ("放行前须先二次验证身份，请到看板操作。", "The buyer's identity must be checked again first: go to the board."),
    "not-allowed": ("您没有这项权限，或者您就是申请人，或已表态。", "You may not do this, or you asked for it yourself, or have said so before."),
    "no-person": ("您的账户已停用或不存在。", "Your account does not exist or has been disabled."),
    # the meeting
    "meeting": ("风控会议记录", "Record of a risk meeting"),
    "save": ("保存", "Save"),
    "close": ("定稿（之后不能再改）", "Close it (it can't be changed afterwards)"),
    "saved": ("已保存。", "Saved."),
    "closed": ("已定稿。", "It is closed."),
    "orders": ("订单", "Orders"),
    "decisions": ("已作的决定", "Decisions so far"),
    "none-yet": ("还没有", "none yet"),
    "status": ("状态", "State"),
    "download": ("下载 Markdown", "Download as Markdown"),
}  # fmt: skip

REASONS: dict[str, tuple[str, str]] = {
    "false-alarm": ("误报", "False alarm"),
    "known-customer": ("熟客", "Known customer"),
    "customer-confirmed": ("客户已确认", "Customer confirmed"),
    "checked": ("已核实无误", "Checked, all in order"),
    "price-approved": ("价格已批准", "Price is approved"),
    "fraud": ("欺诈", "Fraud"),
    "duplicate": ("重复下单", "Double order"),
    "customer-asked": ("客户要求", "Customer asked for it"),
    "no-stock": ("没有库存", "Out of stock"),
    "unreachable": ("联系不上客户", "Customer cannot be reached"),
    "other": ("其他（请说明）", "Other (say what)"),
}
_LEVELS = {"none": ("无", "none"), "low": ("低", "low"), "medium": ("中", "medium"), "high": ("高", "high")}


def say(language: Language, name: str) -> str:
    """One of our words."""
    return of(language, WORDS[name])


def reason(language: Language, code: str) -> str:
    """A reason's name."""
    return of(language, REASONS.get(code, (code, code)))


def level(language: Language, code: str) -> str:
    return of(language, _LEVELS[code])


class Piece(msgspec.Struct, frozen=True):
    """A line of an order as its buyer knows it."""

    title: str
    spec: str
    quantity: int
    gift: bool


class Shown(msgspec.Struct, frozen=True):
    """An order as its buyer may see it through a link."""

    number: str
    pieces: list[Piece]
    total: str
    receiver: str
    where: str


def shown(order: Known) -> Shown:
    """What of an order is shown."""
    document = order.document or {}
    to = document.get("ship_to") or {}
    town = " ".join(dict.fromkeys(part for part in (to.get("province"), to.get("city"), to.get("district")) if part))
    street = masked.place(to["detail"]) if to.get("detail") else ""
    who = " ".join(
        part
        for part in (masked.name(to["name"]) if to.get("name") else "", masked.phone(to["phone"]) if to.get("phone") else "")
        if part
    )
    pieces = [
        Piece(
            str(line.get("title") or line.get("code") or line.get("sku") or "—"),
            " / ".join(str(value) for value in (line.get("spec") or {}).values()),
            int(line.get("quantity") or 1),
            bool(line.get("gift")),
        )
        for line in document.get("lines") or ()
    ]
    number = order.order_id.rpartition(":")[2]
    return Shown(number, pieces, f"{major(order.total, order.currency)} {order.currency}", who, f"{town} {street}".strip())


def partners(order: Known, others: Sequence[Known]) -> list[Known]:
    """Those of the other orders that are the same person's: nobody is shown somebody else's."""
    return [other for other in others if other.document is not None and other.verdict != "withdrawn" and order.same_buyer(other)]


def environment() -> jinja2.Environment:
    """The templates."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["reason"] = reason
    made.globals["level"] = level
    return made


def render(env: jinja2.Environment, name: str, language: Language, **values: Any) -> str:
    """A page."""
    return env.get_template(f"{name}.html").render(
        {"lang": language, "say": lambda word: say(language, word), "other": "zh" if language == "en" else "en", **values}
    )
