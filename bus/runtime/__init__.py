"""The runtime of a service: client, router, receive loop, settlement, and `Bus`.

The package imports neither `bus.integrations` nor `bus.cli`.
"""
