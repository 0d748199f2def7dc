"""The fast lane: frequent frames bypass aio-pika, on aio-pika's own sockets (ADR 0008).

The package imports `bus.transports.rabbitmq.amqp`, and nothing that depends on the fast lane.
"""
