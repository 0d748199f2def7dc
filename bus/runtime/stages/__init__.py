"""The inbound stages: one file each, listed in order in `bus/runtime/inbound.py`.

A stage imports no other stage, and no module that composes stages.
"""
