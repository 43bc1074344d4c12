"""Examples to copy: what an ERP and a WMS do with orderstream's topics.

Law: a consumer's effect and its position in Kafka are one transaction of its own database. Reason: Kafka may deliver a record
again after any crash on either side; whoever writes the effect first and the position later does it twice, and the other way
round loses it. The group's committed offsets are for people who watch the lag; nothing here depends on them.
"""
