"""A Taobao or Tmall trade, as `taobao.trade.fullinfo.get` and the rows of 聚石塔 hold it, to an order.

Law: the platform adds fields, and leaves out what an app may not see; what is not used is ignored, what is used is read exactly.
What is masked (张**, 136********) stays in the address for people to read and is never an identity: identities are the open uid of
the buyer and the platform's own keys in `Order.keys`. `buyer_ip` is obfuscated: equal or not, but no address, so it is a key.

Amounts are yuan. A line's `price` is its list price, its `discount` all that came off: price × num − divide_order_fee, the
share of what was paid. Over all lines these shares are the trade's `payment`, with or without its postage; where they are not,
or where another sum contradicts its parts, the order says `amounts-differ` and stands as stated.

Status, and why
    A line that was closed is gone, as long as others are left. A refund that is asked for, or that gave a part back, is
    `refunding`: a person should look before it ships. WAIT_PRE_AUTH_CONFIRM and PAY_PENDING are not paid yet. A pre-sale whose
    balance is not paid is `created`, whatever else it says. PAID_FORBID_CONSIGN is paid and held.

The platform has no revision number. `modified` orders what it says, and has seconds only; within one, a later status goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orderstream.channels import reading
from orderstream.channels.reading import MAX_LINES, Fault, part, parts, said, unsaid
from orderstream.orders import Address, Buyer, Discount, Line, Order, Payment, Raw, Status

MAX_PROMOTIONS = 5_000
"""Each is read several times."""
MAX_SPECS = 20
"""Properties of a SKU; the platform has a handful."""

STATUS: dict[str, Status] = {
    "TRADE_NO_CREATE_PAY": "created",
    "WAIT_BUYER_PAY": "created",
    "PAY_PENDING": "created",
    "WAIT_PRE_AUTH_CONFIRM": "created",
    "WAIT_SELLER_SEND_GOODS": "paid",
    "SELLER_CONSIGNED_PART": "paid",
    "PAID_FORBID_CONSIGN": "paid",
    "WAIT_BUYER_CONFIRM_GOODS": "paid",
    "TRADE_BUYER_SIGNED": "paid",
    "TRADE_FINISHED": "paid",
    "TRADE_CLOSED": "refunded",
    "TRADE_CLOSED_BY_TAOBAO": "cancelled",
}
_CLOSED = frozenset({"TRADE_CLOSED", "TRADE_CLOSED_BY_TAOBAO"})
_ASKED = frozenset(
    {"WAIT_SELLER_AGREE", "WAIT_BUYER_RETURN_GOODS", "WAIT_SELLER_CONFIRM_GOODS", "SELLER_REFUSE_BUYER", "SUCCESS"}
)
"""Refunds under way on a line that still stands; SUCCESS there gave back a part."""
_UNPAID_STEPS = frozenset({"FRONT_NOPAID_FINAL_NOPAID", "FRONT_PAID_FINAL_NOPAID", "FRONT_PAID_FRONT_FORFEITED"})
_HOLDS = ("top_hold", "team_buy_hold", "share_group_hold", "ofp_hold", "forbid_consign")


class _Item(msgspec.Struct):
    """A line with what is only asked while the order is put together. listed, share: fen for all pieces; open: stands still."""

    line: Line
    listed: int
    share: int | None
    open: bool
    refund: str | None


def number(trade: Any) -> str | None:
    """The trade's number: `tid_str`, else `tid`, which a reader with doubles has rounded; None where there is no usable one."""
    return reading.number(part(trade).get("tid_str")) or reading.number(part(trade).get("tid"))


def order(raw: Raw, trade: Any) -> Order:
    """The order that a trade is. Raises Fault."""
    if not isinstance(trade, dict):
        raise Fault("wrong-type", "trade 不是对象", "trade is not an object", "trade")
    tid = number(trade)
    if tid is None:
        raise Fault("bad-order-id", "缺少订单号 tid", "tid is missing or no number", "trade.tid")
    promotions = parts(_listed(trade.get("promotion_details"), "promotion_detail"))
    if len(promotions) > MAX_PROMOTIONS:
        raise Fault("too-many-values", f"优惠超过 {MAX_PROMOTIONS} 项", f"more than {MAX_PROMOTIONS} promotions")
    tags: list[str] = []
    payment = _yuan(trade.get("payment"), "trade.payment")
    items = _items(trade, payment, {reading.number(one.get("gift_item_id")) for one in promotions} - {None}, tags)
    left = [one for one in items if one.open]
    status = _status(trade, left or items, tags)
    if left and len(left) < len(items):
        tags.append("lines-removed")
    if not _adds_up(trade, items, payment):
        tags.append("amounts-differ")
    if any(reading.true(trade.get(name)) for name in ("is_gift", "gifting")) or said(
        trade.get("donee_open_uid"), trade.get("donee_nick")
    ):
        tags.append("gift-order")
    modified = reading.optional_beijing(trade.get("modified"), "trade.modified")
    return Order(
        order_id=f"{raw.channel}:{raw.shop}:{tid}",
        channel=raw.channel,
        shop=raw.shop,
        number=tid,
        revision=None,
        status=status,
        created_at=reading.beijing(trade.get("created"), "trade.created"),
        updated_at=None if modified is None else reading.as_of(modified, status),
        currency="CNY",
        total=payment,
        lines=tuple(one.line for one in left or items),
        discounts=_discounts(trade, promotions, tags),
        buyer=_buyer(trade),
        payment=Payment(reading.unmasked(trade.get("buyer_alipay_no")), _method(trade)),
        ship_to=_address(trade),
        keys=_keys(trade),
        ship_by=_promised(trade),
        hold=_hold(trade),
        presale=said(trade.get("type")) == "step" or said(trade.get("step_trade_status")) is not None,
        remark=said(trade.get("buyer_message")),
        tags=tuple(tags),
    )


# -- shapes that the platform has two of -----------------------------------------------------------------------------


def _listed(given: Any, name: str) -> Any:
    """A list with or without its wrapper (`{"order": […]}`), or the one object that stands where a list should."""
    found = reading.opened(given)
    return reading.listed(found.get(name, found) if isinstance(found, dict) else found)


def _yuan(value: Any, field: str) -> int:
    return reading.amount(value, "CNY", field)


def _about(value: Any) -> int | None:
    """Fen of an amount that is only compared, also one below zero; None where it is none."""
    try:
        if isinstance(value, str) and value.startswith("-"):
            return -_yuan(value[1:], "")
        return None if unsaid(value) else _yuan(value, "")
    except Fault:
        return None


# -- lines -----------------------------------------------------------------------------------------------------------


def _items(trade: Mapping[str, Any], payment: int, gifts: set[str | None], tags: list[str]) -> list[_Item]:
    given = _listed(trade.get("orders"), "order")
    if not isinstance(given, list) or not given:
        raise Fault("no-lines", "订单没有子订单", "the trade has no orders", "trade.orders")
    if len(given) > MAX_LINES:
        raise Fault("too-many-lines", f"商品行超过 {MAX_LINES}", f"the order has more than {MAX_LINES} lines", "trade.orders")
    found: list[_Item] = []
    seen: set[str] = set()
    for at, one in enumerate(given):
        where = f"trade.orders.order[{at}]"
        if not isinstance(one, dict):
            raise Fault("wrong-type", f"{where} 不是对象", f"{where} is not an object", where)
        oid = reading.number(one.get("oid_str")) or reading.number(one.get("oid")) or str(at + 1)
        if oid in seen:
            raise Fault("duplicate-line", f"子订单号 {oid} 重复", f"two lines have the oid {oid}", f"{where}.oid")
        seen.add(oid)
        count = reading.quantity(one.get("num"), f"{where}.num")
        price = _yuan(one.get("price"), f"{where}.price")
        # where the one line's share is all that was paid, the postage is in it
        share = _share(one, _about(trade.get("post_fee")) or 0, payment if len(given) == 1 else None, where)
        off = None if share is None else price * count - share
        if off is not None and off < 0:
            tags.append("price-raised")
        free = share == 0 or price == 0
        line = Line(
            id=oid,
            code=_code(one),
            quantity=count,
            price=price,
            title=said(one.get("title")),
            spec=_spec(one.get("sku_properties_name")),
            gift=True if free and reading.number(one.get("num_iid")) in gifts else None,
            discount=None if off is None else max(off, 0),
        )
        refund = said(one.get("refund_status"))
        found.append(_Item(line, price * count, share, said(one.get("status")) not in _CLOSED, refund))
    return found


def _share(one: Mapping[str, Any], post: int, alone: int | None, where: str) -> int | None:
    """Fen that were paid for a line's goods. alone: the trade's payment, where it has this one line; None where nothing says it."""
    if not unsaid(one.get("divide_order_fee")):
        share = _yuan(one["divide_order_fee"], f"{where}.divide_order_fee")
        return share - post if share == alone and share >= post else share
    off = _about(one.get("part_mjz_discount")) or 0
    if not unsaid(one.get("payment")):
        # of several lines, none has the postage in its payment; of one, it has
        paid = _yuan(one["payment"], f"{where}.payment") - (post if alone is not None else 0)
    elif not unsaid(one.get("total_fee")):
        paid = _yuan(one["total_fee"], f"{where}.total_fee")
    else:
        return None
    return max(paid - off, 0)


def _code(one: Mapping[str, Any]) -> str | None:
    """The shop's own code of the SKU, else of the item, else the platform's number of either."""
    own = said(one.get("outer_sku_id"), one.get("outer_iid"))
    return reading.code(own, sku=reading.number(one.get("sku_id")), item=reading.number(one.get("num_iid")))


def _spec(given: Any) -> dict[str, str]:
    """`颜色分类:精装;页数:套餐` by name."""
    named = ((said(given) or "").split(";", MAX_SPECS))[:MAX_SPECS]
    pairs = (one.partition(":") for one in named)
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip() and value.strip()}


def _adds_up(trade: Mapping[str, Any], items: list[_Item], payment: int) -> bool:
    """False where the trade's own sums contradict each other."""
    post = _about(trade.get("post_fee")) or 0
    shares = [one.share for one in items]
    paid = None if None in shares else sum(share or 0 for share in shares)
    if paid is not None and payment not in {paid, paid + post}:
        return False
    goods = _about(trade.get("total_fee"))
    if goods is not None and goods != sum(one.listed for one in items):
        return False
    for one, item in zip(_listed(trade.get("orders"), "order"), items, strict=True):
        fees = [_about(one.get(name)) for name in ("total_fee", "adjust_fee", "discount_fee")]
        if None not in fees and fees[0] != item.listed + (fees[1] or 0) - (fees[2] or 0):
            return False
    return True


# -- the trade -------------------------------------------------------------------------------------------------------


def _status(trade: Mapping[str, Any], items: list[_Item], tags: list[str]) -> Status:
    stated = said(trade.get("status"))
    status = STATUS.get(stated or "")
    if status is None:
        tags.append("status-unknown")
        return "created"
    if status == "paid":
        if said(trade.get("step_trade_status")) in _UNPAID_STEPS:
            return "created"
        if all(not one.open for one in items):
            return "refunded"
        if any(one.refund in _ASKED for one in items):
            return "refunding"
    return status


def _discounts(trade: Mapping[str, Any], promotions: list[dict[str, Any]], tags: list[str]) -> tuple[Discount, ...]:
    found = []
    for at, one in enumerate(promotions):
        given = one.get("discount_fee")
        amount = 0 if unsaid(given) else _yuan(given, f"trade.promotion_details.promotion_detail[{at}].discount_fee")
        if amount:
            found.append(Discount("coupon" if _coupon(one) else "promotion", amount))
    whole = _about(trade.get("discount_fee"))
    if not promotions and whole is not None and whole > 0:
        found.append(Discount("promotion", whole))
    red = trade.get("coupon_fee")
    if said(red) not in {None, "0"} and not any(one.kind == "coupon" for one in found):
        # a red packet was used; in which unit its amount stands is not documented, so it takes nothing off here
        found.append(Discount("coupon", 0))
        tags.append("coupon-amount-unknown")
    return tuple(found)


def _coupon(one: Mapping[str, Any]) -> bool:
    name, tool = said(one.get("promotion_name")) or "", (said(one.get("promotion_id")) or "").lower()
    return "券" in name or "红包" in name or tool.startswith("shopbonus") or "coupon" in tool


def _method(trade: Mapping[str, Any]) -> str | None:
    if said(trade.get("type")) == "cod":
        return "cod"
    return said(trade.get("pay_channel")) or ("alipay" if said(trade.get("alipay_no")) else None)


def _buyer(trade: Mapping[str, Any]) -> Buyer:
    address = said(trade.get("buyer_ip"))
    return Buyer(
        id=said(trade.get("buyer_open_uid")) or reading.unmasked(trade.get("buyer_nick")),
        ip=None if address is None else reading.ip(address),
        email=reading.unmasked(trade.get("buyer_email")),
    )


def _keys(trade: Mapping[str, Any]) -> dict[str, str]:
    named = {name: reading.unmasked(trade.get(name)) for name in ("oaid", "buyer_ip")}
    if named["buyer_ip"] is not None and reading.ip(named["buyer_ip"]) is not None:
        named["buyer_ip"] = None
    return {name: value for name, value in named.items() if value is not None}


def _address(trade: Mapping[str, Any]) -> Address | None:
    place = {name: said(trade.get(f"receiver_{name}")) for name in ("name", "mobile", "phone", "country", "state", "city")}
    # not the town alone: half a district would look like one address
    street = said(trade.get("receiver_address"))
    found = Address(
        name=place["name"],
        phone=place["mobile"] or place["phone"],
        country=place["country"],
        province=place["state"],
        city=place["city"],
        district=said(trade.get("receiver_district")),
        detail=None if street is None else (said(trade.get("receiver_town")) or "") + street,
        postcode=said(trade.get("receiver_zip")),
    )
    return None if found == Address() else found


def _promised(trade: Mapping[str, Any]) -> int | None:
    """When a pre-sale was promised to leave; a text that is no time is none."""
    try:
        return reading.optional_beijing(trade.get("send_time"), "trade.send_time")
    except Fault:
        return None


def _hold(trade: Mapping[str, Any]) -> str | None:
    """The platform's own words for "do not ship"."""
    causes = [name for name in _HOLDS if reading.true(trade.get(name))]
    if said(trade.get("status")) == "PAID_FORBID_CONSIGN":
        causes.append("PAID_FORBID_CONSIGN")
    marked = said(trade.get("mark_desc"))
    if marked is not None:
        causes.append(marked[:200])
    return "; ".join(causes) or None
