"""Messaging: envelope, handler, context, topology, settlement decisions, and every port.

The package defines the types that all other packages use. It does no I/O and reads no settings. It
imports only `bus.contracts` and `bus.errors`.
"""
