"""Commands that end with one line about what went wrong do not also log it."""

__all__ = []
