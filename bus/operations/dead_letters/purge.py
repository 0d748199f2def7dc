"""Purge: delete dead letters permanently."""

from collections.abc import Callable

from bus.messaging.ports.transport import Transport
from bus.operations.dead_letters.browse import MAX_BROWSED, open_reader
from bus.operations.dead_letters.reports import PurgeReport, recording_failure
from bus.operations.dead_letters.selection import Selection

__all__ = ["purge"]


async def purge(
    transport: Transport,
    dead_queue: str,
    selection: Selection,
    *,
    most: int = MAX_BROWSED,
    on_progress: Callable[[PurgeReport], None] = lambda _: None,
) -> PurgeReport:
    """Delete the dead letters that are meant, for good; of the others `most` are looked at. Errors as of `replay`."""
    done = PurgeReport()
    on_progress(done)
    with recording_failure(done):
        async with open_reader(transport, dead_queue, hold=most) as letters:
            async for taken in letters.matching(selection.fits, most):
                done.matched += 1
                if not await taken.delivery.ack():
                    break
                done.deleted += 1
                on_progress(done)
            done.not_scanned = await letters.not_scanned()
    return done
