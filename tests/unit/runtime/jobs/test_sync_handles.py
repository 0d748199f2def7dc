"""Handles of durable jobs in synchronous code."""

import pytest

from bus.errors import ConfigurationError, ContractError, NotFound
from bus.runtime.jobs import beats
from bus.runtime.sync_bus import SyncBus
from bus.testing import MemoryStore, SyncMemoryBuses
from tests.unit.ledger import GetTotal
from tests.unit.runtime.jobs.archive import Copied, CopyPages, archive


def test_synchronous_code_reads_and_cancels_a_job_by_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("BEAT_SECONDS", "HURRIED_SECONDS", "MARGIN_SECONDS"):
        monkeypatch.setattr(beats, name, 0.05)
    with SyncMemoryBuses() as buses:
        buses.serve(archive(), store=MemoryStore())
        submitter, other = SyncBus("desk"), SyncBus("desk")
        for bus in (submitter, other):
            buses.connect(bus)
        job_id = submitter.submit(CopyPages(pages=3)).id
        handle = other.job(CopyPages, job_id)
        assert handle.result(timeout=20) == Copied(pages=3)
        assert (handle.id, handle.type) == (job_id, "archive.copy.v1")
        assert handle.status().state == "succeeded"
        assert [each.number for each in handle.updates()] == [1]
        assert [*handle.updates(after=1)] == []
        assert handle.cancel(reason="too late").state == "succeeded"
        with pytest.raises(NotFound):
            other.job(CopyPages, "never").status()


def test_the_arguments_of_a_synchronous_handle_are_checked_before_it_connects() -> None:
    bus = SyncBus("desk")
    with pytest.raises(ContractError, match="kind request, not job"):
        bus.job(GetTotal, "1")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="the id of a job must be a text"):
        bus.job(CopyPages, "")
    assert bus._session is None
