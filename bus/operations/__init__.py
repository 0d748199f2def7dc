"""Operations: topology, dead letters, queues, brokers, health probes and log set-up.

The package is for operators and orchestrators. It imports neither `Router` nor `Bus`: the caller
passes the values that it needs.
"""
