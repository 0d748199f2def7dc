"""The vocabulary of all other packages.

It holds the envelope, the handler, the context, topology values, pure decisions and every port.

It does no I/O and reads no settings. It imports only `bus.contracts` and `bus.errors`.
"""
