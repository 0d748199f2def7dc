"""Sources of a RabbitMQ: a URL, an installation on this machine, or a container."""
