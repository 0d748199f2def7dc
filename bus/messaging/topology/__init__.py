"""Topology: the exchanges, queues, bindings and addresses of the bus as values, and their names.

It declares nothing at a broker: `bus.transports` and `bus.operations.topology` do.
"""
