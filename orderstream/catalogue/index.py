"""The catalogue as a whole: from a channel's code to our article, from a bundle to its pieces.

Law: mapping is a lookup, never a guess, and an entry counts from its `at`: what is asked as of a time is answered from the
entries that hold then, whichever have come since.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from pathlib import Path

from rapidfuzz import fuzz, process

from orderstream.catalogue.article import Article, CatalogueError, read_article
from orderstream.identity import plain

MAX_DEPTH = 16
"""Bundles in bundles in bundles: deeper is a mistake."""

MAX_IN_ALL = 10**6
"""Pieces that one bundle comes apart into; times an order's quantity they still fit 64 bits."""

MAX_NAMED, MAX_SCOPES = 200_000, 1_000
"""Codes whose articles are remembered, and shops at a time, before they are looked up anew; a scope has the catalogue's codes at most."""

SLICE = 256
"""Names that are compared first; each further slice is four times as long."""

Near = tuple[str, str, int]


class BundleError(CatalogueError):
    """A bundle that can't be taken apart. The sentence has the path: `A → B → A`."""


class Catalogue:
    """Every version of every article, and the way from codes to them. Grows by `add`; reads are as of a time (ms UTC)."""

    def __init__(self, articles: Iterable[tuple[int, Article]] = ()) -> None:
        self._versions: dict[str, list[tuple[int, Article]]] = {}
        self._by_code: dict[tuple[str, str | None, str], set[str]] = {}
        self._by_name: dict[str, set[str]] = {}
        self._times: list[int] = []
        self._parts: dict[tuple[str, int], dict[str, int]] = {}
        self._named: dict[tuple[str, str, int], Named] = {}
        self._names: tuple[int, dict[str, str], dict[str, list[str]]] | None = None
        self._nearest: dict[tuple[str, int, int], tuple[Near, ...]] = {}
        self.size = 0
        for at, article in articles:
            self.add(at, article)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """From a catalogue file (JSON lines). Raises CatalogueError naming the line, or the bundles that hold each other."""
        catalogue = cls()
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        catalogue.add(*read_article(line))
                    except CatalogueError as error:
                        raise CatalogueError(f"{path.name}:{number}: {error}") from error
        catalogue.check()
        return catalogue

    def add(self, at: int, article: Article) -> None:
        """An article as it is from `at` on; the same (sku, at) again replaces it."""
        versions = self._versions.setdefault(article.sku, [])
        index = bisect.bisect_left(versions, at, key=lambda v: v[0])
        if index < len(versions) and versions[index][0] == at:
            versions[index] = (at, article)
        else:
            versions.insert(index, (at, article))
        for code in article.codes:
            self._by_code.setdefault((code.channel, code.shop, code.code), set()).add(article.sku)
        self._by_name.setdefault(plain(article.name), set()).add(article.sku)
        place = bisect.bisect_left(self._times, at)
        if place == len(self._times) or self._times[place] != at:
            self._times.insert(place, at)
        self._parts.clear()
        self._named.clear()
        self._nearest.clear()
        self._names = None
        self.size += 1

    # -- articles --------------------------------------------------------------------------------------------------

    def article(self, sku: str, at: int) -> Article | None:
        """The article as of `at`, or None where there is none (yet)."""
        versions = self._versions.get(sku)
        if not versions:
            return None
        if len(versions) == 1:
            return versions[0][1] if versions[0][0] <= at else None
        index = bisect.bisect_right(versions, at, key=lambda v: v[0])
        return versions[index - 1][1] if index else None

    def articles(self, at: int) -> Iterator[Article]:
        """Every article as of `at`, by SKU."""
        for sku in sorted(self._versions):
            article = self.article(sku, at)
            if article is not None:
                yield article

    def versions(self, sku: str) -> list[tuple[int, Article]]:
        """All that an article has been: (from when on, ms; what), the oldest first."""
        return [*self._versions.get(sku, ())]

    def siblings(self, article: Article, at: int) -> list[Article]:
        """Other articles of the same name: the same thing in another colour or size."""
        found = (self.article(sku, at) for sku in sorted(self._by_name.get(plain(article.name), ())) if sku != article.sku)
        return [one for one in found if one is not None and plain(one.name) == plain(article.name)]

    # -- codes -----------------------------------------------------------------------------------------------------

    def skus(self, channel: str, shop: str, code: str, at: int) -> list[str]:
        """The articles that a channel's code names as of `at`; a mapping for the shop goes before one for the channel."""
        for scope in (shop, None):
            found = [s for s in self._by_code.get((channel, scope, code), ()) if self._bears(s, channel, scope, code, at)]
            if found:
                return sorted(found)
        return []

    def named(self, channel: str, shop: str, at: int) -> Named:
        """What `skus` gives of a shop's codes, as the articles that they are at `at`, by code."""
        # what holds changes only where an entry begins: between two of them one answer does
        scope = (channel, shop, bisect.bisect_right(self._times, at))
        found = self._named.get(scope)
        if found is None:
            if sum(map(len, self._named.values())) > MAX_NAMED or len(self._named) > MAX_SCOPES:
                self._named.clear()
            found = self._named[scope] = Named(self, channel, shop, at)
        return found

    def codes(self, at: int) -> dict[tuple[str, str | None, str], list[str]]:
        """(channel, shop or None, code) -> the articles that it names as of `at`."""
        found: dict[tuple[str, str | None, str], list[str]] = {}
        for article in self.articles(at):
            for code in article.codes:
                named = found.setdefault((code.channel, code.shop, code.code), [])
                if article.sku not in named:
                    named.append(article.sku)
        return found

    def _bears(self, sku: str, channel: str, scope: str | None, code: str, at: int) -> bool:
        article = self.article(sku, at)
        return article is not None and any(c.code == code and c.channel == channel and c.shop == scope for c in article.codes)

    def nearest(self, text: str, at: int, most: int = 3) -> tuple[Near, ...]:
        """The articles whose names are most like a text: (sku, name, likeness 0-100), best first."""
        # what holds changes only where an entry begins: between two of them one answer does, and after them another
        era = bisect.bisect_right(self._times, at)
        cached = self._nearest.get((text, era, most))
        if cached is None:
            names, spelled = self._names_of(era, at)
            hits = _most_like(plain(text), spelled, most)
            cached = tuple((sku, names[sku], int(score)) for score, sku in sorted(hits, key=lambda h: (-int(h[0]), h[1])))
            if len(self._nearest) > 10_000:
                self._nearest.clear()
            self._nearest[text, era, most] = cached
        return cached

    def _names_of(self, era: int, at: int) -> tuple[dict[str, str], dict[str, list[str]]]:
        """SKU -> name, and name as it is compared -> the SKUs that bear it; kept for the era that was asked last."""
        if self._names is None or self._names[0] != era:
            names = {article.sku: article.name for article in self.articles(at)}
            spelled: dict[str, list[str]] = {}
            for sku, name in names.items():
                spelled.setdefault(plain(name), []).append(sku)
            self._names = (era, names, spelled)
        return self._names[1:]

    # -- bundles ---------------------------------------------------------------------------------------------------

    def pieces(self, sku: str, quantity: int, at: int) -> dict[str, int]:
        """What is taken from the shelf for `quantity` of an article: a bundle's pieces, otherwise itself.

        Raises BundleError where bundles hold each other, or one comes apart into too much.
        """
        article = self.article(sku, at)
        if article is None or not article.components:
            return {sku: quantity}
        era = bisect.bisect_right(self._times, at)
        parts = self._parts.get((sku, era))
        if parts is None:
            parts = self._parts[sku, era] = self._open(sku, at, (), {})
        return {piece: count * quantity for piece, count in parts.items()}

    def _open(self, sku: str, at: int, inside: tuple[str, ...], known: dict[str, dict[str, int]]) -> dict[str, int]:
        """The pieces of one. inside: the bundles that it lies in, the outermost first; known: what was opened already."""
        path = (*inside, sku)
        if sku in inside:
            ring = inside[inside.index(sku) :]
            first = ring.index(min(ring))
            # the same ring is told the same way, wherever it was entered
            raise BundleError(f"cycle: {' → '.join((*ring[first:], *ring[:first], ring[first]))}")
        if len(path) > MAX_DEPTH:
            raise BundleError(f"deeper than {MAX_DEPTH}: {' → '.join(path)}")
        if sku in known:
            return known[sku]
        article = self.article(sku, at)
        if article is None or not article.components:
            return {sku: 1}
        out: dict[str, int] = {}
        for part in article.components:
            for piece, count in self._open(part.sku, at, path, known).items():
                out[piece] = out.get(piece, 0) + count * part.quantity
        if sum(out.values()) > MAX_IN_ALL:
            raise BundleError(f"more than {MAX_IN_ALL} pieces: {' → '.join(path)}")
        known[sku] = out
        return out

    def check(self) -> None:
        """Takes every bundle apart, at every time at which one changes. Raises BundleError with the path of the first that can't be."""
        for fault in self.faults():
            raise fault

    def faults(self) -> Iterator[BundleError]:
        """Every bundle that can't be taken apart at some time."""
        bundles = [sku for sku, versions in self._versions.items() if any(a.components for _, a in versions)]
        said: set[str] = set()
        for at in sorted({at for sku in bundles for at, _ in self._versions[sku]}):
            for sku in sorted(bundles):
                try:
                    self.pieces(sku, 1, at)
                except BundleError as error:
                    if str(error) not in said:
                        said.add(str(error))
                        yield error


class Named(dict[str, tuple[Article, ...]]):
    """The articles that a shop's codes name at a time; looked up when a code is first asked for."""

    def __init__(self, catalogue: Catalogue, channel: str, shop: str, at: int) -> None:
        super().__init__()
        self._asked = (catalogue, channel, shop, at)

    def __missing__(self, code: str) -> tuple[Article, ...]:
        catalogue, channel, shop, at = self._asked
        articles = (catalogue.article(sku, at) for sku in catalogue.skus(channel, shop, code, at))
        found = tuple(article for article in articles if article is not None)
        # a code that names nothing is anybody's text: only the catalogue's own are kept
        if found:
            self[code] = found
        return found


def _most_like(text: str, spelled: dict[str, list[str]], most: int) -> list[tuple[float, str]]:
    """The `most` SKUs whose names are most like a text, (likeness, SKU); of those alike the first by SKU.

    spelled: by SKU, each name once, however many variants bear it. Slice by slice: what is less like than the best so far cannot win
    any more, and to find that out takes a fraction of what its likeness takes.
    """
    best: list[tuple[float, str]] = []
    least = 30.0
    names = list(spelled)
    at, size = 0, SLICE
    while at < len(names):
        hits = process.extract(text, names[at : at + size], scorer=fuzz.WRatio, limit=most, score_cutoff=least)
        best += [(score, sku) for name, score, _ in hits for sku in spelled[name]]
        best = sorted(best, key=_by_likeness)[:most]
        if len(best) == most:
            least = best[-1][0]
        at, size = at + size, size * 4
    return best


def _by_likeness(hit: tuple[float, str]) -> tuple[float, str]:
    return -hit[0], hit[1]
