"""The fast lane, which handles frequent frames without aio-pika, on aio-pika's sockets (ADR 0008).

The package imports `bus.transports.rabbitmq.amqp`, but no module that depends on the fast lane.
"""
