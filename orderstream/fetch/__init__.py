"""Fetch: what a push only named is fetched from its platform, and what no push told is asked for.

Law: a record leaves orders.pending when Kafka has its raw record with the detail, or its rejection, or has it on orders.parked;
it leaves orders.parked by a tombstone behind the first two. Nothing is kept that is not in Kafka, and nothing goes on half.
Reason: the platform was told "received" and never says it again.

    orders.pending ──▶ lane of the shop ──▶ detail ──▶ orders.raw.<channel>
         ▲                │ in vain, or too many before it       └▶ orders.rejected   (the platform has no such order)
      poll, webhooks      ▼
                    orders.parked, tried until it works

A shop has a lane, with few calls at a time and few orders waiting: whoever finds it full or its platform resting is parked at
once, so no shop waits for another's. Of what is parked only its place is in memory; the bytes are read when its turn comes.
Partitions of pending, parked and polled are owned together, by the consumer group: who owns a partition fetches its orders and
polls the shops whose names fall into it. A process that was away too long may do once more what another has done; the line
behind takes the repeat for one.

`share` a partition's books, `lane` a shop's queue, `outlet` the way into Kafka, `seen` what has come in, `poll` asking for the
rest, `pull` taking from a platform's queue, `process` the whole, `show` what a person sees.
"""
