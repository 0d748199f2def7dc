"""`bus services`: show the live instances of services, and their statistics."""

from bus.cli.services.commands import command

__all__ = ["command"]
