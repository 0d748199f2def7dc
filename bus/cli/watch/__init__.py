"""`bus watch`: show messages while services send them."""

from bus.cli.watch.commands import command

__all__ = ["command"]
