"""`bus topology prune`: delete the queues that the routers of a service do not declare any more."""

import asyncio
import signal
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer
from rich.status import Status
from rich.text import Text

from bus.cli.errors import TERMINATED
from bus.cli.options import AsJson, finite
from bus.cli.output import EscapingConsole, print_json, say, suppress_library_logs
from bus.cli.topology.options import (
    DIFFERENCES_EXIT_CODE,
    ManagementUrl,
    Routers,
    override_settings,
    require,
)
from bus.messaging.topology.model import Binding
from bus.operations.topology.prune import PruneOptions, PruneResult
from bus.operations.topology.prune import prune as prune_topology
from bus.operations.topology.prune_model import Decision

__all__ = ["prune"]

T = TypeVar("T")

DONE = {"unbind": "unbound", "bind": "bound again", "delete": "deleted"}
PLANNED = {
    "unbind": "would unbind",
    "bind": "would bind again",
    "delete": "would delete",
    "wait": "would wait for",
}
WAITS = {"wait": "waiting for", "keep": "kept"}
LEFT = {"wait": "left", "keep": "kept"}
INTERRUPTED_TEXT = "interrupted; run the command again to continue"
STYLES = {"wait": "yellow", "keep": "red"}


def prune(
    routers: Routers,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps, and change nothing.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0,
            callback=finite,
            metavar="SECONDS",
            help="Wait at most this time until the messages are handled. A new run continues.",
        ),
    ] = 60.0,
    even_if_used: Annotated[
        list[str] | None,
        typer.Option(
            "--even-if-used",
            metavar="QUEUE",
            show_default=False,
            help="Unbind this old queue although it has consumers or messages. It is deleted only "
            "when it has none. Requests that wait are deleted. The option is repeatable.",
        ),
    ] = None,
    management_url: ManagementUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete the queues that the routers of a service do not declare any more.

    Name all routers of a service: a queue of a router that is not named counts as old. Other
    services are not touched. The command waits until an old queue, its retry tiers and its dead
    letters are empty and have no consumers. Then it unbinds and deletes them. A queue that has
    consumers or messages is kept, because a service may still need it. The command deletes no
    event, job or dead letter. If it is interrupted, it binds again the queues that it has not yet
    deleted. Run it again to continue.

    Exit code 0: nothing old is left. 2: old queues are left, or --dry-run has found some.
    """
    settings = override_settings(management_url)
    options = PruneOptions(timeout=timeout, even_if_used=tuple(even_if_used or ()), dry_run=dry_run)
    required = require(routers, settings, with_handlers=True)
    status_line = EscapingConsole(stderr=True).status("reading the broker's state")
    try:
        with status_line as status, suppress_library_logs():
            result = asyncio.run(
                end_at_sigterm(prune_topology(required, settings, options, ProgressDisplay(status)))
            )
    except KeyboardInterrupt:
        say(INTERRUPTED_TEXT)
        raise
    except asyncio.CancelledError:
        say(INTERRUPTED_TEXT)
        raise typer.Exit(TERMINATED) from None
    if as_json:
        print_json(to_json(result, dry_run=dry_run), compact=True)
    else:
        show(result, dry_run=dry_run)
    found = result.left or (dry_run and result.steps)
    raise typer.Exit(DIFFERENCES_EXIT_CODE if found else 0)


async def end_at_sigterm(run: Coroutine[Any, Any, T]) -> T:
    """Await a run. SIGTERM cancels it, as Ctrl-C does, so that it can bind queues again."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run


class ProgressDisplay:
    """Display of a run: a line for each step and each reason to wait, and a spinner."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def __call__(self, decision: Decision) -> None:
        """Show the step or the reason to wait."""
        verbs = {**DONE, **WAITS}
        line = to_line(decision, verbs[decision.action])
        # Print on the spinner's console: the output of another console would overwrite it.
        self._status.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._status.update(Text(line))


def to_line(decision: Decision, verb: str) -> str:
    """Return the decision as one line that begins with `verb`."""
    if decision.bindings:
        bindings = ", ".join(map(format_binding, decision.bindings))
        preposition = "to" if decision.action == "bind" else "from"
        return f"{verb} {decision.name} {preposition} {bindings}"
    detail = f": {decision.detail}" if decision.detail else ""
    return f"{verb} {decision.what} {decision.name}{detail}"


def format_binding(binding: Binding) -> str:
    """Return the exchange of a binding, with the routing key if it has one."""
    return f"{binding.exchange}{f' by {binding.routing_key}' if binding.routing_key else ''}"


def show(result: PruneResult, *, dry_run: bool) -> None:
    """Print the planned steps and the old objects that are left, one per line."""
    console = EscapingConsole()
    for step in result.steps if dry_run else ():
        console.print(
            to_line(step, PLANNED[step.action]), markup=False, highlight=False, soft_wrap=True
        )
    for decision in result.left:
        if decision.follows:
            continue  # the line of the other queue has the reason
        console.print(
            to_line(decision, {**LEFT, **(PLANNED if dry_run else {})}[decision.action]),
            style=STYLES[decision.action],
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for name in result.foreign:
        say(f"not touched: queue {name}, because the bus did not create it")
    if any(decision.action == "wait" for decision in result.left) and not dry_run:
        say("the time is over; run the command again to continue")
    elif not result.left and not result.steps:
        say("the broker has no old queues of these services; nothing to do")


def to_json(result: PruneResult, *, dry_run: bool) -> dict[str, Any]:
    """Return the result as JSON. The keys are part of the command line's interface."""
    return {
        "clean": not result.left and not (dry_run and result.steps),
        "dry_run": dry_run,
        "unbound": [
            asdict(binding)
            for step in result.steps
            if step.action == "unbind"
            for binding in step.bindings
        ],
        "deleted": [
            {"what": step.what, "name": step.name}
            for step in result.steps
            if step.action == "delete"
        ],
        "left": [
            {
                "what": each.what,
                "name": each.name,
                "waits": each.action == "wait",
                "detail": each.detail,
            }
            for each in result.left
        ],
        "foreign": list(result.foreign),
    }
