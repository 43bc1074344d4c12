"""The catalogue: a channel's code to our article, bundles to pieces, gifts to their mains, an order to what leaves together.

Law: mapping is a lookup, never a guess. A code that maps to no article, or to two, is said so with the nearest names, and an
entry counts from its `at`: an order is read with the catalogue in force when it was received, so replaying it later gives the
same order.
"""

from orderstream.catalogue.article import ALWAYS, Article, CatalogueError, Code, Colour, Component, Gift, read_article
from orderstream.catalogue.index import BundleError, Catalogue
from orderstream.catalogue.resolve import Resolved, Unmapped, resolve, valid_hs_code

__all__ = [
    "ALWAYS",
    "Article",
    "BundleError",
    "Catalogue",
    "CatalogueError",
    "Code",
    "Colour",
    "Component",
    "Gift",
    "Resolved",
    "Unmapped",
    "read_article",
    "resolve",
    "valid_hs_code",
]
