"""The path of all messages with one correlation id: sent, handled, retried, waiting or dead.

The functions are pure. They join records that other modules have read: the memory of live
instances, dead letters, and the numbers of messages in queues. They never read a work queue or a
retry tier, because RabbitMQ cannot show a message there without an effect (ADR 0036).
"""
