"""Actions: what a verdict asks others to do (`orders.actions`), done.

Law: a deed is a row before it is done, named by a key that stays the same for ever, and a recorded success is never repeated. What
may have happened and was not recorded is tried again under the same key, which the gateway is given. So whatever ends the process,
nothing asked for is lost, and whoever honours the key does it once.
"""
