"""orderstream: the order pre-check in front of a shop's ERP.

The modules of this package are a pure kernel (values in, values out) and thin edges
(`intake`, `broker`, `demo`, `cli`). `docs/architecture.md` says which is which.
"""
