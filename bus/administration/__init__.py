"""Topology as code: what routers need in the broker, beside what it has.

wanted         what the routers of one or more services need
held           what the broker has, by its management API
plan           the differences between the two, named
applying       make what is missing
verifying      look only; at the start of a service, too
definitions    what is needed as the file that RabbitMQ imports
permissions    what each service may do there, by its grants
migration      a queue made anew with other arguments, its messages kept
"""
