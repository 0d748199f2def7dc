"""The durable jobs of one process: a recorder and a feed for each job that it serves."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bus.messaging.jobs.records import NewJob, OtherJob
from bus.messaging.ports.store import Store
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound import RECORDING, RUNNING, compose_inbound
from bus.runtime.job_reports import JobReports
from bus.runtime.jobs.beats import InstanceBeats, beating
from bus.runtime.jobs.job_feed import JobFeed
from bus.runtime.jobs.job_settler import JobSettler
from bus.runtime.jobs.leases import JobLeases
from bus.runtime.jobs.record_job import record_job
from bus.runtime.jobs.recorder import Recorder, recorder_state
from bus.runtime.jobs.store_health import StoreHealth
from bus.runtime.jobs.write_batch import WriteBatch
from bus.runtime.receiver import Receiver
from bus.runtime.service_activator import ServiceActivator, ServiceStack
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.settler import Settler

__all__ = ["DurableJobs"]


class DurableJobs:
    """The recorders, feeds and leases of a process that serves jobs with a store."""

    def __init__(self, runtime: ServiceRuntime, store: Store) -> None:
        self._runtime, self._store, self._jobs = runtime, store, store.jobs
        self.health = StoreHealth(runtime.service)
        self.leases = JobLeases(
            store.jobs, self.health, worker=runtime.instance, seconds=runtime.settings.job_lease
        )
        self.recorders: list[Recorder] = []
        """The recorder of each work queue of jobs."""
        self._records: WriteBatch[NewJob, bool | OtherJob] = WriteBatch(
            store.jobs.record, self.health, "records of jobs"
        )
        self._feeds: dict[str, JobFeed] = {}

    def receiver_for(self, state: EndpointState, stack: ServiceStack) -> Receiver:
        """Return the receiver that runs the jobs of an endpoint. Create the recorder of its queue.

        Args:
            state: The endpoint.
            stack: The server's stack around the handler.
        """
        feed = JobFeed(state, self._jobs, self.leases, self.health)
        self._feeds[feed.queue] = feed
        self.recorders.append(self._recorder_for(state, feed))
        activator = ServiceActivator(state, stack, feed.reports)
        handle = compose_inbound(state, activator.handle, RUNNING)
        return Receiver(state, handle, JobSettler(state, feed))

    def feed_of(self, queue: str) -> JobFeed | None:
        """Return the feed of a work queue. None if its messages are not durable jobs."""
        return self._feeds.get(queue)

    def _recorder_for(self, state: EndpointState, feed: JobFeed) -> Recorder:
        own = recorder_state(state)
        handle = compose_inbound(own, record_job(own, self._records, feed), RECORDING)
        receiver = Receiver(own, handle, Settler(own, JobReports(self._runtime)))
        return Recorder(self._runtime.transport, receiver, self.health)

    @property
    def receivers(self) -> Sequence[Receiver]:
        """The receivers of the recorders."""
        return [recorder.receiver for recorder in self.recorders]

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[InstanceBeats | None]:
        """Tell the other instances inside the block until when this one has recorded its jobs.

        Yield None if this process serves no job.
        """
        if not self.recorders:
            yield None
            return
        in_flights = [receiver.state.in_flight for receiver in self.receivers]
        async with beating(self._store, self._runtime.instance, in_flights) as beats:
            yield beats

    def start(self) -> None:
        """Start to renew leases."""
        self.leases.start()

    def stop_recording(self) -> None:
        """Requeue jobs that cannot be recorded now, because the service stops."""
        self._records.stop()

    async def close(self) -> None:
        """Stop the renewals and all writes, after the last job has ended."""
        await self.leases.close()
        await self._records.close()
