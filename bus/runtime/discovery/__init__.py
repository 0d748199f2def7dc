"""Discovery: the control channel, the live instances, and summaries of their statistics.

An instance answers questions about itself, and asks other instances. The broker carries both on the
exchange `bus.control`, so no further server is needed.
"""
