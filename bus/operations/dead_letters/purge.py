"""Purge: delete dead letters permanently."""

from collections.abc import Callable

from bus.messaging.ports.transport import Transport
from bus.operations.dead_letters.browse import MOST_LOOKED_AT, reading
from bus.operations.dead_letters.reports import Purged, recording_failure
from bus.operations.dead_letters.selection import Selection

__all__ = ["purge"]


async def purge(
    transport: Transport,
    dead_queue: str,
    selection: Selection,
    *,
    most: int = MOST_LOOKED_AT,
    on_progress: Callable[[Purged], None] = lambda _: None,
) -> Purged:
    """Delete the dead letters that are meant, for good; of the others `most` are looked at. Errors as of `replay`."""
    done = Purged()
    on_progress(done)
    with recording_failure(done):
        async with reading(transport, dead_queue, hold=most) as letters:
            async for taken in letters.meant(selection.fits, most):
                done.matched += 1
                if not await taken.delivery.ack():
                    break
                done.deleted += 1
                on_progress(done)
            done.unseen = await letters.unseen()
    return done
