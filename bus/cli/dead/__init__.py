"""`bus dead`: list, show, replay, delete and export dead letters."""

from bus.cli.dead.commands import command

__all__ = ["command"]
