"""`bus jobs` on real databases, without a broker and without the service."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bus.cli import audit, build
from bus.cli.errors import Reporter
from bus.cli.jobs import opening, selection
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import AttemptEnd, JobFailure, JobKey, NewJob
from bus.storage.sqlalchemy.store import SqlStore
from tests.integration.store.test_open import create, opened

QUEUE = "library.jobs.scan.v1"
SECRET, REASON = "the name of a reader", "the disk is larger"


async def add_failed(store: SqlStore, ids: Sequence[str]) -> None:
    """Record jobs of the service `library`, and let them fail."""
    jobs = [
        NewJob(
            key=JobKey("desk", id_),
            queue=QUEUE,
            envelope=Envelope(
                id=id_,
                type="library.scan.v1",
                role="job",
                source="desk",
                body=json.dumps({"title": SECRET}).encode(),
                timestamp=1_700_000_000,
                correlation_id=f"c-{id_}",
            ),
        )
        for id_ in ids
    ]
    await store.jobs.record(jobs)
    claimed = await store.jobs.claim(QUEUE, worker="w1", limit=len(ids), lease=30)
    failure = JobFailure(code="internal", reason="ValueError", location="scan.py:7 in scan")
    ends = [
        AttemptEnd(attempt=each.attempt_of, state="failed", failure=failure) for each in claimed
    ]
    assert set(await store.jobs.end(ends)) == {"failed"}


class Operator:
    """The commands `bus jobs` of an operator, in this process and without a broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def jobs(self, url: str, *arguments: str) -> Result:
        self.monkeypatch.setenv("BUS_STORE", url)
        app = build(["jobs"], Reporter(debug=False))
        return CliRunner().invoke(app, ["jobs", *arguments])

    def listed(self, url: str, *arguments: str) -> list[dict[str, Any]]:
        result = self.jobs(url, "list", "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        found: list[dict[str, Any]] = json.loads(result.stdout)["jobs"]
        return found


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_URL", "amqp://127.0.0.1:1")
    for module in (audit, opening):  # it would change all loggers
        monkeypatch.setattr(module, "begin_audit", lambda _: None)
    return Operator(monkeypatch)


def test_an_operator_changes_jobs_without_the_service_and_without_the_broker(
    store_url: str, operator: Operator
) -> None:
    asyncio.run(fill(store_url, ["aaaa0001", "aaaa0002", "bbbb0003"]))
    failed = operator.listed(store_url, "--state", "failed", "--code", "internal")
    assert {job["id"] for job in failed} == {"aaaa0001", "aaaa0002", "bbbb0003"}
    assert SECRET in operator.jobs(store_url, "show", "bbbb", "--reveal").stdout
    retried = operator.jobs(store_url, "retry", "--code", "internal", "--yes", "--reason", REASON)
    assert "began the next life of 3 jobs" in retried.stderr
    ambiguous = operator.jobs(store_url, "cancel", "aaaa", "--reason", REASON)
    assert "is the begin of 2 ids" in ambiguous.stderr
    operator.jobs(store_url, "cancel", "aaaa0001", "--reason", REASON)
    states = {job["id"]: (job["state"], job["life"]) for job in operator.listed(store_url)}
    assert states == {
        "aaaa0001": ("cancelled", 2),
        "aaaa0002": ("queued", 2),
        "bbbb0003": ("queued", 2),
    }
    shown = operator.jobs(store_url, "show", "aaaa0001").stdout
    assert shown.count(REASON) == 2


def test_a_list_is_read_in_pages(
    sqlite_url: str, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"job-{number:04}" for number in range(25)]
    asyncio.run(fill(sqlite_url, ids))
    monkeypatch.setattr(selection, "PAGE", 4)
    assert {job["id"] for job in operator.listed(sqlite_url)} == set(ids)


def test_a_store_for_each_service_needs_the_name_of_the_service(
    tmp_path: Path, operator: Operator
) -> None:
    refused = operator.jobs(f"sqlite:///{tmp_path}/{{service}}.db", "list")
    assert (refused.exit_code, "Pass --service." in refused.stderr) == (os.EX_CONFIG, True)
    missing = operator.jobs(f"sqlite:///{tmp_path}/{{service}}.db", "list", "--service", "library")
    assert "library.db" in missing.stderr.replace("\n", "")


def test_the_store_of_another_service_is_refused_if_a_service_is_named(
    sqlite_url: str, operator: Operator
) -> None:
    asyncio.run(create(sqlite_url, "library"))
    refused = operator.jobs(sqlite_url, "list", "--service", "office")
    assert refused.exit_code == os.EX_CONFIG
    assert "belongs to the service 'library'" in " ".join(refused.stderr.split())
    assert operator.listed(sqlite_url) == operator.listed(sqlite_url, "--service", "library") == []


def test_a_store_without_tables_is_refused_with_the_command(
    sqlite_url: str, operator: Operator
) -> None:
    refused = operator.jobs(sqlite_url, "list")
    assert refused.exit_code == os.EX_CONFIG
    assert "Run `bus store upgrade` to create them." in " ".join(refused.stderr.split())


async def fill(url: str, ids: Sequence[str]) -> None:
    """Create a store with failed jobs."""
    await create(url)
    async with opened(url) as store:
        await add_failed(store, ids)
