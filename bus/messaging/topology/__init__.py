"""Topology: the exchanges, queues, bindings and addresses of the bus as values, and their names.

The package does not connect to a broker. `bus.transports` and `bus.operations.topology` declare
these objects.
"""
