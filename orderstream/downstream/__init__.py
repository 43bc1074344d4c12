"""What becomes of an order once it is released: who has acknowledged it, what was packed, what the ERP holds.

Law: what an order waits for is a function of the set of records about it (`flow`), whatever the order in which five topics are
read; the clock only says which of it is overdue. Reason: acknowledgements overtake what they acknowledge, and come again.

`flow` and `parcels` are pure; `store` keeps them in PostgreSQL, `process` reads and answers, `deliver` speaks to ERPs without
Kafka, `reconcile` counts a day.
"""
