"""`bus consumers`: show, pause and resume the consumers of events and jobs."""

from bus.cli.consumers.commands import command

__all__ = ["command"]
