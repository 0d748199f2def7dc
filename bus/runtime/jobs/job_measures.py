"""Measurements of one type of durable jobs."""

from bus.contracts.contract import Contract
from bus.messaging.envelope import Envelope
from bus.messaging.ports.meter import Labels, Meter
from bus.messaging.sent_time import sent_time
from bus.messaging.store_instruments import (
    JOBS_LEASES_LOST,
    JOBS_RECORDED,
    JOBS_STALE_WRITES,
    JOBS_START_DELAY,
)

__all__ = ["JobMeasures"]


class JobMeasures:
    """Reports what happens to the rows of one type of jobs to the meter."""

    def __init__(self, contract: Contract, meter: Meter) -> None:
        self._labels: Labels = (contract.name, str(contract.version))
        self._meter = meter

    def recorded(self) -> None:
        """Report a job that was written to the store, and was not known before."""
        self._meter.count(JOBS_RECORDED, self._labels)

    def started(self, job: Envelope, now: float) -> None:
        """Report the start of the first attempt of a job at `now`, in seconds since the epoch."""
        sent = sent_time(job)
        if sent is not None:
            # The clocks of two machines differ, so a short delay can seem negative.
            self._meter.observe(JOBS_START_DELAY, self._labels, max(0.0, now - sent / 1000))

    def lease_lost(self) -> None:
        """Report that another process has the lease of a job that runs here."""
        self._meter.count(JOBS_LEASES_LOST, self._labels)

    def stale_write(self) -> None:
        """Report a write that the store refused, because another attempt has replaced this one."""
        self._meter.count(JOBS_STALE_WRITES, self._labels)
