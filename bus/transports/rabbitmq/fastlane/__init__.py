"""The fast lane, which handles frequent AMQP frames in place of aio-pika.

It uses the sockets of aio-pika's connections (ADR 0008).
The package imports `bus.transports.rabbitmq.amqp`, but no module that uses the fast lane.
"""
