import sys
from typing import Any

import pytest

from bus import DeadlineExceeded, NotFound, NotServed, Unavailable
from tests.unit.fakes import virtual
from workers.demo.stage import WORKERS, runnable_services, served


class Answers:
    """A bus that raises these errors, one for each request. The last one is repeated."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked = 0

    async def request(self, request: Any, *, timeout: float | None = None) -> Any:
        self.asked += 1
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
        tuple(WORKERS),
        lambda: None,
    )


@virtual
async def test_workers_that_never_answer_are_given_up() -> None:
    with pytest.raises(Unavailable, match="a worker did not answer within 120 s"):
        await served(Answers(DeadlineExceeded("slow")), tuple(WORKERS), lambda: None)


@virtual
async def test_a_worker_that_has_ended_is_not_waited_for() -> None:
    def check() -> None:
        raise Unavailable("a worker ended by itself")

    with pytest.raises(Unavailable, match="ended by itself"):
        await served(Answers(NotServed("nobody")), tuple(WORKERS), check)


def test_the_transcription_worker_is_left_out_without_the_speech_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)

    assert runnable_services() == ("documentation",)


@virtual
async def test_a_worker_that_is_left_out_is_not_waited_for() -> None:
    documents = Answers(NotFound("none"))
    await served(documents, ("documentation",), lambda: None)

    assert documents.asked == 1
