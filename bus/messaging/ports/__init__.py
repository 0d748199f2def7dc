"""Ports: the interfaces that transports and stores implement, with their guarantees.

It holds protocols and the values in their signatures, and no implementation.
"""
