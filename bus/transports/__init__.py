"""Transports: implementations of the port `bus.messaging.ports.transport`, and the wire format.

A transport imports no other transport, no store and no middleware.
"""
