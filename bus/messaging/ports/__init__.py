"""Ports: the interfaces that transports and stores implement, with their guarantees.

The package has protocols and the values in their signatures, and no implementation.
"""
