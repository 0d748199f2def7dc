"""Durable jobs in `bus trace`, `bus top`, `bus services` and `bus dead`."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from typer.main import get_command

from bus.cli import build
from bus.cli.dead.commands import is_job_queue
from bus.cli.errors import Reporter
from bus.cli.output import EscapingConsole
from bus.cli.services.as_json import services_to_json
from bus.cli.services.job_lines import job_lines
from bus.cli.trace import commands as trace_commands
from bus.cli.trace import stored_jobs
from bus.cli.trace.sources import Reading
from bus.errors import Unavailable
from bus.messaging.ports.store import Store
from bus.messaging.service_info import InstanceStats, Series
from bus.operations.message_trace.model import TraceSources
from bus.runtime.discovery.job_summary import summarize_jobs
from bus.runtime.discovery.service_summary import summarize_services
from tests.unit.cli.jobs.shelf import IDS, SECRET, Shelf
from tests.unit.runtime.discovery.records import stats, view_of

ROWS = ("queued", "running", "retrying", "succeeded", "failed", "cancelled")


def rows(
    *counts: int, waits: float = 0.0, operation: str = "shelf.scan", version: str = "1"
) -> list[Series]:
    labels = {"operation": operation, "version": version}
    return [
        *(
            Series(name="jobs.rows", labels={**labels, "state": state}, value=count)
            for state, count in zip(ROWS, counts, strict=True)
        ),
        Series(name="jobs.oldest_waiting", labels=labels, value=waits),
    ]


def instance(name: str, *series: Series) -> InstanceStats:
    return stats(name, series=series)


# --- bus top, bus services ---


def test_the_rows_of_all_instances_are_the_same_rows_so_they_are_not_added() -> None:
    records = [
        instance("a", *rows(3, 1, 0, 9, 0, 0, waits=20)),
        instance("b", *rows(2, 2, 0, 9, 0, 0, waits=25)),
    ]
    (row,) = summarize_jobs(records)
    assert (row.counts, row.oldest_waiting) == ("3 queued, 2 running, 9 succeeded", 25)


def test_a_line_for_each_type_tells_how_long_the_oldest_job_waits() -> None:
    record = instance(
        "a",
        *rows(3, 1, 0, 0, 2, 0, waits=240),
        *rows(0, 1, 0, 0, 0, 0, operation="shelf.sort"),
        *rows(0, 0, 0, 0, 0, 0, operation="shelf.idle"),
    )
    assert [line.plain for line in job_lines([record])] == [
        "jobs of shelf.scan.v1: 3 queued, 1 running, 2 failed; the oldest waits 4m",
        "jobs of shelf.sort.v1: 1 running",
    ]
    assert [line.plain for line in job_lines([record], maximum=1)][1:] == [
        "jobs of 1 more type; see `bus jobs list`"
    ]


def test_the_json_of_bus_services_has_the_jobs_by_state() -> None:
    services = summarize_services(view_of(instance("a", *rows(1, 0, 0, 0, 0, 0, waits=2))).live())
    (service,) = services_to_json(services, [], at=0.0)["services"]
    (row,) = service["jobs"]
    assert (row["type"], row["states"]["queued"], row["oldest_waiting"]) == ("shelf.scan.v1", 1, 2)


def test_texts_of_an_instance_cannot_control_the_terminal() -> None:
    record = instance("a", *rows(1, 0, 0, 0, 0, 0, operation="\x1b[2J"))
    written = io.StringIO()
    for line in job_lines([record]):
        EscapingConsole(file=written).print(line)
    assert "\x1b" not in written.getvalue()


# --- bus trace ---


@pytest.fixture
def trace(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `bus trace`. No other source than the store knows a message."""

    async def nothing(*_: object, **__: object) -> Reading:
        sources = TraceSources(memories=[], letters=[])
        return Reading(sources=sources, identified=None, notes=(), alive=0)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Store]:
        yield shelf.store

    monkeypatch.setattr(trace_commands, "read_trace", nothing)
    monkeypatch.setattr(stored_jobs, "opened_store", opened)
    monkeypatch.setenv("BUS_STORE", "sqlite:////jobs.db")
    command: Any = get_command(build(["trace"], Reporter(debug=False)))
    return lambda *arguments: CliRunner().invoke(command, ["trace", *arguments])


def test_a_trace_finds_a_job_that_only_the_store_knows(shelf: Shelf, trace: Any) -> None:
    shelf.fill()
    result = trace("cccc0005")
    assert result.exit_code == 0, result.stderr
    assert "correlation id c-cccc0005: 0 messages" in result.stdout
    assert (
        "in the store: shelf.scan.v1 cccc0005 from desk: failed, last error internal at scan.py:7"
        in result.stdout
    )
    assert SECRET not in result.stdout
    by_correlation = trace("c-aaaa0002")
    assert "running, attempt 1 in w1, for" in by_correlation.stdout
    assert "retrying, attempt 2 in" in trace(IDS["retrying"]).stdout


def test_the_json_of_a_trace_has_the_jobs_and_an_unknown_id_names_the_store(
    shelf: Shelf, trace: Any
) -> None:
    shelf.fill()
    value = json.loads(trace("aaaa0001", "--json").stdout)
    assert [(job["id"], job["state"]) for job in value["jobs"]] == [("aaaa0001", "queued")]
    unknown = trace("ffff9999")
    assert "The store has no such job." in " ".join(unknown.stderr.split())


def test_a_store_that_is_away_is_a_note_of_a_trace(
    trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(stored_jobs, "opened_store", away)
    text = " ".join(trace("ffff9999").stderr.split())
    assert "The store was not read: the database does not answer." in text


# --- bus dead ---


@pytest.mark.parametrize(
    ("queue", "is_for_jobs"),
    [
        ("shelf.jobs.scan.v1", True),
        ("shelf.jobs.scan.v1.dead", True),
        ("desk.events.shelf.scanned.v1", False),
        ("shelf.requests.jobs.v1", False),
    ],
)
def test_bus_dead_knows_the_queues_of_jobs(queue: str, is_for_jobs: bool) -> None:
    assert is_job_queue(queue) is is_for_jobs
