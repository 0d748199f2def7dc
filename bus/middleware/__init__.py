"""Middleware: one policy a file, for the client or the server, and the two stacks in `stacks.py`.

Policies never import each other, a transport or the settings.
"""
