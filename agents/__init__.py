"""Faust's agents, one file a hop: take a batch, call the kernel, say what to send and what to remember. They decide nothing."""
