"""`bus top`: show rates, latencies, errors, queues and dead letters on a live screen."""

from bus.cli.top.commands import command

__all__ = ["command"]
