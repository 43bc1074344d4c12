"""Wires the hops: topics, states, reference data, metrics. Nothing happens at import; a test wires them otherwise."""

from __future__ import annotations

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents import detect, normalise, route
from agents.normalise import Names
from orderstream import access, kafka, topics
from orderstream.catalogue import Catalogue, CatalogueError, read_article
from orderstream.engine import EngineApp, Hop, Reference, TopicsUnfit, Tuning, Watch, attach, make_app, run
from orderstream.errors import BadPack
from orderstream.errors import TopicsUnfit as Unfit
from orderstream.identity import Keys
from orderstream.metrics import Metrics
from orderstream.normalise import Books
from orderstream.orders import CHANNELS
from orderstream.process import shown
from orderstream.rules import book as books
from orderstream.rules.book import NoPackError, PackBook
from orderstream.settings import Settings

_log = logging.getLogger(__name__)

TUNING = Tuning(
    compression="zstd",
    max_fetch_bytes=1 << 18,
    linger_s=0.004,
    gather_s=0.004,
)
"""What the workers send is compressed by zstd: on their batches the client's lz4 (at its level 9) takes four times as long and leaves a
third more. A fetch of a partition is kept to what is
worked off in about a tenth of a second, so that the loop answers the broker in between.
"""

COLLECT = (100_000, 50, 40)
"""The collector's thresholds: what is kept is kept for hours and has no cycles; to look through it again and again took a third
of the time. A third of a µs for each object that it meets: 30 ms for the first of these, half a second for the second, which comes
every 400,000 orders.
"""


class Knowledge:
    """What every worker reads whole: the catalogue and the packs, as their topics grow."""

    def __init__(self, metrics: Metrics) -> None:
        self.catalogue = Catalogue()
        self.book = PackBook()
        self._metrics = metrics
        self._whole = False
        self._shown: str | None = None

    def article(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """A record of catalog.skus. One that can't be read is passed over, loudly: the rest of the catalogue still counts."""
        del key
        if value is None:
            return
        try:
            self.catalogue.add(*read_article(value))
        except CatalogueError as error:
            _log.error("catalog.skus offset %d can't be read and is passed over: %s", offset, error)

    def pack(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """A record of rules.packs: a pack or an activation."""
        del offset
        if key is None or value is None:
            return
        books.read_record(self.book, key, value)
        self.show()

    def whole(self, held: int) -> None:
        """All that was there has been read: from now on what is in force is worth telling."""
        del held
        self._whole = True
        self.show()

    def show(self) -> None:
        """Tells which pack is in force now. Asked for at intervals too, as an activation comes due without a record."""
        if not self._whole:
            # amid the history an old bypass would be shouted about, and compaction leaves activations before their pack
            return
        try:
            now = self.book.at(time.time_ns() // 1_000_000)
        except NoPackError:
            return
        if now.version == self._shown:
            return
        off = sum(rule.tag_only for rule in now.rules.values())
        bypass = off == len(now.rules)
        self._metrics.pack_in_force(now.version)
        self._metrics.disabled_rules.set(off)
        self._metrics.bypass.set(bypass)
        _log.info("规则包 %s 生效 · rule pack %s is in force, %d rules disabled", now.version, now.version, off)
        if bypass:
            _log.critical("旁路放行：所有订单仅打标并放行 · BYPASS: every order is tagged and released, nothing is held back")
        self._shown = now.version


def build(settings: Settings, brokers: str, metrics: Metrics, datadir: Path) -> EngineApp:
    """The app with its three hops, not started."""
    partitions, prefix = settings.partitions, settings.topic_prefix
    names = Names(prefix)
    known = Knowledge(metrics)
    keys = Keys(settings.hash_key())
    raw = [topics.raw(channel, prefix) for channel in CHANNELS]
    normaliser = normalise.factory(partitions, names, Books(known.catalogue, known.book.at), keys, settings.currency, metrics)
    hops = [
        Hop("normalise", [*raw, names.stock, names.updates, names.forgotten], normaliser),
        Hop("detect", [names.facts], detect.factory(partitions, names, known.book.pack, settings.timezone, metrics)),
        Hop("route", [names.dossiers, names.outcomes], route.factory(partitions, names, known.book.pack, metrics)),
    ]
    app = make_app(
        settings.group,
        brokers,
        datadir,
        partitions,
        watch=watch(metrics, known, {hop.name: hop.topics for hop in hops}),
        tuning=TUNING,
        replication=settings.replication,
        client=access.client(settings),
    )
    app.engine.references += [
        Reference(topics.name("catalog.skus", prefix), known.article),
        Reference(topics.name("rules.packs", prefix), known.pack),
    ]
    for hop in hops:
        attach(app, hop)
    return app


def watch(metrics: Metrics, known: Knowledge, reads: Mapping[str, Sequence[str]]) -> Watch:
    """What the engine tells, as metrics. reads: the topics of each hop."""
    flying: dict[str, dict[int, int]] = defaultdict(dict)

    def batch(hop: str, topic: str, records: int, seconds: float) -> None:
        del topic, seconds
        metrics.batch_size.labels(hop).observe(records)

    def in_flight(hop: str, partition: int, batches: int) -> None:
        flying[hop][partition] = batches
        metrics.inflight.labels(hop).set(sum(flying[hop].values()))

    def recovered(hop: str, partition: int, records: int, seconds: float) -> None:
        del partition
        metrics.recovered.labels(hop).inc(records)
        metrics.recovery_seconds.set(seconds)

    def lost(hop: str, partition: int) -> None:
        in_flight(hop, partition, 0)
        metrics.partition_lost(hop, partition, reads[hop])

    return Watch(
        batch=batch,
        in_flight=in_flight,
        lag=lambda topic, partition, records: metrics.lag.labels(topic, str(partition)).set(records),
        recovered=recovered,
        send_failed=lambda hop, _: metrics.failed_sends.labels(hop).inc(),
        rebalanced=known.whole,
        lost=lost,
        tick=known.show,
    )


def run_worker(settings: Settings, brokers: str) -> int:
    """Runs a worker in this process until SIGTERM; its exit code. Raises a UserError for what the user can mend."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    kafka.calm()
    if not kafka.read_packs(settings, brokers).activations:
        raise BadPack(
            "没有生效的规则包，请先执行 orderstream rules publish · no rule pack is active: orderstream rules publish DIR"
        )
    metrics = Metrics()
    served = shown(metrics, settings)
    gc.set_threshold(*COLLECT)
    try:
        return run(build(settings, brokers, metrics, settings.state_dir / "worker"))
    except TopicsUnfit as error:
        raise Unfit(f"主题不合要求 · {error}") from error
    finally:
        served.close()
