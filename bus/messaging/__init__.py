"""The vocabulary of all other packages: envelope, handler, context, topology values, pure decisions, and every port.

It does no I/O and reads no settings. It imports only `bus.contracts` and `bus.errors`.
"""
