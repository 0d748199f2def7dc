"""Topology operations: the exchanges and queues that routers require, compared with those that the broker has.

required         what the routers of one or more services require
broker_state     what the broker has, read by its management API
diff             the differences between the two
apply            declares what is missing
verify           compares only; a service does so when it starts
definitions      the required topology as the file that RabbitMQ imports
permissions      the rights of each service at the broker, derived from its grants
user_passwords   the passwords of the broker users
migrate          makes a queue again with other arguments and keeps its messages
"""
