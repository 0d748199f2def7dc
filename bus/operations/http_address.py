"""Addresses of the HTTP servers on this machine."""

from pathlib import Path

__all__ = ["HttpAddress", "format_address"]

HttpAddress = Path | tuple[str, int]
"""Path of a Unix socket, or host and port."""


def format_address(at: HttpAddress) -> str:
    """Return the address as text for a message."""
    return str(at) if isinstance(at, Path) else f"{at[0]}:{at[1]}"
