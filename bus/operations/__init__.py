"""Operations: topology, dead letters, queues, brokers, health probes and log set-up.

It imports neither `Router` nor `Bus`: the caller passes the values that it needs.
"""
