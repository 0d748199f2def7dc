"""`bus submit` while it waits for the result: no connection, and no update."""

import asyncio
from typing import cast

import pytest

from bus.cli.job_silence import JobSilence
from bus.cli.submit import report_connection
from bus.errors import Unavailable
from bus.runtime.bus import Bus
from tests.unit.fakes import virtual


class Connection:
    """A bus that is not connected in the given seconds of the loop's time."""

    def __init__(self, lost: range) -> None:
        self._lost = lost

    @property
    def ready(self) -> bool:
        return int(asyncio.get_running_loop().time()) not in self._lost


@virtual
async def test_a_lost_connection_is_told_and_so_is_its_return(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(report_connection(cast("Bus", Connection(range(5, 50)))), 100)
    assert capsys.readouterr().err.splitlines() == [
        "the connection to the broker was lost; the job continues, connecting again",
        "connected to the broker again",
    ]


@virtual
async def test_a_connection_that_does_not_return_ends_the_wait_with_an_error() -> None:
    with pytest.raises(Unavailable, match="the broker has not answered for 60 s"):
        await asyncio.wait_for(report_connection(cast("Bus", Connection(range(5, 500)))), 100)


# --- No update ---

JOB = "library.scan.v1"


async def notes(
    capsys: pytest.CaptureFixture[str],
    *,
    seconds: float,
    lost: range = range(0),
    updates: tuple[float, ...] = (),
) -> list[str]:
    """Wait for a job, with updates at these seconds, and return the lines on standard error."""
    loop = asyncio.get_running_loop()
    silence = JobSilence(JOB, "4a3111ae-5d27-4c34-a592-780d098ab7cd")
    for second in updates:
        loop.call_at(loop.time() + second, silence.end)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(silence.report(cast("Bus", Connection(lost))), seconds)
    return capsys.readouterr().err.splitlines()


@virtual
async def test_a_job_without_an_update_is_told_with_the_commands_that_find_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = await notes(capsys, seconds=12)
    assert line == (
        "no update of library.scan.v1 for 10 s; `bus queues library` shows if a worker serves it, "
        "and `bus dead list --correlation-id 4a3111ae` shows it if it failed"
    )


@virtual
async def test_the_notes_about_a_job_without_an_update_become_rarer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = await notes(capsys, seconds=700)
    times = [line.split(";")[0].rpartition(" for ")[2] for line in lines]
    assert times == ["10 s", "20 s", "40 s", "80 s", "160 s", "320 s", "640 s"]


@virtual
async def test_a_job_with_updates_has_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert await notes(capsys, seconds=33, updates=(8, 16, 24)) == []


@virtual
async def test_the_time_without_a_connection_is_not_a_time_without_an_update(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await notes(capsys, seconds=48, lost=range(5, 40)) == []
