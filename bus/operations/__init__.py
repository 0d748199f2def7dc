"""Operations: topology, dead letters, queues, brokers, health probes and log set-up.

The package is for operators and orchestrators. It does not import `Router` or `Bus`. The caller
passes all values that the functions need.
"""
