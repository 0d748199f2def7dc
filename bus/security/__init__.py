"""Security: keys, tokens, message proofs, grants and payload encryption.

It reads no settings and imports no transport. `bus.runtime.security` builds its objects.
"""
