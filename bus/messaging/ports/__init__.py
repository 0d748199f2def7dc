"""Ports: the interfaces that transports and stores implement, with their guarantees.

The package contains protocols and the types in their signatures, but no implementation.
"""
