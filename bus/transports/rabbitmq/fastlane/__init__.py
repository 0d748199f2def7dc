"""The fast lane. It handles the frequent AMQP frames instead of aio-pika.

It uses the sockets of aio-pika's connections (ADR 0008).
The package imports `bus.transports.rabbitmq.amqp`, but no module that uses the fast lane.
"""
