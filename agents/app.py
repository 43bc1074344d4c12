"""Wires the hops: topics, states, reference data, metrics. Nothing happens at import; a test wires them otherwise."""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path

from agents import detect, normalise, route
from agents.normalise import Names
from orderstream import kafka, topics
from orderstream.catalogue import Catalogue, CatalogueError, read_article
from orderstream.engine import EngineApp, Hop, Reference, TopicsUnfit, Tuning, Watch, attach, make_app, run
from orderstream.errors import BadPack, PortTaken
from orderstream.errors import TopicsUnfit as Unfit
from orderstream.identity import Keys
from orderstream.metrics import Metrics, serve
from orderstream.normalise import Books
from orderstream.orders import CHANNELS
from orderstream.rules import book as books
from orderstream.rules.book import PackBook
from orderstream.settings import Settings

_log = logging.getLogger(__name__)

TUNING = Tuning(compression="lz4", max_fetch_bytes=1 << 18)
"""What the workers send is compressed: gzip would take as long as the whole kernel. A fetch of a partition is kept to what is
worked off in about a tenth of a second, so that the loop answers the broker in between.
"""


class Knowledge:
    """What every worker reads whole: the catalogue and the packs, as their topics grow."""

    def __init__(self, metrics: Metrics) -> None:
        self.catalogue = Catalogue()
        self.book = PackBook()
        self._metrics = metrics

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
        activations = self.book.activations
        if not activations:
            return
        now = self.book.at(time.time_ns() // 1_000_000)
        self._metrics.pack_in_force(now.version)
        off = sum(rule.tag_only for rule in now.rules.values())
        self._metrics.disabled_rules.set(off)
        bypass = off == len(now.rules)
        self._metrics.bypass.set(bypass)
        if bypass:
            _log.critical("旁路放行：所有订单仅打标并放行 · BYPASS: every order is tagged and released, nothing is held back")


def build(settings: Settings, brokers: str, metrics: Metrics, datadir: Path) -> EngineApp:
    """The app with its three hops, not started."""
    partitions, prefix = settings.partitions, settings.topic_prefix
    names = Names(prefix)
    known = Knowledge(metrics)
    keys = Keys(settings.hash_key())
    app = make_app(
        settings.group,
        brokers,
        datadir,
        partitions,
        watch=_watch(metrics),
        tuning=TUNING,
        replication=settings.replication,
    )
    app.engine.references += [
        Reference(topics.name("catalog.skus", prefix), known.article),
        Reference(topics.name("rules.packs", prefix), known.pack),
    ]
    raw = [topics.raw(channel, prefix) for channel in CHANNELS]
    normaliser = normalise.factory(partitions, names, Books(known.catalogue, known.book.at), keys, settings.currency, metrics)
    attach(app, Hop("normalise", [*raw, names.stock, names.updates], normaliser))
    attach(app, Hop("detect", [names.facts], detect.factory(partitions, names, known.book.pack, settings.timezone, metrics)))
    attach(app, Hop("route", [names.dossiers, names.outcomes], route.factory(names, known.book.pack, metrics)))
    return app


def _watch(metrics: Metrics) -> Watch:
    def batch(hop: str, topic: str, records: int, seconds: float) -> None:
        del topic, seconds
        metrics.batch_size.labels(hop).observe(records)

    def recovered(hop: str, partition: int, records: int, seconds: float) -> None:
        del partition
        metrics.recovered.labels(hop).inc(records)
        metrics.recovery_seconds.set(seconds)

    return Watch(
        batch=batch,
        in_flight=lambda hop, _, batches: metrics.inflight.labels(hop).set(batches),
        lag=lambda topic, partition, records: metrics.lag.labels(topic, str(partition)).set(records),
        recovered=recovered,
        send_failed=lambda hop, _: metrics.failed_sends.labels(hop).inc(),
    )


def run_worker(settings: Settings, brokers: str) -> int:
    """Runs a worker in this process until SIGTERM; its exit code. Raises a UserError for what the user can mend."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if not kafka.read_packs(settings, brokers).activations:
        raise BadPack(
            "没有生效的规则包，请先执行 orderstream rules publish · no rule pack is active: orderstream rules publish DIR"
        )
    metrics = Metrics()
    try:
        served = serve(metrics, settings.metrics_port, settings.metrics_host)
    except OSError as error:
        port = settings.metrics_port
        raise PortTaken(
            f"指标端口 {port} 已被占用，可设 ORDERSTREAM_METRICS_PORT=0 · metrics port {port} is taken: set ORDERSTREAM_METRICS_PORT=0"
        ) from error
    # what is kept is kept for hours and has no cycles: looking through it again and again took a third of the time
    gc.set_threshold(50_000, 20, 100)
    try:
        return run(build(settings, brokers, metrics, settings.state_dir / "worker"))
    except TopicsUnfit as error:
        raise Unfit(f"主题不合要求 · {error}") from error
    finally:
        served.close()
