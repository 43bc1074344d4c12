-- What `orderstream actions` has to do and has done. Nothing personal: whom a customer's message goes to is read from
-- orders.document at each attempt.

CREATE TABLE board.messages (
    id text PRIMARY KEY,                      -- the idempotency key, also towards gateways
    action text NOT NULL,                     -- the action on orders.actions that it follows from
    order_id text NOT NULL,
    seq integer NOT NULL,                     -- verdict_seq of the action
    kind text NOT NULL,                       -- action (to be taken apart) · notify confirm (told) · lock unlock challenge (sent to Kafka)
    rule text,
    level text NOT NULL,
    receiver text NOT NULL DEFAULT '',        -- a name of the receivers' file, or `customer`
    via text NOT NULL DEFAULT '',             -- a gateway's name there
    body jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL,                      -- waiting trying sent · joined (said by `lead`) · dropped (no longer wanted) · dead
    attempts integer NOT NULL DEFAULT 0,
    answered integer NOT NULL DEFAULT 0,      -- attempts that were answered, with a no; the others' ends nobody knows
    made_at bigint NOT NULL,
    next_at bigint NOT NULL,                  -- when it is due; of one that is being tried: when we give its process up
    tried_at bigint,
    done_at bigint,
    error text,
    receipt text,
    lead text
);
CREATE INDEX messages_due ON board.messages (next_at) WHERE state IN ('waiting', 'trying');
CREATE INDEX messages_pace ON board.messages (receiver, tried_at) WHERE tried_at IS NOT NULL;
CREATE INDEX messages_order ON board.messages (order_id);
CREATE INDEX messages_dead ON board.messages (done_at) WHERE state = 'dead';
CREATE INDEX messages_lead ON board.messages (lead) WHERE lead IS NOT NULL;

-- Up to where orders.actions has become rows above.
CREATE TABLE board.actions_read (
    topic text, partition integer, next bigint NOT NULL, PRIMARY KEY (topic, partition)
);

-- What a signed link stands for. person: a login name; null: whoever ordered. Its signature covers every column up to expires_at.
CREATE TABLE board.links (
    id text PRIMARY KEY,
    order_id text NOT NULL,
    seq integer NOT NULL,                     -- the verdict that its bearer is told of
    person text,
    what text NOT NULL,                       -- release cancel approve refuse confirm meeting
    about text NOT NULL DEFAULT '',           -- approve, refuse: the decision · meeting: the record
    expires_at bigint NOT NULL,
    made_at bigint NOT NULL,
    used_at bigint,
    answer text
);
CREATE INDEX links_order ON board.links (order_id);

-- The record of a high-risk case's meeting: what was known, written down when it was called for, and what people fill in.
CREATE TABLE board.meetings (
    id text PRIMARY KEY,
    case_id text NOT NULL UNIQUE,             -- of an order without a case: its order id
    order_id text NOT NULL,                   -- the first one that called for it
    made_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    facts jsonb NOT NULL,                     -- what is known of the case: written anew until it is closed
    filled jsonb NOT NULL DEFAULT '{}',
    closed_at bigint,
    closed_by text
);
