"""AMQP 0-9-1 frames and properties, as bytes and values.

It opens no connection, and imports nothing else of `bus.transports.rabbitmq`.
"""
