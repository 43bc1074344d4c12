"""An article: one line of a catalogue file, checked to the letter.

Law: what a worker could not live with is refused where it is written, with a sentence: a price that is no price, a bundle of
itself, a campaign that ends before it begins. What only the whole catalogue can say (a code of two articles, bundles that hold
each other) is `index`'s.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from orderstream import money, times

ALWAYS = -1
"""`at` of an entry that holds from the beginning."""

MAX_PIECES = 10_000
"""Of a component in a bundle: past it is a mistake."""

MAX_GRAMS = 10**9


class CatalogueError(ValueError):
    """A catalogue line that cannot be an article; the sentence says which line and why."""


class Colour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """hex: "#C8A26B", as measured or as the shop's page shows it."""

    name: str
    hex: str | None = None


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A channel's name for the article; shop None: in every shop of the channel."""

    channel: str
    code: str
    shop: str | None = None


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    sku: str
    quantity: int


class Gift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One condition under which an article is given: lines of `with_any` (empty: any main line) that come to min_total.

    min_total: major units of the article's currency. every: a piece for each full min_total (where that is 0: for each piece of
    those lines). most: pieces an order. campaign: its name; it runs for orders created in [since, until) (ISO 8601), and only
    `where` (a channel, or `channel:shop`; empty: everywhere).
    """

    with_any: tuple[str, ...] = ()
    min_total: Decimal = Decimal(0)
    every: bool = False
    most: int | None = None
    campaign: str | None = None
    since: str | None = None
    until: str | None = None
    where: tuple[str, ...] = ()


class CustomsNeeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    required: tuple[str, ...] = ()


class Article(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One line of a catalogue file. base_price: major units of `currency`; weight_g: grams; at: ISO 8601, absent: always.

    components: of a bundle; with a `place` it is packed there beforehand, without one its pieces leave from theirs.
    gift: one condition, or the list of those of which one is enough. presale: sold before it is there; ships_at (ISO 8601)
    ends that: an order created from then on is no pre-sale.
    """

    sku: str
    name: str
    base_price: Decimal | None = None
    currency: str = "CNY"
    colour: Colour | None = None
    image: str | None = None
    hs_code: str | None = None
    weight_g: int | None = None
    codes: tuple[Code, ...] = ()
    components: tuple[Component, ...] = ()
    gift: Gift | tuple[Gift, ...] | None = None
    spec: dict[str, str] = {}
    place: str | None = None
    presale: bool = False
    ships_at: str | None = None
    customs: CustomsNeeds | None = None
    at: str | None = None

    @property
    def base(self) -> int | None:
        """Base price in minor units of `currency`."""
        return None if self.base_price is None else money.minor(self.base_price, self.currency)

    @property
    def gifts(self) -> tuple[Gift, ...]:
        """The conditions under which it is a gift; none: it is never one."""
        if self.gift is None:
            return ()
        return (self.gift,) if isinstance(self.gift, Gift) else self.gift


_decoder = msgspec.json.Decoder(Article)


def read_article(line: bytes | str) -> tuple[int, Article]:
    """(`at` in ms, the article) of one catalogue line. Raises CatalogueError with a sentence."""
    try:
        article = _decoder.decode(line)
        _check(article)
        return (ALWAYS if article.at is None else times.parse(article.at)), article
    except (msgspec.DecodeError, money.AmountError, times.TimeError) as error:
        raise CatalogueError(str(error)) from error
    except UnicodeDecodeError as error:
        raise CatalogueError("is not UTF-8") from error


def since(article: Article, at: int) -> Article:
    """The article as it is to be from `at` (ms UTC) on."""
    return msgspec.structs.replace(article, at=None if at == ALWAYS else times.text(at))


def write_article(article: Article) -> bytes:
    """The catalogue line of an article."""
    return msgspec.json.encode(article)


def _check(article: Article) -> None:
    if article.currency not in money.EXPONENT:
        raise CatalogueError(f"currency {article.currency!r} is not an ISO 4217 code")
    if article.base is not None and article.base < 0:
        raise CatalogueError("base_price is below zero")
    if not all((article.sku, article.name, *(c.code for c in article.codes), *(c.sku for c in article.components))):
        raise CatalogueError("a sku, name or code is empty")
    if not all(1 <= c.quantity <= MAX_PIECES for c in article.components):
        raise CatalogueError(f"a component's quantity is not 1 to {MAX_PIECES}")
    if any(c.sku == article.sku for c in article.components):
        raise CatalogueError("it is a component of itself")
    if article.weight_g is not None and not 0 <= article.weight_g <= MAX_GRAMS:
        raise CatalogueError("weight_g is no weight")
    if article.ships_at is not None:
        times.parse(article.ships_at)
    for gift in article.gifts:
        money.minor(gift.min_total, article.currency)
        if gift.most is not None and not 1 <= gift.most <= MAX_PIECES:
            raise CatalogueError(f"a gift's most is not 1 to {MAX_PIECES}")
        since, until = (None if text is None else times.parse(text) for text in (gift.since, gift.until))
        if since is not None and until is not None and since >= until:
            raise CatalogueError(f"the campaign {gift.campaign or '?'} ends before it begins")
