"""Topology: values that describe the exchanges, queues, bindings and addresses of the bus.

The package does not connect to a broker. `bus.transports` and `bus.operations.topology` declare
these objects.
"""
