"""Normalise: raw records of one partition to orders, their facts and their dossiers.

Law: what is known of an order is a function of the set of its records. Its revision in force is the greatest by
(revision, updated_at, received_at); a repeat of it changes nothing, in whatever order they come; it was
received when its earliest record was. A channel that numbers its revisions repeats one by its number; of one that only tells a
time, in whole seconds, two records of one time that say different things are two revisions. Catalogue and pack are those in force
when the revision was received. A record that we put back to have it read `again` is a revision of its own, right behind the one
that it repeats.
Reason: webhooks are repeated, overtake each other, and come after a crash once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from orderstream import channels
from orderstream.catalogue import Catalogue
from orderstream.facts import Dossier, Fact
from orderstream.identity import Keys
from orderstream.orders import WITHDRAWN, Order, Paid, Raw, Refund, Rejected, Replaced, Skip
from orderstream.pages import Page
from orderstream.reading import Reading, Revision, since
from orderstream.rules.pack import Pack
from orderstream.shelf import LARGE, Frozen, Shelf
from orderstream.times import DAY

MEMORY = 60 * DAY
"""How long after its event time an order's records are told from new ones (ms); a cancellation after it finds no order."""

SWEEP = 1000
"""Orders that are packed up at once, at most: a batch's length, and some milliseconds."""

ABSENT = -1

PAYMENT_DIFFERS = "实付金额与订单金额不符 · what was paid is not what the order costs"


class Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An order as one of its records had it. received_at: ms; body: that record in short (`_short`)."""

    order: Order
    received_at: int
    body: str


class Told(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """That an entity was told a fact: its version, a number for what it says, and its `since` (ms)."""

    version: int
    number: int
    since: int


class Ground(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What all facts in force have in common: event time (ms), pack, and whether they enter windows."""

    at: int
    pack: str
    enters: bool


class OrderState(msgspec.Struct, array_like=True):
    """What normalise remembers of an order.

    version: of its last dossier. said: that dossier, in short. current: the order in force (None: only refunds have come);
    window: the last one in time to move windows, where that is an earlier one. facts: what its entities were told, on which
    ground; gone: what they were told to forget. refunds, payments: money that went and came, by its own number; replaced: whether
    other orders stand in its place. position: of the last record that counted.
    """

    order: str
    version: int
    at: int
    revisions: list[Revision] = []
    facts: dict[str, Told] = {}
    ground: Ground | None = None
    gone: dict[str, Fact] = {}
    refunds: dict[str, Refund] = {}
    current: Kept | None = None
    window: Kept | None = None
    said: bytes = b""
    position: int = -1
    payments: dict[str, Paid] = {}
    replaced: bool = False


_state = msgspec.msgpack.Decoder(OrderState)


class Rejection(msgspec.Struct, rename={"body": "body_base64", "detail": "detail_base64"}, omit_defaults=True):
    """A record of orders.rejected: what can't be one order, why, and its original bytes, with all of their envelope."""

    order_id: str
    channel: str
    shop: str
    received_at: int
    code: str
    reason: str
    field: str | None
    pack: str
    verified: str
    headers: dict[str, str]
    body: bytes
    detail: bytes | None = None

    @property
    def sentence(self) -> str:
        """The reason with its place, as people read it."""
        return f"{self.field}: {self.reason}" if self.field else self.reason


class Normalised(msgspec.Struct):
    """What a raw record leads to; all empty for a repeat or a skip."""

    facts: dict[str, Fact] = {}
    dossier: Dossier | None = None
    rejected: Rejection | None = None
    skipped: str | None = None
    state: OrderState | None = None


class Books(msgspec.Struct):
    """What every worker reads: the catalogue and the packs as of a time (ms UTC)."""

    catalogue: Catalogue
    pack_at: Callable[[int], Pack]


class Normaliser:
    """The orders of one of so many partitions. keys: how entities are named; books: catalogue and packs."""

    def __init__(self, books: Books, keys: Keys, partitions: int = 1) -> None:
        self._books = books
        self._keys = keys
        self.orders: Shelf[OrderState] = Shelf(msgspec.msgpack.encode, _thaw, LARGE * partitions)
        self.progress = 0
        """The latest received_at (ms) that has been read here."""

    def process(self, raw: Raw, position: int, now: int) -> Normalised:
        """Takes a raw record in. position: its place in its partition; the same record read again gets the same again.

        now: ms, when this happens, for the timings only.
        """
        self.progress = max(self.progress, raw.received_at)
        channel = channels.registry().get(raw.channel)
        if channel is None:
            digest = hashlib.sha256(raw.body).hexdigest()
            why = f"没有渠道 {raw.channel} 的解析 · nothing here reads the channel {raw.channel}"
            return Normalised(rejected=self._turn(raw, Rejected(f"raw:{digest}", "unknown-channel", why)))
        parsed = channel.parse(raw)
        if isinstance(parsed, Order):
            return self._order(raw, parsed, position, now)
        if isinstance(parsed, Skip):
            return Normalised(skipped=parsed.reason)
        if isinstance(parsed, Rejected):
            return Normalised(rejected=self._turn(raw, parsed))
        return self._event(raw, parsed, position, now)

    def forget(self, order: str) -> OrderState | None:
        """Drops what an order's records say of anybody; None where there is nothing. Its facts and what was decided stay.

        What the channel sends of it afterwards is read as ever.
        """
        state = self.orders.get(order)
        if state is None or state.current is None:
            return None
        state.current = state.window = None
        return state

    def log(self, state: OrderState) -> bytes:
        """What is to be remembered of an order, for `restore`. It lies as these bytes from then on.

        Most are never asked for again; an object is taken apart for less while it is in the processor's cache, and as long as it is
        one the collector goes through it.
        """
        sealed = msgspec.msgpack.encode(state)
        self.orders.lay(state.order, sealed)
        return sealed

    def restore(self, order: str, state: bytes, progress: int) -> None:
        """Puts back what `log` gave. progress: as it was then (ms)."""
        self.progress = max(self.progress, progress)
        if self.orders.lay(order, state):
            self.orders.remind(self.progress + MEMORY, order)

    def lay(self, page: Page, progress: int) -> None:
        """Puts back what `dump` gave, in place of what is known of the same orders."""
        self.progress = max(self.progress, progress)
        self.orders.lay_page(page)

    def dump(self) -> Iterator[Page]:
        """All orders with their states, for `lay`, in any number of helpings."""
        return self.orders.dump(_whole)

    def sweep(self) -> None:
        """Forgets orders whose MEMORY is over by the data's own time, and packs up those that are not asked for."""
        for order in self.orders.until(self.progress):
            state = self.orders.peek(order)
            if state is None:
                continue
            if state.at < self.progress - MEMORY:
                self.orders.discard(order)
            else:
                self.orders.remind(state.at + MEMORY, order)
        self.orders.cool(SWEEP)

    # -- the set of an order's records -----------------------------------------------------------------------------

    def _order(self, raw: Raw, order: Order, position: int, now: int) -> Normalised:
        state = self._state(order.order_id, order.created_at)
        body = _short(raw, order)
        told = order.revision if order.revision is not None else ABSENT
        updated = order.updated_at if order.updated_at is not None else ABSENT
        if raw.again:
            body = f"{body}@{raw.received_at}"
        same = self._same(state, told, updated, body, again=raw.again)
        if same is not None:
            if same.position == position:
                return self._again(state, position, now)
            if (same.received_at, same.body) <= (raw.received_at, body):
                return Normalised()
            state.revisions.remove(same)
        revision = Revision(told, updated, raw.received_at, body, frozenset(), position, raw.again)
        state.revisions.append(revision)
        if len(state.revisions) > 1:
            state.revisions.sort(key=lambda r: (r.key, r.body))
        state.position = position
        kept = Kept(order, raw.received_at, body)
        reading = self._read(state, kept)
        if not state.version and len(state.revisions) == 1:
            reading.stamp = (1, raw.received_at)
        revision.said = reading.said()
        last = state.revisions[-1] is revision
        self._keep_window(state, reading, kept, revision, last=last)
        if not last:
            # an older revision of an order that is forgotten: what is in force cannot be read any more
            return self._settle(state, now) if state.current is not None else Normalised(state=state)
        state.current = kept
        return self._settle(state, now, None if state.refunds or state.payments or state.replaced else reading)

    def _keep_window(self, state: OrderState, reading: Reading, kept: Kept, revision: Revision, *, last: bool) -> None:
        """Remembers the last record that came in time to move windows, once a later one is in force that did not."""
        if reading.movable:
            if last:
                state.window = None
            elif state.current is not None and not self._reading(state, state.current).movable:
                before = state.window
                if before is None or self._key(state, before) < revision.key:
                    state.window = kept
        elif last and state.window is None and state.current is not None:
            state.window = state.current

    @staticmethod
    def _key(state: OrderState, kept: Kept) -> tuple[int, int, int]:
        return max((r.key for r in state.revisions if r.body == kept.body), default=(ABSENT, ABSENT, 0))

    def _state(self, order: str, at: int) -> OrderState:
        state = self.orders.get(order)
        if state is None:
            state = OrderState(order, 0, at)
            self.orders.put(order, state)
            self.orders.remind(self.progress + MEMORY, order)
        return state

    def _read(self, state: OrderState, kept: Kept) -> Reading:
        first = min([r.received_at for r in state.revisions])
        pack = self._books.pack_at(kept.received_at)
        return Reading(kept.order, pack, kept.received_at, first, self._books.catalogue, self._keys)

    @staticmethod
    def _same(state: OrderState, number: int, updated: int, body: str, *, again: bool) -> Revision | None:
        """The revision that a record repeats. Where the channel gives no number, it must also say the same."""
        for revision in state.revisions:
            told = revision.again == again and (revision.number, revision.updated_at) == (number, updated)
            if told and ((not again and number != ABSENT) or revision.body == body):
                return revision
        return None

    def _again(self, state: OrderState, position: int, now: int) -> Normalised:
        """The record that made this state, read once more after a crash: everything is said once more."""
        if state.position != position or state.current is None:
            return Normalised()
        return self._settle(state, now, again=True)

    def _event(self, raw: Raw, event: Refund | Paid | Replaced, position: int, now: int) -> Normalised:
        """What happened to an order beside its revisions, before it was told of or after."""
        state = self._state(event.order_id, raw.received_at if isinstance(event, Replaced) else event.at)
        if isinstance(event, Refund):
            new = _add(state.refunds, event.refund_id, event)
        elif isinstance(event, Paid):
            new = _add(state.payments, event.payment_id, event)
        else:
            new, state.replaced = not state.replaced, True
        if not new:
            return self._again(state, position, now)
        state.position = position
        return self._settle(state, now) if state.current is not None else Normalised(state=state)

    def _reading(self, state: OrderState, kept: Kept) -> Reading:
        """One of the order's records, read anew, with what has happened since."""
        order = _with_refunds(_with_payments(kept.order, state.payments, state.refunds), state.refunds)
        if state.replaced and order.status not in WITHDRAWN:
            order = msgspec.structs.replace(order, status="cancelled", tags=(*order.tags, "replaced"))
        return self._read(state, msgspec.structs.replace(kept, order=order) if order is not kept.order else kept)

    def _settle(self, state: OrderState, now: int, reading: Reading | None = None, *, again: bool = False) -> Normalised:
        """Works out what follows from all the order's records, and says what is new in it; all of it where it is said again."""
        assert state.current is not None
        reading = reading or self._reading(state, state.current)
        state.at = reading.at
        version = state.version + 1
        ground, told, facts = self._facts(state, reading, version)
        new = {key: fact for key, fact in facts.items() if fact.version == version} if state.version else facts
        gone: dict[str, Fact] = {}
        for key, old in state.facts.items():
            if key not in told:
                assert state.ground is not None
                gone[key] = Fact(
                    state.order, version, state.ground.at, old.since, state.ground.pack, enters=False, gone=True
                )  # fmt: skip
        dossier = reading.dossier(version, {key: one.version for key, one in told.items()}, state.revisions, now)
        said = dossier.said()
        if state.version and not new and not gone and said == state.said:
            if not again:
                return Normalised(state=state)
            dossier = msgspec.structs.replace(dossier, version=state.version)
            return Normalised(facts=facts | state.gone, dossier=dossier, state=state)
        if state.gone or gone:
            state.gone = {k: g for k, g in state.gone.items() if k not in told} | gone
        state.facts = told
        state.ground = ground
        state.version = version
        state.said = said
        if again:
            new = facts | state.gone
        elif gone:
            new |= gone
        return Normalised(facts=new, dossier=dossier, state=state)

    def _facts(self, state: OrderState, reading: Reading, version: int) -> tuple[Ground | None, dict[str, Told], dict[str, Fact]]:
        """The facts in force: their ground, what is remembered of each, and, of an order that stands, what they say.

        Each has the version at which it became what it is.
        """
        if reading.order.status in WITHDRAWN:
            # what an entity no longer keeps can't be taken from it: its windows are judged as they were
            return state.ground, {key: told for key, told in state.facts.items() if not reading.kept(key)}, {}
        if not reading.movable and state.window is None and state.version:
            # what was in time is forgotten: the windows stay as it left them
            return state.ground, {**state.facts}, {}
        if not reading.movable and state.window is not None:
            in_time = self._reading(state, state.window)
            reading = reading if in_time.order.status in WITHDRAWN else in_time
        ground = Ground(reading.at, reading.pack.version, not reading.late)
        told: dict[str, Told] = {}
        facts: dict[str, Fact] = {}
        numbers = reading.numbers()
        revisions = state.revisions
        only = revisions[0].received_at if len(revisions) == 1 else None
        if only is not None and reading.stamp == (version, only):
            # an order's first record, the ordinary case: everything is new, and said since then
            return ground, {key: Told(version, number, only) for key, number in numbers.items()}, reading.facts()
        before = state.facts if ground == state.ground else {}
        for key, fact in reading.facts().items():
            number = numbers[key]
            one = Told(version, number, since(revisions, number) if only is None else only)
            old = before.get(key)
            if old is not None and (old.number, old.since) == (one.number, one.since):
                one = old
            told[key] = one
            facts[key] = msgspec.structs.replace(fact, version=one.version, since=one.since)
        return ground, told, facts

    def _turn(self, raw: Raw, rejected: Rejected) -> Rejection:
        pack = self._books.pack_at(raw.received_at)
        return Rejection(
            rejected.order_id,
            raw.channel,
            raw.shop,
            raw.received_at,
            rejected.code,
            rejected.reason,
            rejected.field,
            pack.version,
            raw.verified,
            raw.headers,
            raw.body,
            raw.detail,
        )


def _thaw(order: str, frozen: Frozen) -> OrderState:
    del order
    assert isinstance(frozen, bytes)
    return _state.decode(frozen)


def _whole(order: str, minute: int, held: Frozen | OrderState) -> bytes:
    del order, minute
    return held if isinstance(held, bytes) else msgspec.msgpack.encode(held)


def _short(raw: Raw, order: Order) -> str:
    """A record in short: its bytes, or what they say where the channel does not number its revisions.

    A list's row and a push's detail say the same in other bytes.
    """
    said = raw.body if order.revision is not None else msgspec.msgpack.encode(order)
    return hashlib.sha256(said).hexdigest()[:16]


Moved = TypeVar("Moved", Refund, Paid)


def _add(known: dict[str, Moved], number: str, moved: Moved) -> bool:
    """Takes in what is said of one movement of money; False where it says no more than is known.

    A refund under way is told as 0 and once more when the money is back: the greater counts, in whatever order they come.
    """
    old = known.get(number)
    if old is not None and (old.amount, old.at, old.currency) >= (moved.amount, moved.at, moved.currency):
        return False
    known[number] = moved
    return True


def _with_payments(order: Order, payments: Mapping[str, Paid], refunds: Mapping[str, Refund]) -> Order:
    """Money that came: an order that waits for it is paid. One that was paid another sum than it costs says so and is held."""
    if not payments:
        return order
    came = sum(p.amount for p in payments.values())
    back = sum(r.amount for r in refunds.values() if r.currency == order.currency)
    # a site may lower the total by what went back
    right = {p.currency for p in payments.values()} == {order.currency} and came in (order.total, order.total + back)
    tags = order.tags if right else (*order.tags, "payment-differs")
    if order.status != "created":
        return msgspec.structs.replace(order, tags=tags)
    hold = order.hold if right or order.hold else PAYMENT_DIFFERS
    return msgspec.structs.replace(order, status="paid", tags=tags, hold=hold)


def _with_refunds(order: Order, refunds: Mapping[str, Refund]) -> Order:
    """Money that went back, as the order's status: all of it withdraws the order, a part is a refund under way."""
    if not refunds or order.status in WITHDRAWN or order.status == "created":
        return order
    back = sum(r.amount for r in refunds.values() if r.currency == order.currency)
    if back <= 0:
        return order
    return msgspec.structs.replace(order, status="refunded" if back >= order.total else "refunding")
