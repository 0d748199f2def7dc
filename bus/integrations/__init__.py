"""Integrations: use of the bus with other frameworks. Each integration is an optional extra.

An integration imports neither another integration nor `bus.cli`.
"""
