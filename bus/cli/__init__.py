"""`bus`: the command line. Exit codes: see `bus.cli.errors`."""

import gc
import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import typer

from bus.cli.errors import INTERRUPTED, Reporter

__all__ = ["COMMANDS", "build", "main"]

# A command is the module `bus.cli.<name>` with `command`: a function, or a `typer.Typer` where it has commands of its own.
# The summary stands here because `bus --help` shows it without loading the command: brokers, transports, engines.
COMMANDS = {
    "broker": "Start a private RabbitMQ with its management UI, until Ctrl-C.",
    "call": "Send a request, and print the answer as JSON.",
    "contracts": "List the known contracts, or show one.",
    "dead": "List, show, replay, delete and export dead letters.",
    "demo": "Watch a spoken dictation become a transcript, a note and documents, every step on one correlation id.",
    "doctor": "Show what is installed, which broker would be used and why, and whether it answers.",
    "grants": "Check a grants file, and show the rights of services and operators.",
    "health": "Ask a worker of this machine whether it is ready: exit code 0, else 1.",
    "keys": "Make, rotate and revoke the keys by which services prove who they are.",
    "publish": "Publish an event; returns when the broker has confirmed it.",
    "queues": "Show the messages, consumers and dead letters of each queue.",
    "run": "Serve a router until SIGTERM or Ctrl-C.",
    "submit": "Submit a job, show its progress, and print its result as JSON.",
    "topology": "Compare the required topology with the broker's, and create missing objects.",
}
DEBUG = "--debug"
PROGRAM = "bus"
COMPLETING = "_BUS_COMPLETE"
"""Set by the shell's completion, which gives the line in one of `LINES` and no arguments."""
LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends by `SystemExit`."""
    debug, rest = take_debug(list(sys.argv[1:] if arguments is None else arguments))
    for library in ("aio_pika", "aiormq"):
        # What they log about a connection that fails is in the error that we show.
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        with (
            staying() if arguments is None else nullcontext()
        ):  # where they are given, the process is not ours
            app = build(completed_line(os.environ) or rest, Reporter(debug=debug))
        app(rest, prog_name=PROGRAM)
    except KeyboardInterrupt:  # while a command was being loaded
        sys.exit(INTERRUPTED)


@contextmanager
def staying() -> Iterator[None]:
    """What is imported meanwhile is no garbage. Looking for some in it, often and at the exit, was a quarter of a command's time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def completed_line(environment: Mapping[str, str]) -> list[str]:
    """The arguments so far of a line that a shell completes; empty where it does not."""
    if COMPLETING not in environment:
        return []
    return next((environment[name] for name in LINES if name in environment), "").split()[1:]


def take_debug(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether `--debug` is among our own arguments, and the others; what follows `--` is not ours."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return DEBUG in own, [each for each in own if each != DEBUG] + arguments[len(own) :]


def build(arguments: Sequence[str], reporter: Reporter) -> typer.Typer:
    """The application with the command that `arguments` name loaded, and the others by their summaries only."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=global_options)
    named = next((each for each in arguments if not each.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == named:
            attach(
                app,
                name,
                importlib.import_module(f"bus.cli.{name.replace('-', '_')}").command,
                reporter,
            )
        else:
            app.command(name, help=summary)(unloaded)
    return app


def attach(
    app: typer.Typer, name: str, command: typer.Typer | Callable[..., Any], reporter: Reporter
) -> None:
    """Add a command, or a group of them, with its failures reported."""
    if not isinstance(command, typer.Typer):
        app.command(name, help=flowing(command))(reporter(command))
        return
    for each in (*command.registered_commands, command.registered_callback):
        if each is not None and each.callback is not None:
            each.help = flowing(each.callback)
            each.callback = reporter(each.callback)
    app.add_typer(command, name=name)


def flowing(command: Callable[..., Any]) -> str:
    """A docstring as paragraphs without line ends, which belong to the source and not to a terminal."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command) or "")


def told_version(wanted: bool) -> None:
    """Print which version this is, and end."""
    if not wanted:
        return
    try:
        # By name: no other command needs what it loads.
        version = importlib.import_module("importlib.metadata").version("trunkline")
    except ModuleNotFoundError:  # a checkout that is not installed
        version = "that is not installed"
    typer.echo(f"trunkline {version}")
    raise typer.Exit


def global_options(
    debug: bool = typer.Option(False, DEBUG, help="Show where an error came from."),  # noqa: FBT003  read by main
    version: bool = typer.Option(
        False,  # noqa: FBT003 - as above
        "--version",
        is_eager=True,
        callback=told_version,
        help="Print the version.",
    ),
) -> None:
    """Requests, events and jobs between Python services on RabbitMQ."""


def unloaded() -> None:
    """Stand in for a command that these arguments do not name."""
