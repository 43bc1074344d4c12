"""The board's own numbers; the law of `orderstream.metrics` holds: no label is fed by an order or by a person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class BoardMetrics:
    """The metrics of a board process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        r = registry
        self.taken: Counter = Counter(
            "orderstream_board_records_total", "看板读入的记录 / records taken in", ["topic"], registry=r
        )
        self.lag: Gauge = Gauge("orderstream_board_lag", "看板未读的记录 / records not taken in yet", ["topic"], registry=r)
        # 1 or 0; at 0 the stream goes on and the wall stands still.
        self.database: Gauge = Gauge("orderstream_board_database", "PostgreSQL 是否可用 / whether PostgreSQL answers", registry=r)
        # Unix seconds of the last look into Kafka.
        self.polled: Gauge = Gauge("orderstream_board_polled_timestamp_seconds", "最近一次读取 / the last read", registry=r)
        # Decisions made and not said to the stream yet.
        self.unsent: Gauge = Gauge("orderstream_board_outbox", "尚未送出的决定 / decisions not sent yet", registry=r)
        self.unsent_age: Gauge = Gauge(
            "orderstream_board_outbox_oldest_seconds", "未送出的决定等了多久 / age of the oldest not sent", registry=r
        )
        self.sent: Counter = Counter("orderstream_board_outcomes_total", "送出的决定 / outcomes sent", ["outcome"], registry=r)
        self.waiting: Gauge = Gauge("orderstream_board_waiting", "等待人工的订单 / orders that wait", ["level"], registry=r)
        self.overdue: Gauge = Gauge("orderstream_board_overdue", "已过时限的订单 / orders past their deadline", registry=r)
        # What was done with what waits too long: reminded, supervisor, approver, stayed, released, cancelled.
        self.escalations: Counter = Counter("orderstream_board_escalations_total", "催办 / escalations", ["step"], registry=r)
