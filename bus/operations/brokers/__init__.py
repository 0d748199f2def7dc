"""Where a RabbitMQ comes from: one that is named, one of this machine, or one in a container."""
