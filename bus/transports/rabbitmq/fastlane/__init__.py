"""The fast lane: hot frames are read and written on aio-pika's own sockets, past aio-pika (ADR 0008).

It imports `bus.transports.rabbitmq.amqp`, and nothing that is built on it.
"""
