"""Storage: implementations of the ports for data that outlives a message, such as the inbox.

The package imports no transport, no middleware and no runtime.
"""
