"""Intake: the one door by which channels' deliveries come in.

Law: a delivery is acknowledged to the channel only after Kafka has acknowledged it to us; nothing is answered from memory,
nothing is parsed here beyond the key. Reason: a platform that was told "received" never sends again, so whatever fails
between its bytes and the broker's disk must look to it like a failure, and be sent again.

`envelope` is how a raw record travels in Kafka, `sink` the way into it, `app` the HTTP service, `door` a connection to it,
`pace` how many are taken at once, `serve` the process.
"""
