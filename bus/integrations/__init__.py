"""Integrations: the bus inside and in front of other frameworks, one optional extra each.

An integration imports no other integration, and nothing of `bus.cli`.
"""
