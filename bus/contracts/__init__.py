"""Contracts: message classes, their versions, their schema and their compatibility.

The package imports only `bus.errors`: no settings, no broker, no I/O.
"""
