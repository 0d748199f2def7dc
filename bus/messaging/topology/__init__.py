"""Topology: the exchanges, queues, bindings and addresses of the bus as values, and their names.

The package declares nothing at a broker: `bus.transports` and `bus.operations.topology` do.
"""
