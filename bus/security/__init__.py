"""Security: keys, tokens, message proofs, grants and payload encryption.

The package reads no settings and imports no transport. `bus.runtime.security` builds its objects
from the settings.
"""
