"""`bus store`: create, upgrade, check, prune and re-encrypt the durable store of a service."""

from bus.cli.store.commands import command

__all__ = ["command"]
