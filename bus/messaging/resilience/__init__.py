"""Resilience: the pure decisions that protect a caller from a destination that is down or slow.

Each decision is an object with a timer, and does no I/O. The middlewares and the inbound stages
apply the decisions.
"""
