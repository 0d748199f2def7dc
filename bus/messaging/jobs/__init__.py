"""Durable jobs: their states, their records, and the moves between the states.

The package has values and pure decisions. `bus.messaging.ports.store` has the ports, and
`bus.storage` implements them.
"""
