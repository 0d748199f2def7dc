"""`bus topology`: compare the topology that routers require with the broker's topology."""

from bus.cli.topology.commands import command

__all__ = ["command"]
