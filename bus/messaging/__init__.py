"""Messaging: envelope, handler, context, topology values, pure decisions, and every port.

The package is the vocabulary of all other packages. It does no I/O and reads no settings. It
imports only `bus.contracts` and `bus.errors`.
"""
