"""`bus topology migrate`: recreate a queue with other arguments, and keep its messages."""

import asyncio
from typing import Annotated

import typer
from rich.status import Status
from rich.text import Text

from bus.cli.options import AsJson, finite
from bus.cli.output import EscapingConsole, print_json, say, suppress_library_logs
from bus.cli.topology.options import ManagementUrl, override_settings, require
from bus.operations.topology.migrate import MigrationProgress
from bus.operations.topology.migrate import migrate as migrate_queue

__all__ = ["migrate"]


def migrate(
    router: Annotated[
        str, typer.Argument(metavar="MODULE:ROUTER", help="The router that requires the queue.")
    ],
    queue: Annotated[
        str,
        typer.Argument(
            metavar="QUEUE", help="The queue to recreate, which exists with other arguments."
        ),
    ],
    *,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            min=0,
            callback=finite,
            metavar="SECONDS",
            show_default=False,
            help="Start even if the queue has consumers, and wait this time for them to stop.",
        ),
    ] = None,
    management_url: ManagementUrl = None,
    as_json: AsJson = False,
) -> None:
    """Recreate a queue with the arguments that its router requires, and keep its messages.

    A migration queue holds the messages of the queue, and messages that are published during the
    migration. The command copies each message, and removes the original only after the broker has
    confirmed the copy. The order of the messages is kept. If the command is killed at any point,
    run it again to continue. A message that may exist twice after such a continuation has the
    header "redelivered". The command refuses a queue that has consumers: stop the workers first.
    """
    settings = override_settings(management_url)
    status_line = EscapingConsole(stderr=True).status("reading the broker's state")
    with status_line as status, suppress_library_logs():
        done = asyncio.run(
            migrate_queue(
                queue,
                require([router], settings),
                settings,
                wait=wait,
                report=ProgressDisplay(status),
            )
        )
    if as_json:
        print_json(
            {
                "queue": queue,
                "done": done is not None,
                "moved": done.moved if done else 0,
                "again": done.redelivered if done else 0,
            },
            compact=True,
        )
    elif done is None:
        say(f"{queue} already has the required arguments; nothing to do")
    else:
        say(
            f"{queue} was created again; {format_moved(done.moved)} moved back, "
            f"{done.redelivered} may exist twice"
        )


def format_moved(number: int) -> str:
    """Return a number of messages with its verb, such as `1 message was`."""
    return f"{number} {'message was' if number == 1 else 'messages were'}"


class ProgressDisplay:
    """Display of a migration: a line for each step, and a spinner with the message counts."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._step = ""

    def __call__(self, progress: MigrationProgress) -> None:
        """Show the step and the counts of `progress`."""
        if progress.step != self._step:
            self._step = progress.step
            # Print on the spinner's console: the output of another console would overwrite it.
            self._status.console.print(progress.step, markup=False, highlight=False, soft_wrap=True)
        counts = (
            f": {progress.moved} of {max(progress.total, progress.moved)}" if progress.moved else ""
        )
        self._status.update(Text(f"{progress.step}{counts}"))
