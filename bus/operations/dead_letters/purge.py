"""Permanent deletion of dead letters."""

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
    """Delete the selected dead letters permanently.

    Args:
        transport: Connection to the broker.
        dead_queue: Name of the dead-letter queue.
        selection: Dead letters to delete.
        most: The purge ends after it has read this number of dead letters that do not match.
        on_progress: Function that is called with the report at the beginning and after each
            deletion.

    Returns:
        A report. If an error ended the purge early, the report contains the error.

    Raises:
        NotFound: The queue does not exist.
        Unavailable: The queue cannot be read.
    """
    report = PurgeReport()
    on_progress(report)
    with recording_failure(report):
        async with open_reader(transport, dead_queue, hold=most) as reader:
            async for held in reader.matching(selection.fits, most):
                report.matched += 1
                if not await held.delivery.ack():
                    break
                report.deleted += 1
                on_progress(report)
            report.not_scanned = await reader.not_scanned()
    return report
