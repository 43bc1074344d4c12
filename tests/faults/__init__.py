"""The fault harness: one installation under signed traffic, broken on purpose again and again, and reconciled at its end.

`links` the ways to the broker · `services` the processes and what starts them again · `installation` all of it together ·
`traffic` the shops · `watch` what comes out, and when · `kinds` the faults · `campaign` rounds of them · `evidence` what the
topics and the ERP hold afterwards · `reconcile` what is wrong with it · `ledger` the rounds of all runs.
"""
