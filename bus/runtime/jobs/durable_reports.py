"""The updates of durable jobs: they are stored, and also sent to the submitter that waits."""

from typing_extensions import override

from bus.errors import safe_reason
from bus.messaging.cancellation import Cancellation
from bus.messaging.envelope import Envelope, Progress, progress_update
from bus.messaging.jobs.records import JobKey, JobProgress
from bus.messaging.labels import message_facts, message_label
from bus.runtime.job_reports import JobReports, ProgressReporter, log
from bus.runtime.jobs.held_job import HeldJob
from bus.runtime.jobs.leases import JobLeases
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["DurableReports"]


class DurableReports(JobReports):
    """Sends the updates of one endpoint's durable jobs, and stores their progress.

    The row has the result, so no result is sent again in the background.
    """

    def __init__(self, runtime: ServiceRuntime, leases: JobLeases) -> None:
        super().__init__(runtime)
        self._leases = leases
        self.cancellation_of = self._begin

    def _begin(self, job: Envelope) -> Cancellation | None:
        """Return the cancellation of a job, as its handler begins."""
        held = self._leases.held.get(JobKey(job.source, job.id))
        if held is None:
            return None
        held.has_begun = True
        return held.cancellation

    @override
    def progress_reporter(self, job: Envelope) -> ProgressReporter | None:
        held = self._leases.held.get(JobKey(job.source, job.id))
        if held is None:
            return None
        send = super().progress_reporter(job)

        async def report(progress: Progress) -> None:
            if held.is_lost or held.is_ending:
                return
            numbered = self.add_progress(held, job, progress)
            if send is not None and numbered is not None:
                await send(numbered)

        return report

    def add_progress(self, held: HeldJob, job: Envelope, progress: Progress) -> Progress | None:
        """Store an update soon, with its number. Return None if it cannot be stored."""
        numbered = progress.model_copy(update={"number": held.progress.next_number()})
        try:
            update = self.stored(progress_update(job, numbered, source=self._runtime.service))
        except Exception as error:  # noqa: BLE001 - progress never fails the job
            reason = safe_reason(error)
            facts = message_facts(job, why=reason)
            log.debug("progress of %s dropped: %s", message_label(job), reason, extra=facts)
            return None
        held.progress.add(
            JobProgress(number=numbered.number, update=update, progress=progress.progress)
        )
        return numbered

    async def send_progress(self, job: Envelope, progress: Progress | None) -> None:
        """Send an update that is stored already, if a submitter waits for it."""
        send = super().progress_reporter(job)
        if send is not None and progress is not None:
            await send(progress)

    def stored(self, update: Envelope) -> Envelope:
        """Return an update as the store keeps it: encrypted if the contract requires this."""
        stamped = update.replace(timestamp=int(self._runtime.clock()))
        return self._runtime.security.cipher.encrypt(stamped)

    @override
    def retry_result(self, job: Envelope, update: Envelope) -> None:
        """Do nothing, because the submitter finds the result in the store."""
