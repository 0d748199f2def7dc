"""Brokers for development and tests: RabbitMQ at a URL, on this machine, or in a container."""
