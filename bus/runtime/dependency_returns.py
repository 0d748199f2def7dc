"""Returns: an event or job that waits for a dependency passes a retry tier, on the same attempt."""

import logging

from bus.messaging.dependency_wait import with_return
from bus.messaging.envelope import Envelope
from bus.messaging.labels import message_facts, message_label
from bus.messaging.topology.addresses import retry_address
from bus.messaging.topology.names import RETRY_DELAYS
from bus.runtime.copy_sender import CopySender
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import DependencyReturn, HandlingResult
from bus.runtime.job_reports import JobReports, log_unsent_update, note_of_wait

__all__ = ["DependencyReturns"]

log = logging.getLogger("bus.settlement")


class DependencyReturns:
    """Sends the copies of one endpoint's messages that wait for a dependency."""

    def __init__(self, state: EndpointState, copies: CopySender, reports: JobReports) -> None:
        self._service = state.runtime.service
        self._queue = state.endpoint.queue
        self._clock = state.runtime.clock
        self._measures = state.measures
        self._copies, self._reports = copies, reports

    async def send(
        self, envelope: Envelope, result: HandlingResult, decision: DependencyReturn
    ) -> bool:
        """Send a copy with the same attempt to the retry tier.

        The copy keeps `expires`, so a message that has expired is not handled later.

        Returns:
            False if the broker did not accept the copy.
        """
        received = envelope.received
        here = 0.0 if received is None else max(0.0, self._clock() - received / 1000)
        headers = with_return(
            envelope.headers,
            waited=here + RETRY_DELAYS[decision.tier],
            is_failure_counted=decision.is_failure_counted,
        )
        address = retry_address(self._service, decision.tier, self._queue)
        if not await self._copies.send(envelope.replace(headers=headers), address):
            return False
        if self._measures is not None:
            self._measures.retried(envelope, result, decision.tier)
        # The breaker writes the line for the operator, and not each message that waits.
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s waits for the dependency %s in a retry tier",
                message_label(envelope),
                decision.dependency,
                extra=message_facts(envelope, queue=self._queue, dependency=decision.dependency),
            )
        if decision.is_reported and result.error is not None:
            await self._report(envelope, result.error, decision)
        return True

    async def _report(
        self, job: Envelope, error: BaseException, decision: DependencyReturn
    ) -> None:
        """Notify the submitter of a job, at most once, that the job waits for the dependency."""
        report = self._reports.progress_reporter(job)
        if report is None:
            return
        try:
            await report(note_of_wait(decision.dependency, error))
        except Exception as unexpected:  # noqa: BLE001 - the copy exists already
            log_unsent_update(job, unexpected)
