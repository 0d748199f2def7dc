"""Options of the pool of connections, for all databases."""

from typing import Any, Final

__all__ = ["IS_READING", "MAX_OVERFLOW", "POOL_OPTIONS"]

IS_READING = "bus_is_reading"
"""Execution option of a connection that only reads. On SQLite it does not wait for writers."""
MAX_OVERFLOW: Final = 10
"""Connections beside those that stay open."""
POOL_OPTIONS: Final[dict[str, Any]] = {
    "hide_parameters": True,
    "pool_size": 5,
    # Maximum seconds to wait for a free connection.
    "pool_timeout": 10.0,
}
"""Options of each engine. Errors have no parameters of statements, which can be payloads."""
