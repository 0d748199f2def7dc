"""The transports, which implement `bus.messaging.ports.transport`, and the wire format.

Transports do not import stores or middlewares.
"""
