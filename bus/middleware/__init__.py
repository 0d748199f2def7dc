"""Middleware: policies that the client or the server applies to each message.

Each module has one policy. `stacks.py` combines the policies into a client stack and a server
stack. A policy never imports another policy, a transport or the settings.
"""
