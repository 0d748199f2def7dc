"""The queues that a service requires at the broker."""

from bus.runtime.requirements import required_by
from bus.runtime.router import Router
from bus.settings import load_settings
from tests.unit.ledger import Add, CloseBooks, Total

QUESTIONS = {"ledger.requests.bus-jobs.cancel.v1", "ledger.requests.bus-jobs.get.v1"}


def queues_of(router: Router, store: str) -> set[str]:
    required = required_by([router], load_settings(store=store, topology="verify"))
    found = {queue.name: queue for queue in required.topology.queues}
    assert all("x-expires" not in found[name].arguments for name in QUESTIONS & found.keys())
    return {*found}


def test_a_service_with_jobs_and_a_store_requires_the_queues_of_the_questions_about_jobs() -> None:
    jobs, requests = Router("ledger"), Router("ledger")

    @jobs.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        raise NotImplementedError

    @requests.request(Add)
    async def add(request: Add) -> Total:
        raise NotImplementedError

    store = "sqlite:////tmp/ledger.db"
    assert queues_of(jobs, store) >= QUESTIONS
    assert not QUESTIONS & queues_of(jobs, "memory")
    assert not QUESTIONS & queues_of(requests, store)
    assert {*jobs.topology()} == {"ledger.jobs.close.v1"}
