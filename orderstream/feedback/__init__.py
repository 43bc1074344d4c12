"""Feedback: what outcomes say for the next time: read from tables, made into labels, and into suggestions for people.

What outcomes teach the rules by themselves (returns, usual places) is the kernel's: route tells it to the order's entities.
"""
