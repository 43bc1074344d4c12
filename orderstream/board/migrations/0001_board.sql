-- What the board knows. Times are ms UTC, money minor units, an order's own words (name, phone, address) only in orders.document.
-- Tables of others: people, sessions, tokens 0020 · whitelist, snoozes, profiles 0030 · acks, shipments, reconciliations 0040
-- · messages, links 0050.

CREATE TABLE board.offsets (
    topic text, partition integer, next bigint NOT NULL, PRIMARY KEY (topic, partition)
);

-- Rule packs as they were published: titles, sentences and limits for the pages.
CREATE TABLE board.packs (
    version text PRIMARY KEY, body jsonb NOT NULL, read_at bigint NOT NULL
);

-- One incident: the orders that their signals' evidence names together, or a single one. key: the least of its order ids.
-- What stands here of its orders counts those that wait.
CREATE TABLE board.cases (
    case_id text PRIMARY KEY,
    key text NOT NULL,
    title text NOT NULL DEFAULT '',           -- the rule of most weight and most orders
    level text NOT NULL DEFAULT 'none',
    rank smallint NOT NULL DEFAULT 0,         -- level as a number: 0 none … 3 high
    opened_at bigint NOT NULL,                -- the least received_at of those that wait
    newest_at bigint NOT NULL DEFAULT 0,      -- when its last signal came
    orders integer NOT NULL DEFAULT 0,        -- all of its orders that are known
    waiting integer NOT NULL DEFAULT 0,       -- those that wait for a person
    deadline bigint,                          -- the earliest one of them
    currency text,                            -- null where they differ
    total bigint NOT NULL DEFAULT 0,          -- sum of those in `currency`, or the greatest sum of one currency
    channels text[] NOT NULL DEFAULT '{}',
    shops text[] NOT NULL DEFAULT '{}',       -- channel:shop
    rules text[] NOT NULL DEFAULT '{}',
    asked integer NOT NULL DEFAULT 0          -- those whose decision waits for an approver
);
CREATE INDEX cases_waiting ON board.cases (deadline, rank DESC, total DESC) WHERE waiting > 0;

-- Which case an order id belongs to; also ids that evidence names and whose own record has not come.
CREATE TABLE board.members (
    order_id text PRIMARY KEY, case_id text NOT NULL
);
CREATE INDEX members_case ON board.members (case_id);

-- What evidence says now: `order_id` names `other`.
CREATE TABLE board.edges (
    order_id text, other text, PRIMARY KEY (order_id, other)
);
CREATE INDEX edges_other ON board.edges (other);

-- A case that has gone into another one, or was named anew by an earlier order: whoever has its page open is led on.
CREATE TABLE board.merged (
    case_id text PRIMARY KEY, into_id text NOT NULL, at bigint NOT NULL
);

CREATE TABLE board.orders (
    order_id text PRIMARY KEY,
    channel text NOT NULL,
    shop text NOT NULL,
    verdict text NOT NULL,                    -- what the machine thinks: released review frozen pending withdrawn
    level text NOT NULL,
    score integer NOT NULL,
    pack text NOT NULL DEFAULT '',
    seq integer NOT NULL,                     -- verdict_seq of the last verdict that was read
    changed_seq integer NOT NULL,             -- the last one that brought what a person has to see before deciding
    out text NOT NULL DEFAULT '',             -- the public topic it stands on: released review frozen or ''
    out_seq integer NOT NULL DEFAULT 0,
    out_by text,                              -- "machine" or whoever released it
    held boolean NOT NULL DEFAULT false,
    recalled boolean NOT NULL DEFAULT false,
    currency text NOT NULL,
    total bigint NOT NULL,
    status text NOT NULL,
    document jsonb,                           -- the order itself: personal; null where it is not known here or was forgotten
    signals jsonb NOT NULL DEFAULT '[]',
    not_available jsonb NOT NULL DEFAULT '[]',
    rules jsonb NOT NULL DEFAULT '[]',
    tags jsonb NOT NULL DEFAULT '[]',
    combinations jsonb NOT NULL DEFAULT '[]',
    units jsonb NOT NULL DEFAULT '[]',
    merge_with jsonb NOT NULL DEFAULT '[]',
    fired text[] NOT NULL DEFAULT '{}',       -- the rules of `signals`
    words text NOT NULL DEFAULT '',           -- what a search finds it by: number, codes, articles; nothing personal
    buyer text,                               -- channel:buyer's number, for their history
    created_at bigint NOT NULL,
    received_at bigint NOT NULL,
    decided_at bigint NOT NULL,               -- when the machine last decided
    signal_at bigint NOT NULL,                -- when the last new signal came
    ship_by bigint,
    deadline bigint,                          -- when a person must have decided: ship_by, or the pack's limit
    escalated smallint NOT NULL DEFAULT 0,    -- 0 nobody, 1 reminded, 2 supervisor, 3 deputy or approver, 4 its end was carried out
    case_id text,
    state text NOT NULL,                      -- waiting decided correction after-sales asking closed
    asked uuid,                               -- the decision that waits for approvers
    decision uuid,                            -- the last decision that stands
    answer text,                              -- what the customer answered
    shipped_at bigint
);
CREATE INDEX orders_waiting ON board.orders (deadline, total DESC) WHERE state = 'waiting';
CREATE INDEX orders_open ON board.orders (state, deadline) WHERE state IN ('waiting', 'correction', 'after-sales', 'asking');
CREATE INDEX orders_case ON board.orders (case_id);
CREATE INDEX orders_buyer ON board.orders (buyer, created_at DESC) WHERE buyer IS NOT NULL;
CREATE INDEX orders_received ON board.orders (received_at);

-- The codes of waiting orders that name no article: who is to be checked again when one is mapped.
CREATE TABLE board.unmapped (
    order_id text, channel text NOT NULL, shop text NOT NULL, line text, code text NOT NULL, title text,
    PRIMARY KEY (order_id, line)
);
CREATE INDEX unmapped_code ON board.unmapped (channel, code);

-- An order's time line. body: ids, numbers, rules; nothing personal.
CREATE TABLE board.events (
    id bigserial PRIMARY KEY,
    order_id text NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    by text,
    body jsonb NOT NULL DEFAULT '{}',
    same text NOT NULL,                       -- what tells a repeat from a new one
    UNIQUE (order_id, same)
);
CREATE INDEX events_at ON board.events (at);

-- What people decided, one row an order. id is the outcome's id on orders.outcomes; bulk: what was decided in one go.
CREATE TABLE board.decisions (
    id uuid PRIMARY KEY,
    bulk uuid NOT NULL,
    order_id text NOT NULL,
    case_id text,
    by text NOT NULL,
    at bigint NOT NULL,
    decision text NOT NULL,                   -- release correction after-sales confirm cancel
    reason text NOT NULL,
    note text NOT NULL DEFAULT '',
    details jsonb NOT NULL DEFAULT '{}',
    seq integer NOT NULL,
    needs smallint NOT NULL DEFAULT 0,        -- approvers
    state text NOT NULL,                      -- asked standing refused undone overtaken
    state_before text NOT NULL,
    signal_at bigint,                         -- the last signal that it was about
    effective_at bigint,                      -- when it took effect: at once, or with the last approval
    applied_at bigint,                        -- when the stream said so
    audit bigint,
    undone_by text,
    undone_at bigint
);
CREATE INDEX decisions_order ON board.decisions (order_id, at);
CREATE INDEX decisions_bulk ON board.decisions (bulk);
CREATE INDEX decisions_asked ON board.decisions (at) WHERE state = 'asked';
CREATE INDEX decisions_at ON board.decisions (at);

CREATE TABLE board.approvals (
    decision_id uuid NOT NULL REFERENCES board.decisions, by text NOT NULL, at bigint NOT NULL, yes boolean NOT NULL,
    note text NOT NULL DEFAULT '', PRIMARY KEY (decision_id, by)
);

-- A second look at who somebody is, as its own record: by telephone, papers, the platform.
CREATE TABLE board.verifications (
    id uuid PRIMARY KEY, order_id text NOT NULL, by text NOT NULL, at bigint NOT NULL,
    method text NOT NULL, result text NOT NULL, note text NOT NULL DEFAULT '', audit bigint
);
CREATE INDEX verifications_order ON board.verifications (order_id);

-- What is to be said to Kafka, in the transaction that decided it.
CREATE TABLE board.outbox (
    id bigserial PRIMARY KEY, topic text NOT NULL, key text NOT NULL, value jsonb NOT NULL,
    made_at bigint NOT NULL, sent_at bigint
);
CREATE INDEX outbox_unsent ON board.outbox (id) WHERE sent_at IS NULL;

-- Who stands in for whom, from when until when. Names are people's login names.
CREATE TABLE board.deputies (
    id bigserial PRIMARY KEY, person text NOT NULL, deputy text NOT NULL, roles text[] NOT NULL, since bigint NOT NULL, until bigint NOT NULL,
    by text NOT NULL, at bigint NOT NULL
);

-- What could not be one order; its bytes stay on orders.rejected.
CREATE TABLE board.rejects (
    id text PRIMARY KEY, order_id text NOT NULL, channel text NOT NULL, shop text NOT NULL, received_at bigint NOT NULL,
    code text NOT NULL, reason text NOT NULL, field text, pack text NOT NULL, replayed_at bigint
);
CREATE INDEX rejects_at ON board.rejects (received_at DESC);

-- Every row names the one before by its hash; nobody changes or removes one.
CREATE TABLE board.audit (
    n bigint PRIMARY KEY, at bigint NOT NULL, by text NOT NULL, what text NOT NULL, body jsonb NOT NULL,
    prev bytea NOT NULL, hash bytea NOT NULL
);
CREATE TABLE board.audit_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), n bigint NOT NULL, hash bytea NOT NULL
);
INSERT INTO board.audit_head VALUES (true, 0, '\x');

CREATE FUNCTION board.never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'board.audit is append-only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON board.audit FOR EACH ROW EXECUTE FUNCTION board.never();
CREATE TRIGGER audit_not_emptied BEFORE TRUNCATE ON board.audit FOR EACH STATEMENT EXECUTE FUNCTION board.never();

-- A code mapped here: it goes to the catalogue, then the orders that wait with it are put back to be read with it.
CREATE TABLE board.mappings (
    id uuid PRIMARY KEY, channel text NOT NULL, shop text, code text NOT NULL, sku text NOT NULL, move boolean NOT NULL,
    by text NOT NULL, asked_at bigint NOT NULL,
    read_at bigint,                           -- as of when the orders are read again: the mapping is in force by then
    done_at bigint, orders integer, missing integer, error text
);
CREATE INDEX mappings_open ON board.mappings (asked_at) WHERE done_at IS NULL;

-- Steps that were taken because an order had waited too long. step: reminded supervisor approver ended; done: the step, or at the end
-- stay release cancel; whom: {"role": …, "deputies": {"boss": "li"}}.
CREATE TABLE board.escalations (
    id bigserial PRIMARY KEY, order_id text NOT NULL, seq integer NOT NULL, step text NOT NULL, done text NOT NULL,
    deadline bigint NOT NULL, at bigint NOT NULL, whom jsonb NOT NULL DEFAULT '{}', UNIQUE (order_id, deadline, step)
);
CREATE INDEX escalations_at ON board.escalations (at);
