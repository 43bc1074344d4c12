"""The catalogue as it is kept: read from a file or from Kafka, and grown by lines that were checked.

Law: what is written holds from now on, never backwards, and no bundle may hold itself after it. Whoever writes is named beside the
record (header `by`), with the reason (`why`).
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from orderstream import access, kafka, replay, topics, wire
from orderstream.catalogue.article import Article, CatalogueError, Code, read_article, since, write_article
from orderstream.catalogue.index import Catalogue
from orderstream.errors import BadFile
from orderstream.identity import Keys
from orderstream.kafka import Outgoing
from orderstream.orders import CHANNELS, Raw
from orderstream.replay import ReplayError
from orderstream.rules.book import LEAD_MS
from orderstream.settings import Settings

KEYS = Keys(b"catalogue")
"""What replay files name people by; nothing of it is kept here."""


def moment() -> int:
    """When a change made now takes force, ms UTC: a little ahead, so that every worker has it before an order needs it."""
    return time.time_ns() // 1_000_000 + LEAD_MS


def of_file(path: Path) -> list[tuple[int, Article]]:
    """The lines of a catalogue file, (`at` in ms, article) each. Raises BadFile, naming the line."""
    found: dict[tuple[str, int], tuple[int, Article]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadFile(f"读不了 {path} · cannot read {path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            at, article = read_article(line)
        except CatalogueError as error:
            raise BadFile(f"{path} 第 {number} 行有误 · {path} line {number}: {error}") from None
        if (article.sku, at) in found:
            raise BadFile(f"{path} 第 {number} 行重复 · {path} line {number}: {article.sku} is there twice for one time")
        found[article.sku, at] = (at, article)
    return list(found.values())


def of_topic(settings: Settings, brokers: str) -> Catalogue:
    """What Kafka holds. Raises NoBroker, NotAdmitted, TopicsUnfit."""
    catalogue = Catalogue()
    for message in kafka.read_all(brokers, [topics.name("catalog.skus", settings.topic_prefix)], access.client(settings)):
        try:
            catalogue.add(*read_article(message.value or b""))
        except CatalogueError:
            # as the workers do, who say it aloud
            continue
    return catalogue


def grown(catalogue: Catalogue, lines: Iterable[tuple[int, Article]]) -> Catalogue:
    """The catalogue with these lines in it. Raises BadFile where a bundle can't be taken apart then, with its path."""
    for at, article in lines:
        catalogue.add(at, article)
    try:
        catalogue.check()
    except CatalogueError as error:
        raise BadFile(f"套装不能拆开，请先改正 · a bundle can't be taken apart: {error}") from None
    return catalogue


def send(settings: Settings, brokers: str, articles: Sequence[tuple[int, Article]], why: str | None = None) -> int:
    """Writes lines to catalog.skus; how many, once they are acknowledged. Raises NoBroker, NotAdmitted."""
    topic = topics.name("catalog.skus", settings.topic_prefix)
    headers = (("by", getpass.getuser().encode()), *((("why", why.encode()),) if why else ()))
    records = [Outgoing(topic, f"{article.sku}|{at}".encode(), write_article(article), headers) for at, article in articles]
    return kafka.send_all(brokers, records, access.client(settings))


def write(path: Path, articles: Iterable[Article]) -> None:
    """Writes lines to a file, whole or not at all. Raises BadFile."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(b"".join(write_article(article) + b"\n" for article in articles))
        partial.replace(path)
    except OSError as error:
        raise BadFile(f"写不了 {path} · cannot write {path}: {error.strerror}") from None


def accepted(catalogue: Catalogue, at: int, code: Code, sku: str, *, move: bool) -> list[Article]:
    """The lines that map a code to an article from `at` (ms) on; none where it is so already.

    move: take it from the articles that it names now; otherwise that is refused. Raises BadFile with what to do.
    """
    article = catalogue.article(sku, at)
    if article is None:
        near = "、".join(f"{s} {name}" for s, name, _ in catalogue.nearest(sku, at))
        raise BadFile(f"商品目录里没有 {sku}{f'，相近的有 {near}' if near else ''} · there is no article {sku}")
    named = catalogue.codes(at).get((code.channel, code.shop, code.code), [])
    others = [one for one in named if one != sku]
    if others and not move:
        raise BadFile(
            f"编码 {code.code} 已对应 {', '.join(others)}，确要改请加 --move"
            f" · the code names {', '.join(others)} already: --move takes it from there"
        )
    lines = [line for other in others for line in _without(catalogue, at, code, other)]
    return lines if sku in named else [*lines, *_bearing(catalogue, at, code, sku)]


def _bearing(catalogue: Catalogue, at: int, code: Code, sku: str) -> list[Article]:
    return [_at(one, when, (*one.codes, code)) for when, one in _from(catalogue, at, sku) if code not in one.codes]


def _without(catalogue: Catalogue, at: int, code: Code, sku: str) -> list[Article]:
    return [_at(one, when, tuple(c for c in one.codes if c != code)) for when, one in _from(catalogue, at, sku)]


def _from(catalogue: Catalogue, at: int, sku: str) -> list[tuple[int, Article]]:
    """An article as it is at `at`, and as it is planned to be later: a change now would otherwise end with the plan."""
    now = catalogue.article(sku, at)
    assert now is not None
    return [(at, now), *(version for version in catalogue.versions(sku) if version[0] > at)]


def _at(article: Article, at: int, codes: tuple[Code, ...]) -> Article:
    return since(msgspec.structs.replace(article, codes=codes), at)


# -- orders, for what they say of codes ---------------------------------------------------------------------------------


def raws(settings: Settings, files: Sequence[Path], brokers: str | None) -> Iterator[Raw]:
    """Raw records of replay files, or of Kafka where a broker is given. Raises BadFile, NoBroker, NotAdmitted, TopicsUnfit."""
    for path in files:
        try:
            yield from (item for item in replay.read_file(path, KEYS, settings.currency) if isinstance(item, Raw))
        except (ReplayError, OSError) as error:
            raise BadFile(f"回放文件有误 · bad replay file: {error}") from None
    if brokers is None:
        return
    names = [topics.raw(channel, settings.topic_prefix) for channel in CHANNELS]
    for message in kafka.scan(brokers, names, client=access.client(settings)):
        try:
            yield wire.read_raw(message.topic, message.headers, message.value, message.timestamp)
        except wire.EnvelopeError:
            continue
