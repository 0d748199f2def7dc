"""Peers under the same ledger.

They have durable queues and persistent messages, and everything else is at its default.
"""
