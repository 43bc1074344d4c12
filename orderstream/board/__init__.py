"""The board: where people decide what the machine should not.

Law: the stream and the board meet in two places alone, `consume` (public topics → rows, with the offsets in one transaction) and
`outbox` (decisions → orders.outcomes). What a person decided is a row, an audit row and an outbox row, or none of the three.
"""
