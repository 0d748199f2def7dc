"""Command line of the bus. `bus.cli.errors` defines the exit codes."""

import gc
import importlib
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import typer

from bus.cli.errors import INTERRUPTED, TERMINATED, Reporter
from bus.cli.terminal_encoding import accept_any_text
from bus.errors import BusError
from bus.messaging.variable_values import environment_value

__all__ = ["COMMANDS", "build", "main"]

COMMANDS = {
    "breakers": "Show, isolate and reset the circuit breakers of live instances.",
    "broker": "Run a private RabbitMQ with its management UI until Ctrl-C.",
    "call": "Send a request, and print the reply as JSON.",
    "chaos": "Start, stop and show chaos experiments in live instances.",
    "consumers": "Show, pause and resume the consumers of events and jobs.",
    "contracts": "List the known contracts, or show one.",
    "dead": "List, show, replay, delete and export dead letters.",
    "demo": "Turn a spoken dictation into a transcript, a note and documents, step by step.",
    "doctor": "Check the installation, the settings and the broker.",
    "exporter": "Serve the metrics of all live instances for Prometheus, until Ctrl-C or SIGTERM.",
    "grants": "Check a grants file, and show the rights of services and operators.",
    "health": "Check whether a worker on this machine is ready: exit code 0 if ready, 1 if not.",
    "jobs": "List, show, watch, cancel and retry the durable jobs in a store.",
    "keys": "Create, rotate and revoke the keys that sign and encrypt messages.",
    "publish": "Publish an event, and wait until the broker has confirmed it.",
    "queues": "Show the messages, consumers and dead letters of each queue.",
    "run": "Serve routers until SIGTERM or Ctrl-C.",
    "services": "Show the live instances of services, their operations, latencies and errors.",
    "store": "Create, check, prune and re-encrypt the durable store of a service.",
    "submit": "Submit a job, show its progress, and print its result as JSON.",
    "top": "Show rates, latencies, errors, queues and dead letters on a live screen.",
    "topology": "Compare the required topology with the broker's, and create missing objects.",
    "trace": "Show what became of a message, and of all messages that it caused.",
    "wait": "Wait until a service is ready: exit code 0 if ready, 75 after the timeout.",
    "watch": "Show events and requests while services send them, without their payloads.",
}
"""Names of the commands, with a summary of each.

The code of the command `<name>` is the attribute `command` of the module `bus.cli.<name>`. The
attribute is a function, or a `typer.Typer` for a command with subcommands. `bus --help` shows only
the summaries. The modules are not loaded, because they import broker clients and transports.
"""
DEBUG = "--debug"
PROGRAM = "bus"
COMPLETING = "_BUS_COMPLETE"
"""Environment variable that the shell sets when it requests the completion of a command line."""
ENV_FILE = "BUS_ENV_FILE"
"""Environment variable with the path of a file `.env`."""
HARMLESS = frozenset({"--help", "--version"})
"""Options with which a command line only prints text about the program."""
OPTION_VARIABLES = ("BUS_CONTRACTS", "BUS_GRANTS")
"""Environment variables that typer reads for options."""
LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
"""Environment variables that can hold the typed command line; the shell sets one of them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Arguments after the program's name. Default: the arguments of this process.

    Raises:
        SystemExit: Always, with the exit code.
    """
    if arguments is None:
        # If other code calls this function, the streams belong to that code.
        accept_any_text()
        end_at_sigterm(os.getpid())
    debug, rest = take_debug(list(sys.argv[1:] if arguments is None else arguments))
    reporter = Reporter(debug=debug)
    for library in ("aio_pika", "aiormq"):
        # Do not print the libraries' log: the command prints the error of a failed connection.
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        # Only the program `bus` pauses garbage collection. If other code calls this function with
        # arguments, the process belongs to that code, so garbage collection stays on.
        with pause_garbage_collection() if arguments is None else nullcontext():
            if arguments is None:
                prepare_environment(os.environ, rest, reporter)
            app = build(completed_line(os.environ) or rest, reporter)
        app(rest, prog_name=PROGRAM)
    except KeyboardInterrupt:  # Ctrl-C while the command's module is imported
        sys.exit(INTERRUPTED)


def end_at_sigterm(process_id: int) -> None:
    """Let SIGTERM end this process from now on, if it is process 1 of a container.

    The kernel does not deliver SIGTERM to process 1 without a handler. Without this function, a
    container that is stopped during its start is killed only after its grace period. `bus run`
    replaces the handler when it serves.
    """
    if process_id == 1:
        # As in other processes, SIGTERM ends the process at once. An exception could be caught.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))


def prepare_environment(
    environment: MutableMapping[str, str], arguments: Sequence[str], reporter: Reporter
) -> None:
    """Read the file `.env`, and remove the white space around the variables of options.

    Only the program `bus` does this, because the environment of another program belongs to it.

    Raises:
        SystemExit: The file cannot be used.
    """
    if environment_value(environment, ENV_FILE) or os.path.lexists(".env"):
        # The module is loaded only if there is a file, because it takes milliseconds to import.
        module = importlib.import_module("bus.cli.env_file")
        # A shell cannot show an error while it completes a line, and help must always be available.
        if COMPLETING in environment or not arguments or not HARMLESS.isdisjoint(arguments):
            with suppress(BusError):
                module.load_env_file(environment)
        else:
            try:
                reporter(module.read_and_announce)(environment, command_name(arguments))
            except typer.Exit as ended:
                sys.exit(ended.exit_code)
    # Children of this process must not read a file that is created later.
    environment[ENV_FILE] = os.devnull
    for name in OPTION_VARIABLES:
        if name in environment:
            environment[name] = environment_value(environment, name) or ""


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause garbage collection inside the block.

    Later collections ignore the objects that exist at the end of the block. Most of these objects
    belong to imported modules, which are never garbage. Without this function, collections during
    the imports and at exit take a quarter of a command's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def completed_line(environment: Mapping[str, str]) -> list[str]:
    """Return the typed arguments if a shell requests completion, or an empty list if not."""
    if COMPLETING not in environment:
        return []
    return next((environment[name] for name in LINES if name in environment), "").split()[1:]


def take_debug(arguments: list[str]) -> tuple[bool, list[str]]:
    """Remove `--debug` from the arguments. Arguments after `--` are not changed.

    Returns:
        True if `--debug` was removed, and the remaining arguments.
    """
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return DEBUG in own, [argument for argument in own if argument != DEBUG] + arguments[len(own) :]


def build(arguments: Sequence[str], reporter: Reporter) -> typer.Typer:
    """Return the application. Load only the module of the command in `arguments`.

    The other commands are placeholders that have only a summary.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=global_options)
    chosen = command_name(arguments)
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = importlib.import_module(f"bus.cli.{name.replace('-', '_')}")
            attach(app, name, module.command, reporter)
        else:
            app.command(name, help=summary)(placeholder)
    return app


def command_name(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is not an option, or None."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def attach(
    app: typer.Typer, name: str, command: typer.Typer | Callable[..., Any], reporter: Reporter
) -> None:
    """Add a command, or a group of commands, to `app`. `reporter` reports the errors."""
    if not isinstance(command, typer.Typer):
        app.command(name, help=unwrap_docstring(command))(reporter(command))
        return
    for info in (*command.registered_commands, command.registered_callback):
        if info is not None and info.callback is not None:
            info.help = unwrap_docstring(info.callback)
            info.callback = reporter(info.callback)
    app.add_typer(command, name=name)


def unwrap_docstring(command: Callable[..., Any]) -> str:
    """Return the docstring with one line per paragraph. The terminal wraps the lines itself."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command) or "")


def print_version(value: bool) -> None:
    """Print the version and exit, if `--version` is set."""
    if not value:
        return
    try:
        # Import this library only here, because most commands do not need it.
        version = importlib.import_module("importlib.metadata").version("trunkline")
    except ModuleNotFoundError:  # in a checkout that is not installed
        version = "(not installed)"
    typer.echo(f"trunkline {version}")
    raise typer.Exit


def global_options(
    debug: bool = typer.Option(  # `main` reads this option
        False,  # noqa: FBT003 - typer's interface
        DEBUG,
        help="Show the traceback of an error, and all frames in the log of `bus run`.",
    ),
    version: bool = typer.Option(
        False,  # noqa: FBT003 - as above
        "--version",
        is_eager=True,
        callback=print_version,
        help="Print the version and exit.",
    ),
) -> None:
    """Send and serve requests, events and jobs between Python services on RabbitMQ."""


def placeholder() -> None:
    """Do nothing. The application uses this function for each command that it does not load."""
