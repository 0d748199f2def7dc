"""The runtime of a service: client, router, receive loop, settlement, and `Bus`.

It imports no integration and no command line.
"""
