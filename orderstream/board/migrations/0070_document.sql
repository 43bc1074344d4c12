-- The verdict_seq of the record that `document`, `units` and `merge_with` are of: a later verdict may bring none of its own.
ALTER TABLE board.orders ADD COLUMN document_seq integer NOT NULL DEFAULT 0;
UPDATE board.orders SET document_seq = out_seq WHERE document IS NOT NULL;
