"""`bus trace`: show the path of all messages with one correlation id."""

from bus.cli.trace.commands import command

__all__ = ["command"]
