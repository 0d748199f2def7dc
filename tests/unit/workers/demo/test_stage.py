import asyncio
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from bus import DeadlineExceeded, NotFound, NotServed, Unavailable
from bus.cli.demo import play_story
from tests.unit.fakes import virtual
from workers.demo.stage import WORKERS, RabbitMQStage, runnable_services, served


class Answers:
    """A bus that raises these errors, one for each request. The last one is repeated."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked = 0

    async def request(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: object = None,
    ) -> Any:
        self.asked += 1
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]

    async def publish(self, event: Any, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    async def submit(self, job: Any, *, timeout: float | None = None) -> Any:
        raise NotImplementedError

    def job(self, job: Any, job_id: str, *, submitter: str | None = None) -> Any:
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
async def test_workers_of_another_program_are_given_up_sooner() -> None:
    stage = RabbitMQStage("amqp://nobody/", None)
    with pytest.raises(Unavailable, match="a worker did not answer within 30 s"):
        await served(Answers(NotServed("nobody")), stage.services, stage.check, stage.start_timeout)


@virtual
async def test_a_wait_for_workers_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Story:
        def __init__(self, stage: Any, on_step: Callable[[Any], None], *_: Any, **__: Any) -> None:
            self._wait, self._on_step = stage, on_step

        async def play(self, recording: str) -> None:
            await asyncio.sleep(self._wait)
            self._on_step(SimpleNamespace(name="start the workers", outcome="processes 1 and 2"))
            await asyncio.sleep(60)
            raise Unavailable(recording)

    module = cast("ModuleType", SimpleNamespace(Story=Story))
    for seconds, told in ((1, 0), (60, 1)):
        console = Console(width=80)
        with pytest.raises(Unavailable):
            await play_story(module, seconds, console, "http://127.0.0.1/a.wav")
        assert capsys.readouterr().out.count("waiting for the answers of the workers") == told


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
