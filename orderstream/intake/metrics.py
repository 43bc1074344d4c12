"""What intake counts. Labels are channel, shop and outcome, never anything that a sender chose freely."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "orderstream_intake_requests",
    "Deliveries by outcome: accepted, ping, bad, unsigned, unknown, too-large, timeout, busy, unavailable.",
    ("channel", "shop", "outcome"),
)
BUSY = REQUESTS.labels("-", "-", "busy")
"""Turned away unread, which is to cost as little as can be."""
REFUSED = Counter("orderstream_intake_refused", "Deliveries whose sender was not proved, by what failed.", ("channel", "code"))
ACK_SECONDS = Histogram(
    "orderstream_intake_ack_seconds",
    "From the whole body received to Kafka's acknowledgement.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4),
)
LIMIT = Gauge("orderstream_intake_limit", "Deliveries that may be under way at once, by the pace measured; past it 503.")
IN_FLIGHT = Gauge("orderstream_intake_in_flight", "Records given to the producer and not acknowledged yet.")
