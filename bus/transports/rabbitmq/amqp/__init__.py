"""AMQP 0-9-1 frames and properties, as bytes and values.

The package opens no connection. It imports nothing else of `bus.transports.rabbitmq`.
"""
