"""The loop of commands that show live instances until an event or the end of a pipe."""

import asyncio
from collections.abc import Callable

import typer

from bus.cli.queue_watch import CLOSED_PIPE_EXIT_CODE, stop_when_closed
from bus.runtime.discovery.live_feed import LiveFeed

__all__ = ["show_until_stopped"]

MIN_REDRAW_SECONDS = 0.2
"""Minimum seconds between two states. A start of many instances is a burst of announcements."""


async def show_until_stopped(
    feed: LiveFeed,
    draw: Callable[[], None],
    stop: asyncio.Event,
    *,
    redraw: float | None = None,
) -> None:
    """Run the feed, and draw after each change, until `stop` is set or the pipe has ended.

    Args:
        feed: The feed of the live view.
        draw: Function that shows the current state.
        stop: Event that ends the loop. A full-screen command must handle signals before its first
            state, so it opens `signals()` itself.
        redraw: Seconds after which the state is drawn again without a change, so that ages grow
            and a terminal with a new size is filled. None draws only after changes.

    Raises:
        typer.Exit: The reader of the output has closed the pipe.
        PermissionDenied: The asker has no right to ask.
    """
    changed = asyncio.Event()
    with stop_when_closed(stop) as is_closed:
        running = asyncio.ensure_future(feed.run(changed.set))
        ends = {running, asyncio.ensure_future(stop.wait())}
        try:
            while not any(each.done() for each in ends):
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait(
                    {waiting, *ends}, timeout=redraw, return_when=asyncio.FIRST_COMPLETED
                )
                is_drawn = waiting.done() or redraw is not None
                waiting.cancel()
                changed.clear()
                if is_drawn and not any(each.done() for each in ends):
                    draw()
                    await asyncio.wait(
                        ends, timeout=MIN_REDRAW_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
            if running.done():
                running.result()
        finally:
            for each in ends:
                each.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
    if is_closed():
        raise typer.Exit(CLOSED_PIPE_EXIT_CODE)
