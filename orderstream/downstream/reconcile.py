"""A day of a shop, counted twice: what its channel told of, and what came of it here and in the ERP.

Law: money is integer minor units of one currency and every order is in exactly one of the figures beside `came`, so that
came = unpaid + withdrawn + held + released + unjudged, to the last coin. What two sides say otherwise of an order is a
difference with both their words; what nobody says is a difference too, and never taken for agreement.

The channel's side is read from the raw records, by the same parsers and the same rule for which revision is in force as live.
Orders belong to the day on which they were created, refunds to the day on which they were paid back, in the shop's time zone.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from psycopg.types.json import Jsonb

from orderstream import access, channels, kafka, money, topics, wire
from orderstream.board.store import Db, now
from orderstream.downstream import store
from orderstream.downstream.flow import Flow, current
from orderstream.errors import BadFile
from orderstream.orders import CHANNELS, WITHDRAWN, Order, Raw, Refund
from orderstream.settings import Settings
from orderstream.times import HOUR

Kind = Literal[
    "unjudged", "total-differs", "not-acknowledged", "refused", "booked-differs", "booked-unsaid", "not-stopped", "not-withdrawn",
    "refund-differs", "refund-unsaid", "unknown-to-channel",
]  # fmt: skip
SENTENCES: dict[Kind, str] = {
    "unjudged": "渠道有，尚无判定 · the channel has it, no verdict is known",
    "total-differs": "放行金额与渠道不同 · released with another total than the channel's",
    "not-acknowledged": "已放行，ERP 没有确认 · released, and the ERP has not acknowledged it",
    "refused": "ERP 拒收 · the ERP refused it",
    "booked-differs": "ERP 入账金额不同 · the ERP has booked another amount",
    "booked-unsaid": "ERP 没有说入账金额 · the ERP does not say what it has booked",
    "not-stopped": "已召回，ERP 没有停下 · recalled, and the ERP has not stopped it",
    "not-withdrawn": "渠道已取消或全额退款，仍在放行 · cancelled or refunded in full at the channel, still released",
    "refund-differs": "部分退款，ERP 退的金额不同 · paid back in part, and the ERP has paid back another sum",
    "refund-unsaid": "部分退款，ERP 没有说退了多少 · paid back in part, and the ERP does not say what it has paid back",
    "unknown-to-channel": "渠道没有此单的记录 · no record of the channel tells of it",
}

BOOKED = frozenset(("accepted", "changed", "intercept"))
"""What an ERP says of an order that is in its books; what it chases on its way still is."""


class Place(NamedTuple):
    """Whose figures: one shop's in one currency."""

    channel: str
    shop: str
    currency: str


class Sum(msgspec.Struct):
    """So many orders (or refunds), and their money in minor units."""

    count: int = 0
    amount: int = 0

    def add(self, amount: int) -> None:
        self.count += 1
        self.amount += amount


class Figures(msgspec.Struct):
    """A day of a shop. came: created that day; the next five are all of it by the channel's money. applied: the ERP's own money.

    refunds: paid back that day, of orders of any day.
    """

    came: Sum = msgspec.field(default_factory=Sum)
    unpaid: Sum = msgspec.field(default_factory=Sum)
    withdrawn: Sum = msgspec.field(default_factory=Sum)
    held: Sum = msgspec.field(default_factory=Sum)
    released: Sum = msgspec.field(default_factory=Sum)
    unjudged: Sum = msgspec.field(default_factory=Sum)
    applied: Sum = msgspec.field(default_factory=Sum)
    refunds: Sum = msgspec.field(default_factory=Sum)


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two sides that disagree on an order. expected, found: minor units, None where a side has no amount."""

    order_id: str
    kind: Kind
    expected: int | None = None
    found: int | None = None
    detail: str = ""


class Reconciled(NamedTuple):
    """A day's result. differences are sorted by order id and kind."""

    figures: dict[Place, Figures]
    differences: dict[Place, list[Difference]]


class _Told(NamedTuple):
    received_at: int
    body: bytes
    order: Order


class ChannelSide:
    """What the channels told of: orders as they are in force, and refunds. Take records in any order, as often as they come."""

    def __init__(self) -> None:
        self._orders: dict[str, dict[tuple[int, int, bytes], _Told]] = {}
        self.refunds: dict[tuple[str, str], Refund] = {}

    def take(self, raw: Raw) -> None:
        """Reads one raw record; what is no order and no refund is on orders.rejected, and no part of this."""
        channel = channels.registry().get(raw.channel)
        parsed = channel.parse(raw) if channel is not None else None
        if isinstance(parsed, Refund):
            known = self.refunds.get((parsed.order_id, parsed.refund_id))
            # as live: one under way is told as 0, and once more when the money is back
            if known is None or (known.amount, known.at) < (parsed.amount, parsed.at):
                self.refunds[parsed.order_id, parsed.refund_id] = parsed
        elif isinstance(parsed, Order):
            revision = -1 if parsed.revision is None else parsed.revision
            updated = -1 if parsed.updated_at is None else parsed.updated_at
            # where a channel gives neither number nor time, only the same bytes are a repeat
            name = (revision, updated, raw.body if (revision, updated) == (-1, -1) else b"")
            told = _Told(raw.received_at, raw.body, parsed)
            revisions = self._orders.setdefault(parsed.order_id, {})
            if name not in revisions or told[:2] < revisions[name][:2]:
                revisions[name] = told

    def orders(self) -> dict[str, Order]:
        """Order id -> the order in force, with what its refunds make of its status."""
        back: dict[str, list[Refund]] = {}
        for refund in self.refunds.values():
            back.setdefault(refund.order_id, []).append(refund)
        found: dict[str, Order] = {}
        for order_id, revisions in self._orders.items():
            name = max(revisions, key=lambda one: (one[:2], revisions[one].received_at, revisions[one].body))
            order = revisions[name].order
            paid_back = sum(refund.amount for refund in back.get(order_id, ()) if refund.currency == order.currency)
            if paid_back >= order.total > 0 and order.status not in WITHDRAWN and order.status != "created":
                order = msgspec.structs.replace(order, status="refunded")
            found[order_id] = order
        return found


def compare(side: ChannelSide, flows: Mapping[str, Flow], since: int, until: int, earlier: Iterable[Refund] = ()) -> Reconciled:
    """A day, [since, until) ms. flows: at least those of the orders that the channels told of, or that were created that day.

    earlier: refunds that were told before of the orders that the channels tell refunds of now.
    """
    figures: dict[Place, Figures] = {}
    differences: dict[Place, list[Difference]] = {}
    orders = side.orders()
    for order_id, order in sorted(orders.items()):
        if since <= order.created_at < until:
            place = Place(order.channel, order.shop, order.currency)
            found = _order(figures.setdefault(place, Figures()), order, flows.get(order_id))
            differences.setdefault(place, []).extend(found)
    for refund in side.refunds.values():
        if since <= refund.at < until:
            place = Place(*store.place(refund.order_id), refund.currency)
            figures.setdefault(place, Figures()).refunds.add(refund.amount)
    for place, difference in _refunds(side, orders, flows, since, until, earlier):
        differences.setdefault(place, []).append(difference)
    for order_id, flow in sorted(flows.items()):
        said = current(flow)
        created = flow.judged.created_at if flow.judged is not None else None
        if order_id not in orders and created is not None and since <= created < until:
            currency = next((one.currency for one in flow.said if one.currency), "")
            place = Place(*store.place(order_id), currency)
            figures.setdefault(place, Figures())
            amount = said.total if said is not None and said.released else None
            differences.setdefault(place, []).append(Difference(order_id, "unknown-to-channel", None, amount))
    return Reconciled(figures, {place: sorted(found, key=lambda d: (d.order_id, d.kind)) for place, found in differences.items()})


def _refunds(
    side: ChannelSide, orders: Mapping[str, Order], flows: Mapping[str, Flow], since: int, until: int, earlier: Iterable[Refund]
) -> Iterable[tuple[Place, Difference]]:
    """Orders created that day or paid back in part that day, of which the ERP has paid back another sum than the channel by now."""
    told: dict[tuple[str, str], Refund] = {}
    for one in (*earlier, *side.refunds.values()):
        known = told.setdefault((one.order_id, one.refund_id), one)
        if known.amount < one.amount:
            told[one.order_id, one.refund_id] = one
    sums: Counter[tuple[str, str]] = Counter()
    for one in told.values():
        sums[one.order_id, one.currency] += one.amount
    names = {one.order_id for one in side.refunds.values() if since <= one.at < until}
    names |= {order_id for order_id, order in orders.items() if since <= order.created_at < until}
    for order_id in sorted(names & flows.keys()):
        said, ack = current(flows[order_id]), flows[order_id].acks.get("erp")
        if said is None or not said.released or ack is None or ack.seq < said.seq or ack.effect not in BOOKED:
            continue  # nothing is booked, or `_booked` has said what is wrong
        place = Place(*store.place(order_id), said.currency)
        back = sums[order_id, said.currency]
        order = orders.get(order_id)
        if (order is not None and order.status in WITHDRAWN) or back >= said.total > 0:
            if order is None and flows[order_id].shipped_at is None:
                yield place, Difference(order_id, "not-withdrawn", 0, said.total, "refunded")
            continue
        if ack.refunded is None and back:
            yield place, Difference(order_id, "refund-unsaid", back)
        elif (ack.refunded or 0) != back:
            yield place, Difference(order_id, "refund-differs", back, ack.refunded)


def _order(sums: Figures, order: Order, flow: Flow | None) -> list[Difference]:
    """Adds an order to the figures; where its sides disagree."""
    sums.came.add(order.total)
    said = current(flow) if flow is not None else None
    found: list[Difference] = []
    if order.status == "created":
        sums.unpaid.add(order.total)
    elif order.status in WITHDRAWN:
        sums.withdrawn.add(order.total)
    elif said is not None and said.released:
        sums.released.add(order.total)
        if said.total != order.total:
            found.append(Difference(order.order_id, "total-differs", order.total, said.total))
    elif flow is not None and flow.judged is not None:
        sums.held.add(order.total)
    else:
        sums.unjudged.add(order.total)
        found.append(Difference(order.order_id, "unjudged", order.total))
    if flow is None or said is None:
        return found
    if said.released and order.status in WITHDRAWN and flow.shipped_at is None:
        found.append(Difference(order.order_id, "not-withdrawn", 0, said.total, order.status))
    return [*found, *_booked(sums, order.order_id, flow)]


def _booked(sums: Figures, order_id: str, flow: Flow) -> list[Difference]:
    """What the ERP says of the release or recall in force."""
    said, ack = current(flow), flow.acks.get("erp")
    assert said is not None
    booked = ack is not None and ack.effect in BOOKED
    if ack is not None and booked and ack.total is not None:
        sums.applied.add(ack.total)
    if not said.released:
        # one that it never had, or took back, or chases on its way
        left = ack is not None and ack.effect in ("accepted", "changed")
        return [Difference(order_id, "not-stopped", 0, ack.total)] if ack is not None and left else []
    if ack is None or ack.seq < said.seq:
        return [Difference(order_id, "not-acknowledged", said.total)]
    if ack.effect == "refused":
        return [Difference(order_id, "refused", said.total, None, ack.reason or "")]
    if not booked:
        return [Difference(order_id, "booked-differs", said.total, 0, ack.effect)]
    if ack.total is None:
        return [Difference(order_id, "booked-unsaid", said.total)]
    if (ack.total, ack.currency) != (said.total, said.currency):
        return [Difference(order_id, "booked-differs", said.total, ack.total, f"{ack.effect}, {ack.currency}")]
    return []


# -- from Kafka and PostgreSQL ------------------------------------------------------------------------------------------


def bounds(day: date, zone: str) -> tuple[int, int]:
    """[since, until) of a day in a time zone, ms UTC: 23 to 25 hours."""
    begins = [datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)) for d in (day, day + timedelta(days=1))]
    return int(begins[0].timestamp() * 1000), int(begins[1].timestamp() * 1000)


def told(settings: Settings, brokers: str, since: int) -> ChannelSide:
    """The channels' side from the raw topics, of records that came after `since`, ms. Raises NoBroker, TopicsUnfit."""
    side = ChannelSide()
    names = [topics.raw(channel, settings.topic_prefix) for channel in CHANNELS]
    for message in kafka.scan(brokers, names, max(0, since), access.client(settings)):
        try:
            raw = wire.read_raw(message.topic, message.headers, message.value, message.timestamp)
        except wire.EnvelopeError:
            continue
        side.take(raw)
    return side


def reconcile(settings: Settings, brokers: str, db: Db, day: date) -> Reconciled:
    """Counts a day anew and keeps the result in board.reconciliations. Raises NoBroker, TopicsUnfit, NoDatabase."""
    since, until = bounds(day, settings.timezone)
    # a channel's clock may be ahead of ours
    side = told(settings, brokers, since - HOUR)
    paid_back = sorted({order_id for order_id, _ in side.refunds})
    flows = {**store.of_day(db, since, until), **store.read(db, [*side.orders(), *paid_back])}
    earlier = store.refunds(db, paid_back)
    found = compare(side, flows, since, until, earlier)
    with db.transaction():
        store.keep_refunds(db, side.refunds.values())
        db.execute("DELETE FROM board.reconciliations WHERE day = %s", (day,))
        for place, sums in found.figures.items():
            db.execute(
                "INSERT INTO board.reconciliations VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (day, *place, now(), _json(sums), _json(found.differences.get(place, []))),
            )
    return found


def _json(value: object) -> Jsonb:
    return Jsonb(value, dumps=msgspec.json.encode)


HEADINGS = ("day", "channel", "shop", "order_id", "kind", "currency", "expected", "found", "difference", "says")


def rows(day: date, found: Reconciled) -> Iterable[tuple[str, ...]]:
    """The differences as a table, in HEADINGS' order; amounts are decimal text of the currency, exact."""
    for place, several in sorted(found.differences.items()):
        for one in several:

            def text(amount: int | None, currency: str = place.currency) -> str:
                return "" if amount is None else money.major(amount, currency)

            off = one.found - one.expected if one.expected is not None and one.found is not None else None
            says = SENTENCES[one.kind] + (f" ({one.detail})" if one.detail else "")
            yield (
                day.isoformat(), place.channel, place.shop, one.order_id, one.kind, place.currency,
                text(one.expected), text(one.found), text(off), says,
            )  # fmt: skip


def as_csv(day: date, found: Reconciled) -> str:
    """The differences as CSV, with a mark by which a spreadsheet knows that it is UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEADINGS)
    writer.writerows([[_plain(cell) for cell in row] for row in rows(day, found)])
    return "\ufeff" + out.getvalue()


def _plain(cell: str) -> str:
    """What a spreadsheet would take for a formula is text. A negative amount is none."""
    return "'" + cell if cell[:1] in "=+@\t\r" and cell else cell


def write(path: Path, text: str) -> None:
    """Raises BadFile."""
    try:
        path.write_text(text, "utf-8", newline="")
    except OSError as error:
        raise BadFile(f"文件 {path} 不可写 · cannot write {path}: {error.strerror}") from None


def summary(found: Reconciled) -> list[tuple[str, ...]]:
    """The figures as rows for people: shop, currency, then count and money of each figure, then how many differences."""
    return [
        (
            f"{place.channel}:{place.shop}",
            place.currency,
            *(
                f"{(one := getattr(sums, name)).count} / {money.major(one.amount, place.currency)}"
                for name in Figures.__struct_fields__
            ),
            str(len(found.differences.get(place, []))),
        )
        for place, sums in sorted(found.figures.items())
    ]
