"""The wire format and the transports.

The transports implement the protocols in `bus.messaging.ports.transport`. They do not import stores
or middlewares.
"""
