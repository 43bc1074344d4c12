-- The verdict_seq of the record that `document`, `units` and `merge_with` are of: a later verdict may bring none of its own.
ALTER TABLE board.orders ADD COLUMN document_seq integer NOT NULL DEFAULT 0;
UPDATE board.orders SET document_seq = out_seq WHERE document IS NOT NULL;

-- What is old is found without reading what is not.
CREATE INDEX orders_contents ON board.orders (received_at) WHERE document IS NOT NULL;
CREATE INDEX messages_made ON board.messages (made_at);
CREATE INDEX links_expired ON board.links (expires_at);
CREATE INDEX outbox_sent ON board.outbox (sent_at) WHERE sent_at IS NOT NULL;
