"""`bus submit` whose connection is lost while it waits for the result."""

import asyncio
from typing import cast

import pytest

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
