"""`bus jobs`: list, show, watch, cancel and retry the durable jobs in a store."""

from bus.cli.jobs.commands import command

__all__ = ["command"]
