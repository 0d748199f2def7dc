"""Points at which a worker of durable jobs kills itself, as `kill -9` would.

A worker process of a test calls `arm` before it serves. The points are functions of the bus that
the test replaces, so the bus itself has no code for them.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from bus.messaging.jobs.records import ClaimedJob
from bus.messaging.jobs.states import JobState
from bus.runtime.inbound_message import InboundMessage
from bus.runtime.job_reports import JobReports
from bus.runtime.jobs.held_job import HeldJob
from bus.runtime.jobs.job_feed import JobFeed
from bus.runtime.jobs.leases import JobLeases
from bus.runtime.jobs.stored_delivery import StoredDelivery
from bus.runtime.jobs.write_batch import WriteBatch
from bus.runtime.service_activator import ServiceActivator

__all__ = ["CRASH_AT", "CRASH_ONCE", "POINTS", "arm", "reach"]

CRASH_AT: Final = "BUS_TEST_CRASH_AT"
"""Variable with the name of the point at which the process ends."""
CRASH_ONCE: Final = "BUS_TEST_CRASH_ONCE"
"""Variable with the path of a file. The first process that crashes creates it, and the processes
that start later do not crash."""
POINTS: Final = (
    "received",  # a job has arrived, and is not written
    "recorded",  # its row is committed, and its message is not acked
    "acked",
    "claimed",  # the claim is committed, and no handler has begun
    "before-handler",
    "progress-stored",  # a progress of the running handler is committed
    "renewed",  # the lease was renewed while the handler runs
    "in-handler",  # the handler calls `reach` between two writes of its transaction
    "after-handler",  # the handler has returned, and nothing is committed
    "before-end",  # as above, after the last progress
    "before-commit",  # the transaction has the writes of the handler and the end
    "committed",  # the database has committed, and the bus does not know it
    "ended",  # the bus knows it, and the submitter does not
    "reported",
    "before-retry",  # the attempt has failed, and nothing is written
    "retry-written",  # the time of the next attempt is committed
)
"""The points in the order in which a job reaches them."""
FLUSH_SECONDS: Final = 0.02
"""Seconds after which an ack has left the process. The bus collects acks before it sends them."""


def reach(point: str) -> None:
    """Kill this process if `point` is armed, and no process has crashed before."""
    if os.environ.get(CRASH_AT) != point:
        return
    once = os.environ.get(CRASH_ONCE)
    if once is not None:
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Replace the functions of the bus that are points, if the environment names one.

    Raises:
        ValueError: The environment names an unknown point.
    """
    point = os.environ.get(CRASH_AT)
    if point is None:
        return
    if point not in POINTS:
        raise ValueError(f"{CRASH_AT}={point} is not one of {', '.join(POINTS)}.")
    _around(WriteBatch, "add", before="received", after="recorded", matches=_is_record)
    _around(InboundMessage, "ack", after="acked", matches=_is_from_broker, pause=FLUSH_SECONDS)
    _around(JobFeed, "claim", after="claimed", found=_has_jobs)
    _around(ServiceActivator, "handle", before="before-handler", after="after-handler")
    _around(JobFeed, "report", after="progress-stored")
    _around(JobLeases, "_renew", after="renewed", matches=_holds_jobs)
    _around(HeldJob, "end", before="before-retry", after="retry-written", found=_is_written)
    # A transactional handler ends by `commit`.
    _around(HeldJob, "commit", before="before-end", after="ended")
    _around(AsyncSession, "commit", before="before-commit", after="committed")
    _around(JobReports, "report_result", after="reported")


def _around(
    owner: type,
    name: str,
    *,
    before: str | None = None,
    after: str | None = None,
    matches: Callable[[Any], bool] = lambda _: True,
    found: Callable[[Any], bool] = lambda _: True,
    pause: float = 0.0,
) -> None:
    """Reach points before and after a method of the bus.

    Args:
        owner: Class of the method.
        name: Name of the method.
        before: Point before the call.
        after: Point after the call.
        matches: Returns True for an object that has the points.
        found: Returns True for a result after which the point is reached.
        pause: Seconds from the end of the call to the point after it.
    """
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def call(self: Any, *args: Any, **options: Any) -> Any:
        is_point = matches(self)
        if before is not None and is_point:
            reach(before)
        result = await method(self, *args, **options)
        if after is not None and is_point and found(result):
            if pause and os.environ.get(CRASH_AT) == after:
                await asyncio.sleep(pause)
            reach(after)
        return result

    setattr(owner, name, call)


def _is_record(batch: Any) -> bool:
    return bool(batch._name == "records of jobs")


def _is_from_broker(message: Any) -> bool:
    return not isinstance(message.deliveries[0], StoredDelivery)


def _has_jobs(claimed: Sequence[ClaimedJob]) -> bool:
    return bool(claimed)


def _holds_jobs(leases: Any) -> bool:
    return bool(leases.held)


def _is_written(state: JobState | None) -> bool:
    return state is not None
