from typing import Any

import pytest

from bus import DeadlineExceeded, NotFound, NotServed, Unavailable
from tests.unit.fakes import virtual
from workers.demo.stage import served


class Answers:
    """A bus that raises these errors, one for each request. The last one is repeated."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def request(self, request: Any, *, timeout: float | None = None) -> Any:
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]

    async def publish(self, event: Any, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    async def submit(self, job: Any, *, timeout: float | None = None) -> Any:
        raise NotImplementedError


@virtual
async def test_workers_that_are_not_there_yet_or_take_long_for_a_first_answer_are_waited_for() -> (
    None
):
    await served(
        Answers(
            NotServed("nobody"),
            DeadlineExceeded("slow"),
            DeadlineExceeded("slow"),
            NotFound("none"),
        ),
        lambda: None,
    )


@virtual
async def test_workers_that_never_answer_are_given_up() -> None:
    with pytest.raises(Unavailable, match="a worker did not answer within 120 s"):
        await served(Answers(DeadlineExceeded("slow")), lambda: None)


@virtual
async def test_a_worker_that_has_ended_is_not_waited_for() -> None:
    def check() -> None:
        raise Unavailable("a worker ended by itself")

    with pytest.raises(Unavailable, match="ended by itself"):
        await served(Answers(NotServed("nobody")), check)
