"""JD POP: rows of orders, asked for (`orderstream.platforms.jd`) or read from `yd_pop_order`; nobody pushes them.

Law: there is no push of orders whose sender could be proved, so none is taken: `verify` refuses all of them. A row is the whole
order; the platform writes `[]` where it has no object, `0001-01-01 00:00:00` where it has no time, JSON within texts, and
encrypts what an app may not read. What is masked or ciphertext is never an identity; `desen_mobile` and `oaid` are keys.

Amounts are yuan, those of refunds fen. `Line.discount` is the line's share of `sellerDiscount`: what `couponDetailList` takes off
its SKU by name, and of the rest its part by price, so that over all lines it is exactly `sellerDiscount`. What JD itself
takes off (京豆, 京东券, 礼品卡) lowers the order's `total` and no line: it is money to the shop. `total` is `orderPayment`.

Status, and why
    LOCKED (a buyer wants to cancel, or JD looks at it) and PAUSE are paid and held. DELIVERY_RETURN is refunding: the parcel comes
    back and a person should look. A pay-on-delivery order waits for its parcel, not for its money, so it is paid.

`modified` orders the rows, and `dataVersion` where it is the finer of the two; within one second a later state goes first.

A split order's children are orders of their own, tagged `split`, and stand in their parent's place: what was ordered once must not
be shipped twice. So a child's row is told once more for each parent, under that one's key and with the header PARENT: it is then a
`Replaced`, which withdraws the parent, released or not, whichever is told first. An exchange is `after-sales`.
Of a parent that has left the house it is the children that stop: whoever asked JD says so with the header LEFT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orderstream.channels import Proved, Push, Refused, Reply, reading
from orderstream.channels.reading import MAX_LINES, MAX_REVISION, Fault, part, parts, said, unsaid
from orderstream.orders import Address, Buyer, Discount, Line, Order, Parsed, Payment, Raw, Refund, Replaced, Skip, Status
from orderstream.times import SECOND

PARENT = "orderstream-parent"
"""Header of a child's row that is told for its parent: the parent's number."""
LEFT = "orderstream-parent-left"
"""Header of a child's own row: the number of its parent, which JD says has been shipped; "?" where JD would not say."""
MAX_COUPONS = 5_000
"""Each is read several times."""

_CIPHER = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
"""What stands where a name should and is none: base64 of an encrypted one."""
_NEVER: tuple[Any, ...] = ("0001-01-01 00:00:00", "1970-01-01 00:00:00")
STATUS: dict[str, Status] = {
    "NOT_PAY": "created",
    "WAIT_SELLER_STOCK_OUT": "paid",
    "WAIT_SELLER_DELIVERY": "paid",
    "WAIT_GOODS_RECEIVE_CONFIRM": "paid",
    "FINISHED_L": "paid",
    "PAUSE": "paid",
    "POP_ORDER_PAUSE": "paid",
    "LOCKED": "paid",
    "DELIVERY_RETURN": "refunding",
    "TRADE_CANCELED": "cancelled",
}
_HELD = {
    "LOCKED": "京东锁定订单 · locked by JD",
    "PAUSE": "京东暂停订单 · paused by JD",
    "POP_ORDER_PAUSE": "京东暂停订单 · paused by JD",
}
_SHIPPED = frozenset({"WAIT_SELLER_DELIVERY", "WAIT_GOODS_RECEIVE_CONFIRM", "FINISHED_L", "DELIVERY_RETURN"})
"""States of an order that has left the seller's house."""
_METHODS = {"1": "cod", "2": "post-remittance", "3": "pickup", "4": "online", "5": "company-transfer", "6": "bank-card"}
_REFUNDED = frozenset({"3", "9"})
"""States of a refund after which the money is back: audited by JD's finance, closed by force with refund."""


class Jd:
    """The channel; `CHANNEL` is the one there is."""

    id = "jd"
    headers: tuple[str, ...] = (PARENT, LEFT)
    accepted = Reply()

    def verify(self, push: Push, secrets: Sequence[bytes], now_ms: int) -> Proved:
        """Raises Refused, whoever it is: JD does not push orders, it is asked for them."""
        del push, secrets, now_ms
        raise Refused("not-pushed")

    def key(self, shop: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """The order id of an order's or a refund's row, the parent's where that is what the row is told for."""
        number = reading.number(headers.get(PARENT)) or _about(body)
        return None if number is None else f"jd:{shop}:{number}"

    def thin(self, raw: Raw) -> bool:
        """Never: a row is the whole order."""
        del raw
        return False

    def parse(self, raw: Raw) -> Parsed:
        """The order or refund of a row, its skip, or its reject; of a child, that it stands in its parent's place. Never raises for what was sent."""
        parent = reading.number(raw.headers.get(PARENT))
        try:
            row = _row(reading.document(raw.body), reading.document)
        except Fault as fault:
            return reading.rejected(raw, parent or _about(raw.body), fault)
        if parent is not None:
            return _replaced(raw, row, parent)
        try:
            return _refund(raw, row) if "applyRefundSum" in row else _order(raw, row)
        except Fault as fault:
            return reading.rejected(raw, reading.number(row.get("orderId")), fault)


CHANNEL = Jd()


def parents(body: bytes) -> list[str]:
    """The orders that a row's order was split from; for each of them the row is to be told once more, with PARENT."""
    try:
        row = _row(reading.glance(body), reading.glance)
    except Fault:
        return []
    return _parents(row)


def shipped(answer: bytes) -> bool:
    """Whether an answer about one order says that it has left; False where there is no order in it."""
    try:
        return said(_row(reading.glance(answer), reading.glance).get("orderState")) in _SHIPPED
    except Fault:
        return False


def _replaced(raw: Raw, row: Mapping[str, Any], parent: str) -> Parsed:
    number = reading.number(row.get("orderId"))
    if number is None or parent not in _parents(row):
        fault = Fault(
            "not-its-child", "这一行不是该订单拆出的子单", "the row is no child of the order that it is told for", "parentOrderId"
        )
        return reading.rejected(raw, parent, fault)
    return Replaced(f"{raw.channel}:{raw.shop}:{parent}", f"{raw.channel}:{raw.shop}:{number}")


def _about(body: bytes) -> str | None:
    try:
        return reading.number(_row(reading.glance(body), reading.glance).get("orderId"))
    except Fault:
        return None


def _row(value: Any, read: Callable[[bytes], Any]) -> dict[str, Any]:
    """The order or refund in a row of the database, in an answer about one order, or alone. read: for JSON in texts."""
    if isinstance(value, dict) and isinstance(value.get("responseJson"), str | dict):
        given = value["responseJson"]
        inner = read(given.encode("utf-8", "surrogatepass")) if isinstance(given, str) else given
        version = {} if unsaid(value.get("dataVersion")) else {"dataVersion": value["dataVersion"]}
        value = {**version, **inner} if isinstance(inner, dict) else inner
    for wrapper in ("jingdong_pop_order_get_responce", "orderDetailInfo", "orderInfo"):
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not isinstance(value, dict):
        raise Fault("wrong-type", "内容不是 JSON 对象", "the body is not a JSON object")
    return value


# -- JD's ways of saying nothing -------------------------------------------------------------------------------------


def _time(value: Any, field: str) -> int | None:
    """ms UTC; None for no time, also in the years that stand for it."""
    never = isinstance(value, str) and value[:19].replace("T", " ") in _NEVER
    return None if unsaid(value) or never else reading.beijing(value, field)


def _yuan(value: Any, field: str) -> int:
    return reading.amount(value, "CNY", field)


def _about_amount(value: Any) -> int | None:
    """Fen of an amount that is only compared; None where it is none."""
    try:
        return None if unsaid(value) else _yuan(value, "")
    except Fault:
        return None


def _text(value: Any) -> str | None:
    """A text that is no ciphertext."""
    found = said(value)
    return None if found is None or _CIPHER.fullmatch(found) else found


def _flat(given: Any) -> list[dict[str, Any]]:
    """A list of objects that only help, also of lists of them."""
    found = reading.listed(given)
    listed = found if isinstance(found, list) else []
    return [found for found in parts([two for one in listed for two in (one if isinstance(one, list) else [one])]) if found]


# -- the order -------------------------------------------------------------------------------------------------------


def _order(raw: Raw, row: Mapping[str, Any]) -> Order:
    number = reading.number(row.get("orderId"))
    if number is None:
        raise Fault("bad-order-id", "缺少订单号 orderId", "orderId is missing or no number", "orderId")
    coupons = _flat(row.get("couponDetailList"))
    if len(coupons) > MAX_COUPONS:
        raise Fault("too-many-values", f"优惠超过 {MAX_COUPONS} 项", f"more than {MAX_COUPONS} coupons", "couponDetailList")
    tags: list[str] = []
    lines = _lines(row, coupons)
    if not _adds_up(row, lines):
        tags.append("amounts-differ")
    status = _status(row, tags)
    left = raw.headers.get(LEFT)
    if _parents(row):
        tags += ["split", *(["parent-unknown"] if left == "?" else [])]
    if said(row.get("returnOrder")) not in {None, "0"}:
        tags.append("after-sales")
    consignee = part(row.get("consigneeInfo"))
    if any(said(consignee.get(name)) and not _text(consignee.get(name)) for name in ("fullname", "fullAddress")):
        tags.append("receiver-encrypted")
    revision, updated = _version(row, status)
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{number}",
        channel=raw.channel,
        shop=raw.shop,
        number=number,
        revision=revision,
        status=status,
        created_at=_started(row),
        updated_at=updated,
        currency="CNY",
        total=_total(row),
        lines=lines,
        discounts=_discounts(row, coupons),
        buyer=_buyer(row),
        payment=Payment(method=_method(row.get("payType"))),
        ship_to=_address(consignee),
        keys=_keys(consignee),
        hold=_HELD.get(said(row.get("orderState")) or "") or _sent_before(left, row),
        remark=said(row.get("orderRemark")),
        tags=tuple(tags),
    )


def _sent_before(left: str | None, row: Mapping[str, Any]) -> str | None:
    """Why a child waits for a person: what its parent sent may be all that was ordered."""
    if left is None or left not in _parents(row):
        return None
    return f"母单 {left} 已发货，核实后再发 · its parent {left} has been shipped: check what is still to be sent"


def _version(row: Mapping[str, Any], status: Status) -> tuple[int | None, int | None]:
    """(revision, updated_at). `dataVersion` is a time, `modified` itself as far as anybody has seen, and may be finer; a list has none.

    So the two are one clock, and the row of a list and that of the database are ordered alike. What is no time is a number of its own.
    """
    modified, given = _time(row.get("modified"), "modified"), row.get("dataVersion")
    updated = None if modified is None else reading.as_of(modified, status)
    if unsaid(given):
        return None, updated
    version = reading.whole(given)
    if version is None or version > MAX_REVISION:
        raise Fault("bad-value", "dataVersion 须为整数", "dataVersion must be an integer", "dataVersion")
    if modified is None or modified // SECOND != version // SECOND:
        return version, updated
    return None, version if version % SECOND else updated


def _started(row: Mapping[str, Any]) -> int:
    started = _time(row.get("orderStartTime"), "orderStartTime")
    if started is None:
        raise Fault("bad-time", "缺少下单时间 orderStartTime", "orderStartTime is missing", "orderStartTime")
    return started


def _total(row: Mapping[str, Any]) -> int:
    for name in ("orderPayment", "shouldPay"):
        if not unsaid(row.get(name)):
            return _yuan(row[name], name)
    return _yuan(row.get("orderSellerPrice"), "orderPayment") + (_about_amount(row.get("freightPrice")) or 0)


def _status(row: Mapping[str, Any], tags: list[str]) -> Status:
    status = STATUS.get(said(row.get("orderState")) or "")
    if status is None:
        tags.append("status-unknown")
        return "created"
    return status


def _parents(row: Mapping[str, Any]) -> list[str]:
    """The order that this one was split from, and the first of all where that was split before; "0" is none."""
    named = dict.fromkeys(reading.number(row.get(name)) for name in ("directParentOrderId", "parentOrderId"))
    return [one for one in named if one is not None and one != reading.number(row.get("orderId"))]


def _method(given: Any) -> str | None:
    """The method of "4-在线支付", by its number; a new one is its number."""
    code = (said(given) or "").partition("-")[0].strip()
    return _METHODS.get(code, code or None)


def _buyer(row: Mapping[str, Any]) -> Buyer:
    """The account: its open id, else the xid (an asterisk is part of one and hides nothing), else its name where it is shown."""
    hidden = said(row.get("xidBuyer"), row.get("xid_buyer"))
    return Buyer(id=said(row.get("openIdBuyer"), row.get("open_id_buyer")) or hidden or reading.unmasked(row.get("pin")))


def _keys(consignee: Mapping[str, Any]) -> dict[str, str]:
    named = {
        "oaid": reading.unmasked(consignee.get("oaid")),
        "desen_mobile": reading.unmasked(said(consignee.get("desen_mobile"), consignee.get("desenMobile"))),
        "desen_telephone": reading.unmasked(said(consignee.get("desen_telephone"), consignee.get("desenTelephone"))),
    }
    return {name: value for name, value in named.items() if value is not None}


def _address(consignee: Mapping[str, Any]) -> Address | None:
    found = Address(
        name=_text(consignee.get("fullname")),
        phone=_text(consignee.get("mobile")) or _text(consignee.get("telephone")),
        province=_text(consignee.get("province")),
        city=_text(consignee.get("city")),
        district=_text(consignee.get("county")),
        # not the town alone: half a district would look like one address
        detail=_text(consignee.get("fullAddress")),
    )
    return None if found == Address() else found


# -- lines and what comes off ----------------------------------------------------------------------------------------


def _lines(row: Mapping[str, Any], coupons: list[dict[str, Any]]) -> tuple[Line, ...]:
    given = reading.listed(row.get("itemInfoList"))
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有商品行", "the order has no itemInfoList", "itemInfoList")
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", "itemInfoList")
    prices, counts = [], []
    for at, one in enumerate(given):
        where = f"itemInfoList[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{where} 不是对象", f"{where} is not an object", where)
        prices.append(_yuan(one.get("jdPrice"), f"{where}.jdPrice"))
        counts.append(reading.quantity(one.get("itemTotal"), f"{where}.itemTotal"))
    listed = [price * count for price, count in zip(prices, counts, strict=True)]
    off = _off(row, coupons, [reading.number(one.get("skuId")) for one in given], listed)
    lines: list[Line] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        line_id = _line_id(one, at)
        if line_id in seen:
            name = line_id[:64]
            raise Fault("duplicate-line", f"行号 {name} 重复", f"two lines have the id {name}", f"itemInfoList[{at}].itemExt")
        seen.add(line_id)
        lines.append(
            Line(
                id=line_id,
                code=_code(one),
                quantity=counts[at],
                price=prices[at],
                title=said(one.get("skuName")),
                gift=None,
                discount=None if off is None else off[at],
            )
        )
    return tuple(lines)


def _line_id(one: Mapping[str, Any], at: int) -> str:
    """The platform's own key of a line; else its article and place, which stay as the row's lines do."""
    return reading.usable_id(part(one.get("itemExt")).get("skuUuid")) or f"{reading.number(one.get('skuId')) or ''}-{at + 1}"


def _code(one: Mapping[str, Any]) -> str | None:
    """The shop's own code of the SKU, else its article number, else the platform's number of either."""
    own = said(one.get("outerSkuId"), one.get("productNo"))
    return reading.code(own, sku=reading.number(one.get("skuId")), ware=reading.number(one.get("wareId")))


def _off(row: Mapping[str, Any], coupons: list[dict[str, Any]], skus: list[str | None], listed: list[int]) -> list[int] | None:
    """Fen off each line, in all `sellerDiscount`; None where that is not told."""
    if unsaid(row.get("sellerDiscount")):
        return None
    whole = _yuan(row["sellerDiscount"], "sellerDiscount")
    own = [0] * len(listed)
    for one in coupons:
        sku, amount = reading.number(one.get("skuId")), _about_amount(one.get("couponPrice"))
        if sku in skus and amount and sku is not None:
            at = [i for i, name in enumerate(skus) if name == sku]
            for i, share in zip(at, _spread(amount, [listed[i] for i in at]), strict=True):
                own[i] += share
    if sum(own) > whole or any(share > price for share, price in zip(own, listed, strict=True)):
        # some of what is named is JD's own money: which, the row does not say
        own = [0] * len(listed)
    rest = _spread(whole - sum(own), [price - share for price, share in zip(listed, own, strict=True)])
    return [share + more for share, more in zip(own, rest, strict=True)]


def _spread(amount: int, weights: list[int]) -> list[int]:
    """An amount over weights, in whole fen and in all exactly it; over nothing, evenly."""
    weights = weights if any(weights) else [1] * len(weights)
    whole, taken, before = sum(weights), 0, 0
    found = []
    for weight in weights:
        before += weight
        upto = amount * before // whole
        found.append(upto - taken)
        taken = upto
    return found


def _adds_up(row: Mapping[str, Any], lines: tuple[Line, ...]) -> bool:
    """False where the row's own sums contradict each other."""
    total, off = _about_amount(row.get("orderTotalPrice")), _about_amount(row.get("sellerDiscount"))
    net = _about_amount(row.get("orderSellerPrice"))
    if total is not None and total != sum(line.price * line.quantity for line in lines):
        return False
    return total is None or off is None or net is None or net == total - off


def _discounts(row: Mapping[str, Any], coupons: list[dict[str, Any]]) -> tuple[Discount, ...]:
    found = []
    for at, one in enumerate(coupons):
        given = one.get("couponPrice")
        amount = 0 if unsaid(given) else _yuan(given, f"couponDetailList[{at}].couponPrice")
        if amount:
            found.append(Discount(_kind(said(one.get("couponType")) or ""), amount))
    seller = _about_amount(row.get("sellerDiscount"))
    if not coupons and seller:
        found.append(Discount("promotion", seller))
    return tuple(found)


def _kind(said_type: str) -> str:
    """coupon for what the buyer had to have (41-京东券优惠, 34-手机红包), promotion for the rest."""
    code = said_type.partition("-")[0].strip()
    return "coupon" if code in {"34", "41"} or "券" in said_type or "红包" in said_type else "promotion"


# -- refunds ---------------------------------------------------------------------------------------------------------


def _refund(raw: Raw, row: Mapping[str, Any]) -> Refund | Skip:
    """A row of refund applications: money that is back. One that is only asked for locks the order, which says so itself."""
    number, refund_id = reading.number(row.get("orderId")), reading.number(row.get("id"))
    if number is None:
        raise Fault("bad-order-id", "缺少订单号 orderId", "orderId is missing or no number", "orderId")
    if refund_id is None:
        raise Fault("missing-field", "缺少退款号", "id is missing or no number", "id")
    status = said(row.get("status"))
    if status not in _REFUNDED:
        name = (status or "")[:16]
        return Skip(f"退款未到账（状态 {name}） · the refund has moved no money (status {name})")
    amount = reading.fen(row.get("applyRefundSum"), "applyRefundSum")
    field = "applyTime" if _time(row.get("checkTime"), "checkTime") is None else "checkTime"
    return Refund(f"{raw.channel}:{raw.shop}:{number}", refund_id, amount, "CNY", reading.beijing(row.get(field), field))
