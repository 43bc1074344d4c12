-- What becomes of released orders. Written by `orderstream downstream` and `orderstream downstream deliver` alone; times ms UTC.

-- Where each reader stands. seen_at: when it last knew that it had read all there was.
CREATE TABLE board.downstream_offsets (
    reader text, topic text, partition integer, next bigint NOT NULL DEFAULT 0, seen_at bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (reader, topic, partition)
);

-- All that is known of an order's way, by orderstream/downstream/flow.py: numbers, SKUs, money, times; nothing personal.
CREATE TABLE board.flows (
    order_id text PRIMARY KEY, flow jsonb, at bigint NOT NULL DEFAULT 0,
    created_at bigint                         -- the order's own, ms: which day it belongs to
);
CREATE INDEX flows_at ON board.flows (at);
CREATE INDEX flows_created ON board.flows (created_at);

-- What an order waits for. Past its due it stands on the wall: `WHERE standing`.
CREATE TABLE board.waits (
    order_id text, kind text, seq integer NOT NULL, channel text NOT NULL, shop text NOT NULL,
    since bigint NOT NULL, due bigint NOT NULL, standing boolean NOT NULL DEFAULT false, body jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (order_id, kind)
);
CREATE INDEX waits_due ON board.waits (due) WHERE NOT standing;
CREATE INDEX waits_standing ON board.waits (kind, due) WHERE standing;

-- The last word of each system on each order, for pages and figures.
CREATE TABLE board.acks (
    order_id text, system text, seq integer NOT NULL, effect text NOT NULL, at bigint NOT NULL,
    currency text, total bigint, reason text, PRIMARY KEY (order_id, system)
);

CREATE TABLE board.shipments (
    order_id text, name text, shipment_id text NOT NULL, seq integer NOT NULL, at bigint NOT NULL, unit integer,
    skus jsonb NOT NULL, complete boolean NOT NULL, PRIMARY KEY (order_id, name)
);
CREATE INDEX shipments_at ON board.shipments (at);

-- Records of ours that Kafka has not had; id is the record's own, so that one finding is one record.
CREATE TABLE board.downstream_outbox (
    n bigserial PRIMARY KEY, id text NOT NULL UNIQUE, topic text NOT NULL, key text NOT NULL, value jsonb NOT NULL, sent_at bigint
);
CREATE INDEX downstream_outbox_unsent ON board.downstream_outbox (n) WHERE sent_at IS NULL;

-- Releases and recalls on their way to an ERP without Kafka. body: the record's bytes, personal; gone once delivered.
CREATE TABLE board.deliveries (
    order_id text, seq integer, topic text NOT NULL, body bytea, state text NOT NULL, -- waiting delivered overtaken dead forgotten
    made_at bigint NOT NULL, attempts integer NOT NULL DEFAULT 0, next_at bigint NOT NULL, error text, done_at bigint,
    PRIMARY KEY (order_id, seq)
);
CREATE INDEX deliveries_due ON board.deliveries (next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON board.deliveries (made_at) WHERE state = 'dead';

-- A day of a shop in one currency, as it was last counted. differences: a list, see orderstream/downstream/reconcile.py.
CREATE TABLE board.reconciliations (
    day date, channel text, shop text, currency text, made_at bigint NOT NULL, figures jsonb NOT NULL, differences jsonb NOT NULL,
    PRIMARY KEY (day, channel, shop, currency)
);
