"""Encoding and decoding of AMQP 0-9-1 frames and properties.

The package does not open connections, and does not import other parts of `bus.transports.rabbitmq`.
"""
