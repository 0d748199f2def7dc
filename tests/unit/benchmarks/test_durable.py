import asyncio
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import durable
from benchmarks.__main__ import added
from benchmarks.actor import RunFailed
from benchmarks.actors import ours_jobs
from benchmarks.actors.stage import Order, WrongReply
from benchmarks.actors.submitting import Ledger, done
from benchmarks.conditions import condition
from benchmarks.durable import DURABLE, FINISHED, Place, Results
from benchmarks.page import page
from benchmarks.payload import FIRST, SIZE, Payload, fields
from benchmarks.peers import (
    CELERY_STORED,
    FEW_HANDLERS,
    NO_STORE,
    ON_POSTGRES,
    ON_SQLITE,
    OURS,
    TASKIQ_STORED,
)
from benchmarks.report import TARGETS
from tests.postgres import PostgresCluster
from tests.unit.benchmarks.test_benchmarks import RUN

JOBS = {
    "durable": {
        ON_POSTGRES: [{"rate": 900.0, "others": 0.5}, {"rate": 700.0, "others": 0.1}],
        CELERY_STORED: [{"rate": 100.0}, {"rate": 100.0}],
        TASKIQ_STORED: [{"rate": 600.0}, {"rate": 700.0}],
    },
    "durable-start": {ON_POSTGRES: [{"rate": 200.0, "p50": 3.0, "p99": 9.0, "p999": 12.0}]},
}


class Jobs:
    """Jobs of a peer that stores a result at once, or changes it."""

    def __init__(self, **changes: object) -> None:
        self.stored: dict[int, dict[str, object]] = {}
        self.changes = changes

    async def submit(self, job: dict[str, object]) -> int:
        self.stored[len(self.stored)] = {**done(Payload.model_validate(job)), **self.changes}
        return len(self.stored) - 1

    async def read(self, identity: int) -> Mapping[str, Any]:
        return self.stored[identity]


async def test_a_submitter_reads_each_result_by_its_id_and_measures_the_time_to_the_start() -> None:
    jobs = Jobs()
    ledger = Ledger(jobs.submit, jobs.read)
    sent = await ledger.fill(Order("fill", {"count": "30", "in_flight": "7"}))
    assert sent["count"] == len(jobs.stored) == 30
    assert {each["number"] for each in jobs.stored.values()} == set(range(FIRST, FIRST + 30))
    found = await ledger.collect(Order("collect", {"count": "30"}))
    assert found["count"] == 30
    assert 0 <= found["p50"] <= found["p99"] < 10_000
    assert not ledger.jobs


async def test_paced_submissions_count_from_the_time_at_which_they_were_due() -> None:
    jobs = Jobs()
    ledger = Ledger(jobs.submit, jobs.read)
    began = time.monotonic()
    sent = await ledger.paced(Order("paced", {"rate": "200", "seconds": "0.1"}))
    dues = [due - began for _, _, due in ledger.jobs]
    assert sent["count"] == 20
    assert [later - due for due, later in itertools.pairwise(dues)] == pytest.approx([0.005] * 19)


async def test_a_peer_that_changes_a_result_fails() -> None:
    jobs = Jobs(text="another text")
    ledger = Ledger(jobs.submit, jobs.read)
    await ledger.fill(Order("fill", {"count": "1", "in_flight": "1"}))
    with pytest.raises(WrongReply):
        await ledger.collect(Order("collect", {"count": "1"}))


async def test_a_peer_that_loses_a_result_fails() -> None:
    jobs = Jobs()
    ledger = Ledger(jobs.submit, jobs.read)
    await ledger.fill(Order("fill", {"count": "2", "in_flight": "1"}))
    del jobs.stored[1]
    with pytest.raises(KeyError):
        await ledger.collect(Order("collect", {"count": "2"}))


async def test_a_job_that_was_not_submitted_fails_the_peer() -> None:
    jobs = Jobs()
    with pytest.raises(WrongReply, match="0 results of 3 jobs"):
        await Ledger(jobs.submit, jobs.read).collect(Order("collect", {"count": "3"}))


def results(*counts: int) -> Results:
    found = iter(counts)

    async def count() -> int:
        return next(found, counts[-1])

    return Results(count)


async def test_the_clock_of_durable_jobs_stops_when_the_last_result_is_stored() -> None:
    stored = results(0, 4, 9, 10, 15)
    began = time.monotonic()
    first = await stored.more(10)
    second = await stored.more(5)
    assert began < first < second <= time.monotonic()


async def test_results_that_are_never_stored_fail_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "STALL", 0.02)
    with pytest.raises(RunFailed, match="3 results are not stored"):
        await asyncio.wait_for(results(7).more(10), 5)


def test_each_turn_has_a_database_of_its_own() -> None:
    server = PostgresCluster(Path("/nowhere"))
    places = [
        Place(server=server, folder=Path("/f"), number=number, peer=peer)
        for peer in (ON_POSTGRES, ON_SQLITE, NO_STORE)
        for number in (0, 1)
    ]
    postgres, later, sqlite, *_, nothing = (place.environment() for place in places)
    assert postgres["BUS_STORE"] == postgres["BENCH_POSTGRES"]
    assert postgres["BUS_STORE"].endswith(f":{server.port}/trunkline_postgres_0")
    assert later["BUS_STORE"].endswith("/trunkline_postgres_1")
    assert sqlite["BUS_STORE"] == "sqlite:////f/trunkline_sqlite_0.db"
    assert "BUS_STORE" not in nothing


@pytest.mark.parametrize("peer", DURABLE)
def test_the_page_says_where_a_durable_job_of_each_peer_waits_and_what_is_guaranteed(
    peer: str,
) -> None:
    said = condition("durable", peer)
    assert said == condition("durable-start", peer)
    if peer not in {ON_SQLITE, FEW_HANDLERS}:
        assert "waits in a" in said
        assert "At least once" in said
    assert (peer in FINISHED) == (peer != NO_STORE)


def test_durable_jobs_are_compared_with_trunkline_on_postgresql() -> None:
    written = page({**RUN, "works": JOBS})
    assert "| Taskiq, stored results | 650 | 600–700 | 1.25 |" in written  # noqa: RUF001
    assert "| durable jobs with stored results, against Taskiq | at least 2 | 1.25 |" in written
    assert "| Trunkline, PostgreSQL | 200 | 3.00 | 9.00 | 12.00 |" in written


def test_durable_jobs_have_a_target_against_each_peer() -> None:
    against = {target.against for target in TARGETS if target.work == "durable"}
    assert against == set(DURABLE) - {ON_POSTGRES, FEW_HANDLERS, ON_SQLITE, NO_STORE}


def test_a_run_of_its_own_is_added_to_the_figures_with_its_date_and_load(tmp_path: Path) -> None:
    earlier = {**RUN, "date": "2026-01-01", "names": {}, "added": {"waiting0": "from before"}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(earlier))
    later = {**RUN, "date": "2026-02-02", "works": JOBS, "versions": {"Trunkline": "9.9"}}
    both = added(later, tmp_path)
    assert both["works"].keys() == {*RUN["works"], *JOBS}  # type: ignore[misc]
    assert both["date"] == "2026-01-01"
    section = page(both).partition("## Durable jobs\n")[2].partition("\n## ")[0]
    assert "a run of their own on 2026-02-02" in section
    assert "Trunkline: 9.9." in section
    assert "0.3 cores in the median round, and at most 0.5" in section
    assert both["added"]["waiting0"] == "from before"
    assert OURS in both["works"]["rpc100"]


@pytest.mark.parametrize("model", [ours_jobs.Work, ours_jobs.Done])
def test_durable_jobs_of_the_bus_have_the_same_bytes_as_those_of_the_peers(
    model: type[Payload],
) -> None:
    theirs = Payload.model_validate(fields(FIRST)).model_dump_json()
    assert len(theirs) == SIZE
    assert model.model_validate(fields(FIRST)).model_dump_json() == theirs
