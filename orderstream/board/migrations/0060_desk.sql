-- What was said of orders through the board by people and other systems, by the outcome's id: said again it is the same, and is not
-- said to the stream again. said: SHA-256 of the record.
CREATE TABLE board.heard (
    id text PRIMARY KEY, order_id text NOT NULL, said bytea NOT NULL, by text NOT NULL, at bigint NOT NULL
);
CREATE INDEX heard_at ON board.heard (at);

-- Rejects that somebody asked to be put back. counts: by what became of them, as `orderstream rejected replay` says it.
CREATE TABLE board.replays (
    id uuid PRIMARY KEY, rejects text[] NOT NULL, since bigint NOT NULL, by text NOT NULL, asked_at bigint NOT NULL,
    done_at bigint, counts jsonb, error text
);
CREATE INDEX replays_open ON board.replays (asked_at) WHERE done_at IS NULL;

-- Refunds that reconciliations were told of by the channels, so that a later day knows all that went back of an order.
CREATE TABLE board.refunds (
    order_id text, refund_id text, amount bigint NOT NULL, currency text NOT NULL, at bigint NOT NULL, PRIMARY KEY (order_id, refund_id)
);
