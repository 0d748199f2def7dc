"""Contracts: message classes, their versions, their schema and their compatibility.

It imports only `bus.errors`: no settings, no broker, no I/O.
"""
