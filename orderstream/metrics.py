"""Every number that the line's processes show, in one typed list.

Law: a label's values come from a list that somebody maintains (channels, hops, rules of the pack, reject codes), never from
an order. No user, address, ip, order id or text of a channel becomes a label. Reason: Prometheus keeps a series for each value
ever seen, so a label fed by orders fills its memory, and one fed by buyers stores personal data where nobody looks for it.

Nothing is registered at import: a process makes one `Metrics` and hands it to what counts; a test makes its own. Intake's
own numbers are in `orderstream.intake.metrics`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, NamedTuple
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from orderstream.orders import CHANNELS

Hop = Literal["normalise", "detect", "route"]
"""The three steps of the way of an order, as in agents/."""

LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0, 10.0)
"""Seconds. 0.3 is what is shown at 100 orders/s and 0.8 what is promised: both are edges, so that no quantile is a guess there."""

BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
"""Records. One at low load, hundreds on a backlog: the width of the batch is how the line answers to load."""


UNADDRESSED = ("stock", "updates", "outcomes", "forgotten", "pending")
"""What stands for the channel where a reference record, an outcome or an erasure is rejected: the end of its topic's name."""

BODY_BUCKETS = (1_000, 10_000, 100_000, 1_000_000)
"""Bytes. An order has one to ten thousand; intake takes up to a million."""


class LastMinute:
    """How often something happened in the last 60 s, to the second. Read by the thread that serves the scrape."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: list[tuple[int, int]] = [(-60, 0)] * 60

    def count(self) -> None:
        second = int(self._clock())
        at, count = self._slots[second % 60]
        self._slots[second % 60] = (second, count + 1 if at == second else 1)

    def __call__(self) -> float:
        now = int(self._clock())
        return float(sum(count for second, count in self._slots if now - 60 < second <= now))


class Metrics:
    """The metrics of one process. Every process has all of them; those that it never touches stay at zero or absent."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        r = self.registry

        # -- what passes -----------------------------------------------------------------------------------------------
        # hop: normalise, route. Repeats after a crash included. Detect sees facts, several of an order: the next one.
        self.orders: Counter = Counter(
            "orderstream_orders_total", "各环节处理的订单 / orders handled by a hop", ["hop", "channel"], registry=r
        )
        # What detect answered. A few for each order: one an entity that it names.
        self.facts: Counter = Counter(
            "orderstream_facts_total", "判断的事实 / facts judged, of all orders' entities", ["channel"], registry=r
        )
        # verdict: released, review, frozen, pending, withdrawn, rejected. One a change of verdict, not one an order.
        self.verdicts: Counter = Counter(
            "orderstream_verdicts_total", "判定数 / verdicts sent", ["channel", "verdict", "level"], registry=r
        )
        # rule: ids of the pack in force. The signals of the verdicts counted above.
        self.signals: Counter = Counter("orderstream_signals_total", "规则命中 / signals by rule", ["rule", "level"], registry=r)
        # A channel that stops sending ips shows here, and nowhere else: absent is not clean.
        self.not_available: Counter = Counter(
            "orderstream_rule_not_available_total",
            "缺少输入而无法判断的规则 / rules that lacked their input",
            ["rule"],
            registry=r,
        )
        # cause: signals, cancelled, refunded, outcome. An order that was released and no longer is.
        self.recalls: Counter = Counter("orderstream_recalls_total", "召回 / released orders recalled", ["cause"], registry=r)
        # Signals that came after the recall horizon or after shipping: tags and a notice, no recall.
        self.found_late: Counter = Counter(
            "orderstream_found_late_total", "超过召回期限才发现 / signals found too late to recall", ["rule"], registry=r
        )
        # Orders first received more than the pack's lateness after their event time: no window rule judged them.
        self.late_orders: Counter = Counter(
            "orderstream_late_orders_total", "迟到订单 / orders too late for windows", ["channel"], registry=r
        )
        # code: the short codes of Rejected; reasons and bytes are on orders.rejected. Counted by `reject`.
        self.rejected: Counter = Counter(
            "orderstream_rejected_total", "拒收记录 / records that are no order", ["channel", "code"], registry=r
        )
        # Their bodies. By channel alone, and every channel there from the first scrape: a burst whose series begins with it
        # shows no increase to whoever watches the counter above.
        self.rejected_bytes: Histogram = Histogram(
            "orderstream_rejected_bytes", "拒收记录的字节 / bytes of rejects", ["channel"], buckets=BODY_BUCKETS, registry=r
        )
        # The same over this worker's last 60 s, as of the scrape.
        self.rejects_per_minute: Gauge = Gauge(
            "orderstream_rejects_per_minute", "最近一分钟拒收数 / rejects in the last minute", registry=r
        )
        # action: confirm, lock-stock, unlock-stock, challenge, second-check, notify, meeting.
        self.actions: Counter = Counter("orderstream_actions_total", "动作请求 / actions asked for", ["action"], registry=r)

        # -- how long it takes -----------------------------------------------------------------------------------------
        # From intake's received_at to the verdict's decided_at: what the promise of 800 ms is about.
        self.latency: Histogram = Histogram(
            "orderstream_latency_seconds",
            "从接收到判定 / received_at to verdict",
            ["channel"],
            buckets=LATENCY_BUCKETS,
            registry=r,
        )
        # normalise: received_at to normalised_at · detect: from when Kafka had the facts to their answers, once a batch of facts ·
        # route: normalised_at to decided_at, waiting for detect included.
        self.hop_latency: Histogram = Histogram(
            "orderstream_hop_latency_seconds", "各环节耗时 / time of one hop", ["hop"], buckets=LATENCY_BUCKETS, registry=r
        )

        # -- what waits ------------------------------------------------------------------------------------------------
        # Dossiers whose facts have not all answered; per partition, as each belongs to one worker at a time.
        self.pending_dossiers: Gauge = Gauge(
            "orderstream_pending_dossiers", "等待中的案卷 / dossiers waiting for answers", ["partition"], registry=r
        )
        # 0 where none waits. There is no time-out on the normal path, so this gauge is the only thing that tells of a stuck one.
        self.oldest_dossier: Gauge = Gauge(
            "orderstream_oldest_dossier_age_seconds", "最久案卷的等待 / age of the oldest dossier", ["partition"], registry=r
        )
        # Records between the group's position and the end of a partition of an input topic.
        self.lag: Gauge = Gauge("orderstream_consumer_lag", "消费积压 / records not read yet", ["topic", "partition"], registry=r)
        # Batches taken and not acknowledged yet. Stuck above zero with no traffic: a send that never came back.
        self.inflight: Gauge = Gauge("orderstream_inflight_batches", "处理中的批次 / batches in flight", ["hop"], registry=r)
        self.batch_size: Histogram = Histogram(
            "orderstream_batch_size", "每批记录数 / records a batch", ["hop"], buckets=BATCH_BUCKETS, registry=r
        )

        # -- what is kept ----------------------------------------------------------------------------------------------
        # Orders that the entities of a partition remember, one an entity. Grows without bound only if expiry is broken.
        self.window_entries: Gauge = Gauge(
            "orderstream_window_entries", "窗口条目 / entries in windows", ["partition"], registry=r
        )
        # table: the tables of agents/. Counted while a worker recovers its partitions from the changelog.
        self.recovered: Counter = Counter(
            "orderstream_recovered_records_total", "恢复的记录 / changelog records recovered", ["table"], registry=r
        )
        self.recovery_seconds: Gauge = Gauge(
            "orderstream_recovery_seconds", "上次恢复耗时 / duration of the last recovery", registry=r
        )
        # One failed send stops the worker, so this rarely passes 1; a restart loop makes it visible all the same.
        self.failed_sends: Counter = Counter(
            "orderstream_failed_sends_total", "发送失败 / sends that the broker did not acknowledge", ["hop"], registry=r
        )

        # -- what is in force ------------------------------------------------------------------------------------------
        # 1 for the pack in force, labelled `name@version`; see `pack_in_force`.
        self.pack_info: Gauge = Gauge("orderstream_pack_info", "现行规则包 / rule pack in force", ["pack"], registry=r)
        # 1: everything is tagged and released, nothing is held back. Alerts at once and as long as it lasts.
        self.bypass: Gauge = Gauge("orderstream_bypass", "旁路放行 / bypass mode", registry=r)
        # Rules set to tag-only by `rules disable`.
        self.disabled_rules: Gauge = Gauge("orderstream_disabled_rules", "停用的规则数 / rules disabled", registry=r)

        # -- details and polling: the fetch process --------------------------------------------------------------------
        # Records that wait for their detail, of partitions that this process owns: in a shop's lane, under way, or parked.
        self.fetch_pending: Gauge = Gauge(
            "orderstream_fetch_pending", "等待详情的记录 / records waiting for their detail", ["channel", "shop"], registry=r
        )
        # Since its receipt; 0 where none waits.
        self.fetch_oldest: Gauge = Gauge(
            "orderstream_fetch_oldest_age_seconds", "其中最久的 / age of the oldest of them", ["channel", "shop"], registry=r
        )
        # outcome: fetched, failed, unauthorised, gone. A failure is a call with its quick retries; what rests is not called.
        self.fetches: Counter = Counter(
            "orderstream_fetches_total",
            "取详情的结果 / details asked for, by outcome",
            ["channel", "shop", "outcome"],
            registry=r,
        )
        # 0 closed: calls pass · 1: the next one tries · 2 open: none does.
        self.breaker: Gauge = Gauge(
            "orderstream_platform_breaker", "平台断路器 / breaker of a platform", ["channel", "shop"], registry=r
        )
        # outcome: ok, failed. Questions for what has changed.
        self.polls: Counter = Counter(
            "orderstream_polls_total", "对账次数 / polls by outcome", ["channel", "shop", "outcome"], registry=r
        )
        # How far reconciliation is behind: age of the last change that has certainly come in.
        self.poll_age: Gauge = Gauge(
            "orderstream_poll_age_seconds", "对账落后 / age of the last poll's end", ["channel", "shop"], registry=r
        )
        # What a poll brought in: on a channel with webhooks, what these had missed.
        self.polled_in: Counter = Counter(
            "orderstream_polled_in_total", "对账补进的订单 / orders that a poll brought in", ["channel", "shop"], registry=r
        )
        # outcome: kept, failed (a pull or a confirmation), strange (of a shop without an account). Messages of a platform's queue.
        self.pulled: Counter = Counter(
            "orderstream_pulled_total",
            "从平台消息队列取到的 / messages pulled from a queue",
            ["channel", "shop", "outcome"],
            registry=r,
        )

        # -- actions: what a verdict asks for, done ----------------------------------------------------------------------
        # action: action (taken apart), notify, confirm, lock, unlock, challenge. outcome: done, failed (tried again), dead, dropped (no longer wanted).
        self.deeds: Counter = Counter(
            "orderstream_messages_total", "执行的动作与消息 / actions and messages by outcome", ["action", "outcome"], registry=r
        )
        # state: waiting (whatever is not done), dead (a person must look).
        self.messages: Gauge = Gauge("orderstream_messages_open", "账本里的消息 / messages in the ledger", ["state"], registry=r)
        # 0 where nothing is late. Quiet hours, back-off and a receiver's pace are no lateness: what waits for them is not due.
        self.overdue: Gauge = Gauge(
            "orderstream_messages_overdue_seconds", "到期未办的最久 / how long the oldest due one has waited", registry=r
        )
        # outcome: shown, done, asked, customer-confirmed, …, and why not: unknown, expired, used, changed, busy, away.
        self.links: Counter = Counter("orderstream_links_total", "签名链接的使用 / uses of signed links", ["outcome"], registry=r)
        # 1 or 0; at 0 nothing is read and nothing done, and nothing lost.
        self.actions_database: Gauge = Gauge(
            "orderstream_actions_database", "动作执行的 PostgreSQL 是否可用 / whether PostgreSQL answers the executor", registry=r
        )

        # -- the example consumers -------------------------------------------------------------------------------------
        # consumer: erp, wms. effect: released, recalled, intercept, cancelled, lock, unlock, stock, repeat, old, forgotten.
        self.applied: Counter = Counter(
            "orderstream_consumer_records_total",
            "消费端应用的记录 / records by what a consumer did with them",
            ["consumer", "effect"],
            registry=r,
        )

        # -- behind the release: downstream ----------------------------------------------------------------------------
        # kind: flow.WAITS. Orders that stand on the wall now, and how long the first of them is overdue (0 where none is).
        self.standing: Gauge = Gauge("orderstream_downstream_standing", "下游滞留的订单 / orders overdue", ["kind"], registry=r)
        self.standing_age: Gauge = Gauge(
            "orderstream_downstream_overdue_seconds", "其中最久的逾期 / how long the first is overdue", ["kind"], registry=r
        )
        # One each time that an order comes to stand there.
        self.fallen_due: Counter = Counter(
            "orderstream_downstream_overdue_total", "逾期次数 / orders fallen due", ["kind"], registry=r
        )
        # topic: of acknowledgements, shipments, outcomes. Records that are not of their schema and are passed over.
        self.unread: Counter = Counter(
            "orderstream_downstream_unread_total", "无法读取的确认 / words not read", ["topic"], registry=r
        )
        # 0: PostgreSQL does not answer, and nothing is read meanwhile.
        self.database: Gauge = Gauge(
            "orderstream_downstream_database", "PostgreSQL 是否应答 / whether PostgreSQL answers", registry=r
        )
        # answer: go, stop, or the HTTP status of what is no answer.
        self.checks: Counter = Counter("orderstream_checks_total", "包裹核对 / parcels asked about", ["answer"], registry=r)
        self.check_seconds: Histogram = Histogram(
            "orderstream_check_seconds", "核对耗时 / time of an answer", buckets=LATENCY_BUCKETS, registry=r
        )
        # outcome: delivered, failed (tried again), dead. One an attempt.
        self.deliveries: Counter = Counter(
            "orderstream_deliveries_total", "投递 / deliveries to the ERP", ["outcome"], registry=r
        )
        # Of those that wait: how many, and the oldest; dead ones wait for a person.
        self.delivery_waiting: Gauge = Gauge("orderstream_delivery_waiting", "待投递 / deliveries that wait", registry=r)
        self.delivery_oldest: Gauge = Gauge("orderstream_delivery_oldest_seconds", "其中最久的 / age of the oldest", registry=r)
        self.delivery_dead: Gauge = Gauge("orderstream_delivery_dead", "投递失败待人处理 / dead deliveries", registry=r)

        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        GCCollector(registry=r)

        # present from the first scrape: an alert on a series that does not exist yet stays silent
        self.bypass.set(0)
        self.disabled_rules.set(0)
        for metric in vars(self).values():
            if isinstance(metric, Counter | Histogram | Gauge):
                # asked several times a batch; whatever removes a child goes through `gone` or `pack_in_force`
                metric.labels = cache(metric.labels)  # type: ignore[method-assign, assignment]
        for channel in (*CHANNELS, *UNADDRESSED):
            self.rejected_bytes.labels(channel)
        self._last_minute = LastMinute()
        self.rejects_per_minute.set_function(self._last_minute)

    def reject(self, channel: str, code: str, size: int) -> None:
        """Count a record that is no order, no reference record or no outcome. size: bytes of its body."""
        self.rejected.labels(channel, code).inc()
        self.rejected_bytes.labels(channel).observe(size)
        self._last_minute.count()

    def pack_in_force(self, pack: str) -> None:
        """Show `name@version` as the pack in force, and no other: versions passed by leave no series behind."""
        self.pack_info.clear()
        self.pack_info.labels.cache_clear()  # type: ignore[attr-defined]
        self.pack_info.labels(pack).set(1)

    def partition_lost(self, hop: str, partition: int, topics: Iterable[str] = ()) -> None:
        """Forget what a hop's partition showed once its state has gone: another worker shows it now, and a frozen age would alert.

        topics: those that the hop reads.
        """
        shown: list[tuple[Gauge, tuple[str, ...]]] = [(self.lag, (topic, str(partition))) for topic in topics]
        if hop == "detect":
            shown.append((self.window_entries, (str(partition),)))
        if hop == "route":
            shown += [(gauge, (str(partition),)) for gauge in (self.pending_dossiers, self.oldest_dossier)]
        for gauge, labels in shown:
            self.gone(gauge, *labels)

    def gone(self, gauge: Gauge, *labels: str) -> None:
        """Shows no more what another process shows now."""
        with contextlib.suppress(KeyError):  # never set: some versions of the client raise
            gauge.remove(*labels)
        gauge.labels.cache_clear()  # type: ignore[attr-defined]

    def names(self) -> set[str]:
        """Every sample name that a scrape can contain; tests hold alerts and dashboards against it."""
        found: set[str] = set()
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                name = metric._name  # noqa: SLF001  the name as given, before samples exist for its labels
                if isinstance(metric, Histogram):
                    found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
                elif isinstance(metric, Counter):
                    found.add(f"{name}_total")
                else:
                    found.add(name)
        return found


def observe(histogram: Histogram, values: list[float]) -> None:
    """What `observe` of each value does, with one lock for a bucket instead of two for a value."""
    counts: dict[int, int] = {}
    for value in values:
        at = bisect_left(histogram._upper_bounds, value)  # noqa: SLF001  there is no other way in
        counts[at] = counts.get(at, 0) + 1
    histogram._sum.inc(sum(values))  # noqa: SLF001
    for at, count in counts.items():
        histogram._buckets[at].inc(count)  # noqa: SLF001


class Served(NamedTuple):
    """A metrics endpoint. port: the one that it got; close: stop it and free the port."""

    port: int
    close: Callable[[], None]


def serve(metrics: Metrics, port: int = 0, host: str = "127.0.0.1") -> Served:
    """Serve /metrics in a daemon thread. Port 0 takes a free one, as several workers share a host.

    Loopback unless told otherwise: numbers of a shop's sales are nobody else's. Raises OSError where the port is taken.
    """
    server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    return Served(server.server_port, lambda: _close(server, thread))


def _close(server: WSGIServer, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
